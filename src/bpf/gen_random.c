/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* wd_hash_packet as instructions; see core/hash.c for the lanes.  Their eight words are at sp.lanes: a[4], w[4]. */
#include "gen_impl.h"

#define P1 UINT64_C(11400714785074694791)
#define P2 UINT64_C(14029467366897019727)
#define P3 UINT64_C(1609587929392839161)
#define P4 UINT64_C(9650029242287828579)

static const uint64_t key[] = {
    UINT64_C(0x428A2F9871374491), UINT64_C(0xB5C0FBCFE9B5DBA5), UINT64_C(0x3956C25B59F111F1),
    UINT64_C(0x923F82A4AB1C5ED5), UINT64_C(0xD807AA9812835B01), UINT64_C(0x243185BE550C7DC3),
    UINT64_C(0x72BE5D7480DEB1FE), UINT64_C(0x9BDC06A7C19BF174),
};

#define LANE_A(i) (g->sp.lanes + 8 * (i))
#define LANE_W(i) (g->sp.lanes + 8 * (4 + (i)))

/* r1 -> the lane, xored with its constant; r2 is lost */
static void
put_lane(struct wd_gen *g, int i)
{
    wd_asm_load_imm64(&g->a, R2, key[i]);
    wd_asm_alu(&g->a, BPF_XOR, R1, R2);
    wd_asm_store(&g->a, BPF_DW, R10, g->sp.lanes + 8 * i, R1);
}

/* A little-endian load from the stack, and into a lane. */
static void
copy_lane(struct wd_gen *g, int size, int stack_off, int i)
{
    wd_asm_load(&g->a, size, R1, R10, stack_off);
    wd_asm_little_endian(&g->a, R1, size == BPF_DW ? 64 : 32);
    put_lane(g, i);
}

/* r1 = the seed: the time in units of 100 ns */
static void
load_seed(struct wd_gen *g)
{
    wd_asm_load(&g->a, BPF_DW, R1, R10, g->sp.time);
    wd_asm_alu_imm(&g->a, BPF_DIV, R1, 100);
}

static void
seed_lane(struct wd_gen *g, int i)
{
    load_seed(g);
    put_lane(g, i);
}

/* The lanes of one class: w[0..] IPv6 addresses, transport header, seed. */
static void
gen_words(struct wd_gen *g, bool ip6, int transport_words)
{
    int used = 0;

    if (ip6) {
        copy_lane(g, BPF_DW, SP_IP + 24, 4 + used++);
        copy_lane(g, BPF_DW, SP_IP + 32, 4 + used++);
    }
    for (int i = 0; i < transport_words && used < 4; i++)
        copy_lane(g, i == 2 ? BPF_W : BPF_DW, SP_L4 + 8 * i, 4 + used++);
    while (used < 4)
        seed_lane(g, 4 + used++);
}

/* Of a TCP header behind IPv6 addresses the last word goes into the second lane. */
static void
gen_tcp_rest(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    wd_asm_load(a, BPF_W, R1, R10, SP_L4 + 16);
    wd_asm_little_endian(a, R1, 32);
    wd_asm_alu_imm(a, BPF_LSH, R1, 32);
    wd_asm_load(a, BPF_DW, R2, R10, LANE_A(1));
    wd_asm_alu(a, BPF_XOR, R2, R1);
    wd_asm_store(a, BPF_DW, R10, LANE_A(1), R2);
}

static void
gen_words_of_ip(struct wd_gen *g, bool ip6, uint32_t done)
{
    struct wd_asm *a = &g->a;
    int shift = ip6 ? 4 : 0;
    uint32_t tcp = wd_asm_label(a), other = wd_asm_label(a);

    wd_gen_if_info(g, INFO_IP4_TCP << shift, tcp);
    wd_gen_if_info(g, INFO_IP4_OTHER << shift, other);
    gen_words(g, ip6, 1);
    wd_asm_jump(a, done);
    wd_asm_bind(a, tcp);
    gen_words(g, ip6, 3);
    if (ip6)
        gen_tcp_rest(g);
    wd_asm_jump(a, done);
    wd_asm_bind(a, other);
    gen_words(g, ip6, 0);
    wd_asm_jump(a, done);
}

