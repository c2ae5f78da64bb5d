/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The header parser as instructions; decides as wd_packet_parse does.
 *
 * While it runs: r7 = where the packet ends (IP length, cut to what is there),
 * r8 = offset of the header in hand, r9 = its protocol number.
 */
#include <netinet/in.h>

#include "gen_impl.h"

#define IP4_MIN 20
#define IP6_LEN 40
#define TCP_MIN 20
#define OTHER_MIN 8    /* UDP, ICMP, ICMPv6 */
#define HEADERS_MAX 32 /* where loops must be bounded */
#define MAY_GOTO 0xE0  /* BPF_JMP | BPF_JCOND: Linux 6.9 */
#define MOBILITY 135

/* At SP_WALK.  Never 0: the verifier remembers zeros. */
enum walk {
    WALK_IP4 = 1,
    WALK_IP6 = 2,
    WALK_FRAGMENT = 4,
    WALK_LATER = 8, /* a fragment that is not the first */
};

static void
load_be16(struct wd_gen *g, int dst, int stack_off)
{
    wd_asm_load(&g->a, BPF_H, dst, R10, stack_off);
    wd_asm_big_endian(&g->a, dst, 16);
}

/* r7 = the smaller of r7 and the bytes there are, which are left in r2 */
static void
gen_cut(struct wd_gen *g)
{
    uint32_t whole = wd_asm_label(&g->a);

    wd_gen_load_skb(g, R2, SKB_LEN);
    wd_asm_jump_if(&g->a, BPF_JLE, R7, R2, whole);
    wd_asm_mov(&g->a, R7, R2);
    wd_asm_bind(&g->a, whole);
}

/* ---- The IP header ------------------------------------------------------ */

/* To SP_IP: 20 bytes, or 40 if the filter reads that far and they are there.  The rest is then 0. */
static void
gen_load_ip(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t loaded = wd_asm_label(a);

    if (g->needs.ip6_addr) {
        wd_asm_mov_imm(a, R2, 0);
        wd_gen_load_bytes(g, SP_IP, IP6_LEN);
        wd_asm_jump_if_imm(a, BPF_JEQ, R0, 0, loaded);
    }
    wd_asm_mov_imm(a, R2, 0);
    wd_gen_load_bytes(g, SP_IP, IP4_MIN);
    wd_asm_jump_if_imm(a, BPF_JNE, R0, 0, g->reject);
    wd_asm_bind(a, loaded);
}

/* r7 = total length, r8 = header length; a length of 0 stands for more than the field can say (BIG TCP) */
static void
gen_big4(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t usual = wd_asm_label(a);

    if (!g->opts->big) {
        wd_asm_jump_if(a, BPF_JLT, R7, R8, g->reject);
        return;
    }
    wd_asm_jump_if(a, BPF_JGE, R7, R8, usual);
    wd_asm_jump_if_imm(a, BPF_JNE, R7, 0, g->reject);
    wd_gen_load_skb(g, R7, SKB_LEN);
    wd_asm_jump_if_imm(a, BPF_JLE, R7, UINT16_MAX, g->reject);
    wd_asm_bind(a, usual);
}

/* The same for IPv6, r7 = length behind the header. */
static void
gen_big6(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t usual = wd_asm_label(a), done = wd_asm_label(a);

    if (g->opts->big) {
        wd_asm_jump_if_imm(a, BPF_JNE, R7, 0, usual);
        wd_gen_load_skb(g, R2, SKB_LEN);
        wd_asm_jump_if_imm(a, BPF_JLE, R2, UINT16_MAX + IP6_LEN, usual);
        wd_asm_mov(a, R7, R2);
        wd_asm_jump(a, done);
        wd_asm_bind(a, usual);
    }
    wd_asm_alu_imm(a, BPF_ADD, R7, IP6_LEN);
    wd_asm_bind(a, done);
}

