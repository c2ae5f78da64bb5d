/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Wrong use and missing rights: the documented codes, and nothing left behind. */
#include "e2e.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILTER "udp.DstPort == 5001"

static void
expect_open_error(const char *filter, WINDIVERT_LAYER layer, INT16 priority, UINT64 flags, DWORD code)
{
    HANDLE h;

    SetLastError(0);
    h = WinDivertOpen(filter, layer, priority, flags);
    CHECK(h == INVALID_HANDLE_VALUE, "\"%s\" layer %d priority %d flags %#llx was opened", filter ? filter : "NULL",
          (int)layer, priority, (unsigned long long)flags);
    CHECK(GetLastError() == code, "\"%s\" layer %d priority %d flags %#llx: error %u (%s), expected %u",
          filter ? filter : "NULL", (int)layer, priority, (unsigned long long)flags, (unsigned)GetLastError(),
          WinDivertExtGetLastErrorText(), (unsigned)code);
    CHECK(WinDivertExtGetLastErrorText()[0], "error %u without a text", (unsigned)code);
}

static void
unprivileged(void *arg)
{
    (void)arg;
    CHECK(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0, "cannot give up rights");
    expect_open_error(FILTER, WINDIVERT_LAYER_NETWORK, 0, 0, ERROR_ACCESS_DENIED);
    CHECK(strlen(WinDivertExtGetLastErrorRemedy()) > 10, "no remedy");
    expect_open_error(FILTER, WINDIVERT_LAYER_NETWORK, 0, WINDIVERT_FLAG_SNIFF, ERROR_ACCESS_DENIED);
    expect_open_error(FILTER, WINDIVERT_LAYER_NETWORK, 0, WINDIVERT_FLAG_DROP, ERROR_ACCESS_DENIED);
    expect_open_error(FILTER, WINDIVERT_LAYER_NETWORK, 0, WINDIVERT_FLAG_SEND_ONLY, ERROR_ACCESS_DENIED);
    /* What is wrong whoever asks is told first. */
    expect_open_error("udp.DstPort ==", WINDIVERT_LAYER_NETWORK, 0, 0, ERROR_INVALID_PARAMETER);
}

static void
error_unprivileged(void)
{
    e2e_join(e2e_spawn("a", unprivileged, NULL));
    CHECK(e2e_table_count("a") == 0, "a table was left");
}

static bool
flags_valid(UINT64 flags)
{
    if (flags & ~0x3fULL)
        return false;
    if ((flags & WINDIVERT_FLAG_SNIFF) && (flags & WINDIVERT_FLAG_DROP))
        return false;
    return !((flags & WINDIVERT_FLAG_RECV_ONLY) && (flags & WINDIVERT_FLAG_SEND_ONLY));
}

/* All 256 combinations of the lowest eight bits and some high ones. */
static void
error_flags(void)
{
    HANDLE keep = e2e_open("false", 0, WINDIVERT_FLAG_SNIFF); /* for NO_INSTALL */

    for (UINT64 flags = 0; flags < 256; flags++) {
        if (!flags_valid(flags))
            expect_open_error(FILTER, WINDIVERT_LAYER_NETWORK, 0, flags, ERROR_INVALID_PARAMETER);
        else
            CHECK_API(WinDivertClose(e2e_open(FILTER, 0, flags)));
    }
    for (unsigned bit = 8; bit < 64; bit++)
        expect_open_error(FILTER, WINDIVERT_LAYER_NETWORK, 0, 1ULL << bit, ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertClose(keep));
}

