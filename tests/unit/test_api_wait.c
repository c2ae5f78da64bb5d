/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Waiting: with a time limit, by a descriptor, by OVERLAPPED; events.  Also run under TSan. */
#include "api_test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <windows.h>

#define LINE 64

static int
reset(void **state)
{
    (void)state;
    em_reset();
    return 0;
}

/* Packet number seed, 20 bytes and seed more. */
static void
put(struct wd_handle *engine, uint8_t seed)
{
    WINDIVERT_ADDRESS addr = {.Outbound = 1};
    uint8_t packet[20 + 255];

    make_ipv4(packet, 20u + seed, seed);
    em_put(engine, packet, 20u + seed, &addr);
}

static int64_t
now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* What a receive writes, and its OVERLAPPED. */
struct slot {
    OVERLAPPED ov;
    uint8_t packet[300];
    WINDIVERT_ADDRESS addr;
    UINT addr_len;
};

static void
begin(HANDLE handle, struct slot *slot, HANDLE event)
{
    *slot = (struct slot){.ov.hEvent = event, .addr_len = ADDRESS_SIZE};
    assert_fails(
        WinDivertRecvEx(handle, slot->packet, sizeof(slot->packet), NULL, 0, &slot->addr, &slot->addr_len, &slot->ov),
        997);
}

static void
assert_ended(HANDLE handle, struct slot *slot, uint8_t seed)
{
    uint8_t expected[300];
    DWORD bytes = 0;

    assert_works(GetOverlappedResult(handle, &slot->ov, &bytes, TRUE));
    make_ipv4(expected, 20u + seed, seed);
    assert_int_equal(bytes, 20 + seed);
    assert_memory_equal(slot->packet, expected, bytes);
    assert_int_equal(slot->addr_len, ADDRESS_SIZE);
}

static void
assert_ended_with(HANDLE handle, struct slot *slot, DWORD code)
{
    DWORD bytes = 1;

    assert_fails(GetOverlappedResult(handle, &slot->ov, &bytes, TRUE), code);
    assert_int_equal(bytes, 0);
}

static void
assert_pending(HANDLE handle, struct slot *slot)
{
    DWORD bytes = 4711;

    assert_fails(GetOverlappedResult(handle, &slot->ov, &bytes, FALSE), 996);
    assert_int_equal(bytes, 4711);
    assert_false(HasOverlappedIoCompleted(&slot->ov));
}

static bool
is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

/* ---- with a time limit -------------------------------------------------------- */

static void
test_timeout(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    UINT len = 99, addr_len = 4711;
    int64_t before = now_ms();
    uint8_t packet[300];

    (void)state;
    assert_fails(WinDivertExtRecv(handle, packet, sizeof(packet), &len, NULL, NULL, 0), 258);
    assert_fails(WinDivertExtRecv(handle, packet, sizeof(packet), &len, NULL, NULL, 50), 258);
    assert_in_range(now_ms() - before, 50, 5000);
    assert_int_equal(len, 99);
    assert_fails(WinDivertExtRecv(handle, packet, sizeof(packet), &len, NULL, &addr_len, 0), 87);
    put(em_last(), 1);
    put(em_last(), 2);
    put(em_last(), 3);
    assert_works(WinDivertExtRecv(handle, packet, sizeof(packet), &len, NULL, NULL, 0));
    assert_int_equal(len, 21);
    assert_works(WinDivertExtRecv(handle, packet, sizeof(packet), &len, NULL, NULL, 50));
    assert_works(WinDivertExtRecv(handle, packet, sizeof(packet), &len, NULL, NULL, WINDIVERT_EXT_INFINITE));
    assert_int_equal(len, 23);
    assert_works(WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_RECV));
    assert_fails(WinDivertExtRecv(handle, packet, sizeof(packet), &len, NULL, NULL, 0), 232);
    assert_works(WinDivertClose(handle));
    assert_fails(WinDivertExtRecv(handle, packet, sizeof(packet), &len, NULL, NULL, 0), 6);
}

/* ---- the descriptor -------------------------------------------------------------- */

