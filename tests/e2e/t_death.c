/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Processes that end without Close: nothing stays in the kernel, traffic flows on. */
#include "e2e.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT 5001
#define RESUME_US 100000

enum kind { PASSES, KEEPS, FORKED_BEFORE, FORKED_AFTER };

struct victim {
    enum kind kind;
    UINT64 flags;
    _Atomic int ready, sleeper, stop;
    _Atomic uint64_t received;
};

static bool
victim_edit(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct victim *v = p->arg;

    (void)packet;
    (void)len;
    (void)addr;
    v->received++;
    return v->kind != KEEPS;
}

/* A child that neither execs nor ends. */
static int
fork_sleeper(void)
{
    pid_t pid = fork();

    CHECK(pid >= 0, "fork");
    while (pid == 0)
        pause();
    return pid;
}

static void
victim_process(void *arg)
{
    struct victim *v = arg;
    struct e2e_passer p = {.batch = 4, .edit = victim_edit, .arg = v};

    if (v->kind == FORKED_BEFORE)
        v->sleeper = fork_sleeper();
    p.handle = e2e_open("udp.DstPort == 5001", 0, v->flags);
    if (v->kind == FORKED_AFTER)
        v->sleeper = fork_sleeper();
    v->ready = 1;
    if (v->flags & WINDIVERT_FLAG_DROP) {
        for (;;)
            pause();
    }
    e2e_pass_loop(&p);
}

static void
receive_all(int rx, uint32_t *last, uint32_t *count)
{
    uint8_t buf[2048];

    while (recv(rx, buf, sizeof(buf), MSG_DONTWAIT) == 64) {
        memcpy(last, buf, 4);
        (*count)++;
    }
}

/* Sends one datagram every half millisecond until one with number >= `from` arrives; the time that took. */
static int64_t
until_flows(int tx, int rx, uint32_t *next, uint32_t from)
{
    int64_t start = e2e_now_us();
    uint32_t last = 0, count = 0;

    do {
        CHECK(e2e_send(tx, 64, *next) || errno == EPERM, "send: error %d", errno);
        (*next)++;
        e2e_nap_us(500);
        receive_all(rx, &last, &count);
        CHECK(e2e_now_us() < start + 5000000, "nothing arrives");
    } while (!count || last < from);
    return e2e_now_us() - start;
}

static void
expect_clean(const char *ns)
{
    WAIT_UNTIL(e2e_queue_count(ns) == 0, 1000, "a queue is left in %s", ns);
    WAIT_UNTIL(e2e_table_count(ns) == 0, 1000, "a table is left in %s", ns);
}

/* Traffic flows through the victim, the victim is killed, traffic flows at once. */
static void
killed(const char *ns, const char *ip, enum kind kind, UINT64 flags)
{
    struct victim *v = e2e_shared(sizeof(*v));
    int rx = e2e_udp_receiver("b", ip, PORT), tx = e2e_udp_sender("a", ip, PORT, 0);
    uint32_t next = 1, last, arrived = 0;
    int64_t took;
    pid_t pid;

    v->kind = kind;
    v->flags = flags;
    pid = e2e_spawn(ns, victim_process, v);
    WAIT_UNTIL(v->ready, 5000, "no handle was opened");
    CHECK(e2e_table_count(ns) > 0, "a handle without rules");
    for (unsigned i = 0; i < 300; i++) {
        CHECK(e2e_send(tx, 64, next++) || errno == EPERM, "send: error %d", errno);
        e2e_nap_us(500);
        receive_all(rx, &last, &arrived);
    }
    if (flags & WINDIVERT_FLAG_DROP)
        CHECK(arrived == 0, "%u datagrams came past the dropping handle", arrived);
    else
        WAIT_UNTIL(v->received >= 290, 3000, "only %llu went through the handle", (unsigned long long)v->received);
    e2e_kill9(pid);
    took = until_flows(tx, rx, &next, next);
    CHECK(took < RESUME_US, "traffic resumed after %lld us", (long long)took);
    expect_clean(ns);
    if (v->sleeper) {
        CHECK(kill(v->sleeper, 0) == 0, "the forked child is gone: it proves nothing");
        kill(v->sleeper, SIGKILL);
    }
    /* What the dead process had received is gone; nothing comes twice or late. */
    receive_all(rx, &last, &arrived);
    e2e_marker(tx, rx);
    close(tx);
    close(rx);
}

