/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Beside what other programs set up: a container host's translation and firewall, a tunnel's policy routing. */
#include "e2e.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FORWARD WINDIVERT_LAYER_NETWORK_FORWARD
#define COUNT 2000
#define HELD 40

/* ---- A container host ---------------------------------------------------------- */

#define PUBLISHED 8080
#define SERVICE 80
#define K_4 "172.17.0.2"
#define K_6 "fd17::2"

/* b is the host: docker0 with the container k behind it, port 8080 published as its port 80. */
static const char bridge[] =
    "ip netns del k 2>/dev/null; set -e; ip netns add k; ip -n k link set lo up; "
    "ip -n b link add docker0 address 02:42:00:00:00:01 type bridge; "
    "ip -n b link add vk type veth peer name eth0 address 02:42:00:00:00:02 netns k; ip -n b link set vk master "
    "docker0; "
    "ip -n b link set docker0 addrgenmode none up; ip -n b link set vk addrgenmode none up; "
    "ip -n k link set eth0 addrgenmode none up; "
    "ip -n b addr add 172.17.0.1/16 dev docker0; ip -n b addr add fd17::1/64 dev docker0 nodad; "
    "ip -n k addr add 172.17.0.2/16 dev eth0; ip -n k addr add fd17::2/64 dev eth0 nodad; "
    "ip -n b neigh replace fd17::2 dev docker0 lladdr 02:42:00:00:00:02 nud permanent; "
    "ip -n k neigh replace fd17::1 dev eth0 lladdr 02:42:00:00:00:01 nud permanent; "
    "ip -n k route add default via 172.17.0.1; ip -n k route add default via fd17::1";

/* The rules as such a host has them, once for each IP version. */
static const char translation[] =
    "nft -f - <<E\n"
    "table %s nat {\n"
    " chain DOCKER { iifname docker0 return; tcp dport 8080 dnat to %s; udp dport 8080 dnat to %s; }\n"
    " chain PREROUTING { type nat hook prerouting priority -100; fib daddr type local jump DOCKER; }\n"
    " chain OUTPUT { type nat hook output priority -100; %s daddr != %s fib daddr type local jump DOCKER; }\n"
    " chain POSTROUTING { type nat hook postrouting priority 100; %s saddr %s oifname != docker0 masquerade;\n"
    "  %s saddr %s %s daddr %s masquerade; }\n"
    "}\nE";
static const char firewall[] =
    "nft -f - <<E\n"
    "table %s filter {\n"
    " chain DOCKER-USER { return; }\n"
    " chain DOCKER { %s daddr %s iifname != docker0 oifname docker0 tcp dport 80 accept;\n"
    "  %s daddr %s iifname != docker0 oifname docker0 udp dport 80 accept; }\n"
    " chain FORWARD { type filter hook forward priority 0; policy drop; ct state invalid drop; jump DOCKER-USER;\n"
    "  oifname docker0 ct state related,established accept; oifname docker0 jump DOCKER;\n"
    "  iifname docker0 oifname != docker0 accept; iifname docker0 oifname docker0 accept; }\n"
    "}\nE";

static void
add_host_rules(bool v6)
{
    const char *ip = v6 ? "ip6" : "ip", *k = v6 ? K_6 : K_4;

    free(e2e_shell("b", translation, ip, v6 ? "[fd17::2]:80" : "172.17.0.2:80", v6 ? "[fd17::2]:80" : "172.17.0.2:80",
                   ip, v6 ? "::1" : "127.0.0.0/8", ip, v6 ? "fd17::/64" : "172.17.0.0/16", ip, k, ip, k));
    free(e2e_shell("b", firewall, ip, ip, k, ip, k));
}

static void
add_host(void)
{
    free(e2e_shell(NULL, "%s", bridge));
    add_host_rules(false);
    add_host_rules(true);
}

static void
remove_host(void)
{
    free(e2e_shell("b", "nft flush ruleset; ip link del docker0"));
    free(e2e_shell(NULL, "ip netns del k"));
}

struct tally {
    _Atomic uint64_t packets;
    bool change;       /* what carries data to the service */
    uint16_t to, from; /* only packets to the one or from the other port come; 0: none */
    uint8_t mask;      /* put over its bytes */
};

