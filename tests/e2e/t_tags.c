/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * What belongs to the user on a packet is what it would be without OpenDivert:
 * owner, cgroup, mark, class, DSCP, zone; of packets that went through a handle
 * and of new ones, in the user's rules and on the wire.
 */
#include "e2e.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PORT 5001
#define OTHER_PORT 5002
#define COUNT 200
#define OWNER 4711
#define MARK 0x77
#define CLASS 0x10020 /* 1:20 */
#define DSCP 10
#define CGROUPS "/run/cgroups"
#define CGROUP "wd_e2e"

/* ---- A socket with everything ------------------------------------------- */

static void
write_pid(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    CHECK(fd >= 0 && write(fd, "0", 1) == 1, "%s: %s", path, strerror(errno));
    close(fd);
}

/* A cgroup of version 2 below the one that is the root here; the process is in it while a socket is made. */
static void
enter_cgroup(void)
{
    mkdir(CGROUPS, 0700);
    CHECK(mount("none", CGROUPS, "cgroup2", 0, NULL) == 0, "mount cgroup2: %s", strerror(errno));
    CHECK(mkdir(CGROUPS "/" CGROUP, 0700) == 0 || errno == EEXIST, "mkdir: %s", strerror(errno));
    write_pid(CGROUPS "/" CGROUP "/cgroup.procs");
}

static void
leave_cgroup(void)
{
    write_pid(CGROUPS "/cgroup.procs");
}

static void
remove_cgroup(void)
{
    rmdir(CGROUPS "/" CGROUP);
    umount(CGROUPS);
}

static int
special_socket(bool v6)
{
    int fd, mark = MARK, class = CLASS, tos = DSCP << 2;

    enter_cgroup();
    setfsuid(OWNER);
    fd = e2e_udp_sender("a", v6 ? E2E_B6 : E2E_B4, PORT, 0);
    setfsuid(0);
    leave_cgroup();
    if (v6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof(tos));
    else
        setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof(tos));
    CHECK(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0, "SO_MARK");
    CHECK(setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &class, sizeof(class)) == 0, "SO_PRIORITY");
    return fd;
}

/* Rules that count only what has all of it; the zone is the user's, set before conntrack. */
static void
special_rules(bool v6)
{
    static const char text[] =
        "mount -t cgroup2 none /sys/fs/cgroup && printf %%s \"table inet t { counter out { }; counter post { }; "
        "chain z { type filter hook output priority -300; udp dport { 5001, 5002 } ct zone set 7; }; "
        "chain o { type filter hook output priority 0; meta skuid %u meta mark %u meta priority 1:20 %s dscp %u "
        "ct zone 7 udp dport { 5001, 5002 } socket cgroupv2 level 1 " CGROUP " counter name out; }; "
        "chain p { type filter hook postrouting priority 0; meta skuid %u meta mark %u meta priority 1:20 %s dscp %u "
        "ct zone 7 udp dport { 5001, 5002 } counter name post; }; }\" | nft -f -";
    const char *ip = v6 ? "ip6" : "ip";

    free(e2e_shell("a", text, OWNER, MARK, ip, DSCP, OWNER, MARK, ip, DSCP));
}

static bool
change_payload(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    packet[v.transport + 3] = OTHER_PORT & 0xff;
    addr->IPChecksum = addr->UDPChecksum = 0;
    if (p->arg)
        CHECK(inet_pton(v.v6 ? AF_INET6 : AF_INET, p->arg, packet + (v.v6 ? 24 : 16)) == 1, "address");
    return true;
}

