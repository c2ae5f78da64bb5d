/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * What is injected is to the rest of the machine what it would be without
 * OpenDivert: on its interface, under its routes, in its rules, once.
 */
#include "e2e.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define COUNT 100

/* Hop limit of the packet. */
static unsigned
hops(const uint8_t *packet)
{
    return packet[*packet >> 4 == 6 ? 7 : 8];
}

static UINT
make(uint8_t *packet, const char *src, const char *dst)
{
    UINT len = e2e_make_udp(packet, src, 4000, dst, PORT, "some text", 9);

    e2e_fill_sums(packet);
    return len;
}

static void
inject(HANDLE h, const char *src, const char *dst, const WINDIVERT_ADDRESS *addr, unsigned count)
{
    uint8_t packet[128];
    UINT len = make(packet, src, dst);

    for (unsigned i = 0; i < count; i++)
        e2e_send_packet(h, packet, len, addr);
}

static void
expect_arrived(int rx, unsigned count)
{
    uint8_t buf[64];

    for (unsigned i = 0; i < count; i++)
        CHECK(e2e_receive(rx, buf, sizeof(buf), 2000) == 9, "%u of %u arrived", i, count);
    CHECK(e2e_drain(rx) == 0, "more than %u arrived", count);
}

/* ---- The user's rules ---------------------------------------------------- */

#define HOOKS_MAX 4
#define PRIORITIES 4

/* Counters c0, c1, ... of all hooks at all priorities. */
static void
count_at(const char *ns, const char *const *hooks, const char *match)
{
    static const int priorities[PRIORITIES] = {-300, -200, 0, 100};
    char body[1900];
    int at = 0;

    for (unsigned i = 0; hooks[i / PRIORITIES]; i++)
        at += snprintf(body + at, sizeof(body) - (size_t)at,
                       "counter c%u { }; chain h%u { type filter hook %s priority %d; %s counter name c%u; }; ", i, i,
                       hooks[i / PRIORITIES], priorities[i % PRIORITIES], match, i);
    e2e_set_table(ns, body);
}

static void
expect_counted(const char *ns, const char *const *hooks, unsigned want)
{
    for (unsigned i = 0; hooks[i / PRIORITIES]; i++) {
        char name[16];
        uint64_t n;

        snprintf(name, sizeof(name), "c%u", i);
        n = e2e_nft_counter(ns, name);
        CHECK(n == want, "%s, rule %u: %llu packets, expected %u", hooks[i / PRIORITIES], i % PRIORITIES,
              (unsigned long long)n, want);
    }
    e2e_delete_table(ns);
}

static void
counted_in(bool v6)
{
    static const char *const hooks[] = {"prerouting", "input", NULL};
    const char *here = v6 ? E2E_A6 : E2E_A4, *peer = v6 ? E2E_B6 : E2E_B4;
    WINDIVERT_ADDRESS addr = e2e_new_inbound(v6, "a", "va");
    int rx = e2e_udp_receiver("a", here, PORT), capture = e2e_capture("a", "va"), on_lo = e2e_capture("a", "lo");
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, 0);
    static uint8_t buf[E2E_PACKET_MAX];
    uint16_t port = PORT;

    count_at("a", hooks, "iifname va udp dport 5001");
    inject(h, peer, here, &addr, COUNT);
    expect_arrived(rx, COUNT);
    expect_counted("a", hooks, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        CHECK(e2e_captured(capture, buf, 1000, e2e_is_udp_to, &port) && hops(buf) == 64,
              "%u of %u captured on the interface as they were", i, COUNT);
    CHECK(!e2e_captured(capture, buf, 10, e2e_is_udp_to, &port), "captured more than once");
    CHECK(!e2e_captured(on_lo, buf, 10, e2e_is_udp_to, &port), "seen on lo");
    CHECK_API(WinDivertClose(h));
    close(rx);
    close(capture);
    close(on_lo);
}

static void
arrival_counted_in(void)
{
    counted_in(false);
    counted_in(true);
}

static void
counted_out(bool v6)
{
    static const char *const hooks[] = {"output", "postrouting", NULL};
    const char *here = v6 ? E2E_A6 : E2E_A4, *peer = v6 ? E2E_B6 : E2E_B4;
    WINDIVERT_ADDRESS addr = e2e_new_outbound(v6);
    int rx = e2e_udp_receiver("b", peer, PORT);
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, 0);

    count_at("a", hooks, "oifname va udp dport 5001");
    inject(h, here, peer, &addr, COUNT);
    expect_arrived(rx, COUNT);
    expect_counted("a", hooks, COUNT);
    CHECK_API(WinDivertClose(h));
    close(rx);
}

