/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Walks field.def: every field parses where it may, prints as it parses, keeps its range, is refused elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/filter.h"
#include "core/lex.h"

#define LAYERS 5

static const char *const all_bits = "340282366920938463463374607431768211455";

static unsigned long rows;

struct compiled {
    struct wd_filter_error error;
    char text[256];
    const char *constant; /* "true", "false", or NULL */
};

static void
compile(const char *text, WINDIVERT_LAYER layer, struct compiled *ret_compiled)
{
    struct wd_filter *filter;
    struct wd_arena arena;

    memset(ret_compiled, 0, sizeof(*ret_compiled));
    wd_arena_init(&arena, NULL);
    rows++;
    if (wd_filter_compile(&arena, text, layer, &filter, &ret_compiled->error) == 0) {
        const struct wd_prog *prog = wd_filter_prog(filter);

        assert_int_equal(wd_filter_format(filter, ret_compiled->text, sizeof(ret_compiled->text), NULL), 0);
        if (prog->start >= WD_REJECT)
            ret_compiled->constant = prog->start == WD_ACCEPT ? "true" : "false";
    }
    wd_arena_free(&arena);
}

static void
assert_compiles_to(const char *text, WINDIVERT_LAYER layer, const char *expected)
{
    struct compiled compiled;

    compile(text, layer, &compiled);
    if (compiled.error.code != WD_FILTER_OK)
        fail_msg("%s: %s", text, wd_filter_strerror(compiled.error.code));
    if (strcmp(compiled.text, expected) != 0)
        fail_msg("%s: %s, not %s", text, compiled.text, expected);
}

static void
name_of(const struct wd_field_info *info, char *name, size_t size)
{
    snprintf(name, size, info->kind == WD_KIND_ARRAY ? "%s[0]" : "%s", info->name);
}

/* The text of the least or greatest value moved by steps, inside and outside the range. */
static void
end_text(const struct wd_field_info *info, bool greatest, int step, char *text, size_t size)
{
    if (info->kind == WD_KIND_ADDR) {
        static const char *const ends[2][3] = {
            {"-1", "::", "::1"},
            {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL}};

        snprintf(text, size, "%s", ends[greatest][step + 1]);
    } else if (info->kind == WD_KIND_INT) {
        int64_t value = greatest ? (int64_t)info->max : info->min;

        if (value == INT64_MIN && step < 0)
            snprintf(text, size, "-9223372036854775809");
        else if (value == INT64_MAX && step > 0)
            snprintf(text, size, "9223372036854775808");
        else
            snprintf(text, size, "%lld", (long long)(value + step));
    } else {
        uint64_t value = greatest ? info->max : info->umin;

        if (value == 0 && step < 0)
            snprintf(text, size, "-1");
        else if (value == UINT64_MAX && step > 0)
            snprintf(text, size, "18446744073709551616");
        else
            snprintf(text, size, "%llu", (unsigned long long)(value + (uint64_t)(int64_t)step));
    }
}

/* What "always, where present" of a field is called. */
static const char *
presence_text(const struct wd_field_info *info)
{
    static char text[64];
    static const char *const names[] = {[WD_SRC_META] = "true", [WD_SRC_IP4] = "ip",       [WD_SRC_IP6] = "ipv6",
                                        [WD_SRC_ICMP] = "icmp", [WD_SRC_ICMP6] = "icmpv6", [WD_SRC_TCP] = "tcp",
                                        [WD_SRC_UDP] = "udp",   [WD_SRC_TCPDATA] = "tcp",  [WD_SRC_UDPDATA] = "udp"};

    if (info->kind != WD_KIND_ARRAY)
        return names[info->src];
    snprintf(text, sizeof(text), "%s[0] >= 0", info->name);
    return text;
}

static void
check_range(const struct wd_field_info *info, WINDIVERT_LAYER layer)
{
    static const struct {
        const char *op;
        bool greatest;
        int step;
        bool holds;
    } ends[] = {
        {"<", false, 0, false},  {">=", false, 0, true},   {"==", false, -1, false}, {"!=", false, -1, true},
        {"<", false, -1, false}, {"<=", false, -1, false}, {">", false, -1, true},   {">=", false, -1, true},
        {">", true, 0, false},   {"<=", true, 0, true},    {"==", true, 1, false},   {"!=", true, 1, true},
        {">", true, 1, false},   {">=", true, 1, false},   {"<", true, 1, true},     {"<=", true, 1, true},
    };
    char name[64], value[64], text[256];

    name_of(info, name, sizeof(name));
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (info->kind == WD_KIND_ADDR && ends[i].greatest && ends[i].step > 0)
            continue; /* there is no greater number */
        end_text(info, ends[i].greatest, ends[i].step, value, sizeof(value));
        snprintf(text, sizeof(text), "%s %s %s", name, ends[i].op, value);
        assert_compiles_to(text, layer, ends[i].holds ? presence_text(info) : "false");
    }
}