static void
death_kill9_out4(void)
{
    killed("a", E2E_B4, PASSES, 0);
}

static void
death_kill9_out6(void)
{
    killed("a", E2E_B6, PASSES, 0);
}

static void
death_kill9_in4(void)
{
    killed("b", E2E_B4, PASSES, 0);
}

static void
death_kill9_in6(void)
{
    killed("b", E2E_B6, PASSES, 0);
}

static void
death_kill9_holding(void)
{
    killed("a", E2E_B4, KEEPS, 0);
}

static void
death_kill9_drop(void)
{
    killed("a", E2E_B4, PASSES, WINDIVERT_FLAG_DROP);
    killed("b", E2E_B4, PASSES, WINDIVERT_FLAG_DROP);
}

static void
death_kill9_sniff(void)
{
    killed("a", E2E_B4, KEEPS, WINDIVERT_FLAG_SNIFF);
}

static void
death_kill9_forked_after(void)
{
    killed("a", E2E_B4, FORKED_AFTER, 0);
}

static void
death_kill9_forked_after_sniff(void)
{
    killed("a", E2E_B4, FORKED_AFTER, WINDIVERT_FLAG_SNIFF);
}

static void
death_kill9_forked_before(void)
{
    killed("a", E2E_B4, FORKED_BEFORE, 0);
}

static void
open_and_exit(void *arg)
{
    (void)arg;
    e2e_open("true", 0, 0);
    e2e_open("udp", 5, WINDIVERT_FLAG_SNIFF);
    e2e_open("tcp.DstPort == 1", -5, WINDIVERT_FLAG_DROP);
    CHECK(e2e_table_count("a") > 0, "handles without rules");
}

static void
death_exit_without_close(void)
{
    struct e2e_pump pump = {.count = 500};

    e2e_report->killed = 1; /* as good as */
    e2e_join(e2e_spawn("a", open_and_exit, NULL));
    expect_clean("a");
    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    e2e_udp_pump(&pump);
    e2e_marker(pump.tx, pump.rx);
}

/* A 16 MB transfer goes through a handle; the process is killed in the middle; the rest arrives as well. */
static void
kill_when_running(void *arg)
{
    struct victim *v = arg;
    struct e2e_passer p = {.batch = 16, .edit = victim_edit, .arg = v};

    p.handle = e2e_open("tcp", 0, 0);
    v->ready = 1;
    e2e_pass_loop(&p);
}

static void *
killer(void *arg)
{
    struct victim *v = arg;

    e2e_report->killed = 1;
    WAIT_UNTIL(v->received > 100, 5000, "nothing went through the handle");
    CHECK(kill(v->stop, SIGKILL) == 0, "kill");
    return NULL;
}

static void
death_kill9_tcp_survives(void)
{
    struct e2e_tcp tcp = {"a", "b", E2E_B4, PORT, 4, 16 << 20, 0};
    struct victim *v = e2e_shared(sizeof(*v));
    pthread_t t;

    v->stop = e2e_spawn("a", kill_when_running, v);
    WAIT_UNTIL(v->ready, 5000, "no handle was opened");
    CHECK(pthread_create(&t, NULL, killer, v) == 0, "pthread_create");
    e2e_tcp_run(&tcp);
    pthread_join(t, NULL);
    CHECK(waitpid(v->stop, NULL, 0) == v->stop, "waitpid");
    expect_clean("a");
}