static void
arrival_counted_out(void)
{
    counted_out(false);
    counted_out(true);
}

static void
counted_forward(bool v6)
{
    static const char *const hooks[] = {"prerouting", "forward", "postrouting", NULL};
    const char *from = v6 ? E2E_A6 : E2E_A4, *to = v6 ? E2E_C6 : E2E_C4;
    WINDIVERT_ADDRESS addr = e2e_new_inbound(v6, "b", "vb");
    int rx = e2e_udp_receiver("c", to, PORT), capture = e2e_capture("c", "vc");
    static uint8_t buf[E2E_PACKET_MAX];
    uint16_t port = PORT;
    HANDLE h;

    e2e_enter("b");
    addr.Layer = WINDIVERT_LAYER_NETWORK_FORWARD;
    h = e2e_open_at(WINDIVERT_LAYER_NETWORK_FORWARD, "udp.DstPort == 5001", 0, 0);
    count_at("b", hooks, "udp dport 5001");
    inject(h, from, to, &addr, COUNT);
    expect_arrived(rx, COUNT);
    expect_counted("b", hooks, COUNT);
    CHECK(e2e_captured(capture, buf, 1000, e2e_is_udp_to, &port) && hops(buf) == 64, "hop limit %u", hops(buf));
    CHECK_API(WinDivertClose(h));
    close(rx);
    close(capture);
}

static void
arrival_counted_forward(void)
{
    counted_forward(false);
    counted_forward(true);
}

/* conntrack knows it as a packet of its interface: the socket's answer is part of the connection. */
static void
tracked(bool v6)
{
    const char *here = v6 ? E2E_A6 : E2E_A4, *peer = v6 ? E2E_B6 : E2E_B4;
    WINDIVERT_ADDRESS addr = e2e_new_inbound(v6, "a", "va");
    int rx = e2e_udp_receiver("a", here, PORT), answered = e2e_udp_receiver("b", peer, 4000);
    HANDLE h = e2e_open("false", 0, 0);
    struct sockaddr_storage to;
    socklen_t to_len = e2e_sockaddr(peer, 4000, &to);

    e2e_set_table("a", "counter new { }; counter answer { }; "
                       "chain i { type filter hook input priority 0; policy drop; iifname va ct state new "
                       "udp dport 5001 counter name new accept; }; "
                       "chain o { type filter hook output priority 0; policy drop; oifname va ct state established "
                       "udp dport 4000 counter name answer accept; }; ");
    inject(h, peer, here, &addr, 1);
    expect_arrived(rx, 1);
    CHECK(sendto(rx, "some text", 9, 0, (struct sockaddr *)&to, to_len) == 9, "answer: %s", strerror(errno));
    expect_arrived(answered, 1);
    CHECK(e2e_nft_counter("a", "new") == 1 && e2e_nft_counter("a", "answer") == 1, "not counted as one connection");
    e2e_delete_table("a");
    CHECK_API(WinDivertClose(h));
    close(rx);
    close(answered);
}

static void
arrival_tracked(void)
{
    tracked(false);
    tracked(true);
}

/* ---- The user's routes --------------------------------------------------- */

/* Strict reverse path filter: a source that is behind the interface passes, another does not. */
static void
arrival_reverse_path(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "a", "va");
    int rx = e2e_udp_receiver("a", E2E_A4, PORT);
    HANDLE h = e2e_open("false", 0, 0);
    uint64_t before;

    free(e2e_shell("a", "sysctl -qw net.ipv4.conf.va.rp_filter=1; ip link add other type veth peer name other2; "
                        "ip link set other up; ip route add 10.90.0.0/24 dev other"));
    before = e2e_snmp("a", "TcpExt", "IPReversePathFilter");
    inject(h, E2E_B4, E2E_A4, &addr, COUNT);
    expect_arrived(rx, COUNT);
    CHECK(e2e_snmp("a", "TcpExt", "IPReversePathFilter") == before, "filtered");
    inject(h, "10.90.0.5", E2E_A4, &addr, COUNT);
    WAIT_UNTIL(e2e_snmp("a", "TcpExt", "IPReversePathFilter") == before + COUNT, 2000, "%llu of %u were filtered",
               (unsigned long long)(e2e_snmp("a", "TcpExt", "IPReversePathFilter") - before), COUNT);
    CHECK(e2e_drain(rx) == 0, "what should be filtered arrived");
    free(e2e_shell("a", "sysctl -qw net.ipv4.conf.va.rp_filter=0; ip link del other"));
    CHECK_API(WinDivertClose(h));
}

