/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "bpf_shapes.h"

#define EQ WD_OP_EQ
#define NE WD_OP_NE
#define LT WD_OP_LT
#define LE WD_OP_LE
#define GE WD_OP_GE
#define ORDER 100 /* LT and GE by turns */

const struct shape shapes[] = {
    {"ports ==", SHAPE_OR, 1, {{WD_F_TCP_DSTPORT, EQ, 0, 0}}},
    {"ports !=", SHAPE_AND, 1, {{WD_F_UDP_SRCPORT, NE, 0, 0}}},
    {"port ranges", SHAPE_DNF, 2, {{WD_F_TCP_DSTPORT, GE, 0, 0}, {WD_F_TCP_DSTPORT, LE, 4, 0}}},
    {"ports, source and destination", SHAPE_OR, 2, {{WD_F_TCP_DSTPORT, EQ, 0, 0}, {WD_F_TCP_SRCPORT, EQ, 0, 0}}},
    {"ports, of TCP and UDP", SHAPE_OR, 2, {{WD_F_TCP_DSTPORT, EQ, 0, 0}, {WD_F_UDP_DSTPORT, EQ, 0, 0}}},
    {"ports, local and remote", SHAPE_OR, 2, {{WD_F_LOCALPORT, EQ, 0, 0}, {WD_F_REMOTEPORT, EQ, 0, 0}}},
    {"IPv4 ==", SHAPE_OR, 1, {{WD_F_IP_SRCADDR, EQ, 0, 0}}},
    {"IPv4 !=", SHAPE_AND, 1, {{WD_F_IP_DSTADDR, NE, 0, 0}}},
    {"IPv4 >=", SHAPE_AND, 1, {{WD_F_IP_SRCADDR, GE, 0, 0}}},
    {"IPv4, source and destination", SHAPE_OR, 2, {{WD_F_IP_SRCADDR, EQ, 0, 0}, {WD_F_IP_DSTADDR, EQ, 0, 0}}},
    {"IPv4 ranges", SHAPE_DNF, 2, {{WD_F_IP_SRCADDR, GE, 0, 0}, {WD_F_IP_SRCADDR, LE, 3, 0}}},
    {"IPv6 ==", SHAPE_OR, 1, {{WD_F_IPV6_DSTADDR, EQ, 0, 0}}},
    {"IPv6 !=", SHAPE_AND, 1, {{WD_F_IPV6_SRCADDR, NE, 0, 0}}},
    {"IPv6 < >=", SHAPE_OR, 1, {{WD_F_IPV6_DSTADDR, ORDER, 0, 0}}},
    {"IPv6 >=", SHAPE_AND, 1, {{WD_F_IPV6_SRCADDR, GE, 0, 0}}},
    {"IPv6, source and destination", SHAPE_OR, 2, {{WD_F_IPV6_SRCADDR, EQ, 0, 0}, {WD_F_IPV6_DSTADDR, EQ, 0, 0}}},
    {"IPv6 ranges", SHAPE_DNF, 2, {{WD_F_IPV6_SRCADDR, GE, 0, 0}, {WD_F_IPV6_SRCADDR, LE, 2, 0}}},
    {"localAddr ==", SHAPE_OR, 1, {{WD_F_LOCALADDR, EQ, 0, 0}}},
    {"localAddr < >=", SHAPE_OR, 2, {{WD_F_LOCALADDR, ORDER, 0, 0}, {WD_F_REMOTEADDR, ORDER, 0, 0}}},
    {"payload[i] ==", SHAPE_OR, 1, {{WD_F_TCP_PAYLOAD, EQ, 0, 1}}},
    {"payload[i] !=", SHAPE_AND, 1, {{WD_F_TCP_PAYLOAD, NE, 0, 1}}},
    {"payload[-i] ==", SHAPE_OR, 1, {{WD_F_UDP_PAYLOAD, EQ, -1, -1}}},
    {"payload[0] ==", SHAPE_OR, 1, {{WD_F_UDP_PAYLOAD, EQ, 0, 0}}},
    {"payload16[i] ==", SHAPE_OR, 1, {{WD_F_UDP_PAYLOAD16, EQ, 0, 2}}},
    {"payload32[i] ==", SHAPE_OR, 1, {{WD_F_TCP_PAYLOAD32, EQ, 0, 4}}},
    {"payload32[i] < >=", SHAPE_OR, 1, {{WD_F_TCP_PAYLOAD32, ORDER, 0, 4}}},
    {"payload32[-i] >=", SHAPE_AND, 1, {{WD_F_TCP_PAYLOAD32, GE, -4, -4}}},
    {"payload16[i], i far apart", SHAPE_OR, 1, {{WD_F_UDP_PAYLOAD16, EQ, 0, 7919}}},
    {"packet[i] ==", SHAPE_OR, 1, {{WD_F_PACKET, EQ, 0, 1}}},
    {"packet32[-i] ==", SHAPE_OR, 1, {{WD_F_PACKET32, EQ, -4, -4}}},
    {"signatures of 4 bytes",
     SHAPE_DNF,
     4,
     {{WD_F_TCP_PAYLOAD, EQ, 0, 0},
      {WD_F_TCP_PAYLOAD, EQ, 1, 0},
      {WD_F_TCP_PAYLOAD, EQ, 2, 0},
      {WD_F_TCP_PAYLOAD, EQ, 3, 0}}},
    {"signatures, from both ends",
     SHAPE_DNF,
     4,
     {{WD_F_TCP_PAYLOAD32, EQ, 0, 4},
      {WD_F_TCP_PAYLOAD16, NE, -2, -2},
      {WD_F_TCP_PAYLOAD, GE, 1, 4},
      {WD_F_PACKET16, LT, 40, 2}}},
    {"port and IPv4", SHAPE_DNF, 2, {{WD_F_TCP_DSTPORT, EQ, 0, 0}, {WD_F_IP_SRCADDR, EQ, 0, 0}}},
    {"port or IPv4", SHAPE_CNF, 2, {{WD_F_TCP_DSTPORT, NE, 0, 0}, {WD_F_IP_SRCADDR, EQ, 0, 0}}},
    {"port and IPv6", SHAPE_DNF, 2, {{WD_F_TCP_DSTPORT, EQ, 0, 0}, {WD_F_IPV6_SRCADDR, EQ, 0, 0}}},
    {"payload or port", SHAPE_CNF, 2, {{WD_F_TCP_PAYLOAD32, NE, -4, -4}, {WD_F_UDP_SRCPORT, NE, 0, 0}}},
    {"port and payload", SHAPE_DNF, 2, {{WD_F_UDP_DSTPORT, EQ, 0, 0}, {WD_F_UDP_PAYLOAD, EQ, 0, 1}}},
    {"connections",
     SHAPE_DNF,
     4,
     {{WD_F_IP_SRCADDR, EQ, 0, 0},
      {WD_F_IP_DSTADDR, EQ, 0, 0},
      {WD_F_TCP_SRCPORT, EQ, 0, 0},
      {WD_F_TCP_DSTPORT, EQ, 0, 0}}},
    {"mixed",
     SHAPE_OR,
     8,
     {{WD_F_TCP_DSTPORT, EQ, 0, 0},
      {WD_F_IP_SRCADDR, EQ, 0, 0},
      {WD_F_IPV6_DSTADDR, EQ, 0, 0},
      {WD_F_UDP_PAYLOAD, EQ, 0, 1},
      {WD_F_LENGTH, EQ, 0, 0},
      {WD_F_TCP_PAYLOAD32, EQ, -4, -4},
      {WD_F_REMOTEADDR, EQ, 0, 0},
      {WD_F_ICMP_TYPE, EQ, 0, 0}}},
    {"mixed, in clauses",
     SHAPE_DNF,
     4,
     {{WD_F_REMOTEADDR, GE, 0, 0},
      {WD_F_LOCALPORT, NE, 0, 0},
      {WD_F_UDP_PAYLOAD32, ORDER, 0, 4},
      {WD_F_IP_TTL, LT, 0, 0}}},
    {"random and time", SHAPE_CNF, 2, {{WD_F_RANDOM16, NE, 0, 0}, {WD_F_TIMESTAMP, GE, 0, 0}}},
    {"ports, searched", SHAPE_TREE, 1, {{WD_F_TCP_DSTPORT, EQ, 0, 0}}},
    {"IPv4, searched", SHAPE_TREE, 1, {{WD_F_IP_SRCADDR, EQ, 0, 0}}},
    {"IPv6, searched", SHAPE_TREE, 1, {{WD_F_IPV6_DSTADDR, EQ, 0, 0}}},
    {"payload32[-4], searched", SHAPE_TREE, 1, {{WD_F_TCP_PAYLOAD32, EQ, -4, 0}}},
};

