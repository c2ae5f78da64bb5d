/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * A program holds back the first packet of a connection and answers it itself.
 * The user's stateful firewall, which has not seen that packet, lets the answer
 * pass as one; and only that.
 */
#include "e2e.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5011
#define CLIENT_PORT 4321
#define NEW_FILTER "(tcp.Syn and not tcp.Ack and tcp.DstPort == 5011) or udp.DstPort == 5011"
#define SOON_MS 900 /* before a SYN is repeated */

static const char *const here[] = {E2E_A4, E2E_A6}, *const peer[] = {E2E_B4, E2E_B6};

/* Only what belongs to a connection comes in, or goes out, or through. */
static void
firewall(const char *ns, const char *hook)
{
    char body[512];

    snprintf(body, sizeof(body),
             "counter dropped { }; chain f { type filter hook %s priority 0; ct state established,related accept; "
             "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; "
             "th sport 5011 counter name dropped drop; th dport 5011 counter name dropped drop; drop; }; ",
             hook);
    e2e_set_table(ns, body);
}

/* Entries of conntrack with the socket's port. */
static unsigned
entries(const char *ns, int fd)
{
    struct sockaddr_in6 own; /* the port is where IPv4 has it */
    socklen_t len = sizeof(own);
    char *out;
    unsigned n;

    CHECK(getsockname(fd, (struct sockaddr *)&own, &len) == 0, "getsockname: %s", strerror(errno));
    out = e2e_shell(ns, "grep -c sport=%u /proc/net/nf_conntrack || true", ntohs(own.sin6_port));
    n = (unsigned)atoi(out);
    free(out);
    return n;
}

