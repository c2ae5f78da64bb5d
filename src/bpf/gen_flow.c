/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Behind the tests: is the packet's flow to be passed over?  The key (struct
 * wd_flow) is looked up in a map; what is found there is how many packets of the flow
 * have matched, or WD_FLOW_SKIPPED.
 */
#include "gen_flow.h"

#include <stddef.h>

#define FIELD(name) (g->sp.flow + (int)offsetof(struct wd_flow, name))
#define END(n) (g->sp.flow + (int)(offsetof(struct wd_flow, addr) + (n) * sizeof(uint64_t[2])))
#define PORT(n) (g->sp.flow + (int)(offsetof(struct wd_flow, port) + (n) * sizeof(uint16_t)))

/* The source's address in r1 and r2, the destination's in r3 and r4, the ports in r7 and r8. */
static void
gen_ends(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t ip4 = wd_asm_label(a), have = wd_asm_label(a), ports = wd_asm_label(a), done = wd_asm_label(a);

    wd_gen_if_info(g, INFO_IP4, ip4);
    wd_asm_load(a, BPF_DW, R1, R10, SP_IP + 8);
    wd_asm_load(a, BPF_DW, R2, R10, SP_IP + 16);
    wd_asm_load(a, BPF_DW, R3, R10, SP_IP + 24);
    wd_asm_load(a, BPF_DW, R4, R10, SP_IP + 32);
    wd_asm_jump(a, have);
    wd_asm_bind(a, ip4);
    wd_asm_mov_imm(a, R1, 0);
    wd_asm_load(a, BPF_W, R2, R10, SP_IP + 12);
    wd_asm_mov_imm(a, R3, 0);
    wd_asm_load(a, BPF_W, R4, R10, SP_IP + 16);
    wd_asm_bind(a, have);
    wd_gen_if_info(g, INFO_TCP | INFO_UDP, ports);
    wd_asm_mov_imm(a, R7, 0);
    wd_asm_mov_imm(a, R8, 0);
    wd_asm_jump(a, done);
    wd_asm_bind(a, ports);
    wd_asm_load(a, BPF_H, R7, R10, SP_L4);
    wd_asm_load(a, BPF_H, R8, R10, SP_L4 + 2);
    wd_asm_bind(a, done);
}

static void
gen_store(struct wd_gen *g, int source, int destination)
{
    struct wd_asm *a = &g->a;

    wd_asm_store(a, BPF_DW, R10, END(source), R1);
    wd_asm_store(a, BPF_DW, R10, END(source) + 8, R2);
    wd_asm_store(a, BPF_H, R10, PORT(source), R7);
    wd_asm_store(a, BPF_DW, R10, END(destination), R3);
    wd_asm_store(a, BPF_DW, R10, END(destination) + 8, R4);
    wd_asm_store(a, BPF_H, R10, PORT(destination), R8);
}

/* Both directions have one key: the smaller end comes first. */
static void
gen_key(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t keep = wd_asm_label(a), swap = wd_asm_label(a), done = wd_asm_label(a);

    gen_ends(g);
    wd_asm_jump_if(a, BPF_JGT, R1, R3, swap);
    wd_asm_jump_if(a, BPF_JLT, R1, R3, keep);
    wd_asm_jump_if(a, BPF_JGT, R2, R4, swap);
    wd_asm_jump_if(a, BPF_JLT, R2, R4, keep);
    wd_asm_jump_if(a, BPF_JGT, R7, R8, swap);
    wd_asm_bind(a, keep);
    gen_store(g, 0, 1);
    wd_asm_jump(a, done);
    wd_asm_bind(a, swap);
    gen_store(g, 1, 0);
    wd_asm_bind(a, done);
    wd_asm_load(a, BPF_B, R1, R10, SP_PROTOCOL);
    wd_asm_store(a, BPF_H, R10, FIELD(protocol), R1);
    wd_asm_load(a, BPF_B, R1, R10, SP_IP);
    wd_asm_alu_imm(a, BPF_RSH, R1, 4);
    wd_asm_store(a, BPF_H, R10, FIELD(version), R1);
}

/* r0 = the flow's count, or NULL */
static void
gen_look_up(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    wd_asm_load_map(a, R1, g->opts->flows_fd);
    wd_asm_mov(a, R2, R10);
    wd_asm_alu_imm(a, BPF_ADD, R2, g->sp.flow);
    wd_asm_call(a, BPF_FUNC_map_lookup_elem);
}

/* Not there: a count of 0, unless another CPU is faster; r0 as above. */
static void
gen_new_flow(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t there = wd_asm_label(a);

    wd_asm_store_imm(a, BPF_DW, R10, g->sp.flow_count, 0);
    wd_asm_load_map(a, R1, g->opts->flows_fd);
    wd_asm_mov(a, R2, R10);
    wd_asm_alu_imm(a, BPF_ADD, R2, g->sp.flow);
    wd_asm_mov(a, R3, R10);
    wd_asm_alu_imm(a, BPF_ADD, R3, g->sp.flow_count);
    wd_asm_mov_imm(a, R4, BPF_NOEXIST);
    wd_asm_call(a, BPF_FUNC_map_update_elem);
    wd_asm_jump_if_imm(a, BPF_JNE, R0, 0, there);
    wd_gen_count(g, WD_COUNT_FLOWS);
    wd_asm_bind(a, there);
    gen_look_up(g);
}

void
wd_gen_flow(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t match = wd_asm_label(a), found = wd_asm_label(a), skip = wd_asm_label(a);

    if (!g->opts->flow_limit)
        return;
    wd_gen_if_info(g, INFO_FRAGMENT, match);
    gen_key(g);
    gen_look_up(g);
    if (g->opts->flow_counts) {
        wd_asm_jump_if_imm(a, BPF_JNE, R0, 0, found);
        gen_new_flow(g);
        wd_asm_bind(a, found);
    }
    wd_asm_jump_if_imm(a, BPF_JEQ, R0, 0, match);
    wd_asm_load(a, BPF_DW, R1, R0, 0);
    wd_asm_jump_if_imm(a, BPF_JGE, R1, (int32_t)g->opts->flow_limit, skip);
    if (g->opts->flow_counts) {
        wd_asm_mov_imm(a, R1, 1);
        wd_asm_atomic(a, BPF_DW, BPF_ADD | BPF_FETCH, R0, 0, R1);
        wd_asm_jump_if_imm(a, BPF_JLT, R1, (int32_t)g->opts->flow_limit, match);
    } else {
        wd_asm_jump(a, match);
    }
    wd_asm_bind(a, skip);
    wd_gen_count(g, WD_COUNT_SKIPPED);
    wd_asm_jump(a, g->reject);
    wd_asm_bind(a, match);
}
