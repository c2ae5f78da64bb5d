/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The optimiser: what each rewrite makes of a filter, how large and how deep
 * the result is, and that programs no filter text leads to keep their outcome.
 *
 *   FILTER_SEED=n   another run (default 1); FILTER_COUNT=n random programs
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/optimise.h"
#include "core/tree.h"
#include "filter_pool.h"

static struct corpus *corpus;

static unsigned long
setting(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);

    return text ? strtoul(text, NULL, 10) : otherwise;
}

/* ---- Programs as text --------------------------------------------------- */

#define TEXT_MAX 4096

static size_t
put_target(char *text, size_t len, uint32_t target)
{
    if (target == WD_ACCEPT)
        return len + (size_t)snprintf(text + len, TEXT_MAX - len, "+");
    if (target == WD_REJECT)
        return len + (size_t)snprintf(text + len, TEXT_MAX - len, "-");
    return len + (size_t)snprintf(text + len, TEXT_MAX - len, "%u", target);
}

/* "field op value yes no, ...": + accepts, - rejects, a number is a test's. */
static void
program_text(const struct wd_prog *prog, char *text)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    size_t len = 0;

    if (prog->start >= WD_REJECT)
        len = put_target(text, len, prog->start);
    for (uint32_t i = 0; i < prog->count && len < TEXT_MAX - 128; i++) {
        const struct wd_test *test = &prog->tests[i];

        len += (size_t)snprintf(text + len, TEXT_MAX - len, "%s%s", i ? ", " : "", wd_fields[test->field].name);
        if (wd_fields[test->field].kind == WD_KIND_ARRAY)
            len += (size_t)snprintf(text + len, TEXT_MAX - len, "[%db]", test->index);
        len += (size_t)snprintf(text + len, TEXT_MAX - len, " %s %s", ops[test->op], test->neg ? "-" : "");
        if (test->hi)
            len += (size_t)snprintf(text + len, TEXT_MAX - len, "%llx:", (unsigned long long)test->hi);
        len += (size_t)snprintf(text + len, TEXT_MAX - len, "%llu ", (unsigned long long)test->lo);
        len = put_target(text, len, test->yes);
        len += (size_t)snprintf(text + len, TEXT_MAX - len, " ");
        len = put_target(text, len, test->no);
    }
}

/* The most tests on one way. */
static uint32_t
depth_of(const struct wd_prog *prog)
{
    uint32_t *depth = calloc(prog->count + 1, sizeof(*depth)), most = 0;

    assert_non_null(depth);
    for (uint32_t i = prog->count; i-- > 0;) {
        const struct wd_test *test = &prog->tests[i];
        uint32_t yes = test->yes < WD_REJECT ? depth[test->yes] : 0, no = test->no < WD_REJECT ? depth[test->no] : 0;

        depth[i] = 1 + (yes > no ? yes : no);
        most = depth[i] > most ? depth[i] : most;
    }
    free(depth);
    return most;
}

/* ---- Goldens ------------------------------------------------------------ */

