/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Beside the user's own rules, firewalls, address translation, and other namespaces. */
#include "e2e.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define OTHER_PORT 5002
#define COUNT 1000

static void
set_counters(const char *ns, const char *hook)
{
    static const int priorities[] = {-300, -200, 0, 100};
    char body[1536];
    int at = 0;

    for (unsigned i = 0; i < 4; i++) {
        at += snprintf(
            body + at, sizeof(body) - (size_t)at,
            "counter c%u { }; chain h%u { type filter hook %s priority %d; udp dport %u counter name c%u; }; ", i, i,
            hook, priorities[i], PORT, i);
    }
    e2e_set_table(ns, body);
}

static void
expect_counters(const char *ns, uint64_t want)
{
    for (unsigned i = 0; i < 4; i++) {
        char name[8];
        uint64_t n;

        snprintf(name, sizeof(name), "c%u", i);
        n = e2e_nft_counter(ns, name);
        CHECK(n == want, "the user's rule %u counted %llu packets, expected %llu", i, (unsigned long long)n,
              (unsigned long long)want);
    }
}

static bool
change_sum_only(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    (void)p;
    CHECK_API(WinDivertHelperCalcChecksums(packet, *len, addr, 0));
    return true;
}

/* A returned packet, changed or not, passes each of the user's rules once; a new one as well. */
static void
counted_once(const char *ns, const char *hook, const char *ip, e2e_edit edit)
{
    struct e2e_pump pump = {.count = COUNT};
    struct e2e_passer p = {.batch = 8, .edit = edit};
    bool v6 = strchr(ip, ':');
    WINDIVERT_ADDRESS addr = e2e_new_outbound(v6);
    uint8_t packet[128];
    UINT len = e2e_make_udp(packet, v6 ? E2E_A6 : E2E_A4, 4000, ip, PORT, "some text", 9);
    uint64_t want = COUNT;

    set_counters(ns, hook);
    pump.rx = e2e_udp_receiver("b", ip, PORT);
    pump.tx = e2e_udp_sender("a", ip, PORT, 0);
    e2e_enter(ns);
    p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    expect_counters(ns, want);
    for (unsigned i = 0; *ns == 'a' && i < 10; i++, want++) {
        e2e_send_packet(p.handle, packet, len, &addr);
        CHECK(e2e_receive(pump.rx, packet + 64, 64, 2000) == 9, "an injected packet did not arrive");
    }
    expect_counters(ns, want);
    e2e_pass_stop(&p);
    CHECK(p.received == COUNT, "%llu packets, expected %u", (unsigned long long)p.received, COUNT);
    e2e_marker(pump.tx, pump.rx);
    e2e_delete_table(ns);
    close(pump.rx);
    close(pump.tx);
}

static void
coexist_counted_once_out(void)
{
    counted_once("a", "output", E2E_B4, NULL);
    counted_once("a", "output", E2E_B6, change_sum_only);
}

static void
coexist_counted_once_in(void)
{
    counted_once("b", "input", E2E_B4, change_sum_only);
    counted_once("b", "input", E2E_B6, NULL);
}

static const char firewall[] = "chain in { type filter hook input priority 0; policy drop; "
                               "iif lo accept; ct state established,related accept; }; ";

/* Nothing comes in that was not asked for; what goes through the handle counts as asked. */
static void
coexist_firewall_tcp(void)
{
    struct e2e_tcp tcp = {"a", "b", E2E_B4, PORT, 32, 128 << 10, 0};
    struct e2e_passer p = {.batch = 16};

    e2e_set_table("a", firewall);
    p.handle = e2e_open("tcp", 0, 0);
    e2e_pass_start(&p);
    e2e_tcp_run(&tcp);
    tcp.server_ip = E2E_B6;
    e2e_tcp_run(&tcp);
    e2e_pass_stop(&p);
    CHECK(p.received > 2 * 32 * 6, "only %llu packets were diverted", (unsigned long long)p.received);
    e2e_delete_table("a");
}

