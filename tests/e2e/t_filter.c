/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The filter decides exactly: each row is a filter and the same condition in
 * C.  60 different datagrams go by; what matches is delivered (or dropped),
 * what does not is neither delivered nor lost.
 */
#include "e2e.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct sample {
    bool v6;
    uint16_t dport;
    uint16_t size;
    uint8_t ttl;
    uint32_t number;
    uint8_t data[600];
};

struct where {
    bool outbound;
    unsigned ifindex;
};

#define SAMPLES 60
#define SPORT 4321

static struct sample samples[SAMPLES];

static void
make_samples(void)
{
    static const uint16_t sizes[] = {4, 99, 100, 101, 600};

    for (uint32_t i = 0; i < SAMPLES; i++) {
        struct sample *s = &samples[i];

        s->v6 = i & 1;
        s->ttl = i & 2 ? 5 : 64;
        s->dport = (uint16_t)(5000 + i / 4 % 3);
        s->size = sizes[i / 12];
        s->number = i;
        e2e_datagram(s->data, s->size, i);
    }
}

typedef bool (*predicate)(const struct sample *s, const struct where *w);

#define ROW(name, expr)                                                                                              \
    static bool name(const struct sample *s, const struct where *w)                                                  \
    {                                                                                                                \
        (void)s;                                                                                                     \
        (void)w;                                                                                                     \
        return expr;                                                                                                 \
    }

ROW(p_all, true)
ROW(p_none, false)
ROW(p_5001_long, s->dport == 5001 && s->size > 100)
ROW(p_two_ports, s->dport != 5000)
ROW(p_v6, s->v6)
ROW(p_v4, !s->v6)
ROW(p_v4_short, !s->v6 && s->size <= 100)
ROW(p_ttl, !s->v6 && s->ttl < 20)
ROW(p_hops, s->v6 && s->ttl == 5)
ROW(p_not_ttl, !s->v6 && s->ttl >= 20)
ROW(p_logical_not_ttl, s->v6 || s->ttl >= 20)
ROW(p_not_5001, s->dport != 5001)
ROW(p_inbound, !w->outbound)
ROW(p_outbound, w->outbound)
ROW(p_v4_over_500, !s->v6 && s->size + 28 > 500)
ROW(p_remote_v4, !s->v6 && w->outbound)
ROW(p_local_v6, s->v6 && !w->outbound)
ROW(p_remote_port, w->outbound && s->dport == 5002)
ROW(p_local_port, !w->outbound && s->dport == 5002)
ROW(p_number_7, s->number == 7)
ROW(p_last_byte, s->data[s->size - 1] < 128)
ROW(p_byte_100, s->size > 100 && s->data[100] >= 128)
ROW(p_choice, s->dport == 5000 ? s->size == 99 : s->size == 101)
ROW(p_length, s->size + (s->v6 ? 48 : 28) == 148)

struct row {
    const char *filter; /* %u stands for the interface */
    predicate match;
};

