/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The bpf(2) calls we need, without libbpf: programs from instructions, maps, test runs.  All descriptors are
 * close-on-exec. */
#ifndef WD_BPF_LOAD_H
#define WD_BPF_LOAD_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/*
 * Loads.  On refusal by the verifier the end of its log is in err->text and
 * the result is -EACCES/-EINVAL/-E2BIG as the kernel said; no rights: -EPERM.
 * name: at most 15 bytes, cut.
 */
#define WD_BPF_PROG_TYPE_NETFILTER ((enum bpf_prog_type)32) /* Linux 6.4; not in older headers */
int wd_bpf_load(enum bpf_prog_type type, const struct bpf_insn *insns, size_t count, const char *name, int *ret_fd,
                struct wd_error *err);

/* flags: BPF_F_MMAPABLE ... .  For a ring buffer entries is its size in bytes (power of two, page aligned). */
int wd_bpf_map(enum bpf_map_type type, const char *name, uint32_t key_size, uint32_t value_size, uint32_t entries,
               uint32_t flags, int *ret_fd, struct wd_error *err);

/*
 * Attaches a NETFILTER program to a hook of the calling thread's network
 * namespace; closing the descriptor detaches it, which flushes every NFQUEUE of
 * the namespace.  pf: NFPROTO_IPV4 or NFPROTO_IPV6; hooknum: NF_INET_x.
 */
int wd_bpf_link_netfilter(int prog_fd, uint32_t pf, uint32_t hooknum, int32_t priority, int *ret_fd,
                          struct wd_error *err);

/* Sets the one entry of an array of programs, or empties it (prog_fd < 0).  0 or -errno. */
int wd_bpf_set_prog(int map_fd, int prog_fd);

/* Sets an element of a hash map.  flags: BPF_ANY, BPF_EXIST, BPF_NOEXIST.  0 or -errno. */
int wd_bpf_map_set(int map_fd, const void *key, const void *value, uint64_t flags);

/* Whether the kernel takes programs with loops that it does not count (may_goto, Linux 6.9): tried once. */
bool wd_bpf_can_loop(void);

/*
 * BPF_PROG_TEST_RUN of a SOCKET_FILTER program on a packet that begins with its
 * IP header, as the program finds it at a netfilter hook.  (The kernel takes
 * frames; it strips the Ethernet header, which is put in front here.)
 * ctx: a struct __sk_buff with what the kernel lets a test choose (priority,
 * mark, cb, ifindex), the rest 0; NULL: none.  -EINVAL: an empty packet or one
 * over a page, which the kernel refuses.
 */
int wd_bpf_test_run(int prog_fd, const void *data, size_t len, const void *ctx, size_t ctx_len, uint32_t *ret_value,
                    struct wd_error *err);

/* Runs a program of type SCHED_CLS or SOCKET_FILTER once on an Ethernet frame; ctx: a struct __sk_buff. */
int wd_bpf_run_frame(int prog_fd, const void *frame, size_t len, const void *ctx, size_t ctx_len, uint32_t *ret_value,
                     struct wd_error *err);
/*
 * The same of a NETFILTER program, as if at a hook (NF_INET_x) of this protocol
 * family; the device is lo.  *ret_value: NF_DROP, NF_ACCEPT.
 */
int wd_bpf_test_run_netfilter(int prog_fd, uint32_t pf, uint32_t hooknum, const void *data, size_t len,
                              uint32_t *ret_value, struct wd_error *err);

#endif
