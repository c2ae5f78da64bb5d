/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "asm.h"

#include <errno.h>
#include <stdlib.h>

#define REACH 32767      /* of a jump, in instructions */
#define RELAY_EVERY 8192 /* instructions between two looks for old jumps */
#define RELAY_AGE 12288  /* a jump this old is relayed; with RELAY_EVERY and the relays themselves well below REACH */
#define UNBOUND UINT32_MAX

struct wd_asm_label {
    uint32_t at;    /* UNBOUND: not known yet */
    uint32_t relay; /* the last "ja label" that relays to it, UNBOUND: none */
};

struct wd_asm_fixup {
    uint32_t at; /* the jump */
    uint32_t label;
};

static void
fail(struct wd_asm *a, int error)
{
    if (!a->error)
        a->error = error;
}

/* The array with room for one element more, or as it was: the error sticks. */
static void *
grow(struct wd_asm *a, void *array, uint32_t count, uint32_t *room, size_t size)
{
    uint32_t wanted = *room ? *room * 2 : 64;
    void *bigger;

    if (a->error || count < *room)
        return array;
    bigger = realloc(array, wanted * size);
    if (!bigger) {
        fail(a, -ENOMEM);
        return array;
    }
    *room = wanted;
    return bigger;
}

void
wd_asm_init(struct wd_asm *a)
{
    *a = (struct wd_asm){.max = WD_ASM_INSNS_MAX, .next_relay = RELAY_EVERY};
}

void
wd_asm_free(struct wd_asm *a)
{
    free(a->insns);
    free(a->labels);
    free(a->fixups);
    *a = (struct wd_asm){.error = -EINVAL};
}

/* ---- Labels ------------------------------------------------------------- */

uint32_t
wd_asm_label(struct wd_asm *a)
{
    a->labels = grow(a, a->labels, a->label_count, &a->label_room, sizeof(*a->labels));
    if (a->error)
        return UNBOUND;
    a->labels[a->label_count] = (struct wd_asm_label){UNBOUND, UNBOUND};
    return a->label_count++;
}

void
wd_asm_bind(struct wd_asm *a, uint32_t label)
{
    if (a->error)
        return;
    if (label >= a->label_count || a->labels[label].at != UNBOUND)
        fail(a, -EINVAL);
    else
        a->labels[label].at = a->count;
}

uint32_t
wd_asm_here(struct wd_asm *a)
{
    uint32_t label = wd_asm_label(a);

    wd_asm_bind(a, label);
    return label;
}

static void
patch(struct wd_asm *a, uint32_t at, uint32_t target)
{
    int64_t off = (int64_t)target - at - 1;

    if (off > REACH || off < -REACH)
        fail(a, -E2BIG);
    else
        a->insns[at].off = (int16_t)off;
}

static void
jump(struct wd_asm *a, struct bpf_insn insn, uint32_t label)
{
    if (!a->error && label >= a->label_count)
        fail(a, -EINVAL);
    a->fixups = grow(a, a->fixups, a->fixup_count, &a->fixup_room, sizeof(*a->fixups));
    if (a->error)
        return;
    a->fixups[a->fixup_count++] = (struct wd_asm_fixup){a->count, label};
    wd_asm_emit(a, insn);
}

/* One jump: to its label where that is known, else over a relay, which is made in this round if there is none. */
static void
relay_one(struct wd_asm *a, struct wd_asm_fixup fixup, uint32_t round)
{
    struct wd_asm_label *label = &a->labels[fixup.label];

    if (label->at != UNBOUND) {
        patch(a, fixup.at, label->at);
        return;
    }
    if (label->relay == UNBOUND || label->relay < round) {
        label->relay = a->count;
        wd_asm_jump(a, fixup.label);
    }
    if (!a->error)
        patch(a, fixup.at, label->relay);
}

static void
relay_all(struct wd_asm *a, uint32_t start)
{
    uint32_t round = a->count;

    while (!a->error && a->resolved < a->fixup_count && a->fixups[a->resolved].at + RELAY_AGE < start)
        relay_one(a, a->fixups[a->resolved++], round);
}

void
wd_asm_relay(struct wd_asm *a, bool falls)
{
    uint32_t start = a->count;

    if (a->error || start < a->next_relay)
        return;
    if (falls)
        wd_asm_emit(a, (struct bpf_insn){.code = BPF_JMP | BPF_JA}); /* over the relays */
    relay_all(a, start);
    if (a->error)
        return;
    if (falls && a->count == start + 1)
        a->count = start;
    else if (falls)
        patch(a, start, a->count);
    a->next_relay = a->count + RELAY_EVERY;
}

int
wd_asm_finish(struct wd_asm *a, struct bpf_insn **ret_insns, size_t *ret_count)
{
    for (; !a->error && a->resolved < a->fixup_count; a->resolved++) {
        struct wd_asm_fixup fixup = a->fixups[a->resolved];

        if (a->labels[fixup.label].at == UNBOUND)
            fail(a, -EINVAL);
        else
            patch(a, fixup.at, a->labels[fixup.label].at);
    }
    if (a->error)
        return a->error;
    *ret_insns = a->insns;
    *ret_count = a->count;
    a->insns = NULL;
    wd_asm_free(a);
    return 0;
}

/* ---- Instructions ------------------------------------------------------- */

void
wd_asm_emit(struct wd_asm *a, struct bpf_insn insn)
{
    a->insns = grow(a, a->insns, a->count, &a->room, sizeof(*a->insns));
    if (!a->error && a->count >= a->max)
        fail(a, -E2BIG);
    if (!a->error)
        a->insns[a->count++] = insn;
}

