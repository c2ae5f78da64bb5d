/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The *Checksum flags on Send: 0, the library fills in what is missing; 1, the
 * bytes go as they are.  Judged by the receiver: its kernel's counters, and what
 * its socket gets.
 */
#include "e2e.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define PORT 5001
#define SIZE 64

enum mode { RETURNED, NEW };
enum damage { WRONG_TRANSPORT = 1, WRONG_IP = 2 };

/* One flow from a, with the handle on it: to b, in a (outbound) or in b (inbound); to c, in b (forward). */
enum place { OUTBOUND, INBOUND, FORWARD };

struct flow {
    bool tcp, v6;
    enum place place;
    enum mode mode;
    int tx, rx, listener;
    HANDLE h;
};

/* How one packet is sent back: bits of the three flags, of enum damage. */
struct variant {
    unsigned flags, damage;
};

static const char *
receiver_ns(const struct flow *f)
{
    return f->place == FORWARD ? "c" : "b";
}

static const char *
receiver_ip(const struct flow *f)
{
    if (f->place == FORWARD)
        return f->v6 ? E2E_C6 : E2E_C4;
    return f->v6 ? E2E_B6 : E2E_B4;
}

static void
connect_tcp(struct flow *f)
{
    e2e_tcp_pair(f->listener, "a", receiver_ip(f), PORT, &f->tx, &f->rx);
}

