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
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "bpf/load.h"
#include "bpf_law.h"
#include "core/optimise.h"

#define SKIPPED 77
#define RANDOM_PACKETS 40

static struct corpus *corpus;

void
law_failed(void)
{
    fail();
    abort();
}

static unsigned long
number_of(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);

    return text ? strtoul(text, NULL, 10) : otherwise;
}

/* ---- One program -------------------------------------------------------- */

/* The generated program of prog against the evaluation of what it stands for. */
static void
compare_all(const struct wd_prog *prog, const struct wd_prog *meant, const struct law_setting *setting,
            const char *text, struct rng *rng)
{
    int fd = law_load(prog, setting, text);

    for (size_t i = 0; i < corpus->packet_count; i++) {
        const struct corpus_packet *row = &corpus->packets[i];

        law_compare(fd, setting, meant, text, row->data, row->len, row->valid ? &row->packet : NULL);
    }
    for (int i = 0; i < RANDOM_PACKETS; i++) {
        struct wd_packet packet;
        struct law_packet varied;

        law_vary(rng, corpus, &varied);
        law_compare(fd, setting, meant, text, varied.bytes, varied.len,
                    wd_packet_parse(varied.bytes, varied.len, &packet) ? &packet : NULL);
    }
    close(fd);
}

/* ---- One filter --------------------------------------------------------- */

/* Folded, as written, and specialised, at one hook; what is optimised against what is not. */
static void
check_at(const char *text, WINDIVERT_LAYER layer, enum wd_hook hook, struct rng *rng)
{
    struct law_setting setting = law_random_setting(rng, corpus, hook);
    struct wd_known known = law_known(&setting);
    struct wd_prog *unfolded, *specialised, *specialised_plain;
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_arena arena;
    bool exact;

    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, text, layer, &filter, &error), 0);
    assert_int_equal(wd_filter_prog_unfolded(&arena, text, layer, &unfolded), 0);
    assert_int_equal(wd_filter_specialise(&arena, filter, &known, &specialised, &exact), 0);
    assert_int_equal(wd_filter_specialise_plain(&arena, filter, &known, &specialised_plain, &exact), 0);
    compare_all(wd_filter_prog(filter), wd_filter_prog_plain(filter), &setting, text, rng);
    compare_all(unfolded, unfolded, &setting, text, rng);
    compare_all(specialised, specialised_plain, &setting, text, rng);
    compare_all(specialised_plain, specialised_plain, &setting, text, rng);
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
    law_done.filters++;
}

static void
report(const char *what)
{
    print_message("%s: %lu filters, %lu programs, %lu runs compared, %lu of them matches\n", what, law_done.filters,
                  law_done.programs, law_done.runs, law_done.matches);
    memset(&law_done, 0, sizeof(law_done));
}

/* ---- Tests -------------------------------------------------------------- */

static void
vector_filters(void **state)
{
    struct rng rng = {.state = number_of("FILTER_SEED", 1)};

    (void)state;
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        const struct corpus_filter *row = &corpus->filters[i];

        if (row->text && row->layer <= WINDIVERT_LAYER_NETWORK_FORWARD && strcmp(row->verdict, "ok") == 0)
            check(row->text, row->layer, &rng);
    }
    assert_true(law_done.filters > 400);
    assert_true(law_done.matches > law_done.runs / 50);
    report("vectors");
}