static void
change_payload(uint8_t *packet, const struct e2e_view *v, uint8_t mask)
{
    for (unsigned i = v->payload; i < v->end; i++)
        packet[i] ^= mask;
}

static bool
tally(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct tally *t = p->arg;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    CHECK(v.dport == t->to || v.sport == t->from, "ports %u, %u", v.sport, v.dport);
    t->packets++;
    if (!t->change)
        return true;
    packet[1] ^= v.v6 ? 0x10 : 0x04; /* the class of traffic, so that every packet is another than it was */
    if (v.dport == t->to && v.end > v.payload)
        change_payload(packet, &v, t->mask);
    addr->IPChecksum = addr->TCPChecksum = addr->UDPChecksum = 0;
    return true;
}

static void
start_tally(struct e2e_passer *p, struct tally *t, WINDIVERT_LAYER layer, const char *filter)
{
    *p = (struct e2e_passer){.batch = 16, .edit = tally, .arg = t};
    p->handle = e2e_open_at(layer, filter, 0, 0);
    e2e_pass_start(p);
}

static void
datagrams(const char *from, const char *to, const char *bound, uint16_t port, const char *ip, uint16_t dport)
{
    struct e2e_pump pump = {.count = COUNT};

    pump.rx = e2e_udp_receiver(to, bound, port);
    pump.tx = e2e_udp_sender(from, ip, dport, 0);
    e2e_udp_pump(&pump);
    close(pump.rx);
    close(pump.tx);
}

static void
expect_packets(const char *who, const struct tally *t, uint64_t want)
{
    CHECK(t->packets == want, "%s: %llu packets, expected %llu", who, (unsigned long long)t->packets,
          (unsigned long long)want);
}

/* From another machine to the published port: forwarded packets, with the container's address and port. */
static void
published(bool v6, bool change)
{
    const struct e2e_tcp tcp = {"a", "k", v6 ? K_6 : K_4, SERVICE, 4, 1 << 20, change ? 0x5a : 0};
    struct tally through = {.to = SERVICE, .from = SERVICE, .change = change}, own = {0};
    struct e2e_passer forward, network;

    add_host();
    e2e_enter("b");
    start_tally(&forward, &through, FORWARD, "udp or tcp");
    start_tally(&network, &own, WINDIVERT_LAYER_NETWORK, "udp or tcp");
    datagrams("a", "k", v6 ? K_6 : K_4, SERVICE, v6 ? E2E_B6 : E2E_B4, PUBLISHED);
    expect_packets("forwarded", &through, COUNT);
    through.mask = tcp.client_xor;
    e2e_tcp_run_to(&tcp, v6 ? E2E_B6 : E2E_B4, PUBLISHED);
    CHECK(through.packets > COUNT + 4 * 8, "%llu packets", (unsigned long long)through.packets);
    expect_packets("of the host itself", &own, 0);
    e2e_pass_stop(&network);
    e2e_pass_stop(&forward);
    e2e_enter("a");
    remove_host();
}

static void
rules_published4(void)
{
    published(false, false);
}

static void
rules_published6(void)
{
    published(true, false);
}

static void
rules_published_changed4(void)
{
    published(false, true);
}

static void
rules_published_changed6(void)
{
    published(true, true);
}

/*
 * From the host itself: seen going out as the program meant it, before the
 * translation; what comes back as it came, as that is undone behind us.
 */
static void
published_here(bool v6, bool change)
{
    const struct e2e_tcp tcp = {"b", "k", v6 ? K_6 : K_4, SERVICE, 4, 1 << 20, change ? 0x5a : 0};
    struct tally through = {0}, own = {.to = PUBLISHED, .from = SERVICE, .change = change};
    struct e2e_passer forward, network;

    add_host();
    e2e_enter("b");
    start_tally(&forward, &through, FORWARD, "udp or tcp");
    start_tally(&network, &own, WINDIVERT_LAYER_NETWORK, "udp or tcp");
    datagrams("b", "k", v6 ? K_6 : K_4, SERVICE, v6 ? E2E_B6 : E2E_B4, PUBLISHED);
    expect_packets("of the host", &own, COUNT);
    own.mask = tcp.client_xor;
    e2e_tcp_run_to(&tcp, v6 ? E2E_B6 : E2E_B4, PUBLISHED);
    CHECK(own.packets > COUNT + 4 * 8, "%llu packets", (unsigned long long)own.packets);
    expect_packets("forwarded", &through, 0);
    e2e_pass_stop(&network);
    e2e_pass_stop(&forward);
    e2e_enter("a");
    remove_host();
}

