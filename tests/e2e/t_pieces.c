/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* New packets that are fragments already, and those that must not become any. */
#include "e2e.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define SIZE 3500    /* of the datagram */
#define PIECE 1400   /* of it in a fragment, a multiple of 8 */
#define PIECES 3     /* SIZE and 8 bytes of UDP header by that */
#define DATAGRAMS 50 /* with different ids */

struct way {
    const char *src, *dst;
    const char *handle_ns, *receiver_ns, *receiver_if;
    const char *in; /* interface the packets come from; NULL: outbound */
    WINDIVERT_LAYER layer;
};

static WINDIVERT_ADDRESS
way_address(const struct way *w)
{
    bool v6 = strchr(w->src, ':');
    WINDIVERT_ADDRESS addr = w->in ? e2e_new_inbound(v6, w->handle_ns, w->in) : e2e_new_outbound(v6);

    addr.Layer = w->layer;
    return addr;
}

/* Fragment `index` of a whole packet of ours (no options, no extension headers); returns its length. */
static unsigned
cut(const uint8_t *whole, unsigned len, unsigned index, uint16_t id, uint8_t *ret_fragment)
{
    bool v6 = whole[0] >> 4 == 6;
    unsigned head = v6 ? 40 : 20, extra = v6 ? 8 : 0, from = index * PIECE;
    unsigned size = len - head - from < PIECE ? len - head - from : PIECE;
    unsigned more = from + size < len - head, total = head + extra + size;
    uint8_t *f = ret_fragment;

    memcpy(f, whole, head);
    memcpy(f + head + extra, whole + head + from, size);
    if (v6) {
        const uint8_t header[8] = {f[6], 0, (uint8_t)(from >> 8), (uint8_t)(from | more),
                                   0,    0, (uint8_t)(id >> 8),   (uint8_t)id};

        f[6] = IPPROTO_FRAGMENT;
        memcpy(f + 40, header, 8);
        f[4] = (uint8_t)((total - 40) >> 8);
        f[5] = (uint8_t)(total - 40);
    } else {
        f[2] = (uint8_t)(total >> 8);
        f[3] = (uint8_t)total;
        f[4] = (uint8_t)(id >> 8);
        f[5] = (uint8_t)id;
        f[6] = (uint8_t)(more << 5 | from >> 11);
        f[7] = (uint8_t)(from >> 3);
        e2e_fill_sums(f);
    }
    return total;
}

static bool
is_fragment_for_us(const uint8_t *packet, unsigned len, void *arg)
{
    bool v6 = packet[0] >> 4 == 6;
    struct e2e_view v;

    (void)arg;
    return e2e_view(packet, len, &v) && v.fragment && (v6 ? packet[40] : packet[9]) == IPPROTO_UDP;
}

/* The datagram in fragments, in this order; it arrives whole, once. */
static void
fragments(const struct way *w, const unsigned order[PIECES])
{
    static uint8_t whole[2 * SIZE], piece[2 * PIECE], text[SIZE], buf[E2E_PACKET_MAX];
    int rx = e2e_udp_receiver(w->receiver_ns, w->dst, PORT), capture = e2e_capture(w->receiver_ns, w->receiver_if);
    WINDIVERT_ADDRESS addr = way_address(w);
    unsigned seen = 0;
    HANDLE h;

    e2e_enter(w->handle_ns);
    h = e2e_open_at(w->layer, "false", 0, 0);
    for (uint32_t i = 0; i < DATAGRAMS; i++) {
        unsigned len;

        e2e_datagram(text, SIZE, i);
        len = e2e_make_udp(whole, w->src, 4000, w->dst, PORT, text, SIZE);
        e2e_fill_sums(whole);
        for (unsigned k = 0; k < PIECES; k++)
            e2e_send_packet(h, piece, cut(whole, len, order[k], (uint16_t)(i + 1), piece), &addr);
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == SIZE, "datagram %u to %s did not arrive", i, w->dst);
        CHECK(memcmp(buf, text, SIZE) == 0, "another datagram than %u", i);
    }
    while (e2e_captured(capture, buf, 20, is_fragment_for_us, NULL))
        seen++;
    CHECK(seen == PIECES * DATAGRAMS, "%u fragments on the wire, not %u", seen, PIECES * DATAGRAMS);
    CHECK_API(WinDivertClose(h));
    CHECK(e2e_drain(rx) == 0, "one arrived twice");
    close(capture);
    close(rx);
}

