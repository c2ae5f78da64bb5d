/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Random filters and packets against the laws of filter_law.h, and against the
 * logic of their parts.
 *
 *   FILTER_SEED=n   another run (default 1); FILTER_COUNT=n filters per layer
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "filter_pool.h"

#define SUBJECTS 32

static struct corpus *corpus;

static unsigned long
setting(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);

    return text ? strtoul(text, NULL, 10) : otherwise;
}

/* The outcome of one part: that of its own text where it is a single test, else of its parts. */
static bool
meaning(const struct random_filter *filter, struct wd_prog *const *leaves, int at, const struct law_subject *subject)
{
    const struct random_node *node = &filter->nodes[at];

    switch (node->kind) {
    case RANDOM_LEAF:
        return wd_prog_eval(leaves[at], subject->packet, subject->addr);
    case RANDOM_NOT:
        return !meaning(filter, leaves, node->kid[0], subject);
    case RANDOM_AND:
        return meaning(filter, leaves, node->kid[0], subject) && meaning(filter, leaves, node->kid[1], subject);
    case RANDOM_OR:
        return meaning(filter, leaves, node->kid[0], subject) || meaning(filter, leaves, node->kid[1], subject);
    default:
        return meaning(filter, leaves, node->kid[meaning(filter, leaves, node->kid[0], subject) ? 1 : 2], subject);
    }
}

static const char *
check_meaning(const struct random_filter *random, WINDIVERT_LAYER layer, const struct law_subject *subjects)
{
    struct wd_prog *leaves[RANDOM_NODES] = {NULL};
    struct wd_filter_error error;
    const char *broken = NULL;
    struct wd_filter *filter;
    struct wd_arena arena;
    char text[1024];

    wd_arena_init(&arena, NULL);
    for (int i = 0; i < random->count && !broken; i++) {
        const struct random_node *node = &random->nodes[i];

        if (node->kind != RANDOM_LEAF)
            continue;
        snprintf(text, sizeof(text), "%.*s", (int)(node->end - node->begin), random->text + node->begin);
        if (wd_filter_prog_unfolded(&arena, text, layer, &leaves[i]) < 0)
            broken = "a test does not compile alone";
    }
    if (!broken && wd_filter_compile(&arena, random->text, layer, &filter, &error) < 0)
        broken = "a good filter is refused";
    for (int i = 0; i < SUBJECTS && !broken; i++)
        if (wd_prog_eval(wd_filter_prog(filter), subjects[i].packet, subjects[i].addr) !=
            meaning(random, leaves, random->root, &subjects[i]))
            broken = "it is not what its tests say";
    wd_arena_free(&arena);
    return broken;
}

/* The same text with a few bytes gone, changed or moved. */
static void
damage(struct rng *rng, char *text, size_t len)
{
    for (uint32_t changes = 1 + rng_below(rng, 3); changes && len > 1; changes--) {
        size_t at = rng_below(rng, (uint32_t)len);

        switch (rng_below(rng, 3)) {
        case 0:
            memmove(text + at, text + at + 1, len - at);
            len--;
            break;
        case 1:
            text[at] = "()[]?:-!=<>&|ab01x. @#\x80{},/"[rng_below(rng, 27)];
            break;
        default:
            text[at] = text[rng_below(rng, (uint32_t)len)];
            break;
        }
    }
}

static void
laws(void **state)
{
    unsigned long seed = setting("FILTER_SEED", 1), count = setting("FILTER_COUNT", 3000);
    struct random_filter *random = malloc(sizeof(*random));
    struct law_counts good = {0}, bad = {0};
    struct rng rng = {.state = seed};
    struct pool pool;

    (void)state;
    assert_non_null(random);
    for (unsigned long i = 0; i < count * CORPUS_LAYERS; i++) {
        WINDIVERT_LAYER layer = (WINDIVERT_LAYER)(i % CORPUS_LAYERS);
        uint64_t choice = rng_next(&rng);
        const char *broken;

        pool_fill(&rng, layer, corpus, SUBJECTS, &pool);
        random_filter(&rng, layer, corpus, random);
        broken = check_meaning(random, layer, pool.subjects);
        if (!broken)
            broken = law_check(random->text, layer, pool.subjects, SUBJECTS, choice, &good);
        if (!broken) {
            damage(&rng, random->text, random->len);
            broken = law_check(random->text, layer, pool.subjects, 4, choice, &bad);
        }
        pool_empty(&pool);
        if (broken)
            fail_msg("seed %lu, number %lu, layer %d: %s\n%s", seed, i, (int)layer, broken, random->text);
    }
    print_message("seed %lu: %lu filters, %lu evaluations of each form; damaged: %lu accepted, %lu refused\n", seed,
                  good.accepted, good.evaluations, bad.accepted, bad.refused);
    assert_int_equal(good.refused, 0);
    assert_true(bad.refused > count);
    free(random);
}

/* The vectors' filters keep the laws too. */
static void
vector_laws(void **state)
{
    struct law_counts counts = {0};
    struct rng rng = {.state = setting("FILTER_SEED", 1)};
    struct pool pool;

    (void)state;
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        const struct corpus_filter *row = &corpus->filters[i];
        const char *broken;

        if (!row->text)
            continue;
        pool_fill(&rng, row->layer, corpus, SUBJECTS, &pool);
        broken = law_check(row->text, row->layer, pool.subjects, SUBJECTS, rng_next(&rng), &counts);
        pool_empty(&pool);
        if (broken)
            fail_msg("filter %zu, layer %d: %s\n%s", i, (int)row->layer, broken, row->text);
    }
    print_message("%lu filters, %lu evaluations of each form; %lu refused\n", counts.accepted, counts.evaluations,
                  counts.refused);
    assert_true(counts.accepted > 1000);
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
        cmocka_unit_test(laws),
        cmocka_unit_test(vector_laws),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