const uint32_t shape_count = sizeof(shapes) / sizeof(shapes[0]);

void
shape_value(uint8_t field, uint32_t n, uint64_t *ret_hi, uint64_t *ret_lo)
{
    const struct wd_field_info *info = &wd_fields[field];

    *ret_hi = 0;
    if (info->kind == WD_KIND_ADDR) {
        *ret_hi = UINT64_C(0x20010DB800000000) + n / 16;
        *ret_lo = UINT64_C(0xF000000000000000) + (uint64_t)n * 0x123456789;
    } else if (info->kind == WD_KIND_ADDR4) {
        *ret_lo = UINT64_C(0xFFFF0A000000) + n * 5;
    } else if (info->kind == WD_KIND_INT || info->max == UINT32_MAX) {
        *ret_lo = 1 + n * UINT64_C(0xFFFB);
    } else if (info->max == UINT16_MAX || info->max > UINT16_MAX) {
        *ret_lo = 21 + n * 3 % 65500;
    } else {
        *ret_lo = 1 + n % (uint32_t)(info->max - 1);
    }
}

static void
build_test(const struct shape *shape, uint32_t at, struct wd_test *ret_test)
{
    const struct shape_test *from = &shape->test[at % shape->width];
    uint32_t n = at / shape->width;
    int64_t index = from->first + (int64_t)from->step * n;

    *ret_test = (struct wd_test){
        .field = from->field,
        .op = from->op == ORDER ? n % 2 ? GE : LT : from->op,
        .index = wd_fields[from->field].kind == WD_KIND_ARRAY ? (int32_t)(index % 65500) : 0,
    };
    if (wd_fields[from->field].kind != WD_KIND_ARRAY)
        n += (uint32_t)from->first;
    shape_value(from->field, n, &ret_test->hi, &ret_test->lo);
}

