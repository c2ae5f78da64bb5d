/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The values of fields: in the headers, computed from them, or of the packet as a whole. */
#include <stddef.h>

#include "gen_impl.h"

#define PREPARE_MIN 16 /* tests of a field from which on it is worth while; 1 in large programs */

static int
size_of(uint8_t width)
{
    return width == 1 ? BPF_B : width == 2 ? BPF_H : BPF_W;
}

void
wd_gen_number(struct wd_gen *g, uint8_t width, int dst, int stack_off)
{
    wd_asm_load(&g->a, size_of(width), dst, R10, stack_off);
    if (width > 1)
        wd_asm_big_endian(&g->a, dst, width * 8);
}

/* r1 = a field of the header that begins at this place of the stack */
static void
header_field(struct wd_gen *g, const struct wd_field_info *info, int header)
{
    uint64_t whole = (UINT64_C(1) << 8 * info->width) - 1;

    wd_gen_number(g, info->width, R1, header + info->off);
    wd_gen_note(g, size_of(info->width), header + info->off);
    if (info->shift)
        wd_asm_alu_imm(&g->a, BPF_RSH, R1, info->shift);
    if (info->kind != WD_KIND_ADDR4 && info->max < whole >> info->shift)
        wd_asm_alu_imm(&g->a, BPF_AND, R1, (int32_t)info->max);
}

/* r1 = a field that needs no header */
static void
meta_field(struct wd_gen *g, uint8_t field)
{
    struct wd_asm *a = &g->a;

    switch (field) {
    case WD_F_TIMESTAMP:
        wd_gen_read(g, BPF_DW, R1, g->sp.time);
        wd_asm_alu_imm(a, BPF_DIV, R1, 100);
        break;
    case WD_F_PROTOCOL:
        wd_gen_read(g, BPF_B, R1, SP_PROTOCOL);
        break;
    case WD_F_LOCALPORT:
        wd_gen_read(g, BPF_H, R1, g->sp.ports + LOCAL_PORT_OFF);
        break;
    case WD_F_REMOTEPORT:
        wd_gen_read(g, BPF_H, R1, g->sp.ports + REMOTE_PORT_OFF);
        break;
    case WD_F_IMPOSTOR:
        wd_gen_read(g, BPF_B, R1, SP_TAGGED);
        wd_asm_alu_imm(a, BPF_SUB, R1, 1);
        break;
    case WD_F_FRAGMENT:
        wd_gen_read(g, BPF_W, R1, SP_INFO);
        wd_asm_alu_imm(a, BPF_AND, R1, INFO_FRAGMENT);
        wd_asm_alu_imm(a, BPF_RSH, R1, 8);
        break;
    case WD_F_LOOPBACK:
        wd_gen_read(g, BPF_B, R1, g->sp.device + LOOPBACK_OFF);
        break;
    case WD_F_IFIDX:
        wd_gen_load_skb(g, R1, SKB_IFINDEX);
        break;
    case WD_F_LENGTH:
        wd_gen_load_skb(g, R1, SKB_LEN);
        break;
    case WD_F_RANDOM8:
        wd_gen_read(g, BPF_B, R1, g->sp.random + RANDOM8_OFF);
        break;
    case WD_F_RANDOM16:
        wd_gen_read(g, BPF_H, R1, g->sp.random + RANDOM16_OFF);
        break;
    default:
        wd_gen_read(g, BPF_W, R1, g->sp.random + RANDOM32_OFF);
        break;
    }
}

static void
load_field(struct wd_gen *g, uint8_t field)
{
    const struct wd_field_info *info = &wd_fields[field];

    if (info->src == WD_SRC_META)
        meta_field(g, field);
    else if (info->src == WD_SRC_IP4 || info->src == WD_SRC_IP6)
        header_field(g, info, SP_IP);
    else if (info->src == WD_SRC_TCPDATA || info->src == WD_SRC_UDPDATA)
        wd_gen_read(g, BPF_W, R1, SP_LEFT);
    else
        header_field(g, info, SP_L4);
}

void
wd_gen_field(struct wd_gen *g, uint8_t field)
{
    if (!g->prepared[field])
        load_field(g, field);
    else if (field == WD_F_TIMESTAMP)
        wd_gen_read(g, BPF_DW, R1, g->prepared[field]);
    else
        wd_gen_read(g, BPF_W, R1, g->prepared[field] + 4);
}

void
wd_gen_half(struct wd_gen *g, uint8_t field, bool upper, int dst)
{
    int half = upper ? 0 : 8;

    if (g->prepared[field]) {
        wd_gen_read(g, BPF_DW, dst, g->prepared[field] + half);
    } else {
        wd_gen_read(g, BPF_DW, dst, SP_IP + wd_fields[field].off + half);
        wd_asm_big_endian(&g->a, dst, 64);
    }
}

