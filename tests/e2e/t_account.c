/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Every matched packet is in exactly one place, whatever happens to the handle and however much comes. */
#include "e2e.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define FILTER "udp.DstPort == 5001"

typedef unsigned long long ull;

static void
print_all(char *buf, size_t size, const WINDIVERT_EXT_STATS *s)
{
    snprintf(buf, size,
             "matched %llu, delivered %llu (returned %llu, not %llu, held %llu), dropped: length %llu, size %llu, "
             "time %llu, buffer %llu; passed %llu, queued %llu, unmatched %llu",
             (ull)s->Matched, (ull)s->Delivered, (ull)s->Returned, (ull)s->NotReturned, (ull)s->Held,
             (ull)s->DropLength, (ull)s->DropSize, (ull)s->DropTime, (ull)s->DropBuffer, (ull)s->PassedOpen,
             (ull)s->Queued, (ull)s->Unmatched);
}

/* The two laws, and that as many were matched as were sent. */
static WINDIVERT_EXT_STATS
check_law(HANDLE handle, bool sniffs, uint64_t sent)
{
    WINDIVERT_EXT_STATS s = e2e_stats(handle);
    char text[400];

    print_all(text, sizeof(text), &s);
    CHECK(s.Matched == s.Delivered + s.DropLength + s.DropSize + s.DropTime + s.DropBuffer + s.PassedOpen + s.Queued,
          "%s", text);
    CHECK(sniffs || s.Delivered == s.Returned + s.NotReturned + s.Held, "%s", text);
    CHECK(s.Matched == sent, "sent %llu; %s", (ull)sent, text);
    return s;
}

struct flood {
    const char *ns, *ip;
    unsigned flows, count; /* datagrams of each */
    unsigned size;
    _Atomic unsigned running;
    _Atomic uint64_t sent;
};

static void *
send_flow(void *arg)
{
    struct flood *f = arg;
    int tx = e2e_udp_sender(f->ns, f->ip, PORT, 0);

    for (unsigned i = 0; i < f->count; i++)
        f->sent += e2e_send(tx, f->size, i);
    close(tx);
    f->running--;
    return NULL;
}

static void
flood_start(struct flood *f)
{
    pthread_t thread;

    f->running = f->flows;
    for (unsigned i = 0; i < f->flows; i++) {
        CHECK(pthread_create(&thread, NULL, send_flow, f) == 0, "thread");
        pthread_detach(thread);
    }
}

/* A slow program: it sleeps, forgets some packets, changes some, sends some twice. */
static bool
be_slow(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    uint64_t n = p->received;

    if (n % 64 == 0)
        e2e_nap_us(2000);
    if (n % 7 == 0)
        return false;
    if (n % 5 == 0) {
        packet[*len - 1] ^= 1;
        addr->UDPChecksum = 0;
    }
    return true;
}

struct counted {
    int rx;
    _Atomic bool end;
    _Atomic uint64_t arrived;
};

static void *
count_arrivals(void *arg)
{
    struct counted *c = arg;

    while (!c->end) {
        c->arrived += e2e_drain(c->rx);
        e2e_nap_us(500);
    }
    return NULL;
}

/* More than the program can take, while its limits change. */
static void
overload(const char *handle_ns, const char *sender_ns, const char *ip, WINDIVERT_LAYER layer, bool open)
{
    static const UINT64 lengths[] = {32, 16384, 100, 4096}, sizes[] = {65535, 33554432, 4194304},
                        times[] = {100, 16000, 500, 2000};
    struct flood f = {.ns = sender_ns, .ip = ip, .flows = 4, .count = 30000, .size = 200};
    struct e2e_passer p = {.batch = 32, .edit = be_slow};
    struct counted c = {.rx = e2e_udp_receiver(strcmp(ip, E2E_C4) == 0       ? "c"
                                               : strcmp(sender_ns, "a") == 0 ? "b"
                                                                             : "a",
                                               ip, PORT)};
    WINDIVERT_EXT_STATS s;
    pthread_t thread;

    e2e_enter(handle_ns);
    p.handle = e2e_open_at(layer, FILTER, 0, 0);
    if (open)
        CHECK_API(WinDivertExtSetParam(p.handle, WINDIVERT_EXT_PARAM_FAIL_OPEN, 1));
    e2e_pass_start(&p);
    CHECK(pthread_create(&thread, NULL, count_arrivals, &c) == 0, "thread");
    flood_start(&f);
    for (unsigned i = 0; f.running; i++) {
        CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_LENGTH, lengths[i % 4]));
        CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_SIZE, sizes[i % 3]));
        CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_TIME, times[i % 4]));
        e2e_nap_us(3000);
    }
    CHECK_API(WinDivertShutdown(p.handle, WINDIVERT_SHUTDOWN_RECV));
    pthread_join(p.thread, NULL);
    WAIT_UNTIL(e2e_stats(p.handle).Held == 0, 3000, "packets are held for ever");
    s = check_law(p.handle, false, f.sent);
    CHECK(s.Queued == 0, "%llu are queued for ever", (ull)s.Queued);
    CHECK(open ? s.PassedOpen > 0 : s.DropLength + s.DropSize + s.DropTime + s.DropBuffer > 0,
          "nothing was too much");
    CHECK(open ? s.DropLength + s.DropSize + s.DropTime + s.DropBuffer == 0 : s.PassedOpen == 0, "the wrong way");
    e2e_nap_us(100000);
    c.end = true;
    pthread_join(thread, NULL);
    /* What is sent after the hold time is new. */
    CHECK(c.arrived == s.Returned + s.Injected + s.PassedOpen,
          "%llu arrived; %llu returned, %llu sent again, %llu passed", (ull)c.arrived, (ull)s.Returned,
          (ull)s.Injected, (ull)s.PassedOpen);
    CHECK_API(WinDivertClose(p.handle));
}

