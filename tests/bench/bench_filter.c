/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Filters in user space, beside libpcap's of the same meaning.  A packet, its
 * headers found: goal a third of bpf_filter().  Compiling: goal 2 us for one
 * test, 1 ms for 1,000.  "ports" is a chain of `or` on one port, "mix" one of
 * addresses, ports and flags; "last" matches only at the end, "none" not at
 * all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "core/filter.h"
#include "filters.h"
#include "peer.h"
#include "windivert.h"

#define EVAL_GOAL (1.0 / 3)
#define OBJECT_MAX (1 << 20)

struct subject {
    struct filter_texts texts;
    struct wd_arena arena;
    struct wd_filter *filter;
    struct peer *peer;
    char *object;
    WINDIVERT_ADDRESS addr;
    struct wd_packet parsed;
    size_t len;
    uint8_t packet[FILTER_PACKET_MAX];
};

static void
use_packet(struct subject *s, size_t len)
{
    s->len = len;
    if (!wd_packet_parse(s->packet, len, &s->parsed))
        bench_fail("bench_filter: a packet is none");
}

/* ---- A packet ---------------------------------------------------------------- */

static void
run_pcap(void *arg, unsigned n)
{
    struct subject *s = arg;

    for (unsigned i = 0; i < n; i++)
        bench_sink += peer_match(s->peer, s->packet, s->len);
}

static void
run_eval(void *arg, unsigned n)
{
    struct subject *s = arg;
    const struct wd_prog *prog = wd_filter_prog(s->filter);

    for (unsigned i = 0; i < n; i++)
        bench_sink += wd_prog_eval(prog, &s->parsed, &s->addr);
}

static void
run_parse_eval(void *arg, unsigned n)
{
    struct subject *s = arg;
    const struct wd_prog *prog = wd_filter_prog(s->filter);
    struct wd_packet packet;

    for (unsigned i = 0; i < n; i++)
        bench_sink += wd_packet_parse(s->packet, s->len, &packet) && wd_prog_eval(prog, &packet, &s->addr);
}

static void
run_api(void *arg, unsigned n)
{
    struct subject *s = arg;

    for (unsigned i = 0; i < n; i++)
        bench_sink += (uint64_t)WinDivertHelperEvalFilter(s->object, s->packet, (UINT)s->len, &s->addr);
}

static bool
check_packet(const struct subject *s)
{
    bool expected = peer_match(s->peer, s->packet, s->len);

    if (wd_prog_eval(wd_filter_prog(s->filter), &s->parsed, &s->addr) != expected ||
        WinDivertHelperEvalFilter(s->object, s->packet, (UINT)s->len, &s->addr) != expected)
        bench_fail("bench_filter: ours and libpcap's disagree (libpcap: %d): %.200s", expected, s->texts.ours);
    return expected;
}

static void
check_samples(struct subject *s, unsigned tests)
{
    unsigned matches = 0;

    for (unsigned i = 0; i < FILTER_SAMPLES; i++) {
        use_packet(s, filter_sample(tests, i, s->packet));
        matches += check_packet(s);
    }
    if (matches == 0 || matches == FILTER_SAMPLES)
        bench_fail("bench_filter: %u of the samples match: nothing is compared", matches);
}

static void
compare_packet(struct subject *s, enum filter_shape shape, unsigned tests, enum filter_packet which)
{
    const struct bench_variant variants[] = {
        {"bpf_filter", run_pcap, s, NULL},
        {"parse + eval", run_parse_eval, s, NULL},
        {"eval alone", run_eval, s, NULL},
        {"EvalFilter of an object", run_api, s, NULL},
    };
    char name[64];

    snprintf(name, sizeof(name), "eval %s %u %s", filter_shape_name(shape), tests,
             which == FILTER_PACKET_LAST ? "last" : "none");
    use_packet(s, filter_packet(shape, tests, which, s->packet));
    if (check_packet(s) != (which == FILTER_PACKET_LAST))
        bench_fail("bench_filter: the packet of %s is not what it should be", name);
    bench_compare(name, variants, BENCH_COUNT(variants));
    bench_goal(name, variants[1].name, EVAL_GOAL, variants[0].name);
}

