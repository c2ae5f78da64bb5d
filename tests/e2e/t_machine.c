/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Interfaces that come, change their names, move, go down and go while handles are open. */
#include "e2e.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001    /* over the links that stay */
#define CHANGED 5002 /* over those that change */
#define DROPPED 5003
#define COUNT 4000
#define ROUNDS 25
#define HELD 40

static void
run(const char *ns, const char *command)
{
    free(e2e_shell(ns, "%s", command));
}

/* ---- Under load ------------------------------------------------------------ */

struct churn {
    _Atomic uint64_t sent; /* datagrams that the kernel took, over links that change */
    _Atomic bool begin, done;
};

static void
send_changed(struct churn *c, int fd, const char *ip)
{
    struct sockaddr_storage to;
    socklen_t len = e2e_sockaddr(ip, CHANGED, &to);

    for (unsigned i = 0; i < 20; i++)
        if (sendto(fd, "over a link that changes", 24, 0, (struct sockaddr *)&to, len) == 24)
            c->sent++;
}

/* Links made, used, renamed, used, moved away and back, taken down, and deleted. */
static void
churn(void *arg)
{
    struct churn *c = arg;
    int fd4 = e2e_socket("a", AF_INET, SOCK_DGRAM, 0), fd6 = e2e_socket("a", AF_INET6, SOCK_DGRAM, 0);

    WAIT_UNTIL(c->begin, 10000, "never told to begin");
    for (unsigned i = 0; i < ROUNDS; i++) {
        e2e_add_link();
        send_changed(c, fd4, E2E_W_B4);
        run("a",
            "ip link set wa down; ip link set wa name wx; ip link set wx up; ip addr add fd90::1/64 dev wx nodad");
        send_changed(c, fd6, E2E_W_B6);
        send_changed(c, fd4, E2E_W_B4);
        run("a", "ip link set wx netns c");
        send_changed(c, fd4, E2E_W_B4);
        run("c", "ip link set wx netns a");
        run("a", "ip link set wx up");
        send_changed(c, fd4, E2E_W_B4);
        run("a", "ip link del wx");
    }
    c->done = true;
}

/* New packets inbound on an interface that comes and goes: each is sent, or refused with a reason. */
static void
inject_meanwhile(void *arg)
{
    struct churn *c = arg;
    HANDLE h;
    WINDIVERT_ADDRESS addr = e2e_new_inbound(false, "a", "lo");
    uint64_t sent = 0, refused = 0;
    uint8_t packet[128];
    UINT len = e2e_make_udp(packet, E2E_W_B4, 4000, E2E_W_A4, CHANGED, "some text", 9);

    addr.Network.IfIdx = E2E_W_INDEX;
    WAIT_UNTIL(c->begin, 10000, "never told to begin");
    h = e2e_open("inbound and ifIdx == 7700 and udp.DstPort == 5001", 5, 0);
    while (!c->done) {
        if (WinDivertSend(h, packet, len, NULL, &addr)) {
            sent++;
            continue;
        }
        CHECK(GetLastError() == ERROR_INVALID_PARAMETER || GetLastError() == ERROR_GEN_FAILURE, "error %u: %s",
              (unsigned)GetLastError(), WinDivertExtGetLastErrorText());
        refused++;
        e2e_nap_us(500);
    }
    CHECK(sent > ROUNDS && refused > ROUNDS, "%llu sent, %llu refused", (unsigned long long)sent,
          (unsigned long long)refused);
    CHECK(e2e_stats(h).Injected == sent, "%llu counted, %llu sent", (unsigned long long)e2e_stats(h).Injected,
          (unsigned long long)sent);
    CHECK_API(WinDivertClose(h));
}

struct tally {
    _Atomic uint64_t stable, changed;
    unsigned stable_if; /* 0: the packets' interface is not looked at */
    bool sniffed;
};

static bool
count(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct tally *t = p->arg;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    if (v.dport == PORT) {
        t->stable++;
        CHECK(addr->Network.IfIdx == t->stable_if, "interface %u, not %u", addr->Network.IfIdx, t->stable_if);
    } else {
        t->changed++;
        CHECK(addr->Network.IfIdx > 1 && addr->Network.IfIdx != t->stable_if,
              "interface %u of a packet that went out"
              " by another",
              addr->Network.IfIdx);
    }
    return !t->sniffed;
}

