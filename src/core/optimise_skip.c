/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Chains of "key == value" with one way in, each "no" leading to the next: of
 * thousands, a packet whose value is known meets the next test that has this
 * value.  It is found by halves, so that a list of rules takes n log n.
 */
#include <errno.h>

#include "optimise_impl.h"

#define WORTHWHILE 16 /* tests of a program */

static bool
is_equality(const struct wd_opt_node *node)
{
    return !node->invert && wd_opt_compare(node->in.min, node->in.max) == 0;
}

/* By chain, value, place. */
static bool
comes_first(const struct wd_opt_skips *skips, uint32_t a, uint32_t b)
{
    int compared = wd_opt_compare(skips->graph->nodes[a].in.min, skips->graph->nodes[b].in.min);

    if (skips->last[a] != skips->last[b])
        return skips->last[a] < skips->last[b];
    return compared ? compared < 0 : a < b;
}

static uint32_t *
sort(const struct wd_opt_skips *skips, uint32_t *from, uint32_t *to)
{
    for (uint32_t width = 1; width < skips->count; width *= 2) {
        uint32_t *swap = from;

        for (uint32_t i = 0; i < skips->count; i += 2 * width) {
            uint32_t half = skips->count - i < width ? skips->count : i + width;
            uint32_t end = skips->count - i < 2 * width ? skips->count : i + 2 * width, a = i, b = half;

            for (uint32_t k = i; k < end; k++)
                to[k] = b == end || (a < half && comes_first(skips, from[a], from[b])) ? from[a++] : from[b++];
        }
        from = to;
        to = swap;
    }
    return from;
}

int
wd_opt_find_skips(const struct wd_opt_graph *graph, struct wd_opt_skips *ret_skips)
{
    struct wd_opt_skips skips = {.graph = graph};
    const uint32_t count = graph->count;
    uint32_t *sorted;
    bool *led;

    if (count < WORTHWHILE) {
        *ret_skips = skips;
        return 0;
    }
    if (!(skips.last = wd_arena_alloc(graph->arena, count, 3 * sizeof(*skips.last))) ||
        !(led = wd_arena_alloc(graph->arena, count, sizeof(*led))))
        return -ENOMEM;
    sorted = skips.last + count;
    for (uint32_t i = count; i-- > 0;) {
        const struct wd_opt_node *node = &graph->nodes[i], *next;

        skips.last[i] = i;
        if (!wd_opt_is_test(node->no) || !is_equality(node))
            continue;
        next = &graph->nodes[node->no];
        if (next->key == node->key && is_equality(next) && !led[node->no]) {
            led[node->no] = true;
            skips.last[i] = skips.last[node->no];
        }
    }
    for (uint32_t i = 0; i < count; i++)
        if (skips.last[i] != i || led[i])
            sorted[skips.count++] = i;
    skips.sorted = sort(&skips, sorted, sorted + count);
    *ret_skips = skips;
    return 0;
}

uint32_t
wd_opt_skip(const struct wd_opt_skips *skips, uint32_t at, struct wd_opt_value value)
{
    const struct wd_opt_node *nodes = skips->graph->nodes;
    uint32_t low = 0, high = skips->count, last = skips->last[at];

    while (low < high) {
        uint32_t middle = (low + high) / 2, other = skips->sorted[middle];
        int compared = wd_opt_compare(nodes[other].in.min, value);
        bool before = skips->last[other] != last ? skips->last[other] < last : compared ? compared < 0 : other < at;

        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < skips->count && skips->last[skips->sorted[low]] == last &&
        wd_opt_compare(nodes[skips->sorted[low]].in.min, value) == 0)
        return skips->sorted[low];
    return nodes[last].no;
}
