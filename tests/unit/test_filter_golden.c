/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The rows of tests/filter/NAME.txt:
 *
 *   layer NAME               the rows that follow are of this layer
 *   expr ; ok ; text         compiles; its canonical text
 *   expr ; = other           both compile to the same object
 *   expr ; fail ; code @pos  is refused with this error there
 *
 * \t \n \r \v \f and \xHH stand for bytes.  A line beginning with # is none.
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

#define TEXT_MAX 4096

static unsigned long rows, wrong;

static void
unescape(char *text)
{
    static const char names[] = "tnrvf", values[] = "\t\n\r\v\f";
    char *to = text;

    for (const char *from = text; *from;) {
        const char *name = from[0] == '\\' && from[1] ? strchr(names, from[1]) : NULL;
        unsigned byte;

        if (name) {
            *to++ = values[name - names];
            from += 2;
        } else if (sscanf(from, "\\x%2x", &byte) == 1) {
            *to++ = (char)byte;
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
}

static void
complain(const char *where, const char *expr, const char *got)
{
    wrong++;
    print_error("%s: %s: %s\n", where, expr, got);
}

static const char *
code_name(enum wd_filter_code code)
{
    static const char *const names[WD_FILTER_CODE_COUNT] = {
        [WD_FILTER_OK] = "ok",
        [WD_FILTER_TOO_DEEP] = "deep",
        [WD_FILTER_TOO_LONG] = "long",
        [WD_FILTER_BAD_TOKEN] = "token",
        [WD_FILTER_BAD_TOKEN_FOR_LAYER] = "layer",
        [WD_FILTER_SYNTAX] = "syntax",
        [WD_FILTER_BAD_INDEX] = "index",
        [WD_FILTER_BAD_OBJECT] = "object",
    };

    return names[code] ? names[code] : "?";
}

typedef int write_function(const struct wd_filter *filter, char *buffer, size_t size, size_t *ret_needed);

/* What a text compiles to, or "code @pos". */
static void
outcome(const char *text, WINDIVERT_LAYER layer, write_function *function, char *result)
{
    struct wd_filter_error error = {WD_FILTER_OK, 0};
    struct wd_filter *filter;
    struct wd_arena arena;

    wd_arena_init(&arena, NULL);
    if (wd_filter_compile(&arena, text, layer, &filter, &error) < 0)
        snprintf(result, TEXT_MAX, "%s @%u", code_name(error.code), error.pos);
    else if (error.code != WD_FILTER_OK || error.pos)
        snprintf(result, TEXT_MAX, "an error on success");
    else if (function(filter, result, TEXT_MAX, NULL) < 0)
        snprintf(result, TEXT_MAX, "too long");
    wd_arena_free(&arena);
}

/* Cuts a line at the next " ; "; NULL where there is none. */
static char *
next_column(char *column)
{
    char *end = strstr(column, " ; ");

    if (!end)
        return NULL;
    *end = 0;
    return end + 3;
}

static void
check_row(const char *where, char *expr, WINDIVERT_LAYER layer)
{
    char *verdict = next_column(expr), *expected, got[TEXT_MAX], other[TEXT_MAX];

    rows++;
    if (!verdict) {
        complain(where, expr, "not a row");
        return;
    }
    unescape(expr);
    if (strncmp(verdict, "= ", 2) == 0) {
        outcome(expr, layer, wd_filter_object, got);
        outcome(verdict + 2, layer, wd_filter_object, other);
        if (strcmp(got, other) != 0 || got[0] != '@') {
            outcome(expr, layer, wd_filter_format, got);
            complain(where, expr, got);
        }
        return;
    }
    expected = next_column(verdict);
    outcome(expr, layer, wd_filter_format, got);
    if (!expected || (strcmp(verdict, "ok") != 0 && strcmp(verdict, "fail") != 0) || strcmp(got, expected) != 0)
        complain(where, expr, got);
}

static WINDIVERT_LAYER
layer_of(const char *name)
{
    static const char *const names[] = {"NETWORK", "NETWORK_FORWARD", "FLOW", "SOCKET", "REFLECT"};

    for (int i = 0; i < 5; i++)
        if (strcmp(names[i], name) == 0)
            return (WINDIVERT_LAYER)i;
    fail_msg("no layer %s", name);
    return WINDIVERT_LAYER_NETWORK;
}

static void
check_file(const char *name, unsigned long least)
{
    char path[1024], *line = NULL;
    WINDIVERT_LAYER layer = WINDIVERT_LAYER_NETWORK;
    unsigned number = 0;
    size_t room = 0;
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s.txt", TEST_FILTER_DIR, name);
    file = fopen(path, "r");
    assert_non_null(file);
    rows = wrong = 0;
    while (getline(&line, &room, file) > 0) {
        char where[128];

        number++;
        line[strcspn(line, "\n")] = 0;
        snprintf(where, sizeof(where), "%s.txt:%u", name, number);
        if (strncmp(line, "layer ", 6) == 0 && !strstr(line, " ; "))
            layer = layer_of(line + 6);
        else if (line[0] && line[0] != '#')
            check_row(where, line, layer);
    }
    free(line);
    fclose(file);
    print_message("%s: %lu rows\n", name, rows);
    assert_int_equal(wrong, 0);
    assert_true(rows >= least);
}

static void
errors(void **state)
{
    (void)state;
    check_file("errors", 150);
}

static void
canonical(void **state)
{
    (void)state;
    check_file("canonical", 200);
}

static void
superset(void **state)
{
    (void)state;
    check_file("superset", 120);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors),
        cmocka_unit_test(canonical),
        cmocka_unit_test(superset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