static void
random_filters(void **state)
{
    struct rng rng = {.state = number_of("FILTER_SEED", 1)};
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

/* ---- Programs no filter text leads to ----------------------------------- */

static void
random_programs(void **state)
{
    struct rng rng = {.state = number_of("FILTER_SEED", 1)};
    unsigned long count = number_of("FILTER_COUNT", 3000);
    struct wd_test tests[LAW_PROGRAM_TESTS];
    struct wd_prog prog = {.tests = tests};

    (void)state;
    for (unsigned long i = 0; i < count; i++) {
        WINDIVERT_LAYER layer = (WINDIVERT_LAYER)(i % 2);
        struct law_setting setting = law_random_setting(&rng, corpus,
                                                        layer                ? WD_HOOK_FORWARD
                                                        : rng_below(&rng, 2) ? WD_HOOK_LOCAL_IN
                                                                             : WD_HOOK_LOCAL_OUT);
        struct wd_prog *optimised;
        struct wd_arena arena;
        char name[64];

        law_random_program(&rng, corpus, layer, &prog);
        snprintf(name, sizeof(name), "random program %lu", i);
        compare_all(&prog, &prog, &setting, name, &rng);
        wd_arena_init(&arena, NULL);
        assert_int_equal(wd_prog_optimise(&arena, &prog, &optimised), 0);
        compare_all(optimised, &prog, &setting, name, &rng);
        wd_arena_free(&arena);
    }
    report("programs");
}

/* What is read into a window at once is there to its last byte, and nothing behind it is taken for it. */
static void
element_programs(void **state)
{
    struct rng rng = {.state = number_of("FILTER_SEED", 1)};
    struct wd_test tests[LAW_PROGRAM_TESTS];
    struct wd_prog prog = {.tests = tests};

    (void)state;
    for (unsigned long i = 0; i < number_of("FILTER_COUNT", 2000); i++) {
        struct law_setting setting = law_random_setting(&rng, corpus, WD_HOOK_LOCAL_IN);
        uint8_t bytes[200];
        int fd;

        law_random_elements(&rng, corpus, &prog);
        fd = law_load(&prog, &setting, "random elements");
        for (int k = 0; k < 60; k++) {
            size_t len = law_small_packet(&rng, bytes, 20 + rng_below(&rng, 150));
            struct wd_packet packet;

            law_compare(fd, &setting, &prog, "random elements", bytes, len,
                        wd_packet_parse(bytes, len, &packet) ? &packet : NULL);
        }
        close(fd);
    }
    assert_true(law_done.matches > law_done.runs / 20);
    report("elements");
}

/* ---- Corners ------------------------------------------------------------ */

#define CORNER_TESTS 3000

/* The next test of a chain; a program ends with one whose ways end. */
static void
add(struct wd_prog *prog, uint8_t field, enum wd_op op, int32_t index, uint64_t hi, uint64_t lo, uint32_t yes,
    uint32_t no)
{
    prog->tests[prog->count++] =
        (struct wd_test){.field = field, .op = op, .index = index, .hi = hi, .lo = lo, .yes = yes, .no = no};
}

/* "or" */
static void
add_or(struct wd_prog *prog, uint8_t field, enum wd_op op, int32_t index, uint64_t hi, uint64_t lo)
{
    add(prog, field, op, index, hi, lo, WD_ACCEPT, prog->count + 1);
}

/* "and" */
static void
add_and(struct wd_prog *prog, uint8_t field, enum wd_op op, int32_t index, uint64_t hi, uint64_t lo)
{
    add(prog, field, op, index, hi, lo, prog->count + 1, WD_REJECT);
}

static void
add_end(struct wd_prog *prog)
{
    add(prog, WD_F_IP_TTL, WD_OP_GT, 0, 0, 100, WD_ACCEPT, WD_REJECT);
}

/* Tests that are decided by the header, more of them than are looked ahead over. */
static void
long_decided(struct wd_prog *prog)
{
    add(prog, WD_F_TCP, WD_OP_EQ, 0, 0, 1, 1, 101);
    for (int i = 0; i < 100; i++)
        add_or(prog, i < 80 ? WD_F_UDP : WD_F_UDP_SRCPORT, WD_OP_EQ, 0, 0, 1);
    for (int i = 0; i < 100; i++)
        add_or(prog, i % 70 ? WD_F_ICMP_TYPE : WD_F_IP_TTL, WD_OP_EQ, 0, 0, (uint64_t)i);
}

/* Begins in a later section. */
static void
late_start(struct wd_prog *prog)
{
    for (int i = 0; i < CORNER_TESTS - 1; i++)
        add_or(prog, WD_F_LENGTH, WD_OP_EQ, 0, 0, 21 + (uint64_t)i);
    prog->start = 1500;
}

static const uint64_t edges[] = {0, 1, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX};

/* Bounds of addresses where a half overflows, or is nothing. */
static void
address_edges(struct wd_prog *prog)
{
    for (int i = 0; i < 100; i++)
        add_and(prog, i % 3 ? WD_F_IPV6_DSTADDR : WD_F_REMOTEADDR, WD_OP_LT + (uint8_t)(i % 2), 0, edges[2 + i % 3],
                edges[i / 20]);
}

static void
address_halves(struct wd_prog *prog)
{
    for (int i = 0; i < 100; i++)
        add_or(prog, i % 3 ? WD_F_IPV6_SRCADDR : WD_F_LOCALADDR, WD_OP_LT + (uint8_t)(i % 4), 0, edges[i % 5],
               edges[i / 20]);
}

/* One element again and again, also one that is never there. */
static void
same_element(struct wd_prog *prog)
{
    add_or(prog, WD_F_UDP_PAYLOAD32, WD_OP_GE, -1, 0, 0);
    add_or(prog, WD_F_UDP_PAYLOAD32, WD_OP_NE, -2, 0, 7);
    add_or(prog, WD_F_UDP_PAYLOAD32, WD_OP_LT, -3, 0, 7);
    add(prog, WD_F_PACKET, WD_OP_GE, 40, 0, 1, prog->count + 1, prog->count + 6);
    add(prog, WD_F_PACKET, WD_OP_NE, 40, 0, 5, prog->count + 1, prog->count + 5);
    add(prog, WD_F_PACKET, WD_OP_NE, 40, 0, 6, prog->count + 1, prog->count + 4);
    add(prog, WD_F_PACKET, WD_OP_GE, 40, 0, 0, prog->count + 1, prog->count + 3);
    add(prog, WD_F_PACKET, WD_OP_LE, 40, 0, 90, prog->count + 1, prog->count + 2);
    add(prog, WD_F_PACKET, WD_OP_NE, 40, 0, 8, WD_ACCEPT, prog->count + 1);
    add(prog, WD_F_PACKET16, WD_OP_NE, 41, 0, 0, prog->count + 1, prog->count + 3);
    add(prog, WD_F_PACKET16, WD_OP_NE, 41, 0, 1, prog->count + 1, prog->count + 2);
    add(prog, WD_F_PACKET16, WD_OP_NE, 41, 0, 2, WD_ACCEPT, prog->count + 1);
    add(prog, WD_F_PACKET16, WD_OP_EQ, 41, 0, 2, WD_ACCEPT, prog->count + 1);
    add(prog, WD_F_PACKET16, WD_OP_GE, 41, 0, 0, WD_ACCEPT, prog->count + 1);
}

/* One comparison of an address, or of a word of a header; any of its ways may be taken. */
static void
one_edge(struct rng *rng, struct wd_prog *prog)
{
    static const uint8_t fields[] = {WD_F_IPV6_SRCADDR, WD_F_IPV6_DSTADDR, WD_F_LOCALADDR, WD_F_TCP_SEQNUM};
    uint8_t field = fields[rng_below(rng, 4)];
    bool address = field != WD_F_TCP_SEQNUM;

    prog->count = 0;
    add(prog, field, (enum wd_op)rng_below(rng, 6), 0, address ? edges[rng_below(rng, 5)] : 0,
        address ? edges[rng_below(rng, 5)] : UINT32_MAX - rng_below(rng, 2), 1 + rng_below(rng, 2),
        1 + rng_below(rng, 2));
    add_and(prog, WD_F_IPV6_HOPLIMIT, WD_OP_GE, 0, 0, 100 + rng_below(rng, 50));
    add(prog, WD_F_IPV6_HOPLIMIT, WD_OP_LT, 0, 0, 200, WD_ACCEPT, WD_REJECT);
}

/* IPv6 from one edge to another, in front of TCP or UDP of all ones. */
static void
edge_packet(struct rng *rng, uint8_t *bytes, size_t len)
{
    memset(bytes, 0xFF, len);
    memcpy(bytes, "\x60\0\0\0\0\x20", 6);
    bytes[6] = rng_below(rng, 2) ? 6 : 17;
    bytes[7] = (uint8_t)rng_below(rng, 256);
    for (int word = 1; word < 5; word++) {
        uint64_t half = edges[rng_below(rng, 5)] + rng_below(rng, 2);

        for (int i = 8; i > 0; half >>= 8)
            bytes[8 * word + --i] = (uint8_t)half;
    }
}

static void
edges_meet(void **state)
{
    struct rng rng = {.state = number_of("FILTER_SEED", 1)};
    struct wd_test tests[3];
    struct wd_prog prog = {.tests = tests};

    (void)state;
    for (int i = 0; i < 1500; i++) {
        struct law_setting setting = law_random_setting(&rng, corpus, WD_HOOK_LOCAL_IN);
        uint8_t bytes[72];
        int fd;

        setting.opts.large = i % 4;
        one_edge(&rng, &prog);
        fd = law_load(&prog, &setting, "an edge");
        for (int k = 0; k < 40; k++) {
            struct wd_packet packet;

            edge_packet(&rng, bytes, sizeof(bytes));
            assert_true(wd_packet_parse(bytes, sizeof(bytes), &packet));
            law_compare(fd, &setting, &prog, "an edge", bytes, sizeof(bytes), &packet);
        }
        close(fd);
    }
    assert_true(law_done.matches > law_done.runs / 10);
    report("edges");
}

/* Elements far enough behind tests of one value that their window is loaded between two of these. */
static void
elements_ahead(struct wd_prog *prog)
{
    for (int i = 0; i < 62; i++)
        add_or(prog, WD_F_LENGTH, WD_OP_EQ, 0, 0, 40 + (uint64_t)i);
    for (int i = 0; i < 20; i++)
        add_or(prog, WD_F_PACKET, WD_OP_EQ, 20 + i, 0, (uint64_t)i);
}

/* More fields than there is stack to make ready. */
static void
all_fields(struct wd_prog *prog)
{
    for (int i = 0; i < 20; i++) {
        for (uint8_t field = 0; field < WD_FIELD_COUNT; field++) {
            const struct wd_field_info *info = &wd_fields[field];

            if (info->layers & 1 << WINDIVERT_LAYER_NETWORK)
                add_or(prog, field, i % 2 ? WD_OP_EQ : WD_OP_LE, info->kind == WD_KIND_ARRAY ? 100 * i : 0,
                       info->kind == WD_KIND_ADDR ? (uint64_t)i : 0,
                       info->max > 2 ? info->umin + (uint64_t)i : info->max + 1);
        }
    }
}

static void
corners(void **state)
{
    static void (*const build[])(struct wd_prog *) = {long_decided, late_start,     address_edges, address_halves,
                                                      same_element, elements_ahead, all_fields};
    struct wd_test *tests = malloc((CORNER_TESTS + 1) * sizeof(*tests));
    struct rng rng = {.state = number_of("FILTER_SEED", 1)};

    (void)state;
    assert_non_null(tests);
    for (size_t i = 0; i < sizeof(build) / sizeof(build[0]); i++) {
        for (int variant = 0; variant < 6; variant++) {
            struct law_setting setting =
                law_random_setting(&rng, corpus, variant % 2 ? WD_HOOK_LOCAL_IN : WD_HOOK_LOCAL_OUT);
            struct wd_prog prog = {.tests = tests};

            setting.opts.large = variant > 1;
            build[i](&prog);
            add_end(&prog);
            compare_all(&prog, &prog, &setting, "a corner", &rng);
        }
    }
    report("corners");
    free(tests);
}

/* ---- Sizes -------------------------------------------------------------- */

/* A filter under one setting on one packet. */
static void
check_packet(const char *text, const struct law_setting *setting, const uint8_t *bytes, size_t len)
{
    WINDIVERT_LAYER layer =
        setting->opts.hook == WD_HOOK_FORWARD ? WINDIVERT_LAYER_NETWORK_FORWARD : WINDIVERT_LAYER_NETWORK;
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_packet packet;
    struct wd_arena arena;
    int fd;

    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, text, layer, &filter, &error), 0);
    fd = law_load(wd_filter_prog(filter), setting, text);
    law_compare(fd, setting, wd_filter_prog_plain(filter), text, bytes, len,
                wd_packet_parse(bytes, len, &packet) ? &packet : NULL);
    close(fd);
    wd_arena_free(&arena);
}