static void
rules_published_here4(void)
{
    published_here(false, false);
    published_here(false, true);
}

static void
rules_published_here6(void)
{
    published_here(true, false);
    published_here(true, true);
}

/* From the container to another machine, by the host's address. */
static void
rules_masquerade(void)
{
    const struct e2e_tcp tcp4 = {"k", "a", E2E_A4, 5001, 4, 1 << 20, 0x5a},
                         tcp6 = {"k", "a", E2E_A6, 5001, 4, 1 << 20, 0x5a};
    struct tally t = {.to = 5001, .from = 5001, .change = true};
    struct e2e_passer p;

    add_host();
    e2e_enter("b");
    start_tally(&p, &t, FORWARD, "udp or tcp");
    datagrams("k", "a", E2E_A4, 5001, E2E_A4, 5001);
    datagrams("k", "a", E2E_A6, 5001, E2E_A6, 5001);
    expect_packets("masqueraded", &t, 2 * COUNT);
    t.mask = 0x5a;
    e2e_tcp_run(&tcp4);
    e2e_tcp_run(&tcp6);
    e2e_pass_stop(&p);
    e2e_enter("a");
    remove_host();
}

/* From one container to another on the same bridge, which shows what it passes on to the rules of routers. */
static void
rules_bridged(void)
{
    struct tally t = {.to = 5001, .change = true};
    struct e2e_passer p;
    char *on;

    add_host();
    free(e2e_shell(NULL,
                   "ip netns del k2 2>/dev/null; set -e; ip netns add k2; "
                   "ip -n b link add vk2 type veth peer name eth0 netns k2; ip -n b link set vk2 master docker0; "
                   "ip -n b link set vk2 addrgenmode none up; ip -n k2 link set eth0 addrgenmode none up; "
                   "ip -n k2 addr add 172.17.0.3/16 dev eth0; ip -n k2 addr add fd17::3/64 dev eth0 nodad"));
    on = e2e_shell("b", "cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || echo 0");
    e2e_enter("b");
    start_tally(&p, &t, FORWARD, "udp");
    datagrams("k2", "k", K_4, 5001, K_4, 5001);
    datagrams("k2", "k", K_6, 5001, K_6, 5001);
    expect_packets("bridged", &t, *on == '1' ? 2 * COUNT : 0);
    e2e_pass_stop(&p);
    free(on);
    e2e_enter("a");
    free(e2e_shell(NULL, "ip netns del k2"));
    remove_host();
}

/* ---- Held packets and translation ------------------------------------------------- */

struct parcels {
    uint8_t packet[HELD][256];
    UINT len[HELD];
    WINDIVERT_ADDRESS addr[HELD];
};

/* HELD datagrams, received and held while the kernel flushes every queue, and then given back. */
static void
flushed(HANDLE h, int tx)
{
    static struct parcels p;
    WINDIVERT_EXT_STATS s;

    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    for (uint32_t i = 0; i < HELD; i++)
        CHECK(e2e_send(tx, 64, i), "send: error %d", errno);
    for (unsigned i = 0; i < HELD; i++)
        p.len[i] = e2e_recv_packet(h, p.packet[i], &p.addr[i]);
    e2e_set_table("b", "chain x { type filter hook output priority 5; }; ");
    e2e_delete_table("b");
    for (unsigned i = 0; i < HELD; i++)
        e2e_send_packet(h, p.packet[i], p.len[i], &p.addr[i]);
    WAIT_UNTIL((s = e2e_stats(h), s.Recovered + s.DropFlushed >= HELD), 3000, "%llu recovered, %llu lost",
               (unsigned long long)s.Recovered, (unsigned long long)s.DropFlushed);
    CHECK(s.Recovered == HELD && s.Returned == HELD, "%llu recovered, %llu returned", (unsigned long long)s.Recovered,
          (unsigned long long)s.Returned);
}

