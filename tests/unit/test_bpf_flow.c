/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Programs that look for a packet's flow, under BPF_PROG_TEST_RUN: they find
 * the key that wd_flow_key makes, count, and pass over what is skipped or has had
 * enough.  Skipped (77) without CAP_BPF.
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

#include "bpf/btf.h"
#include "bpf/load.h"
#include "bpf_law.h"
#include "linux/flow.h"

#define SKIPPED 77
#define LIMIT 3
#define PACKETS 20000
#define LEN_MIN 40 /* what the kernel takes for a test of type NETFILTER */

static const struct wd_prog all = {.layer = WINDIVERT_LAYER_NETWORK, .start = WD_ACCEPT};
static struct corpus *corpus;

void
law_failed(void)
{
    fail();
    abort();
}

/* What the map should hold. */
static struct {
    struct wd_flow flow;
    uint64_t count;
} model[PACKETS];
static unsigned int model_count;

static uint64_t *
model_find(const struct wd_flow *flow)
{
    unsigned int i = 0;

    while (i < model_count && memcmp(&model[i].flow, flow, sizeof(*flow)) != 0)
        i++;
    if (i == model_count) {
        model[i].flow = *flow;
        model[i].count = 0;
        model_count++;
    }
    return &model[i].count;
}

struct program {
    struct law_setting setting;
    struct wd_flows flows;
    int fd;
};

static void
program_open(struct program *p, bool netfilter, uint32_t limit, bool counts)
{
    struct wd_error error;
    struct wd_code code;

    *p = (struct program){
        .setting
            .opts = {.hook = WD_HOOK_LOCAL_OUT, .loopback_known = true, .oif = 3, .counters_fd = -1, .ring_fd = -1},
        .flows = {.fd = -1},
    };
    assert_int_equal(wd_flows_need(&p->flows, &error), 0);
    p->setting.opts.flows_fd = p->flows.fd;
    p->setting.opts.flow_limit = limit;
    p->setting.opts.flow_counts = counts;
    p->setting.opts.bounded = !wd_bpf_can_loop();
    p->setting.opts.kernel = netfilter ? wd_kernel() : NULL;
    assert_int_equal(wd_gen(&all, &p->setting.opts, &code, &error), 0);
    if (wd_bpf_load(netfilter ? WD_BPF_PROG_TYPE_NETFILTER : BPF_PROG_TYPE_SOCKET_FILTER, code.insns, code.count,
                    "wd_flow", &p->fd, &error) < 0)
        fail_msg("%s", error.text);
    wd_code_free(&code);
}

static void
program_close(struct program *p)
{
    close(p->fd);
    wd_flows_close(&p->flows);
}

static bool
run(const struct program *p, const uint8_t *bytes, size_t len)
{
    struct wd_error error;
    uint32_t verdict;

    if (!p->setting.opts.kernel)
        return law_run(p->fd, &p->setting, bytes, len);
    if (wd_bpf_test_run_netfilter(p->fd, NFPROTO_IPV4, NF_INET_LOCAL_OUT, bytes, len, &verdict, &error) < 0)
        fail_msg("%zu bytes: %s", len, error.text);
    return verdict == NF_DROP;
}

/* The same packet the other way. */
static void
turn(uint8_t *bytes, const struct wd_packet *packet)
{
    unsigned int size = packet->version == 6 ? 16 : 4, off = packet->version == 6 ? 8 : 12;
    uint8_t keep[16];

    memcpy(keep, bytes + off, size);
    memcpy(bytes + off, bytes + off + size, size);
    memcpy(bytes + off + size, keep, size);
    if (packet->l4 != WD_L4_TCP && packet->l4 != WD_L4_UDP)
        return;
    memcpy(keep, bytes + packet->l4_off, 2);
    memcpy(bytes + packet->l4_off, bytes + packet->l4_off + 2, 2);
    memcpy(bytes + packet->l4_off + 2, keep, 2);
}