/* Inside the range nothing is constant, and the canonical text is the same filter again. */
static void
check_inside(const struct wd_field_info *info, WINDIVERT_LAYER layer)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    char name[64], value[64], text[256];

    if (info->umin == info->max && info->kind == WD_KIND_UINT)
        return; /* zero */
    name_of(info, name, sizeof(name));
    for (int i = 0; i < 24; i++) {
        bool greatest = i & 1;
        int step = i & 2 ? greatest ? -1 : 1 : 0;
        struct compiled compiled;
        const char *op = ops[i / 4];
        bool at_end = op[0] == (greatest == (op[1] != '=') ? '>' : '<');

        if (step == 0 ? at_end : info->kind == WD_KIND_FLAG)
            continue; /* constant, see above; beside the end of a flag is its other end */
        end_text(info, greatest, step, value, sizeof(value));
        snprintf(text, sizeof(text), "%s %s %s", name, op, value);
        compile(text, layer, &compiled);
        if (compiled.error.code != WD_FILTER_OK || compiled.constant || !strstr(compiled.text, info->name))
            fail_msg("%s: %s", text, compiled.text);
        assert_compiles_to(compiled.text, layer, compiled.text);
    }
}

static bool
is_constant_field(enum wd_field field)
{
    return field == WD_F_ZERO || field == WD_F_TRUE || field == WD_F_FALSE;
}

static void
every_field(void **state)
{
    (void)state;
    rows = 0;
    for (int field = 0; field < WD_FIELD_COUNT; field++) {
        const struct wd_field_info *info = &wd_fields[field];
        struct compiled compiled;
        char name[64];

        assert_true(info->layers && info->layers < 1 << LAYERS);
        name_of(info, name, sizeof(name));
        for (int layer = 0; layer < LAYERS; layer++) {
            compile(name, (WINDIVERT_LAYER)layer, &compiled);
            if (!(info->layers & 1 << layer)) {
                assert_int_equal(compiled.error.code, WD_FILTER_BAD_TOKEN_FOR_LAYER);
                assert_int_equal(compiled.error.pos, 0);
                continue;
            }
            assert_int_equal(compiled.error.code, WD_FILTER_OK);
            check_range(info, (WINDIVERT_LAYER)layer);
            if (!is_constant_field((enum wd_field)field))
                check_inside(info, (WINDIVERT_LAYER)layer);
            else
                assert_non_null(compiled.constant);
        }
    }
    print_message("%d fields, %lu filters compiled\n", WD_FIELD_COUNT, rows);
}

/* Any value at all may be compared with any field. */
static void
every_value(void **state)
{
    static const char *const values[] = {"0", "-0", "1.2.3.4", "::1", "0xFFFF00000000", "-30001", "TRUE", "-TCP"};
    char name[64], text[256];
    struct compiled compiled;

    (void)state;
    for (int field = 0; field < WD_FIELD_COUNT; field++) {
        int layer = 0;

        while (!(wd_fields[field].layers & 1 << layer))
            layer++;
        name_of(&wd_fields[field], name, sizeof(name));
        for (size_t i = 0; i <= sizeof(values) / sizeof(values[0]); i++) {
            snprintf(text, sizeof(text), "%s >= %s", name,
                     i < sizeof(values) / sizeof(values[0]) ? values[i] : all_bits);
            compile(text, (WINDIVERT_LAYER)layer, &compiled);
            assert_int_equal(compiled.error.code, WD_FILTER_OK);
        }
    }
}

/* A name that is the beginning of another, or one letter off, is not taken for it. */
static void
no_near_names(void **state)
{
    char name[64];
    struct compiled compiled;

    (void)state;
    for (int field = 0; field < WD_FIELD_COUNT; field++) {
        size_t len = strlen(wd_fields[field].name);

        snprintf(name, sizeof(name), "%sx", wd_fields[field].name);
        compile(name, WINDIVERT_LAYER_NETWORK, &compiled);
        assert_int_equal(compiled.error.code, WD_FILTER_BAD_TOKEN);
        snprintf(name, sizeof(name), "%s", wd_fields[field].name);
        name[len - 1] ^= 0x20;
        if (name[len - 1] == '_' || strchr("0123456789", wd_fields[field].name[len - 1]))
            continue;
        compile(name, WINDIVERT_LAYER_NETWORK, &compiled);
        assert_int_equal(compiled.error.code, WD_FILTER_BAD_TOKEN);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field),
        cmocka_unit_test(every_value),
        cmocka_unit_test(no_near_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