static void
account_overload_in(void)
{
    overload("a", "b", E2E_A4, WINDIVERT_LAYER_NETWORK, false);
}

static void
account_overload_out(void)
{
    overload("a", "a", E2E_B6, WINDIVERT_LAYER_NETWORK, false);
}

static void
account_overload_forward(void)
{
    overload("b", "a", E2E_C4, WINDIVERT_LAYER_NETWORK_FORWARD, false);
}

static void
account_fail_open_in(void)
{
    overload("a", "b", E2E_A6, WINDIVERT_LAYER_NETWORK, true);
}

static void
account_fail_open_out(void)
{
    overload("a", "a", E2E_B4, WINDIVERT_LAYER_NETWORK, true);
}

/* Nobody receives: what is queued, and what is dropped for which reason. */
static void
unread(WINDIVERT_PARAM param, UINT64 value, unsigned count, unsigned size, unsigned expected, uint64_t *dropped,
       WINDIVERT_EXT_STATS *s)
{
    int rx = e2e_udp_receiver("a", E2E_A4, PORT), tx = e2e_udp_sender("b", E2E_A4, PORT, 0);
    HANDLE h = e2e_open(FILTER, 0, 0);

    CHECK_API(WinDivertSetParam(h, param, value));
    for (uint32_t i = 0; i < count; i++)
        CHECK(e2e_send(tx, size, i), "send");
    WAIT_UNTIL((*s = check_law(h, false, count)).Queued <= expected, 3000, "%llu are queued, not %u", (ull)s->Queued,
               expected);
    CHECK(s->Queued == expected && *dropped == count - expected, "%llu are queued and %llu dropped, not %u and %u",
          (ull)s->Queued, (ull)*dropped, expected, count - expected);
    CHECK_API(WinDivertClose(h));
    e2e_nap_us(20000);
    CHECK(e2e_drain(rx) == expected, "not what was queued arrived after close");
    close(rx);
    close(tx);
}

static void
account_length(void)
{
    WINDIVERT_EXT_STATS s;

    unread(WINDIVERT_PARAM_QUEUE_LENGTH, 100, 1000, 64, 100, &s.DropLength, &s);
    unread(WINDIVERT_PARAM_QUEUE_LENGTH, 32, 33, 64, 32, &s.DropLength, &s);
}

static void
account_size(void)
{
    WINDIVERT_EXT_STATS s;

    unread(WINDIVERT_PARAM_QUEUE_SIZE, 65535, 200, 972, 65, &s.DropSize, &s); /* of 1,000 bytes */
}

/* A reader that was away for long finds nothing old, and no sender was blocked. */
static void
account_time(void)
{
    int rx = e2e_udp_receiver("a", E2E_A4, PORT), tx = e2e_udp_sender("b", E2E_A4, PORT, 0);
    HANDLE h = e2e_open(FILTER, 0, 0), sniffer = e2e_open(FILTER, 1, WINDIVERT_FLAG_SNIFF);
    uint8_t *packet = malloc(E2E_PACKET_MAX);
    WINDIVERT_EXT_STATS s;
    WINDIVERT_ADDRESS addr;

    CHECK_API(WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_TIME, 400));
    CHECK_API(WinDivertSetParam(sniffer, WINDIVERT_PARAM_QUEUE_TIME, 400));
    for (uint32_t i = 0; i < 50; i++)
        CHECK(e2e_send(tx, 64, i), "send");
    e2e_nap_us(300000);
    CHECK(check_law(h, false, 50).Queued == 50, "dropped too early");
    e2e_nap_us(250000); /* nobody calls */
    CHECK(e2e_send(tx, 64, 50), "send");
    CHECK(e2e_recv_packet(h, packet, &addr) == 92, "length");
    s = check_law(h, false, 51);
    CHECK(s.DropTime == 50 && s.Delivered == 1, "%llu too old, %llu delivered", (ull)s.DropTime, (ull)s.Delivered);
    e2e_send_packet(h, packet, 92, &addr);
    CHECK(e2e_recv_packet(sniffer, packet, &addr) == 92, "length");
    s = check_law(sniffer, true, 51);
    CHECK(s.DropTime == 50 && s.Delivered == 1, "sniffed: %llu too old, %llu delivered", (ull)s.DropTime,
          (ull)s.Delivered);
    free(packet);
    CHECK_API(WinDivertClose(h));
    CHECK_API(WinDivertClose(sniffer));
    e2e_nap_us(10000);
    CHECK(e2e_drain(rx) == 1, "other datagrams than the last arrived");
}