/* n extension headers of 8 bytes, the one at `fragment` (if any) a fragment header, then 20 bytes of TCP. */
static size_t
long_packet(uint8_t *bytes, int n, int fragment)
{
    size_t len = 40 + 8 * (size_t)n + 20;

    memset(bytes, 0, len);
    bytes[0] = 0x60;
    bytes[4] = (uint8_t)((len - 40) >> 8);
    bytes[5] = (uint8_t)(len - 40);
    bytes[6] = n ? fragment == 0 ? 44 : 60 : 6;
    for (int i = 0; i < n; i++)
        bytes[40 + 8 * i] = i == n - 1 ? 6 : fragment == i + 1 ? 44 : 60;
    bytes[len - 20 + 3] = 80;
    bytes[len - 20 + 12] = 0x50;
    return len;
}

/* As many extension headers as there may be: 8,000 cannot be tested here, 400 can. */
static void
long_walks(void **state)
{
    static const char *const filters[] = {"tcp.DstPort == 80", "protocol == 60", "fragment", "localPort == 80"};
    static const int lengths[] = {0, 1, 2, 8, 31, 32, 33, 100, 400};
    struct law_setting setting = {.opts = {.hook = WD_HOOK_LOCAL_IN, .counters_fd = -1, .ring_fd = -1}};
    uint8_t bytes[4000];

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        for (int fragment = -1; fragment < 33; fragment += 11) {
            size_t len = long_packet(bytes, lengths[i], fragment < lengths[i] ? fragment : -1);

            for (size_t k = 0; k < sizeof(filters) / sizeof(filters[0]); k++) {
                setting.opts.bounded = false;
                if (wd_bpf_can_loop() || lengths[i] <= 32)
                    check_packet(filters[k], &setting, bytes, len);
                setting.opts.bounded = true;
                if (lengths[i] <= 32)
                    check_packet(filters[k], &setting, bytes, len);
            }
        }
    }
    report("long walks");
}