/* r1 = first byte */
static void
gen_ip4(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t whole = wd_asm_label(a), first = wd_asm_label(a);

    wd_asm_mov(a, R8, R1);
    wd_asm_alu_imm(a, BPF_AND, R8, 0x0F);
    wd_asm_alu_imm(a, BPF_LSH, R8, 2);
    wd_asm_jump_if_imm(a, BPF_JLT, R8, IP4_MIN, g->reject);
    load_be16(g, R7, SP_IP + 2);
    gen_big4(g);
    gen_cut(g);
    wd_asm_jump_if(a, BPF_JGT, R8, R2, g->reject);
    if (!g->needs.transport)
        return;
    wd_asm_load(a, BPF_B, R9, R10, SP_IP + 9);
    load_be16(g, R1, SP_IP + 6); /* reserved, DF, MF, 13 bits of offset */
    wd_asm_mov_imm(a, R2, WALK_IP4);
    wd_asm_mov(a, R3, R1);
    wd_asm_alu_imm(a, BPF_AND, R3, 0x3FFF);
    wd_asm_jump_if_imm(a, BPF_JEQ, R3, 0, whole);
    wd_asm_mov_imm(a, R2, WALK_IP4 | WALK_FRAGMENT);
    wd_asm_alu_imm(a, BPF_AND, R1, 0x1FFF);
    wd_asm_jump_if_imm(a, BPF_JEQ, R1, 0, first);
    wd_asm_mov_imm(a, R2, WALK_IP4 | WALK_FRAGMENT | WALK_LATER);
    wd_asm_bind(a, first);
    wd_asm_bind(a, whole);
    wd_asm_store(a, BPF_B, R10, SP_WALK, R2);
}

/* ---- IPv6 extension headers --------------------------------------------- */

/* To be left by `out`: either as often as may be (Linux 6.9), or HEADERS_MAX times. */
static uint32_t
gen_loop_begin(struct wd_gen *g, uint32_t out)
{
    struct wd_asm *a = &g->a;
    uint32_t loop;

    if (!g->opts->bounded) {
        loop = wd_asm_here(a);
        wd_asm_jump_code(a, BPF_JMP | MAY_GOTO, out);
        return loop;
    }
    wd_asm_store_imm(a, BPF_DW, R10, SP_ROUND, 0);
    loop = wd_asm_here(a);
    wd_asm_load(a, BPF_DW, R1, R10, SP_ROUND);
    wd_asm_jump_if_imm(a, BPF_JGT, R1, HEADERS_MAX, g->reject);
    wd_asm_alu_imm(a, BPF_ADD, R1, 1);
    wd_asm_store(a, BPF_DW, R10, SP_ROUND, R1);
    return loop;
}

/* The verifier must not tell the rounds of a loop apart by what is in a register. */
static void
gen_hide(struct wd_gen *g, int reg)
{
    wd_asm_store(&g->a, BPF_W, R10, SP_HIDE, reg);
    wd_asm_load(&g->a, BPF_W, reg, R10, SP_HIDE);
}

/* A fragment header: 8 bytes; bytes 2 and 3: 13 bits of offset, 2 reserved, more.  r1 = length. */
static void
gen_fragment_header(struct wd_gen *g, uint32_t done)
{
    struct wd_asm *a = &g->a;
    uint32_t first = wd_asm_label(a);

    wd_asm_load(a, BPF_B, R1, R10, SP_WALK);
    wd_asm_jump_if_imm(a, BPF_JSET, R1, WALK_FRAGMENT, done);
    wd_asm_mov_imm(a, R2, WALK_IP6 | WALK_FRAGMENT);
    load_be16(g, R1, SP_BYTES + 2);
    wd_asm_jump_if_imm(a, BPF_JLE, R1, 7, first);
    wd_asm_mov_imm(a, R2, WALK_IP6 | WALK_FRAGMENT | WALK_LATER);
    wd_asm_bind(a, first);
    wd_asm_store(a, BPF_B, R10, SP_WALK, R2);
    wd_asm_mov_imm(a, R1, 8);
}

