/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Handles of several processes in the order of their priorities.  Each writes
 * its mark into the packets it passes: byte 0 of the payload counts the marks,
 * they follow.  So what arrives says who saw it, and in which order.
 */
#include "e2e.h"

#include <string.h>
#include <unistd.h>

#define COUNT 200
#define PORT 5001
#define FILTER "udp.DstPort == 5001"

struct member {
    INT16 priority;
    uint8_t mark;
    UINT64 flags;
    const char *ip; /* where to inject */
    const char *by; /* coming in by this interface, of namespace b; NULL: outbound */
    WINDIVERT_LAYER layer;
    _Atomic int ready, inject, injected, end;
    _Atomic uint64_t received;
};

static bool
leave_mark(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct member *m = p->arg;
    struct e2e_view v;
    uint8_t *payload;

    CHECK(e2e_view(packet, *len, &v) && v.end - v.payload == 64, "not ours");
    payload = packet + v.payload;
    CHECK(payload[0] < 60, "more than 60 marks: the packet goes in circles");
    payload[1 + payload[0]++] = m->mark;
    CHECK_API(WinDivertHelperCalcChecksums(packet, *len, addr, 0));
    m->received++;
    return true;
}

static void
inject_one(HANDLE h, const struct member *m)
{
    bool v6 = strchr(m->ip, ':');
    WINDIVERT_ADDRESS addr = m->by ? e2e_new_inbound(v6, "b", m->by) : e2e_new_outbound(v6);
    uint8_t packet[128], payload[64] = {0};
    UINT len = e2e_make_udp(packet, v6 ? E2E_A6 : E2E_A4, 4000, m->ip, PORT, payload, sizeof(payload));

    addr.Layer = m->layer;
    e2e_send_packet(h, packet, len, &addr);
}

static void
member_process(void *arg)
{
    struct member *m = arg;
    struct e2e_passer p = {.batch = 8, .pin = true, .edit = leave_mark, .arg = m};
    int done = 0;

    p.handle = e2e_open_at(m->layer, FILTER, m->priority, m->flags);
    e2e_pass_start(&p);
    m->ready = 1;
    while (!m->end) {
        if (m->inject > done) {
            inject_one(p.handle, m);
            m->injected = ++done;
        }
        e2e_nap_us(500);
    }
    e2e_pass_stop(&p);
}

static pid_t
join_group(const char *ns, struct member *m)
{
    pid_t pid = e2e_spawn(ns, member_process, m);

    WAIT_UNTIL(m->ready, 5000, "the handle of priority %d was not opened", m->priority);
    return pid;
}

/* The next datagram must carry the marks of `want`; NULL: each of `any_order` once. */
static void
expect_marks(int rx, const char *want, const char *any_order)
{
    uint8_t buf[65536];
    char marks[64] = "";

    CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "a datagram did not arrive");
    CHECK(buf[0] < 60, "%u marks", buf[0]);
    memcpy(marks, buf + 1, buf[0]);
    if (want) {
        CHECK(!strcmp(marks, want), "seen by \"%s\", expected \"%s\"", marks, want);
        return;
    }
    CHECK(strlen(marks) == strlen(any_order), "seen by \"%s\", expected each of \"%s\" once", marks, any_order);
    for (; *any_order; any_order++)
        CHECK(strchr(marks, *any_order), "seen by \"%s\", not by %c", marks, *any_order);
}

static void
send_blank(int tx)
{
    uint8_t blank[64] = {0};

    CHECK(send(tx, blank, sizeof(blank), 0) == sizeof(blank), "send");
}

struct group {
    struct member *m;
    unsigned n;
    const char *ns, *ip;
    const char *marks, *any_order;
    const char *receiver_ns; /* NULL: b */
};

/* Opens the group's handles in the given order of indices, sends COUNT datagrams through all of them. */
static void
run_group(const struct group *g, const unsigned *order, pid_t *pids, int *ret_rx, int *ret_tx)
{
    *ret_rx = e2e_udp_receiver(g->receiver_ns ? g->receiver_ns : "b", g->ip, PORT);
    *ret_tx = e2e_udp_sender("a", g->ip, PORT, 0);
    for (unsigned i = 0; i < g->n; i++)
        pids[order[i]] = join_group(g->ns, &g->m[order[i]]);
    for (unsigned i = 0; i < COUNT; i++) {
        send_blank(*ret_tx);
        expect_marks(*ret_rx, g->marks, g->any_order);
    }
    for (unsigned i = 0; i < g->n; i++)
        CHECK(g->m[i].received == COUNT, "the handle of priority %d received %llu packets, expected %u",
              g->m[i].priority, (unsigned long long)g->m[i].received, COUNT);
}

