/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Flows of which the rest is skipped, and handles that want only the first packets of each. */
#include "e2e.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define SOURCE 6001
#define ROUNDS 50
#define FIRST 5

/* A pair of sockets that answer each other: one flow. */
struct pair {
    int client, server;
    struct sockaddr_storage to_client;
    socklen_t len;
};

static void
pair_open(struct pair *p, const char *client_ip, const char *server_ip, uint16_t port)
{
    p->server = e2e_udp_receiver("b", server_ip, port);
    p->client = e2e_udp_sender("a", server_ip, port, (uint16_t)(port + SOURCE - PORT));
    p->len = e2e_sockaddr(client_ip, (uint16_t)(port + SOURCE - PORT), &p->to_client);
}

/* One datagram each way; false: one did not arrive. */
static bool
exchange(struct pair *p, unsigned ms)
{
    uint8_t buf[128];

    if (!e2e_send(p->client, 64, 1) || e2e_receive(p->server, buf, sizeof(buf), ms) != 64)
        return false;
    CHECK(sendto(p->server, buf, 64, 0, (struct sockaddr *)&p->to_client, p->len) == 64, "answer: %s",
          strerror(errno));
    return e2e_receive(p->client, buf, sizeof(buf), ms) == 64;
}

static void
exchange_all(struct pair *p, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        CHECK(exchange(p, 2000), "round %u: a datagram is missing", i);
}

static void
check_stats(HANDLE h, UINT64 matched, UINT64 packets, UINT64 flows)
{
    WINDIVERT_EXT_STATS s = e2e_stats(h);

    CHECK(s.Matched == matched && s.SkippedPackets == packets && s.SkippedFlows == flows,
          "matched %llu, skipped %llu packets of %llu flows; expected %llu, %llu, %llu",
          (unsigned long long)s.Matched, (unsigned long long)s.SkippedPackets, (unsigned long long)s.SkippedFlows,
          (unsigned long long)matched, (unsigned long long)packets, (unsigned long long)flows);
}

struct skipper {
    uint16_t port; /* the flow with this port is skipped with its first packet; 0: none */
};

static bool
skip_first(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    const struct skipper *s = p->arg;
    struct e2e_view v;

    (void)addr;
    CHECK(e2e_view(packet, *len, &v), "no packet");
    if (s->port && (v.dport == s->port || v.sport == s->port))
        CHECK_API(WinDivertExtSkipFlow(p->handle, packet, *len));
    return !addr->Sniffed;
}

static void
skip_udp(const char *ns, UINT64 flags, const char *client_ip, const char *server_ip)
{
    struct skipper s = {.port = PORT};
    struct e2e_passer p = {.batch = 1, .edit = skip_first, .arg = &s};
    struct pair one, two;

    pair_open(&one, client_ip, server_ip, PORT);
    pair_open(&two, client_ip, server_ip, PORT + 1);
    e2e_enter(ns);
    p.handle = e2e_open("udp", 0, flags);
    e2e_pass_start(&p);
    exchange_all(&one, 1);
    WAIT_UNTIL(e2e_stats(p.handle).SkippedFlows == 1, 2000, "the flow is not skipped");
    e2e_nap_us(20000);
    p.received = 0;
    WINDIVERT_EXT_STATS before = e2e_stats(p.handle);
    exchange_all(&one, ROUNDS);
    exchange_all(&two, ROUNDS);
    WAIT_UNTIL(p.received >= 2 * ROUNDS, 2000, "%llu packets were seen", (unsigned long long)p.received);
    check_stats(p.handle, before.Matched + 2 * ROUNDS, before.SkippedPackets + 2 * ROUNDS, 1);
    CHECK_API(WinDivertExtSetFilter(p.handle, "udp.DstPort == 5001"));
    exchange_all(&one, ROUNDS);
    check_stats(p.handle, before.Matched + 2 * ROUNDS, before.SkippedPackets + 3 * ROUNDS, 1);
    e2e_pass_stop(&p);
    CHECK(p.received == 2 * ROUNDS, "%llu packets were seen", (unsigned long long)p.received);
}