static void
watch(struct e2e_passer *p, struct tally *t, const char *filter, INT16 priority, UINT64 flags)
{
    t->stable_if = e2e_ifindex("a", "va");
    t->sniffed = flags & WINDIVERT_FLAG_SNIFF;
    *p = (struct e2e_passer){.batch = 16, .edit = count, .arg = t};
    p->handle = e2e_open(filter, priority, flags);
    CHECK_API(WinDivertSetParam(p->handle, WINDIVERT_PARAM_QUEUE_LENGTH, WINDIVERT_PARAM_QUEUE_LENGTH_MAX));
    if (!flags)
        CHECK_API(WinDivertExtSetParam(p->handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    e2e_pass_start(p);
}

static void
expect_tally(const char *who, const struct tally *t, uint64_t stable, uint64_t changed)
{
    WAIT_UNTIL(t->stable >= stable && t->changed >= changed, 3000,
               "%s: %llu and %llu packets, expected %llu and %llu", who, (unsigned long long)t->stable,
               (unsigned long long)t->changed, (unsigned long long)stable, (unsigned long long)changed);
    CHECK(t->stable == stable && t->changed == changed, "%s: %llu and %llu packets, expected %llu and %llu", who,
          (unsigned long long)t->stable, (unsigned long long)t->changed, (unsigned long long)stable,
          (unsigned long long)changed);
}

/* Sniffing keeps nobody back: the next run begins when the last one was seen. */
static uint64_t
pump(const char *ip, const struct churn *c, const struct tally *sniffed, const struct tally *sniffed_if)
{
    struct e2e_pump pump = {.count = COUNT};
    uint64_t total = 0;

    pump.rx = e2e_udp_receiver("b", ip, PORT);
    pump.tx = e2e_udp_sender("a", ip, PORT, 0);
    do {
        e2e_udp_pump(&pump);
        pump.first = (uint32_t)(total += COUNT);
        WAIT_UNTIL(sniffed->stable >= total && sniffed_if->stable >= total, 5000, "%llu and %llu sniffed of %llu",
                   (unsigned long long)sniffed->stable, (unsigned long long)sniffed_if->stable,
                   (unsigned long long)total);
    } while (!c->done && total < 500 * COUNT);
    e2e_marker(pump.tx, pump.rx);
    close(pump.rx);
    close(pump.tx);
    return total + 1;
}

static void
under_load(const char *ip)
{
    static const char both[] = "outbound and (udp.DstPort == 5001 or udp.DstPort == 5002)";
    struct churn *c = e2e_shared(sizeof(*c));
    struct tally diverted = {0}, by_if = {0}, sniffed = {0}, sniffed_if = {0};
    struct e2e_passer divert, divert_if, sniff, sniff_if;
    char on_va[128];
    uint64_t total;
    HANDLE drop;
    int tx = e2e_udp_sender("a", ip, DROPPED, 0);
    pid_t pid, injector;

    snprintf(on_va, sizeof(on_va), "ifIdx == %u and udp.DstPort >= 5001 and udp.DstPort <= 5002",
             e2e_ifindex("a", "va"));
    pid = e2e_spawn("a", churn, c); /* before there are threads, whose locks a child would keep */
    injector = e2e_spawn("a", inject_meanwhile, c);
    watch(&divert, &diverted, both, 0, 0);
    watch(&divert_if, &by_if, on_va, -1, 0);
    watch(&sniff, &sniffed, both, -2, WINDIVERT_FLAG_SNIFF);
    watch(&sniff_if, &sniffed_if, on_va, -3, WINDIVERT_FLAG_SNIFF);
    drop = e2e_open("ifIdx != 1 and udp.DstPort == 5003", 0, WINDIVERT_FLAG_DROP);
    c->begin = true;
    total = pump(ip, c, &sniffed, &sniffed_if);
    e2e_join(pid);
    e2e_join(injector);
    for (uint32_t i = 0; i < 100; i++)
        CHECK(e2e_send(tx, 64, i) || errno == EPERM, "send: error %d", errno);
    CHECK(c->sent > ROUNDS * 20, "only %llu datagrams went over links that change", (unsigned long long)c->sent);
    expect_tally("divert", &diverted, total, c->sent);
    expect_tally("divert, ifIdx", &by_if, total, 0);
    expect_tally("sniff", &sniffed, total, c->sent - e2e_stats(divert.handle).DropFlushed);
    expect_tally("sniff, ifIdx", &sniffed_if, total, 0);
    CHECK(e2e_stats(drop).DropFilter == 100, "%llu dropped", (unsigned long long)e2e_stats(drop).DropFilter);
    e2e_pass_stop(&sniff_if);
    e2e_pass_stop(&sniff);
    e2e_pass_stop(&divert_if);
    e2e_pass_stop(&divert);
    CHECK_API(WinDivertClose(drop));
}

static void
machine_under_load4(void)
{
    under_load(E2E_B4);
}

static void
machine_under_load6(void)
{
    under_load(E2E_B6);
}

/* ---- Interfaces made after the open ------------------------------------------ */

struct seen {
    _Atomic uint64_t packets;
    unsigned ifindex;
    bool outbound, sniffed;
    const char *filter;
};

static bool
see(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct seen *s = p->arg;

    (void)packet;
    (void)len;
    CHECK(addr->Network.IfIdx == s->ifindex, "%s%s: interface %u, not %u", s->filter,
          addr->Sniffed ? " (sniffed)" : "", addr->Network.IfIdx, s->ifindex);
    CHECK(addr->Outbound == s->outbound, "outbound %u", addr->Outbound);
    s->packets++;
    return !s->sniffed;
}

static void
look_at(struct e2e_passer *p, struct seen *s, const char *filter, INT16 priority, UINT64 flags)
{
    s->sniffed = flags & WINDIVERT_FLAG_SNIFF;
    s->filter = filter;
    *p = (struct e2e_passer){.batch = 8, .edit = see, .arg = s};
    p->handle = e2e_open(filter, priority, flags);
    e2e_pass_start(p);
}

/* `divert` and `sniff` have each seen `want` packets, no more. */
static void
expect_seen(const struct seen *diverted, const struct seen *sniffed, uint64_t want)
{
    WAIT_UNTIL(diverted->packets >= want && sniffed->packets >= want, 3000, "%s: %llu diverted, %llu sniffed",
               diverted->filter, (unsigned long long)diverted->packets, (unsigned long long)sniffed->packets);
    CHECK(diverted->packets == want && sniffed->packets == want, "%s: %llu diverted, %llu sniffed, expected %llu",
          diverted->filter, (unsigned long long)diverted->packets, (unsigned long long)sniffed->packets,
          (unsigned long long)want);
}

#define FILTERS 4

/*
 * Handles opened before the interface is there: named by its index in the
 * filter, and not named; both ways, diverting and sniffing, the sniffing ones
 * `above` priorities higher.
 */
static void
later_interface(int above)
{
    static const char *const filter[FILTERS] = {
        "outbound and udp.DstPort == 5001 and ifIdx == 7700",
        "inbound and udp.DstPort == 5001 and ifIdx == 7700",
        "outbound and udp.DstPort == 5001 and ip.DstAddr != 10.77.0.2",
        "inbound and udp.DstPort == 5001",
    };
    struct e2e_passer divert[FILTERS], sniff[FILTERS];
    struct seen diverted[FILTERS], sniffed[FILTERS];
    uint64_t want = 0;

    for (unsigned i = 0; i < FILTERS; i++) {
        diverted[i] = sniffed[i] = (struct seen){.ifindex = E2E_W_INDEX, .outbound = i % 2 == 0};
        look_at(&divert[i], &diverted[i], filter[i], (INT16)i, 0);
        look_at(&sniff[i], &sniffed[i], filter[i], (INT16)((int)i + above), WINDIVERT_FLAG_SNIFF);
    }
    for (unsigned round = 0; round < 3; round++) {
        e2e_add_link();
        e2e_udp_exchange("a", "b", E2E_W_B4, PORT, 500);
        e2e_udp_exchange("b", "a", E2E_W_A6, PORT, 500);
        want += 500;
        for (unsigned i = 0; i < FILTERS; i++) /* the third takes IPv4 only */
            expect_seen(&diverted[i], &sniffed[i], i == 2 ? round * 1000 + 500 : want);
        run("a", "ip link set wa down; ip link set wa name eth7; "
                 "ip link set eth7 up; ip addr add fd90::1/64 dev eth7 nodad");
        e2e_udp_exchange("a", "b", E2E_W_B4, PORT, 500);
        e2e_udp_exchange("a", "b", E2E_W_B6, PORT, 500);
        e2e_udp_exchange("b", "a", E2E_W_A4, PORT, 500);
        e2e_udp_exchange("b", "a", E2E_W_A6, PORT, 500);
        want += 1000;
        run("a", "ip link del eth7");
    }
    for (unsigned i = 0; i < FILTERS; i++) {
        expect_seen(&diverted[i], &sniffed[i], i == 2 ? 3 * 1000 : want);
        e2e_pass_stop(&divert[i]);
        e2e_pass_stop(&sniff[i]);
    }
}

static void
machine_later_interface(void)
{
    later_interface(FILTERS);
}

/* At the priority of another handle, where the kernel attaches no program. */
static void
machine_later_interface_equal(void)
{
    later_interface(0);
}

/* What drops by an interface drops there, not on one of the same name; it goes with the index, not the name. */
static void
machine_drop_by_index(void)
{
    HANDLE drop = e2e_open("udp.DstPort == 5001 and ifIdx == 7700", 0, WINDIVERT_FLAG_DROP);
    int rx, tx;

    for (unsigned round = 1; round <= 2; round++) {
        e2e_add_link();
        rx = e2e_udp_receiver("b", E2E_W_B4, PORT);
        tx = e2e_udp_sender("a", E2E_W_B4, PORT, 0);
        for (uint32_t i = 0; i < 100; i++)
            CHECK(e2e_send(tx, 64, i) || errno == EPERM, "send: error %d", errno);
        CHECK(e2e_stats(drop).DropFilter == round * 100, "%llu dropped",
              (unsigned long long)e2e_stats(drop).DropFilter);
        close(tx);
        run("a", "ip link del wa");
        run("a", "ip link add wa index 7701 address 02:90:00:00:00:01 type veth "
                 "peer name wb address 02:90:00:00:00:02 netns b");
        e2e_configure_link("a", "wa", true);
        e2e_configure_link("b", "wb", false);
        tx = e2e_udp_sender("a", E2E_W_B4, PORT, 0);
        e2e_marker(tx, rx);
        close(tx);
        close(rx);
        run("a", "ip link del wa");
    }
    CHECK_API(WinDivertClose(drop));
}

/* ---- Packets held while their interface changes -------------------------------- */

struct parcels {
    uint8_t packet[HELD][256];
    UINT len[HELD];
    WINDIVERT_ADDRESS addr[HELD];
};

/* `n` datagrams from one end of the second link to the other, received by the handle and held. */
static void
hold(HANDLE h, int tx, struct parcels *p, unsigned n)
{
    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    for (uint32_t i = 0; i < n; i++)
        CHECK(e2e_send(tx, 64, i), "send: error %d", errno);
    for (unsigned i = 0; i < n; i++)
        p->len[i] = e2e_recv_packet(h, p->packet[i], &p->addr[i]);
}

static void
give_back(HANDLE h, const struct parcels *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        e2e_send_packet(h, p->packet[i], p->len[i], &p->addr[i]);
}

static void
expect_fate(HANDLE h, uint64_t returned, uint64_t recovered, uint64_t lost)
{
    WINDIVERT_EXT_STATS s;

    WAIT_UNTIL((s = e2e_stats(h), s.Recovered + s.DropFlushed >= recovered + lost), 3000,
               "%llu recovered, %llu lost; expected %llu, %llu", (unsigned long long)s.Recovered,
               (unsigned long long)s.DropFlushed, (unsigned long long)recovered, (unsigned long long)lost);
    CHECK(s.Returned == returned && s.Recovered == recovered && s.DropFlushed == lost && s.Held == 0,
          "%llu returned, %llu recovered, %llu lost, %llu held; expected %llu, %llu, %llu, 0",
          (unsigned long long)s.Returned, (unsigned long long)s.Recovered, (unsigned long long)s.DropFlushed,
          (unsigned long long)s.Held, (unsigned long long)returned, (unsigned long long)recovered,
          (unsigned long long)lost);
}

static void
expect_all(int rx, unsigned n)
{
    uint8_t buf[256];
    uint32_t number, sum = 0;

    for (unsigned i = 0; i < n; i++) {
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "%u of %u arrived", i, n);
        memcpy(&number, buf, 4);
        sum += number;
    }
    CHECK(sum == n * (n - 1) / 2, "not each datagram once");
}

/*
 * Held packets of an interface that is changed by a command: the kernel has
 * dropped them.  back: a command after which they can go out, or come in, again.
 */
static void
changed_while_held(const char *here, const char *ip, const char *command, const char *back)
{
    static struct parcels p;
    const bool out = *here == 'a';
    int rx, tx;
    HANDLE h;

    e2e_add_link();
    rx = e2e_udp_receiver("b", ip, PORT);
    tx = e2e_udp_sender("a", ip, PORT, 0);
    e2e_enter(here);
    h = e2e_open(out ? "outbound and udp.DstPort == 5001" : "inbound and udp.DstPort == 5001", 0, 0);
    hold(h, tx, &p, HELD);
    run(here, command);
    if (back)
        run(here, back);
    give_back(h, &p, HELD);
    expect_fate(h, HELD, back ? HELD : 0, back ? 0 : HELD);
    if (back)
        expect_all(rx, HELD);
    CHECK(e2e_drain(rx) == 0, "more arrived");
    CHECK_API(WinDivertClose(h));
    if (back)
        e2e_marker(tx, rx);
    e2e_enter("a");
    run("a", "ip link del wa 2>/dev/null; ip -n c link del wa 2>/dev/null; true");
}

static void
machine_down_held_out(void)
{
    changed_while_held("a", E2E_W_B4, "ip link set wa down", NULL);
    changed_while_held("a", E2E_W_B6, "ip link set wa down", NULL);
}

static void
machine_down_held_in(void)
{
    changed_while_held("b", E2E_W_B4, "ip link set wb down", NULL);
    changed_while_held("b", E2E_W_B6, "ip link set wb down", NULL);
}

#define UP_AGAIN(dev, n) "ip link set " dev " up; ip addr replace fd90::" #n "/64 dev " dev " nodad"

static void
machine_bounced_held_out(void)
{
    static const char up[] =
        UP_AGAIN("wa", 1) "; ip neigh replace 10.90.0.2 dev wa lladdr 02:90:00:00:00:02 nud permanent";

    changed_while_held("a", E2E_W_B4, "ip link set wa down", up);
    changed_while_held("a", E2E_W_B6, "ip link set wa down", UP_AGAIN("wa", 1));
}

static void
machine_bounced_held_in(void)
{
    changed_while_held("b", E2E_W_B4, "ip link set wb down", UP_AGAIN("wb", 2));
    changed_while_held("b", E2E_W_B6, "ip link set wb down", UP_AGAIN("wb", 2));
}

static void
machine_deleted_held(void)
{
    changed_while_held("a", E2E_W_B4, "ip link del wa", NULL);
    changed_while_held("b", E2E_W_B6, "ip link del wb", NULL);
}

static void
machine_moved_held(void)
{
    changed_while_held("a", E2E_W_B4, "ip link set wa netns c", NULL);
    changed_while_held("b", E2E_W_B6, "ip link set wb netns c", NULL);
    run("c", "ip link del wb 2>/dev/null; true");
}

/* A name says nothing: nothing is flushed. */
static void
machine_renamed_held(void)
{
    static struct parcels p;
    int rx, tx;
    HANDLE h;

    e2e_add_link();
    rx = e2e_udp_receiver("b", E2E_W_B4, PORT);
    tx = e2e_udp_sender("a", E2E_W_B4, PORT, 0);
    h = e2e_open("outbound and udp.DstPort == 5001", 0, 0);
    hold(h, tx, &p, HELD);
    run("a",
        "ip link property add dev wa altname other; ip link set va alias whatever; ip link set wa name wz || true");
    give_back(h, &p, HELD);
    expect_all(rx, HELD);
    expect_fate(h, HELD, 0, 0);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
    run("b", "ip link del wb");
}

/* Held past the interface's end by a program that then closes: nothing waits, and what was unread is accounted for. */
static void
machine_deleted_then_closed(void)
{
    static struct parcels p;
    int64_t start;
    int tx;
    HANDLE h;

    e2e_add_link();
    tx = e2e_udp_sender("a", E2E_W_B4, PORT, 0);
    h = e2e_open("outbound and udp.DstPort == 5001", 0, 0);
    hold(h, tx, &p, HELD);
    for (uint32_t i = 0; i < HELD; i++)
        CHECK(e2e_send(tx, 64, i), "send: error %d", errno); /* these are not received */
    run("a", "ip link del wa");
    start = e2e_now_us();
    CHECK_API(WinDivertClose(h));
    CHECK(e2e_now_us() - start < 2000000, "close took %lld us", (long long)(e2e_now_us() - start));
}

/* ---- Injecting ---------------------------------------------------------------- */

/* Inbound on an interface through its changes: delivered, or an error that says why not. */
static void
inject_on_changing(const char *from, const char *ip)
{
    HANDLE h = e2e_open("false", 0, 0);
    const bool v6 = strchr(ip, ':');
    WINDIVERT_ADDRESS addr = e2e_new_inbound(v6, "a", "va");
    uint8_t packet[128], buf[128];
    UINT len = e2e_make_udp(packet, from, 4000, ip, PORT, "some text", 9);
    int rx;

    addr.Network.IfIdx = E2E_W_INDEX;
    CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_INVALID_PARAMETER);
    for (unsigned round = 0; round < 2; round++) {
        e2e_add_link();
        rx = e2e_udp_receiver("a", ip, PORT);
        e2e_send_packet(h, packet, len, &addr);
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 9, "not delivered");
        run("a", "ip link set wa down; ip link set wa name wy");
        CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_GEN_FAILURE);
        run("a", "ip link set wy up; ip addr replace fd90::1/64 dev wy nodad");
        e2e_send_packet(h, packet, len, &addr);
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 9, "not delivered after it was renamed");
        run("a", "ip link set wy netns c");
        CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_INVALID_PARAMETER);
        run("c", "ip link set wy netns a");
        run("a", "ip link set wy up; ip addr replace 10.90.0.1/24 dev wy; ip addr replace fd90::1/64 dev wy nodad");
        e2e_send_packet(h, packet, len, &addr);
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 9, "not delivered after it came back");
        run("a", "ip link del wy");
        CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_INVALID_PARAMETER);
        CHECK(e2e_drain(rx) == 0, "delivered more than once");
        close(rx);
    }
    CHECK(e2e_stats(h).Injected == 6, "%llu counted as injected", (unsigned long long)e2e_stats(h).Injected);
    CHECK_API(WinDivertClose(h));
}