static void
end_group(const struct group *g, const pid_t *pids, int rx, int tx)
{
    for (unsigned i = 0; i < g->n; i++) {
        g->m[i].end = 1;
        e2e_join(pids[i]);
    }
    e2e_marker(tx, rx);
    close(rx);
    close(tx);
}

static struct member *
members(unsigned n, const char *ip)
{
    struct member *m = e2e_shared(n * sizeof(*m));

    for (unsigned i = 0; i < n; i++) {
        m[i].mark = (uint8_t)('A' + i);
        m[i].ip = ip;
    }
    return m;
}

/* What member i injects is seen by `marks`. */
static void
inject_and_expect(struct member *m, int rx, const char *marks)
{
    m->inject = m->injected + 1;
    WAIT_UNTIL(m->injected == m->inject, 3000, "the handle of priority %d injected nothing", m->priority);
    expect_marks(rx, marks, NULL);
}

static void
two_members(struct group *g, bool low_first)
{
    static const unsigned orders[2][2] = {{0, 1}, {1, 0}};
    pid_t pids[2];
    int rx, tx;

    g->m[0].priority = 10;
    g->m[1].priority = -10;
    run_group(g, orders[low_first], pids, &rx, &tx);
    for (unsigned i = 0; i < 20; i++) {
        inject_and_expect(&g->m[0], rx, "B");
        inject_and_expect(&g->m[1], rx, "");
    }
    end_group(g, pids, rx, tx);
}

static void
two_processes(const char *ns, const char *ip, bool low_first)
{
    struct group g = {members(2, ip), 2, ns, ip, "AB", NULL, NULL};

    for (unsigned i = 0; i < 2; i++)
        g.m[i].by = *ns == 'b' ? "vb" : NULL;
    two_members(&g, low_first);
}

static void
priority_high_first(void)
{
    two_processes("a", E2E_B4, false);
}

static void
priority_low_first(void)
{
    two_processes("a", E2E_B4, true);
}

static void
priority_v6(void)
{
    two_processes("a", E2E_B6, true);
}

static void
priority_inbound(void)
{
    two_processes("b", E2E_B4, true);
    two_processes("b", E2E_B6, false);
}

static void
priority_forward(void)
{
    static const char *const to[] = {E2E_C4, E2E_C6};

    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct group g = {members(2, to[v6]), 2, "b", to[v6], "AB", NULL, "c"};

        for (unsigned i = 0; i < 2; i++) {
            g.m[i].by = "vb";
            g.m[i].layer = WINDIVERT_LAYER_NETWORK_FORWARD;
        }
        two_members(&g, v6);
    }
}

static void
three_levels(const unsigned *order)
{
    struct group g = {members(3, E2E_B4), 3, "a", E2E_B4, "ABC", NULL, NULL};
    pid_t pids[3];
    int rx, tx;

    g.m[0].priority = WINDIVERT_PRIORITY_HIGHEST;
    g.m[1].priority = 0;
    g.m[2].priority = WINDIVERT_PRIORITY_LOWEST;
    run_group(&g, order, pids, &rx, &tx);
    inject_and_expect(&g.m[0], rx, "BC");
    inject_and_expect(&g.m[1], rx, "C");
    inject_and_expect(&g.m[2], rx, "");
    end_group(&g, pids, rx, tx);
}

static void
priority_extremes(void)
{
    three_levels((const unsigned[]){0, 1, 2});
    three_levels((const unsigned[]){2, 0, 1});
}

static void
equal(bool second_first)
{
    static const unsigned orders[2][2] = {{0, 1}, {1, 0}};
    struct group g = {members(2, E2E_B4), 2, "a", E2E_B4, NULL, "AB", NULL};
    pid_t pids[2];
    int rx, tx;

    run_group(&g, orders[second_first], pids, &rx, &tx);
    for (unsigned i = 0; i < 20; i++) {
        inject_and_expect(&g.m[0], rx, "");
        inject_and_expect(&g.m[1], rx, "");
    }
    end_group(&g, pids, rx, tx);
}

static void
priority_equal(void)
{
    equal(false);
}

static void
priority_equal_other_order(void)
{
    equal(true);
}