/* Takes the SYN and refuses it, inbound by ifindex or outbound (0). */
static void
refuse(HANDLE h, unsigned ifindex)
{
    static uint8_t buf[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    UINT len;

    e2e_recv_packet(h, buf, &addr);
    len = e2e_make_reset(buf);
    addr.Outbound = !ifindex;
    addr.Network.IfIdx = ifindex;
    e2e_send_packet(h, buf, len, &addr);
}

static void
refuse_outgoing(void)
{
    firewall("a", "input");
    for (unsigned v6 = 0; v6 < 2; v6++) {
        HANDLE h = e2e_open("outbound and (" NEW_FILTER ")", 0, 0);
        int fd = e2e_connecting("a", peer[v6], PORT);

        refuse(h, e2e_ifindex("a", "va"));
        CHECK(entries("a", fd) == 0, "an entry of conntrack is left");
        e2e_expect_error(fd, POLLOUT, SOON_MS, ECONNREFUSED);
        CHECK_API(WinDivertClose(h));
    }
    CHECK(e2e_nft_counter("a", "dropped") == 0, "the firewall dropped something");
    e2e_delete_table("a");
}

/* The hold time is over: the SYN was dropped long before it is answered. */
static void
refuse_late(void)
{
    static uint8_t buf[E2E_PACKET_MAX];
    HANDLE h = e2e_open("outbound and (" NEW_FILTER ")", 0, 0);
    WINDIVERT_ADDRESS addr;
    int fd;

    firewall("a", "input");
    fd = e2e_connecting("a", E2E_B4, PORT);
    e2e_recv_packet(h, buf, &addr);
    WAIT_UNTIL(e2e_stats(h).NotReturned == 1, 3000, "it was not dropped");
    addr.Outbound = 0;
    e2e_send_packet(h, buf, e2e_make_reset(buf), &addr);
    e2e_expect_error(fd, POLLOUT, SOON_MS, ECONNREFUSED);
    CHECK_API(WinDivertClose(h));
    e2e_delete_table("a");
}

static void
refuse_loopback(void)
{
    static const char *const self[] = {"127.0.0.1", "::1"};

    firewall("a", "input");
    for (unsigned v6 = 0; v6 < 2; v6++) {
        HANDLE h = e2e_open(NEW_FILTER, 0, 0);
        int fd = e2e_connecting("a", self[v6], PORT);

        refuse(h, 0);
        e2e_expect_error(fd, POLLOUT, SOON_MS, ECONNREFUSED);
        CHECK_API(WinDivertClose(h));
    }
    e2e_delete_table("a");
}

/* The handle is before a server, whose machine lets nothing out that is no answer. */
static void
refuse_incoming(void)
{
    firewall("b", "output");
    e2e_enter("b");
    for (unsigned v6 = 0; v6 < 2; v6++) {
        int listener = e2e_tcp_listener("b", peer[v6], PORT), fd;
        HANDLE h = e2e_open("inbound and (" NEW_FILTER ")", 0, 0);

        fd = e2e_connecting("a", peer[v6], PORT);
        refuse(h, 0);
        e2e_expect_error(fd, POLLOUT, SOON_MS, ECONNREFUSED);
        CHECK_API(WinDivertClose(h));
        close(listener);
    }
    e2e_delete_table("b");
}

static void
refuse_forwarded(void)
{
    static const char *const behind[] = {E2E_C4, E2E_C6};

    firewall("b", "forward");
    e2e_enter("b");
    for (unsigned v6 = 0; v6 < 2; v6++) {
        HANDLE h = e2e_open_at(WINDIVERT_LAYER_NETWORK_FORWARD, NEW_FILTER, 0, 0);
        int fd = e2e_connecting("a", behind[v6], PORT);

        refuse(h, e2e_ifindex("b", "vbc"));
        e2e_expect_error(fd, POLLOUT, SOON_MS, ECONNREFUSED);
        CHECK_API(WinDivertClose(h));
    }
    e2e_delete_table("b");
}

/* ICMP's "port unreachable" about what was held back. */
static void
unreachable(HANDLE h, bool v6)
{
    static uint8_t buf[E2E_PACKET_MAX], packet[2048];
    WINDIVERT_ADDRESS addr;
    UINT len = e2e_recv_packet(h, buf, &addr);

    len = e2e_make_icmp(packet, peer[v6], here[v6], v6 ? 1 : 3, v6 ? 4 : 3, 0, buf, len < 548 ? len : 548);
    addr.Outbound = 0;
    e2e_send_packet(h, packet, len, &addr);
}

static void
refuse_by_icmp(void)
{
    firewall("a", "input");
    for (unsigned v6 = 0; v6 < 2; v6++) {
        HANDLE h = e2e_open("outbound and (" NEW_FILTER ")", 0, 0);
        int tcp = e2e_connecting("a", peer[v6], PORT), udp;

        unreachable(h, v6);
        e2e_expect_error(tcp, POLLOUT, SOON_MS, ECONNREFUSED);
        udp = e2e_udp_sender("a", peer[v6], PORT, 0);
        CHECK(e2e_send(udp, 64, 1), "send");
        unreachable(h, v6);
        e2e_expect_error(udp, POLLIN, SOON_MS, ECONNREFUSED);
        CHECK_API(WinDivertClose(h));
    }
    CHECK(e2e_nft_counter("a", "dropped") == 0, "the firewall dropped something");
    e2e_delete_table("a");
}

/* A question is held back and answered by the program. */
static void
refuse_but_answer(void)
{
    static uint8_t buf[E2E_PACKET_MAX];

    firewall("a", "input");
    for (unsigned v6 = 0; v6 < 2; v6++) {
        HANDLE h = e2e_open("outbound and (" NEW_FILTER ")", 0, 0);
        int udp = e2e_udp_sender("a", peer[v6], PORT, 0);
        WINDIVERT_ADDRESS addr;
        UINT len;

        for (unsigned i = 0; i < 10; i++) {
            CHECK(e2e_send(udp, 64, i), "send");
            len = e2e_recv_packet(h, buf, &addr);
            e2e_swap_ends(buf);
            e2e_fill_sums(buf);
            addr.Outbound = 0;
            e2e_send_packet(h, buf, len, &addr);
            CHECK(e2e_receive(udp, buf, sizeof(buf), 1000) == 64, "answer %u did not arrive", i);
        }
        CHECK_API(WinDivertClose(h));
        close(udp);
    }
    e2e_delete_table("a");
}

/* What answers nothing that the handle had is left to the firewall. */
static void
refuse_unasked(void)
{
    static uint8_t packet[128];
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "a", "va");
    int rx = e2e_udp_receiver("a", E2E_A4, PORT), udp = e2e_udp_sender("a", E2E_B4, PORT, 4000);
    HANDLE h = e2e_open("outbound and (" NEW_FILTER ")", 0, 0);
    static uint8_t buf[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS held;
    UINT len;

    firewall("a", "input");
    CHECK(e2e_send(udp, 64, 1), "send");
    e2e_recv_packet(h, buf, &held);
    len = e2e_make_udp(packet, E2E_B4, 4001, E2E_A4, PORT, "some text", 9); /* another port */
    e2e_send_packet(h, packet, len, &addr);
    len = e2e_make_udp(packet, E2E_B4, PORT, E2E_A4, PORT, "some text", 9); /* to another */
    e2e_send_packet(h, packet, len, &addr);
    WAIT_UNTIL(e2e_nft_counter("a", "dropped") == 2, 2000, "the firewall dropped %llu of 2",
               (unsigned long long)e2e_nft_counter("a", "dropped"));
    CHECK(e2e_drain(rx) == 0, "it arrived");
    CHECK_API(WinDivertClose(h));
    e2e_delete_table("a");
}

/* After a refusal a connection from the same port to the same place is made as any other. */
static void
refuse_then_connect(void)
{
    int listener = e2e_tcp_listener("b", E2E_B4, PORT), fd, one = 1;
    HANDLE h = e2e_open("outbound and (" NEW_FILTER ")", 0, 0);
    struct sockaddr_storage to, from;
    socklen_t len = e2e_sockaddr(E2E_B4, PORT, &to);

    firewall("a", "input");
    e2e_sockaddr(E2E_A4, CLIENT_PORT, &from);
    for (unsigned i = 0; i < 2; i++) {
        fd = e2e_socket("a", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        CHECK(bind(fd, (struct sockaddr *)&from, len) == 0, "bind: %s", strerror(errno));
        CHECK(connect(fd, (struct sockaddr *)&to, len) < 0 && errno == EINPROGRESS, "connect: %s", strerror(errno));
        if (i)
            break;
        refuse(h, e2e_ifindex("a", "va"));
        e2e_expect_error(fd, POLLOUT, SOON_MS, ECONNREFUSED);
        CHECK_API(WinDivertClose(h));
    }
    e2e_expect_error(fd, POLLOUT, SOON_MS, 0);
    close(listener);
    e2e_delete_table("a");
}

const struct e2e_test e2e_refuse_tests[] = {
    {"refuse_outgoing", refuse_outgoing, 0},         {"refuse_late", refuse_late, 0},
    {"refuse_loopback", refuse_loopback, 0},         {"refuse_incoming", refuse_incoming, 0},
    {"refuse_forwarded", refuse_forwarded, 0},       {"refuse_by_icmp", refuse_by_icmp, 0},
    {"refuse_but_answer", refuse_but_answer, 0},     {"refuse_unasked", refuse_unasked, 0},
    {"refuse_then_connect", refuse_then_connect, 0}, {NULL, NULL, 0},
};
