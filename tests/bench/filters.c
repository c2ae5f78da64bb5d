/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "filters.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define TEXT_PER_TEST 160
#define GROUP 3 /* tests of a group of FILTER_MIX */

#define SYN 0x02
#define ACK 0x10

const char *
filter_shape_name(enum filter_shape shape)
{
    return shape == FILTER_PORTS ? "ports" : "mix";
}

/* Group or port i; not next to each other, so that they are no range. */
static unsigned
port_of(unsigned i)
{
    return 1000 + 7 * i;
}

static uint32_t
address_of(unsigned i)
{
    return 0x0A4D0000 + i;
}

/* ---- Texts ------------------------------------------------------------------- */

struct text {
    char *start;
    size_t len, room;
};

static void __attribute__((format(printf, 2, 3))) add(struct text *text, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    text->len += (size_t)vsnprintf(text->start + text->len, text->room - text->len, fmt, ap);
    va_end(ap);
    if (text->len >= text->room)
        bench_fail("filters: a text is longer than expected");
}

/* Formats with address and port of group i. */
static const char *const ours_groups[GROUP] = {
    "(ip.DstAddr == %s and tcp.DstPort == %u and tcp.Syn)",
    "(ip.SrcAddr == %s and udp.DstPort == %u and ip.TTL < 200)",
    "(ip.DstAddr == %s and tcp.SrcPort == %u and tcp.PayloadLength > 0)",
};
static const char *const pcap_groups[GROUP] = {
    "(ip dst host %s and tcp dst port %u and tcp[13] & 2 != 0)",
    "(ip src host %s and udp dst port %u and ip[8] < 200)",
    "(ip dst host %s and tcp src port %u and ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) > 0)",
};

/* format: of an address, or of an address and a port */
static void
add_group(struct text *text, const char *format, unsigned i)
{
    struct in_addr addr = {htonl(address_of(i))};
    char name[INET_ADDRSTRLEN];

    inet_ntop(AF_INET, &addr, name, sizeof(name));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    add(text, format, name, port_of(i));
#pragma GCC diagnostic pop
}

static void
add_mix(struct text *text, unsigned tests, const char *const groups[GROUP], const char *single)
{
    for (unsigned i = 0; i < tests % GROUP; i++) {
        add_group(text, single, tests + i);
        add(text, tests / GROUP || i + 1 < tests % GROUP ? " or " : "");
    }
    for (unsigned i = 0; i < tests / GROUP; i++) {
        add(text, i ? " or " : "");
        add_group(text, groups[i % GROUP], i);
    }
}

static void
add_ports(struct text *text, unsigned tests, const char *format)
{
    for (unsigned i = 0; i < tests; i++) {
        add(text, i ? " or " : "");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        add(text, format, port_of(i));
#pragma GCC diagnostic pop
    }
}

static char *
make_text(enum filter_shape shape, unsigned tests, bool negate, bool pcap)
{
    struct text text = {.room = TEXT_PER_TEST * (tests + 1)};

    text.start = malloc(text.room);
    if (!text.start)
        bench_fail("no memory");
    add(&text, negate ? "not (" : "");
    if (shape == FILTER_PORTS)
        add_ports(&text, tests, pcap ? "tcp dst port %u" : "tcp.DstPort == %u");
    else
        add_mix(&text, tests, pcap ? pcap_groups : ours_groups, pcap ? "ip dst host %s" : "ip.DstAddr == %s");
    add(&text, negate ? ")" : "");
    return text.start;
}

struct filter_texts
filter_texts(enum filter_shape shape, unsigned tests, bool negate)
{
    return (struct filter_texts){make_text(shape, tests, negate, false), make_text(shape, tests, negate, true)};
}

void
filter_texts_free(struct filter_texts *texts)
{
    free(texts->ours);
    free(texts->pcap);
}

/* ---- Packets ----------------------------------------------------------------- */

struct flow {
    bool v6;
    uint8_t protocol, ttl, flags, payload;
    uint32_t src, dst; /* IPv6: the last four bytes */
    unsigned sport, dport;
};