/* Policy routing by source address: each new packet leaves by the interface that its source has. */
static void
routed_by_source(bool v6, const char *to, const char *by_va, const char *by_vc)
{
    WINDIVERT_ADDRESS addr = e2e_new_outbound(v6);
    int on_a = e2e_capture("a", "va"), on_c = e2e_capture("c", "vc");
    static uint8_t buf[E2E_PACKET_MAX];
    uint16_t port = PORT;
    HANDLE h;

    e2e_enter("b");
    h = e2e_open("false", 0, 0);
    inject(h, by_va, to, &addr, 1);
    CHECK(e2e_captured(on_a, buf, 1000, e2e_is_udp_to, &port), "from %s: not on the main route", by_va);
    inject(h, by_vc, to, &addr, 1);
    CHECK(e2e_captured(on_c, buf, 1000, e2e_is_udp_to, &port), "from %s: not on the route of its source", by_vc);
    CHECK(!e2e_captured(on_a, buf, 20, e2e_is_udp_to, &port), "on the main route as well");
    CHECK_API(WinDivertClose(h));
    close(on_a);
    close(on_c);
}

static void
arrival_policy_routing(void)
{
    free(e2e_shell("b", "ip rule add from 10.99.0.7 lookup 99; ip -6 rule add from fd99::7 lookup 99; "
                        "ip route add 10.99.1.0/24 via 10.77.0.1; ip -6 route add fd99:1::/64 via fd77::1; "
                        "ip route add 10.99.1.0/24 via 10.78.0.2 table 99; "
                        "ip -6 route add fd99:1::/64 via fd78::2 table 99"));
    routed_by_source(false, "10.99.1.1", E2E_B4, "10.99.0.7");
    routed_by_source(true, "fd99:1::1", E2E_B6, "fd99::7");
    free(e2e_shell("b", "ip rule del from 10.99.0.7 lookup 99; ip -6 rule del from fd99::7 lookup 99; "
                        "ip route del 10.99.1.0/24; ip -6 route del fd99:1::/64; "
                        "ip route flush table 99; ip -6 route flush table 99"));
}

/* A forwarded packet that is sent back to another place is routed there: from a, meant for c, to a again. */
static bool
back_to_a(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    if (v.v6)
        CHECK(inet_pton(AF_INET6, E2E_A6, packet + 24) == 1 && inet_pton(AF_INET6, E2E_C6, packet + 8) == 1, "v6");
    else
        CHECK(inet_pton(AF_INET, E2E_A4, packet + 16) == 1 && inet_pton(AF_INET, E2E_C4, packet + 12) == 1, "v4");
    e2e_fill_sums(packet);
    addr->Network.IfIdx = *(unsigned *)p->arg;
    return true;
}

static void
forwarded_elsewhere(const char *meant, const char *really, unsigned ifindex)
{
    struct e2e_pump pump = {.count = COUNT, .size = e2e_size_unfragmented};
    struct e2e_passer p = {.batch = 1, .edit = back_to_a, .arg = &ifindex};
    int stray = e2e_udp_receiver("c", meant, PORT);

    pump.rx = e2e_udp_receiver("a", really, PORT);
    pump.tx = e2e_udp_sender("a", meant, PORT, 0);
    p.handle = e2e_open_at(WINDIVERT_LAYER_NETWORK_FORWARD, "udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    CHECK(p.received == COUNT, "received %llu of %u", (unsigned long long)p.received, COUNT);
    CHECK(e2e_drain(stray) == 0, "the old destination got something");
    close(pump.rx);
    close(pump.tx);
    close(stray);
}

static void
arrival_forward_elsewhere(void)
{
    e2e_enter("b");
    forwarded_elsewhere(E2E_C4, E2E_A4, e2e_ifindex("b", "vbc"));
    forwarded_elsewhere(E2E_C6, E2E_A6, e2e_ifindex("b", "vbc"));
    forwarded_elsewhere(E2E_C4, E2E_A4, e2e_ifindex("b", "vb"));
}

/* ---- Devices and addresses of other kinds -------------------------------- */

/* A device x0 with addresses of its own, made by a command, takes packets in as one with hardware addresses does. */
static void
on_device(const char *make_it)
{
    static const char *const here[] = {"10.92.0.1", "fd92::1"}, *const peer[] = {"10.92.0.2", "fd92::2"};
    HANDLE h, below;

    free(e2e_shell("a",
                   "%s && ip addr add 10.92.0.1/24 dev x0 && ip addr add fd92::1/64 dev x0 nodad && "
                   "ip link set x0 up",
                   make_it));
    h = e2e_open("udp", 1, WINDIVERT_FLAG_SEND_ONLY);
    below = e2e_open("inbound and udp.DstPort == 5001", 0, 0);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        int rx = e2e_udp_receiver("a", here[v6], PORT);
        WINDIVERT_ADDRESS addr = e2e_new_inbound(v6, "a", "x0"), seen;
        static uint8_t buf[E2E_PACKET_MAX];

        for (unsigned i = 0; i < COUNT; i++) {
            UINT len;

            inject(h, peer[v6], here[v6], &addr, 1);
            len = e2e_recv_packet(below, buf, &seen);
            CHECK(seen.Network.IfIdx == addr.Network.IfIdx, "seen on interface %u", seen.Network.IfIdx);
            e2e_send_packet(below, buf, len, &seen);
        }
        expect_arrived(rx, COUNT);
        close(rx);
    }
    CHECK_API(WinDivertClose(h));
    CHECK_API(WinDivertClose(below));
    free(e2e_shell("a", "ip link del x0; ip link del p0 2>/dev/null || true"));
}

