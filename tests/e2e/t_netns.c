/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Handles in namespaces: containers', many at once, left behind, deleted. */
#include "e2e.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT 5001
#define FILTER "udp.DstPort == 5001"
#define COUNT 1000
#define K_A4 "10.91.0.1" /* in namespace a */
#define K_K4 "10.91.0.2" /* in the container */
#define K_A6 "fd91::1"
#define K_K6 "fd91::2"

/* A namespace k with one interface, eth0, to ka in a: what a container has. */
static void
add_container(void)
{
    free(e2e_shell(NULL, "ip netns del k 2>/dev/null; set -e; ip netns add k; ip -n k link set lo up; "
                         "ip link add ka type veth peer name eth0 netns k; "
                         "ip link set ka addrgenmode none up; ip -n k link set eth0 addrgenmode none up; "
                         "ip addr add 10.91.0.1/24 dev ka; ip -n k addr add 10.91.0.2/24 dev eth0; "
                         "ip addr add fd91::1/64 dev ka nodad; ip -n k addr add fd91::2/64 dev eth0 nodad"));
}

static void
remove_container(void)
{
    free(e2e_shell(NULL, "ip link del ka; ip netns del k"));
}

/* ---- Containers -------------------------------------------------------------- */

enum run_dir { RUN_EMPTY, RUN_READ_ONLY, RUN_NO_PROC };

/* What a container's process shares with the test. */
struct guest {
    void (*fn)(struct guest *g);
    enum run_dir dir;
    INT16 priority;
    _Atomic bool ready, stop;
    _Atomic uint64_t in, out;
    _Atomic uint64_t ended;
};

static bool
count(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct guest *g = p->arg;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v) && v.dport == PORT, "a packet of somebody else's, outbound %u", addr->Outbound);
    if (addr->Outbound)
        g->out++;
    else
        g->in++;
    return true;
}

/* Passes packets until it is told to stop. */
static void
serve(struct guest *g)
{
    struct e2e_passer p = {.batch = 8, .edit = count, .arg = g};

    p.handle = e2e_open("udp", g->priority, 0);
    e2e_pass_start(&p);
    g->ready = true;
    WAIT_UNTIL(g->stop, 20000, "nobody said stop");
    e2e_pass_stop(&p);
}

/* The first process of its own pid namespace, with a /proc and a /run of its own. */
static void
be_guest(struct guest *g)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(getpid() == 1, "process %d", (int)getpid());
    CHECK(mount("proc", "/proc", "proc", 0, NULL) == 0, "mount /proc: %s", strerror(errno));
    CHECK(mount("run", "/run", "tmpfs", g->dir == RUN_READ_ONLY ? MS_RDONLY : 0, "mode=755") == 0, "mount /run: %s",
          strerror(errno));
    if (g->dir == RUN_NO_PROC)
        CHECK(umount2("/proc", MNT_DETACH) == 0 && umount2("/proc", MNT_DETACH) == 0 &&
                  access("/proc/self", F_OK) < 0,
              "umount /proc: %s", strerror(errno));
    g->fn(g);
    g->ended = 1;
    _exit(0);
}

static void
start_guest(void *arg)
{
    int status;
    pid_t pid;

    CHECK(unshare(CLONE_NEWNS | CLONE_NEWPID) == 0, "unshare: %s", strerror(errno));
    pid = fork();
    CHECK(pid >= 0, "fork: %s", strerror(errno));
    if (!pid)
        be_guest(arg);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0,
          "the container ended with status %#x", status);
}

static struct guest *
new_guest(void (*fn)(struct guest *g), enum run_dir dir, INT16 priority)
{
    struct guest *g = e2e_shared(sizeof(*g));

    *g = (struct guest){.fn = fn, .dir = dir, .priority = priority};
    return g;
}

static void
expect_counts(const char *who, const struct guest *g, uint64_t in, uint64_t out)
{
    CHECK(g->in == in && g->out == out, "%s: %llu inbound, %llu outbound, expected %llu, %llu", who,
          (unsigned long long)g->in, (unsigned long long)g->out, (unsigned long long)in, (unsigned long long)out);
}