static void
expect_all(int rx)
{
    uint32_t number, sum = 0;
    uint8_t buf[256];

    for (unsigned i = 0; i < HELD; i++) {
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "%u of %u arrived", i, HELD);
        memcpy(&number, buf, 4);
        sum += number;
    }
    CHECK(sum == HELD * (HELD - 1) / 2, "not each datagram once");
    CHECK(e2e_drain(rx) == 0, "more arrived");
}

/*
 * Between two sockets that talk already (the answers too) or not yet: conntrack
 * keeps nothing of a connection whose first packet it dropped, so that only the way there is right.
 */
static void
recovered_published(const char *container, const char *host, bool known)
{
    int rx, tx;
    uint8_t buf[64];
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    HANDLE h;

    add_host();
    rx = e2e_udp_receiver("k", container, SERVICE);
    tx = e2e_udp_sender("a", host, PUBLISHED, 0);
    if (known) {
        CHECK(send(tx, "hello", 5, 0) == 5, "send: %s", strerror(errno));
        WAIT_UNTIL(recvfrom(rx, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len) == 5, 3000, "no question");
        CHECK(sendto(rx, "answer", 6, 0, (struct sockaddr *)&from, len) == 6, "send: %s", strerror(errno));
        CHECK(e2e_receive(tx, buf, sizeof(buf), 3000) == 6, "no answer");
    }
    e2e_enter("b");
    h = e2e_open_at(FORWARD, "udp", 0, 0);
    flushed(h, tx);
    expect_all(rx);
    CHECK_API(WinDivertClose(h));
    if (known) { /* and the way back */
        CHECK(connect(rx, (struct sockaddr *)&from, len) == 0, "connect: %s", strerror(errno));
        h = e2e_open_at(FORWARD, "udp", 0, 0);
        flushed(h, rx);
        expect_all(tx);
        CHECK_API(WinDivertClose(h));
    }
    close(rx);
    close(tx);
    e2e_enter("a");
    remove_host();
}

static void
rules_recovered_new(void)
{
    recovered_published(K_4, E2E_B4, false);
    recovered_published(K_6, E2E_B6, false);
}

static void
rules_recovered_known(void)
{
    recovered_published(K_4, E2E_B4, true);
    recovered_published(K_6, E2E_B6, true);
}

/* Answers to a container that asked from behind the host's address: their destination is translated before us. */
static void
recovered_answers(const char *server)
{
    int rx, tx;
    uint8_t buf[64];
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    HANDLE h;

    add_host();
    rx = e2e_udp_receiver("a", server, 5001);
    tx = e2e_udp_sender("k", server, 5001, 0);
    CHECK(send(tx, "hello", 5, 0) == 5, "send: %s", strerror(errno));
    WAIT_UNTIL(recvfrom(rx, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len) == 5, 3000, "no question");
    CHECK(connect(rx, (struct sockaddr *)&from, len) == 0, "connect: %s", strerror(errno));
    e2e_enter("b");
    h = e2e_open_at(FORWARD, "udp", 0, 0);
    flushed(h, rx);
    expect_all(tx);
    CHECK_API(WinDivertClose(h));
    close(rx);
    close(tx);
    e2e_enter("a");
    remove_host();
}

static void
rules_recovered_answers(void)
{
    recovered_answers(E2E_A4);
    recovered_answers(E2E_A6);
}

/* A firewall that knows connections, without translation: what comes in, and the answers that go out. */
static void
recovered_stateful(const char *ip)
{
    int rx = e2e_udp_receiver("b", ip, 5001), tx = e2e_udp_sender("a", ip, 5001, 0);
    uint8_t buf[64];
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    HANDLE h;

    free(e2e_shell("b", "nft -f - <<E\ntable inet u { chain in { type filter hook input priority 0; policy drop; "
                        "icmpv6 type {nd-neighbor-solicit, nd-neighbor-advert} accept; ct state established accept; "
                        "ct state new udp dport 5001 accept; }; chain out { type filter hook output priority 0; "
                        "policy drop; ct state established accept; }; }\nE"));
    e2e_enter("b");
    h = e2e_open("inbound and udp", 0, 0);
    flushed(h, tx);
    CHECK(recvfrom(rx, buf, sizeof(buf), MSG_PEEK, (struct sockaddr *)&from, &len) == 64, "nothing arrived");
    expect_all(rx);
    CHECK_API(WinDivertClose(h));
    CHECK(connect(rx, (struct sockaddr *)&from, len) == 0, "connect: %s", strerror(errno));
    h = e2e_open("outbound and udp", 0, 0);
    flushed(h, rx);
    expect_all(tx);
    CHECK_API(WinDivertClose(h));
    free(e2e_shell("b", "nft delete table inet u"));
    e2e_enter("a");
    close(rx);
    close(tx);
}

