/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WINDIVERT_EXT_PARAM_SEGMENTS: bulk transfer in packets as they are on the wire, each filtered by itself. */
#include "e2e.h"

#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define PORT 5001
#define MTU 1500
#define BYTES (4 << 20)
#define SWITCHES 60

struct seen {
    unsigned data, push, others; /* packets with payload; of these with PSH; without */
    bool change;
    unsigned len_min, len_max; /* of every packet there is to be, 0: any */
};

static bool
look(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct seen *seen = p->arg;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v) && v.end == *len, "no packet, or cut");
    CHECK(*len <= MTU, "a packet of %u bytes", *len);
    CHECK(!seen->len_max || (*len >= seen->len_min && *len <= seen->len_max), "a packet of %u bytes", *len);
    CHECK(!addr->TCPChecksum || e2e_transport_sum_right(packet, &v), "TCPChecksum is set, the checksum wrong");
    if (v.payload < *len) {
        seen->data++;
        seen->push += packet[v.transport + 13] >> 3 & 1;
    } else {
        seen->others++;
    }
    if (seen->change) {
        for (unsigned i = v.payload; i < *len; i++)
            packet[i] ^= 0xFF;
        addr->TCPChecksum = 0;
    }
    return true;
}

static void
set_segments(HANDLE handle, UINT64 on)
{
    CHECK_API(WinDivertExtSetParam(handle, WINDIVERT_EXT_PARAM_SEGMENTS, on));
}

/* A stream from a to b, seen by a handle in handle_ns. */
static WINDIVERT_EXT_STATS
stream(const char *handle_ns, const char *ip, const char *filter, struct seen *seen)
{
    const struct e2e_tcp t = {.client_ns = "a",
                              .server_ns = "b",
                              .server_ip = ip,
                              .port = PORT,
                              .streams = 1,
                              .bytes = BYTES,
                              .client_xor = seen->change ? 0xFF : 0};
    struct e2e_passer p = {.batch = 64, .edit = look, .arg = seen};
    WINDIVERT_EXT_STATS stats;

    e2e_enter(handle_ns);
    p.handle = e2e_open(filter, 0, 0);
    set_segments(p.handle, 1);
    e2e_pass_start(&p);
    e2e_tcp_run(&t);
    stats = e2e_stats(p.handle);
    e2e_pass_stop(&p);
    CHECK(seen->data + seen->others > 0, "nothing was diverted");
    return stats;
}

static void
all_of(const char *ns, const char *ip, bool change)
{
    struct seen seen = {.change = change};
    WINDIVERT_EXT_STATS stats = stream(ns, ip, "tcp.DstPort == 5001", &seen);

    CHECK(seen.data >= BYTES / MTU, "%u packets for %u bytes", seen.data, BYTES);
    CHECK(stats.Unmatched == 0, "%llu packets went through the library in vain", (unsigned long long)stats.Unmatched);
}

static void
segments_out4(void)
{
    all_of("a", E2E_B4, false);
}

static void
segments_out6(void)
{
    all_of("a", E2E_B6, true);
}

static void
segments_in4(void)
{
    all_of("b", E2E_B4, true);
}

static void
segments_in6(void)
{
    all_of("b", E2E_B6, false);
}

/* What differs between aggregate and segment is what the segment says. */
static void
segments_by_length(void)
{
    struct seen full = {.len_min = MTU, .len_max = MTU}, rest = {.len_min = 1, .len_max = MTU - 1};

    CHECK(stream("a", E2E_B4, "tcp.DstPort == 5001 and length == 1500", &full).Unmatched > 0,
          "nothing was decided here");
    CHECK(full.data >= BYTES / MTU / 2, "%u full segments of %u bytes", full.data, BYTES);
    stream("a", E2E_B4, "tcp.DstPort == 5001 and not length == 1500", &rest);
}

static void
segments_by_push(void)
{
    struct seen push = {0}, none = {0};

    stream("a", E2E_B6, "tcp.DstPort == 5001 and tcp.Psh", &push);
    CHECK(push.push == push.data && push.others == 0, "%u of %u packets have PSH", push.push, push.data);
    stream("a", E2E_B6, "tcp.DstPort == 5001 and not tcp.Psh", &none);
    CHECK(none.push == 0 && none.data > BYTES / MTU / 2, "%u of %u packets have PSH", none.push, none.data);
}

/* On lo, where the MTU is 65,536 and aggregates are larger than a packet can be. */
static bool
no_aggregate(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    (void)p, (void)addr;
    CHECK(e2e_view(packet, *len, &v) && v.end == *len, "a packet of %u bytes, %u by its header", *len, v.end);
    return true;
}