static void
test_fd(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    int fd;

    (void)state;
    em_fail(EM_GET_FD, -EMFILE, NULL, NULL);
    assert_fails(WinDivertExtGetFd(handle) >= 0, 1450);
    em_fail(EM_GET_FD, 0, NULL, NULL);
    fd = WinDivertExtGetFd(handle);
    assert_true(fd >= 0);
    assert_int_equal(WinDivertExtGetFd(handle), fd);
    assert_false(is_readable(fd));
    put(em_last(), 1);
    put(em_last(), 2);
    assert_true(is_readable(fd));
    assert_works(WinDivertRecv(handle, NULL, 0, NULL, NULL));
    assert_true(is_readable(fd));
    assert_works(WinDivertRecv(handle, NULL, 0, NULL, NULL));
    assert_false(is_readable(fd));
    assert_works(WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_RECV));
    assert_true(is_readable(fd));
    assert_works(WinDivertClose(handle));
    assert_fails(WinDivertExtGetFd(handle) >= 0, 6);
    handle = open_handle(WINDIVERT_LAYER_NETWORK, WINDIVERT_FLAG_SEND_ONLY);
    assert_fails(WinDivertExtGetFd(handle) >= 0, 87);
    assert_works(WinDivertClose(handle));
}

/* ---- events ------------------------------------------------------------------------ */

static void
test_event_kinds(void **state)
{
    HANDLE manual = CreateEventA(NULL, TRUE, FALSE, NULL), automatic = CreateEventA(NULL, FALSE, TRUE, NULL);
    HANDLE both[] = {manual, automatic}, twice[] = {manual, manual};

    (void)state;
    assert_non_null(manual);
    assert_non_null(automatic);
    assert_int_equal(WaitForSingleObject(manual, 0), WAIT_TIMEOUT);
    assert_int_equal(WaitForSingleObject(manual, 20), WAIT_TIMEOUT);
    assert_int_equal(WaitForSingleObject(automatic, INFINITE), WAIT_OBJECT_0);
    assert_int_equal(WaitForSingleObject(automatic, 0), WAIT_TIMEOUT);
    assert_works(SetEvent(manual));
    assert_works(SetEvent(manual));
    assert_int_equal(WaitForSingleObject(manual, 0), WAIT_OBJECT_0);
    assert_int_equal(WaitForSingleObject(manual, 0), WAIT_OBJECT_0);
    assert_int_equal(WaitForMultipleObjects(2, both, TRUE, 0), WAIT_TIMEOUT);
    assert_works(SetEvent(automatic));
    assert_int_equal(WaitForMultipleObjects(2, both, TRUE, 0), WAIT_OBJECT_0);
    assert_int_equal(WaitForSingleObject(automatic, 0), WAIT_TIMEOUT);
    assert_works(ResetEvent(manual));
    assert_works(SetEvent(automatic));
    assert_int_equal(WaitForMultipleObjects(2, both, FALSE, INFINITE), WAIT_OBJECT_0 + 1);
    assert_fails(WaitForMultipleObjects(0, both, FALSE, 0) != WAIT_FAILED, 87);
    assert_fails(WaitForMultipleObjects(MAXIMUM_WAIT_OBJECTS + 1, both, FALSE, 0) != WAIT_FAILED, 87);
    assert_fails(WaitForMultipleObjects(2, NULL, FALSE, 0) != WAIT_FAILED, 87);
    assert_fails(WaitForMultipleObjects(2, twice, TRUE, 0) != WAIT_FAILED, 87);
    assert_works(CloseHandle(manual));
    assert_works(CloseHandle(automatic));
    assert_fails(CloseHandle(manual), 6);
    assert_fails(SetEvent(manual), 6);
    assert_fails(ResetEvent(NULL), 6);
    assert_fails(WaitForMultipleObjects(2, both, FALSE, 0) != WAIT_FAILED, 6);
    assert_fails(CreateEventA(NULL, TRUE, FALSE, "name") != NULL, 50);
}

struct taker {
    pthread_t thread;
    HANDLE event;
    unsigned taken;
};