static void
rules_recovered_stateful(void)
{
    recovered_stateful(E2E_B4);
    recovered_stateful(E2E_B6);
}

/* ---- A tunnel's policy routing ------------------------------------------------------- */

#define MARK 51820
#define FAR_4 "10.99.0.9" /* at b, by the default route */
#define FAR_6 "fd99::9"

/*
 * As a tunnel to everywhere sets it up: what its own socket sends has a mark and takes the
 * main table, everything else goes into the tunnel (wa).
 */
static void
add_tunnel(void)
{
    e2e_add_link();
    free(e2e_shell("b", "ip addr add 10.99.0.9/32 dev lo; ip addr add fd99::9/128 dev lo nodad"));
    for (unsigned v = 4; v <= 6; v += 2)
        free(e2e_shell("a",
                       "set -e; ip -%u route add default via %s dev va; "
                       "ip -%u route add default via %s dev wa table 51820; "
                       "ip -%u rule add not fwmark 51820 table 51820; "
                       "ip -%u rule add table main suppress_prefixlength 0",
                       v, v == 4 ? E2E_B4 : E2E_B6, v, v == 4 ? E2E_W_B4 : E2E_W_B6, v, v));
    e2e_set_table("b",
                  "counter tunnel { }; counter main { }; chain p { type filter hook prerouting priority -350; "
                  "iifname wb udp dport 5001 counter name tunnel; iifname vb udp dport 5001 counter name main; }; ");
}

static void
remove_tunnel(void)
{
    for (unsigned v = 4; v <= 6; v += 2)
        free(e2e_shell("a",
                       "ip -%u rule del not fwmark 51820 table 51820; "
                       "ip -%u rule del table main suppress_prefixlength 0; ip -%u route del default dev va",
                       v, v, v));
    free(e2e_shell("a", "ip link del wa"));
    free(e2e_shell("b", "ip addr del 10.99.0.9/32 dev lo; ip addr del fd99::9/128 dev lo"));
    e2e_delete_table("b");
}

static void
expect_ways(uint64_t tunnel, uint64_t main)
{
    uint64_t t = e2e_nft_counter("b", "tunnel"), m = e2e_nft_counter("b", "main");

    CHECK(t == tunnel && m == main, "%llu through the tunnel, %llu by the main table, expected %llu, %llu",
          (unsigned long long)t, (unsigned long long)m, (unsigned long long)tunnel, (unsigned long long)main);
}

