/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Close, Shutdown and fork while other threads are inside calls.  Also run under TSan. */
#include "api_test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 8

/* What a thread saw. */
struct worker {
    pthread_t thread;
    HANDLE handle;
    unsigned works;
    DWORD last; /* the code that ended it */
    bool other; /* an error that should not be */
    atomic_bool *stop;
};

static int
reset(void **state)
{
    (void)state;
    em_reset();
    return 0;
}

static void
start(struct worker *workers, unsigned count, void *(*body)(void *), HANDLE handle)
{
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker){.handle = handle, .stop = workers[i].stop};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, body, &workers[i]), 0);
    }
}

static void
join(struct worker *workers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
}

static void *
recv_once(void *arg)
{
    struct worker *me = arg;
    uint8_t packet[100];

    me->works = (unsigned)WinDivertRecv(me->handle, packet, sizeof(packet), NULL, NULL);
    me->last = GetLastError();
    return NULL;
}

/* Receives and sends back until a call fails. */
static void *
pass(void *arg)
{
    struct worker *me = arg;
    WINDIVERT_ADDRESS addr;
    uint8_t packet[100];
    UINT len;

    while (WinDivertRecv(me->handle, packet, sizeof(packet), &len, &addr) &&
           WinDivertSend(me->handle, packet, len, NULL, &addr))
        me->works++;
    me->last = GetLastError();
    return NULL;
}

static void
put_many(struct wd_handle *engine, unsigned count)
{
    WINDIVERT_ADDRESS addr = {.Outbound = 1};
    uint8_t packet[60];

    for (unsigned i = 0; i < count; i++) {
        make_ipv4(packet, sizeof(packet), (uint8_t)i);
        em_put(engine, packet, sizeof(packet), &addr);
    }
}

/* All blocked inside: each ends with 995, and a further call with 6. */
static void
test_close_blocked(void **state)
{
    struct worker workers[THREADS] = {0};
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    start(workers, THREADS, recv_once, handle);
    em_wait_blocked(em_last(), THREADS);
    assert_works(WinDivertClose(handle));
    assert_int_equal(em_counts().destroyed, 1);
    join(workers, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(workers[i].works, 0);
        assert_int_equal(workers[i].last, 995);
    }
    assert_fails(WinDivertRecv(handle, NULL, 0, NULL, NULL), 6);
}

static void
test_shutdown_blocked(void **state)
{
    struct worker workers[THREADS] = {0};
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    start(workers, THREADS, recv_once, handle);
    em_wait_blocked(em_last(), THREADS);
    assert_works(WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_RECV));
    join(workers, THREADS);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(workers[i].last, 232);
    assert_works(WinDivertClose(handle));
}

/* In the middle of traffic, again and again: nothing but 995 and 6. */
static void
test_close_busy(void **state)
{
    struct worker workers[THREADS] = {0};

    (void)state;
    for (unsigned round = 0; round < 100; round++) {
        HANDLE handle;

        em_reset();
        handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
        put_many(em_last(), 200);
        start(workers, THREADS, pass, handle);
        assert_works(WinDivertClose(handle));
        join(workers, THREADS);
        for (unsigned i = 0; i < THREADS; i++)
            assert_true(workers[i].last == 995 || workers[i].last == 6);
    }
}

/* Every packet that was put in is passed by exactly one of the threads. */
static void
test_traffic(void **state)
{
    enum { PACKETS = 1000 };
    struct worker workers[THREADS] = {0};
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    unsigned works = 0;

    (void)state;
    start(workers, THREADS, pass, handle);
    em_wait_blocked(em_last(), THREADS);
    put_many(em_last(), PACKETS);
    em_wait_sent(PACKETS);
    assert_works(WinDivertClose(handle));
    join(workers, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        works += workers[i].works;
        assert_true(workers[i].last == 995 || workers[i].last == 6);
    }
    assert_int_equal(works, PACKETS);
    assert_int_equal(em_sent_count(), PACKETS);
}

static void *
close_once(void *arg)
{
    struct worker *me = arg;

    me->works = (unsigned)WinDivertClose(me->handle);
    me->last = GetLastError();
    return NULL;
}

/* Of many that close at once exactly one does. */
static void
test_close_by_many(void **state)
{
    struct worker workers[THREADS] = {0};

    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
        unsigned works = 0;

        start(workers, THREADS, close_once, handle);
        join(workers, THREADS);
        for (unsigned i = 0; i < THREADS; i++) {
            works += workers[i].works;
            assert_true(workers[i].works || workers[i].last == 6);
        }
        assert_int_equal(works, 1);
    }
    assert_int_equal(em_counts().opened, 200);
    assert_int_equal(em_counts().destroyed, 200);
}

struct race {
    HANDLE handle;
    atomic_uint go, done; /* the round that may begin, that is over */
    unsigned works, other;
};

enum { RACES = 5000 };

static void *
race_close(void *arg)
{
    struct race *race = arg;

    for (unsigned round = 1; round <= RACES; round++) {
        while (atomic_load(&race->go) != round)
            sched_yield();
        if (WinDivertClose(race->handle))
            race->works++;
        else
            race->other += GetLastError() != 6;
        atomic_store(&race->done, round);
    }
    return NULL;
}

