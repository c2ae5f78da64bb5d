/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Shutdown and Close: what happens to packets and to blocked calls. */
#include "e2e.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PORT 5001

static uint8_t buf[65536];

static void
send_many(int tx, uint32_t first, uint32_t count)
{
    e2e_stay_on_cpu();
    for (uint32_t i = 0; i < count; i++)
        CHECK(e2e_send(tx, 64, first + i), "send %u: error %d", first + i, errno);
}

/* The next `count` arrivals are the datagrams first, first + 1 ... */
static void
expect_datagrams(int rx, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number;

        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "%u of %u datagrams arrived", i, count);
        memcpy(&number, buf, 4);
        CHECK(number == first + i, "datagram %u arrived in the place of %u", number, first + i);
    }
}

/* Everything queued can still be received, then 232; what comes later is not diverted. */
static void
shutdown_recv_drains(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, 0);
    WINDIVERT_ADDRESS addr;
    UINT len;

    send_many(tx, 0, 100);
    CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_RECV));
    send_many(tx, 100, 50);
    expect_datagrams(rx, 100, 50);
    for (uint32_t i = 0; i < 100; i++) {
        len = e2e_recv_packet(h, buf, &addr);
        e2e_send_packet(h, buf, len, &addr);
    }
    CHECK_ERROR(WinDivertRecv(h, buf, sizeof(buf), &len, &addr), ERROR_NO_DATA);
    CHECK_ERROR(WinDivertRecv(h, buf, sizeof(buf), &len, &addr), ERROR_NO_DATA);
    expect_datagrams(rx, 0, 100);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
shutdown_send(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, 0);
    WINDIVERT_ADDRESS addr, fresh = e2e_new_outbound(false);
    uint8_t packet[64];
    UINT len, sent, made = e2e_make_udp(packet, E2E_A4, 4000, E2E_B4, PORT, "text", 4);

    send_many(tx, 0, 1);
    CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_SEND));
    len = e2e_recv_packet(h, buf, &addr);
    CHECK_ERROR(WinDivertSend(h, buf, len, &sent, &addr), ERROR_NO_DATA);
    CHECK_ERROR(WinDivertSend(h, packet, made, &sent, &fresh), ERROR_NO_DATA);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
shutdown_bad_how(void)
{
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, 0);

    CHECK_ERROR(WinDivertShutdown(h, (WINDIVERT_SHUTDOWN)0), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertShutdown(h, (WINDIVERT_SHUTDOWN)4), ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_BOTH));
    CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_BOTH));
    CHECK_API(WinDivertClose(h));
}

struct waiter {
    HANDLE h;
    pthread_t thread;
    _Atomic int tid, done;
    DWORD error;
};

static void *
wait_in_recv(void *arg)
{
    static _Thread_local uint8_t room[2048];
    struct waiter *w = arg;
    WINDIVERT_ADDRESS addr;
    UINT len;

    w->tid = gettid();
    w->error = WinDivertRecv(w->h, room, sizeof(room), &len, &addr) ? 0 : GetLastError();
    w->done = 1;
    return NULL;
}

/* True when the thread sleeps in the kernel. */
static bool
asleep(int tid)
{
    char path[64], line[256] = "";
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    f = fopen(path, "r");
    if (!f || !fgets(line, sizeof(line), f))
        line[0] = 0;
    if (f)
        fclose(f);
    return strstr(line, ") S ") != NULL;
}

static void
start_waiters(struct waiter *w, unsigned n, HANDLE h)
{
    for (unsigned i = 0; i < n; i++) {
        w[i].h = h;
        CHECK(pthread_create(&w[i].thread, NULL, wait_in_recv, &w[i]) == 0, "pthread_create");
        WAIT_UNTIL(w[i].tid && asleep(w[i].tid), 3000, "the receiving thread does not block");
    }
}

static void
expect_woken(struct waiter *w, unsigned n, DWORD error)
{
    for (unsigned i = 0; i < n; i++) {
        WAIT_UNTIL(w[i].done, 2000, "thread %u is still blocked", i);
        pthread_join(w[i].thread, NULL);
        CHECK(w[i].error == error, "thread %u woke with error %u, expected %u", i, (unsigned)w[i].error,
              (unsigned)error);
    }
}

static void
wakes_by_shutdown(WINDIVERT_SHUTDOWN how)
{
    struct waiter w[4] = {{0}};
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, 0);

    start_waiters(w, 4, h);
    CHECK_API(WinDivertShutdown(h, how));
    expect_woken(w, 4, ERROR_NO_DATA);
    CHECK_API(WinDivertClose(h));
}

static void
shutdown_recv_wakes(void)
{
    wakes_by_shutdown(WINDIVERT_SHUTDOWN_RECV);
}

static void
shutdown_both_wakes(void)
{
    wakes_by_shutdown(WINDIVERT_SHUTDOWN_BOTH);
}

