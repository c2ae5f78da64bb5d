/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* NETWORK_FORWARD: a sends to c through b, where the handle is. */
#include "e2e.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define FORWARD WINDIVERT_LAYER_NETWORK_FORWARD
#define FILTER "udp.DstPort == 5001"
#define COUNT 2000
#define TTL 64 /* of what a sends; one less behind the router */

/* Every forwarded packet's address. */
static void
check_address(const WINDIVERT_ADDRESS *addr, bool v6, bool sniffed)
{
    CHECK(addr->Layer == FORWARD && addr->Event == WINDIVERT_EVENT_NETWORK_PACKET && addr->Sniffed == sniffed,
          "layer %u, event %u, sniffed %u", addr->Layer, addr->Event, addr->Sniffed);
    CHECK(!addr->Outbound && !addr->Loopback && addr->IPv6 == v6, "outbound %u, loopback %u, IPv6 %u", addr->Outbound,
          addr->Loopback, addr->IPv6);
    CHECK(addr->Network.IfIdx == e2e_ifindex("b", "vb") && addr->Network.SubIfIdx == 0, "interface %u",
          addr->Network.IfIdx);
}

struct expected {
    bool v6, sniffed, mark;
    unsigned addresses; /* looked at */
};

static bool
look(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct expected *e = p->arg;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v) && v.dport == PORT && v.ttl == TTL - 1, "not one of ours, or TTL %u", v.ttl);
    if (e->addresses++ < 20)
        check_address(addr, e->v6, e->sniffed);
    return !e->sniffed;
}

static void
udp_through(const char *ip, unsigned batch, UINT64 flags)
{
    struct expected e = {.v6 = strchr(ip, ':') != NULL, .sniffed = flags & WINDIVERT_FLAG_SNIFF};
    struct e2e_pump pump = {.count = COUNT, .size = e2e_size_unfragmented};
    struct e2e_passer p = {.batch = batch, .edit = look, .arg = &e};

    pump.rx = e2e_udp_receiver("c", ip, PORT);
    pump.tx = e2e_udp_sender("a", ip, PORT, 0);
    e2e_enter("b");
    p.handle = e2e_open_at(FORWARD, FILTER, 0, flags);
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    WAIT_UNTIL(p.received >= COUNT, 3000, "%llu received", (unsigned long long)p.received);
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
    CHECK(p.received == COUNT, "%llu packets received for %u datagrams", (unsigned long long)p.received, COUNT);
}

static void
forward_divert4(void)
{
    udp_through(E2E_C4, 1, 0);
}

static void
forward_divert6(void)
{
    udp_through(E2E_C6, 64, 0);
}

static void
forward_sniff4(void)
{
    udp_through(E2E_C4, 64, WINDIVERT_FLAG_SNIFF);
}

static void
forward_sniff6(void)
{
    udp_through(E2E_C6, 1, WINDIVERT_FLAG_SNIFF);
}

/* What passes through is no packet to or from this machine, and the other way round. */
static void
forward_layers_apart(void)
{
    struct e2e_pump through = {.count = 100}, to = {.count = 100};
    HANDLE network, forward;

    through.rx = e2e_udp_receiver("c", E2E_C4, PORT);
    through.tx = e2e_udp_sender("a", E2E_C4, PORT, 0);
    to.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    to.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    e2e_enter("b");
    network = e2e_open("udp", 0, WINDIVERT_FLAG_SNIFF);
    forward = e2e_open_at(FORWARD, "udp", 0, WINDIVERT_FLAG_SNIFF);
    e2e_udp_pump(&through);
    e2e_udp_pump(&to);
    for (unsigned i = 0; i < 100; i++) {
        uint8_t buf[E2E_PACKET_MAX];
        WINDIVERT_ADDRESS addr;
        struct e2e_view v;

        CHECK(e2e_view(buf, e2e_recv_packet(network, buf, &addr), &v) && buf[19] == 2 && buf[17] == 77,
              "NETWORK saw a packet to %u.%u.%u.%u", buf[16], buf[17], buf[18], buf[19]);
        CHECK(e2e_view(buf, e2e_recv_packet(forward, buf, &addr), &v) && buf[17] == 78,
              "NETWORK_FORWARD saw a packet to %u.%u.%u.%u", buf[16], buf[17], buf[18], buf[19]);
    }
    CHECK_API(WinDivertShutdown(network, WINDIVERT_SHUTDOWN_RECV));
    CHECK_API(WinDivertShutdown(forward, WINDIVERT_SHUTDOWN_RECV));
    CHECK_ERROR(WinDivertRecv(network, NULL, 0, NULL, NULL), ERROR_NO_DATA);
    CHECK_ERROR(WinDivertRecv(forward, NULL, 0, NULL, NULL), ERROR_NO_DATA);
    CHECK_API(WinDivertClose(network));
    CHECK_API(WinDivertClose(forward));
}