static const struct row rows[] = {
    {"true", p_all},
    {"false", p_none},
    {"udp", p_all},
    {"tcp or icmp or icmpv6", p_none},
    {"udp.DstPort == 5001 and udp.PayloadLength > 100", p_5001_long},
    {"udp.DstPort == 5001 or udp.DstPort == 5002", p_two_ports},
    {"udp.DstPort != 5001", p_not_5001},
    {"ipv6", p_v6},
    {"ip", p_v4},
    {"ip and udp.PayloadLength <= 100", p_v4_short},
    {"ip.TTL < 20", p_ttl},
    {"ipv6.HopLimit == 5", p_hops},
    {"not ip.TTL < 20", p_not_ttl},
    {"not (ip.TTL < 20)", p_logical_not_ttl},
    {"inbound", p_inbound},
    {"outbound", p_outbound},
    {"outbound and inbound", p_none},
    {"loopback", p_none},
    {"not loopback and not impostor and not fragment", p_all},
    {"ifIdx == %u", p_all},
    {"ifIdx != %u", p_none},
    {"ifIdx != 0", p_all},
    {"ifIdx == 0", p_none},
    {"ifIdx != 7777", p_all},
    {"ifIdx >= 1 and ifIdx != 4294967295", p_all},
    {"ifIdx == %u and udp.DstPort == 5001 and udp.PayloadLength > 100", p_5001_long},
    {"subIfIdx == 0", p_all},
    {"ip.DstAddr == 10.77.0.2 and length > 500", p_v4_over_500},
    {"ipv6.DstAddr == fd77::2 and ipv6.SrcAddr == fd77::1", p_v6},
    {"remoteAddr == 10.77.0.2", p_remote_v4},
    {"localAddr == fd77::2", p_local_v6},
    {"remotePort == 5002", p_remote_port},
    {"localPort == 5002", p_local_port},
    {"udp.SrcPort == 4321", p_all},
    {"udp.Payload32[0] == 0x07000000", p_number_7},
    {"udp.Payload[-1] < 128", p_last_byte},
    {"udp.Payload[100] >= 128", p_byte_100},
    {"packet[0] == 0x45", p_v4},
    {"length == 148", p_length},
    {"(udp.DstPort == 5000 ? udp.PayloadLength == 99 : udp.PayloadLength == 101)", p_choice},
    {"protocol == UDP and event == PACKET", p_all},
    {"timestamp > 0", p_all},
    {"timestamp < 0", p_none},
};

struct sockets {
    int tx[2], rx[2][3];
};

static struct sockets
open_sockets(void)
{
    static const char *const to[2] = {E2E_B4, E2E_B6};
    struct sockets s;

    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct sockaddr_storage any;
        socklen_t len = e2e_sockaddr(v6 ? E2E_A6 : E2E_A4, SPORT, &any);

        s.tx[v6] = e2e_socket("a", any.ss_family, SOCK_DGRAM, 0);
        CHECK(bind(s.tx[v6], (struct sockaddr *)&any, len) == 0, "bind: %s", strerror(errno));
        for (uint16_t port = 0; port < 3; port++)
            s.rx[v6][port] = e2e_udp_receiver("b", to[v6], (uint16_t)(5000 + port));
    }
    return s;
}

/* 0, or -1 when the packet was refused on the way out, as a dropping handle does. */
static int
send_sample(const struct sockets *so, const struct sample *s)
{
    int fd = so->tx[s->v6], ttl = s->ttl;
    struct sockaddr_storage to;
    socklen_t len = e2e_sockaddr(s->v6 ? E2E_B6 : E2E_B4, s->dport, &to);

    if (s->v6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &ttl, sizeof(ttl));
    else
        setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl));
    if (sendto(fd, s->data, s->size, 0, (struct sockaddr *)&to, len) == s->size)
        return 0;
    CHECK(errno == EPERM, "send of sample %u: %s", s->number, strerror(errno));
    return -1;
}

static void
expect_sample(const struct sockets *so, const struct sample *s, const char *filter)
{
    uint8_t buf[2048];
    ssize_t n = e2e_receive(so->rx[s->v6][s->dport - 5000], buf, sizeof(buf), 3000);

    CHECK(n == s->size && !memcmp(buf, s->data, s->size), "\"%s\": sample %u (%s, port %u, %u bytes, ttl %u): %s",
          filter, s->number, s->v6 ? "IPv6" : "IPv4", s->dport, s->size, s->ttl,
          n < 0 ? "did not arrive" : "another one arrived");
}

struct run {
    const struct row *row;
    const char *filter;
    struct where where;
    _Atomic unsigned seen[SAMPLES];
};

static bool
seen_sample(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct run *r = p->arg;
    struct e2e_view v;
    uint32_t i;

    (void)addr;
    CHECK(e2e_view(packet, *len, &v) && v.proto == IPPROTO_UDP && v.sport == SPORT, "\"%s\" delivered another packet",
          r->filter);
    memcpy(&i, packet + v.payload, 4);
    CHECK(i < SAMPLES && r->row->match(&samples[i], &r->where), "\"%s\" delivered sample %u, which does not match",
          r->filter, i);
    CHECK(r->seen[i]++ == 0, "\"%s\" delivered sample %u twice", r->filter, i);
    return true;
}

