/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Runs: regions one behind the other, each of which leads to the run's one
 * common target or on to the next, and is reached from nowhere else.  What
 * comes of a run is an "or" of "leads to the target" over all of them; tests
 * have no effect on one another, so any order gives the same.  Cheap ones go
 * first, those on one key stand together, otherwise the order stays.
 */
#include <errno.h>

#include "optimise_impl.h"

#define MANY WD_REJECT /* no single one */

/* About a region, at the number of the test it is entered by. */
struct region {
    uint32_t from;       /* the one region that leads here, MANY, WD_OPT_NONE */
    uint32_t exits[2];   /* where it leads to; WD_OPT_NONE: nowhere else */
    bool more;           /* more than two */
    bool placed;         /* in a run, not at its front */
    bool within;         /* new_on is in the same run */
    uint32_t on, new_on; /* in a run: the exit to the next, and what it is to be */
    uint32_t first;      /* what stands in its place at the front of its run */
    uint32_t same_key;   /* in the run: the next of this key */
};

struct order {
    struct wd_opt_graph *graph;
    struct wd_opt_regions regions;
    struct region *region;
    uint32_t *run;      /* the regions of a run in order */
    uint32_t *first_of; /* of each key in a run: its first and last region */
    uint32_t *last_of;
    bool changed;
};

/* ---- Regions and their exits -------------------------------------------- */

static void
add_exit(struct order *order, uint32_t from, uint32_t to)
{
    struct region *region = &order->region[from];

    if (wd_opt_is_test(to) && order->region[to].from != from)
        order->region[to].from = order->region[to].from == WD_OPT_NONE ? from : MANY;
    if (region->exits[0] == to || region->exits[1] == to)
        return;
    if (region->exits[0] == WD_OPT_NONE)
        region->exits[0] = to;
    else if (region->exits[1] == WD_OPT_NONE)
        region->exits[1] = to;
    else
        region->more = true;
}

static void
find_exits(struct order *order)
{
    const uint32_t *owner = order->regions.owner;

    for (uint32_t i = 0; i < order->graph->count; i++)
        order->region[i] = (struct region){
            .from = i == order->graph->start ? MANY : WD_OPT_NONE,
            .exits = {WD_OPT_NONE, WD_OPT_NONE},
            .on = WD_OPT_NONE,
            .first = i,
            .same_key = WD_OPT_NONE,
        };
    for (uint32_t i = 0; i < order->graph->count; i++) {
        const uint32_t ways[] = {order->graph->nodes[i].yes, order->graph->nodes[i].no};

        for (int k = 0; owner[i] != WD_OPT_NONE && k < 2; k++)
            if (!wd_opt_is_test(ways[k]) || owner[ways[k]] != owner[i])
                add_exit(order, owner[i], ways[k]);
    }
}

/* ---- Runs --------------------------------------------------------------- */

static bool
has_two_exits(const struct region *region)
{
    return !region->more && region->exits[1] != WD_OPT_NONE;
}

static uint32_t
other_exit(const struct region *region, uint32_t exit)
{
    return region->exits[region->exits[0] == exit];
}

/* Whether the run goes on from a region with this exit, when all must be able to lead to target. */
static bool
goes_on(const struct order *order, uint32_t from, uint32_t to, uint32_t target)
{
    const struct region *next;

    if (!wd_opt_is_test(to))
        return false;
    next = &order->region[to];
    return next->from == from && has_two_exits(next) && (next->exits[0] == target || next->exits[1] == target);
}

/* The run that begins with this region; its length. */
static uint32_t
find_run(struct order *order, uint32_t at)
{
    struct region *region = &order->region[at];
    uint32_t length = 0, target, on;

    if (!has_two_exits(region))
        return 0;
    on = region->exits[0];
    target = region->exits[1];
    if (!goes_on(order, at, on, target)) {
        on = region->exits[1];
        target = region->exits[0];
    }
    order->run[length++] = at;
    region->on = on;
    while (goes_on(order, at, on, target)) {
        at = on;
        region = &order->region[at];
        on = other_exit(region, target);
        region->on = on;
        region->placed = true;
        order->run[length++] = at;
    }
    return length;
}

/* Sorts the run: by cost, then by where a key comes first, then as it was.  Linear. */
static void
sort_run(struct order *order, const uint32_t *run, uint32_t length, uint32_t *ret_sorted)
{
    const struct wd_opt_graph *graph = order->graph;
    uint32_t count = 0;

    for (uint32_t i = 0; i < length; i++) {
        uint32_t key = graph->nodes[run[i]].key;

        order->region[run[i]].same_key = WD_OPT_NONE;
        if (order->first_of[key] == WD_OPT_NONE)
            order->first_of[key] = run[i];
        else
            order->region[order->last_of[key]].same_key = run[i];
        order->last_of[key] = run[i];
    }
    for (uint8_t cost = 0; cost < 3; cost++)
        for (uint32_t i = 0; i < length; i++) {
            uint32_t key = graph->nodes[run[i]].key;

            if (graph->keys[key].cost != cost || order->first_of[key] != run[i])
                continue;
            for (uint32_t at = run[i]; at != WD_OPT_NONE; at = order->region[at].same_key)
                ret_sorted[count++] = at;
        }
    for (uint32_t i = 0; i < length; i++)
        order->first_of[graph->nodes[run[i]].key] = WD_OPT_NONE;
}