/* The documented end of a bounded walk: 33 headers and the packet does not match. */
static void
bounded_walk(void **state)
{
    struct law_setting setting = {
        .opts = {.hook = WD_HOOK_LOCAL_IN, .counters_fd = -1, .ring_fd = -1, .bounded = true}};
    const struct wd_test test = {.field = WD_F_FRAGMENT, .op = WD_OP_EQ, .yes = WD_ACCEPT, .no = WD_REJECT};
    const struct wd_prog prog = {.count = 1, .tests = (struct wd_test *)&test};
    int fd = law_load(&prog, &setting, "fragment == 0");
    uint8_t bytes[4000];

    (void)state;
    assert_true(law_run(fd, &setting, bytes, long_packet(bytes, 32, -1)));
    assert_false(law_run(fd, &setting, bytes, long_packet(bytes, 33, -1)));
    close(fd);
}

static double
milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Chains of each kind: they load, and decide. */
static void
many_tests(void **state)
{
    static const struct {
        const char *test, *word;
        unsigned int from, count;
    } chain[] = {
        {"tcp.DstPort == %u", "or", 1, 1},
        {"tcp.DstPort == %u", "or", 1, 64},
        {"tcp.DstPort == %u", "or", 1, 1000},
        {"tcp.DstPort == %u", "or", 1, 4096},
        {"tcp.DstPort == %u", "or", 1, 16000},
        {"tcp.DstPort != %u", "and", 1, 4096},
        {"ip.SrcAddr == 10.%u.0.1", "or", 0, 250},
        {"ip.SrcAddr == 0xFFFF0A00%04x", "or", 0, 4096},
        {"ipv6.DstAddr == 2001:db8::%x", "or", 0, 4096},
        {"localAddr != fe80::%x", "and", 0, 4096},
        {"ipv6.SrcAddr > %u", "and", 5, 4096},
        {"udp.Payload[%u] == 7", "or", 0, 4096},
        {"(tcp.Payload32[-%u] or udp.SrcPort)", "and", 1, 4096},
        {"(ip.TTL == %1$u or packet[%1$u] == 3)", "or", 1, 4096},
    };
    const struct law_setting setting = {
        .opts = {.hook = WD_HOOK_LOCAL_OUT, .counters_fd = -1, .ring_fd = -1, .loopback_known = true}};
    size_t room = 16000 * 64;
    char *text = malloc(room);

    (void)state;
    for (size_t i = 0; i < sizeof(chain) / sizeof(chain[0]); i++) {
        struct wd_filter_error error;
        struct wd_filter *filter;
        struct wd_arena arena;
        size_t len = 0;
        double start;
        int fd;

        for (unsigned int k = 0; k < chain[i].count; k++) {
            len += (size_t)snprintf(text + len, room - len, chain[i].test, chain[i].from + k);
            if (k + 1 < chain[i].count)
                len += (size_t)snprintf(text + len, room - len, " %s ", chain[i].word);
        }
        wd_arena_init(&arena, NULL);
        assert_int_equal(wd_filter_compile(&arena, text, WINDIVERT_LAYER_NETWORK, &filter, &error), 0);
        start = milliseconds();
        fd = law_load(wd_filter_prog(filter), &setting, chain[i].test);
        print_message("%u x %s: %u tests, %.1f ms\n", chain[i].count, chain[i].test, wd_filter_prog(filter)->count,
                      milliseconds() - start);
        for (size_t k = 0; k < corpus->packet_count; k++) {
            const struct corpus_packet *row = &corpus->packets[k];

            law_compare(fd, &setting, wd_filter_prog_plain(filter), chain[i].test, row->data, row->len,
                        row->valid ? &row->packet : NULL);
        }
        close(fd);
        wd_arena_free(&arena);
    }
    free(text);
    report("many tests");
}

