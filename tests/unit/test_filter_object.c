/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Objects from outside: whatever is not exactly what the compiler writes is
 * refused, also where the check digits are right.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/filter.h"

#define OBJECT_MAX (1 << 20)
#define PREFIX "@OpenDivert1"
#define LAYER_AT (sizeof(PREFIX) - 1)
#define CHECK_AT (LAYER_AT + 1)
#define BODY_AT (CHECK_AT + 8)

/* See object.c. */
static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
enum { CODE_AND = 12, CODE_OR, CODE_NOT, CODE_COND, CODE_FALSE, CODE_TRUE };

static const struct {
    WINDIVERT_LAYER layer;
    const char *text;
} filters[] = {
    {WINDIVERT_LAYER_NETWORK, "true"},
    {WINDIVERT_LAYER_NETWORK, "false"},
    {WINDIVERT_LAYER_NETWORK, "tcp.DstPort == 443"},
    {WINDIVERT_LAYER_NETWORK, "outbound and !loopback and (tcp.DstPort == 80 or udp.DstPort == 53)"},
    {WINDIVERT_LAYER_NETWORK, "not (tcp.Syn and ipv6.SrcAddr == fe80::1) or (tcp ? packet16[-5b] > 7 : length < 99)"},
    {WINDIVERT_LAYER_NETWORK, "(udp.Length ? false : ip.DF or ip.MF) and timestamp > -5 and tcp.Payload32[3] >= 0"},
    {WINDIVERT_LAYER_NETWORK, "localAddr < ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe and ip.SrcAddr > 10.0.0.1"},
    {WINDIVERT_LAYER_FLOW, "event == ESTABLISHED and processId != 4 and endpointId == 18446744073709551615"},
    {WINDIVERT_LAYER_SOCKET, "event == CONNECT or (event == BIND ? localPort < 1024 : remotePort == 443)"},
    {WINDIVERT_LAYER_REFLECT, "layer == SOCKET and priority >= -100"},
};

#define FILTERS (sizeof(filters) / sizeof(filters[0]))

/* 0 and the object it writes itself, or the code of the refusal. */
static enum wd_filter_code
load(const char *text, WINDIVERT_LAYER layer, char *again, char *format)
{
    struct wd_filter_error error = {WD_FILTER_OK, 0};
    struct wd_filter *filter;
    struct wd_arena arena;

    wd_arena_init(&arena, NULL);
    if (wd_filter_compile(&arena, text, layer, &filter, &error) == 0) {
        assert_int_equal(wd_filter_object(filter, again, OBJECT_MAX, NULL), 0);
        assert_int_equal(wd_filter_format(filter, format, OBJECT_MAX, NULL), 0);
    } else {
        assert_int_equal(error.pos, error.code == WD_FILTER_BAD_OBJECT ? 0 : error.pos);
    }
    wd_arena_free(&arena);
    return error.code;
}

static char *object, *changed, *again, *format, *third;

/* Makes the check digits right. */
static void
seal(char *text)
{
    uint32_t check = (0x811C9DC5u ^ (unsigned char)text[LAYER_AT]) * 0x01000193u;
    char digits[9];

    for (const char *at = text + BODY_AT; *at; at++)
        check = (check ^ (unsigned char)*at) * 0x01000193u;
    snprintf(digits, sizeof(digits), "%08x", check);
    memcpy(text + CHECK_AT, digits, 8);
}

/* What is accepted says what it is, and is its own normal form. */
static bool
accepted(const char *text, WINDIVERT_LAYER layer)
{
    enum wd_filter_code code = load(text, layer, again, format);

    if (code != WD_FILTER_OK) {
        assert_int_equal(code, WD_FILTER_BAD_OBJECT);
        return false;
    }
    assert_string_equal(text, again);
    strcpy(third, format);
    assert_int_equal(load(third, layer, again, format), WD_FILTER_OK);
    assert_string_equal(text, again);
    assert_string_equal(third, format);
    return true;
}

static void
write_object(size_t i)
{
    assert_int_equal(load(filters[i].text, filters[i].layer, object, format), WD_FILTER_OK);
    assert_memory_equal(object, PREFIX, LAYER_AT);
    for (const char *at = object; *at; at++)
        assert_true(*at > ' ' && *at < 0x7F);
    strcpy(changed, object);
    seal(changed);
    assert_string_equal(changed, object);
}