static const struct {
    const char *filter, *program;
} golden[] = {
    /* contradictions, implications, repetitions on one field */
    {"tcp.DstPort == 80 and tcp.DstPort > 1024", "-"},
    {"ip.TTL > 5 and ip.TTL > 3", "ip.TTL >= 6 + -"},
    {"ip.TTL > 3 and tcp and ip.TTL > 5", "ip.TTL >= 6 1 -, tcp == 1 + -"},
    {"ip.TTL > 5 or ip.TTL > 3", "ip.TTL >= 4 + -"},
    {"ip.TTL > 5 or ip.TTL < 10", "ip == 1 + -"},
    {"tcp.Payload[3] > 5 or tcp.Payload[3] < 10", "tcp.Payload[3b] >= 0 + -"},
    {"tcp.Payload[3] == 5 and (udp or tcp.Payload[3] >= 0)", "tcp.Payload[3b] == 5 + -"},
    {"timestamp > -5 and timestamp > -3 and not timestamp >= 9", "timestamp < -2 - 1, timestamp < 9 + -"},
    {"ip.TTL == 5 and udp or ip.TTL == 5 and tcp", "ip.TTL == 5 1 -, udp == 1 + 2, tcp == 1 + -"},
    {"ip.TTL != 5 and (tcp or ip.TTL == 5)", "ip.TTL != 5 1 -, tcp == 1 + -"},
    /* what the headers say of each other */
    {"tcp and tcp.DstPort == 80", "tcp.DstPort == 80 + -"},
    {"tcp.DstPort == 80 and tcp", "tcp.DstPort == 80 + -"},
    {"tcp.DstPort != 80 or not tcp", "tcp.DstPort != 80 + 1, tcp == 1 - +"},
    {"icmp and ip and not ipv6", "icmp == 1 + -"},
    {"ipv6 and icmp.Type == 8", "-"},
    {"tcp and udp.DstPort != 53", "-"},
    {"ip and protocol == 6 and udp", "-"},
    {"tcp and protocol == 6 and ip.Protocol != 17", "tcp == 1 1 -, ip.Protocol != 17 + -"},
    {"protocol == 6 and tcp", "tcp == 1 + -"},
    {"outbound and (tcp.DstPort == 80 or inbound)", "outbound == 1 1 -, tcp.DstPort == 80 + -"},
    {"(inbound and tcp.DstPort == 80) or (outbound and tcp.SrcPort == 80)",
     "inbound == 1 1 2, tcp.DstPort == 80 + -, tcp.SrcPort == 80 + -"},
    {"tcp.HdrLength < 5 or ip.HdrLength >= 5", "ip == 1 + -"},
    {"packet[19] >= 0 and packet[20] >= 0", "packet[20b] >= 0 + -"},
    /* absence is not the other value */
    {"tcp.DstPort == 80 or tcp.DstPort != 80", "tcp == 1 + -"},
    {"not tcp.DstPort == 80 and udp", "-"},
    {"!(tcp.DstPort == 80) and udp", "udp == 1 + -"},
    {"!(tcp.DstPort == 80) and tcp.DstPort == 80", "-"},
    {"!(tcp.Syn) and !(not tcp.Syn)", "tcp == 1 - +"},
    {"tcp and (tcp.DstPort == 80 or tcp.DstPort == 443)",
     "tcp == 1 1 -, tcp.DstPort == 80 + 2, tcp.DstPort == 443 + -"},
    {"(tcp.Payload[0] > 3 or udp) and ip.TTL > 5 and tcp.Payload[0] > 2",
     "udp == 1 2 1, tcp.Payload[0b] >= 4 2 -, ip.TTL >= 6 3 -, tcp.Payload[0b] >= 0 + -"},
    {"(tcp ? tcp.Payload[0] > 3 : udp) and ip.TTL > 5 and tcp.Payload[0] > 2",
     "tcp == 1 1 2, tcp.Payload[0b] >= 4 3 -, udp == 1 3 -, ip.TTL >= 6 4 -, tcp.Payload[0b] >= 0 + -"},
    {"(tcp.Payload[0] > 3 or udp.Payload[0] > 3) and ip.TTL > 5 and tcp.Payload[0] > 2",
     "tcp.Payload[0b] >= 4 2 1, udp.Payload[0b] >= 4 2 -, ip.TTL >= 6 3 -, tcp.Payload[0b] >= 3 + -"},
    {"(ip.DF ? packet[20] == 5 : packet[21] == 5)", "ip.DF == 1 1 2, packet[20b] == 5 + -, packet[21b] == 5 + -"},
    /* a test behind a decided one is jumped over */
    {"(tcp ? udp.DstPort == 5 or ip.TTL == 1 : ip.TTL == 2)", "tcp == 1 1 2, ip.TTL == 1 + -, ip.TTL == 2 + -"},
    {"(tcp.Syn ? ip.TTL == 1 : ip.TTL == 1)", "ip.TTL == 1 + -"},
    {"tcp and ip.TTL == 1 or udp and ip.TTL == 1", "tcp == 1 2 1, udp == 1 2 -, ip.TTL == 1 + -"},
    /* short chains stay */
    {"tcp.DstPort == 443 or tcp.DstPort == 80", "tcp.DstPort == 443 + 1, tcp.DstPort == 80 + -"},
    {"tcp.DstPort == 443 or tcp.DstPort == 80 or tcp.DstPort == 22",
     "tcp.DstPort == 443 + 1, tcp.DstPort == 80 + 2, tcp.DstPort == 22 + -"},
    {"ip.SrcAddr >= 10.0.0.0 and ip.SrcAddr <= 10.255.255.255",
     "ip.SrcAddr >= 281470849515520 1 -, ip.SrcAddr < 281470866292736 + -"},
    /* neighbours become ranges, long chains are searched */
    {"tcp.DstPort == 80 or tcp.DstPort == 81", "tcp.DstPort == 80 + 1, tcp.DstPort == 81 + -"},
    {"ip.TTL == 1 or ip.TTL == 3 or ip.TTL == 2 or ip.TTL == 0", "ip.TTL < 4 + -"},
    {"ip.TTL == 10 or ip.TTL == 30 or ip.TTL == 20 or ip.TTL == 50 or ip.TTL == 40",
     "ip.TTL < 30 1 3, ip.TTL == 10 + 2, ip.TTL == 20 + -, ip.TTL < 41 4 6, ip.TTL == 30 + 5, ip.TTL == 40 + -, "
     "ip.TTL == 50 + -"},
    {"ip.TTL != 10 and ip.TTL != 30 and ip.TTL != 20 and ip.TTL != 50",
     "ip.TTL < 21 1 3, ip.TTL == 10 - 2, ip.TTL == 20 - +, ip.TTL == 30 - 4, ip.TTL != 50 + -"},
    {"!(ip.TTL == 10 or ip.TTL == 30 or ip.TTL == 20 or ip.TTL == 50)",
     "ip.TTL < 21 1 3, ip.TTL == 10 - 2, ip.TTL == 20 - +, ip.TTL == 30 - 4, ip.TTL == 50 - +"},
    {"ip.TTL >= 5 and ip.TTL <= 9 or ip.TTL >= 8 and ip.TTL < 20 or ip.TTL == 20", "ip.TTL < 5 - 1, ip.TTL < 21 + -"},
    {"ip.TTL == 1 and tcp or ip.TTL == 2 and udp or ip.TTL == 3 and icmp or ip.TTL == 4 and ip.DF",
     "ip.TTL < 3 1 3, ip.TTL == 1 5 2, ip.TTL == 2 6 -, ip.TTL == 3 7 4, ip.TTL == 4 8 -, tcp == 1 + -, udp == 1 + "
     "-, icmp == 1 + -, ip.DF == 1 + -"},
    {"ipv6.SrcAddr == ::1 or ipv6.SrcAddr == 2001:db8::1 or ipv6.SrcAddr == 2001:db8::2 or ipv6.SrcAddr == fe80::1",
     "ipv6.SrcAddr < 20010db800000000:1 1 2, ipv6.SrcAddr == 1 + -, ipv6.SrcAddr < fe80000000000000:1 3 4, "
     "ipv6.SrcAddr < 20010db800000000:3 + -, ipv6.SrcAddr == fe80000000000000:1 + -"},
    {"(ip.TTL < 5 ? tcp.Syn : (ip.TTL < 9 ? tcp.Ack : (ip.TTL < 13 ? tcp.Fin : tcp.Rst)))",
     "ip.TTL < 5 3 1, ip.TTL < 9 4 2, ip.TTL < 13 5 6, tcp.Syn == 1 + -, tcp.Ack == 1 + -, tcp.Fin == 1 + -, tcp.Rst "
     "== 1 + -"},
    {"ip and (ip.TTL < 5 ? tcp.Syn : (ip.TTL < 9 ? tcp.Ack : (ip.TTL < 13 ? tcp.Fin : (ip.TTL < 17 ? tcp.Psh : "
     "tcp.Rst))))",
     "ip == 1 1 -, ip.TTL < 9 2 3, ip.TTL < 5 5 6, ip.TTL < 13 7 4, ip.TTL < 17 8 9, tcp.Syn == 1 + -, tcp.Ack == 1 "
     "+ -, tcp.Fin == 1 + -, tcp.Psh == 1 + -, tcp.Rst == 1 + -"},
    {"(tcp.DstPort < 5 ? ip.DF : (tcp.DstPort < 9 ? ip.MF : true))",
     "tcp.DstPort < 5 2 1, tcp.DstPort < 9 3 +, ip.DF == 1 + -, ip.MF == 1 + -"},
    /* one field together, cheap ones first */
    {"tcp.DstPort == 5 or udp.DstPort == 5 or tcp.DstPort == 6 or udp.DstPort == 6 or tcp.DstPort == 7 or "
     "udp.DstPort == 7",
     "tcp.DstPort < 5 2 1, tcp.DstPort < 8 + 2, udp.DstPort < 5 - 3, udp.DstPort < 8 + -"},
    {"tcp.DstPort >= 5 and tcp.DstPort <= 9 or udp.DstPort == 7 or tcp.DstPort >= 8 and tcp.DstPort <= 20",
     "tcp.DstPort >= 5 1 2, tcp.DstPort < 21 + -, udp.DstPort == 7 + -"},
    {"tcp.Payload[0] == 1 and tcp.DstPort == 80 and outbound",
     "tcp.DstPort == 80 1 -, outbound == 1 2 -, tcp.Payload[0b] == 1 + -"},
    {"random8 < 5 or packet[0] == 3 or ip.TTL == 5", "ip.TTL == 5 + 1, packet[0b] == 3 + 2, random8 < 5 + -"},
    {"packet[0] == 3 and (tcp.Syn or udp.DstPort == 5)",
     "packet[0b] == 3 1 -, tcp.Syn == 1 + 2, udp.DstPort == 5 + -"},
};