static int
sender_of(const char *ip, bool marked)
{
    int tx, mark = MARK;
    struct sockaddr_storage to;
    socklen_t len = e2e_sockaddr(ip, 5001, &to);

    tx = e2e_socket("a", to.ss_family, SOCK_DGRAM, 0);
    if (marked)
        CHECK(setsockopt(tx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0, "SO_MARK: %s", strerror(errno));
    CHECK(connect(tx, (struct sockaddr *)&to, len) == 0, "connect: %s", strerror(errno));
    return tx;
}

struct ways {
    unsigned tunnel_if, main_if, mode;
    _Atomic uint64_t tunnel, main;
};

static bool
note_way(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct ways *w = p->arg;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    if (addr->Network.IfIdx == w->tunnel_if)
        w->tunnel++;
    else if (addr->Network.IfIdx == w->main_if)
        w->main++;
    else
        FAIL("interface %u", addr->Network.IfIdx);
    if (w->mode >= 1) /* changed: the class of traffic, which makes the kernel route again */
        packet[1] ^= v.v6 ? 0x10 : 0x04;
    addr->IPChecksum = 0;
    return true;
}

/* Returned as they are and changed: the way is that of the socket. */
static void
tunnel_returned(const char *ip)
{
    struct e2e_pump in = {.count = COUNT}, out = {.count = COUNT};
    struct ways w = {.tunnel_if = E2E_W_INDEX, .main_if = e2e_ifindex("a", "va")};
    struct e2e_passer p = {.batch = 8, .edit = note_way, .arg = &w};

    add_tunnel();
    in.rx = out.rx = e2e_udp_receiver("b", ip, 5001);
    in.tx = sender_of(ip, false);
    out.tx = sender_of(ip, true);
    p.handle = e2e_open("outbound and udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    for (w.mode = 0; w.mode < 2; w.mode++) {
        e2e_udp_pump(&in);
        e2e_udp_pump(&out);
        expect_ways((w.mode + 1) * COUNT, (w.mode + 1) * COUNT);
    }
    e2e_pass_stop(&p);
    CHECK(w.tunnel == 2 * COUNT && w.main == 2 * COUNT, "%llu and %llu at the handle", (unsigned long long)w.tunnel,
          (unsigned long long)w.main);
    close(in.rx);
    close(in.tx);
    close(out.tx);
    remove_tunnel();
}

static void
rules_tunnel_returned4(void)
{
    tunnel_returned(FAR_4);
}

static void
rules_tunnel_returned6(void)
{
    tunnel_returned(FAR_6);
}

/* What the kernel had dropped and our copy replaces takes the same way; what comes too late as well. */
static void
tunnel_again(const char *ip)
{
    int rx, tx;
    uint8_t packet[256], buf[256];
    WINDIVERT_ADDRESS addr;
    UINT len;
    HANDLE h;

    add_tunnel();
    rx = e2e_udp_receiver("b", ip, 5001);
    h = e2e_open("outbound and udp.DstPort == 5001", 0, 0);
    for (unsigned marked = 0; marked < 2; marked++) {
        tx = sender_of(ip, marked);
        CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 1000));
        CHECK(e2e_send(tx, 64, 1), "send: error %d", errno);
        len = e2e_recv_packet(h, packet, &addr);
        e2e_set_table("a", "chain x { type filter hook output priority 5; }; ");
        e2e_delete_table("a");
        e2e_send_packet(h, packet, len, &addr);
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "a recovered packet did not arrive");
        WAIT_UNTIL(e2e_stats(h).Recovered == marked + 1, 3000, "nothing was flushed");
        expect_ways(marked ? 2 : 1, marked);
        CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 1));
        CHECK(e2e_send(tx, 64, 2), "send: error %d", errno);
        len = e2e_recv_packet(h, packet, &addr);
        WAIT_UNTIL(e2e_stats(h).NotReturned == marked + 1, 3000, "not dropped");
        e2e_send_packet(h, packet, len, &addr);
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "a late packet did not arrive");
        expect_ways(2, marked * 2);
        close(tx);
    }
    /* What the program makes up has no mark. */
    len = e2e_make_udp(packet, strchr(ip, ':') ? E2E_A6 : E2E_A4, 4000, ip, 5001, "some text", 9);
    addr = e2e_new_outbound(strchr(ip, ':'));
    e2e_send_packet(h, packet, len, &addr);
    CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 9, "a new packet did not arrive");
    expect_ways(3, 2);
    CHECK_API(WinDivertClose(h));
    close(rx);
    remove_tunnel();
}

static void
rules_tunnel_again4(void)
{
    tunnel_again(FAR_4);
}

static void
rules_tunnel_again6(void)
{
    tunnel_again(FAR_6);
}

const struct e2e_test e2e_rules_tests[] = {
    {"rules_published4", rules_published4, 0},
    {"rules_published6", rules_published6, 0},
    {"rules_published_changed4", rules_published_changed4, 0},
    {"rules_published_changed6", rules_published_changed6, 0},
    {"rules_published_here4", rules_published_here4, 0},
    {"rules_published_here6", rules_published_here6, 0},
    {"rules_masquerade", rules_masquerade, 0},
    {"rules_bridged", rules_bridged, 0},
    {"rules_recovered_new", rules_recovered_new, 0},
    {"rules_recovered_known", rules_recovered_known, 0},
    {"rules_recovered_answers", rules_recovered_answers, 0},
    {"rules_recovered_stateful", rules_recovered_stateful, 0},
    {"rules_tunnel_returned4", rules_tunnel_returned4, 0},
    {"rules_tunnel_returned6", rules_tunnel_returned6, 0},
    {"rules_tunnel_again4", rules_tunnel_again4, 0},
    {"rules_tunnel_again6", rules_tunnel_again6, 0},
    {NULL, NULL, 0},
};