/* A handle in a container and one outside: each sees the packets of its namespace alone. */
static void
container(enum run_dir dir)
{
    struct guest *inside = new_guest(serve, dir, 0), outside = {0};
    struct e2e_passer p = {.batch = 8, .edit = count, .arg = &outside};
    pid_t pid;

    add_container();
    pid = e2e_spawn("k", start_guest, inside);
    WAIT_UNTIL(inside->ready, 5000, "the container did not start");
    p.handle = e2e_open("udp", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_exchange("a", "k", K_K4, PORT, COUNT);
    e2e_udp_exchange("a", "k", K_K6, PORT, COUNT);
    e2e_udp_exchange("k", "a", K_A4, PORT, COUNT);
    e2e_udp_exchange("k", "k", "127.0.0.1", PORT, COUNT);
    e2e_udp_exchange("a", "a", "127.0.0.1", PORT, COUNT);
    e2e_udp_exchange("a", "b", E2E_B4, PORT, COUNT);
    inside->stop = true;
    e2e_join(pid);
    e2e_udp_exchange("k", "a", K_A6, PORT, COUNT);
    e2e_pass_stop(&p);
    expect_counts("inside", inside, 2 * COUNT, 2 * COUNT);
    expect_counts("outside", &outside, 2 * COUNT, 4 * COUNT);
    remove_container();
}

static void
netns_container(void)
{
    container(RUN_EMPTY);
}

static void
netns_container_read_only(void)
{
    container(RUN_READ_ONLY);
}

static void
netns_container_without_proc(void)
{
    container(RUN_NO_PROC);
}

/* Two containers that share one network namespace, as those of a pod: both are process 1. */
static void
netns_same_pid(void)
{
    struct guest *g[3];
    pid_t pid[3];

    add_container();
    for (unsigned i = 0; i < 3; i++) {
        g[i] = new_guest(serve, RUN_EMPTY, i == 2 ? -5 : 0);
        pid[i] = e2e_spawn("k", start_guest, g[i]);
        WAIT_UNTIL(g[i]->ready, 5000, "the container did not start");
    }
    CHECK(e2e_table_count("k") == 3 && e2e_queue_count("k") >= 3, "%u tables", e2e_table_count("k"));
    e2e_udp_exchange("a", "k", K_K4, PORT, COUNT);
    e2e_udp_exchange("k", "a", K_A6, PORT, COUNT);
    for (unsigned i = 0; i < 3; i++) {
        expect_counts("one of three", g[i], COUNT, COUNT);
        g[i]->stop = true;
        e2e_join(pid[i]);
    }
    remove_container();
}

/* New packets of a container's process, inbound and outbound. */
static void
inject(struct guest *g)
{
    HANDLE h;
    uint8_t packet[128];
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    UINT len = e2e_make_udp(packet, K_K4, 4000, K_A4, PORT, "some text", 9);

    CHECK(WinDivertOpen("false", WINDIVERT_LAYER_NETWORK, 0, WINDIVERT_FLAG_NO_INSTALL) == INVALID_HANDLE_VALUE &&
              GetLastError() == ERROR_SERVICE_DOES_NOT_EXIST,
          "a handle of outside is seen: error %u", (unsigned)GetLastError());
    h = e2e_open("false", 0, 0);
    for (unsigned i = 0; i < 10; i++)
        e2e_send_packet(h, packet, len, &addr);
    addr.Outbound = 0;
    addr.Network.IfIdx = if_nametoindex("eth0");
    len = e2e_make_udp(packet, K_A4, 4000, K_K4, PORT, "some text", 9);
    for (unsigned i = 0; i < 10; i++)
        e2e_send_packet(h, packet, len, &addr);
    g->ready = true;
    WAIT_UNTIL(g->stop, 10000, "nobody said stop");
    CHECK_API(WinDivertClose(h));
}

static void
netns_container_injects(void)
{
    struct guest *g = new_guest(inject, RUN_EMPTY, 0);
    HANDLE outside = e2e_open("false", 0, 0);
    int rx[2];
    uint8_t buf[128];
    pid_t pid;

    add_container();
    rx[0] = e2e_udp_receiver("a", K_A4, PORT);
    rx[1] = e2e_udp_receiver("k", K_K4, PORT);
    pid = e2e_spawn("k", start_guest, g);
    for (unsigned i = 0; i < 20; i++)
        CHECK(e2e_receive(rx[i / 10], buf, sizeof(buf), 5000) == 9, "packet %u did not arrive", i);
    CHECK(e2e_drain(rx[0]) + e2e_drain(rx[1]) == 0, "too many arrived");
    g->stop = true;
    e2e_join(pid);
    CHECK_API(WinDivertClose(outside));
    close(rx[0]);
    close(rx[1]);
    remove_container();
}

/* The container is killed with packets held: nothing stays in its namespace, and traffic flows. */
static void
netns_container_killed(void)
{
    struct guest *g = new_guest(serve, RUN_EMPTY, 0);
    char *rules;
    pid_t pid;

    add_container();
    pid = e2e_spawn("k", start_guest, g);
    WAIT_UNTIL(g->ready, 5000, "the container did not start");
    e2e_udp_exchange("a", "k", K_K4, PORT, COUNT);
    expect_counts("inside", g, COUNT, 0);
    e2e_kill9(pid); /* takes process 1 with it */
    WAIT_UNTIL(e2e_queue_count("k") == 0, 5000, "a queue is left");
    rules = e2e_shell("k", "nft list ruleset");
    CHECK(!*rules, "rules are left: %.200s", rules);
    free(rules);
    e2e_udp_exchange("a", "k", K_K4, PORT, COUNT);
    expect_counts("inside", g, COUNT, 0);
    remove_container();
}

/* ---- Many -------------------------------------------------------------------- */

#define MANY 32

/* One process, handles in many namespaces: each sees what is sent in its own. */
static void
netns_many(void)
{
    struct guest g[MANY] = {{0}};
    struct e2e_passer p[MANY];
    char ns[16];

    free(e2e_shell(NULL, "for i in $(seq 0 %u); do ip netns add m$i; ip -n m$i link set lo up; done", MANY - 1));
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(ns, sizeof(ns), "m%u", i);
        e2e_enter(ns);
        p[i] = (struct e2e_passer){.batch = 8, .edit = count, .arg = &g[i], .handle = e2e_open("udp", 0, 0)};
        e2e_pass_start(&p[i]);
    }
    e2e_enter("a");
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(ns, sizeof(ns), "m%u", i);
        e2e_udp_exchange(ns, ns, i % 2 ? "::1" : "127.0.0.1", PORT, 100 + i);
    }
    for (unsigned i = 0; i < MANY; i++) {
        e2e_pass_stop(&p[i]);
        expect_counts("one of many", &g[i], 0, 100 + i);
    }
    free(e2e_shell(NULL, "for i in $(seq 0 %u); do ip netns del m$i; done", MANY - 1));
}