/* ---- Compiling ---------------------------------------------------------------- */

static void
run_pcap_compile(void *arg, unsigned n)
{
    struct subject *s = arg;

    for (unsigned i = 0; i < n; i++)
        peer_free(peer_compile(s->texts.pcap));
}

static struct wd_filter *
compile(struct wd_arena *arena, const char *text)
{
    struct wd_filter_error error;
    struct wd_filter *filter;

    wd_arena_init(arena, NULL);
    if (wd_filter_compile(arena, text, WINDIVERT_LAYER_NETWORK, &filter, &error))
        bench_fail("bench_filter: %s at %u: %.200s", wd_filter_strerror(error.code), error.pos, text);
    return filter;
}

static void
run_compile(void *arg, unsigned n)
{
    struct subject *s = arg;
    struct wd_arena arena;

    for (unsigned i = 0; i < n; i++) {
        compile(&arena, s->texts.ours);
        wd_arena_free(&arena);
    }
}

static void
run_api_compile(void *arg, unsigned n)
{
    struct subject *s = arg;

    for (unsigned i = 0; i < n; i++)
        if (!WinDivertHelperCompileFilter(s->texts.ours, WINDIVERT_LAYER_NETWORK, s->object, OBJECT_MAX, NULL, NULL))
            bench_fail("bench_filter: CompileFilter: error %u", (unsigned)GetLastError());
}

static void
compare_compile(struct subject *s, enum filter_shape shape, unsigned tests)
{
    const struct bench_variant variants[] = {
        {"pcap_compile", run_pcap_compile, s, NULL},
        {"wd_filter_compile", run_compile, s, NULL},
        {"CompileFilter to an object", run_api_compile, s, NULL},
    };
    char name[64];

    snprintf(name, sizeof(name), "compile %s %u", filter_shape_name(shape), tests);
    bench_compare(name, variants, BENCH_COUNT(variants));
    if (tests == 1 || tests == 1000)
        for (size_t v = 1; v < BENCH_COUNT(variants); v++)
            bench_goal(name, variants[v].name, tests == 1 ? 2000 : 1000000, "ns");
}

/* -------------------------------------------------------------------------------- */

static void
compare_filter(enum filter_shape shape, unsigned tests)
{
    struct subject *s = calloc(1, sizeof(*s));

    if (!s || !(s->object = malloc(OBJECT_MAX)))
        bench_fail("bench_filter: no memory");
    s->texts = filter_texts(shape, tests, false);
    s->peer = peer_compile(s->texts.pcap);
    s->filter = compile(&s->arena, s->texts.ours);
    s->addr = (WINDIVERT_ADDRESS){.Layer = WINDIVERT_LAYER_NETWORK, .Outbound = 1};
    run_api_compile(s, 1);
    check_samples(s, tests);
    compare_packet(s, shape, tests, FILTER_PACKET_LAST);
    compare_packet(s, shape, tests, FILTER_PACKET_NONE);
    compare_compile(s, shape, tests);
    peer_free(s->peer);
    wd_arena_free(&s->arena);
    filter_texts_free(&s->texts);
    free(s->object);
    free(s);
}

int
main(int argc, char **argv)
{
    unsigned sizes[] = {1, 3, 9, 64, 1000};

    bench_init(argc, argv);
    if (bench_quick())
        sizes[4] = 250; /* libpcap takes 4 s to compile 1,000 ports */
    for (int shape = 0; shape < FILTER_SHAPES; shape++)
        for (size_t i = 0; i < BENCH_COUNT(sizes); i++)
            compare_filter((enum filter_shape)shape, sizes[i]);
    return 0;
}