static void
in_both_orders(const struct way *w)
{
    static const unsigned forward[PIECES] = {0, 1, 2}, mixed[PIECES] = {2, 0, 1};

    fragments(w, forward);
    fragments(w, mixed);
}

static const struct way out4 = {E2E_A4, E2E_B4, "a", "b", "vb", NULL, WINDIVERT_LAYER_NETWORK};
static const struct way out6 = {E2E_A6, E2E_B6, "a", "b", "vb", NULL, WINDIVERT_LAYER_NETWORK};
static const struct way in4 = {E2E_B4, E2E_A4, "a", "a", "va", "va", WINDIVERT_LAYER_NETWORK};
static const struct way in6 = {E2E_B6, E2E_A6, "a", "a", "va", "va", WINDIVERT_LAYER_NETWORK};
static const struct way through4 = {E2E_A4, E2E_C4, "b", "c", "vc", "vb", WINDIVERT_LAYER_NETWORK_FORWARD};
static const struct way through6 = {E2E_A6, E2E_C6, "b", "c", "vc", "vb", WINDIVERT_LAYER_NETWORK_FORWARD};

static void
pieces_out(void)
{
    in_both_orders(&out4);
    in_both_orders(&out6);
}

static void
pieces_in(void)
{
    in_both_orders(&in4);
    in_both_orders(&in6);
}

static void
pieces_forward(void)
{
    in_both_orders(&through4);
    in_both_orders(&through6);
}

/*
 * Under conntrack too.  It puts inbound and forwarded ones together, and those
 * sent over IPv6, which leave in pieces again; over IPv4 the program's leave as
 * they are.
 */
static void
pieces_with_conntrack(void)
{
    static const char rules[] = "chain o { type filter hook output priority 0; ct state new; }; "
                                "chain i { type filter hook input priority 0; ct state invalid drop; }; "
                                "chain f { type filter hook forward priority 0; ct state invalid drop; }; ";

    e2e_set_table("a", rules);
    e2e_set_table("b", rules);
    in_both_orders(&out4);
    in_both_orders(&out6);
    in_both_orders(&in4);
    in_both_orders(&in6);
    in_both_orders(&through4);
    in_both_orders(&through6);
    e2e_delete_table("a");
    e2e_delete_table("b");
}

/* A new packet larger than the MTU is one packet to the user's firewall and address translation. */
static void
translated(bool v6, const char *source)
{
    static uint8_t packet[2 * SIZE], text[SIZE], buf[2 * SIZE];
    const char *here = v6 ? E2E_A6 : E2E_A4, *peer = v6 ? E2E_B6 : E2E_B4;
    UINT len = e2e_make_udp(packet, here, 4100, peer, PORT, text, SIZE); /* a connection of its own */
    WINDIVERT_ADDRESS addr = e2e_new_outbound(v6);
    int rx = e2e_udp_receiver("b", peer, PORT);
    HANDLE h = e2e_open("false", 0, 0);
    char text_from[64] = "";
    struct sockaddr_storage from;
    socklen_t from_len = sizeof(from);
    struct pollfd p = {.fd = rx, .events = POLLIN};

    e2e_send_packet(h, packet, len, &addr);
    CHECK(poll(&p, 1, 2000) == 1, "over IPv%u it did not arrive", v6 ? 6 : 4);
    CHECK(recvfrom(rx, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len) == SIZE, "another length");
    getnameinfo((struct sockaddr *)&from, from_len, text_from, sizeof(text_from), NULL, 0, NI_NUMERICHOST);
    CHECK(strcmp(text_from, source) == 0, "it came from %s, not %s", text_from, source);
    CHECK_API(WinDivertClose(h));
    close(rx);
}

static void
pieces_translated_as_one(void)
{
    e2e_set_table("a", "counter whole { }; chain o { type filter hook output priority 0; policy drop; "
                       "ct state new udp dport 5001 counter name whole accept; }; "
                       "chain n { type nat hook postrouting priority 100; meta nfproto ipv4 snat ip to 10.77.0.77; "
                       "meta nfproto ipv6 snat ip6 to fd77::77; }; ");
    translated(false, "10.77.0.77");
    translated(true, "fd77::77");
    CHECK(e2e_nft_counter("a", "whole") == 2, "the rule counted %llu packets",
          (unsigned long long)e2e_nft_counter("a", "whole"));
    e2e_delete_table("a");
}