/* With a reset, so that nothing is repeated. */
static void
disconnect_tcp(struct flow *f)
{
    const struct linger now = {1, 0};

    setsockopt(f->tx, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(f->tx);
    close(f->rx);
}

static void
flow_open(struct flow *f)
{
    const char *ns = receiver_ns(f), *ip = receiver_ip(f);

    if (f->tcp) {
        f->listener = e2e_tcp_listener(ns, ip, PORT);
        connect_tcp(f);
    } else {
        f->rx = e2e_udp_receiver(ns, ip, PORT);
        f->tx = e2e_udp_sender("a", ip, PORT, 0);
    }
    e2e_enter(f->place == OUTBOUND ? "a" : "b");
    f->h = e2e_open_at(f->place == FORWARD ? WINDIVERT_LAYER_NETWORK_FORWARD : WINDIVERT_LAYER_NETWORK,
                       f->tcp ? "tcp.DstPort == 5001 and tcp.PayloadLength > 0" : "udp.DstPort == 5001", 0, 0);
}

static void
flow_close(struct flow *f)
{
    CHECK_API(WinDivertClose(f->h));
    if (f->tcp) {
        disconnect_tcp(f);
        close(f->listener);
    } else {
        close(f->tx);
        close(f->rx);
    }
}

static uint64_t
bad_transport(const struct flow *f)
{
    return e2e_snmp(receiver_ns(f), f->tcp ? "Tcp" : f->v6 ? "Udp6" : "Udp", "InCsumErrors");
}

/* At the router or at the receiver. */
static uint64_t
bad_header(void)
{
    return e2e_snmp("b", "IpExt", "InCsumErrors") + e2e_snmp("c", "IpExt", "InCsumErrors");
}

/* Changes the payload, then what the sums are. */
static void
edit(const struct flow *f, const struct variant *how, uint8_t *packet, UINT len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    CHECK(e2e_view(packet, len, &v) && v.end - v.payload == SIZE, "not ours");
    for (unsigned i = v.payload; i < v.end; i++)
        packet[i] ^= 0x5a;
    e2e_fill_sums(packet);
    if (how->damage & WRONG_TRANSPORT)
        packet[v.transport + (f->tcp ? 16 : 6)] ^= 0x11;
    if (how->damage & WRONG_IP && !f->v6)
        packet[10] ^= 0x11;
    addr->IPChecksum = how->flags & 1;
    addr->TCPChecksum = how->flags >> 1 & 1;
    addr->UDPChecksum = how->flags >> 2 & 1;
    if (f->mode == NEW) {
        addr->Reserved2 = 0;
        memset(addr->Reserved3 + sizeof(addr->Network), 0, sizeof(addr->Reserved3) - sizeof(addr->Network));
    }
}

static void
pass_one(struct flow *f, const struct variant *how, uint32_t number)
{
    static uint8_t packet[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    UINT len;

    CHECK(e2e_send(f->tx, SIZE, number), "send: %s", strerror(errno));
    len = e2e_recv_packet(f->h, packet, &addr);
    edit(f, how, packet, len, &addr);
    e2e_send_packet(f->h, packet, len, &addr);
}

static void
expect_changed(struct flow *f, const char *what, uint32_t number)
{
    uint8_t want[SIZE], got[2 * SIZE];

    e2e_datagram(want, SIZE, number);
    for (unsigned i = 0; i < SIZE; i++)
        want[i] ^= 0x5a;
    CHECK(e2e_receive(f->rx, got, sizeof(got), 2000) == SIZE, "%s: it did not arrive", what);
    CHECK(memcmp(want, got, SIZE) == 0, "%s: other bytes arrived", what);
}

/*
 * The kernel writes the header sum of what it sends, checks it of what comes
 * in, and does neither with a packet that it had already when it was diverted:
 * there a wrong sum shows at the next host.
 */
static bool
header_counts(const struct flow *f)
{
    return !f->v6 && (f->place == FORWARD || (f->place == OUTBOUND) == (f->mode == RETURNED));
}

static void
one(struct flow *f, const struct variant *how, uint32_t number)
{
    bool wrong_ip = header_counts(f) && how->damage & WRONG_IP && how->flags & 1;
    bool wrong_transport = !wrong_ip && how->damage & WRONG_TRANSPORT && how->flags & (f->tcp ? 2 : 4);
    uint64_t ip = bad_header(), transport = bad_transport(f);
    static const char *const places[] = {"outbound", "inbound", "forward"};
    char what[128];

    snprintf(what, sizeof(what), "%s over IPv%u, %s, %s, flags %u, damage %u", f->tcp ? "TCP" : "UDP", f->v6 ? 6 : 4,
             places[f->place], f->mode == NEW ? "new" : "returned", how->flags, how->damage);
    pass_one(f, how, number);
    if (!wrong_ip && !wrong_transport)
        expect_changed(f, what, number);
    WAIT_UNTIL(bad_header() - ip == wrong_ip && bad_transport(f) - transport == wrong_transport, 1000,
               "%s: %llu wrong headers, %llu wrong transports", what, (unsigned long long)(bad_header() - ip),
               (unsigned long long)(bad_transport(f) - transport));
    if (!wrong_ip && !wrong_transport)
        return;
    if (!f->tcp) {
        CHECK(e2e_drain(f->rx) == 0, "%s: it arrived", what);
        return;
    }
    disconnect_tcp(f);
    connect_tcp(f);
}

static void
all_variants(struct flow f)
{
    uint32_t number = 0;

    flow_open(&f);
    for (unsigned flags = 0; flags < 8; flags++)
        for (unsigned damage = 0; damage < (f.v6 ? 2 : 4); damage++)
            one(&f, &(struct variant){flags, damage}, number++);
    flow_close(&f);
}

static void
all_flows(bool tcp, enum place place, bool offload)
{
    e2e_tx_checksum("a", "va", offload);
    for (unsigned i = 0; i < 4; i++)
        all_variants((struct flow){.tcp = tcp, .place = place, .v6 = i & 1, .mode = i & 2 ? NEW : RETURNED});
    e2e_tx_checksum("a", "va", true);
}

static void
sums_udp_out(void)
{
    all_flows(false, OUTBOUND, true);
    all_flows(false, OUTBOUND, false);
}

static void
sums_udp_in(void)
{
    all_flows(false, INBOUND, true);
    all_flows(false, INBOUND, false);
}

static void
sums_tcp_out(void)
{
    all_flows(true, OUTBOUND, true);
    all_flows(true, OUTBOUND, false);
}

static void
sums_tcp_in(void)
{
    all_flows(true, INBOUND, true);
    all_flows(true, INBOUND, false);
}

static void
sums_forward(void)
{
    all_flows(false, FORWARD, true);
    all_flows(false, FORWARD, false);
    all_flows(true, FORWARD, true);
    all_flows(true, FORWARD, false);
}

/* ---- Byte for byte ------------------------------------------------------- */

/* What one handle takes another sends, as it is: each packet goes on as a new one. */
static bool
by_other_handle(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    e2e_send_packet(p->arg, packet, *len, addr);
    return false;
}

static void
bulk(const char *handle_ns, const char *ip, bool new, size_t bytes)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = "b", .server_ip = ip, .port = PORT, .streams = 2, .bytes = bytes};
    struct e2e_passer p = {.batch = 1};

    e2e_enter(handle_ns);
    if (new) {
        p.arg = e2e_open("false", 0, WINDIVERT_FLAG_SEND_ONLY);
        p.edit = by_other_handle;
    }
    p.handle = e2e_open("tcp", 0, new ? WINDIVERT_FLAG_RECV_ONLY : 0);
    e2e_pass_start(&p);
    e2e_tcp_run(&t);
    e2e_pass_stop(&p);
    if (new)
        CHECK_API(WinDivertClose(p.arg));
    CHECK(p.received > 40, "%llu packets", (unsigned long long)p.received);
}