static void
one_of_many(void *arg)
{
    struct guest *g = arg;
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    struct e2e_passer p = {.batch = 8, .edit = count, .arg = g};
    struct e2e_pump pump = {.count = COUNT};
    struct sockaddr_storage addr;
    socklen_t len = e2e_sockaddr("127.0.0.1", PORT, &addr);

    CHECK(unshare(CLONE_NEWNET) == 0, "unshare: %s", strerror(errno));
    pump.rx = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    pump.tx = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(ioctl(pump.rx, SIOCSIFFLAGS, &lo) == 0, "lo: %s", strerror(errno));
    CHECK(bind(pump.rx, (struct sockaddr *)&addr, len) == 0 && connect(pump.tx, (struct sockaddr *)&addr, len) == 0,
          "loopback: %s", strerror(errno));
    p.handle = e2e_open("udp", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
}

/* Many processes, each in a namespace of its own that has no name. */
static void
netns_many_processes(void)
{
    struct guest *g[8];
    pid_t pid[8];

    for (unsigned i = 0; i < 8; i++) {
        g[i] = new_guest(NULL, RUN_EMPTY, 0);
        pid[i] = e2e_spawn("a", one_of_many, g[i]);
    }
    for (unsigned i = 0; i < 8; i++) {
        e2e_join(pid[i]);
        expect_counts("one process", g[i], 0, COUNT);
    }
}

/* ---- Left ---------------------------------------------------------------------- */

static bool
count_on_link(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    CHECK(addr->Network.IfIdx == E2E_W_INDEX, "interface %u", addr->Network.IfIdx);
    return count(p, packet, len, addr) && !addr->Sniffed;
}

/* The thread goes elsewhere after the open: the handles are those of the namespace where they were opened. */
static void
left(void (*leave)(void))
{
    struct guest g = {0}, sniffed = {0};
    struct e2e_passer p = {.batch = 8, .edit = count_on_link, .arg = &g}, sniff = p;
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    uint8_t packet[128], buf[128];
    UINT len = e2e_make_udp(packet, E2E_W_B4, 4000, E2E_W_A4, PORT, "some text", 9);
    int rx, rx_b;

    e2e_add_link();
    rx = e2e_udp_receiver("a", E2E_W_A4, PORT);
    rx_b = e2e_udp_receiver("b", E2E_W_B4, PORT + 1);
    p.handle = e2e_open("outbound and " FILTER, 0, 0);
    sniff.handle = e2e_open("outbound and " FILTER, 1, WINDIVERT_FLAG_SNIFF);
    sniff.arg = &sniffed;
    leave();
    e2e_pass_start(&p);
    e2e_pass_start(&sniff);
    CHECK_API(WinDivertSetParam(sniff.handle, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_LENGTH, WINDIVERT_PARAM_QUEUE_LENGTH_MAX));
    e2e_udp_exchange("a", "b", E2E_W_B4, PORT, COUNT);
    e2e_udp_exchange("b", "a", E2E_A4, PORT, 100);
    addr.Outbound = 0;
    addr.Network.IfIdx = E2E_W_INDEX;
    e2e_send_packet(p.handle, packet, len, &addr);
    CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 9, "an inbound packet did not arrive");
    addr.Outbound = 1;
    len = e2e_make_udp(packet, E2E_W_A4, 4000, E2E_W_B4, PORT + 1, "some text", 9);
    e2e_send_packet(p.handle, packet, len, &addr);
    CHECK(e2e_receive(rx_b, buf, sizeof(buf), 3000) == 9, "an outbound packet did not arrive");
    WAIT_UNTIL(sniffed.out >= COUNT, 3000, "%llu sniffed", (unsigned long long)sniffed.out);
    e2e_pass_stop(&sniff);
    e2e_pass_stop(&p);
    expect_counts("diverted", &g, 0, COUNT);
    expect_counts("sniffed", &sniffed, 0, COUNT);
    e2e_enter("a");
    free(e2e_shell("a", "ip link del wa"));
}