static void
damaged(void **state)
{
    unsigned long tried = 0;

    (void)state;
    for (size_t i = 0; i < FILTERS; i++) {
        write_object(i);
        assert_true(accepted(object, filters[i].layer));
        for (size_t at = 1; object[at]; at++) {
            for (int byte = 0; byte < 256; byte++) {
                strcpy(changed, object);
                changed[at] = (char)byte;
                if (changed[at] != object[at])
                    assert_false(accepted(changed, filters[i].layer));
                tried++;
            }
            strcpy(changed, object);
            memmove(changed + at, changed + at + 1, strlen(changed + at));
            if (strcmp(changed, object) != 0)
                assert_false(accepted(changed, filters[i].layer));
        }
        strcat(strcpy(changed, object), "0");
        assert_false(accepted(changed, filters[i].layer));
    }
    print_message("%lu changed objects refused\n", tried);
}

static void
truncated(void **state)
{
    (void)state;
    for (size_t i = 0; i < FILTERS; i++) {
        write_object(i);
        for (size_t len = 1; len < strlen(object); len++) {
            char *exact = malloc(len + 1); /* one byte too far is seen by ASan */

            assert_non_null(exact);
            memcpy(exact, object, len);
            exact[len] = 0;
            assert_false(accepted(exact, filters[i].layer));
            if (len >= BODY_AT) {
                seal(exact);
                assert_false(accepted(exact, filters[i].layer));
            }
            free(exact);
        }
    }
}

/* With right check digits only the contents can tell. */
static void
forged(void **state)
{
    unsigned long tried = 0, taken = 0;

    (void)state;
    for (size_t i = 0; i < FILTERS; i++) {
        write_object(i);
        for (size_t at = BODY_AT; object[at]; at++) {
            for (int digit = 0; digit < 64; digit++) {
                strcpy(changed, object);
                changed[at] = alphabet[digit];
                seal(changed);
                taken += accepted(changed, filters[i].layer);
                memmove(changed + at + 1, changed + at, strlen(changed + at) + 1);
                seal(changed);
                taken += accepted(changed, filters[i].layer);
                tried += 2;
            }
        }
    }
    print_message("%lu forged objects, %lu of them filters, the others refused\n", tried, taken);
    assert_true(taken < tried / 2);
    assert_true(taken > FILTERS);
}

static void
other_layers(void **state)
{
    (void)state;
    for (size_t i = 0; i < FILTERS; i++) {
        write_object(i);
        for (int layer = 0; layer < 5; layer++)
            assert_int_equal(accepted(object, (WINDIVERT_LAYER)layer), layer == (int)filters[i].layer);
        for (int layer = 0; layer < 5; layer++) { /* a field of another layer */
            strcpy(changed, object);
            changed[LAYER_AT] = (char)('0' + layer);
            seal(changed);
            accepted(changed, (WINDIVERT_LAYER)layer);
        }
    }
    write_object(2); /* tcp.DstPort at FLOW */
    object[LAYER_AT] = '2';
    seal(object);
    assert_false(accepted(object, WINDIVERT_LAYER_FLOW));
}

static size_t body;

static void
put_number(uint64_t number)
{
    do {
        uint64_t bits = number & 31;

        number >>= 5;
        changed[BODY_AT + body++] = alphabet[bits | (number ? 32 : 0)];
    } while (number);
    changed[BODY_AT + body] = 0;
}

static void
put_test(unsigned op, enum wd_field field, uint64_t value)
{
    put_number(op);
    put_number(field);
    put_number(value);
}

static void
begin(void)
{
    strcpy(changed, PREFIX "000000000");
    body = 0;
}

static bool
accepted_body(void)
{
    seal(changed);
    return accepted(changed, WINDIVERT_LAYER_NETWORK);
}