/* Whether a socket with this program lets a datagram through: packets larger than a test run takes, in pieces. */
static bool
passes(const int pair[2], const uint8_t *bytes, size_t len)
{
    uint8_t answer[4];
    ssize_t got;

    assert_int_equal(send(pair[0], bytes, len, 0), len);
    got = recv(pair[1], answer, sizeof(answer), MSG_DONTWAIT);
    law_done.runs++;
    law_done.matches += got > 0;
    return got > 0;
}

static void
large_packets(void **state)
{
    static const char *const filters[] = {
        "udp.Payload[-1] == 9",
        "udp.Payload16[30000b] == 0x0102",
        "packet32[-1] == 9",
        "packet[65000] == 4",
        "udp.PayloadLength == 65507",
        "length == 65535 and ip.Length < 65535",
        "udp.Payload[-65000] == 3",
        "udp.Payload[40000] < 7 or udp.Payload32[-20000b] == 0x01010101",
        "packet32[65000b] <= 0xFFFFFFF5 or udp.Payload32[4000] == 0xFFFFFFF2", /* -EFAULT and its like */
        "packet[0] == 0 or packet[256] == 1",
    };
    static const size_t lengths[] = {28, 3000, 9000, 20000, 33000, 65535};
    const struct law_setting setting = {.opts = {.hook = WD_HOOK_LOCAL_OUT, .counters_fd = -1, .ring_fd = -1}};
    struct rng rng = {.state = number_of("FILTER_SEED", 1)};
    uint8_t *bytes = malloc(65535);

    (void)state;
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        struct wd_filter_error error;
        struct wd_filter *filter;
        struct wd_arena arena;
        int fd, pair[2];

        wd_arena_init(&arena, NULL);
        assert_int_equal(wd_filter_compile(&arena, filters[i], WINDIVERT_LAYER_NETWORK, &filter, &error), 0);
        fd = law_load(wd_filter_prog(filter), &setting, filters[i]);
        assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
        assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof(fd)), 0);
        for (unsigned int k = 0; k < 600; k++) {
            size_t len = lengths[rng_below(&rng, 6)], total = rng_below(&rng, 3) ? len : len - rng_below(&rng, 8);
            WINDIVERT_ADDRESS addr;
            struct wd_packet packet;

            for (size_t b = 0; b < len; b++)
                bytes[b] = (uint8_t)(b % 2 + 1);
            for (int b = 0; b < 8; b++) /* where the filters look */
                bytes[len - 1 - rng_below(&rng, 6)] = (uint8_t)rng_below(&rng, 12);
            if (len > 65028)
                bytes[65000] = 4, bytes[len - 65000] = (uint8_t)rng_below(&rng, 6);
            memcpy(bytes, "\x45\0\0\0\0\0\0\0\x40\x11", 10);
            bytes[2] = (uint8_t)(total >> 8);
            bytes[3] = (uint8_t)total;
            assert_true(wd_packet_parse(bytes, len, &packet));
            addr = law_address(&setting, &packet);
            if (passes(pair, bytes, len) != wd_prog_eval(wd_filter_prog_plain(filter), &packet, &addr))
                fail_msg("%zu of %zu bytes: %s", total, len, filters[i]);
        }
        close(pair[0]);
        close(pair[1]);
        close(fd);
        wd_arena_free(&arena);
    }
    assert_true(law_done.matches > 100);
    report("large packets");
    free(bytes);
}