static void
arrival_tun(void)
{
    on_device("ip tuntap add dev x0 mode tun");
}

static void
arrival_bridge(void)
{
    on_device("ip link add x0 type bridge");
}

static void
arrival_macvlan(void)
{
    on_device("ip link add p0 type veth peer name p1 && ip link set p0 up && ip link set p1 up && "
              "ip link add link p0 name x0 type macvlan");
}

static void
join(int fd, const char *group4, const char *group6, unsigned ifindex)
{
    struct ip_mreqn m4 = {.imr_ifindex = (int)ifindex};
    struct ipv6_mreq m6 = {.ipv6mr_interface = ifindex};

    if (group4) {
        inet_pton(AF_INET, group4, &m4.imr_multiaddr);
        CHECK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m4, sizeof(m4)) == 0, "join: %s", strerror(errno));
    } else {
        inet_pton(AF_INET6, group6, &m6.ipv6mr_multiaddr);
        CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m6, sizeof(m6)) == 0, "join: %s", strerror(errno));
    }
}

/* To a group, to everybody on the link, and between addresses of the link: out by the interface of the address. */
static void
arrival_multicast(void)
{
    static const struct {
        const char *from, *to, *any;
    } cases[] = {
        {E2E_A4, "224.0.0.77", "0.0.0.0"},  {E2E_A4, "239.1.2.3", "0.0.0.0"}, {E2E_A4, "255.255.255.255", "0.0.0.0"},
        {E2E_A4, "10.77.0.255", "0.0.0.0"}, {E2E_A6, "ff02::77", "::"},       {"fe80::a", "ff02::77", "::"},
        {"fe80::a", "fe80::b", "::"},
    };

    free(e2e_shell("a", "ip addr add fe80::a/64 dev va nodad && ip addr add 10.77.0.1/24 brd + dev va 2>/dev/null; "
                        "ip neigh replace fe80::b dev va lladdr 02:77:00:00:00:02 nud permanent"));
    free(e2e_shell("b", "ip addr add fe80::b/64 dev vb nodad; ip addr del 10.77.0.2/24 dev vb; "
                        "ip addr add 10.77.0.2/24 brd + dev vb; "
                        "ip neigh replace 10.77.0.1 dev vb lladdr 02:77:00:00:00:01 nud permanent"));
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        bool v6 = strchr(cases[i].from, ':');
        int rx = e2e_udp_receiver("b", cases[i].any, PORT);
        WINDIVERT_ADDRESS addr = e2e_new_outbound(v6);
        HANDLE h = e2e_open("false", 0, 0);

        addr.Network.IfIdx = e2e_ifindex("a", "va");
        if (!strncmp(cases[i].to, "224", 3) || !strncmp(cases[i].to, "239", 3) || !strncmp(cases[i].to, "ff", 2))
            join(rx, v6 ? NULL : cases[i].to, cases[i].to, e2e_ifindex("b", "vb"));
        inject(h, cases[i].from, cases[i].to, &addr, 1);
        expect_arrived(rx, 1);
        CHECK_API(WinDivertClose(h));
        close(rx);
    }
    free(e2e_shell("a", "ip addr del fe80::a/64 dev va"));
    free(e2e_shell("b", "ip addr del fe80::b/64 dev vb"));
}

/* ---- Not silently -------------------------------------------------------- */