/* Trees the compiler never writes: they mean something, but not in normal form. */
static void
not_normal(void **state)
{
    (void)state;
    begin();
    put_test(WD_OP_EQ, WD_F_TCP, 1);
    assert_true(accepted_body()); /* as the compiler writes it */
    begin();
    put_test(WD_OP_NE, WD_F_TCP, 0);
    assert_false(accepted_body());
    begin();
    put_test(WD_OP_LT, WD_F_TCP_DSTPORT, 70000);
    assert_false(accepted_body());
    begin();
    put_test(WD_OP_EQ, WD_F_TRUE, 1);
    assert_false(accepted_body());
    begin();
    put_number(CODE_NOT);
    put_test(WD_OP_EQ, WD_F_TCP, 1);
    assert_false(accepted_body());
    begin();
    put_number(CODE_NOT);
    put_number(CODE_NOT);
    put_test(WD_OP_EQ, WD_F_TCP_DSTPORT, 1);
    assert_false(accepted_body());
    begin();
    put_number(CODE_AND);
    put_number(2);
    put_number(CODE_TRUE);
    put_test(WD_OP_EQ, WD_F_TCP, 1);
    assert_false(accepted_body());
    begin();
    put_number(CODE_AND);
    put_number(1);
    put_test(WD_OP_EQ, WD_F_TCP, 1);
    assert_false(accepted_body());
    begin();
    put_number(CODE_OR);
    put_number(0);
    assert_false(accepted_body());
    begin();
    put_test(6, WD_F_TCP_DSTPORT, 5); /* below zero: never */
    assert_false(accepted_body());
    begin();
    put_test(6, WD_F_TIMESTAMP, 0); /* minus zero */
    assert_false(accepted_body());
}

static void
nested(unsigned levels)
{
    begin();
    for (unsigned i = 0; i < levels; i++)
        put_number(CODE_NOT), put_number(CODE_OR), put_number(2), put_test(WD_OP_EQ, WD_F_TCP_SYN, 1);
    put_test(WD_OP_EQ, WD_F_TCP_ACK, 1);
}

static void
too_much(void **state)
{
    (void)state;
    nested(WD_DEPTH_MAX);
    assert_true(accepted_body());
    nested(WD_DEPTH_MAX + 1);
    assert_false(accepted_body());
    begin();
    for (unsigned i = 0; i < 200000; i++)
        put_number(CODE_NOT);
    put_number(CODE_TRUE);
    assert_false(accepted_body());
    for (unsigned tests = WD_TESTS_MAX; tests <= WD_TESTS_MAX + 1; tests++) {
        begin();
        put_number(CODE_OR);
        put_number(tests);
        for (unsigned i = 0; i < tests; i++)
            put_test(WD_OP_EQ, WD_F_TCP_DSTPORT, i % 5);
        assert_int_equal(accepted_body(), tests == WD_TESTS_MAX);
    }
    begin();
    put_number(CODE_AND);
    put_number(UINT64_MAX);
    assert_false(accepted_body());
    begin();
    put_number(WD_OP_EQ);
    put_number(WD_FIELD_COUNT);
    put_number(1);
    assert_false(accepted_body());
    begin();
    put_number(WD_OP_EQ);
    put_number(WD_F_PACKET);
    put_number(2 * 65535);
    put_number(1);
    assert_false(accepted_body()); /* an index no text may have */
    begin();
    put_number(WD_OP_EQ);
    put_number(WD_F_LOCALADDR);
    for (int i = 0; i < 26; i++)
        changed[BODY_AT + body++] = '_';
    strcpy(changed + BODY_AT + body, "0");
    assert_false(accepted_body()); /* more than 128 bits */
}

static void
not_objects(void **state)
{
    static const char *const texts[] = {"@",
                                        "@@",
                                        "@OpenDivert",
                                        PREFIX,
                                        PREFIX "0",
                                        PREFIX "000000000",
                                        PREFIX "0000000000",
                                        "@WinDiv_0",
                                        "@OpenDivert20069ede3a5H",
                                        "@ true"};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(load(texts[i], WINDIVERT_LAYER_NETWORK, again, format), WD_FILTER_BAD_OBJECT);
    assert_int_equal(load(" " PREFIX, WINDIVERT_LAYER_NETWORK, again, format), WD_FILTER_BAD_TOKEN);
}

static char **const buffers[] = {&object, &changed, &again, &format, &third};

static int
set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        if (!(*buffers[i] = malloc(OBJECT_MAX)))
            return -1;
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        free(*buffers[i]);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged),     cmocka_unit_test(truncated), cmocka_unit_test(forged),
        cmocka_unit_test(not_normal),  cmocka_unit_test(too_much),  cmocka_unit_test(other_layers),
        cmocka_unit_test(not_objects),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
