/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The optimiser: what each rewrite makes of a filter, how large and how deep
 * the result is, and that programs no filter text leads to keep their outcome.
 *
 *   FILTER_SEED=n   another run (default 1); FILTER_COUNT=n random programs
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/optimise.h"
#include "core/tree.h"
#include "filter_law.h"
#include "filter_random.h"

static struct corpus *corpus;

static unsigned long
setting(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);

    return text ? strtoul(text, NULL, 10) : otherwise;
}

/* ---- Programs as text --------------------------------------------------- */

#define TEXT_MAX 4096

static size_t
put_target(char *text, size_t len, uint32_t target)
{
    if (target == WD_ACCEPT)
        return len + (size_t)snprintf(text + len, TEXT_MAX - len, "+");
    if (target == WD_REJECT)
        return len + (size_t)snprintf(text + len, TEXT_MAX - len, "-");
    return len + (size_t)snprintf(text + len, TEXT_MAX - len, "%u", target);
}

/* "field op value yes no, ...": + accepts, - rejects, a number is a test's. */
static void
program_text(const struct wd_prog *prog, char *text)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    size_t len = 0;

    if (prog->start >= WD_REJECT)
        len = put_target(text, len, prog->start);
    for (uint32_t i = 0; i < prog->count && len < TEXT_MAX - 128; i++) {
        const struct wd_test *test = &prog->tests[i];

        len += (size_t)snprintf(text + len, TEXT_MAX - len, "%s%s", i ? ", " : "", wd_fields[test->field].name);
        if (wd_fields[test->field].kind == WD_KIND_ARRAY)
            len += (size_t)snprintf(text + len, TEXT_MAX - len, "[%db]", test->index);
        len += (size_t)snprintf(text + len, TEXT_MAX - len, " %s %s", ops[test->op], test->neg ? "-" : "");
        if (test->hi)
            len += (size_t)snprintf(text + len, TEXT_MAX - len, "%llx:", (unsigned long long)test->hi);
        len += (size_t)snprintf(text + len, TEXT_MAX - len, "%llu ", (unsigned long long)test->lo);
        len = put_target(text, len, test->yes);
        len += (size_t)snprintf(text + len, TEXT_MAX - len, " ");
        len = put_target(text, len, test->no);
    }
}

/* The most tests on one way. */
static uint32_t
depth_of(const struct wd_prog *prog)
{
    uint32_t *depth = calloc(prog->count + 1, sizeof(*depth)), most = 0;

    assert_non_null(depth);
    for (uint32_t i = prog->count; i-- > 0;) {
        const struct wd_test *test = &prog->tests[i];
        uint32_t yes = test->yes < WD_REJECT ? depth[test->yes] : 0, no = test->no < WD_REJECT ? depth[test->no] : 0;

        depth[i] = 1 + (yes > no ? yes : no);
        most = depth[i] > most ? depth[i] : most;
    }
    free(depth);
    return most;
}

/* ---- Programs put together by hand -------------------------------------- */

#define PROGRAM_TESTS 24
#define SUBJECTS 48

struct pool {
    struct law_subject subjects[SUBJECTS];
    struct wd_packet packets[SUBJECTS];
    uint8_t *buffers[SUBJECTS];
    WINDIVERT_ADDRESS addrs[SUBJECTS];
};

static void
fill_pool(struct rng *rng, WINDIVERT_LAYER layer, struct pool *pool)
{
    for (int i = 0; i < SUBJECTS; i++) {
        pool->buffers[i] = NULL;
        random_address(rng, layer, &pool->addrs[i]);
        pool->subjects[i] = (struct law_subject){NULL, &pool->addrs[i]};
        if (layer > WINDIVERT_LAYER_NETWORK_FORWARD)
            continue;
        while (!random_packet(rng, corpus, &pool->buffers[i], &pool->packets[i])) {
        }
        pool->subjects[i].packet = &pool->packets[i];
    }
}

static void
empty_pool(struct pool *pool)
{
    for (int i = 0; i < SUBJECTS; i++)
        free(pool->buffers[i]);
}

/* The value of a field of 64 bits in this subject, found by asking; 0 where it is absent. */
static uint64_t
value_in(const struct law_subject *subject, WINDIVERT_LAYER layer, uint8_t field, int32_t index)
{
    struct wd_test test = {.field = field, .op = WD_OP_GE, .index = index, .yes = WD_ACCEPT, .no = WD_REJECT};
    struct wd_prog prog = {.layer = layer, .count = 1, .tests = &test};
    uint64_t value = 0;

    for (int bit = 63; bit >= 0; bit--) {
        test.lo = value | 1ull << bit;
        if (wd_prog_eval(&prog, subject->packet, subject->addr))
            value = test.lo;
    }
    return value;
}

