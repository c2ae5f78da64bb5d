/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* New packets of all sizes, many of them, and second copies: each arrives once and is not seen by its sender. */
#include "e2e.h"

#include <string.h>
#include <unistd.h>

#define PORT 5001
#define COUNT 200
#define BURST 5000

static UINT
make_numbered(uint8_t *packet, const char *src, const char *dst, unsigned size, uint32_t i)
{
    static uint8_t payload[65536];

    e2e_datagram(payload, size, i);
    return e2e_make_udp(packet, src, 4000, dst, PORT, payload, size);
}

static void
expect_numbered(int rx, size_t size, uint32_t i)
{
    static uint8_t buf[65536], expect[65536];
    ssize_t n = e2e_receive(rx, buf, sizeof(buf), 3000);

    e2e_datagram(expect, size, i);
    CHECK(n == (ssize_t)size && !memcmp(buf, expect, size), "datagram %u (%zu bytes): %s", i, size,
          n < 0 ? "did not arrive" : "another one arrived");
}

static void
many(const char *src, const char *dst, const char *receiver_ns, const WINDIVERT_ADDRESS *addr)
{
    static uint8_t packet[2048];
    struct e2e_passer p = {.batch = 1};
    int rx = e2e_udp_receiver(receiver_ns, dst, PORT);
    int tx = e2e_udp_sender(*receiver_ns == 'a' ? "b" : "a", dst, PORT, 0);

    p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    for (uint32_t i = 0; i < COUNT; i++) {
        size_t size = e2e_size_unfragmented(i);
        UINT len = make_numbered(packet, src, dst, (unsigned)size, i);

        e2e_send_packet(p.handle, packet, len, addr);
        expect_numbered(rx, size, i);
    }
    CHECK(e2e_stats(p.handle).Injected == COUNT, "%llu injected", (unsigned long long)e2e_stats(p.handle).Injected);
    e2e_pass_stop(&p);
    CHECK(p.received == 0, "the handle received %llu of its own packets", (unsigned long long)p.received);
    e2e_marker(tx, rx);
}

static void
send_new_out4(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);

    many(E2E_A4, E2E_B4, "b", &addr);
}

static void
send_new_out6(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_outbound(true);

    many(E2E_A6, E2E_B6, "b", &addr);
}

/* A source address that is not ours. */
static void
send_new_out_foreign_source(void)
{
    WINDIVERT_ADDRESS addr4 = e2e_new_outbound(false), addr6 = e2e_new_outbound(true);

    many("10.77.0.99", E2E_B4, "b", &addr4);
    many("fd77::99", E2E_B6, "b", &addr6);
}

static void
send_new_in4(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "a", "va");

    many(E2E_B4, E2E_A4, "a", &addr);
}

static void
send_new_in6(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_inbound(true, "a", "va");

    many(E2E_B6, E2E_A6, "a", &addr);
}

/* Smaller and larger than the MTU, up to the largest: 65,535 bytes, over IPv6 behind the header. */
static void
sizes(const char *src, const char *dst, const WINDIVERT_ADDRESS *addr, const char *receiver_ns)
{
    const unsigned list[] = {0, 1, 1400, 1472, 1473, 3000, 20000, 65507, addr->IPv6 ? 65527 : 65506};
    static uint8_t packet[E2E_PACKET_MAX];
    int rx = e2e_udp_receiver(receiver_ns, dst, PORT);
    HANDLE h = e2e_open("false", 0, 0);

    for (uint32_t i = 0; i < sizeof(list) / sizeof(*list); i++) {
        UINT len = make_numbered(packet, src, dst, list[i], i), sent;

        CHECK(WinDivertSend(h, packet, len, &sent, addr), "%u bytes of payload: error %u: %s", list[i],
              (unsigned)GetLastError(), WinDivertExtGetLastErrorText());
        expect_numbered(rx, list[i], i);
    }
    CHECK_API(WinDivertClose(h));
    CHECK(e2e_drain(rx) == 0, "more arrived than was sent");
}

static void
send_sizes_out4(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);

    sizes(E2E_A4, E2E_B4, &addr, "b");
}

static void
send_sizes_out6(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_outbound(true);

    sizes(E2E_A6, E2E_B6, &addr, "b");
}

static void
send_sizes_in4(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "a", "va");

    sizes(E2E_B4, E2E_A4, &addr, "a");
}

static void
send_sizes_in6(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_inbound(true, "a", "va");

    sizes(E2E_B6, E2E_A6, &addr, "a");
}

static void
send_sizes_forward(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "b", "vb");

    e2e_enter("b");
    addr.Layer = WINDIVERT_LAYER_NETWORK_FORWARD;
    sizes(E2E_A4, E2E_C4, &addr, "c");
}

