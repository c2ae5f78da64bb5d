/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Waiting by a descriptor, with a time limit and by OVERLAPPED; how often a waiting program wakes. */
#include "e2e.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <windows.h>

#define PORT 5001
#define FILTER "outbound and udp.DstPort == 5001"
#define SETTLE_MS 900 /* after traffic the library looks after a queue for half a second */

static bool
readable(int fd, int ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, ms) == 1;
}

/* What all threads of this process but the calling one have waited and been woken. */
static uint64_t
other_threads_switches(void)
{
    DIR *dir = opendir("/proc/self/task");
    uint64_t total = 0;
    struct dirent *entry;

    CHECK(dir, "/proc/self/task");
    while ((entry = readdir(dir))) {
        char path[300], line[200];
        unsigned long long count;
        FILE *file;

        if (entry->d_name[0] == '.' || atoi(entry->d_name) == gettid())
            continue;
        snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
        file = fopen(path, "r");
        while (file && fgets(line, sizeof(line), file))
            if (sscanf(line, "voluntary_ctxt_switches: %llu", &count) == 1)
                total += count;
        if (file)
            fclose(file);
    }
    closedir(dir);
    return total;
}

struct ends {
    int tx, rx;
    HANDLE handle;
};

static struct ends
ends(UINT64 flags)
{
    return (struct ends){.rx = e2e_udp_receiver("b", E2E_B4, PORT),
                         .tx = e2e_udp_sender("a", E2E_B4, PORT, 0),
                         .handle = e2e_open(FILTER, 0, flags)};
}

/* ---- the descriptor ------------------------------------------------------ */

/* Readable exactly while something is there: also after the janitor has taken it out of the kernel. */
static void
fd_level(UINT64 flags)
{
    static uint8_t buf[E2E_PACKET_MAX];
    struct ends e = ends(flags);
    int fd = WinDivertExtGetFd(e.handle);

    CHECK(fd >= 0 && fd == WinDivertExtGetFd(e.handle), "no descriptor");
    for (unsigned round = 0; round < 50; round++) {
        CHECK(!readable(fd, 0), "readable, but nothing was sent (round %u)", round);
        for (uint32_t i = 0; i < 3; i++)
            CHECK(e2e_send(e.tx, 64, i), "send");
        CHECK(readable(fd, 3000), "not readable (round %u)", round);
        if (round % 10 == 0)
            e2e_nap_us(120000);
        for (unsigned i = 0; i < 3; i++) {
            CHECK(readable(fd, 3000), "not readable, but %u packets are left", 3 - i);
            CHECK_API(WinDivertExtRecv(e.handle, buf, sizeof(buf), NULL, NULL, NULL, 0));
        }
        CHECK_ERROR(WinDivertExtRecv(e.handle, buf, sizeof(buf), NULL, NULL, NULL, 0), WAIT_TIMEOUT);
    }
    CHECK_API(WinDivertShutdown(e.handle, WINDIVERT_SHUTDOWN_RECV));
    CHECK(readable(fd, 3000), "shut down, and not readable");
    CHECK_ERROR(WinDivertExtRecv(e.handle, buf, sizeof(buf), NULL, NULL, NULL, 0), ERROR_NO_DATA);
    CHECK_API(WinDivertClose(e.handle));
}

static void
fd_divert(void)
{
    fd_level(0);
}

static void
fd_sniff(void)
{
    fd_level(WINDIVERT_FLAG_SNIFF);
}

