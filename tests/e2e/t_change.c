/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Packets changed on the way: other lengths, contents, ports, addresses; checksums by the program or the library. */
#include "e2e.h"

#include <arpa/inet.h>
#include <string.h>

#define DATAGRAMS 2000
#define PORT 5001

enum sums { BY_HELPER, BY_LIBRARY };

struct change {
    size_t (*after)(size_t size);
    enum sums sums;
    uint32_t next; /* number of the next datagram */
};

static void
finish(uint8_t *packet, UINT len, WINDIVERT_ADDRESS *addr, enum sums sums, const struct e2e_view *v)
{
    if (sums == BY_HELPER) {
        CHECK_API(WinDivertHelperCalcChecksums(packet, len, addr, 0));
        return;
    }
    /* Wrong on purpose: the clear flags say that the library fills them in. */
    if (!v->v6)
        memset(packet + 10, 0xEE, 2);
    memset(packet + v->transport + (v->proto == IPPROTO_UDP ? 6 : 16), 0xEE, 2);
    addr->IPChecksum = addr->TCPChecksum = addr->UDPChecksum = 0;
}

static bool
resize(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct change *c = p->arg;
    struct e2e_view v;
    size_t size;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    size = c->after(v.end - v.payload);
    e2e_datagram(packet + v.payload, size, c->next++);
    *len = e2e_udp_resize(packet, &v, (unsigned)size);
    if (!v.v6)
        packet[6] &= (uint8_t)~0x40; /* don't fragment */
    finish(packet, *len, addr, c->sums, &v);
    return true;
}

static void
resized_flow(const char *handle_ns, const char *ip, size_t (*after)(size_t), enum sums sums, unsigned batch)
{
    struct e2e_pump pump = {
        .count = DATAGRAMS, .size = e2e_size_unfragmented, .size_after = after, .ordered = true, .window = 16};
    struct change c = {after, sums, 0};
    struct e2e_passer p = {.batch = batch, .pin = true, .edit = resize, .arg = &c};

    pump.rx = e2e_udp_receiver("b", ip, PORT);
    pump.tx = e2e_udp_sender("a", ip, PORT, 0);
    e2e_enter(handle_ns);
    p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
    CHECK(p.received == DATAGRAMS, "%llu packets, expected %u", (unsigned long long)p.received, DATAGRAMS);
}

static size_t
longer(size_t size)
{
    return size + 70;
}

static size_t
shorter(size_t size)
{
    return size / 2;
}

static size_t
much_longer(size_t size)
{
    return size + 3000;
}

static void
change_longer4_out(void)
{
    resized_flow("a", E2E_B4, longer, BY_HELPER, 1);
}

static void
change_longer6_out(void)
{
    resized_flow("a", E2E_B6, longer, BY_LIBRARY, 1);
}

static void
change_longer4_in(void)
{
    resized_flow("b", E2E_B4, longer, BY_LIBRARY, 32);
}

static void
change_longer6_in(void)
{
    resized_flow("b", E2E_B6, longer, BY_HELPER, 1);
}

static void
change_shorter4_out(void)
{
    resized_flow("a", E2E_B4, shorter, BY_LIBRARY, 32);
}

static void
change_shorter6_out(void)
{
    resized_flow("a", E2E_B6, shorter, BY_HELPER, 32);
}

static void
change_shorter4_in(void)
{
    resized_flow("b", E2E_B4, shorter, BY_HELPER, 1);
}

static void
change_shorter6_in(void)
{
    resized_flow("b", E2E_B6, shorter, BY_LIBRARY, 1);
}

static void
change_past_mtu4(void)
{
    resized_flow("a", E2E_B4, much_longer, BY_HELPER, 1);
}

static void
change_past_mtu6(void)
{
    resized_flow("a", E2E_B6, much_longer, BY_LIBRARY, 1);
}

#define XOR 0x5a

static bool
xor_payload(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct change *c = p->arg;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    if (v.dport != PORT || v.payload >= v.end)
        return true;
    for (unsigned i = v.payload; i < v.end; i++)
        packet[i] ^= XOR;
    finish(packet, *len, addr, c->sums, &v);
    return true;
}