/* ---- What is not a matter of the filter --------------------------------- */

/* A handle sees what handles above it injected, not what itself and those below did. */
static void
tags(void **state)
{
    static const struct {
        uint32_t skb_priority;
        bool seen;
    } row[] = {
        {0, true},
        {6, true},
        {WD_TAG_SO_PRIORITY | WD_TAG_LEVEL(-30000) << 4, false},
        {WD_TAG_SO_PRIORITY | WD_TAG_LEVEL(99) << 4, false},
        {WD_TAG_SO_PRIORITY | WD_TAG_LEVEL(100) << 4, false},
        {WD_TAG_SO_PRIORITY | WD_TAG_LEVEL(101) << 4, true},
        {WD_TAG_SO_PRIORITY | WD_TAG_LEVEL(30000) << 4, true},
        {WD_TAG_SO_PRIORITY | WD_TAG_LEVEL(99) << 4 | 1, true}, /* not a tag */
        {0x57E00000u | WD_TAG_LEVEL(99) << 4, true},
    };
    const struct wd_prog always = {.start = WD_ACCEPT};
    const struct corpus_packet *packet = corpus->packets;

    (void)state;
    while (!packet->valid)
        packet++;
    for (int hook = WD_HOOK_LOCAL_OUT; hook <= WD_HOOK_FORWARD; hook++) {
        const struct law_setting setting = {
            .opts = {.hook = (enum wd_hook)hook, .priority = 100, .counters_fd = -1, .ring_fd = -1}};
        int fd = law_load(&always, &setting, "true");

        for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
            struct __sk_buff ctx = {.priority = row[i].skb_priority};
            struct wd_error error;
            uint32_t value = 7;

            assert_int_equal(wd_bpf_test_run(fd, packet->data, packet->len, &ctx, sizeof(ctx), &value, &error), 0);
            assert_int_equal(value, row[i].seen);
        }
        close(fd);
    }
}