/* Two that close within nanoseconds of each other, so that at times both are inside before either has closed. */
static void
test_close_race(void **state)
{
    struct race race = {.works = 0};
    unsigned works = 0;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, race_close, &race), 0);
    for (unsigned round = 1; round <= RACES; round++) {
        race.handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
        atomic_store(&race.go, round);
        for (volatile unsigned i = 0; i < round % 500; i++)
            ;
        works += (unsigned)WinDivertClose(race.handle);
        while (atomic_load(&race.done) != round)
            sched_yield();
    }
    pthread_join(thread, NULL);
    assert_int_equal(works + race.works, RACES);
    assert_int_equal(race.other, 0);
    assert_int_equal(em_counts().destroyed, RACES);
}

/* Opens and closes all the time; what is closed is invalid. */
static void *
open_and_close(void *arg)
{
    struct worker *me = arg;

    do {
        HANDLE handle = WinDivertOpen("true", WINDIVERT_LAYER_NETWORK, 0, 0);

        me->other |= handle == INVALID_HANDLE_VALUE || !WinDivertSetParam(handle, WINDIVERT_PARAM_QUEUE_TIME, 300);
        me->other |= !WinDivertClose(handle) || WinDivertClose(handle) || GetLastError() != 6;
        me->works++;
    } while (!atomic_load(me->stop));
    return NULL;
}

/* A stale value, tried while its slot is taken and given back: never anything but 6. */
static void
test_stale_while_others_open(void **state)
{
    atomic_bool stop = false;
    struct worker workers[3] = {{.stop = &stop}, {.stop = &stop}, {.stop = &stop}};
    HANDLE stale = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    assert_works(WinDivertClose(stale));
    start(workers, COUNT(workers), open_and_close, NULL);
    for (unsigned i = 0; i < 20000; i++)
        assert_fails(WinDivertShutdown(stale, WINDIVERT_SHUTDOWN_BOTH), 6);
    atomic_store(&stop, true);
    join(workers, COUNT(workers));
    for (unsigned i = 0; i < COUNT(workers); i++) {
        assert_false(workers[i].other);
        assert_true(workers[i].works > 0);
    }
    assert_int_equal(em_counts().opened, em_counts().destroyed);
}

/* ---- fork ------------------------------------------------------------------- */

/* In the child: what was open is not, and a new handle works. */
static int
check_child(HANDLE handle)
{
    HANDLE own;

    if (WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_BOTH) || GetLastError() != 6)
        return 1;
    own = WinDivertOpen("true", WINDIVERT_LAYER_NETWORK, 0, 0);
    if (own == INVALID_HANDLE_VALUE || !WinDivertSetParam(own, WINDIVERT_PARAM_QUEUE_TIME, 300))
        return 2;
    return WinDivertClose(own) ? 0 : 3;
}

static int
fork_and_check(HANDLE handle)
{
    int status = -1;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0)
        _exit(check_child(handle));
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

/* Threads of the parent are blocked inside; the child does not know them, the parent goes on. */
static void
test_fork_while_blocked(void **state)
{
    struct worker workers[THREADS] = {0};
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    start(workers, THREADS, recv_once, handle);
    em_wait_blocked(em_last(), THREADS);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(fork_and_check(handle), 0);
    put_many(em_last(), THREADS);
    join(workers, THREADS);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(workers[i].works, 1);
    assert_works(WinDivertClose(handle));
}

/* Other threads are in the middle of Open and Close: each child finds the table whole. */
static void
test_fork_while_others_open(void **state)
{
    atomic_bool stop = false;
    struct worker workers[3] = {{.stop = &stop}, {.stop = &stop}, {.stop = &stop}};
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);

    (void)state;
    start(workers, COUNT(workers), open_and_close, NULL);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(fork_and_check(handle), 0);
    atomic_store(&stop, true);
    join(workers, COUNT(workers));
    for (unsigned i = 0; i < COUNT(workers); i++)
        assert_false(workers[i].other);
    assert_works(WinDivertClose(handle));
    assert_int_equal(em_counts().opened, em_counts().destroyed);
}

/* ---- cancellation ------------------------------------------------------------- */

static void *
recv_then_wait(void *arg)
{
    recv_once(arg);
    pause();
    return NULL;
}

/* A cancelled thread leaves the call first, so that Close has not to wait for it for ever. */
static void
test_cancel(void **state)
{
    struct worker worker = {0};
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    void *result = NULL;

    (void)state;
    start(&worker, 1, recv_then_wait, handle);
    em_wait_blocked(em_last(), 1);
    assert_int_equal(pthread_cancel(worker.thread), 0);
    assert_works(WinDivertClose(handle));
    assert_int_equal(pthread_join(worker.thread, &result), 0);
    assert_ptr_equal(result, PTHREAD_CANCELED);
    assert_int_equal(worker.last, 995);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_close_blocked, reset),
        cmocka_unit_test_setup(test_shutdown_blocked, reset),
        cmocka_unit_test_setup(test_close_busy, reset),
        cmocka_unit_test_setup(test_traffic, reset),
        cmocka_unit_test_setup(test_close_by_many, reset),
        cmocka_unit_test_setup(test_close_race, reset),
        cmocka_unit_test_setup(test_stale_while_others_open, reset),
        cmocka_unit_test_setup(test_fork_while_blocked, reset),
        cmocka_unit_test_setup(test_fork_while_others_open, reset),
        cmocka_unit_test_setup_teardown(test_cancel, reset, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