static void
bulk_everywhere(bool new, size_t bytes)
{
    uint64_t before[2] = {e2e_snmp("a", "Tcp", "InCsumErrors"), e2e_snmp("b", "Tcp", "InCsumErrors")};

    for (unsigned i = 0; i < 8; i++) {
        e2e_offload("a", "va", i & 1, i & 2, i & 4);
        e2e_offload("b", "vb", i & 1, i & 2, i & 4);
        bulk(i & 1 ? "a" : "b", i & 2 ? E2E_B4 : E2E_B6, new, bytes);
        bulk(i & 1 ? "a" : "b", i & 2 ? E2E_B6 : E2E_B4, new, bytes);
    }
    e2e_offload("a", "va", true, true, false);
    e2e_offload("b", "vb", true, true, false);
    CHECK(e2e_snmp("a", "Tcp", "InCsumErrors") == before[0] && e2e_snmp("b", "Tcp", "InCsumErrors") == before[1],
          "wrong checksums arrived");
}

static void
sums_bulk_returned(void)
{
    bulk_everywhere(false, 4 << 20);
}

static void
sums_bulk_new(void)
{
    bulk_everywhere(true, 2 << 20);
}

/* ---- UDP aggregates ------------------------------------------------------ */

#define SEGMENT 500
#define SEGMENTS 5 /* the last is shorter */
#define AGGREGATE (SEGMENT * SEGMENTS - 100)

struct udp_edit {
    bool change, new;
};

static bool
edit_aggregate(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct udp_edit *e = p->arg;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    CHECK(v.end - v.payload == SEGMENT || v.end - v.payload == SEGMENT - 100, "a datagram of %u bytes",
          v.end - v.payload);
    for (unsigned i = v.payload; e->change && i < v.end; i++)
        packet[i] ^= 0x5a;
    if (e->change)
        CHECK_API(WinDivertHelperCalcChecksums(packet, *len, addr, 0));
    if (e->new)
        memset(addr->Reserved3 + sizeof(addr->Network), 0, sizeof(addr->Reserved3) - sizeof(addr->Network));
    return true;
}

/*
 * What an application sends in one piece for the kernel to cut (UDP_SEGMENT) comes
 * to the handle, and arrives, in its datagrams.
 */
static void
udp_aggregate(const char *ns, bool v6, struct udp_edit e)
{
    const char *ip = v6 ? E2E_B6 : E2E_B4;
    int tx = e2e_udp_sender("a", ip, PORT, 0), rx = e2e_udp_receiver("b", ip, PORT), size = SEGMENT;
    struct e2e_passer p = {.batch = 1, .edit = edit_aggregate, .arg = &e};
    uint8_t want[AGGREGATE], got[2 * AGGREGATE];

    CHECK(setsockopt(tx, SOL_UDP, UDP_SEGMENT, &size, sizeof(size)) == 0, "UDP_SEGMENT: %s", strerror(errno));
    e2e_enter(ns);
    p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    for (uint32_t n = 0; n < 20; n++) {
        CHECK(e2e_send(tx, AGGREGATE, n), "send: %s", strerror(errno));
        e2e_datagram(want, AGGREGATE, n);
        for (unsigned i = 0; e.change && i < AGGREGATE; i++)
            want[i] ^= 0x5a;
        for (unsigned i = 0; i < SEGMENTS; i++) {
            ssize_t len = e2e_receive(rx, got, sizeof(got), 1000);

            CHECK(len == (i < SEGMENTS - 1 ? SEGMENT : SEGMENT - 100),
                  "in %s, IPv%u, change %u, new %u: piece %u has %zd bytes", ns, v6 ? 6 : 4, e.change, e.new, i, len);
            CHECK(memcmp(got, want + i * SEGMENT, (size_t)len) == 0, "piece %u: other bytes", i);
        }
    }
    e2e_pass_stop(&p);
    CHECK(p.received == 20 * SEGMENTS, "%llu packets, not %u", (unsigned long long)p.received, 20 * SEGMENTS);
    close(tx);
    close(rx);
}

static void
sums_udp_aggregates(void)
{
    for (unsigned i = 0; i < 4; i++) {
        udp_aggregate(i & 1 ? "a" : "b", i & 2, (struct udp_edit){0});
        udp_aggregate(i & 1 ? "a" : "b", i & 2, (struct udp_edit){.change = true});
    }
}

static void
sums_udp_aggregates_new(void)
{
    for (unsigned i = 0; i < 4; i++)
        udp_aggregate(i & 1 ? "a" : "b", i & 2, (struct udp_edit){.new = true});
}

const struct e2e_test e2e_sums_tests[] = {
    {"sums_udp_out", sums_udp_out, 0},
    {"sums_udp_in", sums_udp_in, 0},
    {"sums_tcp_out", sums_tcp_out, 0},
    {"sums_tcp_in", sums_tcp_in, 0},
    {"sums_forward", sums_forward, 0},
    {"sums_udp_aggregates", sums_udp_aggregates, 0},
    {"sums_udp_aggregates_new", sums_udp_aggregates_new, 0},
    {"sums_bulk_returned", sums_bulk_returned, 60},
    {"sums_bulk_new", sums_bulk_new, 60},
    {NULL, NULL, 0},
};