/* A second copy is a new packet: lower handles see it, the one that sent it does not. */
static void
priority_second_copy(void)
{
    struct member *low = members(1, E2E_B4);
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    uint8_t packet[2048];
    WINDIVERT_ADDRESS addr;
    pid_t pid;
    HANDLE h;
    UINT len;

    low->priority = -5;
    pid = join_group("a", low);
    h = e2e_open(FILTER, 5, 0);
    send_blank(tx);
    len = e2e_recv_packet(h, packet, &addr);
    e2e_send_packet(h, packet, len, &addr);
    e2e_send_packet(h, packet, len, &addr);
    expect_marks(rx, "A", NULL);
    expect_marks(rx, "A", NULL);
    CHECK_API(WinDivertClose(h));
    low->end = 1;
    e2e_join(pid);
    e2e_marker(tx, rx);
}

/* A sniffing handle below sees what the one above made of a packet, one above what was before. */
static void
priority_sniff_around(void)
{
    struct member *middle = members(1, E2E_B4);
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    pid_t pid = join_group("a", middle);
    HANDLE above = e2e_open(FILTER, 100, WINDIVERT_FLAG_SNIFF), below = e2e_open(FILTER, -100, WINDIVERT_FLAG_SNIFF);
    uint8_t packet[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;

    for (unsigned i = 0; i < 50; i++) {
        send_blank(tx);
        expect_marks(rx, "A", NULL);
        e2e_recv_packet(above, packet, &addr);
        CHECK(packet[28] == 0, "the handle above sees %u marks", packet[28]);
        e2e_recv_packet(below, packet, &addr);
        CHECK(packet[28] == 1 && packet[29] == 'A', "the handle below sees %u marks", packet[28]);
    }
    CHECK_API(WinDivertClose(above));
    CHECK_API(WinDivertClose(below));
    middle->end = 1;
    e2e_join(pid);
    e2e_marker(tx, rx);
}

/* Two handles of one process, one after the other. */
static void
priority_one_process(void)
{
    struct member *m = members(2, E2E_B4);
    struct e2e_passer p[2] = {{.batch = 1, .edit = leave_mark, .arg = &m[0]},
                              {.batch = 1, .edit = leave_mark, .arg = &m[1]}};
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);

    p[1].handle = e2e_open(FILTER, 1, 0);
    p[0].handle = e2e_open(FILTER, 2, 0);
    e2e_pass_start(&p[0]);
    e2e_pass_start(&p[1]);
    for (unsigned i = 0; i < COUNT; i++) {
        send_blank(tx);
        expect_marks(rx, "AB", NULL);
    }
    inject_one(p[0].handle, &m[0]);
    expect_marks(rx, "B", NULL);
    inject_one(p[1].handle, &m[1]);
    expect_marks(rx, "", NULL);
    e2e_pass_stop(&p[0]);
    send_blank(tx);
    expect_marks(rx, "B", NULL);
    e2e_pass_stop(&p[1]);
    e2e_marker(tx, rx);
}

/* A packet dropped above is not seen below. */
static void
priority_drop_above(void)
{
    struct e2e_pump other = {.count = 100};
    struct member *m = members(1, E2E_B4);
    struct e2e_passer low = {.batch = 1, .edit = leave_mark, .arg = m};
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    uint8_t blank[64] = {0};
    HANDLE h;

    other.rx = e2e_udp_receiver("b", E2E_B4, 5002);
    other.tx = e2e_udp_sender("a", E2E_B4, 5002, 0);
    low.handle = e2e_open(FILTER, 0, 0);
    h = e2e_open(FILTER, 1, WINDIVERT_FLAG_DROP);
    e2e_pass_start(&low);
    for (unsigned i = 0; i < 100; i++)
        (void)!send(tx, blank, sizeof(blank), 0);
    e2e_udp_pump(&other);
    CHECK_API(WinDivertClose(h));
    send_blank(tx);
    expect_marks(rx, "A", NULL);
    CHECK(low.received == 1, "%llu packets were seen below", (unsigned long long)low.received);
    e2e_pass_stop(&low);
    e2e_marker(tx, rx);
}

const struct e2e_test e2e_priority_tests[] = {
    {"priority_high_first", priority_high_first, 0},
    {"priority_low_first", priority_low_first, 0},
    {"priority_v6", priority_v6, 0},
    {"priority_inbound", priority_inbound, 0},
    {"priority_forward", priority_forward, 0},
    {"priority_extremes", priority_extremes, 0},
    {"priority_equal", priority_equal, 0},
    {"priority_equal_other_order", priority_equal_other_order, 0},
    {"priority_second_copy", priority_second_copy, 0},
    {"priority_sniff_around", priority_sniff_around, 0},
    {"priority_one_process", priority_one_process, 0},
    {"priority_drop_above", priority_drop_above, 0},
    {NULL, NULL, 0},
};
