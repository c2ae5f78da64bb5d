/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* eBPF instructions as text, for goldens and bug reports.  Pure. */
#ifndef WD_BPF_DUMP_H
#define WD_BPF_DUMP_H

#include <linux/bpf.h>
#include <stddef.h>

#define WD_DUMP_LINE 96 /* room for any one line, with the NUL */

/*
 * The instruction at insns[at], in the notation of the kernel's verifier, jumps
 * with the place they lead to ("if r1 == 80 goto 12").  Returns how many
 * elements it takes: 2 for a 64-bit constant, otherwise 1.  An unknown one
 * becomes "?" and its bytes.
 */
size_t wd_dump_insn(const struct bpf_insn *insns, size_t count, size_t at, char *line, size_t size);

/*
 * All of them, one a line with its number, NUL-terminated.  Returns the bytes
 * needed, with the NUL; what does not fit is left out.
 */
size_t wd_dump(const struct bpf_insn *insns, size_t count, char *buffer, size_t size);

#endif