static void
to_b(void)
{
    e2e_enter("b");
}

static void
to_nowhere(void)
{
    CHECK(unshare(CLONE_NEWNET) == 0, "unshare: %s", strerror(errno));
}

static void
netns_left_by_setns(void)
{
    left(to_b);
}

static void
netns_left_by_unshare(void)
{
    left(to_nowhere);
}

/* The same on an older kernel, where sniffing knows the interfaces that there are. */
static void
netns_left_tier(void)
{
    setenv("WINDIVERT_TIER", "6.3", 1);
    left(to_nowhere);
}

/* ---- Deleted ----------------------------------------------------------------------- */

static bool
has_link(const char *ns, const char *ifname)
{
    int fd = e2e_socket(ns, AF_INET, SOCK_DGRAM, 0);
    struct ifreq ifr = {0};
    bool there;

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
    there = ioctl(fd, SIOCGIFINDEX, &ifr) == 0;
    close(fd);
    return there;
}

/* Its name is taken away: the handle goes on; when it closes the namespace ends, and with it its interfaces. */
static void
netns_deleted(void)
{
    struct guest g = {0};
    struct e2e_passer p = {.batch = 8, .edit = count, .arg = &g};
    struct e2e_pump pump = {.count = COUNT};
    HANDLE sniff, drop;

    add_container();
    pump.rx = e2e_udp_receiver("k", K_K4, PORT);
    pump.tx = e2e_udp_sender("a", K_K4, PORT, 0);
    e2e_enter("k");
    p.handle = e2e_open("udp", 0, 0);
    sniff = e2e_open("udp", 1, WINDIVERT_FLAG_SNIFF);
    drop = e2e_open("tcp", 2, WINDIVERT_FLAG_DROP);
    e2e_pass_start(&p);
    e2e_enter("a");
    e2e_udp_pump(&pump);
    free(e2e_shell(NULL, "ip netns del k"));
    e2e_udp_pump(&pump);
    CHECK(has_link("a", "ka"), "the namespace ended under the handle");
    close(pump.rx);
    e2e_pass_stop(&p);
    expect_counts("in a namespace without a name", &g, 2 * COUNT, 0);
    CHECK_API(WinDivertClose(sniff));
    CHECK_API(WinDivertClose(drop));
    WAIT_UNTIL(!has_link("a", "ka"), 5000, "the namespace stays after the last handle in it was closed");
    close(pump.tx);
}

/* A process with handles in several namespaces keeps none of those whose handles it closed. */
static void
netns_deleted_beside_another(void)
{
    HANDLE inside, outside;

    add_container();
    e2e_enter("k");
    inside = e2e_open("udp", 0, 0);
    e2e_enter("a");
    outside = e2e_open("udp", 0, 0);
    free(e2e_shell(NULL, "ip netns del k"));
    CHECK_API(WinDivertClose(inside));
    WAIT_UNTIL(!has_link("a", "ka"), 5000, "the namespace stays after the last handle in it was closed");
    CHECK_API(WinDivertClose(outside));
}

const struct e2e_test e2e_netns_tests[] = {
    {"netns_container", netns_container, 0},
    {"netns_container_read_only", netns_container_read_only, 0},
    {"netns_container_without_proc", netns_container_without_proc, 0},
    {"netns_same_pid", netns_same_pid, 0},
    {"netns_container_injects", netns_container_injects, 0},
    {"netns_container_killed", netns_container_killed, 0},
    {"netns_many", netns_many, 60},
    {"netns_many_processes", netns_many_processes, 0},
    {"netns_left_by_setns", netns_left_by_setns, 0},
    {"netns_left_by_unshare", netns_left_by_unshare, 0},
    {"netns_left_tier", netns_left_tier, 0},
    {"netns_deleted", netns_deleted, 0},
    {"netns_deleted_beside_another", netns_deleted_beside_another, 0},
    {NULL, NULL, 0},
};