static void
flow_skip4_out(void)
{
    skip_udp("a", 0, E2E_A4, E2E_B4);
}

static void
flow_skip6_in(void)
{
    skip_udp("b", 0, E2E_A6, E2E_B6);
}

static void
flow_skip4_sniff(void)
{
    skip_udp("b", WINDIVERT_FLAG_SNIFF, E2E_A4, E2E_B4);
}

static void
flow_skip6_sniff(void)
{
    skip_udp("a", WINDIVERT_FLAG_SNIFF, E2E_A6, E2E_B6);
}

static void
first_udp(const char *ns, UINT64 flags, const char *client_ip, const char *server_ip)
{
    struct skipper s = {0};
    struct e2e_passer p = {.batch = 64, .edit = skip_first, .arg = &s};
    struct pair one, two;
    UINT64 limit;

    pair_open(&one, client_ip, server_ip, PORT);
    pair_open(&two, client_ip, server_ip, PORT + 1);
    e2e_enter(ns);
    p.handle = e2e_open("udp", 0, flags);
    CHECK_API(WinDivertExtSetParam(p.handle, WINDIVERT_EXT_PARAM_FLOW_PACKETS, FIRST));
    CHECK_API(WinDivertExtGetParam(p.handle, WINDIVERT_EXT_PARAM_FLOW_PACKETS, &limit));
    CHECK(limit == FIRST, "the limit is %llu", (unsigned long long)limit);
    e2e_pass_start(&p);
    exchange_all(&one, ROUNDS);
    exchange_all(&two, 2);
    WAIT_UNTIL(p.received >= FIRST + 4, 2000, "%llu packets were seen", (unsigned long long)p.received);
    check_stats(p.handle, FIRST + 4, 2 * ROUNDS - FIRST, 2);
    CHECK_API(WinDivertExtSetParam(p.handle, WINDIVERT_EXT_PARAM_FLOW_PACKETS, 0));
    exchange_all(&one, 1);
    WAIT_UNTIL(p.received >= FIRST + 6, 2000, "%llu packets were seen", (unsigned long long)p.received);
    e2e_pass_stop(&p);
    CHECK(p.received == FIRST + 6, "%llu packets were seen", (unsigned long long)p.received);
}

static void
flow_first4(void)
{
    first_udp("a", 0, E2E_A4, E2E_B4);
}

static void
flow_first6(void)
{
    first_udp("b", 0, E2E_A6, E2E_B6);
}

static void
flow_first4_sniff(void)
{
    first_udp("a", WINDIVERT_FLAG_SNIFF, E2E_A4, E2E_B4);
}

/* Four connections, of each so many packets, whatever way they go. */
static void
first_tcp(const char *ip)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = "b", .server_ip = ip, .port = PORT, .streams = 4, .bytes = 2 << 20};
    struct e2e_passer p = {.batch = 64};

    p.handle = e2e_open("tcp", 0, 0);
    CHECK_API(WinDivertExtSetParam(p.handle, WINDIVERT_EXT_PARAM_FLOW_PACKETS, 10));
    e2e_pass_start(&p);
    e2e_tcp_run(&t);
    CHECK(e2e_stats(p.handle).SkippedFlows == 4, "%llu flows", (unsigned long long)e2e_stats(p.handle).SkippedFlows);
    e2e_pass_stop(&p);
    CHECK(p.received == 40, "%llu packets were seen", (unsigned long long)p.received);
}

static void
flow_first_tcp4(void)
{
    first_tcp(E2E_B4);
}

static void
flow_first_tcp6(void)
{
    first_tcp(E2E_B6);
}

/* The first ones do not get out, all others do. */
static void
flow_first_drop(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, SOURCE);
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, WINDIVERT_FLAG_DROP);

    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_FLOW_PACKETS, FIRST));
    for (uint32_t i = 0; i < ROUNDS; i++)
        CHECK(e2e_send(tx, 64, i) == (i >= FIRST), "datagram %u", i);
    WAIT_UNTIL(e2e_drain(rx) == 0, 2000, "datagrams keep coming");
    check_stats(h, FIRST, ROUNDS - FIRST, 1);
    CHECK_API(WinDivertClose(h));
}