static void
goldens(void **state)
{
    unsigned int wrong = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        struct wd_filter_error error;
        struct wd_filter *filter;
        struct wd_arena arena;
        char text[TEXT_MAX];

        wd_arena_init(&arena, NULL);
        assert_int_equal(wd_filter_compile(&arena, golden[i].filter, WINDIVERT_LAYER_NETWORK, &filter, &error), 0);
        program_text(wd_filter_prog(filter), text);
        if (strcmp(text, golden[i].program) != 0 && ++wrong)
            print_error("%s\n  is %s\n  not %s\n", golden[i].filter, text, golden[i].program);
        wd_arena_free(&arena);
    }
    assert_int_equal(wrong, 0);
}

/* ---- Programs put together by hand -------------------------------------- */

#define PROGRAM_TESTS 40
#define SUBJECTS 48

/* The value of a field of 64 bits in this subject, found by asking; 0 where it is absent. */
static uint64_t
value_in(const struct law_subject *subject, WINDIVERT_LAYER layer, uint8_t field, int32_t index)
{
    struct wd_test test = {.field = field, .op = WD_OP_GE, .index = index, .yes = WD_ACCEPT, .no = WD_REJECT};
    struct wd_prog prog = {.layer = layer, .count = 1, .tests = &test};
    uint64_t value = 0;

    for (int bit = 63; bit >= 0; bit--) {
        test.lo = value | 1ull << bit;
        if (wd_prog_eval(&prog, subject->packet, subject->addr))
            value = test.lo;
    }
    return value;
}

