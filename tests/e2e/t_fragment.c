/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What comes in in fragments: whole by default, singly with WINDIVERT_FLAG_FRAGMENTS; never both. */
#include "e2e.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define SIZE 4000 /* of a datagram: three fragments, of both IP versions */
#define PIECES 3
#define LOG_MAX 4096
#define FRAGMENTS WINDIVERT_FLAG_FRAGMENTS

static const char *const here[] = {E2E_A4, E2E_A6};

/* Packets that one handle received. */
struct log {
    struct e2e_passer passer;
    bool v6, sniffs;
    unsigned count;
    struct {
        bool fragment, more, impostor;
        unsigned offset, payload; /* bytes of what was taken apart */
        uint32_t id;
    } packet[LOG_MAX];
};

static unsigned
be16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static bool
take_down(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct log *log = p->arg;
    bool v6 = packet[0] >> 4 == 6;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v) && v.end == *len, "no packet, or cut");
    CHECK(v6 == log->v6 && addr->IPv6 == v6 && !addr->Outbound && !addr->Loopback, "wrong flags in the address");
    CHECK(addr->Network.IfIdx == e2e_ifindex("a", "va"), "interface %u", addr->Network.IfIdx);
    CHECK(addr->Sniffed == log->sniffs, "Sniffed is %u", addr->Sniffed);
    CHECK(log->count < LOG_MAX, "too many packets");
    log->packet[log->count].fragment = v.fragment;
    log->packet[log->count].impostor = addr->Impostor;
    log->packet[log->count].payload = v.end - v.transport;
    if (v.fragment) {
        unsigned field = v6 ? be16(packet + 42) : be16(packet + 6);

        log->packet[log->count].payload -= v6 ? 8 : 0;
        log->packet[log->count].offset = v6 ? field & ~7u : (field & 0x1fff) * 8;
        log->packet[log->count].more = field & (v6 ? 1 : 0x2000);
        memcpy(&log->packet[log->count].id, packet + (v6 ? 44 : 4), v6 ? 4 : 2);
    }
    log->count++;
    return !log->sniffs;
}

static struct log *
log_open(const char *filter, bool v6, INT16 priority, UINT64 flags)
{
    struct log *log = calloc(1, sizeof(*log));

    CHECK(log, "out of memory");
    log->v6 = v6;
    log->sniffs = flags & WINDIVERT_FLAG_SNIFF;
    log->passer = (struct e2e_passer){.batch = 16, .edit = take_down, .arg = log};
    log->passer.handle = e2e_open(filter, priority, flags);
    e2e_pass_start(&log->passer);
    return log;
}

/* Every datagram once, in pieces, in the order in which they were sent. */
static void
check_pieces(const struct log *log, unsigned datagrams, bool impostors)
{
    unsigned at = 0;

    CHECK(log->count == datagrams * PIECES, "%u packets for %u datagrams of %u fragments", log->count, datagrams,
          PIECES);
    for (unsigned i = 0; i < log->count; i++) {
        CHECK(log->packet[i].fragment, "packet %u is no fragment", i);
        CHECK(log->packet[i].impostor == impostors, "packet %u: Impostor is %u", i, log->packet[i].impostor);
        CHECK(log->packet[i].offset == at, "fragment %u is at %u, not %u", i, log->packet[i].offset, at);
        CHECK(log->packet[i].more == (i % PIECES < PIECES - 1), "fragment %u: more is %u", i, log->packet[i].more);
        CHECK(i % PIECES == 0 || log->packet[i].id == log->packet[i - 1].id, "fragment %u has another id", i);
        at = log->packet[i].more ? at + log->packet[i].payload : 0;
    }
}

static void
check_whole(const struct log *log, unsigned datagrams)
{
    CHECK(log->count == datagrams, "%u packets for %u datagrams", log->count, datagrams);
    for (unsigned i = 0; i < log->count; i++)
        CHECK(!log->packet[i].fragment && log->packet[i].payload == SIZE + 8, "packet %u: fragment %u, %u bytes", i,
              log->packet[i].fragment, log->packet[i].payload);
}

static size_t
size_fragmented(uint32_t i)
{
    (void)i;
    return SIZE;
}

static void
log_close(struct log *log)
{
    e2e_pass_stop(&log->passer);
    free(log);
}

