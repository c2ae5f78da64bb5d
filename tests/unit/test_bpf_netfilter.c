/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The law for programs of type NETFILTER: they drop, under BPF_PROG_TEST_RUN,
 * what wd_prog_eval finds to match.  The kernel runs such tests at LOCAL_OUT on
 * any bytes, the device being lo; elsewhere on frames, and without a device at
 * LOCAL_IN.  Skipped (77) without CAP_BPF and before Linux 6.4.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/netfilter.h>
#include <net/ethernet.h>

#include "bpf/btf.h"
#include "bpf/gen.h"
#include "bpf/load.h"
#include "filter_random.h"

#define SKIPPED 77
#define FILTERS 1500
#define PACKETS 60
#define LEN_MIN 40 /* what the kernel takes for a test */
#define LEN_MAX 3400
#define TIME_NS UINT64_C(1234567890123456700)

static struct corpus *corpus;
static unsigned long filters, runs, matches;

static int
load(const struct wd_prog *prog, enum wd_hook hook, const char *text, int *ret_fd, struct wd_error *error)
{
    const struct wd_gen_opts opts = {
        .kernel = wd_kernel(),
        .hook = hook,
        .mode = WD_GEN_MATCH,
        .counters_fd = -1,
        .ring_fd = -1,
        .inject_magic = 0x12345678,
        .bounded = !wd_bpf_can_loop(),
        .fixed_time_ns = TIME_NS,
    };
    struct wd_code code;
    int ret;

    if (wd_gen(prog, &opts, &code, error) < 0)
        fail_msg("%s\n%s", error->text, text);
    ret = wd_bpf_load(WD_BPF_PROG_TYPE_NETFILTER, code.insns, code.count, "wd_law", ret_fd, error);
    wd_code_free(&code);
    return ret;
}

static bool
run(int fd, uint32_t pf, uint32_t hooknum, const uint8_t *bytes, size_t len)
{
    struct wd_error error;
    uint32_t verdict;

    if (wd_bpf_test_run_netfilter(fd, pf, hooknum, bytes, len, &verdict, &error) < 0)
        fail_msg("%zu bytes: %s", len, error.text);
    assert_true(verdict == NF_DROP || verdict == NF_ACCEPT);
    runs++;
    return verdict == NF_DROP;
}

static bool
run_at(int fd, enum wd_hook hook, const struct wd_packet *packet)
{
    static uint8_t frame[ETHER_HDR_LEN + LEN_MAX];
    bool v6 = packet->version == 6;
    uint16_t type = v6 ? ETHERTYPE_IPV6 : ETHERTYPE_IP;

    if (hook == WD_HOOK_LOCAL_OUT)
        return run(fd, NFPROTO_IPV4, NF_INET_LOCAL_OUT, packet->data, packet->buf_len);
    frame[ETHER_HDR_LEN - 2] = (uint8_t)(type >> 8);
    frame[ETHER_HDR_LEN - 1] = (uint8_t)type;
    memcpy(frame + ETHER_HDR_LEN, packet->data, packet->buf_len);
    return run(fd, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4, NF_INET_LOCAL_IN, frame, ETHER_HDR_LEN + packet->buf_len);
}

static void
compare(int fd, enum wd_hook hook, const struct wd_prog *prog, const char *text, const struct wd_packet *packet)
{
    bool out = hook == WD_HOOK_LOCAL_OUT;
    const WINDIVERT_ADDRESS addr = {
        .Timestamp = (INT64)(TIME_NS / 100),
        .Layer = WINDIVERT_LAYER_NETWORK,
        .Event = WINDIVERT_EVENT_NETWORK_PACKET,
        .Outbound = out,
        .Loopback = out,
        .IPv6 = packet->version == 6,
        .Network.IfIdx = out,
    };
    bool expected, seen;

    if (packet->buf_len < LEN_MIN || packet->buf_len > LEN_MAX)
        return;
    expected = wd_prog_eval(prog, packet, &addr);
    seen = run_at(fd, hook, packet);
    matches += seen;
    if (seen == expected)
        return;
    for (uint32_t i = 0; i < packet->buf_len; i++)
        printf("%02x", packet->data[i]);
    fail_msg("\nevaluator %d, program %d at %s\n%s", expected, seen, out ? "LOCAL_OUT" : "LOCAL_IN", text);
}