/* Values that occur and their neighbours; ends of ranges; beyond them. */
static struct wd_test
random_test(struct rng *rng, WINDIVERT_LAYER layer, uint8_t field, const struct pool *pool)
{
    static const int32_t indices[] = {0, 1, 4, 16, 17, 19, 20, 40, -1, -2, -4, -5, -20, -21, -40};
    const struct wd_field_info *info = &wd_fields[field];
    struct wd_test test = {.field = field, .op = (uint8_t)rng_below(rng, 6)};

    if (info->kind == WD_KIND_ARRAY)
        test.index = indices[rng_below(rng, sizeof(indices) / sizeof(indices[0]))];
    switch (rng_below(rng, 12)) {
    case 0:
        test.lo = rng_below(rng, 8);
        break;
    case 1:
        test.lo = (rng_below(rng, 2) ? info->umin : info->max) + rng_below(rng, 5) - 2;
        break;
    case 2:
        test.hi = rng_below(rng, 2);
        test.lo = rng_next(rng) >> rng_below(rng, 64);
        break;
    default:
        test.lo = value_in(&pool->subjects[rng_below(rng, SUBJECTS)], layer, field, test.index);
        test.lo += test.lo && test.lo < info->max ? rng_below(rng, 3) - 1 : 0;
        break;
    }
    if (rng_below(rng, info->kind == WD_KIND_INT ? 2 : 32) == 0)
        test.neg = test.lo != 0 || test.hi != 0;
    return test;
}