static void *
take_until_quiet(void *arg)
{
    struct taker *me = arg;

    while (WaitForSingleObject(me->event, 500) == WAIT_OBJECT_0)
        me->taken++;
    return NULL;
}

/* One wait takes what one SetEvent gave, whoever else waits. */
static void
test_event_is_taken_once(void **state)
{
    struct taker takers[4];
    HANDLE event = CreateEventA(NULL, FALSE, FALSE, NULL);
    unsigned taken = 0;

    (void)state;
    for (unsigned i = 0; i < COUNT(takers); i++) {
        takers[i] = (struct taker){.event = event};
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take_until_quiet, &takers[i]), 0);
    }
    for (unsigned i = 0; i < 20; i++) {
        const struct timespec gap = {.tv_nsec = 10000000};

        assert_works(SetEvent(event));
        nanosleep(&gap, NULL);
    }
    for (unsigned i = 0; i < COUNT(takers); i++) {
        pthread_join(takers[i].thread, NULL);
        taken += takers[i].taken;
    }
    assert_in_range(taken, 1, 20);
    assert_works(CloseHandle(event));
}

/* ---- overlapped receive ---------------------------------------------------------------- */

static void
test_overlapped_recv(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0), event = CreateEventA(NULL, TRUE, TRUE, NULL);
    struct slot slot;
    DWORD bytes = 0;

    (void)state;
    begin(handle, &slot, event);
    assert_pending(handle, &slot);
    assert_int_equal(WaitForSingleObject(event, 0), WAIT_TIMEOUT); /* it was set before */
    put(em_last(), 5);
    assert_int_equal(WaitForSingleObject(event, 5000), WAIT_OBJECT_0);
    assert_ended(handle, &slot, 5);
    put(em_last(), 6);
    begin(handle, &slot, NULL); /* it is there already */
    assert_ended(handle, &slot, 6);
    assert_fails(GetOverlappedResult(handle, NULL, &bytes, FALSE), 87);
    assert_fails(GetOverlappedResult(handle, &slot.ov, NULL, FALSE), 87);
    assert_works(CloseHandle(event));
    slot.ov.hEvent = event;
    assert_fails(WinDivertRecvEx(handle, slot.packet, 300, NULL, 0, NULL, NULL, &slot.ov), 6);
    assert_fails(WinDivertRecvEx(handle, slot.packet, 300, NULL, 1, NULL, NULL, &slot.ov), 87);
    assert_fails(CancelIoEx(handle, NULL), 1168);
    assert_works(CloseHandle(handle));
    assert_fails(CancelIoEx(handle, NULL), 6);
    assert_ended(handle, &slot, 6); /* its end is known without the handle */
}

/* A packet that is cut: 122, with what fitted. */
static void
test_overlapped_cut(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    uint8_t packet[10], expected[25];
    OVERLAPPED ov = {0};
    DWORD bytes = 0;

    (void)state;
    assert_fails(WinDivertRecvEx(handle, packet, sizeof(packet), NULL, 0, NULL, NULL, &ov), 997);
    put(em_last(), 5);
    assert_fails(GetOverlappedResult(handle, &ov, &bytes, TRUE), 122);
    make_ipv4(expected, sizeof(expected), 5);
    assert_int_equal(bytes, sizeof(packet));
    assert_memory_equal(packet, expected, sizeof(packet));
    assert_works(WinDivertClose(handle));
}

