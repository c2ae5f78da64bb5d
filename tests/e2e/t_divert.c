/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Everything goes through the program and comes out as it went in. */
#include "e2e.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DATAGRAMS 10000
#define PORT 5001

/* a sends to b; the handle is in `handle_ns`: outbound in a, inbound in b */
static void
udp_through(const char *handle_ns, const char *filter, const char *ip, unsigned batch)
{
    struct e2e_pump pump = {.count = DATAGRAMS, .size = e2e_size_mixed};
    struct e2e_passer p = {.batch = batch};
    WINDIVERT_EXT_STATS stats;

    pump.rx = e2e_udp_receiver("b", ip, PORT);
    pump.tx = e2e_udp_sender("a", ip, PORT, 0);
    e2e_enter(handle_ns);
    p.handle = e2e_open(filter, 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    stats = e2e_stats(p.handle);
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
    CHECK(p.received == DATAGRAMS, "%llu packets received for %u datagrams", (unsigned long long)p.received,
          DATAGRAMS);
    CHECK(p.received == p.sent && stats.Returned == p.sent && stats.Injected == 0,
          "received %llu, sent %llu, of which returned %llu and injected %llu", (unsigned long long)p.received,
          (unsigned long long)p.sent, (unsigned long long)stats.Returned, (unsigned long long)stats.Injected);
    CHECK(stats.NotReturned == 0, "%llu not returned", (unsigned long long)stats.NotReturned);
}

static void
divert_udp4_out(void)
{
    udp_through("a", "outbound and udp.DstPort == 5001", E2E_B4, 1);
}

static void
divert_udp6_out(void)
{
    udp_through("a", "outbound and udp.DstPort == 5001", E2E_B6, 1);
}

static void
divert_udp4_in(void)
{
    udp_through("b", "inbound and udp.DstPort == 5001", E2E_B4, 1);
}

static void
divert_udp6_in(void)
{
    udp_through("b", "inbound and udp.DstPort == 5001", E2E_B6, 1);
}

static void
divert_udp4_out_batch(void)
{
    udp_through("a", "true", E2E_B4, 64);
}

static void
divert_udp6_out_batch(void)
{
    udp_through("a", "true", E2E_B6, 64);
}

static void
divert_udp4_in_batch(void)
{
    udp_through("b", "true", E2E_B4, 255);
}

static void
divert_udp6_in_batch(void)
{
    udp_through("b", "udp", E2E_B6, 255);
}

/* The order of one flow is kept by a program that keeps it. */
static void
keeps_order(const char *handle_ns, unsigned batch)
{
    struct e2e_pump pump = {.count = DATAGRAMS, .size = e2e_size_unfragmented, .ordered = true};
    struct e2e_passer p = {.batch = batch, .pin = true};

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    e2e_enter(handle_ns);
    p.handle = e2e_open("udp", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
    CHECK(p.received == DATAGRAMS, "%llu packets received, expected %u", (unsigned long long)p.received, DATAGRAMS);
}

static void
divert_order_out(void)
{
    keeps_order("a", 1);
}

static void
divert_order_out_batch(void)
{
    keeps_order("a", 255);
}

/* The client is in a; the handle sees the connections from `handle_ns`, both directions of each. */
static uint64_t
tcp_through(const char *handle_ns, const char *ip, unsigned batch, const char *filter)
{
    struct e2e_tcp tcp = {"a", "b", ip, PORT, 32, 1 << 20, 0};
    struct e2e_passer p = {.batch = batch};

    e2e_enter(handle_ns);
    p.handle = e2e_open(filter, 0, 0);
    e2e_pass_start(&p);
    e2e_tcp_run(&tcp);
    e2e_pass_stop(&p);
    CHECK(p.received > 64 * 3, "only %llu packets were diverted", (unsigned long long)p.received);
    return p.max_len;
}

static void
divert_tcp4_client(void)
{
    tcp_through("a", E2E_B4, 1, "tcp");
}

static void
divert_tcp4_server(void)
{
    tcp_through("b", E2E_B4, 64, "tcp");
}

static void
divert_tcp6_client(void)
{
    tcp_through("a", E2E_B6, 64, "tcp");
}

static void
divert_tcp6_server(void)
{
    tcp_through("b", E2E_B6, 1, "tcp");
}

static void
divert_tcp4_outbound_only(void)
{
    tcp_through("a", E2E_B4, 1, "outbound and tcp.DstPort == 5001");
}

static void
divert_tcp4_inbound_only(void)
{
    tcp_through("a", E2E_B4, 1, "inbound and tcp.SrcPort == 5001");
}

/* Segmentation offload: aggregates come as one packet and go back without breaking the connection. */
static void
divert_aggregates(void)
{
    uint64_t longest = tcp_through("a", E2E_B4, 1, "tcp");

    CHECK(longest > 1500, "the longest packet had %llu bytes: no aggregate was diverted",
          (unsigned long long)longest);
}

struct other_side {
    _Atomic int ready, end;
};

static void
pass_in_other_process(void *arg)
{
    struct other_side *side = arg;
    struct e2e_passer p = {.batch = 16};

    p.handle = e2e_open("tcp or udp", 0, 0);
    e2e_pass_start(&p);
    side->ready = 1;
    WAIT_UNTIL(side->end, 25000, "never told to end");
    e2e_pass_stop(&p);
}

/* Handles in two namespaces, two processes: each packet goes through both. */
static void
divert_both_ends(void)
{
    struct other_side *side = e2e_shared(sizeof(*side));
    pid_t pid = e2e_spawn("b", pass_in_other_process, side);

    WAIT_UNTIL(side->ready, 5000, "no handle in b");
    tcp_through("a", E2E_B4, 16, "tcp");
    side->end = 1;
    e2e_join(pid);
}

/* Several threads receive and send on one handle. */
static void
divert_four_threads(void)
{
    struct e2e_pump pump = {.count = DATAGRAMS, .size = e2e_size_mixed};
    struct e2e_passer p[4] = {{.batch = 1}, {.batch = 8}, {.batch = 1}, {.batch = 64}};
    uint64_t received = 0;

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    p[0].handle = e2e_open("udp", 0, 0);
    for (unsigned i = 0; i < 4; i++) {
        p[i].handle = p[0].handle;
        e2e_pass_start(&p[i]);
    }
    e2e_udp_pump(&pump);
    CHECK_API(WinDivertShutdown(p[0].handle, WINDIVERT_SHUTDOWN_RECV));
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(p[i].thread, NULL);
        CHECK(p[i].end_error == ERROR_NO_DATA, "thread %u ended with error %u", i, p[i].end_error);
        received += p[i].received;
    }
    CHECK_API(WinDivertClose(p[0].handle));
    e2e_marker(pump.tx, pump.rx);
    CHECK(received == DATAGRAMS, "%llu packets received, expected %u", (unsigned long long)received, DATAGRAMS);
}

/* What the address says about a packet that goes out and one that comes in. */
static void
check_address(const char *handle_ns, const char *ifname, const char *ip, bool outbound)
{
    uint8_t buf[E2E_PACKET_MAX];
    unsigned ifindex = e2e_ifindex(handle_ns, ifname);
    int rx = e2e_udp_receiver("b", ip, PORT), tx = e2e_udp_sender("a", ip, PORT, 0);
    int64_t before, after;
    WINDIVERT_ADDRESS addr;
    HANDLE h;

    e2e_enter(handle_ns);
    h = e2e_open("udp", 0, 0);
    before = e2e_now_us() * 10;
    CHECK(e2e_send(tx, 64, 1), "send");
    e2e_recv_packet(h, buf, &addr);
    after = e2e_now_us() * 10 + 10;
    CHECK(addr.Timestamp >= before && addr.Timestamp <= after, "Timestamp %lld is not within %lld..%lld",
          (long long)addr.Timestamp, (long long)before, (long long)after);
    CHECK(addr.Layer == WINDIVERT_LAYER_NETWORK && addr.Event == WINDIVERT_EVENT_NETWORK_PACKET, "layer %u event %u",
          addr.Layer, addr.Event);
    CHECK(addr.Outbound == outbound && !addr.Sniffed && !addr.Loopback && !addr.Impostor,
          "outbound %u, sniffed %u, loopback %u, impostor %u", addr.Outbound, addr.Sniffed, addr.Loopback,
          addr.Impostor);
    CHECK(addr.IPv6 == (buf[0] >> 4 == 6) && addr.Reserved1 == 0, "IPv6 %u Reserved1 %u", addr.IPv6, addr.Reserved1);
    CHECK(addr.Network.IfIdx == ifindex && addr.Network.SubIfIdx == 0, "interface %u/%u, expected %u/0",
          addr.Network.IfIdx, addr.Network.SubIfIdx, ifindex);
    e2e_send_packet(h, buf, 28 + 64 + (addr.IPv6 ? 20 : 0), &addr);
    CHECK(e2e_receive(rx, buf, sizeof(buf), 2000) == 64, "the datagram did not arrive");
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
divert_address_out4(void)
{
    check_address("a", "va", E2E_B4, true);
}

static void
divert_address_out6(void)
{
    check_address("a", "va", E2E_B6, true);
}

static void
divert_address_in4(void)
{
    check_address("b", "vb", E2E_B4, false);
}

static void
divert_address_in6(void)
{
    check_address("b", "vb", E2E_B6, false);
}

const struct e2e_test e2e_divert_tests[] = {
    {"divert_address_out4", divert_address_out4, 0},
    {"divert_address_out6", divert_address_out6, 0},
    {"divert_address_in4", divert_address_in4, 0},
    {"divert_address_in6", divert_address_in6, 0},
    {"divert_udp4_out", divert_udp4_out, 0},
    {"divert_udp6_out", divert_udp6_out, 0},
    {"divert_udp4_in", divert_udp4_in, 0},
    {"divert_udp6_in", divert_udp6_in, 0},
    {"divert_udp4_out_batch", divert_udp4_out_batch, 0},
    {"divert_udp6_out_batch", divert_udp6_out_batch, 0},
    {"divert_udp4_in_batch", divert_udp4_in_batch, 0},
    {"divert_udp6_in_batch", divert_udp6_in_batch, 0},
    {"divert_order_out", divert_order_out, 0},
    {"divert_order_out_batch", divert_order_out_batch, 0},
    {"divert_tcp4_client", divert_tcp4_client, 60},
    {"divert_tcp4_server", divert_tcp4_server, 60},
    {"divert_tcp6_client", divert_tcp6_client, 60},
    {"divert_tcp6_server", divert_tcp6_server, 60},
    {"divert_tcp4_outbound_only", divert_tcp4_outbound_only, 60},
    {"divert_tcp4_inbound_only", divert_tcp4_inbound_only, 60},
    {"divert_aggregates", divert_aggregates, 60},
    {"divert_both_ends", divert_both_ends, 60},
    {"divert_four_threads", divert_four_threads, 0},
    {NULL, NULL, 0},
};