static void
drop(const char *ip)
{
    int rx = e2e_udp_receiver("c", ip, PORT), tx = e2e_udp_sender("a", ip, PORT, 0);
    struct e2e_pump other = {.count = 100};
    HANDLE h;

    other.rx = e2e_udp_receiver("c", ip, PORT + 1);
    other.tx = e2e_udp_sender("a", ip, PORT + 1, 0);
    e2e_enter("b");
    h = e2e_open_at(FORWARD, FILTER, 0, WINDIVERT_FLAG_DROP);
    for (uint32_t i = 0; i < 100; i++)
        CHECK(e2e_send(tx, 64, i), "send");
    e2e_udp_pump(&other);
    CHECK(e2e_stats(h).DropFilter == 100, "%llu dropped", (unsigned long long)e2e_stats(h).DropFilter);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
forward_drop4(void)
{
    drop(E2E_C4);
}

static void
forward_drop6(void)
{
    drop(E2E_C6);
}

/* Every byte of the payload inverted, and back in the second handle: checksums are written by the library. */
static void
modify(const char *ip)
{
    struct e2e_pump pump = {.count = COUNT, .size = e2e_size_unfragmented};
    struct e2e_passer p[2] = {{.batch = 1, .edit = e2e_invert}, {.batch = 64, .edit = e2e_invert}};

    pump.rx = e2e_udp_receiver("c", ip, PORT);
    pump.tx = e2e_udp_sender("a", ip, PORT, 0);
    e2e_enter("b");
    for (unsigned i = 0; i < 2; i++) {
        p[i].handle = e2e_open_at(FORWARD, FILTER, (INT16)i, 0);
        e2e_pass_start(&p[i]);
    }
    e2e_udp_pump(&pump);
    for (unsigned i = 0; i < 2; i++) {
        e2e_pass_stop(&p[i]);
        CHECK(p[i].received == COUNT, "handle %u received %llu", i, (unsigned long long)p[i].received);
    }
    e2e_marker(pump.tx, pump.rx);
}

static void
forward_modify4(void)
{
    modify(E2E_C4);
}

static void
forward_modify6(void)
{
    modify(E2E_C6);
}

static void
tcp_through(const char *ip)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = "c", .server_ip = ip, .port = PORT, .streams = 2, .bytes = 4 << 20};
    struct e2e_passer p = {.batch = 64};

    e2e_enter("b");
    p.handle = e2e_open_at(FORWARD, "tcp", 0, 0);
    e2e_pass_start(&p);
    e2e_tcp_run(&t);
    e2e_pass_stop(&p);
    CHECK(p.received > 100 && p.received == p.sent, "%llu received", (unsigned long long)p.received);
}

static void
forward_tcp4(void)
{
    tcp_through(E2E_C4);
}

static void
forward_tcp6(void)
{
    tcp_through(E2E_C6);
}

/* New packets enter the forward path on the interface of the address, and leave with the hop limit they have. */
static void
inject(bool v6)
{
    const char *to = v6 ? E2E_C6 : E2E_C4, *from = v6 ? E2E_A6 : E2E_A4;
    int rx = e2e_udp_receiver("c", to, PORT), on = 1, ttl = 0;
    uint8_t packet[128], buf[128], control[256];
    struct iovec iov = {buf, sizeof(buf)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    UINT len = e2e_make_udp(packet, from, 4000, to, PORT, "through", 7);
    WINDIVERT_ADDRESS addr = e2e_new_inbound(v6, "b", "vb");
    struct pollfd p = {.fd = rx, .events = POLLIN};
    HANDLE h;

    if (v6)
        setsockopt(rx, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof(on));
    else
        setsockopt(rx, IPPROTO_IP, IP_RECVTTL, &on, sizeof(on));
    e2e_enter("b");
    h = e2e_open_at(FORWARD, "false", 0, 0);
    addr.Layer = FORWARD;
    packet[v6 ? 7 : 8] = 33;
    e2e_send_packet(h, packet, len, &addr);
    CHECK(poll(&p, 1, 3000) == 1 && recvmsg(rx, &msg, 0) == 7 && memcmp(buf, "through", 7) == 0, "it did not arrive");
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
        if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
            (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT))
            memcpy(&ttl, CMSG_DATA(c), sizeof(ttl));
    CHECK(ttl == 33, "hop limit %d", ttl);
    CHECK(e2e_stats(h).Injected == 1, "not counted");
    CHECK_API(WinDivertClose(h));
}

static void
forward_inject4(void)
{
    inject(false);
}

static void
forward_inject6(void)
{
    inject(true);
}

