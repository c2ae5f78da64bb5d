/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Everything at once for a minute (WINDIVERT_SOAK: seconds): nothing is lost, leaks or is left behind. */
#include "e2e.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECONDS 60
#define PORT 5001
#define VICTIM_PORT 5100

struct soak {
    _Atomic bool end;
    _Atomic unsigned opens, kills, swaps, streams, datagrams;
};

/* Handles of every kind come and go, above, beside and below. */
static void
open_and_close(void *arg)
{
    static const UINT64 flags[] = {0, WINDIVERT_FLAG_SNIFF, WINDIVERT_FLAG_DROP, WINDIVERT_FLAG_SEND_ONLY,
                                   WINDIVERT_FLAG_FRAGMENTS};
    static const char *const filters[] = {"udp.DstPort == 9", "tcp.DstPort == 9 and length > 1000",
                                          "inbound and udp.SrcPort == 9", "icmp and random8 < 3"};
    struct soak *soak = arg;

    for (unsigned i = 0; !soak->end; i++) {
        HANDLE h = e2e_open(filters[i / 5 % 4], (INT16)(i * 7 % 41 - 20), flags[i % 5]);

        if (i % 3 == 0)
            e2e_nap_us(i % 7 * 1000);
        if (i % 4 == 0)
            CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_BOTH));
        CHECK_API(WinDivertClose(h));
        soak->opens++;
    }
}

static void
be_a_victim(void *arg)
{
    struct e2e_passer p = {.batch = 8};
    char filter[64];

    snprintf(filter, sizeof(filter), "tcp.DstPort == %u", VICTIM_PORT);
    p.handle = e2e_open(filter, *(INT16 *)arg, 0);
    e2e_pass_loop(&p);
}

/* Programs that divert a stream and die. */
static void
kill_one_after_another(void *arg)
{
    struct soak *soak = arg;

    for (unsigned i = 0; !soak->end; i++) {
        INT16 priority = (INT16)(i % 9 - 4);
        pid_t pid = e2e_spawn("a", be_a_victim, &priority);

        e2e_nap_us(30000 + i % 5 * 20000);
        e2e_kill9(pid);
        soak->kills++;
    }
}

static void
stream(struct soak *soak, const char *ip, uint16_t port)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = "b", .server_ip = ip, .port = port, .streams = 2, .bytes = 1 << 20};

    while (!soak->end) {
        e2e_tcp_run(&t);
        soak->streams += t.streams;
    }
}

static void
stream_beside(void *arg)
{
    stream(arg, E2E_B4, PORT);
}

static void
stream_through_victims(void *arg)
{
    stream(arg, E2E_B6, VICTIM_PORT);
}

static void
send_datagrams(void *arg)
{
    struct soak *soak = arg;
    struct e2e_pump pump = {.count = 2000, .window = 16};

    pump.rx = e2e_udp_receiver("b", E2E_B6, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B6, PORT, 0);
    while (!soak->end) {
        e2e_udp_pump(&pump);
        soak->datagrams += pump.count;
    }
}

static unsigned
descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    CHECK(dir, "/proc/self/fd: %s", strerror(errno));
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static long
resident_kb(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long size = 0, resident = 0;

    CHECK(file && fscanf(file, "%ld %ld", &size, &resident) == 2, "statm");
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static unsigned
seconds(void)
{
    const char *text = getenv("WINDIVERT_SOAK");
    int value = text ? atoi(text) : 0;

    return value > 0 ? (unsigned)value : SECONDS;
}

static void
soak_all(void)
{
    static void (*const works[])(void *) = {open_and_close, kill_one_after_another, stream_beside,
                                            stream_through_victims, send_datagrams};
    static const char *const filters[] = {"tcp.DstPort == 5001 or udp.DstPort == 5001",
                                          "(tcp.DstPort == 5001 or udp.DstPort == 5001) and length > 0 and outbound",
                                          "tcp.DstPort == 5001 or udp.DstPort == 5001 or icmp"};
    struct soak *soak = e2e_shared(sizeof(*soak));
    struct e2e_passer p = {.batch = 32};
    int64_t end = e2e_now_us() + (int64_t)seconds() * 1000000, warm = e2e_now_us() + (int64_t)seconds() * 250000;
    pid_t pid[5];
    unsigned first_fds = 0;
    long first_kb = 0, last_kb;

    for (unsigned i = 0; i < 5; i++) /* before there are threads */
        pid[i] = e2e_spawn("a", works[i], soak);
    p.handle = e2e_open(filters[0], 5, 0);
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    CHECK_API(WinDivertExtSetParam(p.handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    e2e_pass_start(&p);
    while (e2e_now_us() < end) {
        CHECK_API(WinDivertExtSetFilter(p.handle, filters[soak->swaps++ % 3]));
        CHECK_API(WinDivertExtSetParam(p.handle, WINDIVERT_EXT_PARAM_SEGMENTS, soak->swaps / 16 % 2));
        e2e_nap_us(10000);
        if (!first_fds && e2e_now_us() > warm) {
            first_fds = descriptors();
            first_kb = resident_kb();
        }
    }
    soak->end = true;
    for (unsigned i = 0; i < 5; i++)
        e2e_join(pid[i]);
    last_kb = resident_kb();
    printf("     %u opens, %u kills, %u swaps, %u streams, %u datagrams; %ld, then %ld kB\n", soak->opens,
           soak->kills, soak->swaps, soak->streams, soak->datagrams, first_kb, last_kb);
    fflush(stdout);
    CHECK(descriptors() <= first_fds + 2, "%u descriptors, then %u", first_fds, descriptors());
    CHECK(last_kb < first_kb + 16384, "%ld kB, then %ld", first_kb, last_kb);
    CHECK(e2e_stats(p.handle).NotReturned == 0, "%llu not returned in time",
          (unsigned long long)e2e_stats(p.handle).NotReturned);
    e2e_pass_stop(&p);
    CHECK(soak->opens > 50 && soak->kills > 20 && soak->swaps > 50 && soak->streams > 10, "too little was done");
}

const struct e2e_test e2e_soak_tests[] = {
    {"soak_all", soak_all, 3600},
    {NULL, NULL, 0},
};