static void
error_open_arguments(void)
{
    expect_open_error(NULL, WINDIVERT_LAYER_NETWORK, 0, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("", WINDIVERT_LAYER_NETWORK, 0, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("tcp.DstPort == 80 and", WINDIVERT_LAYER_NETWORK, 0, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("nonsense", WINDIVERT_LAYER_NETWORK, 0, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("priority == 3", WINDIVERT_LAYER_NETWORK, 0, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("@WinDiv_forged", WINDIVERT_LAYER_NETWORK, 0, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("true", (WINDIVERT_LAYER)5, 0, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("true", (WINDIVERT_LAYER)-1, 0, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("true", WINDIVERT_LAYER_NETWORK, 30001, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("true", WINDIVERT_LAYER_NETWORK, -30001, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("true", WINDIVERT_LAYER_NETWORK, 32767, 0, ERROR_INVALID_PARAMETER);
    expect_open_error("true", WINDIVERT_LAYER_NETWORK, -32768, 0, ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertClose(e2e_open(FILTER, 30000, 0)));
    CHECK_API(WinDivertClose(e2e_open(FILTER, -30000, 0)));
}

/* A compiled object opens as its text does. */
static void
error_open_object(void)
{
    char object[4096];
    HANDLE h;

    CHECK_API(WinDivertHelperCompileFilter(FILTER, WINDIVERT_LAYER_NETWORK, object, sizeof(object), NULL, NULL));
    h = e2e_open(object, 0, 0);
    CHECK_API(WinDivertClose(h));
    object[strlen(object) / 2] ^= 1;
    object[strlen(object) - 1] ^= 3;
    expect_open_error(object, WINDIVERT_LAYER_NETWORK, 0, 0, ERROR_INVALID_PARAMETER);
}

static void
error_no_install(void)
{
    HANDLE h;

    expect_open_error(FILTER, WINDIVERT_LAYER_NETWORK, 0, WINDIVERT_FLAG_NO_INSTALL, ERROR_SERVICE_DOES_NOT_EXIST);
    h = e2e_open(FILTER, 0, 0);
    CHECK_API(WinDivertClose(e2e_open(FILTER, 1, WINDIVERT_FLAG_NO_INSTALL)));
    CHECK_API(WinDivertClose(h));
    expect_open_error(FILTER, WINDIVERT_LAYER_NETWORK, 0, WINDIVERT_FLAG_NO_INSTALL, ERROR_SERVICE_DOES_NOT_EXIST);
}

static void
expect_invalid(HANDLE h)
{
    uint8_t buf[64];
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    UINT len = e2e_make_udp(buf, E2E_A4, 1, E2E_B4, 2, "text", 4), ret, bytes = sizeof(addr);
    WINDIVERT_EXT_STATS stats = {.Size = sizeof(stats)};
    UINT64 value;

    CHECK_ERROR(WinDivertRecv(h, buf, sizeof(buf), &ret, &addr), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertRecvEx(h, buf, sizeof(buf), &ret, 0, &addr, &bytes, NULL), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertSend(h, buf, len, &ret, &addr), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertSendEx(h, buf, len, &ret, 0, &addr, sizeof(addr), NULL), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_BOTH), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_TIME, 1000), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertGetParam(h, WINDIVERT_PARAM_QUEUE_TIME, &value), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 50), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertExtGetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, &value), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertExtGetStats(h, &stats), ERROR_INVALID_HANDLE);
    CHECK_ERROR(WinDivertClose(h), ERROR_INVALID_HANDLE);
}

static void
error_stale_handle(void)
{
    HANDLE first = e2e_open(FILTER, 0, 0), second;

    expect_invalid(NULL);
    expect_invalid(INVALID_HANDLE_VALUE);
    expect_invalid((HANDLE)(uintptr_t)0x1234);
    expect_invalid((HANDLE)&first);
    CHECK_API(WinDivertClose(first));
    expect_invalid(first);
    for (unsigned i = 0; i < 100; i++) {
        second = e2e_open(FILTER, 0, 0);
        CHECK(second != first, "a new handle has the value of an old one");
        CHECK_ERROR(WinDivertShutdown(first, WINDIVERT_SHUTDOWN_BOTH), ERROR_INVALID_HANDLE);
        CHECK_API(WinDivertClose(second));
    }
}

struct range {
    WINDIVERT_PARAM param;
    UINT64 min, max, usual;
};

static void
check_range(HANDLE h, const struct range *r)
{
    UINT64 value = 0;

    CHECK_API(WinDivertGetParam(h, r->param, &value));
    CHECK(value == r->usual, "parameter %d is %llu, expected %llu", (int)r->param, (unsigned long long)value,
          (unsigned long long)r->usual);
    CHECK_ERROR(WinDivertSetParam(h, r->param, r->min - 1), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSetParam(h, r->param, r->max + 1), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSetParam(h, r->param, 0), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSetParam(h, r->param, ~0ULL), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSetParam(h, r->param, (1ULL << 32) + r->usual), ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertSetParam(h, r->param, r->min));
    CHECK_API(WinDivertGetParam(h, r->param, &value));
    CHECK(value == r->min, "set to %llu, got %llu", (unsigned long long)r->min, (unsigned long long)value);
    CHECK_API(WinDivertSetParam(h, r->param, r->max));
    CHECK_API(WinDivertGetParam(h, r->param, &value));
    CHECK(value == r->max, "set to %llu, got %llu", (unsigned long long)r->max, (unsigned long long)value);
}

static void
error_params(void)
{
    static const struct range ranges[] = {{WINDIVERT_PARAM_QUEUE_LENGTH, 32, 16384, 4096},
                                          {WINDIVERT_PARAM_QUEUE_TIME, 100, 16000, 2000},
                                          {WINDIVERT_PARAM_QUEUE_SIZE, 65535, 33554432, 4194304}};
    static const UINT64 kinds[] = {0, WINDIVERT_FLAG_SNIFF, WINDIVERT_FLAG_DROP, WINDIVERT_FLAG_SEND_ONLY,
                                   WINDIVERT_FLAG_RECV_ONLY};
    UINT64 value = 99;

    for (unsigned k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
        HANDLE h = e2e_open(FILTER, 0, kinds[k]);

        for (unsigned i = 0; i < 3; i++)
            check_range(h, &ranges[i]);
        CHECK_API(WinDivertGetParam(h, WINDIVERT_PARAM_VERSION_MAJOR, &value));
        CHECK(value == 2, "major version %llu", (unsigned long long)value);
        CHECK_API(WinDivertGetParam(h, WINDIVERT_PARAM_VERSION_MINOR, &value));
        CHECK(value == 2, "minor version %llu", (unsigned long long)value);
        CHECK_ERROR(WinDivertSetParam(h, WINDIVERT_PARAM_VERSION_MAJOR, 2), ERROR_INVALID_PARAMETER);
        CHECK_ERROR(WinDivertGetParam(h, (WINDIVERT_PARAM)5, &value), ERROR_INVALID_PARAMETER);
        CHECK_ERROR(WinDivertGetParam(h, WINDIVERT_PARAM_QUEUE_TIME, NULL), ERROR_INVALID_PARAMETER);
        CHECK_API(WinDivertClose(h));
    }
}

/* RECV_ONLY: receives, may not send; what it received is lost to the receiver. */
static void
error_recv_only(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, 5001), tx = e2e_udp_sender("a", E2E_B4, 5001, 0);
    HANDLE h = e2e_open(FILTER, 0, WINDIVERT_FLAG_RECV_ONLY);
    uint8_t buf[2048];
    WINDIVERT_ADDRESS addr;
    UINT len;

    CHECK(e2e_send(tx, 64, 1), "send");
    len = e2e_recv_packet(h, buf, &addr);
    CHECK_ERROR(WinDivertSend(h, buf, len, &len, &addr), ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

/* SEND_ONLY: diverts nothing, may not receive, injects. */
static void
error_send_only(void)
{
    struct e2e_pump pump = {.count = 200};
    HANDLE h = e2e_open("true", 0, WINDIVERT_FLAG_SEND_ONLY);
    uint8_t packet[128], buf[2048];
    WINDIVERT_ADDRESS addr;
    UINT len;

    pump.rx = e2e_udp_receiver("b", E2E_B4, 5001);
    pump.tx = e2e_udp_sender("a", E2E_B4, 5001, 0);
    CHECK_ERROR(WinDivertRecv(h, buf, sizeof(buf), &len, &addr), ERROR_INVALID_PARAMETER);
    e2e_udp_pump(&pump);
    addr = e2e_new_outbound(false);
    len = e2e_make_udp(packet, E2E_A4, 4000, E2E_B4, 5001, "some text", 9);
    e2e_send_packet(h, packet, len, &addr);
    CHECK(e2e_receive(pump.rx, buf, sizeof(buf), 2000) == 9 && !memcmp(buf, "some text", 9), "not injected");
    CHECK_API(WinDivertClose(h));
    e2e_marker(pump.tx, pump.rx);
}

static void
expect_malformed(HANDLE h, const uint8_t *packet, UINT len)
{
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    UINT sent = 77;

    CHECK_ERROR(WinDivertSend(h, packet, len, &sent, &addr), ERROR_INVALID_PARAMETER);
    CHECK(sent == 77, "a failed Send changed *pSendLen");
}

static void
error_malformed_packet(void)
{
    HANDLE h = e2e_open(FILTER, 0, 0);
    uint8_t packet[128], bad[128];
    UINT len = e2e_make_udp(packet, E2E_A4, 4000, E2E_B4, 5001, "some text", 9);
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);

    expect_malformed(h, packet, 0);
    expect_malformed(h, packet, 19);
    memcpy(bad, packet, len);
    bad[0] = 0x55; /* version 5 */
    expect_malformed(h, bad, len);
    bad[0] = 0x44; /* a header of 16 bytes */
    expect_malformed(h, bad, len);
    bad[0] = 0x4f; /* a header longer than the packet */
    expect_malformed(h, bad, len);
    memset(bad, 0, sizeof(bad));
    bad[0] = 0x60; /* IPv6, cut off */
    expect_malformed(h, bad, 39);
    CHECK_ERROR(WinDivertSend(h, NULL, len, NULL, &addr), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSend(h, packet, len, NULL, NULL), ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertClose(h));
}

/* Impostor: the hop limit goes down by one, at zero the packet is refused. */
static void
error_impostor_ttl(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, 5001), tx = e2e_udp_sender("a", E2E_B4, 5001, 0);
    HANDLE h = e2e_open("false", 0, 0);
    uint8_t packet[128], buf[128];
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    UINT len = e2e_make_udp(packet, E2E_A4, 4000, E2E_B4, 5001, "some text", 9);

    addr.Impostor = 1;
    e2e_send_packet(h, packet, len, &addr);
    CHECK(e2e_receive(rx, buf, sizeof(buf), 2000) == 9, "an impostor with hops left did not arrive");
    packet[8] = 1;
    CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_HOST_UNREACHABLE);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
error_no_route(void)
{
    HANDLE h = e2e_open("false", 0, 0);
    uint8_t packet[128];
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false);
    UINT len = e2e_make_udp(packet, E2E_A4, 4000, "192.0.2.1", 5001, "some text", 9);

    CHECK_ERROR(WinDivertSend(h, packet, len, NULL, &addr), ERROR_NETWORK_UNREACHABLE);
    CHECK_API(WinDivertClose(h));
}

static unsigned
open_descriptors(unsigned *ret_inherited)
{
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    unsigned n = 0;

    *ret_inherited = 0;
    while (d && (e = readdir(d))) {
        int fd = atoi(e->d_name);

        if (e->d_name[0] == '.' || fd == dirfd(d))
            continue;
        n++;
        *ret_inherited += !(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
    if (d)
        closedir(d);
    return n;
}

static unsigned
threads(void)
{
    DIR *d = opendir("/proc/self/task");
    unsigned n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* The library's descriptors do not reach a program that is executed. */
static void
error_descriptors_cloexec(void)
{
    static const UINT64 kinds[] = {0, WINDIVERT_FLAG_SNIFF, WINDIVERT_FLAG_DROP, WINDIVERT_FLAG_SEND_ONLY};
    HANDLE h[4];
    unsigned before, after;

    open_descriptors(&before);
    for (unsigned i = 0; i < 4; i++)
        h[i] = e2e_open(FILTER, (INT16)i, kinds[i]);
    open_descriptors(&after);
    CHECK(after == before, "%u descriptors without close-on-exec", after - before);
    for (unsigned i = 0; i < 4; i++)
        CHECK_API(WinDivertClose(h[i]));
}

/* 200 handles of all kinds, one after the other: descriptors, threads, queues and memory do not add up. */
static void
error_open_close_200(void)
{
    static const UINT64 kinds[] = {0, WINDIVERT_FLAG_SNIFF, WINDIVERT_FLAG_DROP, WINDIVERT_FLAG_SEND_ONLY};
    unsigned fds = 0, tasks = 0, unused;
    HANDLE h;

    for (unsigned i = 0; i < 200; i++) {
        h = e2e_open(FILTER, (INT16)(i % 7), kinds[i % 4]);
        CHECK(i || e2e_queue_count("a") >= 1, "a handle without a queue");
        CHECK_API(WinDivertClose(h));
        if (i == 19) {
            fds = open_descriptors(&unused);
            tasks = threads();
        }
    }
    CHECK(open_descriptors(&unused) <= fds, "%u descriptors are open, after 20 handles it was %u",
          open_descriptors(&unused), fds);
    WAIT_UNTIL(threads() <= tasks, 1000, "%u threads, after 20 handles it was %u", threads(), tasks);
    CHECK(e2e_queue_count("a") == 0, "a queue is left");
}

/* 64 handles at once. */
static void
error_open_64_at_once(void)
{
    struct e2e_pump pump = {.count = 100};
    HANDLE h[64];

    pump.rx = e2e_udp_receiver("b", E2E_B4, 5002);
    pump.tx = e2e_udp_sender("a", E2E_B4, 5002, 0);
    for (unsigned i = 0; i < 64; i++)
        h[i] = e2e_open(FILTER, (INT16)(i % 2 ? i : 0), 0);
    e2e_udp_pump(&pump);
    for (unsigned i = 0; i < 64; i++)
        CHECK_API(WinDivertClose(h[i]));
    CHECK(e2e_queue_count("a") == 0, "a queue is left");
    e2e_marker(pump.tx, pump.rx);
}

const struct e2e_test e2e_error_tests[] = {
    {"error_unprivileged", error_unprivileged, 0},
    {"error_flags", error_flags, 0},
    {"error_open_arguments", error_open_arguments, 0},
    {"error_open_object", error_open_object, 0},
    {"error_no_install", error_no_install, 0},
    {"error_stale_handle", error_stale_handle, 0},
    {"error_params", error_params, 0},
    {"error_recv_only", error_recv_only, 0},
    {"error_send_only", error_send_only, 0},
    {"error_malformed_packet", error_malformed_packet, 0},
    {"error_impostor_ttl", error_impostor_ttl, 0},
    {"error_no_route", error_no_route, 0},
    {"error_descriptors_cloexec", error_descriptors_cloexec, 0},
    {"error_open_close_200", error_open_close_200, 60},
    {"error_open_64_at_once", error_open_64_at_once, 0},
    {NULL, NULL, 0},
};