static uint32_t
random_target(struct rng *rng, const struct wd_prog *prog, uint32_t at, uint32_t ahead)
{
    if (at + 1 + ahead < prog->count && rng_below(rng, 3))
        return at + 1 + ahead;
    return rng_below(rng, 2) ? WD_ACCEPT : WD_REJECT;
}

/* Ways on that jump forward: any, or mostly along runs of tests with one other target. */
static void
random_ways(struct rng *rng, struct wd_prog *prog, uint32_t at, bool runs)
{
    struct wd_test *test = &prog->tests[at];
    uint32_t left = prog->count - at;

    if (runs && left > 1 && rng_below(rng, 16)) {
        test->yes = prog->count > 16 && at < prog->count - 16 ? at / 16 * 16 + 16 : WD_ACCEPT;
        test->no = at + 1 + (rng_below(rng, 16) == 0 && left > 2);
        if (rng_below(rng, 8) == 0) {
            uint32_t swap = test->yes;

            test->yes = test->no;
            test->no = swap;
        }
        return;
    }
    test->yes = random_target(rng, prog, at, rng_below(rng, 3) ? 0 : rng_below(rng, left));
    test->no = random_target(rng, prog, at, rng_below(rng, 3) ? 1 : rng_below(rng, left));
}

/* Few fields, so that they meet again. */
static void
random_program(struct rng *rng, WINDIVERT_LAYER layer, const struct pool *pool, struct wd_prog *prog)
{
    uint32_t kinds = 1 + rng_below(rng, 5);
    bool runs = rng_below(rng, 2);
    uint8_t fields[5];

    for (uint32_t i = 0; i < kinds; i++)
        do
            fields[i] = (uint8_t)rng_below(rng, WD_FIELD_COUNT);
        while (!(wd_fields[fields[i]].layers & 1 << layer) || (fields[i] <= WD_F_FALSE && rng_below(rng, 8)) ||
               (wd_fields[fields[i]].kind == WD_KIND_FLAG && rng_below(rng, 2)));
    prog->layer = layer;
    prog->start = 0;
    prog->count = 1 + rng_below(rng, PROGRAM_TESTS);
    for (uint32_t i = 0; i < prog->count; i++) {
        prog->tests[i] = random_test(rng, layer, fields[rng_below(rng, kinds)], pool);
        if (runs && rng_below(rng, 3))
            prog->tests[i].op = WD_OP_EQ;
        random_ways(rng, prog, i, runs);
    }
}

static void
assert_equal(const struct wd_prog *plain, const struct wd_prog *optimised, const struct law_subject *subject,
             const char *what)
{
    bool expected = wd_prog_eval(plain, subject->packet, subject->addr);
    char text[TEXT_MAX];

    if (wd_prog_eval(optimised, subject->packet, subject->addr) == expected)
        return;
    program_text(plain, text);
    printf("%s\n", text);
    program_text(optimised, text);
    fail_msg("%s: %d before\n%s", what, expected, text);
}