static struct e2e_pump
pump_to(bool v6)
{
    struct e2e_pump pump = {.count = 200, .window = 8, .size = size_fragmented};

    pump.rx = e2e_udp_receiver("a", here[v6], PORT);
    pump.tx = e2e_udp_sender("b", here[v6], PORT, 0);
    e2e_stay_on_cpu();
    return pump;
}

static void
with_tracking(void)
{
    e2e_set_table("a", "chain c { type filter hook input priority 0; "
                       "ct state invalid counter drop; };");
}

/* One handle. */
static void
alone(bool v6, UINT64 flags, bool tracked)
{
    struct e2e_pump pump = pump_to(v6);
    struct log *log;

    if (tracked)
        with_tracking();
    log = log_open("udp or fragment", v6, 0, flags);
    e2e_udp_pump(&pump);
    WAIT_UNTIL(log->passer.received >= pump.count * (flags & FRAGMENTS ? PIECES : 1), 3000, "received too little");
    e2e_pass_stop(&log->passer);
    e2e_marker(pump.tx, pump.rx);
    if (flags & FRAGMENTS)
        check_pieces(log, pump.count, false);
    else
        check_whole(log, pump.count);
    free(log);
    if (tracked)
        e2e_delete_table("a");
}

static void
fragment_whole4(void)
{
    alone(false, 0, false);
}

static void
fragment_whole6(void)
{
    alone(true, 0, false);
}

static void
fragment_whole_tracked(void)
{
    alone(true, 0, true);
}

static void
fragment_single4(void)
{
    alone(false, FRAGMENTS, false);
}

static void
fragment_single6(void)
{
    alone(true, FRAGMENTS, false);
}

static void
fragment_single_tracked4(void)
{
    alone(false, FRAGMENTS, true);
}

static void
fragment_single_tracked6(void)
{
    alone(true, FRAGMENTS, true);
}

static void
fragment_sniff_whole(void)
{
    alone(true, WINDIVERT_FLAG_SNIFF, false);
}

static void
fragment_sniff_single4(void)
{
    alone(false, WINDIVERT_FLAG_SNIFF | FRAGMENTS, false);
}

static void
fragment_sniff_single6(void)
{
    alone(true, WINDIVERT_FLAG_SNIFF | FRAGMENTS, false);
}

/* Each handle gets what its own flag says, whichever is above. */
static void
together(bool v6, INT16 single_priority)
{
    struct e2e_pump pump = pump_to(v6);
    struct log *whole = log_open("udp or fragment", v6, 0, 0);
    struct log *single = log_open("udp or fragment", v6, single_priority, FRAGMENTS);
    struct log *single2 = log_open("inbound and (udp or fragment)", v6, single_priority, FRAGMENTS);
    struct log *sniffed = log_open("inbound and (udp or fragment)", v6, 20, WINDIVERT_FLAG_SNIFF);

    e2e_udp_pump(&pump);
    WAIT_UNTIL(sniffed->passer.received >= pump.count, 3000, "received too little");
    e2e_pass_stop(&whole->passer);
    e2e_pass_stop(&single->passer);
    e2e_pass_stop(&single2->passer);
    e2e_pass_stop(&sniffed->passer);
    check_whole(whole, pump.count);
    check_whole(sniffed, pump.count);
    check_pieces(single, pump.count, false);
    check_pieces(single2, pump.count, false);
    e2e_marker(pump.tx, pump.rx);
    free(whole);
    free(single);
    free(single2);
    free(sniffed);
}

static void
fragment_together4(void)
{
    together(false, -10);
}

static void
fragment_together6(void)
{
    together(true, 10);
}