static unsigned int
compare_counts(const struct program *p, uint64_t seed)
{
    struct rng rng = {.state = seed};
    unsigned int passed_over = 0;

    model_count = 0;
    for (int i = 0; i < PACKETS; i++) {
        struct law_packet varied;
        struct wd_packet packet;
        struct wd_error error;
        struct wd_flow flow;
        bool expected = true;

        law_vary(&rng, corpus, &varied);
        if (varied.len < LEN_MIN || varied.len > LAW_LEN_MAX || !wd_packet_parse(varied.bytes, varied.len, &packet) ||
            packet.truncated)
            continue;
        if (rng_below(&rng, 2))
            turn(varied.bytes, &packet);
        if (wd_flow_key(varied.bytes, varied.len, &flow, &error) == 0)
            expected = (*model_find(&flow))++ < LIMIT;
        passed_over += !expected;
        if (run(p, varied.bytes, varied.len) != expected) {
            law_print_bytes(varied.bytes, varied.len);
            fail_msg("packet %d, of flow %u: expected %d", i, model_count, expected);
        }
    }
    assert_true(model_count > 100);
    return passed_over;
}

static void
counts(void **state)
{
    (void)state;
    for (int netfilter = 0; netfilter <= (wd_kernel() != NULL); netfilter++) {
        struct program p;

        program_open(&p, netfilter, LIMIT, true);
        assert_true(compare_counts(&p, 3) > 1000);
        print_message("%u flows\n", model_count);
        program_close(&p);
    }
}

/* Both directions, no other flow, no fragment. */
static void
check_skip(bool netfilter, bool count)
{
    uint8_t udp[48] = {0x45, 0, 0, 48, 0,  1, 0, 0,    64,   17,   0,    0, 10,
                       77,   0, 1, 10, 77, 0, 2, 0x13, 0x88, 0x13, 0x89, 0, 28};
    struct wd_packet packet;
    struct wd_error error;
    struct wd_flow flow;
    struct program p;

    program_open(&p, netfilter, count ? LIMIT : WD_FLOW_LIMIT_MAX, count);
    for (int i = 0; i < 2 * LIMIT; i++)
        assert_int_equal(run(&p, udp, sizeof(udp)), !count || i < LIMIT);
    udp[23]++;
    assert_true(run(&p, udp, sizeof(udp)));
    assert_int_equal(wd_flow_key(udp, sizeof(udp), &flow, &error), 0);
    assert_int_equal(wd_flows_skip(&p.flows, &flow, &error), 0);
    assert_int_equal(wd_flows_skip(&p.flows, &flow, &error), 0);
    assert_int_equal(p.flows.put, !count);
    assert_false(run(&p, udp, sizeof(udp)));
    assert_true(wd_packet_parse(udp, sizeof(udp), &packet));
    turn(udp, &packet);
    assert_false(run(&p, udp, sizeof(udp)));
    udp[6] = 0x20; /* more fragments */
    assert_true(run(&p, udp, sizeof(udp)));
    assert_int_equal(wd_flow_key(udp, sizeof(udp), &flow, &error), -EINVAL);
    udp[6] = 0;
    udp[23]++;
    assert_true(run(&p, udp, sizeof(udp)));
    program_close(&p);
}

static void
skips(void **state)
{
    (void)state;
    for (int netfilter = 0; netfilter <= (wd_kernel() != NULL); netfilter++) {
        check_skip(netfilter, false);
        check_skip(netfilter, true);
    }
}

static void
no_key(void **state)
{
    uint8_t bytes[40] = {0};
    struct wd_error error;
    struct wd_flow flow;

    (void)state;
    assert_int_equal(wd_flow_key(bytes, sizeof(bytes), &flow, &error), -EINVAL);
    assert_int_equal(wd_flow_key(bytes, 0, &flow, &error), -EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(skips),
        cmocka_unit_test(no_key),
    };
    struct wd_flows flows = {.fd = -1};
    struct wd_error error;
    int failed;

    if (wd_flows_need(&flows, &error) < 0) {
        printf("SKIP: nothing compared: %s\n", error.text);
        return SKIPPED;
    }
    wd_flows_close(&flows);
    corpus = corpus_load();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    corpus_free(corpus);
    return failed;
}