/* More senders than the kernel's queue has room for, each with a large buffer. */
static void
account_buffers(void)
{
    struct flood f = {.ns = "a", .ip = E2E_B4, .flows = 32, .count = 3000, .size = 1000};
    int rx = e2e_udp_receiver("b", E2E_B4, PORT);
    HANDLE h = e2e_open(FILTER, 0, 0);
    WINDIVERT_EXT_STATS s;

    flood_start(&f);
    WAIT_UNTIL(f.running == 0, 25000, "%u senders are blocked", f.running);
    e2e_nap_us(100000);
    s = check_law(h, false, f.sent);
    CHECK(f.sent == 32 * 3000, "%llu were sent", (ull)f.sent);
    CHECK(s.Queued <= WINDIVERT_PARAM_QUEUE_LENGTH_DEFAULT, "%llu queued", (ull)s.Queued);
    CHECK_API(WinDivertClose(h));
    e2e_drain(rx);
}

/* Where the library decides: what it lets go on was not matched. */
static void
account_undecided(void)
{
    struct e2e_pump pump = {.count = 5000};
    struct e2e_passer p = {.batch = 16};
    WINDIVERT_EXT_STATS s;

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    p.handle = e2e_open(FILTER " and random8 < 128", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    s = e2e_stats(p.handle);
    check_law(p.handle, false, pump.count - s.Unmatched);
    CHECK(s.Unmatched > 2000 && s.Unmatched < 3000, "%llu of 5000 not matched", (ull)s.Unmatched);
    e2e_pass_stop(&p);
}

/* Segments are counted where segments are delivered. */
static void
account_segments(void)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = "b", .server_ip = E2E_B4, .port = PORT, .streams = 4, .bytes = 4 << 20};
    struct e2e_passer p = {.batch = 64};
    WINDIVERT_EXT_STATS s;

    p.handle = e2e_open("tcp.DstPort == 5001", 0, 0);
    CHECK_API(WinDivertExtSetParam(p.handle, WINDIVERT_EXT_PARAM_SEGMENTS, 1));
    e2e_pass_start(&p);
    e2e_tcp_run(&t);
    WAIT_UNTIL(e2e_stats(p.handle).Queued == 0, 3000, "still queued");
    s = e2e_stats(p.handle);
    check_law(p.handle, false, s.Matched);
    CHECK(s.DropBuffer == 0 && s.Delivered >= 4 * (4 << 20) / 1500, "%llu delivered", (ull)s.Delivered);
    e2e_pass_stop(&p);
}

static void
account_sniff(void)
{
    struct flood f = {.ns = "b", .ip = E2E_A4, .flows = 4, .count = 30000, .size = 200};
    struct e2e_passer p = {.batch = 32, .edit = be_slow};
    int rx = e2e_udp_receiver("a", E2E_A4, PORT);
    WINDIVERT_EXT_STATS s;

    p.handle = e2e_open(FILTER, 0, WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY);
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_LENGTH, 64));
    p.edit = NULL;
    flood_start(&f);
    for (unsigned i = 0; f.running || e2e_stats(p.handle).Queued; i++) {
        static uint8_t buf[64 * 1024];
        WINDIVERT_ADDRESS addr[8];
        UINT len, addr_len = sizeof(addr);

        if (e2e_stats(p.handle).Queued)
            CHECK_API(WinDivertRecvEx(p.handle, buf, sizeof(buf), &len, 0, addr, &addr_len, NULL));
        e2e_nap_us(100);
        e2e_drain(rx);
    }
    s = check_law(p.handle, true, f.sent);
    CHECK(s.DropLength > 0 && s.Queued == 0, "%llu dropped, %llu queued", (ull)s.DropLength, (ull)s.Queued);
    CHECK_API(WinDivertClose(p.handle));
}

const struct e2e_test e2e_account_tests[] = {
    {"account_overload_in", account_overload_in, 60},
    {"account_overload_out", account_overload_out, 60},
    {"account_overload_forward", account_overload_forward, 60},
    {"account_fail_open_in", account_fail_open_in, 60},
    {"account_fail_open_out", account_fail_open_out, 60},
    {"account_length", account_length, 0},
    {"account_size", account_size, 0},
    {"account_time", account_time, 0},
    {"account_buffers", account_buffers, 60},
    {"account_undecided", account_undecided, 0},
    {"account_segments", account_segments, 0},
    {"account_sniff", account_sniff, 0},
    {NULL, NULL, 0},
};