/* Aggregates are changed too: what the client sends arrives with each byte changed, and only so. */
static void
changed_streams(const char *handle_ns, const char *ip, enum sums sums, unsigned batch)
{
    struct e2e_tcp tcp = {"a", "b", ip, PORT, 32, 256 << 10, XOR};
    struct change c = {NULL, sums, 0};
    struct e2e_passer p = {.batch = batch, .edit = xor_payload, .arg = &c};

    e2e_enter(handle_ns);
    p.handle = e2e_open("tcp", 0, 0);
    e2e_pass_start(&p);
    e2e_tcp_run(&tcp);
    e2e_pass_stop(&p);
}

static void
change_tcp4_out_helper(void)
{
    changed_streams("a", E2E_B4, BY_HELPER, 1);
}

static void
change_tcp4_out_library(void)
{
    changed_streams("a", E2E_B4, BY_LIBRARY, 64);
}

static void
change_tcp6_out_helper(void)
{
    changed_streams("a", E2E_B6, BY_HELPER, 64);
}

static void
change_tcp6_out_library(void)
{
    changed_streams("a", E2E_B6, BY_LIBRARY, 1);
}

static void
change_tcp4_in_helper(void)
{
    changed_streams("b", E2E_B4, BY_HELPER, 64);
}

static void
change_tcp4_in_library(void)
{
    changed_streams("b", E2E_B4, BY_LIBRARY, 1);
}

static void
change_tcp6_in_library(void)
{
    changed_streams("b", E2E_B6, BY_LIBRARY, 64);
}

static bool
to_port_5002(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    (void)p;
    CHECK(e2e_view(packet, *len, &v), "no packet");
    packet[v.transport + 2] = 5002 >> 8;
    packet[v.transport + 3] = 5002 & 0xff;
    CHECK_API(WinDivertHelperCalcChecksums(packet, *len, addr, 0));
    return true;
}

static bool
to_host_b(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    (void)p;
    CHECK(inet_pton(AF_INET, E2E_B4, packet + 16) == 1, "address");
    CHECK_API(WinDivertHelperCalcChecksums(packet, *len, addr, 0));
    return true;
}

/* Sent to one place, received at another. */
static void
redirected(const char *ip, uint16_t port, const char *real_ip, uint16_t real_port, e2e_edit edit)
{
    struct e2e_pump pump = {.count = DATAGRAMS, .size = e2e_size_unfragmented};
    struct e2e_passer p = {.batch = 1, .edit = edit};
    int tx;

    pump.rx = e2e_udp_receiver("b", real_ip, real_port);
    pump.tx = e2e_udp_sender("a", ip, port, 0);
    tx = e2e_udp_sender("a", real_ip, real_port, 0);
    p.handle = e2e_open("outbound and udp", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    e2e_marker(tx, pump.rx);
}

static void
change_port4(void)
{
    redirected(E2E_B4, 5001, E2E_B4, 5002, to_port_5002);
}

static void
change_port6(void)
{
    redirected(E2E_B6, 5001, E2E_B6, 5002, to_port_5002);
}

static void
change_address4(void)
{
    redirected("10.77.0.99", 5001, E2E_B4, 5001, to_host_b);
}

const struct e2e_test e2e_change_tests[] = {
    {"change_longer4_out", change_longer4_out, 0},
    {"change_longer6_out", change_longer6_out, 0},
    {"change_longer4_in", change_longer4_in, 0},
    {"change_longer6_in", change_longer6_in, 0},
    {"change_shorter4_out", change_shorter4_out, 0},
    {"change_shorter6_out", change_shorter6_out, 0},
    {"change_shorter4_in", change_shorter4_in, 0},
    {"change_shorter6_in", change_shorter6_in, 0},
    {"change_past_mtu4", change_past_mtu4, 0},
    {"change_past_mtu6", change_past_mtu6, 0},
    {"change_tcp4_out_helper", change_tcp4_out_helper, 60},
    {"change_tcp4_out_library", change_tcp4_out_library, 60},
    {"change_tcp6_out_helper", change_tcp6_out_helper, 60},
    {"change_tcp6_out_library", change_tcp6_out_library, 60},
    {"change_tcp4_in_helper", change_tcp4_in_helper, 60},
    {"change_tcp4_in_library", change_tcp4_in_library, 60},
    {"change_tcp6_in_library", change_tcp6_in_library, 60},
    {"change_port4", change_port4, 0},
    {"change_port6", change_port6, 0},
    {"change_address4", change_address4, 0},
    {NULL, NULL, 0},
};
