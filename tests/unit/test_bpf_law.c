/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The law: for every filter and packet the generated program answers under
 * BPF_PROG_TEST_RUN what wd_prog_eval does, time being a constant.  Needs
 * CAP_BPF; without it the whole test is skipped, visibly (exit 77).
 *
 *   FILTER_SEED=n   another run (default 1); FILTER_COUNT=n random filters
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
#include "filter_law.h"
#include "filter_random.h"

#define SKIPPED 77
#define TEST_RUN_IFINDEX 1    /* the device of a test packet is lo */
#define TEST_RUN_LEN_MAX 3400 /* the kernel takes no more than fits into a page with its own data */
#define RANDOM_PACKETS 24

static struct corpus *corpus;

/* How a program is generated, and the address that goes with it. */
struct setting {
    struct wd_gen_opts opts;
    bool tagged; /* the packets carry the tag of a handle above ours */
};

static struct {
    unsigned long filters, programs, runs, matches;
} counts;

static unsigned long
number_of(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);

    return text ? strtoul(text, NULL, 10) : otherwise;
}

/* ---- One program -------------------------------------------------------- */

static struct setting
random_setting(struct rng *rng, enum wd_hook hook)
{
    static const uint64_t times[] = {1, 99, 100, 12345, 100000, 1000000000000, UINT64_MAX / 2};
    const struct corpus_packet *sample = &corpus->packets[rng_below(rng, (uint32_t)corpus->packet_count)];
    const WINDIVERT_ADDRESS *addr = &sample->addr[0][rng_below(rng, CORPUS_ADDRESSES)];
    uint64_t time = times[rng_below(rng, sizeof(times) / sizeof(times[0]))];

    if (rng_below(rng, 2) && addr->Timestamp > 0 && addr->Timestamp < INT64_MAX / 100)
        time = (uint64_t)addr->Timestamp * 100 + rng_below(rng, 100);
    return (struct setting){
        .opts =
            {
                .hook = hook,
                .mode = WD_GEN_MATCH,
                .priority = (int16_t)((int)rng_below(rng, 101) - 50),
                .loopback = rng_below(rng, 2),
                .loopback_known = true,
                .oif = addr->Network.IfIdx ? addr->Network.IfIdx : 3,
                .counters_fd = -1,
                .ring_fd = -1,
                .bounded = rng_below(rng, 4) == 0,
                .fixed_time_ns = time,
            },
        .tagged = rng_below(rng, 4) == 0,
    };
}

static WINDIVERT_ADDRESS
address_of(const struct setting *setting, const struct wd_packet *packet)
{
    bool outbound = setting->opts.hook == WD_HOOK_LOCAL_OUT;
    WINDIVERT_ADDRESS addr = {
        .Timestamp = (INT64)(setting->opts.fixed_time_ns / 100),
        .Layer = setting->opts.hook == WD_HOOK_FORWARD ? WINDIVERT_LAYER_NETWORK_FORWARD : WINDIVERT_LAYER_NETWORK,
        .Event = WINDIVERT_EVENT_NETWORK_PACKET,
        .Outbound = outbound,
        .Loopback = setting->opts.loopback,
        .Impostor = setting->tagged,
        .IPv6 = packet->version == 6,
        .Network.IfIdx = outbound ? setting->opts.oif : TEST_RUN_IFINDEX,
    };

    return addr;
}

static int
load(const struct wd_prog *prog, const struct setting *setting, const char *text)
{
    struct wd_error error = {0};
    struct wd_code code;
    int fd;

    if (wd_gen(prog, &setting->opts, &code, &error) < 0)
        fail_msg("hook %d: %s\n%s", (int)setting->opts.hook, error.text, text);
    if (wd_bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, code.insns, code.count, "wd_law", &fd, &error) < 0)
        fail_msg("hook %d: %s\n%s", (int)setting->opts.hook, error.text, text);
    wd_code_free(&code);
    counts.programs++;
    return fd;
}

static bool
run(int fd, const struct setting *setting, const uint8_t *bytes, size_t len)
{
    struct __sk_buff ctx = {0};
    struct wd_error error;
    uint32_t value;

    if (setting->tagged)
        ctx.priority = WD_TAG_SO_PRIORITY | WD_TAG_LEVEL(setting->opts.priority + 1) << 4;
    if (wd_bpf_test_run(fd, bytes, len, &ctx, sizeof(ctx), &value, &error) < 0)
        fail_msg("%zu bytes: %s", len, error.text);
    counts.runs++;
    counts.matches += value != 0;
    return value != 0;
}

static void
print_bytes(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        printf("%02x", bytes[i]);
    printf("\n");
}

/* packet: NULL where the bytes are none */
static void
compare(int fd, const struct setting *setting, const struct wd_prog *prog, const char *text, const uint8_t *bytes,
        size_t len, const struct wd_packet *packet)
{
    WINDIVERT_ADDRESS addr;
    bool expected = false, seen;

    if (len == 0 || len > TEST_RUN_LEN_MAX)
        return;
    if (packet) {
        addr = address_of(setting, packet);
        expected = wd_prog_eval(prog, packet, &addr);
    }
    seen = run(fd, setting, bytes, len);
    if (seen == expected)
        return;
    print_bytes(bytes, len);
    fail_msg("hook %d, %s, time %llu, out interface %u: evaluator %d, program %d\n%s", (int)setting->opts.hook,
             setting->tagged ? "tagged" : "not tagged", (unsigned long long)setting->opts.fixed_time_ns,
             setting->opts.oif, expected, seen, text);
}