/* Every packet of the vectors that matches comes out as it went in, with what is to be told of it. */
static void
sniffed(void **state)
{
    struct law_setting setting = {
        .opts = {.hook = WD_HOOK_LOCAL_IN, .mode = WD_GEN_SNIFF, .fixed_time_ns = 123456789}, .tag = LAW_TAG_ABOVE};
    const struct wd_prog always = {.start = WD_ACCEPT};
    uint64_t matched = 0;
    struct law_ring ring;
    int fd;

    (void)state;
    law_ring_open(&ring, 65536);
    setting.opts.ring_fd = ring.fd;
    setting.opts.counters_fd = ring.counters_fd;
    ring.counters[WD_COUNT_LIMIT] = 1000;
    fd = law_load(&always, &setting, "true");
    for (size_t i = 0; i < corpus->packet_count; i++) {
        const struct corpus_packet *row = &corpus->packets[i];
        const struct wd_record *record;

        if (!row->len)
            continue;
        assert_false(law_run(fd, &setting, row->data, row->len));
        record = law_ring_next(&ring);
        assert_int_equal(record != NULL, row->valid);
        if (!record)
            continue;
        matched++;
        assert_int_equal(record->ktime_ns, 123456789);
        assert_int_equal(record->len, row->len);
        assert_int_equal(record->cap_len, row->len);
        assert_int_equal(record->ifindex, LAW_IFINDEX);
        assert_int_equal(record->hook, WD_HOOK_LOCAL_IN);
        assert_int_equal(record->impostor, 1);
        assert_int_equal(record->loopback, 0);
        assert_memory_equal(record + 1, row->data, row->len);
    }
    assert_true(matched > 50);
    assert_int_equal(ring.counters[WD_COUNT_MATCHED], matched);
    assert_int_equal(ring.counters[WD_COUNT_WRITTEN], matched);
    assert_int_equal(ring.counters[WD_COUNT_RING_FULL], 0);
    close(fd);
    law_ring_close(&ring);
}

/* All sizes; the steps between the classes of records with them. */
static void
sniffed_sizes(void **state)
{
    struct law_setting setting = {
        .opts = {
            .hook = WD_HOOK_LOCAL_OUT, .mode = WD_GEN_SNIFF, .oif = 9, .loopback_known = true, .loopback = true}};
    const struct wd_prog always = {.start = WD_ACCEPT};
    uint8_t *bytes = malloc(65535);
    struct law_ring ring;
    int fd, pair[2];

    (void)state;
    law_ring_open(&ring, 262144);
    setting.opts.ring_fd = ring.fd;
    setting.opts.counters_fd = ring.counters_fd;
    ring.counters[WD_COUNT_LIMIT] = UINT64_MAX / 2;
    fd = law_load(&always, &setting, "true");
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof(fd)), 0);
    for (size_t i = 0; i < 65535; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t len = 20; len <= 65535; len += len < 2100 ? 1 : len < 65500 ? 331 : 1) {
        const struct wd_record *record;

        memcpy(bytes, "\x45\0\0\x14", 4);
        assert_false(passes(pair, bytes, len));
        record = law_ring_next(&ring);
        assert_non_null(record);
        assert_int_equal(record->len, len);
        assert_int_equal(record->cap_len, len);
        assert_int_equal(record->ifindex, 9);
        assert_int_equal(record->loopback, 1);
        assert_int_equal(record->impostor, 0);
        assert_memory_equal(record + 1, bytes, len);
        assert_null(law_ring_next(&ring));
    }
    close(pair[0]);
    close(pair[1]);
    close(fd);
    free(bytes);
    law_ring_close(&ring);
}