/* The same program gives the same again. */
static void
assert_same(struct wd_arena *arena, const struct wd_prog *prog, const struct wd_prog *optimised)
{
    char first[TEXT_MAX] = "", second[TEXT_MAX] = "";
    struct wd_prog *again;

    assert_int_equal(wd_prog_optimise(arena, prog, &again), 0);
    program_text(optimised, first);
    program_text(again, second);
    assert_string_equal(first, second);
}

static void
random_programs(void **state)
{
    unsigned long seed = setting("FILTER_SEED", 1), count = setting("FILTER_COUNT", 20000), before = 0, after = 0;
    struct wd_test tests[PROGRAM_TESTS];
    struct wd_prog prog = {.tests = tests};
    struct rng rng = {.state = seed};
    struct pool pool;

    (void)state;
    for (unsigned long i = 0; i < count; i++) {
        WINDIVERT_LAYER layer = (WINDIVERT_LAYER)(i / 16 % 8 < CORPUS_LAYERS ? i / 16 % 8 : 0);
        struct wd_prog *optimised, *again;
        struct wd_arena arena;
        char what[64];

        if (i % 16 == 0)
            pool_fill(&rng, layer, corpus, SUBJECTS, &pool);
        random_program(&rng, layer, &pool, &prog);
        snprintf(what, sizeof(what), "seed %lu, number %lu", seed, i);
        wd_arena_init(&arena, NULL);
        assert_int_equal(wd_prog_optimise(&arena, &prog, &optimised), 0);
        assert_same(&arena, &prog, optimised);
        assert_int_equal(wd_prog_optimise(&arena, optimised, &again), 0);
        assert_true(law_program_valid(optimised) && law_program_valid(again));
        assert_true(optimised->count <= WD_OPTIMISE_GROWTH * prog.count);
        assert_int_equal(wd_prog_prepare(&arena, optimised), 0);
        before += prog.count;
        after += optimised->count;
        for (int k = 0; k < SUBJECTS; k++) {
            assert_equal(&prog, optimised, &pool.subjects[k], what);
            assert_equal(&prog, again, &pool.subjects[k], what);
        }
        wd_arena_free(&arena);
        if (i % 16 == 15 || i == count - 1)
            pool_empty(&pool);
    }
    print_message("seed %lu: %lu programs of %lu tests, optimised %lu\n", seed, count, before, after);
}

/* ---- Sizes -------------------------------------------------------------- */

static struct wd_filter *
compile(struct wd_arena *arena, const char *text)
{
    struct wd_filter_error error;
    struct wd_filter *filter;

    wd_arena_init(arena, NULL);
    assert_int_equal(wd_filter_compile(arena, text, WINDIVERT_LAYER_NETWORK, &filter, &error), 0);
    return filter;
}

