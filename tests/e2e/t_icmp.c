/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* New ICMP and ICMPv6 packets, both ways: the kernel and its sockets take them as from the wire. */
#include "e2e.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define PATIENCE_MS 3000
#define SOON_MS 900 /* before a SYN is repeated */

struct family {
    const char *here, *peer;
    int family;
    uint8_t proto, request, reply, unreachable, port_code, host_code;
};
static const struct family families[] = {
    {E2E_A4, E2E_B4, AF_INET, IPPROTO_ICMP, 8, 0, 3, 3, 1},
    {E2E_A6, E2E_B6, AF_INET6, IPPROTO_ICMPV6, 128, 129, 1, 4, 3},
};

struct echo {
    uint8_t type;
    uint32_t word;
    const char *from;
};

static bool
is_echo(const uint8_t *packet, unsigned len, void *arg)
{
    const struct echo *e = arg;
    struct e2e_view v;
    const uint8_t *icmp;

    if (!e2e_view(packet, len, &v) || (v.proto != IPPROTO_ICMP && v.proto != IPPROTO_ICMPV6))
        return false;
    icmp = packet + v.transport;
    return icmp[0] == e->type && ((uint32_t)icmp[4] << 24 | icmp[5] << 16 | icmp[6] << 8 | icmp[7]) == e->word;
}

/* One request of the program's, one answer of the kernel's on the other side of `capture`'s link. */
static void
echo(const struct family *f, HANDLE h, const WINDIVERT_ADDRESS *addr, const char *from, const char *to, int capture)
{
    static const char text[] = "an echo of this";
    static uint8_t packet[128], seen[E2E_PACKET_MAX];
    struct echo want = {.type = f->reply, .word = 0x4d590001};
    UINT len = e2e_make_icmp(packet, from, to, f->request, 0, want.word, text, sizeof(text));
    struct e2e_view v;

    e2e_send_packet(h, packet, len, addr);
    len = e2e_captured(capture, seen, PATIENCE_MS, is_echo, &want);
    CHECK(len >= sizeof(text), "no answer");
    CHECK(e2e_view(seen, len, &v) && memcmp(seen + v.transport + 8, text, sizeof(text)) == 0, "another answer");
    CHECK(e2e_captured(capture, seen, 30, is_echo, &want) == 0, "a second answer");
}

static void
icmp_echo_out(void)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct family *f = &families[i];
        WINDIVERT_ADDRESS addr = e2e_new_outbound(i);
        int capture = e2e_capture("a", "va");
        HANDLE h = e2e_open("icmp or icmpv6", 0, WINDIVERT_FLAG_SEND_ONLY);

        echo(f, h, &addr, f->here, f->peer, capture);
        CHECK_API(WinDivertClose(h));
        close(capture);
    }
}

/* The kernel of a answers what is said to have come in from b; b gets the answer. */
static void
icmp_echo_in(void)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct family *f = &families[i];
        WINDIVERT_ADDRESS addr = e2e_new_inbound(i, "a", "va");
        int capture = e2e_capture("b", "vb");
        HANDLE h = e2e_open("icmp or icmpv6", 0, WINDIVERT_FLAG_SEND_ONLY);

        echo(f, h, &addr, f->peer, f->here, capture);
        CHECK_API(WinDivertClose(h));
        close(capture);
    }
}

/* Into the forward path of b, from a to c: c's kernel answers, through b again. */
static void
icmp_echo_forward(void)
{
    static const char *const to[] = {E2E_C4, E2E_C6};

    e2e_enter("b");
    for (unsigned i = 0; i < 2; i++) {
        const struct family *f = &families[i];
        WINDIVERT_ADDRESS addr = e2e_new_inbound(i, "b", "vb");
        int capture = e2e_capture("a", "va");
        HANDLE h = e2e_open_at(WINDIVERT_LAYER_NETWORK_FORWARD, "false", 0, 0);

        addr.Layer = WINDIVERT_LAYER_NETWORK_FORWARD;
        echo(f, h, &addr, f->here, to[i], capture);
        CHECK_API(WinDivertClose(h));
        close(capture);
    }
}