static bool
sniffed_sample(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    CHECK(addr->Sniffed, "not marked as sniffed");
    seen_sample(p, packet, len, addr);
    return false;
}

static unsigned
matching(const struct run *r)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SAMPLES; i++)
        n += r->row->match(&samples[i], &r->where);
    return n;
}

static void
deliver_row(const struct sockets *so, struct run *r, UINT64 flags)
{
    struct e2e_passer p = {.batch = 1, .arg = r, .edit = flags ? sniffed_sample : seen_sample};

    p.handle = e2e_open(r->filter, 0, flags);
    e2e_pass_start(&p);
    for (unsigned i = 0; i < SAMPLES; i++) {
        send_sample(so, &samples[i]);
        expect_sample(so, &samples[i], r->filter);
    }
    WAIT_UNTIL(p.received >= matching(r), 2000, "\"%s\" delivered %llu, expected %u", r->filter,
               (unsigned long long)p.received, matching(r));
    e2e_pass_stop(&p);
    CHECK(p.received == matching(r), "\"%s\" delivered %llu, expected %u", r->filter, (unsigned long long)p.received,
          matching(r));
}

static void
drop_row(const struct sockets *so, struct run *r)
{
    HANDLE h = e2e_open(r->filter, 0, WINDIVERT_FLAG_DROP);
    uint64_t dropped;

    for (unsigned i = 0; i < SAMPLES; i++) {
        bool match = r->row->match(&samples[i], &r->where);

        CHECK(send_sample(so, &samples[i]) == 0 || match, "\"%s\": sample %u was refused", r->filter, i);
        if (!match)
            expect_sample(so, &samples[i], r->filter);
    }
    WAIT_UNTIL((dropped = e2e_stats(h).DropFilter) >= matching(r), 1000, "\"%s\" dropped %llu, expected %u",
               r->filter, (unsigned long long)dropped, matching(r));
    CHECK(dropped == matching(r), "\"%s\" dropped %llu, expected %u", r->filter, (unsigned long long)dropped,
          matching(r));
    CHECK_API(WinDivertClose(h));
    for (unsigned k = 0; k < 6; k++)
        CHECK(e2e_drain(so->rx[k / 3][k % 3]) == 0, "\"%s\": a datagram to be dropped arrived", r->filter);
}

static void
all_rows(const char *ns, const char *ifname, UINT64 flags)
{
    struct where where = {*ns == 'a', e2e_ifindex(ns, ifname)};
    struct sockets so = open_sockets();

    make_samples();
    e2e_enter(ns);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct run r = {.row = &rows[i], .where = where};
        char filter[256], *at = strstr(rows[i].filter, "%u");

        snprintf(filter, sizeof(filter), "%s", rows[i].filter);
        if (at)
            snprintf(filter, sizeof(filter), "%.*s%u%s", (int)(at - rows[i].filter), rows[i].filter, where.ifindex,
                     at + 2);
        r.filter = filter;
        if (flags & WINDIVERT_FLAG_DROP)
            drop_row(&so, &r);
        else
            deliver_row(&so, &r, flags);
    }
}

static void
filter_divert_out(void)
{
    all_rows("a", "va", 0);
}

static void
filter_divert_in(void)
{
    all_rows("b", "vb", 0);
}

static void
filter_sniff_out(void)
{
    all_rows("a", "va", WINDIVERT_FLAG_SNIFF);
}

static void
filter_sniff_in(void)
{
    all_rows("b", "vb", WINDIVERT_FLAG_SNIFF);
}

static void
filter_drop_out(void)
{
    all_rows("a", "va", WINDIVERT_FLAG_DROP);
}

static void
filter_drop_in(void)
{
    all_rows("b", "vb", WINDIVERT_FLAG_DROP);
}

static bool
agrees_with_helper(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    CHECK(WinDivertHelperEvalFilter(p->arg, packet, *len, addr), "a delivered packet does not match %s",
          (const char *)p->arg);
    return !addr->Sniffed;
}