/* Through the handle: as it is, changed, or changed so that it is routed anew (from c's address to b's). */
static void
through(bool v6, e2e_edit edit, const char *really)
{
    const char *to = v6 ? E2E_B6 : E2E_B4;
    struct e2e_pump pump = {.count = COUNT};
    struct e2e_passer p = {.batch = 8, .edit = edit, .arg = (void *)(uintptr_t)really};

    pump.tx = special_socket(v6);
    pump.rx = e2e_udp_receiver(really ? "c" : "b", really ? really : to, edit ? OTHER_PORT : PORT);
    special_rules(v6);
    p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    CHECK(e2e_nft_counter("a", "out") == COUNT, "OUTPUT: %llu of %u had all",
          (unsigned long long)e2e_nft_counter("a", "out"), COUNT);
    CHECK(e2e_nft_counter("a", "post") == COUNT, "POSTROUTING: %llu of %u had all",
          (unsigned long long)e2e_nft_counter("a", "post"), COUNT);
    e2e_pass_stop(&p);
    CHECK(p.received == COUNT, "%llu were diverted", (unsigned long long)p.received);
    e2e_delete_table("a");
    remove_cgroup();
    close(pump.rx);
    close(pump.tx);
}

static void
tags_returned(void)
{
    through(false, NULL, NULL);
    through(true, NULL, NULL);
}

static void
tags_changed(void)
{
    through(false, change_payload, NULL);
    through(true, change_payload, NULL);
    through(false, change_payload, E2E_C4);
    through(true, change_payload, E2E_C6);
}

/* ---- New packets --------------------------------------------------------- */

static UINT
make(uint8_t *packet, const char *from, const char *to)
{
    UINT len = e2e_make_udp(packet, from, 4000, to, PORT, "some text", 9);

    if (*packet >> 4 == 6) {
        packet[0] |= DSCP >> 2;
        packet[1] = (uint8_t)(DSCP << 6 | 0x13); /* ECN, a flow label */
        packet[2] = 0x24;
        packet[3] = 0x35;
    } else {
        packet[1] = DSCP << 2 | 1;
        packet[4] = 0x12; /* an id */
        packet[5] = 0x34;
    }
    e2e_fill_sums(packet);
    return len;
}

/* Every byte is what was sent. */
static void
expect_same(int capture, const uint8_t *packet, unsigned len)
{
    static uint8_t seen[E2E_PACKET_MAX];
    uint16_t port = PORT;

    CHECK(e2e_captured(capture, seen, 2000, e2e_is_udp_to, &port) == len, "not captured whole");
    for (unsigned i = 0; i < len; i++)
        CHECK(seen[i] == packet[i], "byte %u is %02x, not %02x", i, seen[i], packet[i]);
}

static void
new_rules(const char *ns, const char *hook, bool v6)
{
    char body[1024];

    snprintf(
        body, sizeof(body),
        "counter plain { }; counter zone { }; "
        "chain z { type filter hook %s priority -300; meta mark 0 %s dscp %u udp dport 5001 counter name plain "
        "ct zone set 7; }; chain f { type filter hook %s priority 0; ct zone 7 meta mark 0 counter name zone; }; ",
        hook, v6 ? "ip6" : "ip", DSCP, hook);
    e2e_set_table(ns, body);
}

static void
new_packets(const char *ns, const char *hook, const char *from, const char *to, const WINDIVERT_ADDRESS *addr,
            int capture)
{
    uint8_t packet[128];
    UINT len = make(packet, from, to);
    HANDLE h;

    e2e_enter(ns);
    h = e2e_open_at(addr->Layer, "false", 0, 0);
    new_rules(ns, hook, addr->IPv6);
    for (unsigned i = 0; i < COUNT; i++) {
        e2e_send_packet(h, packet, len, addr);
        expect_same(capture, packet, len);
    }
    CHECK(e2e_nft_counter(ns, "plain") == COUNT && e2e_nft_counter(ns, "zone") == COUNT,
          "of %u, %llu without a mark, %llu in the user's zone", COUNT,
          (unsigned long long)e2e_nft_counter(ns, "plain"), (unsigned long long)e2e_nft_counter(ns, "zone"));
    e2e_delete_table(ns);
    CHECK_API(WinDivertClose(h));
    close(capture);
}

