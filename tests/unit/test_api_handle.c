/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Handles: which values are valid, stale ones, closing, the limit, fork. */
#include "api_test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int
reset(void **state)
{
    (void)state;
    em_reset();
    return 0;
}

/* Every function that takes a handle, otherwise called as it should be. */
static unsigned
count_invalid(HANDLE handle)
{
    WINDIVERT_EXT_STATS stats = {.Size = sizeof(stats)};
    WINDIVERT_ADDRESS addr = {0};
    uint8_t packet[40];
    UINT len = sizeof(addr);
    UINT64 value;
    unsigned count = 0;

    make_ipv4(packet, sizeof(packet), 0);
#define COUNT_INVALID(call) (SetLastError(UNTOUCHED), count += !(call) && GetLastError() == 6)
    COUNT_INVALID(WinDivertRecv(handle, packet, sizeof(packet), NULL, &addr));
    COUNT_INVALID(WinDivertRecvEx(handle, packet, sizeof(packet), NULL, 0, &addr, &len, NULL));
    COUNT_INVALID(WinDivertSend(handle, packet, sizeof(packet), NULL, &addr));
    COUNT_INVALID(WinDivertSendEx(handle, packet, sizeof(packet), NULL, 0, &addr, sizeof(addr), NULL));
    COUNT_INVALID(WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_BOTH));
    COUNT_INVALID(WinDivertSetParam(handle, WINDIVERT_PARAM_QUEUE_TIME, 1000));
    COUNT_INVALID(WinDivertGetParam(handle, WINDIVERT_PARAM_QUEUE_TIME, &value));
    COUNT_INVALID(WinDivertExtSetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 10));
    COUNT_INVALID(WinDivertExtGetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, &value));
    COUNT_INVALID(WinDivertExtSetFilter(handle, "true"));
    COUNT_INVALID(WinDivertExtSkipFlow(handle, packet, sizeof(packet)));
    COUNT_INVALID(WinDivertExtGetStats(handle, &stats));
    COUNT_INVALID(WinDivertClose(handle));
#undef COUNT_INVALID
    return count;
}

#define FUNCTIONS 13

static void
test_no_handles(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    uintptr_t value = (uintptr_t)handle;

    (void)state;
    assert_int_equal(count_invalid(NULL), FUNCTIONS);
    assert_text("NULL");
    assert_int_equal(count_invalid(INVALID_HANDLE_VALUE), FUNCTIONS);
    assert_text("INVALID_HANDLE_VALUE");
    assert_int_equal(count_invalid(&handle), FUNCTIONS);
    /* one bit off */
    for (unsigned bit = 0; bit < sizeof(value) * 8; bit++)
        assert_int_equal(count_invalid((HANDLE)(value ^ (uintptr_t)1 << bit)), FUNCTIONS);
    /* small numbers, as a descriptor would be */
    for (uintptr_t i = 0; i < 1000; i++)
        assert_int_equal(count_invalid((HANDLE)i), FUNCTIONS);
    assert_works(WinDivertClose(handle));
}

static void
test_close(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    assert_works(WinDivertClose(handle));
    assert_int_equal(em_counts().aborted, 1);
    assert_int_equal(em_counts().destroyed, 1);
    assert_int_equal(count_invalid(handle), FUNCTIONS);
    assert_int_equal(em_counts().aborted, 1);
    assert_int_equal(em_counts().destroyed, 1);
    assert_int_equal(em_counts().calls, 1); /* open: nothing else got through */
}

/* The first handle, and some of those after it, are tried again after each of 10,000 openings. */
static void
test_stale(void **state)
{
    enum { TIMES = 10000, KEPT = 50 };
    HANDLE old[KEPT], handle;

    (void)state;
    for (unsigned i = 0; i < TIMES; i++) {
        handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
        for (unsigned k = 0; k < (i < KEPT ? i : KEPT); k++) {
            assert_ptr_not_equal(handle, old[k]);
            assert_fails(WinDivertShutdown(old[k], WINDIVERT_SHUTDOWN_BOTH), 6);
        }
        if (i < KEPT)
            old[i] = handle;
        assert_works(WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_SEND));
        assert_works(WinDivertClose(handle));
    }
    assert_int_equal(em_counts().destroyed, TIMES);
}

static int
compare(const void *a, const void *b)
{
    uintptr_t left = *(const uintptr_t *)a, right = *(const uintptr_t *)b;

    return left < right ? -1 : left > right;
}

/* No two of 100,000 openings give the same value. */
static void
test_all_different(void **state)
{
    enum { TIMES = 100000 };
    uintptr_t *values = calloc(TIMES, sizeof(*values));

    (void)state;
    assert_non_null(values);
    for (unsigned i = 0; i < TIMES; i++) {
        values[i] = (uintptr_t)open_handle(WINDIVERT_LAYER_NETWORK, 0);
        assert_works(WinDivertClose((HANDLE)values[i]));
    }
    qsort(values, TIMES, sizeof(*values), compare);
    for (unsigned i = 1; i < TIMES; i++)
        assert_true(values[i] != values[i - 1]);
    free(values);
}

static void
test_limit(void **state)
{
    enum { LIMIT = 4095 };
    HANDLE *handles = calloc(LIMIT, sizeof(*handles));
    unsigned count = 0;
    HANDLE handle;

    (void)state;
    assert_non_null(handles);
    while ((handle = WinDivertOpen("true", WINDIVERT_LAYER_NETWORK, 0, 0)) != INVALID_HANDLE_VALUE && count < LIMIT)
        handles[count++] = handle;
    assert_int_equal(count, LIMIT);
    assert_int_equal(GetLastError(), 1450);
    assert_text("4095");
    assert_works(WinDivertClose(handles[1000]));
    handles[1000] = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    for (unsigned i = 0; i < count; i++)
        assert_works(WinDivertClose(handles[i]));
    free(handles);
}