static void
compare_random(struct rng *rng, int fd, enum wd_hook hook, const struct wd_prog *prog, const char *text)
{
    for (int i = 0; i < PACKETS; i++) {
        struct wd_packet packet;
        uint8_t *bytes;

        if (!random_packet(rng, corpus, &bytes, &packet))
            continue;
        compare(fd, hook, prog, text, &packet);
        free(bytes);
    }
}

static void
check(struct rng *rng, const char *text)
{
    struct wd_filter_error bad;
    struct wd_filter *filter;
    struct wd_error error;
    struct wd_arena arena;
    int fd;

    wd_arena_init(&arena, NULL);
    if (wd_filter_compile(&arena, text, WINDIVERT_LAYER_NETWORK, &filter, &bad) == 0) {
        for (enum wd_hook hook = WD_HOOK_LOCAL_OUT; hook <= WD_HOOK_LOCAL_IN; hook++) {
            if (load(wd_filter_prog(filter), hook, text, &fd, &error) < 0)
                fail_msg("%s\n%s", error.text, text);
            compare_random(rng, fd, hook, wd_filter_prog(filter), text);
            close(fd);
        }
        filters++;
    }
    wd_arena_free(&arena);
}

static void
test_vectors(void **state)
{
    struct rng rng = {.state = 7};

    (void)state;
    for (size_t i = 0; i < corpus->filter_count; i++) {
        const struct corpus_filter *row = &corpus->filters[i];

        if (row->text && row->layer == WINDIVERT_LAYER_NETWORK)
            check(&rng, row->text);
    }
    print_message("%lu filters, %lu runs compared, %lu of them matches\n", filters, runs, matches);
    assert_true(filters > 500 && matches > 1000);
}

static void
test_random(void **state)
{
    static struct random_filter filter;
    struct rng rng = {.state = 8};

    (void)state;
    for (int i = 0; i < FILTERS; i++) {
        random_filter(&rng, WINDIVERT_LAYER_NETWORK, corpus, &filter);
        check(&rng, filter.text);
    }
    print_message("with those before: %lu filters, %lu runs compared, %lu of them matches\n", filters, runs, matches);
}

static void
test_forward(void **state)
{
    const struct wd_prog all = {.layer = WINDIVERT_LAYER_NETWORK_FORWARD, .start = WD_ACCEPT};
    const struct wd_prog none = {.layer = WINDIVERT_LAYER_NETWORK_FORWARD, .start = WD_REJECT};
    uint8_t frame[ETHER_HDR_LEN + 28] = {[12] = 0x08, [14] = 0x45, [17] = 28, [23] = 17};
    struct wd_error error;
    int fd;

    (void)state;
    assert_int_equal(load(&all, WD_HOOK_FORWARD, "true", &fd, &error), 0);
    assert_true(run(fd, NFPROTO_IPV4, NF_INET_FORWARD, frame, sizeof(frame)));
    close(fd);
    assert_int_equal(load(&none, WD_HOOK_FORWARD, "false", &fd, &error), 0);
    assert_false(run(fd, NFPROTO_IPV4, NF_INET_FORWARD, frame, sizeof(frame)));
    close(fd);
}

static int
setup(void **state)
{
    (void)state;
    corpus = corpus_load();
    return corpus ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    corpus_free(corpus);
    return 0;
}

static bool
can_run(void)
{
    const struct wd_prog all = {.layer = WINDIVERT_LAYER_NETWORK, .start = WD_ACCEPT};
    struct wd_error error;
    int fd;

    if (!wd_kernel() || load(&all, WD_HOOK_LOCAL_OUT, "true", &fd, &error) < 0)
        return false;
    close(fd);
    return true;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_forward),
    };

    if (!can_run()) {
        printf("skipped: no CAP_BPF, or no programs of type NETFILTER\n");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
