/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Received packets: returned late, twice, in another order, from another thread, or never. */
#include "e2e.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define FILTER "udp.DstPort == 5001"
#define HOLD_MS WINDIVERT_EXT_PARAM_HOLD_TIME_DEFAULT

static uint8_t buf[65536];

struct flow {
    int rx, tx;
    HANDLE h;
};

static struct flow
start_flow(const char *handle_ns, const char *ip)
{
    struct flow f;

    f.rx = e2e_udp_receiver("b", ip, PORT);
    f.tx = e2e_udp_sender("a", ip, PORT, 0);
    e2e_enter(handle_ns);
    e2e_stay_on_cpu();
    f.h = e2e_open(FILTER, 0, 0);
    return f;
}

static void
end_flow(struct flow *f)
{
    CHECK_API(WinDivertClose(f->h));
    e2e_marker(f->tx, f->rx);
}

static void
expect_datagram(struct flow *f, uint32_t number)
{
    uint32_t have = ~0u;
    ssize_t n = e2e_receive(f->rx, buf, sizeof(buf), 3000);

    memcpy(&have, buf, 4);
    CHECK(n == 64 && have == number, "expected datagram %u, got %d (%zd bytes)", number, n < 0 ? -1 : (int)have, n);
}

static void
expect_stats(HANDLE h, uint64_t returned, uint64_t injected, uint64_t not_returned)
{
    WINDIVERT_EXT_STATS s;

    WAIT_UNTIL((s = e2e_stats(h)).NotReturned >= not_returned, 2000, "%llu of %llu counted as not returned",
               (unsigned long long)s.NotReturned, (unsigned long long)not_returned);
    CHECK(s.Returned == returned && s.Injected == injected && s.NotReturned == not_returned,
          "returned %llu, injected %llu, not returned %llu; expected %llu, %llu, %llu",
          (unsigned long long)s.Returned, (unsigned long long)s.Injected, (unsigned long long)s.NotReturned,
          (unsigned long long)returned, (unsigned long long)injected, (unsigned long long)not_returned);
}

/* Sent back a second after it was received: the original is gone, a new packet arrives, once. */
static void
late(const char *ns, const char *ip)
{
    struct flow f = start_flow(ns, ip);
    WINDIVERT_ADDRESS addr;
    uint8_t packet[2048];
    int64_t start;
    UINT len;

    CHECK(e2e_send(f.tx, 64, 7), "send");
    len = e2e_recv_packet(f.h, packet, &addr);
    start = e2e_now_us();
    WAIT_UNTIL(e2e_now_us() > start + 1000000, 2000, "time stands still");
    expect_stats(f.h, 0, 0, 1);
    CHECK(e2e_drain(f.rx) == 0, "a packet that was not sent back arrived");
    e2e_send_packet(f.h, packet, len, &addr);
    expect_datagram(&f, 7);
    expect_stats(f.h, 0, 1, 1);
    end_flow(&f);
}

static void
hold_late4(void)
{
    late("a", E2E_B4);
}

static void
hold_late6(void)
{
    late("a", E2E_B6);
}

/* Within a longer hold time the same wait is an ordinary return. */
static void
hold_time_is_a_parameter(void)
{
    struct flow f = start_flow("a", E2E_B4);
    WINDIVERT_ADDRESS addr;
    uint8_t packet[2048];
    UINT64 value = 0;
    int64_t start;
    UINT len;

    CHECK_API(WinDivertExtGetParam(f.h, WINDIVERT_EXT_PARAM_HOLD_TIME, &value));
    CHECK(value == HOLD_MS, "default %llu ms", (unsigned long long)value);
    CHECK_API(WinDivertExtSetParam(f.h, WINDIVERT_EXT_PARAM_HOLD_TIME, 1500));
    CHECK_API(WinDivertExtGetParam(f.h, WINDIVERT_EXT_PARAM_HOLD_TIME, &value));
    CHECK(value == 1500, "set to 1500, got %llu", (unsigned long long)value);
    CHECK(e2e_send(f.tx, 64, 7), "send");
    len = e2e_recv_packet(f.h, packet, &addr);
    start = e2e_now_us();
    WAIT_UNTIL(e2e_now_us() > start + 400000, 2000, "time stands still");
    e2e_send_packet(f.h, packet, len, &addr);
    expect_datagram(&f, 7);
    expect_stats(f.h, 1, 0, 0);
    end_flow(&f);
}