static void
tags_new_out(void)
{
    WINDIVERT_ADDRESS addr4 = e2e_new_outbound(false), addr6 = e2e_new_outbound(true);

    addr4.IPChecksum = addr4.UDPChecksum = addr6.UDPChecksum = 1;
    new_packets("a", "output", E2E_A4, E2E_B4, &addr4, e2e_capture("b", "vb"));
    new_packets("a", "output", E2E_A6, E2E_B6, &addr6, e2e_capture("b", "vb"));
}

static void
tags_new_in(void)
{
    WINDIVERT_ADDRESS addr4 = e2e_new_inbound(false, "a", "va"), addr6 = e2e_new_inbound(true, "a", "va");

    new_packets("a", "prerouting", E2E_B4, E2E_A4, &addr4, e2e_capture("a", "va"));
    new_packets("a", "prerouting", E2E_B6, E2E_A6, &addr6, e2e_capture("a", "va"));
}

static void
tags_new_forward(void)
{
    WINDIVERT_ADDRESS addr4 = e2e_new_inbound(false, "b", "vb"), addr6 = e2e_new_inbound(true, "b", "vb");

    addr4.Layer = addr6.Layer = WINDIVERT_LAYER_NETWORK_FORWARD;
    new_packets("b", "prerouting", E2E_A4, E2E_C4, &addr4, e2e_capture("c", "vc"));
    new_packets("b", "prerouting", E2E_A6, E2E_C6, &addr6, e2e_capture("c", "vc"));
}

/* ---- Classes ------------------------------------------------------------- */

static unsigned
sent_in_class(const char *class)
{
    char *out = e2e_shell("a", "tc -s class show dev va classid %s", class), *at = strstr(out, "bytes ");
    unsigned n;

    CHECK(at && sscanf(at, "bytes %u pkt", &n) == 1, "no class %s: %s", class, out);
    free(out);
    return n;
}

/* The socket's class is its class behind the handle as well; a new packet has none, and goes to the default. */
static void
tags_class(void)
{
    struct e2e_pump pump = {.count = COUNT};
    struct e2e_passer p = {.batch = 1};
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    uint8_t packet[128];
    UINT len = make(packet, E2E_A4, E2E_B4);
    uint16_t port = PORT;
    int capture;

    free(e2e_shell("a", "tc qdisc add dev va root handle 1: htb default 10; "
                        "tc class add dev va parent 1: classid 1:10 htb rate 1gbit quantum 1500; "
                        "tc class add dev va parent 1: classid 1:20 htb rate 1gbit quantum 1500"));
    pump.tx = special_socket(false);
    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    CHECK(sent_in_class("1:20") == COUNT, "%u of %u in the socket's class", sent_in_class("1:20"), COUNT);
    CHECK(sent_in_class("1:10") == 0, "%u in the default class", sent_in_class("1:10"));
    capture = e2e_capture("b", "vb");
    for (unsigned i = 0; i < COUNT; i++)
        e2e_send_packet(p.handle, packet, len, &addr);
    for (unsigned i = 0; i < COUNT; i++)
        CHECK(e2e_captured(capture, packet, 1000, e2e_is_udp_to, &port), "%u of %u came", i, COUNT);
    CHECK(sent_in_class("1:20") == COUNT && sent_in_class("1:10") == COUNT, "new packets: %u in the default class",
          sent_in_class("1:10"));
    e2e_pass_stop(&p);
    remove_cgroup();
    free(e2e_shell("a", "tc qdisc del dev va root"));
}

const struct e2e_test e2e_tags_tests[] = {
    {"tags_returned", tags_returned, 0},
    {"tags_changed", tags_changed, 0},
    {"tags_new_out", tags_new_out, 0},
    {"tags_new_in", tags_new_in, 0},
    {"tags_new_forward", tags_new_forward, 0},
    {"tags_class", tags_class, 0},
    {NULL, NULL, 0},
};
