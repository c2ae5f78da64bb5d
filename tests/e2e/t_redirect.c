/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Changed addresses and directions: packets go where they then belong, and connections survive it. */
#include "e2e.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#define PORT 5001  /* where the client thinks it connects to */
#define PROXY 5999 /* where it is led */
#define BYTES (4 << 20)

static uint8_t *
address(uint8_t *packet, const struct e2e_view *v, bool source)
{
    return v->v6 ? packet + (source ? 8 : 24) : packet + (source ? 12 : 16);
}

static void
swap_addresses(uint8_t *packet, const struct e2e_view *v)
{
    size_t len = v->v6 ? 16 : 4;
    uint8_t keep[16];

    memcpy(keep, address(packet, v, true), len);
    memcpy(address(packet, v, true), address(packet, v, false), len);
    memcpy(address(packet, v, false), keep, len);
}

static void
set_port(uint8_t *packet, const struct e2e_view *v, bool source, uint16_t port)
{
    packet[v->transport + (source ? 0 : 2)] = (uint8_t)(port >> 8);
    packet[v->transport + (source ? 1 : 3)] = (uint8_t)port;
}

static void
let_library_sum(WINDIVERT_ADDRESS *addr)
{
    addr->IPChecksum = addr->TCPChecksum = addr->UDPChecksum = 0;
}

/* ---- Reflected to a proxy on this machine ------------------------------- */

/*
 * As stream proxies do it on Windows: what goes out to PORT comes in again,
 * with its addresses exchanged, at the proxy's port; what the proxy answers
 * comes in from PORT.
 */
static bool
reflect(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    (void)p;
    CHECK(e2e_view(packet, *len, &v) && addr->Outbound, "not outbound");
    if (v.dport == PORT)
        set_port(packet, &v, false, PROXY);
    else
        set_port(packet, &v, true, PORT);
    swap_addresses(packet, &v);
    addr->Outbound = 0;
    let_library_sum(addr);
    return true;
}

static void
reflected(const char *remote, const char *here)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = "a", .server_ip = here, .port = PROXY, .streams = 1, .bytes = BYTES};
    struct e2e_passer p = {.batch = 64, .edit = reflect};

    p.handle = e2e_open("outbound and (tcp.DstPort == 5001 or tcp.SrcPort == 5999)", 0, 0);
    e2e_pass_start(&p);
    e2e_tcp_run_to(&t, remote, PORT);
    e2e_pass_stop(&p);
}

static void
redirect_reflect4(void)
{
    reflected(E2E_B4, E2E_A4);
}

static void
redirect_reflect6(void)
{
    reflected(E2E_B6, E2E_A6);
}

/* ---- Led to another host, or to this one -------------------------------- */

struct route {
    const char *from, *to; /* the address the client means, and the one it gets */
    uint16_t port;
};

/* Destination address and port on the way there, source on the way back. */
static bool
translate(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    const struct route *r = p->arg;
    struct e2e_view v;
    bool back;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    back = v.dport != PORT;
    CHECK(inet_pton(v.v6 ? AF_INET6 : AF_INET, back ? r->from : r->to, address(packet, &v, back)) == 1, "address");
    set_port(packet, &v, back, back ? PORT : r->port);
    let_library_sum(addr);
    return true;
}

static void
translated(const char *filter, const char *server_ns, const struct route *r)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = server_ns, .server_ip = r->to, .port = r->port, .streams = 2, .bytes = BYTES};
    struct e2e_passer p = {.batch = 64, .edit = translate, .arg = (void *)(uintptr_t)r};

    p.handle = e2e_open(filter, 0, 0);
    e2e_pass_start(&p);
    e2e_tcp_run_to(&t, r->from, PORT);
    e2e_pass_stop(&p);
}

/* Through another interface's route than the one first meant: the host does not exist. */
static void
redirect_other_host4(void)
{
    translated("(outbound and ip.DstAddr == 10.78.0.99 and tcp.DstPort == 5001) or "
               "(inbound and ip.SrcAddr == 10.77.0.2 and tcp.SrcPort == 6001)",
               "b", &(struct route){"10.78.0.99", E2E_B4, 6001});
}

static void
redirect_other_host6(void)
{
    translated("(outbound and ipv6.DstAddr == fd78::99 and tcp.DstPort == 5001) or "
               "(inbound and ipv6.SrcAddr == fd77::2 and tcp.SrcPort == 6001)",
               "b", &(struct route){"fd78::99", E2E_B6, 6001});
}

/* A connection to a remote host ends at a server on 127.0.0.1 (::1). */
static void
redirect_to_loopback4(void)
{
    translated("outbound and (tcp.DstPort == 5001 or tcp.SrcPort == 5999)", "a",
               &(struct route){E2E_B4, "127.0.0.1", PROXY});
}

static void
redirect_to_loopback6(void)
{
    translated("outbound and (tcp.DstPort == 5001 or tcp.SrcPort == 5999)", "a",
               &(struct route){E2E_B6, "::1", PROXY});
}

/* From one server of this machine to another; the MTU keeps aggregates below 65,535 bytes. */
static void
redirect_between_local_ports(void)
{

    translated("loopback and (tcp.DstPort == 5001 or tcp.SrcPort == 5999)", "a",
               &(struct route){"127.0.0.1", "127.0.0.1", PROXY});
}

/* ---- Inbound ------------------------------------------------------------ */

/* What comes in for one port is delivered to another, for one address of this machine to another. */
static bool
to_second_address(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    (void)p;
    CHECK(e2e_view(packet, *len, &v) && !addr->Outbound, "not inbound");
    CHECK(inet_pton(AF_INET, "10.79.0.1", address(packet, &v, false)) == 1, "address");
    set_port(packet, &v, false, PROXY);
    let_library_sum(addr);
    return true;
}

static void
redirect_inbound_local(void)
{
    int rx, tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    struct e2e_passer p = {.batch = 1, .edit = to_second_address};
    uint8_t buf[128];

    e2e_shell("b", "ip addr add 10.79.0.1/32 dev lo");
    rx = e2e_udp_receiver("b", "10.79.0.1", PROXY);
    e2e_enter("b");
    p.handle = e2e_open("inbound and udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    for (uint32_t i = 0; i < 10; i++) {
        CHECK(e2e_send(tx, 64, i), "send");
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "datagram %u did not arrive", i);
    }
    e2e_pass_stop(&p);
    e2e_shell("b", "ip addr del 10.79.0.1/32 dev lo");
}

const struct e2e_test e2e_redirect_tests[] = {
    {"redirect_reflect4", redirect_reflect4, 0},
    {"redirect_reflect6", redirect_reflect6, 0},
    {"redirect_other_host4", redirect_other_host4, 0},
    {"redirect_other_host6", redirect_other_host6, 0},
    {"redirect_to_loopback4", redirect_to_loopback4, 0},
    {"redirect_to_loopback6", redirect_to_loopback6, 0},
    {"redirect_between_local_ports", redirect_between_local_ports, 0},
    {"redirect_inbound_local", redirect_inbound_local, 0},
    {NULL, NULL, 0},
};
