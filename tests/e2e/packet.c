/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Packets seen and made without the library's helpers, so that they judge it independently. */
#include "e2e.h"

#include <arpa/inet.h>
#include <string.h>

static uint16_t
be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void
put16(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static bool
view_transport(const uint8_t *packet, unsigned len, struct e2e_view *v)
{
    unsigned at = v->transport;

    v->payload = at;
    if (v->proto == IPPROTO_UDP && at + 8 <= len)
        v->payload = at + 8;
    if (v->proto == IPPROTO_TCP && at + 20 <= len)
        v->payload = at + (packet[at + 12] >> 4) * 4u;
    if (v->payload > at) {
        v->sport = be16(packet + at);
        v->dport = be16(packet + at + 2);
    }
    return true;
}

bool
e2e_view(const uint8_t *packet, unsigned len, struct e2e_view *ret_view)
{
    struct e2e_view v = {0};

    if (len >= 20 && packet[0] >> 4 == 4) {
        v.transport = (packet[0] & 15u) * 4;
        v.proto = packet[9];
        v.ttl = packet[8];
        v.end = be16(packet + 2);
        v.fragment = be16(packet + 6) & 0x3fff;
    } else if (len >= 40 && packet[0] >> 4 == 6) {
        v.v6 = true;
        v.transport = 40;
        v.proto = packet[6];
        v.ttl = packet[7];
        v.end = 40u + be16(packet + 4);
        v.fragment = v.proto == IPPROTO_FRAGMENT;
    } else {
        return false;
    }
    *ret_view = v;
    return v.fragment || view_transport(packet, len, ret_view);
}

static uint64_t
add_words(uint64_t sum, const uint8_t *p, unsigned len)
{
    for (; len > 1; p += 2, len -= 2)
        sum += be16(p);
    return len ? sum + (unsigned)p[0] * 256 : sum;
}

static uint16_t
fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

bool
e2e_ip_sum_right(const uint8_t *packet, const struct e2e_view *v)
{
    return fold(add_words(0, packet, v->transport)) == 0xffff;
}

/* With the pseudo header, which ICMP over IPv4 has not. */
static uint16_t
transport_sum(const uint8_t *packet, const struct e2e_view *v)
{
    unsigned len = v->end - v->transport;
    uint64_t sum = (uint64_t)len + v->proto;

    sum = v->v6 ? add_words(sum, packet + 8, 32) : add_words(sum, packet + 12, 8);
    if (v->proto == IPPROTO_ICMP)
        sum = 0;
    return fold(add_words(sum, packet + v->transport, len));
}

bool
e2e_transport_sum_right(const uint8_t *packet, const struct e2e_view *v)
{
    return transport_sum(packet, v) == 0xffff;
}

unsigned
e2e_udp_resize(uint8_t *packet, const struct e2e_view *v, unsigned payload)
{
    unsigned len = v->transport + 8 + payload;

    put16(packet + v->transport + 4, 8 + payload);
    if (v->v6)
        put16(packet + 4, len - 40);
    else
        put16(packet + 2, len);
    return len;
}

unsigned
e2e_make_ip(uint8_t *packet, const char *src, const char *dst, uint8_t proto, unsigned len)
{
    bool v6 = strchr(src, ':') != NULL;

    memset(packet, 0, 40);
    if (v6) {
        packet[0] = 0x60;
        put16(packet + 4, len);
        packet[6] = proto;
        packet[7] = 64;
        CHECK(inet_pton(AF_INET6, src, packet + 8) == 1 && inet_pton(AF_INET6, dst, packet + 24) == 1, "address");
        return 40;
    }
    packet[0] = 0x45;
    put16(packet + 2, 20 + len);
    packet[8] = 64;
    packet[9] = proto;
    CHECK(inet_pton(AF_INET, src, packet + 12) == 1 && inet_pton(AF_INET, dst, packet + 16) == 1, "address");
    return 20;
}

unsigned
e2e_make_udp(uint8_t *packet, const char *src, uint16_t sport, const char *dst, uint16_t dport, const void *payload,
             unsigned len)
{
    unsigned at = e2e_make_ip(packet, src, dst, IPPROTO_UDP, 8 + len);

    put16(packet + at, sport);
    put16(packet + at + 2, dport);
    put16(packet + at + 4, 8 + len);
    put16(packet + at + 6, 0);
    memcpy(packet + at + 8, payload, len);
    return at + 8 + len;
}

unsigned
e2e_make_icmp(uint8_t *packet, const char *src, const char *dst, uint8_t type, uint8_t code, uint32_t word,
              const void *body, unsigned len)
{
    unsigned at = e2e_make_ip(packet, src, dst, strchr(src, ':') ? IPPROTO_ICMPV6 : IPPROTO_ICMP, 8 + len);

    packet[at] = type;
    packet[at + 1] = code;
    put16(packet + at + 4, word >> 16);
    put16(packet + at + 6, word);
    memcpy(packet + at + 8, body, len);
    e2e_fill_sums(packet);
    return at + 8 + len;
}

/* Where the checksum of a transport is, in its header. */
static unsigned
sum_offset(uint8_t proto)
{
    return proto == IPPROTO_TCP ? 16 : proto == IPPROTO_UDP ? 6 : 2;
}

void
e2e_fill_sums(uint8_t *packet)
{
    struct e2e_view v;
    uint8_t *sum;
    uint16_t value;

    CHECK(e2e_view(packet, E2E_PACKET_MAX, &v), "no packet");
    if (!v.v6) {
        put16(packet + 10, 0);
        put16(packet + 10, (uint16_t)~fold(add_words(0, packet, v.transport)));
    }
    if (v.fragment)
        return;
    sum = packet + v.transport + sum_offset(v.proto);
    put16(sum, 0);
    value = (uint16_t)~transport_sum(packet, &v);
    put16(sum, value || v.proto != IPPROTO_UDP ? value : 0xffff);
}

static void
swap_bytes(uint8_t *a, uint8_t *b, unsigned len)
{
    for (; len; len--, a++, b++) {
        uint8_t keep = *a;

        *a = *b;
        *b = keep;
    }
}

void
e2e_swap_ends(uint8_t *packet)
{
    struct e2e_view v;

    CHECK(e2e_view(packet, E2E_PACKET_MAX, &v), "no packet");
    swap_bytes(packet + (v.v6 ? 8 : 12), packet + (v.v6 ? 24 : 16), v.v6 ? 16 : 4);
    if (v.proto == IPPROTO_TCP || v.proto == IPPROTO_UDP)
        swap_bytes(packet + v.transport, packet + v.transport + 2, 2);
}

unsigned
e2e_make_reset(uint8_t *packet)
{
    struct e2e_view v;
    uint8_t *tcp;
    unsigned len;

    e2e_swap_ends(packet);
    CHECK(e2e_view(packet, E2E_PACKET_MAX, &v) && v.proto == IPPROTO_TCP, "no TCP packet");
    tcp = packet + v.transport;
    memcpy(tcp + 8, tcp + 4, 4);
    for (unsigned i = 11; i >= 8 && ++tcp[i] == 0; i--)
        ;
    memset(tcp + 4, 0, 4);
    tcp[12] = 5 << 4;
    tcp[13] = 0x14; /* RST, ACK */
    memset(tcp + 14, 0, 6);
    len = v.transport + 20;
    put16(packet + (v.v6 ? 4 : 2), v.v6 ? 20 : len);
    e2e_fill_sums(packet);
    return len;
}

WINDIVERT_ADDRESS
e2e_new_outbound(bool v6)
{
    WINDIVERT_ADDRESS addr;

    memset(&addr, 0, sizeof(addr));
    addr.Outbound = 1;
    addr.IPv6 = v6;
    return addr;
}

WINDIVERT_ADDRESS
e2e_new_inbound(bool v6, const char *ns, const char *ifname)
{
    WINDIVERT_ADDRESS addr = e2e_new_outbound(v6);

    addr.Outbound = 0;
    addr.Network.IfIdx = e2e_ifindex(ns, ifname);
    return addr;
}