static void
machine_inject_in4(void)
{
    inject_on_changing(E2E_W_B4, E2E_W_A4);
}

static void
machine_inject_in6(void)
{
    inject_on_changing(E2E_W_B6, E2E_W_A6);
}

const struct e2e_test e2e_machine_tests[] = {
    {"machine_under_load4", machine_under_load4, 60},
    {"machine_under_load6", machine_under_load6, 60},
    {"machine_later_interface", machine_later_interface, 0},
    {"machine_later_interface_equal", machine_later_interface_equal, 0},
    {"machine_drop_by_index", machine_drop_by_index, 0},
    {"machine_down_held_out", machine_down_held_out, 0},
    {"machine_down_held_in", machine_down_held_in, 0},
    {"machine_bounced_held_out", machine_bounced_held_out, 0},
    {"machine_bounced_held_in", machine_bounced_held_in, 0},
    {"machine_deleted_held", machine_deleted_held, 0},
    {"machine_moved_held", machine_moved_held, 0},
    {"machine_renamed_held", machine_renamed_held, 0},
    {"machine_deleted_then_closed", machine_deleted_then_closed, 0},
    {"machine_inject_in4", machine_inject_in4, 0},
    {"machine_inject_in6", machine_inject_in6, 0},
    {NULL, NULL, 0},
};