static void
hold_time_range(void)
{
    HANDLE h = e2e_open(FILTER, 0, 0);
    UINT64 value = 77;

    CHECK_ERROR(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 0), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, WINDIVERT_PARAM_QUEUE_TIME_DEFAULT + 1),
                ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 1));
    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, WINDIVERT_PARAM_QUEUE_TIME_DEFAULT));
    CHECK_ERROR(WinDivertExtSetParam(h, (WINDIVERT_EXT_PARAM)99, 5), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertExtGetParam(h, (WINDIVERT_EXT_PARAM)99, &value), ERROR_INVALID_PARAMETER);
    CHECK(value == 77, "a failed call changed its output");
    CHECK_API(WinDivertClose(h));
}

/* Sent back twice: two arrive. */
static void
two_copies(const char *ip)
{
    struct flow f = start_flow("a", ip);
    WINDIVERT_ADDRESS addr;
    uint8_t packet[2048];

    CHECK_API(WinDivertExtSetParam(f.h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    for (uint32_t i = 0; i < 50; i++) {
        UINT len;

        CHECK(e2e_send(f.tx, 64, i), "send");
        len = e2e_recv_packet(f.h, packet, &addr);
        e2e_send_packet(f.h, packet, len, &addr);
        e2e_send_packet(f.h, packet, len, &addr);
        expect_datagram(&f, i);
        expect_datagram(&f, i);
    }
    expect_stats(f.h, 50, 50, 0);
    end_flow(&f);
}

static void
hold_two_copies4(void)
{
    two_copies(E2E_B4);
}

static void
hold_two_copies6(void)
{
    two_copies(E2E_B6);
}

/* Both copies in one batch. */
static void
hold_two_copies_batch(void)
{
    struct flow f = start_flow("a", E2E_B4);
    WINDIVERT_ADDRESS addr[2];
    uint8_t packet[4096];
    UINT len, sent;

    CHECK_API(WinDivertExtSetParam(f.h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    CHECK(e2e_send(f.tx, 64, 3), "send");
    len = e2e_recv_packet(f.h, packet, &addr[0]);
    memcpy(packet + len, packet, len);
    addr[1] = addr[0];
    CHECK_API(WinDivertSendEx(f.h, packet, 2 * len, &sent, 0, addr, sizeof(addr), NULL));
    CHECK(sent == 2 * len, "sent %u", sent);
    expect_datagram(&f, 3);
    expect_datagram(&f, 3);
    expect_stats(f.h, 1, 1, 0);
    end_flow(&f);
}

/* Received 100, sent back from the last to the first; they arrive in that order. */
static void
reversed(const char *ns, const char *ip)
{
    struct flow f = start_flow(ns, ip);
    static WINDIVERT_ADDRESS addr[100];
    static uint8_t packet[100][256];
    UINT len[100];

    CHECK_API(WinDivertExtSetParam(f.h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    for (uint32_t i = 0; i < 100; i++)
        CHECK(e2e_send(f.tx, 64, i), "send");
    for (unsigned i = 0; i < 100; i++)
        len[i] = e2e_recv_packet(f.h, packet[i], &addr[i]);
    for (unsigned i = 100; i-- > 0;)
        e2e_send_packet(f.h, packet[i], len[i], &addr[i]);
    for (uint32_t i = 100; i-- > 0;)
        expect_datagram(&f, i);
    expect_stats(f.h, 100, 0, 0);
    end_flow(&f);
}

static void
hold_reversed4(void)
{
    reversed("a", E2E_B4);
}

static void
hold_reversed6(void)
{
    reversed("a", E2E_B6);
}

static void
hold_reversed_in(void)
{
    reversed("b", E2E_B4);
}

struct parcel {
    HANDLE h;
    uint8_t packet[2048];
    UINT len;
    WINDIVERT_ADDRESS addr;
};

static void *
send_parcel(void *arg)
{
    struct parcel *p = arg;

    e2e_stay_on_cpu();
    e2e_send_packet(p->h, p->packet, p->len, &p->addr);
    return NULL;
}

static void
hold_other_thread(void)
{
    struct flow f = start_flow("a", E2E_B4);
    struct parcel p = {.h = f.h};
    pthread_t t;

    CHECK_API(WinDivertExtSetParam(f.h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    for (uint32_t i = 0; i < 50; i++) {
        CHECK(e2e_send(f.tx, 64, i), "send");
        p.len = e2e_recv_packet(f.h, p.packet, &p.addr);
        CHECK(pthread_create(&t, NULL, send_parcel, &p) == 0, "pthread_create");
        pthread_join(t, NULL);
        expect_datagram(&f, i);
    }
    expect_stats(f.h, 50, 0, 0);
    end_flow(&f);
}

/* An address zeroed but for the direction no longer says what is returned: a new packet, and the original ends. */
static void
zeroed(const char *ip)
{
    struct flow f = start_flow("a", ip);
    WINDIVERT_ADDRESS addr;
    uint8_t packet[2048];
    UINT len;

    CHECK(e2e_send(f.tx, 64, 7), "send");
    len = e2e_recv_packet(f.h, packet, &addr);
    memset(&addr, 0, sizeof(addr));
    addr.Outbound = 1;
    e2e_send_packet(f.h, packet, len, &addr);
    expect_datagram(&f, 7);
    expect_stats(f.h, 0, 1, 1);
    end_flow(&f);
}

static void
hold_zeroed_address4(void)
{
    zeroed(E2E_B4);
}

static void
hold_zeroed_address6(void)
{
    zeroed(E2E_B6);
}

/* The address of one handle on another is no return. */
static void
hold_foreign_handle(void)
{
    struct flow f = start_flow("a", E2E_B4);
    HANDLE other = e2e_open("udp.DstPort == 5999", -1, 0);
    WINDIVERT_ADDRESS addr;
    uint8_t packet[2048];
    UINT len;

    CHECK(e2e_send(f.tx, 64, 7), "send");
    len = e2e_recv_packet(f.h, packet, &addr);
    e2e_send_packet(other, packet, len, &addr);
    expect_datagram(&f, 7);
    CHECK(e2e_stats(other).Injected == 1, "not injected by the other handle");
    expect_stats(f.h, 0, 0, 1);
    CHECK_API(WinDivertClose(other));
    end_flow(&f);
}

static long
resident_kb(void)
{
    char line[128];
    long kb = -1;
    FILE *s = fopen("/proc/self/status", "r");

    while (s && kb < 0 && fgets(line, sizeof(line), s))
        sscanf(line, "VmRSS: %ld", &kb);
    if (s)
        fclose(s);
    return kb;
}

static bool
keep(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    (void)p;
    (void)packet;
    (void)len;
    (void)addr;
    return false;
}

/* Receives 100,000 and sends none: the sender waits for nothing, memory does not grow, all are counted. */
static void
hold_never_returned(void)
{
    const uint32_t count = 100000;
    struct flow f = start_flow("a", E2E_B4);
    struct e2e_passer p = {.batch = 64, .edit = keep, .handle = f.h};
    WINDIVERT_EXT_STATS s;
    int64_t longest = 0;
    long early = 0;

    e2e_pass_start(&p);
    for (uint32_t i = 0; i < count; i++) {
        int64_t start = e2e_now_us(), took;

        CHECK(e2e_send(f.tx, 64, i), "send %u: error %d", i, errno);
        took = e2e_now_us() - start;
        longest = took > longest ? took : longest;
        WAIT_UNTIL(i + 1 - p.received < 500, 5000, "%u sent, only %llu received", i + 1,
                   (unsigned long long)p.received);
        if (i == count / 5)
            early = resident_kb();
    }
    WAIT_UNTIL(p.received == count, 5000, "%llu received", (unsigned long long)p.received);
    CHECK(resident_kb() < early + 1024, "memory grew from %ld to %ld kB", early, resident_kb());
    CHECK(longest < (HOLD_MS + 150) * 1000, "a send took %lld us", (long long)longest);
    WAIT_UNTIL((s = e2e_stats(f.h)).Held == 0, 2000, "%llu still held", (unsigned long long)s.Held);
    CHECK(s.Delivered == count && s.NotReturned == count && s.Returned == 0,
          "delivered %llu, returned %llu, not returned %llu; expected %u, 0, %u", (unsigned long long)s.Delivered,
          (unsigned long long)s.Returned, (unsigned long long)s.NotReturned, count, count);
    e2e_pass_stop(&p);
    e2e_marker(f.tx, f.rx);
}

/* With an ordinary send buffer held packets fill it; no send waits for longer than the hold time. */
static void
hold_blocks_no_sender(void)
{
    struct flow f = start_flow("a", E2E_B4);
    struct e2e_passer p = {.batch = 16, .edit = keep, .handle = f.h};
    int64_t longest = 0, start, took;
    int ordinary = 106496;

    CHECK(setsockopt(f.tx, SOL_SOCKET, SO_SNDBUF, &ordinary, sizeof(ordinary)) == 0, "SO_SNDBUF");
    e2e_pass_start(&p);
    for (uint32_t i = 0; i < 2000; i++) {
        start = e2e_now_us();
        CHECK(e2e_send(f.tx, 64, i), "send");
        took = e2e_now_us() - start;
        longest = took > longest ? took : longest;
    }
    CHECK(longest > HOLD_MS * 500, "no send ever waited (longest %lld us): nothing was held", (long long)longest);
    CHECK(longest < (HOLD_MS + 100) * 1000, "a send waited %lld us", (long long)longest);
    e2e_pass_stop(&p);
    WAIT_UNTIL(p.received == 2000, 1, "%llu received", (unsigned long long)p.received);
    e2e_marker(f.tx, f.rx);
}

/* QUEUE_LENGTH packets may be held; one more pushes the oldest out. */
static void
hold_queue_length(void)
{
    struct flow f = start_flow("a", E2E_B4);
    static WINDIVERT_ADDRESS addr[40];
    static uint8_t packet[40][256];
    UINT len[40];

    CHECK_API(WinDivertExtSetParam(f.h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    CHECK_API(WinDivertSetParam(f.h, WINDIVERT_PARAM_QUEUE_LENGTH, WINDIVERT_PARAM_QUEUE_LENGTH_MIN));
    for (uint32_t i = 0; i < 40; i++) {
        CHECK(e2e_send(f.tx, 64, i), "send");
        len[i] = e2e_recv_packet(f.h, packet[i], &addr[i]);
    }
    expect_stats(f.h, 0, 0, 8);
    for (unsigned i = 0; i < 40; i++) {
        e2e_send_packet(f.h, packet[i], len[i], &addr[i]);
        expect_datagram(&f, i);
    }
    expect_stats(f.h, 32, 8, 8);
    end_flow(&f);
}

const struct e2e_test e2e_hold_tests[] = {
    {"hold_late4", hold_late4, 0},
    {"hold_late6", hold_late6, 0},
    {"hold_time_is_a_parameter", hold_time_is_a_parameter, 0},
    {"hold_time_range", hold_time_range, 0},
    {"hold_two_copies4", hold_two_copies4, 0},
    {"hold_two_copies6", hold_two_copies6, 0},
    {"hold_two_copies_batch", hold_two_copies_batch, 0},
    {"hold_reversed4", hold_reversed4, 0},
    {"hold_reversed6", hold_reversed6, 0},
    {"hold_reversed_in", hold_reversed_in, 0},
    {"hold_other_thread", hold_other_thread, 0},
    {"hold_zeroed_address4", hold_zeroed_address4, 0},
    {"hold_zeroed_address6", hold_zeroed_address6, 0},
    {"hold_foreign_handle", hold_foreign_handle, 0},
    {"hold_never_returned", hold_never_returned, 60},
    {"hold_blocks_no_sender", hold_blocks_no_sender, 0},
    {"hold_queue_length", hold_queue_length, 0},
    {NULL, NULL, 0},
};