static void
segments_loopback(void)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = "a", .server_ip = "127.0.0.1", .port = PORT, .streams = 2, .bytes = BYTES};
    struct e2e_passer p = {.batch = 64, .edit = no_aggregate};

    p.handle = e2e_open("tcp", 0, 0);
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    set_segments(p.handle, 1);
    e2e_pass_start(&p);
    e2e_tcp_run(&t);
    e2e_pass_stop(&p);
    CHECK(p.received >= 2 * 2 * (BYTES >> 16), "%llu packets", (unsigned long long)p.received);
}

/* One send(2) of many datagrams. */
static void
segments_udp(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0), size = 1000;
    HANDLE h = e2e_open("udp.DstPort == 5001 and udp.PayloadLength == 1000", 0, 0);
    uint8_t data[10500], packet[E2E_PACKET_MAX], got[2000];
    WINDIVERT_ADDRESS addr;

    set_segments(h, 1);
    e2e_fill(data, sizeof(data), 1);
    CHECK(setsockopt(tx, SOL_UDP, UDP_SEGMENT, &size, sizeof(size)) == 0, "UDP_SEGMENT");
    CHECK(send(tx, data, sizeof(data), 0) == (ssize_t)sizeof(data), "send");
    for (unsigned i = 0; i < 10; i++) {
        UINT len = e2e_recv_packet(h, packet, &addr);

        CHECK(len == 1028 && memcmp(packet + 28, data + 1000 * i, 1000) == 0, "datagram %u: %u bytes", i, len);
        e2e_send_packet(h, packet, len, &addr);
    }
    /* The short one at the end did not match and went on before. */
    CHECK(e2e_receive(rx, got, sizeof(got), 2000) == 500 && memcmp(got, data + 10000, 500) == 0, "the last datagram");
    for (unsigned i = 0; i < 10; i++)
        CHECK(e2e_receive(rx, got, sizeof(got), 2000) == 1000 && memcmp(got, data + 1000 * i, 1000) == 0,
              "datagram %u", i);
    CHECK_API(WinDivertClose(h));
}

/* While bytes flow: none is lost or doubled, each is changed once. */
struct switcher {
    HANDLE handle;
    _Atomic bool end;
    unsigned count;
};

static void *
switch_on_and_off(void *arg)
{
    struct switcher *s = arg;

    for (s->count = 0; !s->end; s->count++) {
        set_segments(s->handle, (s->count + 1) % 2);
        e2e_nap_us(5000);
    }
    return NULL;
}

static void
segments_switched(void)
{
    const struct e2e_tcp t = {.client_ns = "a",
                              .server_ns = "b",
                              .server_ip = E2E_B4,
                              .port = PORT,
                              .streams = 2,
                              .bytes = 64 << 20,
                              .client_xor = 0xFF};
    struct e2e_passer p = {.batch = 64, .edit = e2e_invert};
    struct switcher s = {0};
    pthread_t thread;

    p.handle = s.handle = e2e_open("tcp.DstPort == 5001 and (tcp.PayloadLength > 0 or tcp.Syn)", 0, 0);
    e2e_pass_start(&p);
    CHECK(pthread_create(&thread, NULL, switch_on_and_off, &s) == 0, "thread");
    e2e_tcp_run(&t);
    s.end = true;
    pthread_join(thread, NULL);
    e2e_pass_stop(&p);
    CHECK(s.count >= SWITCHES / 3 && p.max_len > MTU, "switched %u times, longest packet %u", s.count, p.max_len);
}

static void
segments_refused(void)
{
    static const UINT64 flags[] = {WINDIVERT_FLAG_SNIFF, WINDIVERT_FLAG_DROP, WINDIVERT_FLAG_SEND_ONLY};

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        HANDLE h = e2e_open("udp.DstPort == 5001", 0, flags[i]);

        CHECK_ERROR(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_SEGMENTS, 1), ERROR_NOT_SUPPORTED);
        CHECK_API(WinDivertClose(h));
    }
}

const struct e2e_test e2e_segments_tests[] = {
    {"segments_out4", segments_out4, 0},
    {"segments_out6", segments_out6, 0},
    {"segments_in4", segments_in4, 0},
    {"segments_in6", segments_in6, 0},
    {"segments_by_length", segments_by_length, 0},
    {"segments_by_push", segments_by_push, 0},
    {"segments_loopback", segments_loopback, 0},
    {"segments_udp", segments_udp, 0},
    {"segments_switched", segments_switched, 60},
    {"segments_refused", segments_refused, 0},
    {NULL, NULL, 0},
};