/* A packet invented by the program opens the firewall for its answer as one of the system's does. */
static void
coexist_firewall_injected(void)
{
    int client = e2e_udp_receiver("a", E2E_A4, 4000), server = e2e_udp_receiver("b", E2E_B4, PORT);
    struct sockaddr_storage from;
    socklen_t from_len = sizeof(from);
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    uint8_t packet[128], buf[64];
    UINT len = e2e_make_udp(packet, E2E_A4, 4000, E2E_B4, PORT, "question", 8);
    struct e2e_passer p = {.batch = 1};

    e2e_set_table("a", firewall);
    p.handle = e2e_open("udp", 0, 0);
    e2e_pass_start(&p);
    e2e_send_packet(p.handle, packet, len, &addr);
    WAIT_UNTIL(recvfrom(server, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &from_len) == 8, 2000,
               "the injected question did not arrive");
    CHECK(sendto(server, "answer", 6, 0, (struct sockaddr *)&from, from_len) == 6, "send: %s", strerror(errno));
    CHECK(e2e_receive(client, buf, sizeof(buf), 2000) == 6, "the answer did not come through the firewall");
    e2e_pass_stop(&p);
    e2e_delete_table("a");
}

/* Fragments with connection tracking in the namespace. */
static void
coexist_conntrack_sizes(void)
{
    static const char *const to[] = {E2E_B4, E2E_B6};

    e2e_set_table("b", "chain in { type filter hook input priority 0; ct state invalid drop; }; ");
    e2e_enter("b");
    for (unsigned i = 0; i < 2; i++) {
        struct e2e_pump pump = {.count = COUNT, .size = e2e_size_mixed};
        struct e2e_passer p = {.batch = 1};

        pump.rx = e2e_udp_receiver("b", to[i], PORT);
        pump.tx = e2e_udp_sender("a", to[i], PORT, 0);
        p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
        e2e_pass_start(&p);
        e2e_udp_pump(&pump);
        e2e_pass_stop(&p);
        CHECK(p.received == COUNT, "%s: %llu packets, expected %u", to[i], (unsigned long long)p.received, COUNT);
        e2e_marker(pump.tx, pump.rx);
    }
    e2e_delete_table("b");
}