/* In the order in which they were begun; half are cancelled, the others aborted by close. */
static void
test_overlapped_line(void **state)
{
    static struct slot slots[LINE];
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0), event = CreateEventA(NULL, FALSE, FALSE, NULL);

    (void)state;
    for (unsigned i = 0; i < LINE; i++)
        begin(handle, &slots[i], i == LINE - 1 ? event : NULL);
    for (unsigned i = 0; i < LINE; i += 2)
        assert_works(CancelIoEx(handle, &slots[i].ov));
    for (unsigned i = 0; i < LINE; i += 2) {
        assert_ended_with(handle, &slots[i], 995);
        assert_fails(CancelIoEx(handle, &slots[i].ov), 1168);
        assert_pending(handle, &slots[i + 1]);
    }
    put(em_last(), 1);
    put(em_last(), 2);
    put(em_last(), 3);
    assert_ended(handle, &slots[5], 3);
    assert_ended(handle, &slots[1], 1);
    assert_ended(handle, &slots[3], 2);
    assert_pending(handle, &slots[7]);
    assert_works(WinDivertClose(handle));
    for (unsigned i = 7; i < LINE; i += 2)
        assert_ended_with(handle, &slots[i], 995);
    assert_int_equal(WaitForSingleObject(event, 0), WAIT_OBJECT_0);
    assert_works(CloseHandle(event));
}

static void
test_overlapped_cancel_all(void **state)
{
    static struct slot slots[LINE];
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    uint8_t packet[300];

    (void)state;
    for (unsigned i = 0; i < LINE; i++)
        begin(handle, &slots[i], NULL);
    assert_works(CancelIoEx(handle, NULL));
    for (unsigned i = 0; i < LINE; i++)
        assert_ended_with(handle, &slots[i], 995);
    put(em_last(), 9);
    assert_works(WinDivertRecv(handle, packet, sizeof(packet), NULL, NULL)); /* no cancelled one took it */
    assert_works(WinDivertClose(handle));
}

/* What is queued is received, then 232. */
static void
test_overlapped_shutdown(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct slot slots[3];

    (void)state;
    for (unsigned i = 0; i < COUNT(slots); i++)
        begin(handle, &slots[i], NULL);
    put(em_last(), 1);
    assert_works(WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_RECV));
    assert_ended(handle, &slots[0], 1);
    assert_ended_with(handle, &slots[1], 232);
    assert_ended_with(handle, &slots[2], 232);
    begin(handle, &slots[0], NULL);
    assert_ended_with(handle, &slots[0], 232);
    assert_works(WinDivertClose(handle));
}

struct reader {
    pthread_t thread;
    HANDLE handle;
    UINT len;
};

static void *
recv_one(void *arg)
{
    struct reader *me = arg;
    uint8_t packet[300];

    if (!WinDivertRecv(me->handle, packet, sizeof(packet), &me->len, NULL))
        me->len = 0;
    return NULL;
}

/* A Recv that comes after pending ones waits for its turn; one that gives up leaves the line. */
static void
test_overlapped_and_not(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct reader reader = {.handle = handle};
    struct slot slots[2];

    (void)state;
    begin(handle, &slots[0], NULL);
    assert_fails(WinDivertExtRecv(handle, NULL, 0, NULL, NULL, NULL, 0), 258);
    assert_fails(WinDivertExtRecv(handle, NULL, 0, NULL, NULL, NULL, 20), 258);
    assert_int_equal(pthread_create(&reader.thread, NULL, recv_one, &reader), 0);
    put(em_last(), 1);
    put(em_last(), 2);
    pthread_join(reader.thread, NULL);
    assert_ended(handle, &slots[0], 1);
    assert_int_equal(reader.len, 22);
    assert_int_equal(pthread_create(&reader.thread, NULL, recv_one, &reader), 0);
    begin(handle, &slots[1], NULL);
    assert_works(WinDivertClose(handle));
    pthread_join(reader.thread, NULL);
    assert_int_equal(reader.len, 0);
    assert_ended_with(handle, &slots[1], 995);
}

/* In a child what was pending is aborted, the event and the handle are not valid; the parent goes on. */
static void
test_overlapped_fork(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0), event = CreateEventA(NULL, TRUE, FALSE, NULL);
    struct slot slot;
    DWORD bytes = 0;
    int status = 0;
    pid_t pid;

    (void)state;
    begin(handle, &slot, event);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        bool right = !GetOverlappedResult(handle, &slot.ov, &bytes, TRUE) && GetLastError() == 995 &&
                     !SetEvent(event) && GetLastError() == 6 && !CancelIoEx(handle, NULL) && GetLastError() == 6;

        _exit(right ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_pending(handle, &slot);
    put(em_last(), 7);
    assert_int_equal(WaitForSingleObject(event, 5000), WAIT_OBJECT_0);
    assert_ended(handle, &slot, 7);
    assert_works(WinDivertClose(handle));
    assert_works(CloseHandle(event));
}