static void
place_run(struct order *order, const uint32_t *run, const uint32_t *sorted, uint32_t length)
{
    bool same = true;

    for (uint32_t i = 0; i < length; i++)
        same &= run[i] == sorted[i];
    if (same) {
        for (uint32_t i = 0; i < length; i++)
            order->region[run[i]].on = WD_OPT_NONE;
        return;
    }
    order->changed = true;
    for (uint32_t i = 0; i + 1 < length; i++) {
        order->region[sorted[i]].new_on = sorted[i + 1];
        order->region[sorted[i]].within = true;
    }
    order->region[sorted[length - 1]].new_on = order->region[run[length - 1]].on;
    order->region[run[0]].first = sorted[0];
}

/* A jump from a test of this region: along its run, or to what stands at the front of another. */
static uint32_t
redirect(const struct order *order, const struct region *region, uint32_t target)
{
    if (region->on != WD_OPT_NONE && target == region->on) {
        if (region->within)
            return region->new_on;
        target = region->new_on;
    }
    return wd_opt_is_test(target) ? order->region[target].first : target;
}

static void
redirect_all(struct order *order)
{
    struct wd_opt_graph *graph = order->graph;

    for (uint32_t i = 0; i < graph->count; i++) {
        struct wd_opt_node *node = &graph->nodes[i];

        if (order->regions.owner[i] == WD_OPT_NONE)
            continue;
        node->yes = redirect(order, &order->region[order->regions.owner[i]], node->yes);
        node->no = redirect(order, &order->region[order->regions.owner[i]], node->no);
    }
    graph->start = order->region[graph->start].first;
}

/* ---- Numbers that only go forward, again -------------------------------- */

enum mark { UNSEEN, SEEN, DONE };

struct walk {
    const struct wd_opt_graph *graph;
    uint8_t *marks;
    uint32_t *stack, height;
    uint32_t *number, done; /* the last one done is the first of the new order */
};

static void
push(struct walk *walk, uint32_t target)
{
    if (wd_opt_is_test(target) && walk->marks[target] == UNSEEN)
        walk->stack[walk->height++] = target;
}

static void
number_all(struct walk *walk)
{
    push(walk, walk->graph->start);
    while (walk->height) {
        uint32_t at = walk->stack[walk->height - 1];

        if (walk->marks[at] == UNSEEN) {
            walk->marks[at] = SEEN;
            push(walk, walk->graph->nodes[at].no);
            push(walk, walk->graph->nodes[at].yes);
            continue;
        }
        walk->height--;
        if (walk->marks[at] == SEEN)
            walk->number[at] = walk->done++;
        walk->marks[at] = DONE;
    }
}

static uint32_t
renumbered(const struct walk *walk, uint32_t target)
{
    return wd_opt_is_test(target) ? walk->done - 1 - walk->number[target] : target;
}

static int
renumber(struct wd_opt_graph *graph)
{
    const uint32_t count = graph->count;
    struct walk walk = {.graph = graph};
    struct wd_opt_node *nodes;

    if (!(nodes = wd_arena_alloc(graph->arena, count, sizeof(*nodes))) ||
        !(walk.marks = wd_arena_alloc(graph->arena, count, sizeof(*walk.marks))) ||
        !(walk.number = wd_arena_alloc(graph->arena, count, 3 * sizeof(*walk.number))))
        return -ENOMEM;
    walk.stack = walk.number + count; /* each test is on it twice at most */
    number_all(&walk);
    for (uint32_t i = 0; i < count; i++) {
        struct wd_opt_node *node;

        if (walk.marks[i] == UNSEEN)
            continue;
        node = &nodes[renumbered(&walk, i)];
        *node = graph->nodes[i];
        node->yes = renumbered(&walk, node->yes);
        node->no = renumbered(&walk, node->no);
    }
    graph->start = renumbered(&walk, graph->start);
    graph->nodes = nodes;
    graph->count = walk.done;
    return 0;
}

/* ------------------------------------------------------------------------- */

static int
make_order(struct order *order)
{
    struct wd_opt_graph *graph = order->graph;
    uint32_t *sorted;

    if (!(order->region = wd_arena_alloc(graph->arena, graph->count, sizeof(*order->region))) ||
        !(order->run = wd_arena_alloc(graph->arena, graph->count, 2 * sizeof(*order->run))) ||
        !(order->first_of = wd_arena_alloc(graph->arena, graph->key_count, 2 * sizeof(*order->first_of))))
        return -ENOMEM;
    sorted = order->run + graph->count;
    order->last_of = order->first_of + graph->key_count;
    find_exits(order);
    for (uint32_t i = 0; i < graph->key_count; i++)
        order->first_of[i] = WD_OPT_NONE;
    for (uint32_t i = 0; i < graph->count; i++) {
        uint32_t length;

        if (order->regions.owner[i] != i || order->region[i].placed)
            continue;
        length = find_run(order, i);
        sort_run(order, order->run, length, sorted);
        place_run(order, order->run, sorted, length);
    }
    return 0;
}

int
wd_opt_reorder(struct wd_opt_graph *graph, bool *ret_changed)
{
    struct order order = {.graph = graph};
    int ret = 0;

    if (wd_opt_is_test(graph->start)) {
        ret = wd_opt_find_regions(graph, &order.regions);
        if (!ret)
            ret = make_order(&order);
    }
    if (!ret && order.changed) {
        redirect_all(&order);
        ret = renumber(graph);
    }
    if (!ret)
        *ret_changed = order.changed;
    return ret;
}
