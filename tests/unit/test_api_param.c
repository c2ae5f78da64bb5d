/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Parameters, statistics, WinDivertShutdown's argument. */
#include "api_test.h"

#include <errno.h>

static int
reset(void **state)
{
    (void)state;
    em_reset();
    return 0;
}

/* As the manual has them. */
static const struct {
    WINDIVERT_PARAM param;
    UINT64 min, normal, max;
} settable[] = {
    {WINDIVERT_PARAM_QUEUE_LENGTH, 32, 4096, 16384},
    {WINDIVERT_PARAM_QUEUE_TIME, 100, 2000, 16000},
    {WINDIVERT_PARAM_QUEUE_SIZE, 65535, 4194304, 33554432},
};

static void
assert_param(HANDLE handle, WINDIVERT_PARAM param, UINT64 expected)
{
    UINT64 value = 0;

    assert_works(WinDivertGetParam(handle, param, &value));
    assert_int_equal(value, expected);
}

static void
test_ranges(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    for (size_t i = 0; i < COUNT(settable); i++) {
        WINDIVERT_PARAM param = settable[i].param;
        const UINT64 bad[] = {0,
                              1,
                              settable[i].min - 1,
                              settable[i].max + 1,
                              UINT32_MAX,
                              settable[i].normal + ((UINT64)1 << 32),
                              UINT64_MAX};

        assert_param(handle, param, settable[i].normal);
        assert_works(WinDivertSetParam(handle, param, settable[i].min));
        assert_param(handle, param, settable[i].min);
        assert_works(WinDivertSetParam(handle, param, settable[i].max));
        for (size_t k = 0; k < COUNT(bad); k++)
            assert_fails(WinDivertSetParam(handle, param, bad[k]), 87);
        assert_text("is not in");
        assert_param(handle, param, settable[i].max);
    }
    assert_works(WinDivertClose(handle));
}

static void
test_version(void **state)
{
    static const int layers[] = {0, 1, 2, 3, 4};

    (void)state;
    for (size_t i = 0; i < COUNT(layers); i++) {
        HANDLE handle = open_handle((WINDIVERT_LAYER)layers[i], i < 2 ? 0 : 5);

        assert_param(handle, WINDIVERT_PARAM_VERSION_MAJOR, 2);
        assert_param(handle, WINDIVERT_PARAM_VERSION_MINOR, 2);
        assert_fails(WinDivertSetParam(handle, WINDIVERT_PARAM_VERSION_MAJOR, 2), 87);
        assert_text("read-only");
        assert_fails(WinDivertSetParam(handle, WINDIVERT_PARAM_VERSION_MINOR, 3), 87);
        assert_works(WinDivertClose(handle));
    }
}

static void
test_unknown(void **state)
{
    static const int unknown[] = {5, 6, -1, 255, INT32_MAX, INT32_MIN};
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    UINT64 value = UNTOUCHED;

    (void)state;
    for (size_t i = 0; i < COUNT(unknown); i++) {
        assert_fails(WinDivertSetParam(handle, (WINDIVERT_PARAM)unknown[i], 1000), 87);
        assert_fails(WinDivertGetParam(handle, (WINDIVERT_PARAM)unknown[i], &value), 87);
        assert_fails(WinDivertExtSetParam(handle, (WINDIVERT_EXT_PARAM)unknown[i], 1000), 87);
        assert_fails(WinDivertExtGetParam(handle, (WINDIVERT_EXT_PARAM)unknown[i], &value), 87);
    }
    assert_int_equal(value, UNTOUCHED);
    assert_works(WinDivertClose(handle));
}

static void
test_null(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    for (int param = 0; param <= WINDIVERT_PARAM_MAX; param++)
        assert_fails(WinDivertGetParam(handle, (WINDIVERT_PARAM)param, NULL), 87);
    assert_fails(WinDivertExtGetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, NULL), 87);
    assert_fails(WinDivertExtGetStats(handle, NULL), 87);
    assert_works(WinDivertClose(handle));
}

static void
test_hold_time(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    UINT64 value = 0;

    (void)state;
    assert_works(WinDivertExtGetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, &value));
    assert_int_equal(value, 100);
    assert_fails(WinDivertExtSetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 0), 87);
    assert_fails(WinDivertExtSetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 16001), 87);
    assert_fails(WinDivertExtSetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 2001), 87); /* QUEUE_TIME is 2000 */
    assert_text("queue time");
    assert_works(WinDivertExtSetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    assert_works(WinDivertExtSetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 1));
    assert_works(WinDivertExtGetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, &value));
    assert_int_equal(value, 1);
    assert_works(WinDivertClose(handle));
}

