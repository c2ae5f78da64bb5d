/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The bpf(2) calls we need, without libbpf: programs from instructions, maps, test runs.  All descriptors are
 * close-on-exec. */
#ifndef WD_BPF_LOAD_H
#define WD_BPF_LOAD_H

#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/*
 * Loads.  On refusal by the verifier the end of its log is in err->text and
 * the result is -EACCES/-EINVAL/-E2BIG as the kernel said; no rights: -EPERM.
 * name: at most 15 bytes, cut.
 */
int wd_bpf_load(enum bpf_prog_type type, const struct bpf_insn *insns, size_t count, const char *name, int *ret_fd,
                struct wd_error *err);

/* flags: BPF_F_MMAPABLE ... .  For a ring buffer entries is its size in bytes (power of two, page aligned). */
int wd_bpf_map(enum bpf_map_type type, const char *name, uint32_t key_size, uint32_t value_size, uint32_t entries,
               uint32_t flags, int *ret_fd, struct wd_error *err);

/* BPF_PROG_TEST_RUN: packet includes a 14-byte Ethernet header for SOCKET_FILTER programs on the kernels that want
 * it. */
int wd_bpf_test_run(int prog_fd, const void *data, size_t len, const void *ctx, size_t ctx_len, uint32_t *ret_value,
                    struct wd_error *err);

#endif
