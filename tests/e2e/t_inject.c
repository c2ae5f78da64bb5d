/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* New packets into the inbound path: who accepts them, who sees them, what is refused. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "e2e.h"

#define PORT 5001

/* The interface that a received datagram's control message names. */
static unsigned
receive_with_interface(int fd, uint8_t *buf, size_t room)
{
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
    struct iovec iov = {buf, room};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    struct pollfd p = {.fd = fd, .events = POLLIN};

    CHECK(poll(&p, 1, 3000) == 1, "nothing arrived");
    CHECK(recvmsg(fd, &msg, 0) == 9, "another length than was sent");
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
            return (unsigned)((struct in_pktinfo *)(void *)CMSG_DATA(c))->ipi_ifindex;
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO)
            return ((struct in6_pktinfo *)(void *)CMSG_DATA(c))->ipi6_ifindex;
    }
    return 0;
}

/* A local socket accepts the packet, and is told the interface of the address. */
static void
to_socket(bool v6)
{
    const char *here = v6 ? E2E_A6 : E2E_A4, *peer = v6 ? E2E_B6 : E2E_B4;
    int rx = e2e_udp_receiver("a", here, PORT), on = 1;
    HANDLE h = e2e_open("false", 0, 0);
    uint8_t packet[128], buf[128];
    UINT len = e2e_make_udp(packet, peer, 4000, here, PORT, "some text", 9);
    WINDIVERT_ADDRESS addr = e2e_new_inbound(v6, "a", "va");
    unsigned ifindex;

    if (v6)
        setsockopt(rx, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
    else
        setsockopt(rx, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
    e2e_send_packet(h, packet, len, &addr);
    ifindex = receive_with_interface(rx, buf, sizeof(buf));
    CHECK(ifindex == addr.Network.IfIdx, "arrived on interface %u, not %u", ifindex, addr.Network.IfIdx);
    CHECK(memcmp(buf, "some text", 9) == 0, "other bytes than were sent");
    CHECK(e2e_stats(h).Injected == 1, "not counted");
    CHECK_API(WinDivertClose(h));
}

static void
inject_in4(void)
{
    to_socket(false);
}

static void
inject_in6(void)
{
    to_socket(true);
}

/* Only handles of lower priority see it, as an impostor; not the sender, not its equals, not the higher ones. */
static void
inject_in_priorities(void)
{
    static const INT16 priority[] = {10, 0, 0, -10};
    HANDLE h[4];
    int rx = e2e_udp_receiver("a", E2E_A4, PORT);
    uint8_t packet[128], buf[2048];
    UINT len = e2e_make_udp(packet, E2E_B4, 4000, E2E_A4, PORT, "some text", 9), n;
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "a", "va"), seen;

    for (unsigned i = 0; i < 4; i++)
        h[i] = e2e_open("inbound and udp.DstPort == 5001", priority[i], 0);
    e2e_send_packet(h[1], packet, len, &addr);
    n = e2e_recv_packet(h[3], buf, &seen);
    CHECK(n == len && !seen.Outbound && seen.Impostor, "length %u, outbound %u, impostor %u", n, seen.Outbound,
          seen.Impostor);
    CHECK(seen.Network.IfIdx == addr.Network.IfIdx, "interface %u", seen.Network.IfIdx);
    e2e_send_packet(h[3], buf, n, &seen);
    CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 9, "it did not arrive");
    for (unsigned i = 0; i < 3; i++)
        CHECK_API(WinDivertShutdown(h[i], WINDIVERT_SHUTDOWN_RECV));
    for (unsigned i = 0; i < 3; i++)
        CHECK_ERROR(WinDivertRecv(h[i], buf, sizeof(buf), NULL, NULL), ERROR_NO_DATA);
    for (unsigned i = 0; i < 4; i++)
        CHECK_API(WinDivertClose(h[i]));
}

/* Held past the hold time and sent then: a new inbound packet, once. */
static void
inject_in_late(void)
{
    int rx = e2e_udp_receiver("a", E2E_A4, PORT), tx = e2e_udp_sender("b", E2E_A4, PORT, 0);
    HANDLE h = e2e_open("inbound and udp.DstPort == 5001", 0, 0);
    uint8_t buf[2048];
    WINDIVERT_ADDRESS addr;
    UINT len;

    CHECK(e2e_send(tx, 64, 7), "send");
    len = e2e_recv_packet(h, buf, &addr);
    WAIT_UNTIL(e2e_stats(h).NotReturned == 1, 3000, "the packet was not dropped");
    e2e_send_packet(h, buf, len, &addr);
    CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "it did not arrive");
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
inject_in_refused(void)
{
    HANDLE h = e2e_open("false", 0, 0);
    uint8_t packet[128];
    UINT len = e2e_make_udp(packet, E2E_B4, 4000, E2E_A4, PORT, "some text", 9);
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "a", "va");

    addr.Network.IfIdx = 4242;
    CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_INVALID_PARAMETER);
    addr.Network.IfIdx = 0;
    CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_INVALID_PARAMETER);
    e2e_shell("a", "ip link add down0 type dummy 2>/dev/null || ip link add down0 type veth peer name down1");
    addr.Network.IfIdx = e2e_ifindex("a", "down0");
    CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_GEN_FAILURE);
    e2e_shell("a", "ip link del down0");
    CHECK_API(WinDivertClose(h));
}