/* ---- overlapped send --------------------------------------------------------------------- */

static void
test_overlapped_send(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0), event = CreateEventA(NULL, FALSE, FALSE, NULL);
    WINDIVERT_ADDRESS addr = {.Outbound = 1};
    OVERLAPPED ov = {.hEvent = event};
    uint8_t packet[40];
    DWORD bytes = 0;

    (void)state;
    make_ipv4(packet, sizeof(packet), 1);
    assert_fails(WinDivertSendEx(handle, packet, sizeof(packet), NULL, 0, &addr, sizeof(addr), &ov), 997);
    assert_int_equal(WaitForSingleObject(event, 5000), WAIT_OBJECT_0);
    assert_works(GetOverlappedResult(handle, &ov, &bytes, FALSE));
    assert_int_equal(bytes, sizeof(packet));
    assert_int_equal(em_sent_count(), 1);
    em_refuse_from(0, -EHOSTUNREACH);
    assert_fails(WinDivertSendEx(handle, packet, sizeof(packet), NULL, 0, &addr, sizeof(addr), &ov), 997);
    assert_fails(GetOverlappedResult(handle, &ov, &bytes, TRUE), 1232);
    assert_int_equal(WaitForSingleObject(event, 0), WAIT_OBJECT_0);
    assert_works(WinDivertClose(handle));
    assert_works(CloseHandle(event));
}

/* ---- threads ------------------------------------------------------------------------------ */

#define PACKETS 2000

static void *
put_all(void *engine)
{
    for (unsigned i = 0; i < PACKETS; i++)
        put(engine, (uint8_t)i);
    return NULL;
}

/* Eight outstanding, begun again as they end: every packet once, in order; receives are cancelled all the while. */
static void
test_overlapped_traffic(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0), events[8];
    static struct slot slots[8];
    unsigned next = 0, i;
    pthread_t sender;

    (void)state;
    for (i = 0; i < 8; i++) {
        events[i] = CreateEventA(NULL, FALSE, FALSE, NULL);
        begin(handle, &slots[i], events[i]);
    }
    assert_int_equal(pthread_create(&sender, NULL, put_all, em_last()), 0);
    for (i = 0; next < PACKETS; i++) {
        struct slot *slot = &slots[i % 8];
        DWORD bytes;

        if (i % 50 == 49)
            CancelIoEx(handle, &slot->ov);
        assert_int_equal(WaitForSingleObject(events[i % 8], 5000), WAIT_OBJECT_0);
        if (GetOverlappedResult(handle, &slot->ov, &bytes, FALSE))
            assert_int_equal(bytes, 20 + (uint8_t)next++);
        else
            assert_int_equal(GetLastError(), 995);
        begin(handle, slot, events[i % 8]);
    }
    pthread_join(sender, NULL);
    assert_works(WinDivertClose(handle));
    for (i = 0; i < 8; i++)
        assert_works(CloseHandle(events[i]));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_timeout, reset),
        cmocka_unit_test_setup(test_fd, reset),
        cmocka_unit_test_setup(test_event_kinds, reset),
        cmocka_unit_test_setup(test_event_is_taken_once, reset),
        cmocka_unit_test_setup(test_overlapped_recv, reset),
        cmocka_unit_test_setup(test_overlapped_cut, reset),
        cmocka_unit_test_setup(test_overlapped_line, reset),
        cmocka_unit_test_setup(test_overlapped_cancel_all, reset),
        cmocka_unit_test_setup(test_overlapped_shutdown, reset),
        cmocka_unit_test_setup(test_overlapped_and_not, reset),
        cmocka_unit_test_setup(test_overlapped_fork, reset),
        cmocka_unit_test_setup(test_overlapped_send, reset),
        cmocka_unit_test_setup(test_overlapped_traffic, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