/* r1 = length of the extension header whose first bytes are at SP_BYTES; not one, or a second fragment's: to done. */
static void
gen_extension_length(struct wd_gen *g, uint32_t done)
{
    static const uint8_t in_8_bytes[] = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, MOBILITY};
    struct wd_asm *a = &g->a;
    uint32_t eights = wd_asm_label(a), ah = wd_asm_label(a), have = wd_asm_label(a);

    wd_asm_load(a, BPF_B, R1, R10, SP_BYTES + 1);
    for (size_t i = 0; i < sizeof(in_8_bytes); i++)
        wd_asm_jump_if_imm(a, BPF_JEQ, R9, in_8_bytes[i], eights);
    wd_asm_jump_if_imm(a, BPF_JEQ, R9, IPPROTO_AH, ah);
    wd_asm_jump_if_imm(a, BPF_JNE, R9, IPPROTO_FRAGMENT, done);
    gen_fragment_header(g, done);
    wd_asm_jump(a, have);
    wd_asm_bind(a, ah);
    wd_asm_alu_imm(a, BPF_ADD, R1, 2);
    wd_asm_alu_imm(a, BPF_LSH, R1, 2);
    wd_asm_jump(a, have);
    wd_asm_bind(a, eights);
    wd_asm_alu_imm(a, BPF_ADD, R1, 1);
    wd_asm_alu_imm(a, BPF_LSH, R1, 3);
    wd_asm_bind(a, have);
}

/* A header that is cut off, or that follows a later fragment's header, ends the walk. */
static void
gen_walk(struct wd_gen *g)
{
    static const uint8_t transport[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6};
    struct wd_asm *a = &g->a;
    uint32_t done = wd_asm_label(a), loop = gen_loop_begin(g, done);

    gen_hide(g, R7);
    gen_hide(g, R8);
    for (size_t i = 0; i < sizeof(transport); i++) /* the usual ones first */
        wd_asm_jump_if_imm(a, BPF_JEQ, R9, transport[i], done);
    wd_asm_mov(a, R1, R8);
    wd_asm_alu_imm(a, BPF_ADD, R1, 8);
    wd_asm_jump_if(a, BPF_JGT, R1, R7, done);
    wd_asm_mov(a, R2, R8);
    wd_gen_load_bytes(g, SP_BYTES, 4);
    gen_extension_length(g, done);
    wd_asm_alu(a, BPF_ADD, R1, R8);
    wd_asm_jump_if(a, BPF_JGT, R1, R7, done);
    wd_asm_mov(a, R8, R1);
    wd_asm_load(a, BPF_B, R9, R10, SP_BYTES);
    wd_asm_load(a, BPF_B, R1, R10, SP_WALK);
    wd_asm_jump_if_imm(a, BPF_JSET, R1, WALK_LATER, done);
    wd_asm_jump(a, loop);
    wd_asm_bind(a, done);
}

static void
gen_ip6(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    load_be16(g, R7, SP_IP + 4);
    gen_big6(g);
    gen_cut(g);
    wd_asm_jump_if_imm(a, BPF_JLT, R2, IP6_LEN, g->reject);
    if (!g->needs.transport)
        return;
    wd_asm_store_imm(a, BPF_B, R10, SP_WALK, WALK_IP6);
    wd_asm_load(a, BPF_B, R9, R10, SP_IP + 6);
    wd_asm_mov_imm(a, R8, IP6_LEN);
    gen_walk(g);
}

/* ---- The transport header ----------------------------------------------- */

/*
 * To SP_L4: 20 bytes, or what there is of the 8 that a short packet may end
 * with; the rest is then 0.  r5 = bytes left in the packet, r1 = SP_WALK.
 */
static void
gen_load_transport(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t loaded = wd_asm_label(a);

    wd_asm_store(a, BPF_B, R10, SP_PROTOCOL, R9);
    wd_asm_mov(a, R2, R8);
    wd_gen_load_bytes(g, SP_L4, TCP_MIN);
    wd_asm_jump_if_imm(a, BPF_JEQ, R0, 0, loaded);
    wd_asm_mov(a, R2, R8);
    wd_gen_load_bytes(g, SP_L4, OTHER_MIN);
    wd_asm_bind(a, loaded);
    wd_asm_mov(a, R5, R7);
    wd_asm_alu(a, BPF_SUB, R5, R8);
    wd_asm_load(a, BPF_B, R1, R10, SP_WALK);
}