static void
compare_all(const struct wd_prog *prog, const struct setting *setting, const char *text, struct rng *rng)
{
    int fd = load(prog, setting, text);

    for (size_t i = 0; i < corpus->packet_count; i++) {
        const struct corpus_packet *row = &corpus->packets[i];

        compare(fd, setting, prog, text, row->data, row->len, row->valid ? &row->packet : NULL);
    }
    for (int i = 0; i < RANDOM_PACKETS; i++) {
        struct wd_packet packet;
        uint8_t *bytes;

        if (!random_packet(rng, corpus, &bytes, &packet))
            continue;
        compare(fd, setting, prog, text, bytes, packet.buf_len, &packet);
        free(bytes);
    }
    close(fd);
}

/* ---- One filter --------------------------------------------------------- */

static void
know(struct wd_known *known, enum wd_field field, uint64_t value)
{
    known->state[field] = WD_KNOWN;
    known->value[field] = value;
}

/* As the engine specialises it. */
static struct wd_known
known_of(const struct setting *setting)
{
    struct wd_known known = {0};
    bool outbound = setting->opts.hook == WD_HOOK_LOCAL_OUT;

    know(&known, WD_F_OUTBOUND, outbound);
    know(&known, WD_F_INBOUND, !outbound);
    know(&known, WD_F_LOOPBACK, setting->opts.loopback);
    if (outbound)
        know(&known, WD_F_IFIDX, setting->opts.oif);
    return known;
}

/* Folded, as written, and specialised, at one hook. */
static void
check_at(const char *text, WINDIVERT_LAYER layer, enum wd_hook hook, struct rng *rng)
{
    struct setting setting = random_setting(rng, hook);
    struct wd_known known = known_of(&setting);
    struct wd_prog *unfolded, *specialised;
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_arena arena;
    bool exact;

    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, text, layer, &filter, &error), 0);
    assert_int_equal(wd_filter_prog_unfolded(&arena, text, layer, &unfolded), 0);
    assert_int_equal(wd_filter_specialise(&arena, filter, &known, &specialised, &exact), 0);
    compare_all(wd_filter_prog(filter), &setting, text, rng);
    compare_all(unfolded, &setting, text, rng);
    compare_all(specialised, &setting, text, rng);
    wd_arena_free(&arena);
}

static void
check(const char *text, WINDIVERT_LAYER layer, struct rng *rng)
{
    if (layer == WINDIVERT_LAYER_NETWORK) {
        check_at(text, layer, WD_HOOK_LOCAL_OUT, rng);
        check_at(text, layer, WD_HOOK_LOCAL_IN, rng);
    } else {
        check_at(text, layer, WD_HOOK_FORWARD, rng);
    }
    counts.filters++;
}

static void
report(const char *what)
{
    print_message("%s: %lu filters, %lu programs, %lu runs compared, %lu of them matches\n", what, counts.filters,
                  counts.programs, counts.runs, counts.matches);
    memset(&counts, 0, sizeof(counts));
}

/* ---- Tests -------------------------------------------------------------- */

static void
vector_filters(void **state)
{
    struct rng rng = {number_of("FILTER_SEED", 1)};

    (void)state;
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        const struct corpus_filter *row = &corpus->filters[i];

        if (row->text && row->layer <= WINDIVERT_LAYER_NETWORK_FORWARD && strcmp(row->verdict, "ok") == 0)
            check(row->text, row->layer, &rng);
    }
    assert_true(counts.filters > 400);
    assert_true(counts.matches > counts.runs / 50);
    report("vectors");
}

static void
random_filters(void **state)
{
    struct rng rng = {number_of("FILTER_SEED", 1)};
    struct random_filter *random = malloc(sizeof(*random));
    unsigned long count = number_of("FILTER_COUNT", 500);

    (void)state;
    assert_non_null(random);
    for (unsigned long i = 0; i < count; i++) {
        random_filter(&rng, (WINDIVERT_LAYER)(i % 2), corpus, random);
        check(random->text, (WINDIVERT_LAYER)(i % 2), &rng);
    }
    report("random");
    free(random);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_filters),
        cmocka_unit_test(random_filters),
    };
    const struct wd_prog always = {.start = WD_ACCEPT};
    const struct wd_gen_opts opts = {.counters_fd = -1, .ring_fd = -1};
    struct wd_error error = {0};
    struct wd_code code;
    int fd, failed;

    if (wd_gen(&always, &opts, &code, &error) < 0 ||
        wd_bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, code.insns, code.count, "wd_probe", &fd, &error) < 0) {
        printf("SKIP: nothing compared: %s\n", error.text);
        return SKIPPED;
    }
    close(fd);
    wd_code_free(&code);
    corpus = corpus_load();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    corpus_free(corpus);
    return failed;
}