/* Many at once: what cannot be taken makes Send wait, nothing is lost on the way. */
static void
burst(const char *src, const char *dst, const WINDIVERT_ADDRESS *addr, const char *receiver_ns)
{
    static uint8_t packet[2048];
    int rx = e2e_udp_receiver(receiver_ns, dst, PORT);
    HANDLE h = e2e_open("false", 0, 0);

    e2e_stay_on_cpu();
    for (uint32_t i = 0; i < BURST; i++) {
        UINT len = make_numbered(packet, src, dst, 300, i);

        e2e_send_packet(h, packet, len, addr);
    }
    for (uint32_t i = 0; i < BURST; i++)
        expect_numbered(rx, 300, i);
    CHECK_API(WinDivertClose(h));
    CHECK(e2e_drain(rx) == 0, "more arrived than was sent");
}

static void
send_burst_in(void)
{
    WINDIVERT_ADDRESS addr4 = e2e_new_inbound(false, "a", "va"), addr6 = e2e_new_inbound(true, "a", "va");

    burst(E2E_B4, E2E_A4, &addr4, "a");
    burst(E2E_B6, E2E_A6, &addr6, "a");
}

static void
send_burst_out(void)
{
    WINDIVERT_ADDRESS addr4 = e2e_new_outbound(false), addr6 = e2e_new_outbound(true);

    burst(E2E_A4, E2E_B4, &addr4, "b");
    burst(E2E_A6, E2E_B6, &addr6, "b");
}

/* A diverted datagram sent back twice: the first is the return, the second a new packet. */
static void
copies(const char *handle_ns, const char *ip, size_t size)
{
    static uint8_t packet[E2E_PACKET_MAX];
    int rx = e2e_udp_receiver("b", ip, PORT), tx = e2e_udp_sender("a", ip, PORT, 0);
    WINDIVERT_ADDRESS addr;
    HANDLE h;
    UINT len;

    e2e_enter(handle_ns);
    h = e2e_open("udp", 0, 0);
    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    CHECK(e2e_send(tx, size, 3), "send");
    len = e2e_recv_packet(h, packet, &addr);
    e2e_send_packet(h, packet, len, &addr);
    expect_numbered(rx, size, 3);
    e2e_send_packet(h, packet, len, &addr);
    expect_numbered(rx, size, 3);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
send_copy_in(void)
{
    copies("b", E2E_B4, 64);
}

static void
send_copy_larger_than_mtu4(void)
{
    copies("a", E2E_B4, 4000);
}

static void
send_copy_larger_than_mtu6(void)
{
    copies("a", E2E_B6, 4000);
}

/*
 * Each packet of a connection goes on twice: as it was, and as a new one.  The
 * copies of aggregates are larger than the MTU and leave in segments.
 */
static bool
twice(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    WINDIVERT_ADDRESS copy = *addr;

    if (*len > 1500)
        atomic_fetch_add((_Atomic unsigned *)p->arg, 1);
    memset(&copy.Reserved2, 0, sizeof(copy.Reserved2));
    memset((char *)&copy.Network + sizeof(copy.Network), 0,
           sizeof(copy) - offsetof(WINDIVERT_ADDRESS, Network) - sizeof(copy.Network));
    CHECK_API(WinDivertSend(p->handle, packet, *len, NULL, &copy));
    return true;
}

static void
copies_of_aggregates(const char *ip)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = "b", .server_ip = ip, .port = 5001, .streams = 1, .bytes = 2 << 20};
    _Atomic unsigned aggregates = 0;
    struct e2e_passer p = {.batch = 1, .edit = twice, .arg = &aggregates};
    WINDIVERT_EXT_STATS s;

    p.handle = e2e_open("outbound and tcp", 0, 0);
    e2e_pass_start(&p);
    e2e_tcp_run(&t);
    s = e2e_stats(p.handle);
    e2e_pass_stop(&p);
    CHECK(aggregates > 5, "%u aggregates", aggregates);
    CHECK(s.Injected > 0 && s.Injected >= s.Returned - 1, "%llu injected, %llu returned",
          (unsigned long long)s.Injected, (unsigned long long)s.Returned);
}

static void
send_aggregates_again4(void)
{
    copies_of_aggregates(E2E_B4);
}

static void
send_aggregates_again6(void)
{
    copies_of_aggregates(E2E_B6);
}

const struct e2e_test e2e_send_tests[] = {
    {"send_new_out4", send_new_out4, 0},
    {"send_new_out6", send_new_out6, 0},
    {"send_new_out_foreign_source", send_new_out_foreign_source, 0},
    {"send_new_in4", send_new_in4, 0},
    {"send_new_in6", send_new_in6, 0},
    {"send_sizes_out4", send_sizes_out4, 0},
    {"send_sizes_out6", send_sizes_out6, 0},
    {"send_sizes_in4", send_sizes_in4, 0},
    {"send_sizes_in6", send_sizes_in6, 0},
    {"send_sizes_forward", send_sizes_forward, 0},
    {"send_burst_in", send_burst_in, 0},
    {"send_burst_out", send_burst_out, 0},
    {"send_copy_in", send_copy_in, 0},
    {"send_copy_larger_than_mtu4", send_copy_larger_than_mtu4, 0},
    {"send_copy_larger_than_mtu6", send_copy_larger_than_mtu6, 0},
    {"send_aggregates_again4", send_aggregates_again4, 0},
    {"send_aggregates_again6", send_aggregates_again6, 0},
    {NULL, NULL, 0},
};