static void
sniff_shutdown_wakes(void)
{
    struct waiter w[2] = {{0}};
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF);

    start_waiters(w, 2, h);
    CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_RECV));
    expect_woken(w, 2, ERROR_NO_DATA);
    CHECK_API(WinDivertClose(h));
}

static void
wakes_by_close(UINT64 flags)
{
    struct waiter w[4] = {{0}};
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, flags);

    start_waiters(w, 4, h);
    CHECK_API(WinDivertClose(h));
    expect_woken(w, 4, ERROR_OPERATION_ABORTED);
}

static void
close_wakes(void)
{
    wakes_by_close(0);
}

static void
close_wakes_sniff(void)
{
    wakes_by_close(WINDIVERT_FLAG_SNIFF);
}

/* What was queued and not received goes on when the handle is closed: exactly once, in order. */
static void
queued_go_on(const char *handle_ns, const char *ip, uint32_t received)
{
    uint32_t count = 1000;
    int rx = e2e_udp_receiver("b", ip, PORT), tx = e2e_udp_sender("a", ip, PORT, 0);
    WINDIVERT_ADDRESS addr;
    HANDLE h;

    e2e_enter(handle_ns);
    h = e2e_open("udp.DstPort == 5001", 0, 0);
    /* In portions: a veth's own backlog is 1000 packets. */
    for (uint32_t i = 0; i < count; i += 100)
        send_many(tx, i, 100);
    for (uint32_t i = 0; i < received; i++)
        e2e_recv_packet(h, buf, &addr);
    CHECK(e2e_drain(rx) == 0, "datagrams came past the handle");
    CHECK_API(WinDivertClose(h));
    expect_datagrams(rx, received, count - received);
    e2e_marker(tx, rx);
}

static void
close_queued_go_on4(void)
{
    queued_go_on("a", E2E_B4, 0);
}

static void
close_queued_go_on6(void)
{
    queued_go_on("a", E2E_B6, 0);
}

static void
close_queued_go_on_in(void)
{
    queued_go_on("b", E2E_B4, 0);
}

/* Received packets are the program's: not sent back, they are dropped; the rest goes on. */
static void
close_received_are_dropped(void)
{
    queued_go_on("a", E2E_B4, 10);
}

/* The handle of one thread is closed by another in the middle of traffic; nothing that was not received is lost. */
static void
close_in_traffic(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);

    for (uint32_t round = 0; round < 30; round++) {
        HANDLE h = e2e_open("udp.DstPort == 5001", 0, 0);

        send_many(tx, round * 100, 50);
        CHECK(e2e_drain(rx) == 0, "datagrams came past the handle");
        CHECK_API(WinDivertClose(h));
        send_many(tx, round * 100 + 50, 50);
        expect_datagrams(rx, round * 100, 100);
    }
    e2e_marker(tx, rx);
}

/* Closing one handle loses no packet that another one holds or has queued. */
static void
close_spares_others(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, 0), other[3];
    WINDIVERT_ADDRESS addr[20];
    static uint8_t held[20][128];
    UINT len[20];

    for (unsigned i = 0; i < 3; i++)
        other[i] = e2e_open("udp.DstPort == 5999", (INT16)(i * 100), i == 1 ? WINDIVERT_FLAG_SNIFF : 0);
    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    send_many(tx, 0, 40);
    for (unsigned i = 0; i < 20; i++)
        len[i] = e2e_recv_packet(h, held[i], &addr[i]);
    for (unsigned i = 0; i < 3; i++)
        CHECK_API(WinDivertClose(other[i]));
    for (unsigned i = 0; i < 20; i++)
        e2e_send_packet(h, held[i], len[i], &addr[i]);
    expect_datagrams(rx, 0, 20);
    CHECK_API(WinDivertClose(h));
    expect_datagrams(rx, 20, 20);
    e2e_marker(tx, rx);
}

const struct e2e_test e2e_shutdown_tests[] = {
    {"shutdown_recv_drains", shutdown_recv_drains, 0},
    {"shutdown_send", shutdown_send, 0},
    {"shutdown_bad_how", shutdown_bad_how, 0},
    {"shutdown_recv_wakes", shutdown_recv_wakes, 0},
    {"shutdown_both_wakes", shutdown_both_wakes, 0},
    {"shutdown_sniff_wakes", sniff_shutdown_wakes, 0},
    {"close_wakes", close_wakes, 0},
    {"close_wakes_sniff", close_wakes_sniff, 0},
    {"close_queued_go_on4", close_queued_go_on4, 0},
    {"close_queued_go_on6", close_queued_go_on6, 0},
    {"close_queued_go_on_in", close_queued_go_on_in, 0},
    {"close_received_are_dropped", close_received_are_dropped, 0},
    {"close_in_traffic", close_in_traffic, 0},
    {"close_spares_others", close_spares_others, 0},
    {NULL, NULL, 0},
};
