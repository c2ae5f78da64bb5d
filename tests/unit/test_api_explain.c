/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WinDivertExtExplainFilter: arguments and buffers; the text itself is the engine's. */
#include "api_test.h"

#include "windivert_ext.h"

#define NETWORK WINDIVERT_LAYER_NETWORK

static BOOL
explain(const char *filter, UINT64 flags, UINT64 options, char *buffer, UINT len, UINT *ret_needed)
{
    return WinDivertExtExplainFilter(filter, NETWORK, 0, flags, options, buffer, len, ret_needed);
}

static void
test_text(void **state)
{
    char buffer[64];
    UINT needed = 0;

    (void)state;
    assert_true(explain("tcp", 0, 0, buffer, sizeof(buffer), &needed));
    assert_string_equal(buffer, "explained");
    assert_int_equal(needed, sizeof("explained"));
    assert_true(explain("tcp", 0, WINDIVERT_EXT_EXPLAIN_PROGRAMS, buffer, sizeof(buffer), NULL));
    assert_string_equal(buffer, "explained, with programs");
}

static void
test_buffer(void **state)
{
    char buffer[10] = "untouched";
    UINT needed = 0;

    (void)state;
    assert_fails(explain("tcp", 0, 0, buffer, 9, &needed), ERROR_INSUFFICIENT_BUFFER);
    assert_string_equal(buffer, "untouched");
    assert_int_equal(needed, 10);
    assert_true(explain("tcp", 0, 0, buffer, 10, NULL));
    needed = 0;
    assert_fails(explain("tcp", 0, 0, NULL, 0, &needed), ERROR_INSUFFICIENT_BUFFER);
    assert_int_equal(needed, 10);
    assert_fails(explain("tcp", 0, 0, NULL, 10, NULL), ERROR_INVALID_PARAMETER);
}

static void
test_arguments(void **state)
{
    char buffer[64];

    (void)state;
    assert_fails(explain(NULL, 0, 0, buffer, sizeof(buffer), NULL), ERROR_INVALID_PARAMETER);
    assert_fails(explain("tcp and", 0, 0, buffer, sizeof(buffer), NULL), ERROR_INVALID_PARAMETER);
    assert_fails(explain("tcp", 1 << 20, 0, buffer, sizeof(buffer), NULL), ERROR_INVALID_PARAMETER);
    assert_fails(explain("tcp", WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_DROP, 0, buffer, sizeof(buffer), NULL),
                 ERROR_INVALID_PARAMETER);
    assert_fails(explain("tcp", 0, 2, buffer, sizeof(buffer), NULL), ERROR_INVALID_PARAMETER);
    assert_fails(WinDivertExtExplainFilter("tcp", NETWORK, 30001, 0, 0, buffer, sizeof(buffer), NULL),
                 ERROR_INVALID_PARAMETER);
    assert_fails(WinDivertExtExplainFilter("true", WINDIVERT_LAYER_FLOW, 0,
                                           WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY, 0, buffer, sizeof(buffer),
                                           NULL),
                 ERROR_NOT_SUPPORTED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_buffer),
        cmocka_unit_test(test_arguments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
