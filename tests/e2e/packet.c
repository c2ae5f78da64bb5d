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

bool
e2e_transport_sum_right(const uint8_t *packet, const struct e2e_view *v)
{
    unsigned len = v->end - v->transport;
    uint64_t sum = (uint64_t)len + v->proto;

    sum = v->v6 ? add_words(sum, packet + 8, 32) : add_words(sum, packet + 12, 8);
    return fold(add_words(sum, packet + v->transport, len)) == 0xffff;
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
e2e_make_udp(uint8_t *packet, const char *src, uint16_t sport, const char *dst, uint16_t dport, const void *payload,
             unsigned len)
{
    struct e2e_view v = {.transport = 40, .v6 = strchr(src, ':') != NULL};

    memset(packet, 0, 48);
    if (v.v6) {
        packet[0] = 0x60;
        packet[6] = IPPROTO_UDP;
        packet[7] = 64;
        CHECK(inet_pton(AF_INET6, src, packet + 8) == 1 && inet_pton(AF_INET6, dst, packet + 24) == 1, "address");
    } else {
        v.transport = 20;
        packet[0] = 0x45;
        packet[8] = 64;
        packet[9] = IPPROTO_UDP;
        CHECK(inet_pton(AF_INET, src, packet + 12) == 1 && inet_pton(AF_INET, dst, packet + 16) == 1, "address");
    }
    put16(packet + v.transport, sport);
    put16(packet + v.transport + 2, dport);
    memcpy(packet + v.transport + 8, payload, len);
    return e2e_udp_resize(packet, &v, len);
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
