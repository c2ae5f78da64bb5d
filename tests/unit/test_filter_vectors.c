/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Every row of filters.tsv and every digit of matches.tsv. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/filter.h"
#include "filter_corpus.h"

static struct corpus *corpus;
static unsigned long differences;

static void
differ(const struct corpus_filter *filter, const char *what, size_t at)
{
    differences++;
    if (differences <= 20)
        print_error("layer %d, \"%s\": %s %zu\n", (int)filter->layer, filter->text, what, at);
}

static void
verdicts(void **state)
{
    unsigned long rows = 0;

    (void)state;
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        const struct corpus_filter *row = &corpus->filters[i];
        struct wd_filter_error error = {WD_FILTER_OK, 0};
        struct wd_filter *filter;
        struct wd_arena arena;
        const char *got;
        int ret;

        if (!row->text)
            continue;
        wd_arena_init(&arena, NULL);
        ret = wd_filter_compile(&arena, row->text, row->layer, &filter, &error);
        got = ret < 0 ? wd_filter_strerror(error.code) : "ok";
        if (strcmp(got, row->verdict) != 0 || error.pos != row->pos)
            differ(row, got, error.pos);
        rows++;
        wd_arena_free(&arena);
    }
    print_message("%lu filters compared\n", rows);
    assert_int_equal(rows, corpus->filter_count);
    assert_true(rows >= 1498);
    assert_int_equal(differences, 0);
}

/* Digit number n of a row. */
static bool
evaluate(const struct wd_prog *prog, WINDIVERT_LAYER layer, size_t n)
{
    const struct corpus_packet *packet;

    if (layer > WINDIVERT_LAYER_NETWORK_FORWARD)
        return wd_prog_eval(prog, NULL, &corpus->events[layer][n]);
    packet = &corpus->packets[n / CORPUS_ADDRESSES];
    return packet->valid && wd_prog_eval(prog, &packet->packet, &packet->addr[layer][n % CORPUS_ADDRESSES]);
}

static size_t
compare_digits(const struct corpus_filter *row)
{
    size_t count = row->layer > WINDIVERT_LAYER_NETWORK_FORWARD ? corpus->event_count[row->layer]
                                                                : corpus->packet_count * CORPUS_ADDRESSES;
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_prog *unfolded;
    struct wd_arena arena;

    assert_int_equal(strlen(row->matches), count);
    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, row->text, row->layer, &filter, &error), 0);
    assert_int_equal(wd_filter_prog_unfolded(&arena, row->text, row->layer, &unfolded), 0);
    for (size_t n = 0; n < count; n++) {
        if (evaluate(wd_filter_prog(filter), row->layer, n) != (row->matches[n] == '1'))
            differ(row, "evaluation", n);
        if (evaluate(unfolded, row->layer, n) != (row->matches[n] == '1'))
            differ(row, "evaluation of the unfolded program", n);
    }
    wd_arena_free(&arena);
    return count;
}

static void
matches(void **state)
{
    unsigned long rows = 0, digits = 0;

    (void)state;
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        if (!corpus->filters[i].matches)
            continue;
        digits += compare_digits(&corpus->filters[i]);
        rows++;
    }
    print_message("%lu filters, %lu evaluations compared, folded and unfolded\n", rows, digits);
    assert_true(rows >= 938);
    assert_true(digits >= 200000);
    assert_int_equal(differences, 0);
}

static int
set_up(void **state)
{
    (void)state;
    differences = 0;
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
        cmocka_unit_test_setup_teardown(verdicts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(matches, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