/* One instruction: bytes of code; dst and src; offset; constant. */
static struct bpf_insn
make(int code, int dst, int src, int off, int32_t imm)
{
    return (struct bpf_insn){
        .code = (uint8_t)code,
        .dst_reg = (uint8_t)dst & 15u,
        .src_reg = (uint8_t)src & 15u,
        .off = (int16_t)off,
        .imm = imm,
    };
}

void
wd_asm_alu(struct wd_asm *a, int op, int dst, int src)
{
    wd_asm_emit(a, make(BPF_ALU64 | op | BPF_X, dst, src, 0, 0));
}

void
wd_asm_alu_imm(struct wd_asm *a, int op, int dst, int32_t imm)
{
    wd_asm_emit(a, make(BPF_ALU64 | op | BPF_K, dst, 0, 0, imm));
}

void
wd_asm_alu32(struct wd_asm *a, int op, int dst, int src)
{
    wd_asm_emit(a, make(BPF_ALU | op | BPF_X, dst, src, 0, 0));
}

void
wd_asm_alu32_imm(struct wd_asm *a, int op, int dst, int32_t imm)
{
    wd_asm_emit(a, make(BPF_ALU | op | BPF_K, dst, 0, 0, imm));
}

void
wd_asm_mov(struct wd_asm *a, int dst, int src)
{
    wd_asm_alu(a, BPF_MOV, dst, src);
}

void
wd_asm_mov_imm(struct wd_asm *a, int dst, int32_t imm)
{
    wd_asm_alu_imm(a, BPF_MOV, dst, imm);
}

/* The 16-byte form: the lower half's instruction, then one that carries only the upper half. */
static void
load_wide(struct wd_asm *a, int dst, int kind, uint32_t low, uint32_t high)
{
    wd_asm_emit(a, make(BPF_LD | BPF_DW | BPF_IMM, dst, kind, 0, (int32_t)low));
    wd_asm_emit(a, make(0, 0, 0, 0, (int32_t)high));
}

void
wd_asm_load_imm64(struct wd_asm *a, int dst, uint64_t imm)
{
    if ((uint64_t)(int64_t)(int32_t)imm == imm)
        wd_asm_mov_imm(a, dst, (int32_t)imm);
    else if (imm <= UINT32_MAX)
        wd_asm_alu32_imm(a, BPF_MOV, dst, (int32_t)imm);
    else
        load_wide(a, dst, 0, (uint32_t)imm, (uint32_t)(imm >> 32));
}

void
wd_asm_load_map(struct wd_asm *a, int dst, int fd)
{
    load_wide(a, dst, BPF_PSEUDO_MAP_FD, (uint32_t)fd, 0);
}

void
wd_asm_load_map_value(struct wd_asm *a, int dst, int fd, uint32_t off)
{
    load_wide(a, dst, BPF_PSEUDO_MAP_VALUE, (uint32_t)fd, off);
}

void
wd_asm_big_endian(struct wd_asm *a, int dst, int bits)
{
    wd_asm_emit(a, make(BPF_ALU | BPF_END | BPF_TO_BE, dst, 0, 0, bits));
}

void
wd_asm_little_endian(struct wd_asm *a, int dst, int bits)
{
    wd_asm_emit(a, make(BPF_ALU | BPF_END | BPF_TO_LE, dst, 0, 0, bits));
}

void
wd_asm_load(struct wd_asm *a, int size, int dst, int src, int off)
{
    wd_asm_emit(a, make(BPF_LDX | BPF_MEM | size, dst, src, off, 0));
}

void
wd_asm_store(struct wd_asm *a, int size, int dst, int off, int src)
{
    wd_asm_emit(a, make(BPF_STX | BPF_MEM | size, dst, src, off, 0));
}

void
wd_asm_store_imm(struct wd_asm *a, int size, int dst, int off, int32_t imm)
{
    wd_asm_emit(a, make(BPF_ST | BPF_MEM | size, dst, 0, off, imm));
}

void
wd_asm_atomic(struct wd_asm *a, int size, int op, int dst, int off, int src)
{
    wd_asm_emit(a, make(BPF_STX | BPF_ATOMIC | size, dst, src, off, op));
}

void
wd_asm_call(struct wd_asm *a, int helper)
{
    wd_asm_emit(a, make(BPF_JMP | BPF_CALL, 0, 0, 0, helper));
}

void
wd_asm_call_kernel(struct wd_asm *a, uint32_t btf_id)
{
    wd_asm_emit(a, make(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, (int32_t)btf_id));
}

void
wd_asm_exit(struct wd_asm *a)
{
    wd_asm_emit(a, make(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
}

void
wd_asm_jump(struct wd_asm *a, uint32_t label)
{
    wd_asm_jump_code(a, BPF_JMP | BPF_JA, label);
}

void
wd_asm_jump_code(struct wd_asm *a, int code, uint32_t label)
{
    jump(a, make(code, 0, 0, 0, 0), label);
}

void
wd_asm_jump_if(struct wd_asm *a, int op, int dst, int src, uint32_t label)
{
    jump(a, make(BPF_JMP | op | BPF_X, dst, src, 0, 0), label);
}

void
wd_asm_jump_if_imm(struct wd_asm *a, int op, int dst, int32_t imm, uint32_t label)
{
    jump(a, make(BPF_JMP | op | BPF_K, dst, 0, 0, imm), label);
}

void
wd_asm_jump32_if_imm(struct wd_asm *a, int op, int dst, uint32_t imm, uint32_t label)
{
    jump(a, make(BPF_JMP32 | op | BPF_K, dst, 0, 0, (int32_t)imm), label);
}
