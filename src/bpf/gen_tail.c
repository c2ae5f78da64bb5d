/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "gen_tail.h"

#include <stddef.h>

#define FIELD(name) ((int)offsetof(struct wd_tail, name))

_Static_assert(sizeof(struct wd_tail) % 8 == 0, "records are aligned");

/* r2 = offset, r4 = length; to a member of the record in r9 */
static void
copy_to(struct wd_gen *g, int member)
{
    wd_asm_mov(&g->a, R3, R9);
    wd_asm_alu_imm(&g->a, BPF_ADD, R3, member);
    wd_gen_copy(g);
}

void
wd_gen_tail(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t done = wd_asm_label(a);

    wd_gen_load_skb(g, R7, SKB_LEN);
    wd_asm_jump_if_imm(a, BPF_JLE, R7, WD_TAIL_FROM, done);
    wd_asm_jump_if_imm(a, BPF_JGT, R7, WD_TAIL_FROM + WD_TAIL_MAX, done);
    wd_asm_load_map(a, R1, g->opts->ring_fd);
    wd_asm_mov_imm(a, R2, sizeof(struct wd_tail));
    wd_asm_mov_imm(a, R3, 0);
    wd_asm_call(a, BPF_FUNC_ringbuf_reserve);
    wd_asm_jump_if_imm(a, BPF_JEQ, R0, 0, done);
    wd_asm_mov(a, R9, R0);
    wd_asm_store(a, BPF_W, R9, FIELD(len), R7);
    wd_asm_mov_imm(a, R2, 0);
    wd_asm_mov_imm(a, R4, WD_TAIL_HEAD);
    copy_to(g, FIELD(head));
    wd_asm_mov_imm(a, R2, WD_TAIL_FROM);
    wd_asm_mov(a, R4, R7);
    wd_asm_alu_imm(a, BPF_SUB, R4, WD_TAIL_FROM);
    copy_to(g, FIELD(tail));
    wd_asm_mov(a, R1, R9);
    wd_asm_mov_imm(a, R2, BPF_RB_NO_WAKEUP);
    wd_asm_call(a, BPF_FUNC_ringbuf_submit);
    wd_asm_bind(a, done);
}
