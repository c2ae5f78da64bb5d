/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Programs of 4,096 and of as many tests as there may be, of every kind: they
 * load, and decide as wd_prog_eval.  Prints how long the kernel takes to load
 * each; what it may take here is generous, as machines that run tests are
 * busy.  Needs CAP_BPF; without it nothing is tested, visibly (exit 77).
 *
 *   LIMITS_ROUNDS=n   loads each n times and prints the median (default 1)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "bpf/gen.h"
#include "bpf/load.h"
#include "bpf_shapes.h"

#define SKIPPED 77
#define TESTS 4096
#define LOAD_MS_MAX 500
#define ROUNDS_MAX 101
#define PACKETS 48
#define PACKET_MAX 1600
#define TEST_RUN_IFINDEX 1

static const uint64_t fixed_time_ns = 123456789;

static struct wd_test tests[WD_TESTS_MAX];
static uint32_t seed = 1;

static uint32_t
random_below(uint32_t limit)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % limit;
}

static double
milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int
compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return a < b ? -1 : a > b;
}

static int
rounds(void)
{
    const char *text = getenv("LIMITS_ROUNDS");
    int count = text ? atoi(text) : 1;

    return count < 1 ? 1 : count > ROUNDS_MAX ? ROUNDS_MAX : count;
}

/* ---- Packets that some tests of every shape are about ------------------- */

static void
put_be(uint8_t *at, int bytes, uint64_t value)
{
    for (int i = bytes; i > 0; value >>= 8)
        at[--i] = (uint8_t)value;
}

/* The n-th value of an address field, for a random n. */
static void
put_address(uint8_t *at, uint8_t field)
{
    uint64_t hi, lo;

    shape_value(field, random_below(TESTS), &hi, &lo);
    if (wd_fields[field].kind == WD_KIND_ADDR4) {
        put_be(at, 4, lo);
    } else {
        put_be(at, 8, hi);
        put_be(at + 8, 8, lo);
    }
}

static size_t
put_ip(uint8_t *bytes, size_t len, bool ip6, uint8_t protocol)
{
    if (ip6) {
        memcpy(bytes, "\x60\0\0\0\0\0\0\x40", 8);
        put_be(bytes + 4, 2, len - 40);
        bytes[6] = protocol;
        put_address(bytes + 8, WD_F_IPV6_SRCADDR);
        put_address(bytes + 24, WD_F_IPV6_DSTADDR);
        return 40;
    }
    memcpy(bytes, "\x45\0\0\0\0\0\0\0", 8);
    put_be(bytes + 2, 2, len);
    bytes[8] = (uint8_t)(1 + random_below(250));
    bytes[9] = protocol;
    put_address(bytes + 12, WD_F_IP_SRCADDR);
    put_address(bytes + 16, WD_F_IP_DSTADDR);
    return 20;
}

/* Short and long, with a payload of all values or of none that is asked for. */
static size_t
make_packet(uint32_t n, uint8_t *bytes)
{
    bool tcp = n & 1, filled = n & 4;
    size_t len = n & 8 ? 70 + random_below(100) : PACKET_MAX - random_below(9), at;
    uint64_t hi, port;

    for (size_t i = 0; i < len; i++)
        bytes[i] = filled ? (uint8_t)random_below(256) : 0xFF;
    at = put_ip(bytes, len, n & 2, tcp ? 6 : 17);
    for (int i = 0; i < 4; i += 2) {
        shape_value(WD_F_TCP_DSTPORT, random_below(TESTS), &hi, &port);
        put_be(bytes + at + i, 2, port);
    }
    if (tcp)
        bytes[at + 12] = 0x50;
    return len;
}

static uint32_t
compare_on_packets(int fd, const struct wd_prog *prog, const char *name)
{
    uint32_t matches = 0;

    for (uint32_t n = 0; n < PACKETS; n++) {
        uint8_t bytes[PACKET_MAX];
        size_t len = make_packet(n, bytes);
        WINDIVERT_ADDRESS addr = {.Timestamp = (INT64)(fixed_time_ns / 100)};
        struct wd_packet packet;
        struct wd_error error;
        uint32_t value;
        bool expected;

        assert_true(wd_packet_parse(bytes, len, &packet));
        addr.Network.IfIdx = TEST_RUN_IFINDEX;
        addr.IPv6 = packet.version == 6;
        expected = wd_prog_eval(prog, &packet, &addr);
        assert_int_equal(wd_bpf_test_run(fd, bytes, len, NULL, 0, &value, &error), 0);
        if (value != expected)
            fail_msg("%s, packet %u: evaluator %d, program %u", name, n, expected, value);
        matches += value;
    }
    return matches;
}