/* The message that quotes what the handle received, from its destination; in by the same interface. */
static void
send_unreachable(const struct family *f, HANDLE h, const uint8_t *quoted, UINT quoted_len, uint8_t code)
{
    WINDIVERT_ADDRESS addr = e2e_new_inbound(f->family == AF_INET6, "a", "va");
    static uint8_t packet[2048];
    UINT len = e2e_make_icmp(packet, f->peer, f->here, f->unreachable, code, 0, quoted, quoted_len);

    e2e_send_packet(h, packet, len, &addr);
}

static void
icmp_unreachable_udp(void)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct family *f = &families[i];
        static uint8_t buf[E2E_PACKET_MAX];
        HANDLE h = e2e_open("outbound and udp.DstPort == 5001", 0, 0);
        int tx = e2e_udp_sender("a", f->peer, PORT, 0);
        WINDIVERT_ADDRESS addr;
        UINT len;

        CHECK(e2e_send(tx, 64, 1), "send");
        len = e2e_recv_packet(h, buf, &addr);
        send_unreachable(f, h, buf, len, f->port_code);
        e2e_expect_error(tx, POLLIN, SOON_MS, ECONNREFUSED);
        CHECK_API(WinDivertClose(h));
    }
}

static void
tcp_unreachable(const struct family *f, uint8_t code, int want)
{
    static uint8_t buf[E2E_PACKET_MAX];
    HANDLE h = e2e_open("outbound and tcp.DstPort == 5001", 0, 0);
    int fd = e2e_connecting("a", f->peer, PORT);
    WINDIVERT_ADDRESS addr;
    UINT len = e2e_recv_packet(h, buf, &addr);

    send_unreachable(f, h, buf, len, code);
    e2e_expect_error(fd, POLLOUT, SOON_MS, want);
    CHECK_API(WinDivertClose(h));
}

static void
icmp_unreachable_tcp(void)
{
    for (unsigned i = 0; i < 2; i++) {
        tcp_unreachable(&families[i], families[i].port_code, ECONNREFUSED);
        tcp_unreachable(&families[i], families[i].host_code, EHOSTUNREACH);
    }
}

/* A received echo is turned round as a program that answers pings itself would do it. */
static void
icmp_answered_by_program(void)
{
    static const char text[] = "an echo of this";

    for (unsigned i = 0; i < 2; i++) {
        const struct family *f = &families[i];
        static uint8_t packet[128], buf[E2E_PACKET_MAX];
        struct echo want = {.type = f->reply, .word = 0x4d590002};
        UINT len = e2e_make_icmp(packet, f->peer, f->here, f->request, 0, want.word, text, sizeof(text));
        int raw = e2e_socket("b", f->family, SOCK_RAW, IPPROTO_RAW), capture = e2e_capture("b", "vb");
        struct sockaddr_storage to;
        socklen_t to_len = e2e_sockaddr(f->here, 0, &to);
        HANDLE h = e2e_open("inbound and (icmp.Type == 8 or icmpv6.Type == 128)", 0, 0);
        WINDIVERT_ADDRESS addr;
        struct e2e_view v;

        CHECK(sendto(raw, packet, len, 0, (struct sockaddr *)&to, to_len) == (ssize_t)len, "raw: %s",
              strerror(errno));
        len = e2e_recv_packet(h, buf, &addr);
        CHECK(e2e_view(buf, len, &v) && v.proto == f->proto, "protocol %u", v.proto);
        e2e_swap_ends(buf);
        buf[v.transport] = f->reply;
        e2e_fill_sums(buf);
        addr.Outbound = 1;
        e2e_send_packet(h, buf, len, &addr);
        CHECK(e2e_captured(capture, buf, PATIENCE_MS, is_echo, &want), "no answer");
        CHECK_API(WinDivertClose(h));
        CHECK(e2e_captured(capture, buf, 150, is_echo, &want) == 0, "the kernel answered too");
        close(capture);
        close(raw);
    }
}

const struct e2e_test e2e_icmp_tests[] = {
    {"icmp_echo_out", icmp_echo_out, 0},
    {"icmp_echo_in", icmp_echo_in, 0},
    {"icmp_echo_forward", icmp_echo_forward, 0},
    {"icmp_unreachable_udp", icmp_unreachable_udp, 0},
    {"icmp_unreachable_tcp", icmp_unreachable_tcp, 0},
    {"icmp_answered_by_program", icmp_answered_by_program, 0},
    {NULL, NULL, 0},
};