/* How many tests a long list may come to, and how many of them a packet meets at most. */
static void
sizes(void **state)
{
    static const struct {
        const char *test, *word;
        uint32_t count, step, tests_max, depth_max;
    } row[] = {
        {"tcp.DstPort == %u", "or", 1000, 1, 2, 2},
        {"tcp.DstPort == %u", "or", 1000, 7919, 1600, 12},
        {"tcp.DstPort != %u", "and", 1000, 7919, 1600, 12},
        {"!(udp.SrcPort == %u)", "and", 1000, 7919, 1600, 12},
        {"tcp.SeqNum == %u", "or", WD_TESTS_MAX, 2654435761u, 25000, 16},
        {"ip.SrcAddr == 0xFFFF%08x", "or", 4096, 2654435761u, 6200, 14},
        {"ipv6.SrcAddr == 2001:db8::%x", "or", 4096, 7919, 6200, 14},
        {"(ip.SrcAddr == 0xFFFF%08x and tcp.Syn)", "or", 1000, 2654435761u, 1600, 13},
        {"(ip.SrcAddr == 0xFFFF0A0%1$05x and tcp.DstPort == %1$u)", "or", 300, 211, 800, 11},
        {"(tcp.DstPort >= %u and tcp.DstPort < 60000)", "or", 1000, 7919, 2, 2},
        {"ip.TTL > %u or udp.DstPort == %1$u", "or", 250, 1, 4, 4},
    };
    char *text = malloc(WD_TESTS_MAX * 80);

    (void)state;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        const struct wd_prog *prog;
        struct wd_arena arena;
        size_t len = 0;
        uint32_t limit = strstr(row[i].test, "FFFF%08x") || strstr(row[i].test, "Num") ? UINT32_MAX : 60000;

        for (uint32_t k = 0; k < row[i].count; k++) {
            len += (size_t)sprintf(text + len, k ? " %s " : "%.0s", row[i].word);
            len += (size_t)sprintf(text + len, row[i].test, (k + 1) * row[i].step % limit);
        }
        prog = wd_filter_prog(compile(&arena, text));
        print_message("%u x %s: %u tests, %u deep\n", row[i].count, row[i].test, prog->count, depth_of(prog));
        assert_true(law_program_valid(prog));
        assert_in_range(prog->count, 1, row[i].tests_max);
        assert_in_range(depth_of(prog), 1, row[i].depth_max);
        wd_arena_free(&arena);
    }
    free(text);
}

/* ---- Every value of a byte ---------------------------------------------- */

#define BYTE_TESTS 12

/* IPv4, TCP; room for options. */
static const uint8_t byte_packet[80] = {0x45, 0, 0, 80, 0, 0, 0, 0, 6, 6, 0, 0, 10, 0, 0, 1,    10,
                                        0,    0, 2, 6,  5, 0, 9, 0, 0, 0, 1, 0, 0,  0, 2, 0x50, 2};

static struct wd_test
byte_test(struct rng *rng)
{
    static const struct {
        uint8_t field;
        int32_t index;
    } keys[] = {
        {WD_F_IP_TTL, 0},        {WD_F_IP_TTL, 0},      {WD_F_IP_HDRLENGTH, 0},
        {WD_F_IP_PROTOCOL, 0},   {WD_F_PROTOCOL, 0},    {WD_F_TCP, 0},
        {WD_F_UDP, 0},           {WD_F_ICMP, 0},        {WD_F_IP, 0},
        {WD_F_FRAGMENT, 0},      {WD_F_IP_FRAGOFF, 0},  {WD_F_TCP_SYN, 0},
        {WD_F_TCP_HDRLENGTH, 0}, {WD_F_TCP_PAYLOAD, 0}, {WD_F_PACKET, 8},
        {WD_F_TCP_PAYLOAD, -40}, {WD_F_ICMP_TYPE, 0},   {WD_F_UDP_DSTPORT, 0},
        {WD_F_LOCALPORT, 0},     {WD_F_PACKET, 79},
    };
    static const uint8_t numbers[] = {0, 1, 5, 6, 15, 17, 58, 80, 128, 255};
    uint32_t key = rng_below(rng, sizeof(keys) / sizeof(keys[0]));
    struct wd_test test = {.field = keys[key].field, .index = keys[key].index, .op = (uint8_t)rng_below(rng, 6)};

    test.lo = rng_below(rng, 2) ? rng_below(rng, 257) : numbers[rng_below(rng, sizeof(numbers))] + rng_below(rng, 2);
    if (wd_fields[test.field].kind == WD_KIND_FLAG)
        test.lo = rng_below(rng, 2);
    return test;
}