/* Values that occur and their neighbours; ends of ranges; beyond them. */
static struct wd_test
random_test(struct rng *rng, WINDIVERT_LAYER layer, uint8_t field, const struct pool *pool)
{
    static const int32_t indices[] = {0, 1, 4, 16, 17, 19, 20, 40, -1, -2, -4, -5, -20, -21, -40};
    const struct wd_field_info *info = &wd_fields[field];
    struct wd_test test = {.field = field, .op = (uint8_t)rng_below(rng, 6)};

    if (info->kind == WD_KIND_ARRAY)
        test.index = indices[rng_below(rng, sizeof(indices) / sizeof(indices[0]))];
    switch (rng_below(rng, 12)) {
    case 0:
        test.lo = rng_below(rng, 8);
        break;
    case 1:
        test.lo = (rng_below(rng, 2) ? info->umin : info->max) + rng_below(rng, 5) - 2;
        break;
    case 2:
        test.hi = rng_below(rng, 2);
        test.lo = rng_next(rng) >> rng_below(rng, 64);
        break;
    default:
        test.lo = value_in(&pool->subjects[rng_below(rng, SUBJECTS)], layer, field, test.index);
        test.lo += test.lo && test.lo < info->max ? rng_below(rng, 3) - 1 : 0;
        break;
    }
    if (rng_below(rng, info->kind == WD_KIND_INT ? 2 : 32) == 0)
        test.neg = test.lo != 0 || test.hi != 0;
    return test;
}

/* Every way to go on that jumps forward; few fields, so that they meet again. */
static void
random_program(struct rng *rng, WINDIVERT_LAYER layer, const struct pool *pool, struct wd_prog *prog)
{
    uint32_t kinds = 1 + rng_below(rng, 5);
    uint8_t fields[5];

    for (uint32_t i = 0; i < kinds; i++)
        do
            fields[i] = (uint8_t)rng_below(rng, rng_below(rng, 3) ? WD_FIELD_COUNT : WD_F_LOCALADDR);
        while (!(wd_fields[fields[i]].layers & 1 << layer));
    prog->layer = layer;
    prog->start = 0;
    prog->count = 1 + rng_below(rng, PROGRAM_TESTS);
    for (uint32_t i = 0; i < prog->count; i++) {
        struct wd_test *test = &prog->tests[i];
        uint32_t *const way[] = {&test->yes, &test->no}, left = prog->count - i - 1;

        *test = random_test(rng, layer, fields[rng_below(rng, kinds)], pool);
        for (int k = 0; k < 2; k++) {
            uint32_t ahead = rng_below(rng, 3) ? (uint32_t)k : rng_below(rng, left + 1);

            *way[k] = ahead < left && rng_below(rng, 3) ? i + 1 + ahead : rng_below(rng, 2) ? WD_ACCEPT : WD_REJECT;
        }
    }
}

static void
assert_equal(const struct wd_prog *plain, const struct wd_prog *optimised, const struct law_subject *subject,
             const char *what)
{
    bool expected = wd_prog_eval(plain, subject->packet, subject->addr);
    char text[TEXT_MAX];

    if (wd_prog_eval(optimised, subject->packet, subject->addr) == expected)
        return;
    program_text(plain, text);
    printf("%s\n", text);
    program_text(optimised, text);
    fail_msg("%s: %d before\n%s", what, expected, text);
}

static void
random_programs(void **state)
{
    unsigned long seed = setting("FILTER_SEED", 1), count = setting("FILTER_COUNT", 20000), before = 0, after = 0;
    struct wd_test tests[PROGRAM_TESTS];
    struct wd_prog prog = {.tests = tests};
    struct rng rng = {seed};
    struct pool pool;

    (void)state;
    for (unsigned long i = 0; i < count; i++) {
        WINDIVERT_LAYER layer = (WINDIVERT_LAYER)(i / 16 % CORPUS_LAYERS);
        struct wd_prog *optimised, *again;
        struct wd_arena arena;
        char what[64];

        if (i % 16 == 0)
            fill_pool(&rng, layer, &pool);
        random_program(&rng, layer, &pool, &prog);
        snprintf(what, sizeof(what), "seed %lu, number %lu", seed, i);
        wd_arena_init(&arena, NULL);
        assert_int_equal(wd_prog_optimise(&arena, &prog, &optimised), 0);
        assert_int_equal(wd_prog_optimise(&arena, optimised, &again), 0);
        assert_true(law_program_valid(optimised) && law_program_valid(again));
        assert_true(optimised->count <= WD_OPTIMISE_GROWTH * prog.count);
        assert_int_equal(wd_prog_prepare(&arena, optimised), 0);
        before += prog.count;
        after += optimised->count;
        for (int k = 0; k < SUBJECTS; k++) {
            assert_equal(&prog, optimised, &pool.subjects[k], what);
            assert_equal(&prog, again, &pool.subjects[k], what);
        }
        wd_arena_free(&arena);
        if (i % 16 == 15 || i == count - 1)
            empty_pool(&pool);
    }
    print_message("seed %lu: %lu programs of %lu tests, optimised %lu\n", seed, count, before, after);
}

static int
set_up(void **state)
{
    (void)state;
    corpus = corpus_load();
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    corpus_free(corpus);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_programs),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