/* ---- fork ------------------------------------------------------------------ */

/* Runs body in a child; its result, or 1000 + signal; -1: no child. */
static int
in_child(int (*body)(void *), void *arg)
{
    int status = 0;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0)
        _exit(body(arg));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

struct shared {
    HANDLE one, two;
    int descriptors[2];
};

static int
child_is_without(void *arg)
{
    const struct shared *shared = arg;

    if (count_invalid(shared->one) != FUNCTIONS || count_invalid(shared->two) != FUNCTIONS)
        return 1;
    for (unsigned i = 0; i < 2; i++)
        if (fcntl(shared->descriptors[i], F_GETFD) != -1 || errno != EBADF)
            return 2;
    if (em_counts().forgotten != 2 || em_counts().aborted || em_counts().destroyed)
        return 3;
    return 0;
}

/* A child has a life of its own: opens, uses, closes; nothing old comes back to life with it. */
static int
child_opens(void *arg)
{
    const struct shared *shared = arg;
    unsigned destroyed = em_counts().destroyed;
    HANDLE handle = WinDivertOpen("true", WINDIVERT_LAYER_NETWORK, 0, 0);

    if (handle == INVALID_HANDLE_VALUE || handle == shared->one || handle == shared->two)
        return 1;
    if (!WinDivertSetParam(handle, WINDIVERT_PARAM_QUEUE_TIME, 500))
        return 2;
    if (count_invalid(shared->one) != FUNCTIONS || count_invalid(shared->two) != FUNCTIONS)
        return 3;
    if (!WinDivertClose(handle) || count_invalid(handle) != FUNCTIONS)
        return 4;
    return em_counts().destroyed == destroyed + 1 ? 0 : 5;
}

static int
child_forks(void *arg)
{
    return in_child(child_opens, arg);
}

static void
assert_goes_on(HANDLE handle, struct wd_handle *engine)
{
    WINDIVERT_ADDRESS addr = {.Outbound = 1};
    uint8_t packet[28], buffer[28];

    make_ipv4(packet, sizeof(packet), 3);
    em_put(engine, packet, sizeof(packet), &addr);
    assert_works(WinDivertRecv(handle, buffer, sizeof(buffer), NULL, &addr));
    assert_memory_equal(packet, buffer, sizeof(packet));
    assert_works(WinDivertSend(handle, buffer, sizeof(buffer), NULL, &addr));
}

static void
test_fork(void **state)
{
    struct shared shared;
    struct wd_handle *one, *two;

    (void)state;
    shared.one = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    one = em_last();
    shared.two = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    two = em_last();
    shared.descriptors[0] = em_descriptor(one);
    shared.descriptors[1] = em_descriptor(two);
    for (unsigned i = 0; i < 2; i++)
        assert_true(fcntl(shared.descriptors[i], F_GETFD) >= 0);

    assert_int_equal(in_child(child_is_without, &shared), 0);
    assert_int_equal(in_child(child_opens, &shared), 0);
    assert_int_equal(in_child(child_forks, &shared), 0);

    assert_int_equal(em_counts().forgotten, 0);
    assert_goes_on(shared.one, one);
    assert_goes_on(shared.two, two);
    assert_works(WinDivertClose(shared.one));
    assert_works(WinDivertClose(shared.two));
    assert_int_equal(in_child(child_opens, &shared), 0);
}

/* A closed handle is not forgotten once more, and its value stays invalid in the child. */
static int
child_after_close(void *arg)
{
    return em_counts().forgotten == 0 && count_invalid(*(HANDLE *)arg) == FUNCTIONS ? 0 : 1;
}

static void
test_fork_after_close(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    assert_works(WinDivertClose(handle));
    assert_int_equal(in_child(child_after_close, &handle), 0);
}

/* The last error is the forking thread's in the child as well. */
static int
child_reads_error(void *arg)
{
    (void)arg;
    return GetLastError() == 6 && strstr(WinDivertExtGetLastErrorText(), "NULL") ? 0 : 1;
}

static void
test_fork_keeps_error(void **state)
{
    (void)state;
    assert_fails(WinDivertClose(NULL), 6);
    assert_int_equal(in_child(child_reads_error, NULL), 0);
}

/* Different processes do not give the same values out. */
static int
child_tells(void *arg)
{
    int *pipe_ends = arg;
    HANDLE handle = WinDivertOpen("true", WINDIVERT_LAYER_NETWORK, 0, 0);

    return write(pipe_ends[1], &handle, sizeof(handle)) == sizeof(handle) ? 0 : 1;
}

static void
test_foreign(void **state)
{
    int pipe_ends[2];
    HANDLE theirs, ours;

    (void)state;
    assert_int_equal(pipe(pipe_ends), 0);
    assert_int_equal(in_child(child_tells, pipe_ends), 0);
    assert_int_equal(read(pipe_ends[0], &theirs, sizeof(theirs)), sizeof(theirs));
    ours = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    assert_ptr_not_equal(ours, theirs);
    assert_int_equal(count_invalid(theirs), FUNCTIONS);
    assert_works(WinDivertClose(ours));
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_no_handles, reset),
        cmocka_unit_test_setup(test_close, reset),
        cmocka_unit_test_setup(test_stale, reset),
        cmocka_unit_test_setup(test_all_different, reset),
        cmocka_unit_test_setup(test_limit, reset),
        cmocka_unit_test_setup(test_fork, reset),
        cmocka_unit_test_setup(test_fork_after_close, reset),
        cmocka_unit_test_setup(test_fork_keeps_error, reset),
        cmocka_unit_test_setup(test_foreign, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