static void
test_switches(void **state)
{
    static const struct {
        WINDIVERT_EXT_PARAM param;
        UINT64 first;
    } switches[] = {
        {WINDIVERT_EXT_PARAM_SEGMENTS, WINDIVERT_EXT_PARAM_SEGMENTS_DEFAULT},
        {WINDIVERT_EXT_PARAM_FAIL_OPEN, WINDIVERT_EXT_PARAM_FAIL_OPEN_DEFAULT},
    };
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    UINT64 value = UNTOUCHED;

    (void)state;
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        assert_works(WinDivertExtGetParam(handle, switches[i].param, &value));
        assert_int_equal(value, switches[i].first);
        assert_fails(WinDivertExtSetParam(handle, switches[i].param, 2), 87);
        assert_works(WinDivertExtSetParam(handle, switches[i].param, 1));
        assert_works(WinDivertExtGetParam(handle, switches[i].param, &value));
        assert_int_equal(value, 1);
    }
    assert_works(WinDivertClose(handle));
}

/* The engine refuses: its code, and no output changes. */
static void
test_engine_refuses(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    UINT64 value = UNTOUCHED;

    (void)state;
    for (int call = EM_SHUTDOWN; call <= EM_GET_EXT; call++)
        em_fail((enum em_call)call, -ENOBUFS, "no room", NULL);
    assert_fails(WinDivertSetParam(handle, WINDIVERT_PARAM_QUEUE_TIME, 1000), 1450);
    assert_fails(WinDivertGetParam(handle, WINDIVERT_PARAM_QUEUE_TIME, &value), 1450);
    assert_fails(WinDivertExtSetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 1000), 1450);
    assert_fails(WinDivertExtGetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, &value), 1450);
    assert_fails(WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_BOTH), 1450);
    assert_string_equal(WinDivertExtGetLastErrorText(), "no room");
    assert_int_equal(value, UNTOUCHED);
    assert_works(WinDivertClose(handle));
}

/* Each size from nothing to beyond: what fits is written, no byte after it. */
static void
test_stats_size(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct {
        WINDIVERT_EXT_STATS stats;
        UINT64 more[4];
    } out;

    (void)state;
    em_put(em_last(), "", 1, &(WINDIVERT_ADDRESS){0});
    assert_works(WinDivertRecv(handle, NULL, 0, NULL, NULL));
    for (UINT64 size = 0; size <= sizeof(out); size++) {
        UINT64 filled = size < sizeof(out.stats) ? size / 8 * 8 : sizeof(out.stats);

        memset(&out, 0xa5, sizeof(out));
        out.stats.Size = size;
        if (size < sizeof(UINT64)) {
            assert_fails(WinDivertExtGetStats(handle, &out.stats), 87);
            assert_int_equal(out.stats.Size, size);
            filled = sizeof(UINT64);
        } else {
            assert_works(WinDivertExtGetStats(handle, &out.stats));
            assert_int_equal(out.stats.Size, filled);
        }
        if (filled >= 2 * sizeof(UINT64))
            assert_int_equal(out.stats.Delivered, 1);
        for (UINT64 i = filled; i < sizeof(out); i++)
            assert_int_equal(((uint8_t *)&out)[i], 0xa5);
    }
    assert_works(WinDivertClose(handle));
}

static void
test_shutdown_how(void **state)
{
    static const int bad[] = {0, 4, 5, 7, -1, 256, INT32_MAX, INT32_MIN};
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_fails(WinDivertShutdown(handle, (WINDIVERT_SHUTDOWN)bad[i]), 87);
    assert_int_equal(em_counts().calls, 1); /* open */
    for (int how = 1; how <= 3; how++)
        assert_works(WinDivertShutdown(handle, (WINDIVERT_SHUTDOWN)how));
    assert_works(WinDivertClose(handle));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_ranges, reset),         cmocka_unit_test_setup(test_version, reset),
        cmocka_unit_test_setup(test_unknown, reset),        cmocka_unit_test_setup(test_null, reset),
        cmocka_unit_test_setup(test_hold_time, reset),      cmocka_unit_test_setup(test_switches, reset),
        cmocka_unit_test_setup(test_engine_refuses, reset), cmocka_unit_test_setup(test_stats_size, reset),
        cmocka_unit_test_setup(test_shutdown_how, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
