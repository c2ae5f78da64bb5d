/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Corners of the engine: what it counts, whom it keeps waiting, what it shares with others. */
#include "e2e.h"

#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT 5001
#define FILTER "udp.DstPort == 5001"

/* A filter that the kernel does not decide is dropped by a thread of the library: the figures are the same. */
static void
engine_drop_figures(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE h = e2e_open(FILTER " and ifIdx > 1", 0, WINDIVERT_FLAG_DROP);
    WINDIVERT_EXT_STATS s;

    for (uint32_t i = 0; i < 500; i++)
        CHECK(e2e_send(tx, 64, i) || errno == EPERM, "send: error %d", errno);
    WAIT_UNTIL((s = e2e_stats(h)).DropFilter >= 500, 3000, "%llu dropped", (unsigned long long)s.DropFilter);
    CHECK(s.DropFilter == 500 && s.Delivered == 0 && s.NotReturned == 0,
          "dropped %llu, delivered %llu, not returned %llu; expected 500, 0, 0", (unsigned long long)s.DropFilter,
          (unsigned long long)s.Delivered, (unsigned long long)s.NotReturned);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

/* What a handle of a lower priority drops was sent all the same, and the rest of the batch goes on. */
static void
send_into_drop(const char *ip)
{
    bool v6 = strchr(ip, ':');
    int rx = e2e_udp_receiver("b", ip, PORT + 1), tx = e2e_udp_sender("a", ip, PORT + 1, 0);
    HANDLE drop = e2e_open(FILTER, 0, WINDIVERT_FLAG_DROP), h = e2e_open("false", 1, 0);
    WINDIVERT_ADDRESS addr[2] = {e2e_new_outbound(v6), e2e_new_outbound(v6)};
    uint8_t packet[256], got[64];
    UINT len, first = e2e_make_udp(packet, v6 ? E2E_A6 : E2E_A4, 4000, ip, PORT, "one", 3), sent;

    len = first + e2e_make_udp(packet + first, v6 ? E2E_A6 : E2E_A4, 4000, ip, PORT + 1, "two", 3);
    CHECK_API(WinDivertSend(h, packet, first, &sent, addr));
    CHECK(sent == first, "%u of %u bytes sent", sent, first);
    CHECK_API(WinDivertSendEx(h, packet, len, &sent, 0, addr, sizeof(addr), NULL));
    CHECK(sent == len, "%u of %u bytes sent", sent, len);
    CHECK(e2e_receive(rx, got, sizeof(got), 3000) == 3 && memcmp(got, "two", 3) == 0, "the second did not arrive");
    CHECK(e2e_stats(drop).DropFilter == 2, "%llu dropped", (unsigned long long)e2e_stats(drop).DropFilter);
    CHECK(e2e_stats(h).Injected == 3, "%llu injected", (unsigned long long)e2e_stats(h).Injected);
    CHECK_API(WinDivertClose(h));
    CHECK_API(WinDivertClose(drop));
    e2e_marker(tx, rx);
}

static void
engine_send_into_drop4(void)
{
    send_into_drop(E2E_B4);
}

static void
engine_send_into_drop6(void)
{
    send_into_drop(E2E_B6);
}

/* How often the threads of this process, but the calling one, have slept. */
static unsigned long
sleeps_of_others(void)
{
    DIR *dir = opendir("/proc/self/task");
    unsigned long total = 0;
    const struct dirent *entry;

    CHECK(dir, "/proc/self/task: error %d", errno);
    while ((entry = readdir(dir))) {
        char path[64], line[128];
        unsigned long n;
        FILE *f;

        if (entry->d_name[0] == '.' || atoi(entry->d_name) == gettid())
            continue;
        snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", entry->d_name);
        f = fopen(path, "r");
        while (f && fgets(line, sizeof(line), f))
            if (sscanf(line, "voluntary_ctxt_switches: %lu", &n) == 1)
                total += n;
        if (f)
            fclose(f);
    }
    closedir(dir);
    return total;
}

static bool
quiet(void)
{
    unsigned long before = sleeps_of_others();

    e2e_nap_us(300000);
    return sleeps_of_others() == before;
}

/* After the traffic nothing of the library wakes up any more. */
static void
engine_idle(void)
{
    struct e2e_pump pump = {.count = 200};
    struct e2e_passer p = {.batch = 8};

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    p.handle = e2e_open(FILTER, 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    WAIT_UNTIL(quiet(), 5000, "a thread still wakes up again and again");
    e2e_udp_pump(&pump);
    WAIT_UNTIL(quiet(), 5000, "a thread still wakes up again and again");
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
}

/*
 * One thread, two handles: what the upper one injects the lower one takes, and
 * nobody receives it.  The sender's buffer fills; the packets that fill it are
 * dropped as the lower queue's limits demand, and Send goes on.
 */
static void
engine_inject_into_own_queue(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE lower = e2e_open(FILTER, 0, 0), upper = e2e_open(FILTER, 10, 0);
    static WINDIVERT_ADDRESS addr[255], held;
    static uint8_t packets[255 * 64], buf[E2E_PACKET_MAX];
    const uint32_t batches = 400;
    UINT one = 0, len = 0, sent;
    int64_t start = e2e_now_us();

    for (unsigned i = 0; i < 255; i++) {
        addr[i] = e2e_new_outbound(false);
        one = e2e_make_udp(packets + len, E2E_A4, 4000, E2E_B4, PORT, "12345678", 8);
        len += one;
    }
    CHECK_API(WinDivertExtSetParam(upper, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    CHECK(e2e_send(tx, 64, 0), "send");
    e2e_recv_packet(upper, buf, &held); /* so that the janitor has to look after the upper one, first */
    for (uint32_t i = 0; i < batches; i++) {
        CHECK_API(WinDivertSendEx(upper, packets, len, &sent, 0, addr, sizeof(addr), NULL));
        CHECK(sent == len, "%u of %u bytes sent", sent, len);
        CHECK(e2e_now_us() < start + 15000000, "only %u batches in 15 s", i);
    }
    CHECK_API(WinDivertShutdown(lower, WINDIVERT_SHUTDOWN_RECV));
    CHECK_API(WinDivertClose(upper));
    CHECK_API(WinDivertClose(lower));
    WAIT_UNTIL(e2e_drain(rx) == 0, 5000, "packets still arrive");
    e2e_marker(tx, rx);
}

struct sender {
    HANDLE handle;
    _Atomic uint64_t sent;
    _Atomic unsigned error;
};

static void *
send_until_refused(void *arg)
{
    struct sender *s = arg;
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    static uint8_t packet[1500], payload[1000];
    UINT len = e2e_make_udp(packet, E2E_A4, 4000, E2E_B4, PORT, payload, sizeof(payload));

    while (WinDivertSend(s->handle, packet, len, NULL, &addr))
        s->sent++;
    s->error = GetLastError();
    return NULL;
}

/* A Send that waits for room in the socket's buffer is ended by Close, and so by Shutdown. */
static void
send_is_woken(bool by_close, DWORD want)
{
    struct sender s = {.handle = e2e_open("false", 0, 0)};
    uint64_t before = ~0ull;
    pthread_t thread;
    int64_t start;

    /* The device takes so little that the buffer fills. */
    free(e2e_shell("a", "tc qdisc add dev va root tbf rate 8kbit burst 2kb limit 64mb"));
    CHECK(pthread_create(&thread, NULL, send_until_refused, &s) == 0, "pthread_create");
    for (unsigned i = 0; i < 100 && before != s.sent; i++) {
        before = s.sent;
        e2e_nap_us(100000);
    }
    CHECK(before == s.sent && s.sent > 100 && !s.error, "Send does not wait: %llu sent, error %u",
          (unsigned long long)s.sent, s.error);
    start = e2e_now_us();
    if (by_close)
        CHECK_API(WinDivertClose(s.handle));
    else
        CHECK_API(WinDivertShutdown(s.handle, WINDIVERT_SHUTDOWN_SEND));
    pthread_join(thread, NULL);
    CHECK(e2e_now_us() < start + 3000000, "ended only after %lld us", (long long)(e2e_now_us() - start));
    CHECK(s.error == want, "Send ended with %u, expected %u", s.error, want);
    if (!by_close)
        CHECK_API(WinDivertClose(s.handle));
    free(e2e_shell("a", "tc qdisc del dev va root"));
}

static void
engine_close_wakes_send(void)
{
    send_is_woken(true, ERROR_OPERATION_ABORTED);
}

static void
engine_shutdown_wakes_send(void)
{
    send_is_woken(false, ERROR_NO_DATA);
}

/* IfIdx says by which interface a multicast packet leaves, whatever the routing table knows. */
static void
multicast(bool v6, const char *group)
{
    int rx = e2e_udp_receiver("b", v6 ? "::" : "0.0.0.0", PORT);
    struct sockaddr_storage to;
    struct group_req join = {.gr_interface = e2e_ifindex("b", "vb")};
    WINDIVERT_ADDRESS addr = e2e_new_outbound(v6);
    HANDLE h = e2e_open("false", 0, 0);
    uint8_t packet[128], got[64];
    UINT len = e2e_make_udp(packet, v6 ? E2E_A6 : E2E_A4, 4000, group, PORT, "many", 4);
    socklen_t to_len = e2e_sockaddr(group, 0, &to);

    memcpy(&join.gr_group, &to, to_len);
    CHECK(setsockopt(rx, v6 ? SOL_IPV6 : SOL_IP, MCAST_JOIN_GROUP, &join, sizeof(join)) == 0, "join: error %d",
          errno);
    addr.Network.IfIdx = e2e_ifindex("a", "va");
    CHECK_API(WinDivertSend(h, packet, len, NULL, &addr));
    CHECK(e2e_receive(rx, got, sizeof(got), 3000) == 4, "%s did not arrive", group);
    CHECK_API(WinDivertClose(h));
}

static void
engine_multicast4(void)
{
    multicast(false, "239.1.2.3");
}

static void
engine_multicast6(void)
{
    free(e2e_shell("a", "ip -6 route add multicast ff05::/16 dev lo table local metric 1 || true"));
    multicast(true, "ff05::1:3");
    free(e2e_shell("a", "ip -6 route del multicast ff05::/16 dev lo table local metric 1 || true"));
}

/* NFQUEUE hands over 65,531 bytes; the handle gets, and may change, all 65,535, alone and in batches. */
static bool
longest(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    static uint8_t expect[65536];
    struct e2e_view v;
    uint32_t i;

    CHECK(e2e_view(packet, *len, &v) && v.end == *len, "a packet of %u bytes is cut at %u", v.end, *len);
    memcpy(&i, packet + v.payload, 4);
    e2e_datagram(expect, *len - v.payload, i);
    CHECK(memcmp(packet + v.payload, expect, *len - v.payload) == 0, "datagram %u has other bytes", i);
    if (p->arg) { /* changed: the last byte, and the port to which it goes */
        packet[*len - 1] ^= 1;
        packet[v.transport + 3] ^= 1;
        addr->UDPChecksum = 0;
    }
    return true;
}

static void
longest_packets(const char *ip, unsigned batch, bool change)
{
    int rx = e2e_udp_receiver("a", ip, change ? PORT ^ 1 : PORT), tx = e2e_udp_sender("a", ip, PORT, 0);
    struct e2e_passer p = {.batch = batch, .edit = longest, .arg = change ? &p : NULL};
    static uint8_t buf[65536], expect[65536];

    p.handle = e2e_open(FILTER " and outbound", 0, 0);
    e2e_pass_start(&p);
    for (uint32_t i = 0; i < 200; i++) {
        size_t size = 65507 - i % 9;

        CHECK(e2e_send(tx, size, i), "send: error %d", errno);
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == (ssize_t)size, "datagram %u did not arrive", i);
        e2e_datagram(expect, size, i);
        expect[size - 1] ^= change;
        CHECK(memcmp(buf, expect, size) == 0, "datagram %u arrived with other bytes", i);
    }
    e2e_pass_stop(&p);
    CHECK(p.max_len >= 65535, "the longest had %u bytes", p.max_len);
}

static void
engine_longest4(void)
{
    longest_packets("127.0.0.1", 1, false);
}

static void
engine_longest4_changed(void)
{
    longest_packets("127.0.0.1", 8, true);
}

static void
engine_longest6(void)
{
    longest_packets("::1", 8, false);
}

static void
engine_longest6_changed(void)
{
    longest_packets("::1", 1, true);
}

/* Many at once, so that batches hold several. */
static void
engine_longest_many(void)
{
    int rx = e2e_udp_receiver("a", "127.0.0.1", PORT), tx = e2e_udp_sender("a", "127.0.0.1", PORT, 0);
    struct e2e_passer p = {.batch = 16, .edit = longest};
    uint32_t sent = 0;

    p.handle = e2e_open(FILTER " and outbound", 0, 0);
    e2e_pass_start(&p);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 20; i++)
            CHECK(e2e_send(tx, 65507, sent++), "send: error %d", errno);
        WAIT_UNTIL(p.received == sent, 3000, "%llu of %u received", (unsigned long long)p.received, sent);
        e2e_drain(rx);
    }
    e2e_pass_stop(&p);
    e2e_drain(rx);
    e2e_marker(tx, rx);
}

/* A handle that closes leaves what another holds in the kernel: nothing has to be recovered. */
static void
close_beside_held(UINT64 flags)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE h = e2e_open(FILTER, 0, 0), other;
    uint8_t buf[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    WINDIVERT_EXT_STATS s;

    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    for (unsigned i = 0; i < 3; i++) /* makes the places; those that are given back are used again */
        CHECK_API(WinDivertClose(e2e_open("tcp", (INT16)(100 + i), flags)));
    for (unsigned i = 0; i < 10; i++) {
        UINT len;

        CHECK(e2e_send(tx, 64, i), "send");
        len = e2e_recv_packet(h, buf, &addr);
        other = e2e_open("tcp", (INT16)(100 + i % 3), flags);
        CHECK_API(WinDivertClose(other));
        e2e_send_packet(h, buf, len, &addr);
        CHECK(e2e_receive(rx, buf, sizeof(buf), 2000) == 64, "datagram %u did not arrive", i);
    }
    s = e2e_stats(h);
    CHECK(s.Returned == 10 && s.Recovered == 0, "%llu returned, %llu recovered", (unsigned long long)s.Returned,
          (unsigned long long)s.Recovered);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
engine_close_divert_beside_held(void)
{
    close_beside_held(0);
}

static void
engine_close_sniff_beside_held(void)
{
    close_beside_held(WINDIVERT_FLAG_SNIFF);
}

static void
engine_close_drop_beside_held(void)
{
    close_beside_held(WINDIVERT_FLAG_DROP);
}

struct pair {
    _Atomic int open, stop;
};

/* Process 1 of a pid namespace of its own. */
static void
as_process_1(void *arg)
{
    struct pair *pair = arg;
    int status = 0;
    pid_t pid;
    HANDLE h;

    CHECK(unshare(CLONE_NEWPID) == 0, "unshare: error %d", errno);
    pid = fork();
    CHECK(pid >= 0, "fork: error %d", errno);
    if (pid) {
        CHECK(waitpid(pid, &status, 0) == pid && status == 0, "ended with %#x", status);
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(getpid() == 1, "not process 1");
    h = e2e_open(FILTER, 0, WINDIVERT_FLAG_SNIFF);
    pair->open++;
    WAIT_UNTIL(pair->stop, 10000, "nobody said stop");
    CHECK_API(WinDivertClose(h));
    _exit(0);
}

/* Two containers that share a network: the same pid, the same namespace. */
static void
engine_same_pid(void)
{
    struct pair *pair = e2e_shared(sizeof(*pair));
    pid_t first = e2e_spawn("a", as_process_1, pair), second;

    WAIT_UNTIL(pair->open == 1, 5000, "the first is not open");
    second = e2e_spawn("a", as_process_1, pair);
    WAIT_UNTIL(pair->open == 2, 5000, "the second is not open");
    free(e2e_shell("a", "test $(ls /run/windivert | wc -l) -eq 2"));
    pair->stop = 1;
    e2e_join(first);
    e2e_join(second);
}

const struct e2e_test e2e_engine_tests[] = {
    {"engine_drop_figures", engine_drop_figures, 0},
    {"engine_send_into_drop4", engine_send_into_drop4, 0},
    {"engine_send_into_drop6", engine_send_into_drop6, 0},
    {"engine_idle", engine_idle, 0},
    {"engine_inject_into_own_queue", engine_inject_into_own_queue, 0},
    {"engine_close_wakes_send", engine_close_wakes_send, 0},
    {"engine_shutdown_wakes_send", engine_shutdown_wakes_send, 0},
    {"engine_multicast4", engine_multicast4, 0},
    {"engine_multicast6", engine_multicast6, 0},
    {"engine_longest4", engine_longest4, 0},
    {"engine_longest4_changed", engine_longest4_changed, 0},
    {"engine_longest6", engine_longest6, 0},
    {"engine_longest6_changed", engine_longest6_changed, 0},
    {"engine_longest_many", engine_longest_many, 0},
    {"engine_close_divert_beside_held", engine_close_divert_beside_held, 0},
    {"engine_close_sniff_beside_held", engine_close_sniff_beside_held, 0},
    {"engine_close_drop_beside_held", engine_close_drop_beside_held, 0},
    {"engine_same_pid", engine_same_pid, 0},
    {NULL, NULL, 0},
};