static void
gen_lanes(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t ip6 = wd_asm_label(a), done = wd_asm_label(a);

    seed_lane(g, 0);
    copy_lane(g, BPF_DW, SP_IP, 1);
    copy_lane(g, BPF_DW, SP_IP + 8, 2);
    wd_gen_if_info(g, INFO_IP6, ip6);
    copy_lane(g, BPF_W, SP_IP + 16, 3);
    gen_words_of_ip(g, false, done);
    wd_asm_bind(a, ip6);
    copy_lane(g, BPF_DW, SP_IP + 16, 3);
    gen_words_of_ip(g, true, done);
    wd_asm_bind(a, done);
}

/* dst = dst rotated left by n; r3 is lost */
static void
gen_rotate(struct wd_gen *g, int dst, int n)
{
    wd_asm_mov(&g->a, R3, dst);
    wd_asm_alu_imm(&g->a, BPF_LSH, R3, n);
    wd_asm_alu_imm(&g->a, BPF_RSH, dst, 64 - n);
    wd_asm_alu(&g->a, BPF_OR, dst, R3);
}

/* r1 = rotl(r1 + r2 * P2, 31) * P1; r2, r3 are lost; r4 = P1, r5 = P2 */
static void
gen_mix(struct wd_gen *g)
{
    wd_asm_alu(&g->a, BPF_MUL, R2, R5);
    wd_asm_alu(&g->a, BPF_ADD, R1, R2);
    gen_rotate(g, R1, 31);
    wd_asm_alu(&g->a, BPF_MUL, R1, R4);
}

/* r0 = (r0 ^ r0 >> n) * factor, or without the factor where it is 0 */
static void
gen_avalanche(struct wd_gen *g, int n, uint64_t factor)
{
    wd_asm_mov(&g->a, R1, R0);
    wd_asm_alu_imm(&g->a, BPF_RSH, R1, n);
    wd_asm_alu(&g->a, BPF_XOR, R0, R1);
    if (factor) {
        wd_asm_load_imm64(&g->a, R1, factor);
        wd_asm_alu(&g->a, BPF_MUL, R0, R1);
    }
}

/* v[i] = mix(w[i], a[i]), stored over a[i]; r0 = the sum of them, rotated */
static void
gen_rounds(struct wd_gen *g)
{
    static const int rotation[] = {1, 7, 12, 18};
    struct wd_asm *a = &g->a;

    wd_asm_mov_imm(a, R0, 0);
    for (int i = 0; i < 4; i++) {
        wd_asm_load(a, BPF_DW, R1, R10, LANE_W(i));
        wd_asm_load(a, BPF_DW, R2, R10, LANE_A(i));
        gen_mix(g);
        wd_asm_store(a, BPF_DW, R10, LANE_A(i), R1);
        gen_rotate(g, R1, rotation[i]);
        wd_asm_alu(a, BPF_ADD, R0, R1);
    }
}

void
wd_gen_random(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    gen_lanes(g);
    wd_asm_load_imm64(a, R4, P1);
    wd_asm_load_imm64(a, R5, P2);
    gen_rounds(g);
    for (int i = 0; i < 4; i++) {
        wd_asm_mov_imm(a, R1, 0);
        wd_asm_load(a, BPF_DW, R2, R10, LANE_A(i));
        gen_mix(g);
        wd_asm_alu(a, BPF_XOR, R0, R1);
        wd_asm_alu(a, BPF_MUL, R0, R4);
        wd_asm_load_imm64(a, R1, P4);
        wd_asm_alu(a, BPF_ADD, R0, R1);
    }
    wd_asm_alu_imm(a, BPF_ADD, R0, 32);
    gen_avalanche(g, 33, P2);
    gen_avalanche(g, 29, P3);
    gen_avalanche(g, 32, 0);
    wd_asm_store(a, BPF_W, R10, g->sp.random + RANDOM32_OFF, R0);
    wd_asm_alu_imm(a, BPF_RSH, R0, 32);
    wd_asm_store(a, BPF_H, R10, g->sp.random + RANDOM16_OFF, R0);
    wd_asm_alu_imm(a, BPF_RSH, R0, 16);
    wd_asm_store(a, BPF_B, R10, g->sp.random + RANDOM8_OFF, R0);
}
