/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Emits eBPF instructions.  Pure: no system call.  Emitters return nothing:
 * the first error sticks in `error`, later calls do nothing, and the caller
 * looks once, at the end (wd_asm_finish).
 */
#ifndef WD_BPF_ASM_H
#define WD_BPF_ASM_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WD_ASM_INSNS_MAX 1000000 /* the verifier takes no longer program */

struct wd_asm_label;
struct wd_asm_fixup;

struct wd_asm {
    int error; /* 0, -ENOMEM, -E2BIG (program or jump too long), -EINVAL (misuse) */
    struct bpf_insn *insns;
    uint32_t count, room, max;
    struct wd_asm_label *labels;
    uint32_t label_count, label_room;
    struct wd_asm_fixup *fixups; /* the jumps, in the order of the instructions */
    uint32_t fixup_count, fixup_room;
    uint32_t resolved;   /* fixups before this one are done */
    uint32_t next_relay; /* instruction count at which wd_asm_relay looks again */
};

void wd_asm_init(struct wd_asm *a);
void wd_asm_free(struct wd_asm *a);
/*
 * Resolves all jumps.  0 or the sticky error (-EINVAL: a label was never
 * bound).  On success the instructions, malloc'ed, belong to the caller.
 */
int wd_asm_finish(struct wd_asm *a, struct bpf_insn **ret_insns, size_t *ret_count);

/* A new label; each is bound once, before or after the jumps to it. */
uint32_t wd_asm_label(struct wd_asm *a);
void wd_asm_bind(struct wd_asm *a, uint32_t label);
uint32_t wd_asm_here(struct wd_asm *a); /* a new label, bound here */
/*
 * To be called every few hundred instructions at most: jumps reach 32,767
 * instructions, so a pending jump that gets old is led over a relay, "ja
 * label", placed here.  falls: execution can come here from the instruction
 * before, and is led around the relays.
 */
void wd_asm_relay(struct wd_asm *a, bool falls);

void wd_asm_emit(struct wd_asm *a, struct bpf_insn insn);

/* op: BPF_ADD, BPF_AND, BPF_MOV, ...; 64 bits, or 32 with the upper half cleared */
void wd_asm_alu(struct wd_asm *a, int op, int dst, int src);
void wd_asm_alu_imm(struct wd_asm *a, int op, int dst, int32_t imm);
void wd_asm_alu32(struct wd_asm *a, int op, int dst, int src);
void wd_asm_alu32_imm(struct wd_asm *a, int op, int dst, int32_t imm);
void wd_asm_mov(struct wd_asm *a, int dst, int src);
void wd_asm_mov_imm(struct wd_asm *a, int dst, int32_t imm);
void wd_asm_load_imm64(struct wd_asm *a, int dst, uint64_t imm); /* one instruction where the value allows it */
void wd_asm_load_map(struct wd_asm *a, int dst, int fd);
void wd_asm_load_map_value(struct wd_asm *a, int dst, int fd, uint32_t off); /* address within an array's one value */
void wd_asm_big_endian(struct wd_asm *a, int dst, int bits);                 /* to or from; 16 clears the rest */
void wd_asm_little_endian(struct wd_asm *a, int dst, int bits);

/* size: BPF_B, BPF_H, BPF_W, BPF_DW */
void wd_asm_load(struct wd_asm *a, int size, int dst, int src, int off);
void wd_asm_store(struct wd_asm *a, int size, int dst, int off, int src);
void wd_asm_store_imm(struct wd_asm *a, int size, int dst, int off, int32_t imm);
void wd_asm_atomic(struct wd_asm *a, int size, int op, int dst, int off, int src);

void wd_asm_call(struct wd_asm *a, int helper);
void wd_asm_call_kernel(struct wd_asm *a, uint32_t btf_id); /* a kernel function */
void wd_asm_exit(struct wd_asm *a);

void wd_asm_jump(struct wd_asm *a, uint32_t label);
void wd_asm_jump_code(struct wd_asm *a, int code, uint32_t label); /* any code without operands */
/* op: BPF_JEQ, BPF_JSET, ...; 64 bits (imm is sign-extended), or the lower 32 */
void wd_asm_jump_if(struct wd_asm *a, int op, int dst, int src, uint32_t label);
void wd_asm_jump_if_imm(struct wd_asm *a, int op, int dst, int32_t imm, uint32_t label);
void wd_asm_jump32_if_imm(struct wd_asm *a, int op, int dst, uint32_t imm, uint32_t label);

#endif