/* r4 = length of the header, r3 = its bit, as of IPv4, in the info word; no TCP: to none.  Cut to what is left. */
static void
gen_tcp(struct wd_gen *g, uint32_t none)
{
    struct wd_asm *a = &g->a;
    uint32_t whole = wd_asm_label(a);

    wd_asm_jump_if_imm(a, BPF_JLT, R5, TCP_MIN, none);
    wd_asm_load(a, BPF_B, R2, R10, SP_L4 + 12);
    wd_asm_alu_imm(a, BPF_RSH, R2, 4);
    wd_asm_jump_if_imm(a, BPF_JLT, R2, TCP_MIN / 4, none);
    wd_asm_alu_imm(a, BPF_LSH, R2, 2);
    wd_asm_mov(a, R4, R2);
    wd_asm_mov_imm(a, R3, INFO_IP4_TCP);
    wd_asm_jump_if(a, BPF_JLE, R4, R5, whole);
    wd_asm_mov(a, R4, R5);
    wd_asm_bind(a, whole);
}

/* The same for the others; walk: WALK_x without which it is none, 0: no such thing. */
static void
gen_short_header(struct wd_gen *g, uint32_t bit, uint32_t walk, uint32_t none)
{
    struct wd_asm *a = &g->a;

    wd_asm_jump_if_imm(a, BPF_JLT, R5, OTHER_MIN, none);
    if (walk)
        wd_asm_jump_if_imm(a, BPF_JSET, R1, (WALK_IP4 | WALK_IP6) & ~walk, none);
    wd_asm_mov_imm(a, R4, OTHER_MIN);
    wd_asm_mov_imm(a, R3, (int32_t)bit);
}

/* r3, r4 as above */
static void
gen_transport(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t none = wd_asm_label(a), done = wd_asm_label(a), tcp = wd_asm_label(a), udp = wd_asm_label(a),
             icmp = wd_asm_label(a);

    gen_load_transport(g);
    wd_asm_jump_if_imm(a, BPF_JSET, R1, WALK_LATER, none);
    wd_asm_jump_if_imm(a, BPF_JEQ, R9, IPPROTO_TCP, tcp);
    wd_asm_jump_if_imm(a, BPF_JEQ, R9, IPPROTO_UDP, udp);
    wd_asm_jump_if_imm(a, BPF_JEQ, R9, IPPROTO_ICMP, icmp);
    wd_asm_jump_if_imm(a, BPF_JNE, R9, IPPROTO_ICMPV6, none);
    gen_short_header(g, INFO_IP4_ICMP, WALK_IP6, none);
    wd_asm_jump(a, done);
    wd_asm_bind(a, icmp);
    gen_short_header(g, INFO_IP4_ICMP, WALK_IP4, none);
    wd_asm_jump(a, done);
    wd_asm_bind(a, udp);
    gen_short_header(g, INFO_IP4_UDP, 0, none);
    wd_asm_jump(a, done);
    wd_asm_bind(a, tcp);
    gen_tcp(g, none);
    wd_asm_jump(a, done);
    wd_asm_bind(a, none);
    wd_asm_mov_imm(a, R3, INFO_IP4_OTHER);
    wd_asm_mov_imm(a, R4, 0);
    wd_asm_bind(a, done);
}

/* r3 becomes the info word; where the payload is and how long goes to the stack. */
static void
gen_info(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t ip4 = wd_asm_label(a), whole = wd_asm_label(a);

    wd_asm_alu(a, BPF_ADD, R8, R4);
    wd_asm_store(a, BPF_W, R10, SP_DATA, R8);
    wd_asm_alu(a, BPF_SUB, R7, R8);
    wd_asm_store(a, BPF_W, R10, SP_LEFT, R7);
    wd_asm_load(a, BPF_B, R1, R10, SP_WALK);
    wd_asm_jump_if_imm(a, BPF_JSET, R1, WALK_IP4, ip4);
    wd_asm_alu_imm(a, BPF_LSH, R3, 4);
    wd_asm_bind(a, ip4);
    wd_asm_alu_imm(a, BPF_AND, R1, WALK_FRAGMENT);
    wd_asm_jump_if_imm(a, BPF_JEQ, R1, 0, whole);
    wd_asm_alu_imm(a, BPF_OR, R3, INFO_FRAGMENT);
    wd_asm_bind(a, whole);
}

