/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* New packets into the inbound path: who accepts them, who sees them, what is refused. */
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
    struct sockaddr_storage to;
    socklen_t to_len = e2e_sockaddr(E2E_B4, PORT, &to);
    int fd = e2e_socket("a", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
    socklen_t error_len = sizeof(error);
    HANDLE h = e2e_open("outbound and tcp.Syn and tcp.DstPort == 5001", 0, 0);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    WINDIVERT_ADDRESS addr;
    uint8_t buf[2048];

    CHECK(connect(fd, (struct sockaddr *)&to, to_len) < 0 && errno == EINPROGRESS, "connect: error %d", errno);
    e2e_recv_packet(h, buf, &addr);
    addr.Outbound = 0;
    addr.Network.IfIdx = e2e_ifindex("a", "va");
    e2e_send_packet(h, buf, e2e_make_reset(buf), &addr);
    CHECK(poll(&p, 1, 900) == 1, "the connection was not refused before the SYN is repeated");
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) == 0 && error == ECONNREFUSED, "error %d", error);
    CHECK_API(WinDivertClose(h));
    close(fd);
}

const struct e2e_test e2e_inject_tests[] = {
    {"inject_in4", inject_in4, 0},
    {"inject_in6", inject_in6, 0},
    {"inject_in_priorities", inject_in_priorities, 0},
    {"inject_in_late", inject_in_late, 0},
    {"inject_in_refused", inject_in_refused, 0},
    {"inject_in_reset", inject_in_reset, 0},
    {NULL, NULL, 0},
};