/* Chance decides by the timestamp that is delivered: half of the packets, and all of them match. */
static void
random_half(UINT64 flags)
{
    const uint32_t count = 10000;
    struct e2e_pump pump = {.count = count};
    struct e2e_passer p = {.batch = 16, .edit = agrees_with_helper, .arg = "udp.DstPort == 5001 and random8 < 128"};

    pump.rx = e2e_udp_receiver("b", E2E_B4, 5001);
    pump.tx = e2e_udp_sender("a", E2E_B4, 5001, 0);
    p.handle = e2e_open(p.arg, 0, flags);
    if (flags)
        CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_LENGTH, WINDIVERT_PARAM_QUEUE_LENGTH_MAX));
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
    CHECK(p.received > count / 2 - 400 && p.received < count / 2 + 400, "%llu of %u packets were delivered",
          (unsigned long long)p.received, count);
}

static void
filter_random(void)
{
    random_half(0);
}

static void
filter_random_sniff(void)
{
    random_half(WINDIVERT_FLAG_SNIFF);
}

/* From one time on, by a constant in the filter. */
static void
filter_timestamp(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, 5001), tx = e2e_udp_sender("a", E2E_B4, 5001, 0);
    int64_t edge = e2e_now_us() * 10 + 10000000; /* time enough to open, also on a busy machine */
    struct e2e_passer p = {.batch = 1};
    uint8_t buf[128];
    char filter[128];
    uint32_t before = 0, after = 0;

    snprintf(filter, sizeof(filter), "udp.DstPort == 5001 and timestamp >= %lld", (long long)edge);
    p.handle = e2e_open(filter, 0, 0);
    e2e_pass_start(&p);
    while (e2e_now_us() * 10 < edge + 2000000) {
        bool late = e2e_now_us() * 10 >= edge, early;

        CHECK(e2e_send(tx, 64, 0), "send");
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "a datagram did not arrive");
        early = e2e_now_us() * 10 + 10 < edge;
        before += early;
        after += late;
        CHECK(!early || p.received == 0, "a packet was delivered before its time");
        e2e_nap_us(500);
    }
    e2e_pass_stop(&p);
    CHECK(before > 10 && after > 10, "%u datagrams before, %u after", before, after);
    CHECK(p.received >= after && p.received <= after + 2, "%llu delivered, %u were sent after the time",
          (unsigned long long)p.received, after);
    e2e_marker(tx, rx);
}

/* Every SYN, and nothing but SYNs. */
static void
filter_tcp_syn(void)
{
    struct e2e_tcp tcp = {"a", "b", E2E_B4, 5001, 20, 4096, 0};
    struct e2e_passer p = {.batch = 1}, q = {.batch = 1};

    p.handle = e2e_open("outbound and tcp.Syn and !tcp.Ack", 0, 0);
    q.handle = e2e_open("inbound and tcp.Syn == 1 and tcp.Ack == 1", 1, 0);
    e2e_pass_start(&p);
    e2e_pass_start(&q);
    e2e_tcp_run(&tcp);
    e2e_pass_stop(&p);
    e2e_pass_stop(&q);
    CHECK(p.received == 20 && q.received == 20, "%llu SYNs and %llu SYN-ACKs for 20 connections",
          (unsigned long long)p.received, (unsigned long long)q.received);
}

static uint16_t
icmp_sum(const uint8_t *p, unsigned len)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < len; i += 2)
        sum += (uint32_t)(p[i] << 8 | p[i + 1]);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

/* Echo requests on their way in, replies on their way out. */
static void
filter_icmp(void)
{
    uint8_t echo[64] = {8, 0}, buf[256];
    struct e2e_passer in = {.batch = 1}, out = {.batch = 1};
    struct sockaddr_storage to;
    socklen_t len = e2e_sockaddr(E2E_B4, 0, &to);
    int fd = e2e_socket("a", AF_INET, SOCK_RAW, IPPROTO_ICMP);
    uint16_t sum = icmp_sum(echo, sizeof(echo));

    echo[2] = (uint8_t)(sum >> 8);
    echo[3] = (uint8_t)sum;
    e2e_enter("b");
    in.handle = e2e_open("icmp.Type == 8", 0, 0);
    out.handle = e2e_open("icmp.Type == 0", 0, 0);
    e2e_pass_start(&in);
    e2e_pass_start(&out);
    for (unsigned i = 0; i < 20; i++) {
        CHECK(sendto(fd, echo, sizeof(echo), 0, (struct sockaddr *)&to, len) == sizeof(echo), "send: %s",
              strerror(errno));
        CHECK(e2e_receive(fd, buf, sizeof(buf), 3000) == 84 && buf[20] == 0, "no reply to request %u", i);
    }
    e2e_pass_stop(&in);
    e2e_pass_stop(&out);
    CHECK(in.received == 20 && out.received == 20, "%llu requests, %llu replies", (unsigned long long)in.received,
          (unsigned long long)out.received);
}