static void
refuse(HANDLE h, const char *src, const char *dst, const WINDIVERT_ADDRESS *addr, DWORD code)
{
    uint8_t packet[128];
    UINT len = make(packet, src, dst), sent = 77;

    CHECK_ERROR(WinDivertSend(h, packet, len, &sent, addr), code);
    CHECK(sent == 77, "pSendLen was written");
}

static void
refused_in(bool v6, WINDIVERT_LAYER layer)
{
    const char *src = v6 ? E2E_B6 : E2E_B4, *dst = v6 ? E2E_A6 : E2E_A4;
    WINDIVERT_ADDRESS addr = e2e_new_inbound(v6, "a", "down0");
    HANDLE h = e2e_open_at(layer, "false", 0, 0);

    addr.Layer = layer;
    refuse(h, src, dst, &addr, ERROR_GEN_FAILURE);
    addr.Network.IfIdx = 4242;
    refuse(h, src, dst, &addr, ERROR_INVALID_PARAMETER);
    addr.Network.IfIdx = 0;
    refuse(h, src, dst, &addr, ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertClose(h));
}

static void
refused_out(bool v6)
{
    const char *src = v6 ? E2E_A6 : E2E_A4, *group = v6 ? "ff02::77" : "224.0.0.77";
    WINDIVERT_ADDRESS addr = e2e_new_outbound(v6);
    HANDLE h = e2e_open("false", 0, 0);

    refuse(h, src, v6 ? "fd55::1" : "10.55.0.1", &addr, ERROR_NETWORK_UNREACHABLE);
    refuse(h, src, v6 ? "fd91::2" : "10.91.0.2", &addr, ERROR_NETWORK_UNREACHABLE); /* behind down0 */
    if (v6)
        refuse(h, src, "fe80::77", &addr, ERROR_INVALID_PARAMETER);
    CHECK(!v6 || strstr(WinDivertExtGetLastErrorRemedy(), "IfIdx"), "remedy: %s", WinDivertExtGetLastErrorRemedy());
    addr.Network.IfIdx = e2e_ifindex("a", "down0");
    refuse(h, src, group, &addr, ERROR_NETWORK_UNREACHABLE);
    addr.Network.IfIdx = 4242;
    refuse(h, src, group, &addr, ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertClose(h));
}

static void
arrival_refused(void)
{
    free(e2e_shell("a", "ip link add down0 type veth peer name down1; ip addr add 10.91.0.1/24 dev down0; "
                        "ip addr add fd91::1/64 dev down0 nodad"));
    for (unsigned v6 = 0; v6 < 2; v6++) {
        refused_in(v6, WINDIVERT_LAYER_NETWORK);
        refused_in(v6, WINDIVERT_LAYER_NETWORK_FORWARD);
        refused_out(v6);
    }
    free(e2e_shell("a", "ip link del down0"));
}

/* Inbound packets take their way through lo; where it is down they find another. */
static void
arrival_lo_down(void)
{
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "a", "va");
    int rx = e2e_udp_receiver("a", E2E_A4, PORT);
    HANDLE h = e2e_open("false", 0, 0);

    inject(h, E2E_B4, E2E_A4, &addr, 1);
    expect_arrived(rx, 1);
    free(e2e_shell("a", "ip link set lo down"));
    inject(h, E2E_B4, E2E_A4, &addr, 1);
    expect_arrived(rx, 1);
    free(e2e_shell("a", "ip link set lo up"));
    inject(h, E2E_B4, E2E_A4, &addr, 1);
    expect_arrived(rx, 1);
    CHECK_API(WinDivertClose(h));
}

const struct e2e_test e2e_arrival_tests[] = {
    {"arrival_counted_in", arrival_counted_in, 0},
    {"arrival_counted_out", arrival_counted_out, 0},
    {"arrival_counted_forward", arrival_counted_forward, 0},
    {"arrival_tracked", arrival_tracked, 0},
    {"arrival_reverse_path", arrival_reverse_path, 0},
    {"arrival_policy_routing", arrival_policy_routing, 0},
    {"arrival_forward_elsewhere", arrival_forward_elsewhere, 0},
    {"arrival_tun", arrival_tun, 0},
    {"arrival_bridge", arrival_bridge, 0},
    {"arrival_macvlan", arrival_macvlan, 0},
    {"arrival_multicast", arrival_multicast, 0},
    {"arrival_refused", arrival_refused, 0},
    {"arrival_lo_down", arrival_lo_down, 0},
    {NULL, NULL, 0},
};