/* A process with handles dies: packets that another one holds or has queued are not lost. */
static void
death_spares_others(void)
{
    struct victim *v = e2e_shared(sizeof(*v));
    int rx = e2e_udp_receiver("b", E2E_B4, 5002), tx = e2e_udp_sender("a", E2E_B4, 5002, 0);
    static WINDIVERT_ADDRESS addr[40];
    static uint8_t packet[40][256], buf[2048];
    HANDLE h = e2e_open("udp.DstPort == 5002", 0, 0);
    uint32_t seen = 0, number;
    UINT len;
    pid_t pid;

    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    pid = e2e_spawn("a", victim_process, v);
    WAIT_UNTIL(v->ready, 5000, "no handle was opened");
    for (uint32_t i = 0; i < 40; i++)
        CHECK(e2e_send(tx, 64, i), "send");
    for (unsigned i = 0; i < 20; i++)
        e2e_recv_packet(h, packet[i], &addr[i]);
    e2e_kill9(pid);
    WAIT_UNTIL(e2e_table_count("a") == 1, 1000, "the dead process's table is left");
    for (unsigned i = 20; i < 40; i++)
        e2e_recv_packet(h, packet[i], &addr[i]);
    for (unsigned i = 0; i < 40; i++) {
        len = 28 + 64;
        e2e_send_packet(h, packet[i], len, &addr[i]);
    }
    for (unsigned i = 0; i < 40; i++) {
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 64, "%u of 40 arrived", i);
        memcpy(&number, buf, 4);
        CHECK(number < 40, "datagram %u", number);
        seen += number;
    }
    CHECK(seen == 39 * 40 / 2, "not each datagram once");
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

struct fork_use {
    HANDLE h;
    _Atomic int done;
};

static void
use_in_child(void *arg)
{
    struct fork_use *u = arg;
    uint8_t buf[64];
    WINDIVERT_ADDRESS addr;
    UINT64 value;
    UINT len;

    CHECK_ERROR(WinDivertRecv(u->h, buf, sizeof(buf), &len, &addr), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertGetParam(u->h, WINDIVERT_PARAM_QUEUE_TIME, &value), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertShutdown(u->h, WINDIVERT_SHUTDOWN_BOTH), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertClose(u->h), ERROR_INVALID_HANDLE);
    /* The library itself works in the child. */
    CHECK_API(WinDivertClose(e2e_open("udp.DstPort == 5999", 0, 0)));
}

/* The handle belongs to the process that opened it: a forked child gets 6 and disturbs nothing. */
static void
death_forked_child_has_no_handle(void)
{
    struct e2e_pump pump = {.count = 500};
    struct e2e_passer p = {.batch = 1};
    struct fork_use *u = e2e_shared(sizeof(*u));

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    u->h = p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    e2e_join(e2e_spawn("a", use_in_child, u));
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    CHECK(p.received == 500, "%llu packets received", (unsigned long long)p.received);
    e2e_marker(pump.tx, pump.rx);
}

const struct e2e_test e2e_death_tests[] = {
    {"death_kill9_out4", death_kill9_out4, 0},
    {"death_kill9_out6", death_kill9_out6, 0},
    {"death_kill9_in4", death_kill9_in4, 0},
    {"death_kill9_in6", death_kill9_in6, 0},
    {"death_kill9_holding", death_kill9_holding, 0},
    {"death_kill9_drop", death_kill9_drop, 0},
    {"death_kill9_sniff", death_kill9_sniff, 0},
    {"death_kill9_forked_after", death_kill9_forked_after, 0},
    {"death_kill9_forked_after_sniff", death_kill9_forked_after_sniff, 0},
    {"death_kill9_forked_before", death_kill9_forked_before, 0},
    {"death_exit_without_close", death_exit_without_close, 0},
    {"death_kill9_tcp_survives", death_kill9_tcp_survives, 60},
    {"death_spares_others", death_spares_others, 0},
    {"death_forked_child_has_no_handle", death_forked_child_has_no_handle, 0},
    {NULL, NULL, 0},
};