/* 4,000 tests in one filter. */
static void
filter_4000_tests(void)
{
    struct e2e_pump pump = {.count = 500}, other = {.count = 500};
    struct e2e_passer p = {.batch = 1};
    char *filter = malloc(4000 * 32), *at = filter;

    CHECK(filter, "no memory");
    for (unsigned i = 0; i < 3999; i++)
        at += sprintf(at, "udp.DstPort == %u or ", 10000 + i);
    sprintf(at, "udp.DstPort == 5001");
    pump.rx = e2e_udp_receiver("b", E2E_B4, 5001);
    pump.tx = e2e_udp_sender("a", E2E_B4, 5001, 0);
    other.rx = e2e_udp_receiver("b", E2E_B4, 5002);
    other.tx = e2e_udp_sender("a", E2E_B4, 5002, 0);
    p.handle = e2e_open(filter, 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_udp_pump(&other);
    e2e_pass_stop(&p);
    CHECK(p.received == 500, "%llu packets, expected 500", (unsigned long long)p.received);
    e2e_marker(pump.tx, pump.rx);
    e2e_marker(other.tx, other.rx);
    free(filter);
}

/*
 * The compares in front of the program stand at fixed offsets: IPv4 options
 * and IPv6 extension headers must not lead past it.
 */
static void
options(const char *ip, int level, int option, const void *value, socklen_t len)
{
    int rx = e2e_udp_receiver("b", ip, 5001), tx = e2e_udp_sender("a", ip, 5001, 0);
    HANDLE h = e2e_open("outbound and udp.DstPort == 5001", 0, WINDIVERT_FLAG_DROP);

    CHECK(setsockopt(tx, level, option, value, len) == 0, "setsockopt: error %d", errno);
    CHECK(!e2e_send(tx, 64, 0) && errno == EPERM, "not dropped");
    CHECK(e2e_stats(h).DropFilter == 1, "%llu dropped", (unsigned long long)e2e_stats(h).DropFilter);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
filter_ip_options(void)
{
    static const uint8_t nops[4] = {1, 1, 1, 0};

    options(E2E_B4, IPPROTO_IP, IP_OPTIONS, nops, sizeof(nops));
}

static void
filter_extension_headers(void)
{
    static const uint8_t padding[8] = {0, 0, 1, 4}; /* next header and length are the kernel's to fill in */

    options(E2E_B6, IPPROTO_IPV6, IPV6_DSTOPTS, padding, sizeof(padding));
}

const struct e2e_test e2e_filter_tests[] = {
    {"filter_divert_out", filter_divert_out, 60},
    {"filter_divert_in", filter_divert_in, 60},
    {"filter_sniff_out", filter_sniff_out, 60},
    {"filter_sniff_in", filter_sniff_in, 60},
    {"filter_drop_out", filter_drop_out, 60},
    {"filter_drop_in", filter_drop_in, 60},
    {"filter_random", filter_random, 0},
    {"filter_random_sniff", filter_random_sniff, 0},
    {"filter_timestamp", filter_timestamp, 0},
    {"filter_tcp_syn", filter_tcp_syn, 0},
    {"filter_icmp", filter_icmp, 0},
    {"filter_ip_options", filter_ip_options, 0},
    {"filter_extension_headers", filter_extension_headers, 0},
    {"filter_4000_tests", filter_4000_tests, 0},
    {NULL, NULL, 0},
};