static void
flow_refused(void)
{
    uint8_t packet[64];
    UINT len = e2e_make_udp(packet, E2E_A4, 1, E2E_B4, 2, "x", 1);
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, 0), sender = e2e_open("true", 0, WINDIVERT_FLAG_SEND_ONLY);

    CHECK_ERROR(WinDivertExtSkipFlow(h, NULL, len), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertExtSkipFlow(h, packet, 10), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertExtSkipFlow(sender, packet, len), ERROR_NOT_SUPPORTED);
    CHECK_ERROR(WinDivertExtSetParam(sender, WINDIVERT_EXT_PARAM_FLOW_PACKETS, 1), ERROR_NOT_SUPPORTED);
    CHECK_ERROR(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_FLOW_PACKETS, WINDIVERT_EXT_PARAM_FLOW_PACKETS_MAX + 1),
                ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_FLOW_PACKETS, 1));
    CHECK_ERROR(WinDivertExtSetFilter(h, "udp and timestamp > 1"), ERROR_NOT_SUPPORTED);
    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_FLOW_PACKETS, 0));
    CHECK_API(WinDivertExtSetFilter(h, "udp and timestamp > 1"));
    CHECK_ERROR(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_FLOW_PACKETS, 1), ERROR_NOT_SUPPORTED);
    CHECK_API(WinDivertExtSkipFlow(h, packet, len));
    packet[6] = 0x20; /* more fragments */
    CHECK_ERROR(WinDivertExtSkipFlow(h, packet, len), ERROR_INVALID_PARAMETER);
    packet[6] = 0;
    CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_RECV));
    CHECK_ERROR(WinDivertExtSkipFlow(h, packet, len), ERROR_NO_DATA);
    CHECK_API(WinDivertClose(h));
    CHECK_API(WinDivertClose(sender));
}

/* More flows than there is room for: those that are forgotten match again, the newest are skipped. */
static void
flow_many(void)
{
    struct e2e_passer p = {.batch = 64};
    uint8_t packet[64];
    unsigned extra = WINDIVERT_EXT_FLOWS_MAX / 2;
    struct pair pair;

    pair_open(&pair, E2E_A4, E2E_B4, PORT);
    p.handle = e2e_open("udp", 0, 0);
    for (unsigned i = 0; i < WINDIVERT_EXT_FLOWS_MAX + extra; i++) {
        UINT len = e2e_make_udp(packet, E2E_A4, (uint16_t)i, E2E_B4, (uint16_t)(1 + i / 65536), "x", 1);

        CHECK_API(WinDivertExtSkipFlow(p.handle, packet, len));
    }
    CHECK_API(WinDivertExtSkipFlow(p.handle, packet, e2e_make_udp(packet, E2E_B4, PORT, E2E_A4, SOURCE, "x", 1)));
    check_stats(p.handle, 0, 0, WINDIVERT_EXT_FLOWS_MAX + extra + 1);
    exchange_all(&pair, ROUNDS);
    check_stats(p.handle, 0, 2 * ROUNDS, WINDIVERT_EXT_FLOWS_MAX + extra + 1);
    CHECK_API(WinDivertClose(p.handle));
}

const struct e2e_test e2e_flow_tests[] = {
    {"flow_skip4_out", flow_skip4_out, 0},
    {"flow_skip6_in", flow_skip6_in, 0},
    {"flow_skip4_sniff", flow_skip4_sniff, 0},
    {"flow_skip6_sniff", flow_skip6_sniff, 0},
    {"flow_first4", flow_first4, 0},
    {"flow_first6", flow_first6, 0},
    {"flow_first4_sniff", flow_first4_sniff, 0},
    {"flow_first_tcp4", flow_first_tcp4, 60},
    {"flow_first_tcp6", flow_first_tcp6, 60},
    {"flow_first_drop", flow_first_drop, 0},
    {"flow_refused", flow_refused, 0},
    {"flow_many", flow_many, 60},
    {NULL, NULL, 0},
};
