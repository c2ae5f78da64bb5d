/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Last error, text and remedy: the errno table, threads, SetLastError. */
#include "api_test.h"

#include <errno.h>
#include <pthread.h>

#include "api/error.h"

/* As engine.h documents it; every other errno is 31. */
static const struct {
    int error;
    DWORD code;
} documented[] = {
    {EACCES, 5},    {EPERM, 5},       {ENOENT, 1060},   {EINVAL, 87},     {EOPNOTSUPP, 50},    {EMSGSIZE, 122},
    {ENODATA, 232}, {ESHUTDOWN, 232}, {ETIMEDOUT, 258}, {ECANCELED, 995}, {ENETUNREACH, 1231}, {EHOSTUNREACH, 1232},
    {ENOMEM, 8},    {ENOBUFS, 1450},  {EMFILE, 1450},   {ENFILE, 1450},   {ENOSPC, 1450},
};

static DWORD
code_of(int error)
{
    for (size_t i = 0; i < COUNT(documented); i++)
        if (documented[i].error == error)
            return documented[i].code;
    return 31;
}

static void
test_every_errno(void **state)
{
    (void)state;
    for (int error = 1; error < 4096; error++) {
        assert_int_equal(wd_api_code(-error), code_of(error));
        assert_fails(wd_api_fail_errno(-error, NULL), code_of(error));
    }
}

static void
test_text_of_unknown_errno(void **state)
{
    (void)state;
    assert_fails(wd_api_fail_errno(-EILSEQ, NULL), 31);
    assert_text(strerror(EILSEQ));
    assert_string_equal(WinDivertExtGetLastErrorRemedy(), "");
}

static void
test_text_of_engine(void **state)
{
    struct wd_error err;

    (void)state;
    wd_error_set(&err, 0, "do that", "100%% of %s", "it");
    assert_fails(wd_api_fail_errno(-ENOSPC, &err), 1450);
    assert_string_equal(WinDivertExtGetLastErrorText(), "100% of it");
    assert_string_equal(WinDivertExtGetLastErrorRemedy(), "do that");
}

/* The engine says what, the table knows what to do about it. */
static void
test_remedy_of_table(void **state)
{
    struct wd_error err;

    (void)state;
    wd_error_set(&err, 0, NULL, "no rules for you");
    assert_fails(wd_api_fail_errno(-EPERM, &err), 5);
    assert_string_equal(WinDivertExtGetLastErrorText(), "no rules for you");
    assert_non_null(strstr(WinDivertExtGetLastErrorRemedy(), "CAP_NET_ADMIN"));
}

static void
test_empty_text_of_engine(void **state)
{
    struct wd_error err = {.text = "", .remedy = ""};

    (void)state;
    assert_fails(wd_api_fail_errno(-ENOMEM, &err), 8);
    assert_text("memory");
}

static void
test_remedy_does_not_stay(void **state)
{
    (void)state;
    assert_fails(wd_api_fail(5, "do that", "one"), 5);
    assert_fails(wd_api_fail(87, NULL, "two"), 87);
    assert_string_equal(WinDivertExtGetLastErrorText(), "two");
    assert_string_equal(WinDivertExtGetLastErrorRemedy(), "");
}

static void
test_long_text(void **state)
{
    char text[2000];

    (void)state;
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    assert_fails(wd_api_fail(87, text, "%s", text), 87);
    assert_int_equal(strlen(WinDivertExtGetLastErrorText()), sizeof(((struct wd_error *)0)->text) - 1);
    assert_int_equal(strlen(WinDivertExtGetLastErrorRemedy()), sizeof(((struct wd_error *)0)->remedy) - 1);
}

/* The text never speaks of another error than the code does. */
static void
test_set_last_error(void **state)
{
    (void)state;
    assert_fails(wd_api_fail(6, "so", "this"), 6);
    SetLastError(1234);
    assert_int_equal(GetLastError(), 1234);
    assert_string_equal(WinDivertExtGetLastErrorText(), "");
    assert_string_equal(WinDivertExtGetLastErrorRemedy(), "");
    SetLastError(6);
    assert_string_equal(WinDivertExtGetLastErrorText(), "this");
    assert_string_equal(WinDivertExtGetLastErrorRemedy(), "so");
    SetLastError(0);
    assert_int_equal(GetLastError(), 0);
    assert_string_equal(WinDivertExtGetLastErrorText(), "");
}

static void *
fresh_thread(void *arg)
{
    bool *ok = arg;

    *ok = GetLastError() == 0 && !WinDivertExtGetLastErrorText()[0] && !WinDivertExtGetLastErrorRemedy()[0];
    return NULL;
}

static void
test_fresh_thread(void **state)
{
    pthread_t thread;
    bool ok = false;

    (void)state;
    assert_fails(wd_api_fail(6, "so", "this"), 6);
    assert_int_equal(pthread_create(&thread, NULL, fresh_thread, &ok), 0);
    pthread_join(thread, NULL);
    assert_true(ok);
    assert_string_equal(WinDivertExtGetLastErrorText(), "this");
}

struct talker {
    pthread_t thread;
    unsigned number;
    unsigned wrong;
};

/* Fails all the time, each time otherwise, and reads back its own. */
static void *
talk(void *arg)
{
    struct talker *me = arg;
    char text[32], remedy[32];

    for (unsigned i = 0; i < 5000; i++) {
        snprintf(text, sizeof(text), "text %u.%u", me->number, i);
        snprintf(remedy, sizeof(remedy), "remedy %u.%u", me->number, i);
        wd_api_fail(me->number * 10000 + i, remedy, "%s", text);
        me->wrong += GetLastError() != me->number * 10000 + i;
        me->wrong += strcmp(WinDivertExtGetLastErrorText(), text) != 0;
        me->wrong += strcmp(WinDivertExtGetLastErrorRemedy(), remedy) != 0;
    }
    return NULL;
}

static void
test_per_thread(void **state)
{
    struct talker talkers[4] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4}};

    (void)state;
    for (size_t i = 0; i < COUNT(talkers); i++)
        assert_int_equal(pthread_create(&talkers[i].thread, NULL, talk, &talkers[i]), 0);
    for (size_t i = 0; i < COUNT(talkers); i++) {
        pthread_join(talkers[i].thread, NULL);
        assert_int_equal(talkers[i].wrong, 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fresh_thread),          cmocka_unit_test(test_every_errno),
        cmocka_unit_test(test_text_of_unknown_errno), cmocka_unit_test(test_text_of_engine),
        cmocka_unit_test(test_remedy_of_table),       cmocka_unit_test(test_empty_text_of_engine),
        cmocka_unit_test(test_remedy_does_not_stay),  cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_set_last_error),        cmocka_unit_test(test_per_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