/* A sniffing handle's descriptor outlives a change of its ring. */
static void
fd_sniff_resized(void)
{
    struct ends e = ends(WINDIVERT_FLAG_SNIFF);
    int fd = WinDivertExtGetFd(e.handle);

    CHECK(e2e_send(e.tx, 64, 0), "send");
    CHECK(readable(fd, 3000), "not readable");
    CHECK_API(WinDivertSetParam(e.handle, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    CHECK_API(WinDivertExtRecv(e.handle, NULL, 0, NULL, NULL, NULL, 0));
    CHECK_ERROR(WinDivertExtRecv(e.handle, NULL, 0, NULL, NULL, NULL, 0), WAIT_TIMEOUT);
    CHECK(!readable(fd, 0), "readable, but empty");
    CHECK(e2e_send(e.tx, 64, 1), "send");
    CHECK(readable(fd, 3000), "not readable after the ring was changed");
    CHECK_API(WinDivertExtRecv(e.handle, NULL, 0, NULL, NULL, NULL, 0));
    CHECK_API(WinDivertClose(e.handle));
}

struct sending {
    int tx;
    pthread_t thread;
    uint32_t count;
};

static void *
send_all(void *arg)
{
    struct sending *s = arg;

    for (uint32_t i = 0; i < s->count; i++) {
        CHECK(e2e_send(s->tx, 64, i), "send");
        if (i % 16 == 0)
            e2e_nap_us(200);
    }
    return NULL;
}

/* A program that only ever waits by poll() gets every packet: no wake-up is lost. */
static void
fd_loop(UINT64 flags)
{
    static uint8_t buf[E2E_PACKET_MAX];
    struct ends e = ends(flags);
    struct sending s = {.tx = e.tx, .count = 20000};
    int fd = WinDivertExtGetFd(e.handle);
    uint32_t got = 0;

    CHECK(pthread_create(&s.thread, NULL, send_all, &s) == 0, "thread");
    while (got < s.count) {
        WINDIVERT_ADDRESS addr[64];
        UINT len, addr_len = sizeof(addr);

        CHECK(readable(fd, 3000), "not readable, with %u of %u packets received", got, s.count);
        while (addr_len = sizeof(addr), WinDivertExtRecv(e.handle, buf, sizeof(buf), &len, addr, &addr_len, 0)) {
            got += addr_len / (UINT)sizeof(*addr);
            if (!flags)
                CHECK_API(WinDivertSendEx(e.handle, buf, len, NULL, 0, addr, addr_len, NULL));
        }
        CHECK(GetLastError() == WAIT_TIMEOUT, "error %u", (unsigned)GetLastError());
    }
    pthread_join(s.thread, NULL);
    CHECK_API(WinDivertClose(e.handle));
}

static void
fd_loop_divert(void)
{
    fd_loop(0);
}

static void
fd_loop_sniff(void)
{
    fd_loop(WINDIVERT_FLAG_SNIFF);
}

/* ---- with a time limit ----------------------------------------------------- */

static void
timed(UINT64 flags)
{
    struct ends e = ends(flags);
    int64_t before = e2e_now_us(), took;

    CHECK_ERROR(WinDivertExtRecv(e.handle, NULL, 0, NULL, NULL, NULL, 0), WAIT_TIMEOUT);
    CHECK_ERROR(WinDivertExtRecv(e.handle, NULL, 0, NULL, NULL, NULL, 100), WAIT_TIMEOUT);
    took = e2e_now_us() - before;
    CHECK(took >= 100000 && took < 2000000, "waited %lld us, not 100 ms", (long long)took);
    CHECK(e2e_send(e.tx, 64, 0), "send");
    CHECK_API(WinDivertExtRecv(e.handle, NULL, 0, NULL, NULL, NULL, 3000));
    CHECK_API(WinDivertClose(e.handle));
}

static void
timed_divert(void)
{
    timed(0);
}

static void
timed_sniff(void)
{
    timed(WINDIVERT_FLAG_SNIFF);
}

/* ---- OVERLAPPED -------------------------------------------------------------- */

#define LINE 64

struct operation {
    OVERLAPPED ov;
    uint8_t packet[2000];
    WINDIVERT_ADDRESS addr;
    UINT addr_len;
};

static void
begin(HANDLE handle, struct operation *op)
{
    op->addr_len = sizeof(op->addr);
    CHECK_ERROR(WinDivertRecvEx(handle, op->packet, sizeof(op->packet), NULL, 0, &op->addr, &op->addr_len, &op->ov),
                ERROR_IO_PENDING);
}

/* 64 receives, half cancelled, packets for some in order, 995 for the rest on close. */
static void
overlapped_line(UINT64 flags)
{
    struct operation *ops = calloc(LINE, sizeof(*ops));
    struct ends e = ends(flags);
    DWORD bytes;
    uint32_t i;

    CHECK(ops, "memory");
    for (i = 0; i < LINE; i++)
        begin(e.handle, &ops[i]);
    for (i = 0; i < LINE; i += 2)
        CHECK_API(CancelIoEx(e.handle, &ops[i].ov));
    for (i = 0; i < 10; i++)
        CHECK(e2e_send(e.tx, 64, i), "send");
    for (i = 0; i < 10; i++) {
        struct operation *op = &ops[2 * i + 1];
        uint32_t number;

        CHECK_API(GetOverlappedResult(e.handle, &op->ov, &bytes, TRUE));
        memcpy(&number, op->packet + 28, sizeof(number));
        CHECK(bytes == 92 && number == i && op->addr_len == sizeof(op->addr), "receive %u: %u bytes of packet %u", i,
              (unsigned)bytes, number);
    }
    CHECK_ERROR(GetOverlappedResult(e.handle, &ops[21].ov, &bytes, FALSE), ERROR_IO_INCOMPLETE);
    CHECK_API(WinDivertClose(e.handle));
    for (i = 0; i < LINE; i++)
        if (i % 2 == 0 || i > 20)
            CHECK_ERROR(GetOverlappedResult(e.handle, &ops[i].ov, &bytes, TRUE), ERROR_OPERATION_ABORTED);
    free(ops);
}

static void
overlapped_divert(void)
{
    overlapped_line(0);
}

static void
overlapped_sniff(void)
{
    overlapped_line(WINDIVERT_FLAG_SNIFF);
}

/* Packets pass through a program that receives and sends by OVERLAPPED, waiting for one of several events. */
static void
overlapped_pass(void)
{
    struct operation *ops = calloc(8, sizeof(*ops));
    struct ends e = ends(0);
    struct sending s = {.tx = e.tx, .count = 5000};
    HANDLE events[8];
    uint8_t datagram[2000];

    CHECK(ops, "memory");
    for (unsigned i = 0; i < 8; i++) {
        ops[i].ov.hEvent = events[i] = CreateEvent(NULL, FALSE, FALSE, NULL);
        CHECK(events[i], "event");
        begin(e.handle, &ops[i]);
    }
    CHECK(pthread_create(&s.thread, NULL, send_all, &s) == 0, "thread");
    for (uint32_t passed = 0; passed < s.count; passed++) {
        DWORD which = WaitForMultipleObjects(8, events, FALSE, 3000), bytes;
        OVERLAPPED send = {0};

        CHECK(which < 8, "nothing ended, after %u packets", passed);
        CHECK_API(GetOverlappedResult(e.handle, &ops[which].ov, &bytes, FALSE));
        CHECK_ERROR(WinDivertSendEx(e.handle, ops[which].packet, bytes, NULL, 0, &ops[which].addr,
                                    ops[which].addr_len, &send),
                    ERROR_IO_PENDING);
        CHECK_API(GetOverlappedResult(e.handle, &send, &bytes, TRUE));
        begin(e.handle, &ops[which]);
    }
    pthread_join(s.thread, NULL);
    CHECK_API(WinDivertShutdown(e.handle, WINDIVERT_SHUTDOWN_RECV));
    for (uint32_t i = 0; i < s.count; i++)
        CHECK(e2e_receive(e.rx, datagram, sizeof(datagram), 3000) == 64, "only %u datagrams arrived", i);
    CHECK_API(CloseHandle(e.handle));
    for (unsigned i = 0; i < 8; i++)
        CHECK_API(CloseHandle(events[i]));
    free(ops);
}

/* ---- wake-ups ------------------------------------------------------------------- */

static void *
recv_until_error(void *handle)
{
    static uint8_t buf[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    UINT len;

    while (WinDivertRecv(handle, buf, sizeof(buf), &len, &addr))
        WinDivertSend(handle, buf, len, NULL, &addr);
    return NULL;
}

static void
expect_no_wakes(const char *when)
{
    uint64_t before, woken;

    e2e_nap_us(SETTLE_MS * 1000);
    before = other_threads_switches();
    e2e_nap_us(1000000);
    woken = other_threads_switches() - before;
    CHECK(woken == 0, "%s: %llu wake-ups in a second", when, (unsigned long long)woken);
}

/* With a reader, a descriptor, and receives pending: nothing wakes while nothing comes, before traffic and after. */
static void
idle_wakes_never(void)
{
    struct operation *op = calloc(1, sizeof(*op));
    struct ends e = ends(0), sniff = {.handle = e2e_open(FILTER, 1, WINDIVERT_FLAG_SNIFF)};
    HANDLE other = e2e_open("udp.DstPort == 5002", 0, 0);
    uint8_t datagram[2000];
    pthread_t reader;

    CHECK(op && WinDivertExtGetFd(other) >= 0 && WinDivertExtGetFd(e.handle) >= 0, "no descriptor");
    begin(other, op);
    CHECK(pthread_create(&reader, NULL, recv_until_error, e.handle) == 0, "thread");
    expect_no_wakes("before traffic");
    for (uint32_t i = 0; i < 10; i++) {
        CHECK(e2e_send(e.tx, 64, i), "send");
        CHECK(e2e_receive(e.rx, datagram, sizeof(datagram), 3000) == 64, "datagram %u did not arrive", i);
        CHECK_API(WinDivertExtRecv(sniff.handle, NULL, 0, NULL, NULL, NULL, 3000));
    }
    expect_no_wakes("after traffic");
    CHECK_API(WinDivertShutdown(e.handle, WINDIVERT_SHUTDOWN_RECV));
    pthread_join(reader, NULL);
    CHECK_API(WinDivertClose(e.handle));
    CHECK_API(WinDivertClose(other));
    CHECK_API(WinDivertClose(sniff.handle));
    free(op);
}

struct counting {
    HANDLE handle;
    _Atomic unsigned packets;
    unsigned batches;
    long woken;
};

static void *
recv_batches(void *arg)
{
    static uint8_t buf[E2E_PACKET_MAX];
    struct counting *c = arg;
    WINDIVERT_ADDRESS addr[64];
    UINT addr_len = sizeof(addr);
    struct rusage before, after;

    getrusage(RUSAGE_THREAD, &before);
    while (WinDivertRecvEx(c->handle, buf, sizeof(buf), NULL, 0, addr, &addr_len, NULL)) {
        c->batches++;
        c->packets += addr_len / (UINT)sizeof(*addr);
        addr_len = sizeof(addr);
    }
    getrusage(RUSAGE_THREAD, &after);
    c->woken = after.ru_nvcsw - before.ru_nvcsw;
    return NULL;
}

/* A loop of receives wakes no more often than it gets something, but for `spare` percent: locks, naps (sniff.c). */
static void
one_wake_a_batch(UINT64 flags, unsigned spare)
{
    struct ends e = ends(flags);
    struct counting c = {.handle = e.handle};
    pthread_t reader;

    CHECK(pthread_create(&reader, NULL, recv_batches, &c) == 0, "thread");
    for (uint32_t i = 0; i < 2000; i++) {
        CHECK(e2e_send(e.tx, 64, i), "send");
        if (i % 10 == 9)
            e2e_nap_us(3000);
    }
    WAIT_UNTIL(c.packets == 2000, 3000, "%u of 2000 packets were received", c.packets);
    CHECK_API(WinDivertShutdown(e.handle, WINDIVERT_SHUTDOWN_RECV));
    pthread_join(reader, NULL);
    CHECK(c.woken <= (long)(c.batches + c.batches * spare / 100 + 2), "%ld wake-ups for %u batches", c.woken,
          c.batches);
    CHECK_API(WinDivertClose(e.handle));
}

static void
one_wake_divert(void)
{
    one_wake_a_batch(0, 10);
}

static void
one_wake_sniff(void)
{
    one_wake_a_batch(WINDIVERT_FLAG_SNIFF, 50);
}

const struct e2e_test e2e_waiting_tests[] = {
    {"waiting_fd_divert", fd_divert, 0},
    {"waiting_fd_sniff", fd_sniff, 0},
    {"waiting_fd_sniff_resized", fd_sniff_resized, 0},
    {"waiting_fd_loop_divert", fd_loop_divert, 0},
    {"waiting_fd_loop_sniff", fd_loop_sniff, 0},
    {"waiting_timed_divert", timed_divert, 0},
    {"waiting_timed_sniff", timed_sniff, 0},
    {"waiting_overlapped_divert", overlapped_divert, 0},
    {"waiting_overlapped_sniff", overlapped_sniff, 0},
    {"waiting_overlapped_pass", overlapped_pass, 0},
    {"waiting_one_wake_divert", one_wake_divert, 0},
    {"waiting_one_wake_sniff", one_wake_sniff, 0},
    {"waiting_idle_wakes_never", idle_wakes_never, 0},
    {NULL, NULL, 0},
};