/* The user's destination NAT sees what the handle returned. */
static void
coexist_dnat(void)
{
    struct e2e_pump pump = {.count = COUNT};
    struct e2e_passer p = {.batch = 8};

    e2e_set_table("a", "chain n { type nat hook output priority -100; udp dport 5009 dnat ip to 10.77.0.2:5001; }; ");
    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", "10.77.0.50", 5009, 0);
    p.handle = e2e_open("udp", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
    CHECK(p.received == COUNT, "%llu packets, expected %u", (unsigned long long)p.received, COUNT);
    e2e_delete_table("a");
}

/* `nft flush ruleset` is the user's; the handle's rules are not. */
static void
coexist_flush_ruleset(void)
{
    struct e2e_pump pump = {.count = COUNT};
    struct e2e_passer p = {.batch = 8};

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    p.handle = e2e_open("udp", 0, 0);
    e2e_pass_start(&p);
    free(e2e_shell("a", "nft flush ruleset || true"));
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    CHECK(p.received == COUNT, "%llu packets, expected %u", (unsigned long long)p.received, COUNT);
    e2e_marker(pump.tx, pump.rx);
}

/* The kernel flushes all queues when anybody removes a base chain; no packet may be lost by that. */
static void
coexist_user_removes_chain(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    static WINDIVERT_ADDRESS addr[40];
    static uint8_t packet[40][256], buf[256];
    uint32_t sum = 0, number;
    WINDIVERT_EXT_STATS s;
    HANDLE h;

    e2e_set_table("a", "chain x { type filter hook output priority 5; }; ");
    h = e2e_open("udp.DstPort == 5001", 0, 0);
    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    for (uint32_t i = 0; i < 40; i++)
        CHECK(e2e_send(tx, 64, i), "send");
    for (unsigned i = 0; i < 20; i++)
        e2e_recv_packet(h, packet[i], &addr[i]);
    e2e_delete_table("a");
    for (unsigned i = 20; i < 40; i++)
        e2e_recv_packet(h, packet[i], &addr[i]);
    for (unsigned i = 0; i < 40; i++)
        e2e_send_packet(h, packet[i], 92, &addr[i]);
    for (unsigned i = 0; i < 40; i++) {
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "%u of 40 arrived", i);
        memcpy(&number, buf, 4);
        sum += number;
    }
    CHECK(sum == 39 * 40 / 2, "not each datagram once");
    s = e2e_stats(h);
    CHECK(s.Recovered > 0, "nothing was flushed: this proves nothing");
    CHECK(s.DropFlushed == 0, "%llu packets lost", (unsigned long long)s.DropFlushed);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static bool
not_of_a(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    (void)p;
    CHECK(e2e_view(packet, *len, &v) && v.dport == OTHER_PORT, "a packet of another namespace (outbound %u)",
          addr->Outbound);
    return true;
}

/* Packets of one namespace do not come to a handle of another. */
static void
coexist_namespaces_apart(void)
{
    struct e2e_pump pump = {.count = COUNT}, own = {.count = COUNT};
    struct e2e_passer p = {.batch = 1, .edit = not_of_a};

    pump.rx = e2e_udp_receiver("a", "127.0.0.1", PORT);
    pump.tx = e2e_udp_sender("a", "127.0.0.1", PORT, 0);
    own.rx = e2e_udp_receiver("b", "127.0.0.1", OTHER_PORT);
    own.tx = e2e_udp_sender("b", "127.0.0.1", OTHER_PORT, 0);
    e2e_enter("b");
    p.handle = e2e_open("true", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_udp_pump(&own);
    e2e_pass_stop(&p);
    CHECK(p.received == COUNT, "%llu packets of the own namespace, expected %u", (unsigned long long)p.received,
          COUNT);
}

static bool
outbound_only(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    (void)packet;
    (void)len;
    CHECK(addr->Outbound == (p->arg != NULL), "outbound %u", addr->Outbound);
    return true;
}

/* Handles of one process in two namespaces: each belongs to that of the thread that opened it. */
static void
coexist_two_namespaces_one_process(void)
{
    struct e2e_pump pump = {.count = COUNT};
    struct e2e_passer out = {.batch = 1, .edit = outbound_only, .arg = "yes"};
    struct e2e_passer in = {.batch = 1, .edit = outbound_only};

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    out.handle = e2e_open("udp", 0, 0);
    e2e_enter("b");
    in.handle = e2e_open("udp", 0, 0);
    e2e_pass_start(&out);
    e2e_pass_start(&in);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&out);
    e2e_pass_stop(&in);
    e2e_marker(pump.tx, pump.rx);
    CHECK(out.received == COUNT && in.received == COUNT, "%llu outbound, %llu inbound, expected %u each",
          (unsigned long long)out.received, (unsigned long long)in.received, COUNT);
}

const struct e2e_test e2e_coexist_tests[] = {
    {"coexist_counted_once_out", coexist_counted_once_out, 0},
    {"coexist_counted_once_in", coexist_counted_once_in, 0},
    {"coexist_firewall_tcp", coexist_firewall_tcp, 60},
    {"coexist_firewall_injected", coexist_firewall_injected, 0},
    {"coexist_conntrack_sizes", coexist_conntrack_sizes, 0},
    {"coexist_dnat", coexist_dnat, 0},
    {"coexist_flush_ruleset", coexist_flush_ruleset, 0},
    {"coexist_user_removes_chain", coexist_user_removes_chain, 0},
    {"coexist_namespaces_apart", coexist_namespaces_apart, 0},
    {"coexist_two_namespaces_one_process", coexist_two_namespaces_one_process, 0},
    {NULL, NULL, 0},
};