/* One or two keys, so that tests meet those they decide. */
static void
byte_program(struct rng *rng, struct wd_prog *prog)
{
    struct wd_test like[] = {byte_test(rng), byte_test(rng), byte_test(rng)};
    uint32_t kinds = 1 + rng_below(rng, 3);

    prog->layer = WINDIVERT_LAYER_NETWORK;
    prog->start = 0;
    prog->count = 1 + rng_below(rng, BYTE_TESTS);
    for (uint32_t i = 0; i < prog->count; i++) {
        struct wd_test *test = &prog->tests[i];
        uint32_t ends = prog->count - i - 1, key = rng_below(rng, kinds);

        *test = byte_test(rng);
        test->field = like[key].field;
        test->index = like[key].index;
        if (wd_fields[test->field].kind == WD_KIND_FLAG)
            test->lo &= 1;
        test->yes = rng_below(rng, 2) && ends ? i + 1 + rng_below(rng, ends)
                    : rng_below(rng, 2)       ? WD_ACCEPT
                                              : WD_REJECT;
        test->no = rng_below(rng, 4) && ends ? i + 1 : rng_below(rng, 2) ? WD_ACCEPT : WD_REJECT;
    }
}

static void
compare_bytes(const struct wd_prog *prog, const struct wd_prog *optimised, uint8_t at, bool outbound,
              const char *name)
{
    WINDIVERT_ADDRESS addr = {.Layer = WINDIVERT_LAYER_NETWORK, .Outbound = outbound};
    struct wd_packet packet;
    const struct law_subject subject = {&packet, &addr};
    uint8_t bytes[sizeof(byte_packet)];
    char what[96];

    memcpy(bytes, byte_packet, sizeof(bytes));
    for (unsigned int value = 0; value < 256; value++) {
        bytes[at] = (uint8_t)value;
        snprintf(what, sizeof(what), "%s, byte %u is %u", name, at, value);
        if (wd_packet_parse(bytes, sizeof(bytes), &packet))
            assert_equal(prog, optimised, &subject, what);
    }
}

/* Two chains of equalities that become one: what is only on the other branch is not met. */
static void
joined_chains(void **state)
{
    struct wd_test tests[20];
    struct wd_prog prog = {.layer = WINDIVERT_LAYER_NETWORK, .count = 20, .tests = tests}, *optimised;
    struct wd_arena arena;

    (void)state;
    for (uint32_t i = 0; i < 20; i++)
        tests[i] = (struct wd_test){
            .field = WD_F_IP_TTL, .op = WD_OP_EQ, .lo = i + 100, .yes = i % 3 ? WD_ACCEPT : WD_REJECT, .no = i + 1};
    tests[0].lo = 7;
    tests[0].yes = 1;
    tests[0].no = 2;
    tests[1].no = 3;
    tests[2].lo = 7;
    tests[19].no = WD_REJECT;
    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_prog_optimise(&arena, &prog, &optimised), 0);
    compare_bytes(&prog, optimised, 8, false, "joined chains");
    wd_arena_free(&arena);
}

static void
every_byte(void **state)
{
    static const uint8_t offsets[] = {0, 1, 3, 6, 7, 8, 9, 20, 21, 32, 33, 40};
    unsigned long seed = setting("FILTER_SEED", 1), count = setting("FILTER_COUNT", 6000), before = 0, after = 0;
    struct wd_test tests[BYTE_TESTS];
    struct wd_prog prog = {.tests = tests};
    struct rng rng = {.state = seed};

    (void)state;
    for (unsigned long i = 0; i < count; i++) {
        uint8_t at = offsets[rng_below(&rng, sizeof(offsets))];
        struct wd_prog *optimised;
        struct wd_arena arena;
        char name[64];

        byte_program(&rng, &prog);
        wd_arena_init(&arena, NULL);
        assert_int_equal(wd_prog_optimise(&arena, &prog, &optimised), 0);
        before += prog.count;
        after += optimised->count;
        snprintf(name, sizeof(name), "seed %lu, number %lu", seed, i);
        compare_bytes(&prog, optimised, at, i & 1, name);
        wd_arena_free(&arena);
    }
    print_message("seed %lu: %lu programs of %lu tests, optimised %lu\n", seed, count, before, after);
}

static int
set_up(void **state)
{
    (void)state;
    corpus = corpus_load();
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    corpus_free(corpus);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens),       cmocka_unit_test(random_programs), cmocka_unit_test(sizes),
        cmocka_unit_test(joined_chains), cmocka_unit_test(every_byte),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