/* The packets of a SYN are held by the handle; a reset of ours refuses the connection at once. */
static void
inject_in_reset(void)
{
    HANDLE h = e2e_open("outbound and tcp.Syn and tcp.DstPort == 5001", 0, 0);
    int fd = e2e_connecting("a", E2E_B4, PORT);
    WINDIVERT_ADDRESS addr;
    uint8_t buf[2048];

    e2e_recv_packet(h, buf, &addr);
    addr.Outbound = 0;
    addr.Network.IfIdx = e2e_ifindex("a", "va");
    e2e_send_packet(h, buf, e2e_make_reset(buf), &addr);
    e2e_expect_error(fd, POLLOUT, 900, ECONNREFUSED); /* before the SYN is repeated */
    CHECK_API(WinDivertClose(h));
}

/* Makes of a request the response with a FIN that ends the connection; returns its length. */
static UINT
make_response(uint8_t *packet, const char *text, unsigned text_len)
{
    struct e2e_view v;
    uint32_t seq, ack;
    uint8_t *tcp;
    UINT len;

    CHECK(e2e_view(packet, E2E_PACKET_MAX, &v), "no packet");
    tcp = packet + v.transport;
    memcpy(&seq, tcp + 4, 4);
    memcpy(&ack, tcp + 8, 4);
    seq = htonl(ntohl(seq) + v.end - v.payload);
    e2e_swap_ends(packet);
    memcpy(tcp + 4, &ack, 4);
    memcpy(tcp + 8, &seq, 4);
    tcp[12] = 5 << 4;
    tcp[13] = 0x19; /* ACK, PSH, FIN */
    memcpy(tcp + 20, text, text_len);
    len = v.transport + 20 + text_len;
    packet[v.v6 ? 4 : 2] = 0;
    packet[v.v6 ? 5 : 3] = (uint8_t)(len - (v.v6 ? 40 : 0));
    e2e_fill_sums(packet);
    return len;
}

/* Makes of a request the RST that ends the connection at the server; returns its length. */
static UINT
make_end(uint8_t *packet)
{
    struct e2e_view v;

    CHECK(e2e_view(packet, E2E_PACKET_MAX, &v), "no packet");
    packet[v.transport + 12] = 5 << 4;
    packet[v.transport + 13] = 0x14; /* ACK, RST */
    packet[v.v6 ? 4 : 2] = 0;
    packet[v.v6 ? 5 : 3] = v.v6 ? 20 : 40;
    e2e_fill_sums(packet);
    return v.transport + 20;
}

/*
 * A client's request does not get out, but perhaps a reset in its place; the
 * program's page comes in, behind a stateful firewall too.
 */
static void
response(bool v6, bool reset)
{
    static const char page[] = "this page is blocked";
    const char *peer = v6 ? E2E_B6 : E2E_B4;
    int listener = e2e_tcp_listener("b", peer, PORT);
    static uint8_t buf[E2E_PACKET_MAX], end[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    int client, server;
    HANDLE h;
    UINT len;

    e2e_tcp_pair(listener, "a", peer, PORT, &client, &server);
    h = e2e_open("outbound and tcp.DstPort == 5001 and tcp.PayloadLength > 0", 0, 0);
    CHECK(e2e_send(client, 64, 1), "send");
    len = e2e_recv_packet(h, buf, &addr);
    memcpy(end, buf, len);
    if (reset)
        e2e_send_packet(h, end, make_end(end), &addr);
    len = make_response(buf, page, sizeof(page));
    addr.Outbound = 0;
    e2e_send_packet(h, buf, len, &addr);
    CHECK(e2e_receive(client, buf, sizeof(buf), 1000) == sizeof(page) && memcmp(buf, page, sizeof(page)) == 0,
          "the page did not come");
    CHECK(e2e_receive(client, buf, sizeof(buf), 1000) == 0, "the connection did not end");
    CHECK(recv(server, buf, sizeof(buf), MSG_DONTWAIT) < 0 && errno == (reset ? ECONNRESET : EAGAIN),
          "the server sees error %d", errno);
    CHECK_API(WinDivertClose(h));
    close(client);
    close(server);
    close(listener);
}

static void
inject_in_response(void)
{
    for (unsigned i = 0; i < 4; i++)
        response(i & 1, i & 2);
    e2e_set_table("a",
                  "chain i { type filter hook input priority 0; policy drop; ct state established,related accept; "
                  "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; "
                  "chain o { type filter hook output priority 0; ct state invalid drop; }; ");
    for (unsigned i = 0; i < 4; i++)
        response(i & 1, i & 2);
    e2e_delete_table("a");
}

const struct e2e_test e2e_inject_tests[] = {
    {"inject_in4", inject_in4, 0},
    {"inject_in6", inject_in6, 0},
    {"inject_in_priorities", inject_in_priorities, 0},
    {"inject_in_late", inject_in_late, 0},
    {"inject_in_refused", inject_in_refused, 0},
    {"inject_in_reset", inject_in_reset, 0},
    {"inject_in_response", inject_in_response, 0},
    {NULL, NULL, 0},
};