/* ---- Not to be fragmented ------------------------------------------------ */

static void
pieces_forbidden_out(void)
{
    static uint8_t packet[4096], text[2000];
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    UINT len = e2e_make_udp(packet, E2E_A4, 4000, E2E_B4, PORT, text, sizeof(text));
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE h = e2e_open("false", 0, 0);

    packet[6] = 0x40; /* DF */
    CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_GEN_FAILURE);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static bool
lengthen(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    (void)p;
    CHECK(e2e_view(packet, *len, &v), "no packet");
    *len = e2e_udp_resize(packet, &v, 2000);
    addr->IPChecksum = addr->UDPChecksum = 0;
    return true;
}

/* A datagram that may not be fragmented becomes too large in the handle: its sender is told, as by a router. */
static void
pieces_forbidden_returned(void)
{
    int tx = e2e_udp_sender("a", E2E_B4, PORT, 0), rx = e2e_udp_receiver("b", E2E_B4, PORT), always = IP_PMTUDISC_DO;
    int probe = IP_PMTUDISC_DONT, error = 0;
    struct e2e_passer p = {.batch = 1, .edit = lengthen};
    struct pollfd told = {.fd = tx, .events = POLLIN};
    socklen_t len = sizeof(error);

    CHECK(setsockopt(tx, IPPROTO_IP, IP_MTU_DISCOVER, &always, sizeof(always)) == 0, "IP_MTU_DISCOVER");
    p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    CHECK(e2e_send(tx, 64, 1), "send");
    CHECK(poll(&told, 1, 2000) == 1, "the sender was told nothing");
    CHECK(getsockopt(tx, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == EMSGSIZE, "error %d (%s)", error,
          strerror(error));
    e2e_pass_stop(&p);
    CHECK(setsockopt(tx, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof(probe)) == 0, "IP_MTU_DISCOVER");
    e2e_marker(tx, rx);
}

static bool
is_type(const uint8_t *packet, unsigned len, void *arg)
{
    struct e2e_view v;

    return e2e_view(packet, len, &v) && v.proto == IPPROTO_ICMPV6 && packet[v.transport] == *(uint8_t *)arg;
}

/* A router fragments nothing over IPv6: it tells the sender, of new packets too; as it does when no hop is left. */
static void
pieces_forbidden_forward6(void)
{
    static uint8_t packet[2048], text[1400], buf[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr = e2e_new_inbound(true, "b", "vb");
    UINT len = e2e_make_udp(packet, E2E_A6, 4000, E2E_C6, PORT, text, sizeof(text)), seen;
    uint8_t too_big = 2, exceeded = 3;
    int capture = e2e_capture("a", "va");
    HANDLE h;

    e2e_enter("b");
    free(e2e_shell("b", "ip link set vbc mtu 1280"));
    h = e2e_open_at(WINDIVERT_LAYER_NETWORK_FORWARD, "false", 0, 0);
    addr.Layer = WINDIVERT_LAYER_NETWORK_FORWARD;
    e2e_send_packet(h, packet, len, &addr);
    seen = e2e_captured(capture, buf, 2000, is_type, &too_big);
    CHECK(seen > 48 && buf[46] == 1280 >> 8 && buf[47] == (1280 & 0xff), "no answer with the MTU");
    packet[7] = 1;
    addr.Impostor = 1;
    CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_HOST_UNREACHABLE);
    addr.Impostor = 0;
    packet[7] = 0; /* as it would leave */
    e2e_send_packet(h, packet, len, &addr);
    CHECK(e2e_captured(capture, buf, 2000, is_type, &exceeded), "no answer when no hop is left");
    free(e2e_shell("b", "ip link set vbc mtu 1500"));
    CHECK_API(WinDivertClose(h));
}

const struct e2e_test e2e_pieces_tests[] = {
    {"pieces_out", pieces_out, 0},
    {"pieces_in", pieces_in, 0},
    {"pieces_forward", pieces_forward, 0},
    {"pieces_with_conntrack", pieces_with_conntrack, 60},
    {"pieces_translated_as_one", pieces_translated_as_one, 0},
    {"pieces_forbidden_out", pieces_forbidden_out, 0},
    {"pieces_forbidden_forward6", pieces_forbidden_forward6, 0},
    {"pieces_forbidden_returned", pieces_forbidden_returned, 0},
    {NULL, NULL, 0},
};