void
wd_gen_parse(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t ip4 = wd_asm_label(a), done = wd_asm_label(a);

    gen_load_ip(g);
    wd_asm_load(a, BPF_B, R1, R10, SP_IP);
    wd_asm_mov(a, R2, R1);
    wd_asm_alu_imm(a, BPF_RSH, R2, 4);
    wd_asm_jump_if_imm(a, BPF_JEQ, R2, 4, ip4);
    wd_asm_jump_if_imm(a, BPF_JNE, R2, 6, g->reject);
    gen_ip6(g);
    if (!g->needs.transport)
        wd_asm_mov_imm(a, R3, INFO_IP6_OTHER);
    wd_asm_jump(a, done);
    wd_asm_bind(a, ip4);
    gen_ip4(g);
    if (!g->needs.transport)
        wd_asm_mov_imm(a, R3, INFO_IP4_OTHER);
    wd_asm_bind(a, done);
    if (g->needs.transport) {
        gen_transport(g);
        gen_info(g);
    }
    wd_asm_store(a, BPF_W, R10, SP_INFO, R3);
}

/* ---- Addresses and ports by direction ----------------------------------- */

void
wd_gen_hidden_zero(struct wd_gen *g, int dst)
{
    wd_asm_load(&g->a, BPF_W, dst, R10, SP_INFO);
    wd_asm_alu_imm(&g->a, BPF_AND, dst, INFO_NEVER);
}

void
wd_gen_if_info(struct wd_gen *g, uint32_t bits, uint32_t label)
{
    wd_gen_read(g, BPF_W, R0, SP_INFO);
    wd_asm_jump_if_imm(&g->a, BPF_JSET, R0, (int32_t)bits, label);
}

/* Four bytes of the header as a number. */
static void
copy_word(struct wd_gen *g, int to, int from)
{
    wd_asm_load(&g->a, BPF_W, R1, R10, from);
    wd_asm_big_endian(&g->a, R1, 32);
    wd_asm_store(&g->a, BPF_W, R10, to, R1);
}

/* The words of a number of 8 bytes are stored the other way round where this is 1. */
enum { SWAPPED = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ };

/* ::ffff:a.b.c.d; word 0 is the highest of the address */
static void
mapped_address(struct wd_gen *g, int from, int stack_off)
{
    struct wd_asm *a = &g->a;

    wd_gen_hidden_zero(g, R2);
    wd_asm_store(a, BPF_W, R10, stack_off, R2);
    wd_asm_store(a, BPF_W, R10, stack_off + 4, R2);
    wd_asm_alu32_imm(a, BPF_OR, R2, 0xFFFF);
    for (int word = 2; word < 4; word++) {
        if ((word ^ SWAPPED) == 3)
            copy_word(g, stack_off + 4 * word, from);
        else
            wd_asm_store(a, BPF_W, R10, stack_off + 4 * word, R2);
    }
}

void
wd_gen_address(struct wd_gen *g, bool source, bool of_ip4, int stack_off)
{
    struct wd_asm *a = &g->a;
    uint32_t ip4 = wd_asm_label(a), done = wd_asm_label(a);

    if (of_ip4)
        wd_gen_if_info(g, INFO_IP4, ip4);
    for (int word = 0; word < 4; word++)
        copy_word(g, stack_off + 4 * word, SP_IP + (source ? 8 : 24) + 4 * (word ^ SWAPPED));
    if (of_ip4)
        wd_asm_jump(a, done);
    wd_asm_bind(a, ip4);
    if (of_ip4)
        mapped_address(g, SP_IP + (source ? 12 : 16), stack_off);
    wd_asm_bind(a, done);
}

/* ICMP has no ports: its type stands for the source port, 0 for the other. */
void
wd_gen_port(struct wd_gen *g, bool source, int stack_off)
{
    struct wd_asm *a = &g->a;
    uint32_t ports = wd_asm_label(a), done = wd_asm_label(a);

    wd_gen_if_info(g, INFO_TCP | INFO_UDP, ports);
    wd_gen_hidden_zero(g, R1);
    if (source) {
        wd_gen_if_info(g, INFO_IP4_OTHER | INFO_IP6_OTHER, done);
        wd_asm_load(a, BPF_B, R1, R10, SP_L4);
    }
    wd_asm_jump(a, done);
    wd_asm_bind(a, ports);
    load_be16(g, R1, SP_L4 + (source ? 0 : 2));
    wd_asm_bind(a, done);
    wd_asm_store(a, BPF_H, R10, stack_off, R1);
}