/* A full ring and a full queue are counted and give their places back; a sleeper is woken once, and nobody else. */
static void
sniffed_limits(void **state)
{
    struct law_setting setting = {.opts = {.hook = WD_HOOK_LOCAL_IN, .mode = WD_GEN_SNIFF}};
    const struct wd_prog always = {.start = WD_ACCEPT};
    struct epoll_event interest = {.events = EPOLLIN | EPOLLET};
    uint8_t bytes[1024] = {0x45, 0, 4, 0};
    int fd, epoll_fd = epoll_create1(0);
    struct law_ring ring;

    (void)state;
    law_ring_open(&ring, 4096);
    setting.opts.ring_fd = ring.fd;
    setting.opts.counters_fd = ring.counters_fd;
    fd = law_load(&always, &setting, "true");
    assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ring.fd, &interest), 0);
    assert_int_equal(epoll_wait(epoll_fd, &interest, 1, 0), 0);

    ring.counters[WD_COUNT_LIMIT] = 2; /* the third is too many */
    for (int i = 0; i < 3; i++)
        law_run(fd, &setting, bytes, sizeof(bytes));
    assert_int_equal(ring.counters[WD_COUNT_WRITTEN], 2);
    assert_int_equal(ring.counters[WD_COUNT_TOO_MANY], 1);
    usleep(1000); /* a wake-up would come by an interrupt of its own */
    assert_int_equal(epoll_wait(epoll_fd, &interest, 1, 0), 0);

    ring.counters[WD_COUNT_LIMIT] = 100; /* the fourth does not fit into the ring */
    ring.counters[WD_COUNT_SLEEPING] = 1;
    for (int i = 0; i < 3; i++)
        law_run(fd, &setting, bytes, sizeof(bytes));
    assert_int_equal(ring.counters[WD_COUNT_WRITTEN], 3);
    assert_int_equal(ring.counters[WD_COUNT_RING_FULL], 2);
    assert_int_equal(ring.counters[WD_COUNT_MATCHED], 6);
    assert_int_equal(ring.counters[WD_COUNT_SLEEPING], 0);
    assert_int_equal(epoll_wait(epoll_fd, &interest, 1, 5000), 1);
    for (int i = 0; i < 3; i++)
        assert_non_null(law_ring_next(&ring));
    assert_null(law_ring_next(&ring));
    close(fd);
    close(epoll_fd);
    law_ring_close(&ring);
}

/* Without a fixed time it is the monotonic clock, in units of 100 ns. */
static void
real_time(void **state)
{
    const struct law_setting setting = {.opts = {.hook = WD_HOOK_LOCAL_IN, .counters_fd = -1, .ring_fd = -1}};
    const struct corpus_packet *packet = corpus->packets;

    (void)state;
    while (!packet->valid)
        packet++;
    for (int early = 0; early < 2; early++) {
        int64_t now = (int64_t)(milliseconds() * 1e4);
        struct wd_test test = {.field = WD_F_TIMESTAMP, .op = WD_OP_GE, .yes = WD_ACCEPT, .no = WD_REJECT};
        const struct wd_prog prog = {.count = 1, .tests = &test};
        int fd;

        test.lo = (uint64_t)(early ? now + 600 * 10000000ll : now);
        fd = law_load(&prog, &setting, "timestamp >= now");
        assert_int_equal(law_run(fd, &setting, packet->data, packet->len), !early);
        close(fd);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_filters),   cmocka_unit_test(random_filters), cmocka_unit_test(random_programs),
        cmocka_unit_test(element_programs), cmocka_unit_test(corners),        cmocka_unit_test(edges_meet),
        cmocka_unit_test(long_walks),       cmocka_unit_test(bounded_walk),   cmocka_unit_test(many_tests),
        cmocka_unit_test(large_packets),    cmocka_unit_test(tags),           cmocka_unit_test(sniffed),
        cmocka_unit_test(sniffed_sizes),    cmocka_unit_test(sniffed_limits), cmocka_unit_test(real_time),
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
