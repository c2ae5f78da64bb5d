/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * A handle is opened in front of one that holds packets.  The kernel goes on with
 * a returned packet by the position of the hook, which has moved: the packet
 * comes to the hook a second time, and must not come to the program again.
 */
#include "e2e.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PORT 5001
#define HELD 50
#define FILTER "udp.DstPort == 5001"

struct opener {
    INT16 priority;
    UINT64 flags;
    const char *filter;
    _Atomic int opened, end;
};

static void
open_and_wait(void *arg)
{
    struct opener *o = arg;
    HANDLE h = e2e_open(o->filter, o->priority, o->flags);

    o->opened = 1;
    WAIT_UNTIL(o->end, 20000, "never told to end");
    CHECK_API(WinDivertClose(h));
}

/* In another process. */
static pid_t
open_elsewhere(struct opener *o, INT16 priority, UINT64 flags, const char *filter)
{
    pid_t pid;

    o->priority = priority;
    o->flags = flags;
    o->filter = filter;
    pid = e2e_spawn("a", open_and_wait, o);
    WAIT_UNTIL(o->opened, 5000, "not opened");
    return pid;
}

struct packets {
    HANDLE handle;
    uint8_t data[HELD][256];
    UINT len[HELD];
    WINDIVERT_ADDRESS addr[HELD];
};

static void
receive_all(struct packets *held)
{
    static uint8_t packet[E2E_PACKET_MAX];

    for (unsigned i = 0; i < HELD; i++) {
        held->len[i] = e2e_recv_packet(held->handle, packet, &held->addr[i]);
        CHECK(held->len[i] <= sizeof(held->data[i]), "%u bytes", held->len[i]);
        memcpy(held->data[i], packet, held->len[i]);
    }
}

/* Every second one is changed. */
static void
return_all(struct packets *held)
{
    for (unsigned i = 0; i < HELD; i++) {
        if (i % 2) {
            held->data[i][held->len[i] - 1] ^= 0xFF;
            held->addr[i].UDPChecksum = 0;
        }
        e2e_send_packet(held->handle, held->data[i], held->len[i], &held->addr[i]);
    }
}

static void
check_arrived(int rx)
{
    uint8_t expected[64], got[2048];

    for (uint32_t i = 0; i < HELD; i++) {
        e2e_datagram(expected, sizeof(expected), i);
        expected[63] ^= i % 2 ? 0xFF : 0;
        CHECK(e2e_receive(rx, got, sizeof(got), 3000) == 64 && memcmp(got, expected, 64) == 0, "datagram %u", i);
    }
}

/* The handle holds packets when another is opened in front of it; it gets no packet twice. */
static void
in_front(const char *sender_ns, const char *receiver_ns, const char *ip, INT16 priority, UINT64 flags,
         const char *filter, bool elsewhere)
{
    struct opener *o = e2e_shared(sizeof(*o));
    struct packets *held = calloc(1, sizeof(*held));
    int rx = e2e_udp_receiver(receiver_ns, ip, PORT), tx = e2e_udp_sender(sender_ns, ip, PORT, 0);
    HANDLE front = NULL;
    pid_t pid = 0;

    CHECK(held, "out of memory");
    held->handle = e2e_open(FILTER, 0, 0);
    CHECK_API(WinDivertExtSetParam(held->handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    for (uint32_t i = 0; i < HELD; i++)
        CHECK(e2e_send(tx, 64, i), "send");
    receive_all(held);
    if (elsewhere)
        pid = open_elsewhere(o, priority, flags, filter);
    else
        front = e2e_open(filter, priority, flags);
    return_all(held);
    check_arrived(rx);
    CHECK_API(WinDivertShutdown(held->handle, WINDIVERT_SHUTDOWN_RECV));
    CHECK_ERROR(WinDivertRecv(held->handle, NULL, 0, NULL, NULL), ERROR_NO_DATA);
    CHECK(e2e_stats(held->handle).Delivered == HELD && e2e_stats(held->handle).Unmatched == 0, "%llu delivered",
          (unsigned long long)e2e_stats(held->handle).Delivered);
    CHECK_API(WinDivertClose(held->handle));
    if (front)
        CHECK_API(WinDivertClose(front));
    o->end = 1;
    if (elsewhere)
        e2e_join(pid);
    e2e_marker(tx, rx);
    free(held);
}

static void
shift_out(void)
{
    in_front("a", "b", E2E_B4, 10, 0, "tcp", false);
}

static void
shift_out_elsewhere(void)
{
    in_front("a", "b", E2E_B6, 10, 0, "tcp", true);
}

static void
shift_in(void)
{
    in_front("b", "a", E2E_A6, 10, 0, "tcp", false);
}

static void
shift_equal(void)
{
    in_front("a", "b", E2E_B4, 0, 0, "tcp", true);
}

static void
shift_by_sniff(void)
{
    in_front("b", "a", E2E_A4, 1, WINDIVERT_FLAG_SNIFF, "udp", true);
}

static void
shift_by_drop(void)
{
    in_front("a", "b", E2E_B4, 30000, WINDIVERT_FLAG_DROP, "tcp", false);
}

/* A lower one changes nothing. */
static void
shift_behind(void)
{
    in_front("a", "b", E2E_B4, -1, 0, "tcp", false);
}

/* Handles are opened in front, one above the other, while packets flow: each comes once to each that was there. */
static void
shift_under_load(void)
{
    struct e2e_pump pump = {.count = 30000, .size = e2e_size_unfragmented};
    struct e2e_passer p = {.batch = 16}, q = {.batch = 1};
    pid_t pid[20];
    struct opener *o = e2e_shared(20 * sizeof(*o));
    pthread_t thread;
    unsigned opened = 0;

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    p.handle = e2e_open(FILTER, 0, 0);
    q.handle = e2e_open(FILTER, -5, 0);
    e2e_pass_start(&p);
    e2e_pass_start(&q);
    CHECK(pthread_create(&thread, NULL, (void *(*)(void *))(void (*)(void))e2e_udp_pump, &pump) == 0, "thread");
    for (; opened < 20; opened++) {
        e2e_nap_us(10000);
        pid[opened] = open_elsewhere(&o[opened], (INT16)(opened + 1), opened % 2 ? WINDIVERT_FLAG_SNIFF : 0, "tcp");
    }
    pthread_join(thread, NULL);
    e2e_pass_stop(&p);
    e2e_pass_stop(&q);
    for (unsigned i = 0; i < opened; i++) {
        o[i].end = 1;
        e2e_join(pid[i]);
    }
    CHECK(p.received == pump.count && q.received == pump.count, "%llu and %llu packets for %u datagrams",
          (unsigned long long)p.received, (unsigned long long)q.received, pump.count);
}

const struct e2e_test e2e_shift_tests[] = {
    {"shift_out", shift_out, 0},
    {"shift_out_elsewhere", shift_out_elsewhere, 0},
    {"shift_in", shift_in, 0},
    {"shift_equal", shift_equal, 0},
    {"shift_by_sniff", shift_by_sniff, 0},
    {"shift_by_drop", shift_by_drop, 0},
    {"shift_behind", shift_behind, 0},
    {"shift_under_load", shift_under_load, 60},
    {NULL, NULL, 0},
};