/* dst as wd_gen_without has it */
static void
class_mask(struct wd_gen *g, uint8_t with, int dst)
{
    wd_gen_read(g, BPF_W, dst, SP_INFO);
    wd_asm_alu_imm(&g->a, BPF_AND, dst, with);
    wd_asm_alu_imm(&g->a, BPF_SUB, dst, 1);
    wd_asm_alu_imm(&g->a, BPF_ARSH, dst, 63);
}

void
wd_gen_without(struct wd_gen *g, uint8_t with, int dst)
{
    for (int i = 0; g->without[i].with; i++) {
        if (g->without[i].with == with) {
            wd_gen_read(g, BPF_DW, dst, g->without[i].off);
            return;
        }
    }
    class_mask(g, with, dst);
}

/* ---- Preparing ---------------------------------------------------------- */

/* Whether a field's load is more than a load. */
static bool
worth_while(uint8_t field)
{
    const struct wd_field_info *info = &wd_fields[field];
    bool header = info->src != WD_SRC_META && info->kind != WD_KIND_ARRAY && info->width;

    return field == WD_F_TIMESTAMP || (header && (info->width > 1 || info->shift || info->max < UINT8_MAX));
}

enum { FIRST_HALF = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? R1 : R2, SECOND_HALF = R1 + R2 - FIRST_HALF };

/* r1 to the stack, in halves, so that the verifier does not remember it. */
static void
store_hidden(struct wd_gen *g, int stack_off)
{
    wd_asm_mov(&g->a, R2, R1);
    wd_asm_alu_imm(&g->a, BPF_RSH, R2, 32);
    wd_asm_store(&g->a, BPF_W, R10, stack_off, FIRST_HALF);
    wd_asm_store(&g->a, BPF_W, R10, stack_off + 4, SECOND_HALF);
}

/* Half the lower half of an address, rounded down, and up. */
static void
prepare_halved(struct wd_gen *g, uint8_t field)
{
    int off = wd_gen_stack(g, 16);

    if (!off)
        return;
    for (int up = 0; up < 2; up++) {
        wd_gen_half(g, field, false, R1);
        wd_asm_mov(&g->a, R3, R1);
        wd_asm_alu_imm(&g->a, BPF_AND, R3, up);
        wd_asm_alu_imm(&g->a, BPF_RSH, R1, 1);
        wd_asm_alu(&g->a, BPF_ADD, R1, R3);
        store_hidden(g, off + 8 * up);
    }
    g->halved[field] = off;
}

static void
prepare(struct wd_gen *g, uint8_t field)
{
    bool address = wd_fields[field].kind == WD_KIND_ADDR;
    int off = wd_gen_stack(g, address ? 16 : 8);

    if (!off)
        return;
    if (address) {
        wd_gen_address(g, field == WD_F_IPV6_SRCADDR, false, off);
    } else {
        load_field(g, field);
        if (field == WD_F_TIMESTAMP)
            store_hidden(g, off);
        else
            wd_asm_store(&g->a, BPF_W, R10, off + 4, R1);
    }
    g->prepared[field] = off;
}

static void
prepare_class(struct wd_gen *g, uint8_t with)
{
    int i = 0, off;

    while (g->without[i].with && g->without[i].with != with)
        i++;
    if (with == INFO_CLASSES || g->without[i].with)
        return;
    off = wd_gen_stack(g, 8);
    if (!off)
        return;
    class_mask(g, with, R1);
    store_hidden(g, off);
    g->without[i].with = with;
    g->without[i].off = off;
}

static void
count_uses(const struct wd_prog *prog, uint32_t uses[WD_FIELD_COUNT], uint32_t orders[WD_FIELD_COUNT])
{
    for (uint32_t i = 0; i < prog->count; i++) {
        const struct wd_test *test = &prog->tests[i];

        uses[test->field]++;
        if (wd_fields[test->field].kind == WD_KIND_ADDR && test->op != WD_OP_EQ && test->op != WD_OP_NE)
            orders[test->field]++;
    }
}

void
wd_gen_prepare(struct wd_gen *g)
{
    uint32_t uses[WD_FIELD_COUNT] = {0}, orders[WD_FIELD_COUNT] = {0}, enough = g->large ? 1 : PREPARE_MIN;

    g->prepared[WD_F_LOCALADDR] = g->sp.local;
    g->prepared[WD_F_REMOTEADDR] = g->sp.remote;
    count_uses(g->prog, uses, orders);
    for (uint8_t field = 0; field < WD_FIELD_COUNT; field++) {
        if (uses[field] >= enough && worth_while(field))
            prepare(g, field);
        if (orders[field] >= enough)
            prepare_halved(g, field);
        if (uses[field] && g->large)
            prepare_class(g, wd_classes_with(field));
    }
}
