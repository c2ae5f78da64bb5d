/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Allocation n fails, for n = 1, 2, ... until all succeed: "Out of memory", nothing written, nothing left. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/filter.h"

#define OBJECT_MAX 65536
#define CHAIN 600 /* tests: enough for several blocks in each pass */

struct failing {
    unsigned long calls, fail_at, live;
};

static void *
failing_alloc(void *ctx, size_t size)
{
    struct failing *failing = ctx;
    void *block;

    if (++failing->calls == failing->fail_at)
        return NULL;
    block = malloc(size);
    failing->live += block != NULL;
    return block;
}

static void
failing_free(void *ctx, void *block)
{
    struct failing *failing = ctx;

    failing->live -= block != NULL;
    free(block);
}

typedef int attempt_function(struct wd_arena *arena, const char *text);

static struct wd_filter *const no_filter = (struct wd_filter *)0x1;

static int
attempt_compile(struct wd_arena *arena, const char *text)
{
    struct wd_filter_error error = {WD_FILTER_OK, 77};
    struct wd_filter *filter = no_filter;
    int ret = wd_filter_compile(arena, text, WINDIVERT_LAYER_NETWORK, &filter, &error);

    if (ret < 0) {
        assert_ptr_equal(filter, no_filter);
        assert_int_equal(error.code, WD_FILTER_NO_MEMORY);
        assert_int_equal(error.pos, 0);
        assert_string_equal(wd_filter_strerror(error.code), "Out of memory");
    }
    return ret;
}

static int
attempt_unfolded(struct wd_arena *arena, const char *text)
{
    struct wd_prog *prog = NULL;
    int ret = wd_filter_prog_unfolded(arena, text, WINDIVERT_LAYER_NETWORK, &prog);

    assert_int_equal(ret == 0, prog != NULL);
    return ret;
}

static int
attempt_specialise(struct wd_arena *arena, const char *text)
{
    const struct wd_known nothing = {0};
    struct wd_filter_error error;
    struct wd_prog *prog = NULL;
    struct wd_filter *filter;
    struct wd_arena plain;
    bool exact = true;
    int ret;

    wd_arena_init(&plain, NULL);
    assert_int_equal(wd_filter_compile(&plain, text, WINDIVERT_LAYER_NETWORK, &filter, &error), 0);
    ret = wd_filter_specialise(arena, filter, &nothing, &prog, &exact);
    assert_int_equal(ret == 0, prog != NULL);
    wd_arena_free(&plain);
    return ret;
}

static unsigned long
fail_each(attempt_function *attempt, const char *text)
{
    struct failing failing = {0, 0, 0};
    const struct wd_allocator allocator = {failing_alloc, failing_free, &failing};
    int ret = -ENOMEM;

    while (ret < 0) {
        struct wd_arena arena;

        failing.calls = 0;
        failing.fail_at++;
        wd_arena_init(&arena, &allocator);
        ret = attempt(&arena, text);
        if (ret < 0) {
            assert_int_equal(ret, -ENOMEM);
            assert_int_equal(failing.calls, failing.fail_at);
        }
        wd_arena_free(&arena);
        assert_int_equal(failing.live, 0);
    }
    return failing.fail_at - 1;
}

static char *
chain_text(void)
{
    char *text = malloc(CHAIN * 64), *at = text;

    assert_non_null(text);
    for (int i = 0; i < CHAIN; i++)
        at += sprintf(at, "%s%s(tcp.DstPort == %d)", i ? i % 3 ? " and " : " or " : "", i % 2 ? "not " : "", i + 1);
    return text;
}

static void
object_of(const char *text, char *object)
{
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_arena arena;

    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, text, WINDIVERT_LAYER_NETWORK, &filter, &error), 0);
    assert_int_equal(wd_filter_object(filter, object, OBJECT_MAX, NULL), 0);
    wd_arena_free(&arena);
}

static void
run(attempt_function *attempt, const char *what)
{
    char *chain = chain_text(), *object = malloc(OBJECT_MAX);
    unsigned long failures = 0;

    assert_non_null(object);
    object_of(chain, object);
    failures += fail_each(attempt, "tcp.DstPort == 80");
    failures += fail_each(attempt, chain);
    failures += fail_each(attempt, "not remoteAddr in {10.0.0.0/8, fe80::1, ::1..::9} and tcp");
    failures += fail_each(attempt, object);
    print_message("%s: %lu failed allocations\n", what, failures);
    assert_true(failures > 8);
    free(chain);
    free(object);
}

static void
compile(void **state)
{
    (void)state;
    run(attempt_compile, "compile");
}

static void
unfolded(void **state)
{
    (void)state;
    run(attempt_unfolded, "unfolded");
}

static void
specialise(void **state)
{
    (void)state;
    run(attempt_specialise, "specialise");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compile),
        cmocka_unit_test(unfolded),
        cmocka_unit_test(specialise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
