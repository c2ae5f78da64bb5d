/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* As many tests and as deep as promised, and a clear error one further. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "filter_law.h"

#define TEXT_MAX (WD_TESTS_MAX * 80)

static char *text;
static size_t len;

static void
put(const char *more, unsigned times)
{
    size_t each = strlen(more);

    assert_true(len + each * times < TEXT_MAX);
    for (; times; times--) {
        memcpy(text + len, more, each);
        len += each;
    }
    text[len] = 0;
}

static void
assert_lawful(WINDIVERT_LAYER layer)
{
    static const uint8_t data[] = {0x45, 0,    0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10,   0, 0, 1, 10, 0, 0, 2,
                                   0x12, 0x34, 0, 80, 0, 0, 0, 1, 0,  0, 0, 2, 0x50, 2, 1, 0, 0,  0, 0, 0};
    struct law_counts counts = {0};
    WINDIVERT_ADDRESS addr = {.Layer = (UINT32)layer & 7, .Outbound = 1};
    struct wd_packet packet;
    struct law_subject subject = {&packet, &addr};
    const char *broken;

    assert_true(wd_packet_parse(data, sizeof(data), &packet));
    broken = law_check(text, layer, &subject, 1, 0x5555, &counts);
    if (broken)
        fail_msg("%s", broken);
    assert_int_equal(counts.accepted, 1);
}

static void
assert_fails(enum wd_filter_code code, size_t pos)
{
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_arena arena;

    wd_arena_init(&arena, NULL);
    assert_true(wd_filter_compile(&arena, text, WINDIVERT_LAYER_NETWORK, &filter, &error) < 0);
    wd_arena_free(&arena);
    assert_int_equal(error.code, code);
    assert_int_equal(error.pos, pos);
}

/* The longest spellings: nothing else may run out before the tests do. */
static void
put_tests(unsigned count)
{
    char test[96];

    len = 0;
    for (unsigned i = 0; i < count; i++) {
        snprintf(test, sizeof(test), "%s!(not tcp.Payload32[-%ub] >= %u)", i ? i % 2 ? " || " : " && " : "",
                 4 + i % 1000, i);
        put(test, 1);
    }
}

static void
tests_4096(void **state)
{
    (void)state;
    put_tests(4096);
    assert_lawful(WINDIVERT_LAYER_NETWORK);
}

static void
tests_most(void **state)
{
    (void)state;
    put_tests(WD_TESTS_MAX);
    assert_lawful(WINDIVERT_LAYER_NETWORK);
    put(" or tcp", 1);
    assert_fails(WD_FILTER_TOO_LONG, len - 3);
}

/* A long filter of one field in one list: the time grows with the length, not with its square. */
static double
list_time(unsigned count)
{
    struct timespec begin, end;
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_arena arena;
    char test[64];

    len = 0;
    for (unsigned i = 0; i < count; i++) {
        snprintf(test, sizeof(test), "%stcp.DstPort == %u", i ? " or " : "", 1 + i);
        put(test, 1);
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, text, WINDIVERT_LAYER_NETWORK, &filter, &error), 0);
    wd_arena_free(&arena);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) * 1e-6;
}

static void
long_list(void **state)
{
    double best = 1e9;

    (void)state;
    for (int i = 0; i < 5; i++) {
        double ms = list_time(16000);

        best = ms < best ? ms : best;
    }
    print_message("16000 tests compile in %.2f ms\n", best);
    assert_true(best < 1000); /* quadratic would be minutes */
    assert_lawful(WINDIVERT_LAYER_NETWORK);
}

static void
depth_plain(void **state)
{
    (void)state;
    len = 0;
    put("(", WD_DEPTH_MAX);
    put("tcp", 1);
    put(")", WD_DEPTH_MAX);
    assert_lawful(WINDIVERT_LAYER_NETWORK);
    len = 0;
    put("(", WD_DEPTH_MAX + 1);
    put("tcp", 1);
    put(")", WD_DEPTH_MAX + 1);
    assert_fails(WD_FILTER_TOO_DEEP, WD_DEPTH_MAX);
}