/* Where a test of a chain leads. */
static void
link_chain(const struct shape *shape, uint32_t at, uint32_t count, struct wd_test *ret_test)
{
    uint32_t next_clause = at - at % shape->width + shape->width, next = at + 1;
    bool conjunctive = shape->form == SHAPE_AND || shape->form == SHAPE_CNF;
    bool clauses = shape->form == SHAPE_DNF || shape->form == SHAPE_CNF;
    uint32_t end = conjunctive ? WD_ACCEPT : WD_REJECT, other = conjunctive ? WD_REJECT : WD_ACCEPT;
    uint32_t go_on, leave;

    if (clauses && next < next_clause) { /* within a clause: on to its next test, or done with it */
        go_on = next;
        leave = next_clause < count ? next_clause : end;
    } else {
        go_on = next < count ? next : end;
        leave = other;
    }
    /* Of a clause "a and b" the first test goes on where it holds, of a chain "a or b" where it does not. */
    if ((clauses && next < next_clause) ? !conjunctive : conjunctive)
        ret_test->yes = go_on, ret_test->no = leave;
    else
        ret_test->yes = leave, ret_test->no = go_on;
}

/* Values first..first + n - 1 at tests `at` and on: "is it below the middle?", then either half; one value: is it it? */
static uint32_t
build_tree(const struct shape *shape, uint32_t first, uint32_t n, uint32_t at, struct wd_test *tests)
{
    struct wd_test *test = &tests[at];
    uint32_t half = n / 2;

    build_test(shape, first + half, test);
    if (n == 1) {
        test->yes = WD_ACCEPT;
        test->no = WD_REJECT;
        return at + 1;
    }
    test->op = LT;
    test->yes = at + 1;
    test->no = build_tree(shape, first, half, at + 1, tests);
    return build_tree(shape, first + half, n - half, test->no, tests);
}

void
shape_build(const struct shape *shape, uint32_t count, struct wd_test *tests, struct wd_prog *ret_prog)
{
    count -= count % shape->width;
    *ret_prog = (struct wd_prog){.layer = WINDIVERT_LAYER_NETWORK, .count = count, .tests = tests};
    if (shape->form == SHAPE_TREE) {
        ret_prog->count = build_tree(shape, 0, count / 2, 0, tests);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        build_test(shape, i, &tests[i]);
        link_chain(shape, i, count, &tests[i]);
    }
}