/* A second copy is new: handles below see it, as an impostor; the sender and those above do not. */
static void
forward_priorities(void)
{
    static const INT16 priority[] = {10, 0, -10};
    int rx = e2e_udp_receiver("c", E2E_C4, PORT), tx = e2e_udp_sender("a", E2E_C4, PORT, 0);
    static uint8_t buf[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    HANDLE h[3];
    UINT len;

    e2e_enter("b");
    for (unsigned i = 0; i < 3; i++)
        h[i] = e2e_open_at(FORWARD, FILTER, priority[i], 0);
    CHECK(e2e_send(tx, 64, 7), "send");
    len = e2e_recv_packet(h[0], buf, &addr);
    e2e_send_packet(h[0], buf, len, &addr);
    len = e2e_recv_packet(h[1], buf, &addr);
    CHECK(!addr.Impostor, "an impostor");
    e2e_send_packet(h[1], buf, len, &addr);
    e2e_send_packet(h[1], buf, len, &addr); /* the first was the verdict, this one is new */
    for (unsigned i = 0; i < 2; i++) {
        len = e2e_recv_packet(h[2], buf, &addr);
        CHECK(addr.Impostor == i, "copy %u: impostor %u", i, addr.Impostor);
        CHECK(buf[8] == TTL - 1, "copy %u: TTL %u", i, buf[8]);
        addr.Impostor = 0;
        e2e_send_packet(h[2], buf, len, &addr);
    }
    for (unsigned i = 0; i < 2; i++)
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "copy %u did not arrive", i);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_API(WinDivertShutdown(h[i], WINDIVERT_SHUTDOWN_RECV));
        CHECK_ERROR(WinDivertRecv(h[i], buf, sizeof(buf), NULL, NULL), ERROR_NO_DATA);
        CHECK_API(WinDivertClose(h[i]));
    }
    e2e_marker(tx, rx);
}

/* What a router answers itself, it answers before the handle sees it, and for injected packets too. */
static void
forward_mtu_and_hops(void)
{
    int tx = e2e_udp_sender("a", E2E_C4, PORT, 0), one = 1;
    static uint8_t packet[1500], text[1400], buf[E2E_PACKET_MAX];
    UINT len = e2e_make_udp(packet, E2E_A4, 4000, E2E_C4, PORT, text, sizeof(text));
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "b", "vb"), seen;
    HANDLE icmp, h;

    free(e2e_shell("b", "ip link set vbc mtu 1280"));
    e2e_enter("a");
    icmp = e2e_open("inbound and icmp", 0, WINDIVERT_FLAG_SNIFF);
    e2e_enter("b");
    h = e2e_open_at(FORWARD, FILTER, 0, WINDIVERT_FLAG_DROP);
    CHECK(setsockopt(tx, IPPROTO_IP, IP_TTL, &one, sizeof(one)) == 0, "IP_TTL");
    CHECK(e2e_send(tx, 64, 0), "send");
    len = e2e_recv_packet(icmp, buf, &seen);
    CHECK(len > 28 && buf[20] == 11 && buf[21] == 0, "ICMP type %u, code %u", buf[20], buf[21]);
    CHECK(e2e_stats(h).DropFilter == 0, "seen by the handle");

    len = e2e_make_udp(packet, E2E_A4, 4000, E2E_C4, PORT, text, sizeof(text));
    packet[6] = 0x40; /* DF */
    e2e_send_packet(h, packet, len, &addr);
    len = e2e_recv_packet(icmp, buf, &seen);
    CHECK(len > 28 && buf[20] == 3 && buf[21] == 4 && (buf[26] << 8 | buf[27]) == 1280,
          "ICMP type %u, code %u, MTU %u", buf[20], buf[21], buf[26] << 8 | buf[27]);
    CHECK_API(WinDivertClose(h));
    CHECK_API(WinDivertClose(icmp));
    free(e2e_shell("b", "ip link set vbc mtu 1500"));
}

const struct e2e_test e2e_forward_tests[] = {
    {"forward_divert4", forward_divert4, 0},
    {"forward_divert6", forward_divert6, 0},
    {"forward_sniff4", forward_sniff4, 0},
    {"forward_sniff6", forward_sniff6, 0},
    {"forward_layers_apart", forward_layers_apart, 0},
    {"forward_drop4", forward_drop4, 0},
    {"forward_drop6", forward_drop6, 0},
    {"forward_modify4", forward_modify4, 0},
    {"forward_modify6", forward_modify6, 0},
    {"forward_tcp4", forward_tcp4, 0},
    {"forward_tcp6", forward_tcp6, 0},
    {"forward_inject4", forward_inject4, 0},
    {"forward_inject6", forward_inject6, 0},
    {"forward_priorities", forward_priorities, 0},
    {"forward_mtu_and_hops", forward_mtu_and_hops, 0},
    {NULL, NULL, 0},
};