/* ---- Loading ------------------------------------------------------------ */

struct result {
    double generate_ms, load_ms;
    size_t insns;
    int fd;
};

static struct result
load(const struct wd_prog *prog, bool bounded, const char *name)
{
    const struct wd_gen_opts opts = {
        .hook = WD_HOOK_LOCAL_IN,
        .loopback_known = true,
        .counters_fd = -1,
        .ring_fd = -1,
        .bounded = bounded,
        .fixed_time_ns = fixed_time_ns,
    };
    double times[ROUNDS_MAX], start = milliseconds();
    struct result result = {.fd = -1};
    struct wd_error error = {0};
    int count = rounds();
    struct wd_code code;

    if (wd_gen(prog, &opts, &code, &error) < 0)
        fail_msg("%s: %s", name, error.text);
    result.generate_ms = milliseconds() - start;
    result.insns = code.count;
    for (int i = 0; i < count; i++) {
        if (result.fd >= 0)
            close(result.fd);
        start = milliseconds();
        if (wd_bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, code.insns, code.count, "wd_limits", &result.fd, &error) < 0)
            fail_msg("%s: %s", name, error.text);
        times[i] = milliseconds() - start;
    }
    qsort(times, (size_t)count, sizeof(times[0]), compare_doubles);
    result.load_ms = times[count / 2];
    wd_code_free(&code);
    return result;
}

/* Every shape; the slowest is returned. */
static double
load_all(uint32_t count, bool bounded)
{
    uint32_t matches = 0;
    double worst = 0;

    for (uint32_t i = 0; i < shape_count; i++) {
        struct wd_prog prog;
        struct result result;

        shape_build(&shapes[i], count, tests, &prog);
        result = load(&prog, bounded, shapes[i].name);
        print_message("%-30s %5u tests, %6zu instructions, generated in %4.1f ms, loaded in %5.1f ms\n",
                      shapes[i].name, prog.count, result.insns, result.generate_ms, result.load_ms);
        matches += compare_on_packets(result.fd, &prog, shapes[i].name);
        close(result.fd);
        worst = result.load_ms > worst ? result.load_ms : worst;
    }
    print_message("%u shapes x %u packets, %u matches; the slowest loads in %.1f ms\n", shape_count, PACKETS, matches,
                  worst);
    assert_true(matches > shape_count);
    assert_true(matches < shape_count * (PACKETS - 1));
    return worst;
}

static void
many(void **state)
{
    (void)state;
    assert_true(load_all(TESTS, !wd_bpf_can_loop()) < LOAD_MS_MAX);
}

/* As kernels without endless loops want it. */
static void
many_bounded(void **state)
{
    (void)state;
    assert_true(load_all(TESTS, true) < LOAD_MS_MAX);
}

static void
most(void **state)
{
    (void)state;
    assert_true(load_all(WD_TESTS_MAX, !wd_bpf_can_loop()) < 8 * LOAD_MS_MAX);
}

/* Few tests, where the generator does other things. */
static void
few(void **state)
{
    (void)state;
    load_all(8, !wd_bpf_can_loop());
    load_all(100, true);
}

int
main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(many),
        cmocka_unit_test(many_bounded),
        cmocka_unit_test(most),
        cmocka_unit_test(few),
    };
    const struct wd_prog always = {.start = WD_ACCEPT};
    const struct wd_gen_opts opts = {.counters_fd = -1, .ring_fd = -1};
    struct wd_error error = {0};
    struct wd_code code;
    int fd;

    if (wd_gen(&always, &opts, &code, &error) < 0 ||
        wd_bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, code.insns, code.count, "wd_probe", &fd, &error) < 0) {
        printf("SKIP: nothing tested: %s\n", error.text);
        return SKIPPED;
    }
    close(fd);
    wd_code_free(&code);
    return cmocka_run_group_tests(all, NULL, NULL);
}