/* Forms that keep their levels in the folded tree, each to the last level and one further. */
static void
depth_kept(void **state)
{
    static const struct {
        const char *open, *middle, *close;
        size_t paren; /* of the level, within open */
    } forms[] = {
        {"ip and (tcp.Syn or ", "tcp.Ack", ")", 7},
        {"not (tcp.Syn and ", "tcp.Ack", ")", 4},
        {"!(tcp.Syn ? udp : ", "tcp.Ack", ")", 1},
        {"(tcp.Syn ? udp : ", "tcp.Ack", ")", 0},
        {"(", "tcp.Ack", "? udp.Length : icmp.Type)", 0},
        {"(tcp.Syn ? ", "tcp.Ack", ": ip.DF)", 0},
        {"not (tcp.Syn or udp ? false : ", "tcp.Ack or ip.DF", ")", 4},
        {"not (", "tcp.Ack or ip.DF", " ? ip.MF : false)", 4},
        {"not (", "tcp.Ack or ip.DF", " ? true : ip.MF)", 4},
        {"not (tcp ? false : ip.MF or ", "tcp.Ack or ip.DF", ")", 4},
        {"ip.MF or ip.DF and (udp ? ", "tcp.Ack", " : true)", 19},
        {"(tcp ? false : ", "tcp.Ack", ")", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        len = 0;
        put(forms[i].open, WD_DEPTH_MAX);
        put(forms[i].middle, 1);
        put(forms[i].close, WD_DEPTH_MAX);
        assert_lawful(WINDIVERT_LAYER_NETWORK);
        len = 0;
        put(forms[i].open, WD_DEPTH_MAX + 1);
        put(forms[i].middle, 1);
        put(forms[i].close, WD_DEPTH_MAX + 1);
        assert_fails(WD_FILTER_TOO_DEEP, strlen(forms[i].open) * WD_DEPTH_MAX + forms[i].paren);
    }
}

/* A set has as many elements as a filter has tests. */
static void
set_most(void **state)
{
    char element[16];

    (void)state;
    len = 0;
    put("tcp.DstPort in {80", 1);
    for (unsigned i = 1; i < WD_TESTS_MAX; i++) {
        snprintf(element, sizeof(element), ", %u", 2 * i + 80);
        put(element, 1);
    }
    put("}", 1);
    assert_lawful(WINDIVERT_LAYER_NETWORK);
    len--;
    put(", 79}", 1);
    assert_fails(WD_FILTER_BAD_TOKEN, 12);
}

/* As tests, a set opens a level. */
static void
set_depth(void **state)
{
    static const char open[] = "(tcp.Syn ? udp : ", set[] = "ip and tcp.DstPort not in {80, 8000..8080}";

    (void)state;
    for (unsigned levels = WD_DEPTH_MAX - 1; levels <= WD_DEPTH_MAX; levels++) {
        len = 0;
        put(open, levels);
        put(set, 1);
        put(")", levels);
        if (levels < WD_DEPTH_MAX)
            assert_lawful(WINDIVERT_LAYER_NETWORK);
        else
            assert_fails(WD_FILTER_BAD_TOKEN, strlen(open) * levels + strlen("ip and tcp.DstPort not "));
    }
}

/* Levels side by side, and negations without parentheses, are no depth. */
static void
not_depth(void **state)
{
    (void)state;
    len = 0;
    put("((tcp)) or ", 3000);
    put("((udp))", 1);
    assert_lawful(WINDIVERT_LAYER_NETWORK);
    len = 0;
    put("not ! ", 50000);
    put("tcp", 1);
    assert_lawful(WINDIVERT_LAYER_NETWORK);
}

/* Deep and wide at once. */
static void
deep_lists(void **state)
{
    (void)state;
    len = 0;
    for (int i = 0; i < WD_DEPTH_MAX; i++)
        put("tcp.Syn and tcp.Ack and (udp.Length or ip.DF or not (", 1), i++;
    put("ip.MF", 1);
    put("))", WD_DEPTH_MAX / 2);
    assert_lawful(WINDIVERT_LAYER_NETWORK);
    len = 0;
    put("(", WD_DEPTH_MAX);
    put("tcp.Syn", 1);
    for (int i = 0; i < WD_DEPTH_MAX; i++)
        put(" and tcp.Ack and tcp.Fin and tcp.Psh and tcp.Rst)", 1);
    assert_lawful(WINDIVERT_LAYER_NETWORK);
}

static int
set_up(void **state)
{
    (void)state;
    text = malloc(TEXT_MAX);
    return text ? 0 : -1;
}

static int
tear_down(void **state)
{
    (void)state;
    free(text);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tests_4096),  cmocka_unit_test(tests_most), cmocka_unit_test(long_list),
        cmocka_unit_test(depth_plain), cmocka_unit_test(depth_kept), cmocka_unit_test(not_depth),
        cmocka_unit_test(deep_lists),  cmocka_unit_test(set_most),   cmocka_unit_test(set_depth),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