static void
put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void
put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xFFFF);
}

static void
put_ip(uint8_t *packet, const struct flow *flow, size_t behind)
{
    if (flow->v6) {
        packet[0] = 0x60;
        put16(packet + 4, (unsigned)behind);
        packet[6] = flow->protocol;
        packet[7] = flow->ttl;
        packet[8] = packet[24] = 0xFD;
        put32(packet + 20, flow->src);
        put32(packet + 36, flow->dst);
    } else {
        packet[0] = 0x45;
        put16(packet + 2, 20 + (unsigned)behind);
        packet[8] = flow->ttl;
        packet[9] = flow->protocol;
        put32(packet + 12, flow->src);
        put32(packet + 16, flow->dst);
    }
}

static size_t
put_packet(uint8_t *packet, const struct flow *flow)
{
    bool tcp = flow->protocol == IPPROTO_TCP;
    size_t ip_len = flow->v6 ? 40 : 20, behind = (tcp ? 20 : 8) + (size_t)flow->payload;
    uint8_t *l4 = packet + ip_len;

    memset(packet, 0, FILTER_PACKET_MAX);
    put_ip(packet, flow, behind);
    put16(l4, flow->sport);
    put16(l4 + 2, flow->dport);
    if (tcp) {
        l4[12] = 0x50;
        l4[13] = flow->flags;
    } else {
        put16(l4 + 4, (unsigned)behind);
    }
    return ip_len + behind;
}

/* Matches no filter. */
static const struct flow elsewhere = {.protocol = IPPROTO_TCP,
                                      .ttl = 220,
                                      .flags = ACK,
                                      .src = 0x0A000001,
                                      .dst = 0x0A000002,
                                      .sport = 40000,
                                      .dport = 443};

static struct flow
matching_group(unsigned i)
{
    struct flow flow = elsewhere;

    *(i % GROUP == 1 ? &flow.src : &flow.dst) = address_of(i);
    *(i % GROUP == 2 ? &flow.sport : &flow.dport) = port_of(i);
    flow.flags = SYN;
    flow.ttl = 60;
    flow.payload = 20;
    flow.protocol = i % GROUP == 1 ? IPPROTO_UDP : IPPROTO_TCP;
    return flow;
}

size_t
filter_packet(enum filter_shape shape, unsigned tests, enum filter_packet which, uint8_t *ret_packet)
{
    struct flow flow = elsewhere;

    if (which == FILTER_PACKET_LAST && shape == FILTER_PORTS)
        flow.dport = port_of(tests - 1);
    else if (which == FILTER_PACKET_LAST && tests < GROUP)
        flow.dst = address_of(tests + tests - 1);
    else if (which == FILTER_PACKET_LAST)
        flow = matching_group(tests / GROUP - 1);
    return put_packet(ret_packet, &flow);
}

static uint32_t
random_below(uint32_t *state, uint32_t limit)
{
    *state = *state * 1664525 + 1013904223;
    return (*state >> 8) % limit;
}

/* Most are a match of some group with one thing changed. */
size_t
filter_sample(unsigned tests, unsigned number, uint8_t *ret_packet)
{
    uint32_t random = number * 2654435761u;
    struct flow flow = matching_group(random_below(&random, tests + 2));

    switch (random_below(&random, 10)) {
    case 0:
        flow.v6 = true;
        break;
    case 1:
        flow.protocol ^= IPPROTO_TCP ^ IPPROTO_UDP;
        break;
    case 2:
        flow.ttl = 220;
        flow.flags = ACK;
        flow.payload = 0;
        break;
    case 3:
        flow.dst ^= 1;
        break;
    case 4:
        flow.dport += random_below(&random, 3) - 1;
        break;
    case 5:
        flow.protocol = IPPROTO_ICMP;
        break;
    case 6:
        flow.dst = address_of(tests);
        break;
    default:
        break;
    }
    return put_packet(ret_packet, &flow);
}