/* Filters that read what only one of the two forms has. */
static void
fields(bool v6)
{
    static const char *const none[] = {"fragment", "ip.MF or ip.FragOff > 0"};
    static const char *const first[] = {"ipv6 and fragment and udp", "ip.MF and ip.FragOff == 0"};
    static const char *const last[] = {"ipv6 and fragment and protocol == 17 and not udp", "ip.FragOff > 0"};
    struct e2e_pump pump = pump_to(v6);
    struct log *whole = log_open(none[!v6], v6, 0, 0);
    struct log *whole_of_fragments = log_open("udp and not fragment", v6, 1, FRAGMENTS);
    struct log *beginning = log_open(first[!v6], v6, 2, FRAGMENTS);
    struct log *rest = log_open(last[!v6], v6, 3, FRAGMENTS);
    struct log *port = log_open("udp.DstPort == 5001", v6, 4, FRAGMENTS);

    e2e_udp_pump(&pump);
    log_close(whole_of_fragments);
    e2e_pass_stop(&whole->passer);
    e2e_pass_stop(&beginning->passer);
    e2e_pass_stop(&rest->passer);
    e2e_pass_stop(&port->passer);
    CHECK(whole->count == 0, "%u whole packets count as fragments", whole->count);
    CHECK(beginning->count == pump.count && port->count == pump.count, "%u and %u first fragments of %u",
          beginning->count, port->count, pump.count);
    CHECK(rest->count == pump.count * (PIECES - 1), "%u later fragments of %u", rest->count,
          pump.count * (PIECES - 1));
    for (unsigned i = 0; i < pump.count; i++)
        CHECK(beginning->packet[i].offset == 0 && beginning->packet[i].more && rest->packet[i].offset > 0,
              "datagram %u: wrong offsets", i);
    free(whole);
    free(beginning);
    free(rest);
    free(port);
}

static void
fragment_fields4(void)
{
    fields(false);
}

static void
fragment_fields6(void)
{
    fields(true);
}

/* What did not come in fragments is seen where it always is: once, behind NAT, under its own priority. */
static void
fragment_others(void)
{
    struct e2e_pump small = {.count = 500, .size = e2e_size_unfragmented};
    struct log *log;

    e2e_set_table("a", "chain n { type nat hook prerouting priority -100; "
                       "udp dport 7000 redirect to :5001; };");
    small.rx = e2e_udp_receiver("a", E2E_A4, PORT);
    small.tx = e2e_udp_sender("b", E2E_A4, 7000, 0);
    log = log_open("udp.DstPort == 5001", false, 0, FRAGMENTS);
    e2e_udp_pump(&small);
    e2e_pass_stop(&log->passer);
    CHECK(log->count == small.count, "%u packets for %u datagrams", log->count, small.count);
    free(log);
    e2e_delete_table("a");
}

/* Outbound the flag says nothing: datagrams are seen before they become fragments. */
static void
fragment_outbound(void)
{
    struct e2e_pump pump = {.count = 100, .window = 8, .size = size_fragmented};
    HANDLE h = e2e_open("outbound and udp", 0, FRAGMENTS | WINDIVERT_FLAG_SNIFF);
    uint8_t *buf = malloc(E2E_PACKET_MAX);
    WINDIVERT_ADDRESS addr;

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    e2e_udp_pump(&pump);
    for (unsigned i = 0; i < pump.count; i++)
        CHECK(e2e_recv_packet(h, buf, &addr) == SIZE + 28 && addr.Outbound, "packet %u is not whole", i);
    free(buf);
    CHECK_API(WinDivertClose(h));
}

/* Without its first or any other fragment a datagram does not arrive. */
static void
fragment_drop(void)
{
    struct e2e_pump small = {.count = 100};
    int rx[2], tx[2];
    HANDLE h;

    for (int v6 = 0; v6 < 2; v6++) {
        rx[v6] = e2e_udp_receiver("a", here[v6], PORT);
        tx[v6] = e2e_udp_sender("b", here[v6], PORT, 0);
    }
    h = e2e_open("fragment and not udp", 0, WINDIVERT_FLAG_DROP | FRAGMENTS);
    for (uint32_t i = 0; i < 50; i++)
        CHECK(e2e_send(tx[0], SIZE, i) && e2e_send(tx[1], SIZE, i), "send");
    small.rx = rx[0];
    small.tx = tx[0];
    e2e_udp_pump(&small); /* nothing else arrives */
    small.rx = rx[1];
    small.tx = tx[1];
    e2e_udp_pump(&small);
    CHECK(e2e_stats(h).DropFilter == 2 * 50 * (PIECES - 1), "%llu fragments dropped",
          (unsigned long long)e2e_stats(h).DropFilter);
    CHECK_API(WinDivertClose(h));
}

