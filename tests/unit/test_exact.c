/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Which filter is evaluated at which position of the stream, while filters are swapped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "linux/exact.h"

static struct wd_compiled *
compiled(const char *text)
{
    struct wd_compiled *filter;

    assert_int_equal(wd_compiled_new(text, WINDIVERT_LAYER_NETWORK, &filter, NULL), 0);
    return filter;
}

static void
push(struct wd_exact *exact, struct wd_compiled *filter, const struct wd_prog *then, uint64_t until)
{
    struct wd_former *former = calloc(1, sizeof(*former));

    assert_non_null(former);
    *former = (struct wd_former){.filter = filter, .then = then, .until = until};
    wd_exact_push(exact, former);
}

static void
test_positions(void **state)
{
    struct wd_compiled *one = compiled("udp"), *two = compiled("tcp"), *three = compiled("icmp");
    const struct wd_prog *first = wd_filter_prog(one->filter), *second = wd_filter_prog(two->filter);
    struct wd_exact exact = {0};

    (void)state;
    assert_null(wd_exact_set(&exact, first));
    assert_ptr_equal(exact.prog, first);
    push(&exact, one, NULL, 100);
    assert_ptr_equal(exact.prog, first);
    /* The next swap begins before this one is over: only what comes after it is concerned. */
    assert_null(wd_exact_set(&exact, second));
    assert_ptr_equal(exact.prog, first);
    push(&exact, two, wd_filter_prog(three->filter), 200);
    wd_exact_pass(&exact, 99);
    assert_ptr_equal(exact.prog, first);
    wd_exact_pass(&exact, 100);
    assert_ptr_equal(exact.prog, second);
    wd_exact_pass(&exact, 1000);
    assert_ptr_equal(exact.prog, wd_filter_prog(three->filter));
    assert_null(exact.first);
    assert_null(exact.last);
    assert_ptr_equal(wd_exact_set(&exact, NULL), wd_filter_prog(three->filter));
    wd_compiled_free(three);
    wd_compiled_free(NULL);
}

/* Numbers of messages have 32 bits. */
static void
test_wrap(void **state)
{
    struct wd_compiled *one = compiled("udp");
    struct wd_exact exact = {.prog = wd_filter_prog(one->filter)};

    (void)state;
    push(&exact, one, NULL, 5);
    wd_exact_pass32(&exact, UINT32_MAX - 3);
    assert_non_null(exact.prog);
    wd_exact_pass32(&exact, 4);
    assert_non_null(exact.prog);
    wd_exact_pass32(&exact, 6);
    assert_null(exact.prog);
    wd_exact_pass32(&exact, 7);
    wd_exact_free(&exact);
}

static void
test_end(void **state)
{
    struct wd_exact exact = {0};

    (void)state;
    push(&exact, compiled("udp"), NULL, 1);
    push(&exact, NULL, NULL, 2);
    wd_exact_free(&exact);
    assert_null(exact.first);
}

static void
test_bad_filter(void **state)
{
    struct wd_compiled *filter = NULL;
    struct wd_error err;

    (void)state;
    assert_true(wd_compiled_new("nonsense", WINDIVERT_LAYER_NETWORK, &filter, &err) < 0);
    assert_null(filter);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_bad_filter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
