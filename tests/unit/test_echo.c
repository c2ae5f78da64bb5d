/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Returned packets that come a second time: remembered when they may, once each, for a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "linux/echo.h"

#define MS INT64_C(10000)

static const uint8_t packet[100] = {0x45, 1, 2, 3};

/* A packet taken at `stamp`, now gone back: would it be expected? */
static bool
may_come(const struct wd_echoes *echoes, uint32_t stamp)
{
    return stamp != wd_echoes_now(echoes);
}

static void
test_settles(void **state)
{
    _Atomic uint32_t shifts = 7;
    struct wd_echoes echoes = {0};
    uint32_t before, between;

    (void)state;
    assert_false(may_come(&echoes, wd_echoes_stamp(&echoes))); /* there is no counter yet */
    wd_echoes_start(&echoes, &shifts);
    before = wd_echoes_stamp(&echoes);
    assert_false(may_come(&echoes, before));
    shifts += 2;
    assert_true(may_come(&echoes, before));
    wd_echoes_look(&echoes, 0, 10);
    wd_echoes_confirm(&echoes, 10); /* too early: packets may be on their way through the old hooks */
    between = wd_echoes_stamp(&echoes);
    assert_true(may_come(&echoes, between));
    wd_echoes_look(&echoes, 49 * MS, 20);
    wd_echoes_confirm(&echoes, 20);
    assert_true(may_come(&echoes, wd_echoes_stamp(&echoes)));
    wd_echoes_look(&echoes, 51 * MS, 30);
    wd_echoes_confirm(&echoes, 29); /* what was queued earlier is not read yet */
    assert_true(may_come(&echoes, wd_echoes_stamp(&echoes)));
    wd_echoes_confirm(&echoes, 30);
    assert_false(may_come(&echoes, wd_echoes_stamp(&echoes)));
    assert_true(may_come(&echoes, before)); /* what is held since then still may */
}

/* Another change while the first settles: from the beginning. */
static void
test_settles_again(void **state)
{
    _Atomic uint32_t shifts = 0;
    struct wd_echoes echoes = {0};

    (void)state;
    wd_echoes_start(&echoes, &shifts);
    shifts++;
    wd_echoes_look(&echoes, 0, UINT32_MAX - 1);
    wd_echoes_look(&echoes, 60 * MS, UINT32_MAX);
    shifts++;
    wd_echoes_look(&echoes, 70 * MS, 3);
    wd_echoes_confirm(&echoes, 3);
    assert_true(may_come(&echoes, wd_echoes_stamp(&echoes)));
    wd_echoes_look(&echoes, 130 * MS, UINT32_MAX);
    wd_echoes_confirm(&echoes, 2); /* sequence numbers wrap */
    assert_false(may_come(&echoes, wd_echoes_stamp(&echoes)));
}

static void
test_once(void **state)
{
    struct wd_echoes echoes = {0};
    uint8_t other[sizeof(packet)];

    (void)state;
    memcpy(other, packet, sizeof(packet));
    other[99] = 1;
    assert_false(wd_echoes_take(&echoes, packet, sizeof(packet), 1));
    wd_echoes_expect(&echoes, packet, sizeof(packet), 5, 1);
    assert_false(wd_echoes_take(&echoes, other, sizeof(other), 2));
    assert_false(wd_echoes_take(&echoes, packet, sizeof(packet) - 1, 2));
    assert_true(wd_echoes_take(&echoes, packet, sizeof(packet), 2));
    assert_false(wd_echoes_take(&echoes, packet, sizeof(packet), 2));
    wd_echoes_expect(&echoes, other, sizeof(other), 5, 3);
    assert_false(wd_echoes_take(&echoes, other, sizeof(other), 3 + 1000 * MS)); /* forgotten */
    wd_echoes_free(&echoes);
}

/* What a program sends again and again is no echo. */
static void
test_common(void **state)
{
    struct wd_echoes echoes = {0};

    (void)state;
    wd_echoes_expect(&echoes, packet, sizeof(packet), 5, 1);
    wd_echoes_expect(&echoes, packet, sizeof(packet), 6, 2);
    assert_false(wd_echoes_take(&echoes, packet, sizeof(packet), 2));
    wd_echoes_expect(&echoes, packet, sizeof(packet), 7, 2 + 1000 * MS);
    assert_true(wd_echoes_take(&echoes, packet, sizeof(packet), 3 + 1000 * MS));
    wd_echoes_expect(&echoes, packet, sizeof(packet), 8, 4 + 1000 * MS);
    assert_false(wd_echoes_take(&echoes, packet, sizeof(packet), 5 + 1000 * MS));
    wd_echoes_free(&echoes);
}

/* The echo comes before the verdict is confirmed, or never. */
static void
test_at_once(void **state)
{
    struct wd_echoes echoes = {0};

    (void)state;
    wd_echoes_expect(&echoes, packet, sizeof(packet), 5, 1);
    wd_echoes_confirm(&echoes, 4);
    assert_true(wd_echoes_take(&echoes, packet, sizeof(packet), 2));
    wd_echoes_expect(&echoes, packet, 50, 6, 1);
    wd_echoes_confirm(&echoes, 6);
    assert_false(wd_echoes_take(&echoes, packet, 50, 2));
    wd_echoes_free(&echoes);
}

/* Nothing was queued a while after the change: what comes is later. */
static void
test_settles_drained(void **state)
{
    _Atomic uint32_t shifts = 0;
    struct wd_echoes echoes = {0};

    (void)state;
    wd_echoes_start(&echoes, &shifts);
    shifts++;
    wd_echoes_look(&echoes, 0, 1);
    wd_echoes_drained(&echoes, 49 * MS);
    wd_echoes_look(&echoes, 100 * MS, 1);
    assert_true(may_come(&echoes, wd_echoes_stamp(&echoes)));
    wd_echoes_drained(&echoes, 51 * MS);
    wd_echoes_look(&echoes, 101 * MS, 1);
    assert_false(may_come(&echoes, wd_echoes_stamp(&echoes)));
}

/* Thousands are remembered; what does not fit costs the oldest. */
static void
test_many(void **state)
{
    struct wd_echoes echoes = {0};
    uint8_t bytes[40] = {0x60};
    unsigned found = 0;

    (void)state;
    for (uint32_t i = 0; i < 4000; i++) {
        memcpy(bytes + 36, &i, sizeof(i));
        wd_echoes_expect(&echoes, bytes, sizeof(bytes), i + 1, i + 1);
    }
    for (uint32_t i = 0; i < 4000; i++) {
        memcpy(bytes + 36, &i, sizeof(i));
        found += wd_echoes_take(&echoes, bytes, sizeof(bytes), 5000);
    }
    assert_in_range(found, 3990, 4000);
    for (uint32_t i = 0; i < 100000; i++) {
        memcpy(bytes + 36, &i, sizeof(i));
        wd_echoes_expect(&echoes, bytes, sizeof(bytes), i + 1, 6000 + i);
    }
    assert_true(wd_echoes_take(&echoes, bytes, sizeof(bytes), 200000));
    wd_echoes_free(&echoes);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settles), cmocka_unit_test(test_settles_again), cmocka_unit_test(test_settles_drained),
        cmocka_unit_test(test_at_once), cmocka_unit_test(test_once),          cmocka_unit_test(test_common),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