/* A fragment that is passed on is none to or from this machine. */
static void
fragment_forwarded(void)
{
    struct e2e_pump pump = {.count = 100, .window = 8, .size = size_fragmented};
    HANDLE h;

    pump.rx = e2e_udp_receiver("c", E2E_C6, PORT);
    pump.tx = e2e_udp_sender("a", E2E_C6, PORT, 0);
    e2e_enter("b");
    h = e2e_open("udp or fragment", 0, FRAGMENTS);
    e2e_udp_pump(&pump);
    CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_RECV));
    CHECK_ERROR(WinDivertRecv(h, NULL, 0, NULL, NULL), ERROR_NO_DATA);
    CHECK_API(WinDivertClose(h));
}

static bool
change_last_byte(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    (void)p, (void)addr;
    packet[*len - 1] ^= 0xff;
    return true;
}

/* A changed fragment is what arrives. */
static void
fragment_change(void)
{
    int rx = e2e_udp_receiver("a", E2E_A4, PORT), tx = e2e_udp_sender("b", E2E_A4, PORT, 0), on = 1;
    struct e2e_passer p = {.batch = 1, .edit = change_last_byte};
    uint8_t expected[SIZE], got[SIZE];

    CHECK(setsockopt(tx, SOL_SOCKET, SO_NO_CHECK, &on, sizeof(on)) == 0, "send without a checksum");
    p.handle = e2e_open("ip.FragOff > 0 and not ip.MF", 0, FRAGMENTS);
    e2e_pass_start(&p);
    for (uint32_t i = 0; i < 20; i++) {
        e2e_datagram(expected, SIZE, i);
        expected[SIZE - 1] ^= 0xff;
        CHECK(e2e_send(tx, SIZE, i), "send");
        CHECK(e2e_receive(rx, got, SIZE, 3000) == SIZE && memcmp(got, expected, SIZE) == 0, "datagram %u", i);
    }
    e2e_pass_stop(&p);
}

/* Fragments that a higher handle takes and sends as new ones come to the lower one as such, and not to itself. */
static bool
send_copy(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    WINDIVERT_ADDRESS copy = {.IPv6 = addr->IPv6, .IPChecksum = 1, .UDPChecksum = 1};

    copy.Network.IfIdx = addr->Network.IfIdx;
    e2e_send_packet(p->handle, packet, *len, &copy);
    return false;
}

static void
copies(bool v6)
{
    struct e2e_pump pump = pump_to(v6);
    struct log *lower = log_open("udp or fragment", v6, -1, FRAGMENTS);
    struct e2e_passer p = {.batch = 1, .edit = send_copy};

    p.handle = e2e_open("udp or fragment", 0, FRAGMENTS);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    e2e_pass_stop(&lower->passer);
    check_pieces(lower, pump.count, true);
    free(lower);
}

static void
fragment_copies4(void)
{
    copies(false);
}

static void
fragment_copies6(void)
{
    copies(true);
}

const struct e2e_test e2e_fragment_tests[] = {
    {"fragment_whole4", fragment_whole4, 0},
    {"fragment_whole6", fragment_whole6, 0},
    {"fragment_whole_tracked", fragment_whole_tracked, 0},
    {"fragment_single4", fragment_single4, 0},
    {"fragment_single6", fragment_single6, 0},
    {"fragment_single_tracked4", fragment_single_tracked4, 0},
    {"fragment_single_tracked6", fragment_single_tracked6, 0},
    {"fragment_sniff_whole", fragment_sniff_whole, 0},
    {"fragment_sniff_single4", fragment_sniff_single4, 0},
    {"fragment_sniff_single6", fragment_sniff_single6, 0},
    {"fragment_together4", fragment_together4, 0},
    {"fragment_together6", fragment_together6, 0},
    {"fragment_fields4", fragment_fields4, 0},
    {"fragment_fields6", fragment_fields6, 0},
    {"fragment_others", fragment_others, 0},
    {"fragment_outbound", fragment_outbound, 0},
    {"fragment_drop", fragment_drop, 0},
    {"fragment_forwarded", fragment_forwarded, 0},
    {"fragment_change", fragment_change, 0},
    {"fragment_copies4", fragment_copies4, 0},
    {"fragment_copies6", fragment_copies6, 0},
    {NULL, NULL, 0},
};
