/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * What is known on every way to a test decides it, or the next ones: jumps go
 * to where they must lead, tests that decide nothing are left out.
 *
 * A fact says which values a key can have *if it is present*: the "no" of a
 * test does not say that the field is there.  Presence follows from the class
 * (header fields) or from a test that held (elements of arrays).
 */
#include <errno.h>

#include "optimise_impl.h"

#define FACTS 6     /* keys a state remembers, the latest */
#define INTERVALS 3 /* of one fact; a value more that is excluded is forgotten */

struct fact {
    uint32_t key;
    uint8_t count; /* 0: no value is possible, so the key is absent */
    bool present;
    struct wd_opt_interval in[INTERVALS]; /* ascending, disjoint */
};

struct state {
    uint16_t classes;
    uint8_t count, oldest;
    struct fact facts[FACTS];
    struct state *next; /* unused ones */
};

struct pass {
    struct wd_opt_graph *graph;
    struct state **at; /* of each test that is reached and not yet looked at */
    uint32_t *alias;   /* of a test left out: what stands for it */
    struct state *unused;
    struct wd_opt_skips skips;
    uint64_t steps_left; /* tests followed for jumps: bounds the time, not what is right */
};

/* ---- Sets of values ----------------------------------------------------- */

static struct wd_opt_value
greater(struct wd_opt_value a, struct wd_opt_value b)
{
    return wd_opt_compare(a, b) < 0 ? b : a;
}

static struct wd_opt_value
lesser(struct wd_opt_value a, struct wd_opt_value b)
{
    return wd_opt_compare(a, b) < 0 ? a : b;
}

static void
keep_inside(struct fact *fact, const struct wd_opt_interval *in)
{
    uint8_t count = 0;

    for (uint8_t i = 0; i < fact->count; i++) {
        struct wd_opt_interval part = {greater(fact->in[i].min, in->min), lesser(fact->in[i].max, in->max)};

        if (wd_opt_compare(part.min, part.max) <= 0)
            fact->in[count++] = part;
    }
    fact->count = count;
}

/* Where that would be too many intervals the fact stays as it is, which is true too. */
static void
keep_outside(struct fact *fact, const struct wd_opt_interval *in)
{
    struct wd_opt_interval parts[INTERVALS + 1];
    uint8_t count = 0;

    for (uint8_t i = 0; i < fact->count; i++) {
        const struct wd_opt_interval *old = &fact->in[i];

        if (wd_opt_compare(old->max, in->min) < 0 || wd_opt_compare(old->min, in->max) > 0) {
            parts[count++] = *old;
            continue;
        }
        if (wd_opt_compare(old->min, in->min) < 0)
            parts[count++] = (struct wd_opt_interval){old->min, wd_opt_before(in->min)};
        if (wd_opt_compare(old->max, in->max) > 0)
            parts[count++] = (struct wd_opt_interval){wd_opt_after(in->max), old->max};
    }
    if (count > INTERVALS)
        return;
    fact->count = count;
    for (uint8_t i = 0; i < count; i++)
        fact->in[i] = parts[i];
}

static void
append_interval(struct fact *fact, const struct wd_opt_interval *in)
{
    struct wd_opt_interval *last = fact->count ? &fact->in[fact->count - 1] : NULL;

    if (last && (fact->count == INTERVALS || wd_opt_compare(in->min, last->max) <= 0))
        last->max = greater(last->max, in->max);
    else
        fact->in[fact->count++] = *in;
}

/* Values of either; where that is too many intervals, the last ones are taken together. */
static void
unite(struct fact *fact, const struct fact *other)
{
    struct fact sum = {.key = fact->key, .present = fact->present && other->present};
    uint8_t a = 0, b = 0;

    while (a < fact->count || b < other->count) {
        bool first = b == other->count || (a < fact->count && wd_opt_compare(fact->in[a].min, other->in[b].min) <= 0);

        append_interval(&sum, first ? &fact->in[a++] : &other->in[b++]);
    }
    *fact = sum;
}

/* ---- States ------------------------------------------------------------- */

static const struct fact *
find_fact(const struct state *state, uint32_t key)
{
    for (uint8_t i = 0; i < state->count; i++)
        if (state->facts[i].key == key)
            return &state->facts[i];
    return NULL;
}

static struct fact
fact_about(const struct wd_opt_graph *graph, const struct state *state, uint32_t key)
{
    const struct fact *known = find_fact(state, key);

    if (known)
        return *known;
    return (struct fact){.key = key, .count = 1, .in = {graph->keys[key].domain}};
}

static void
set_fact(struct state *state, const struct fact *fact)
{
    struct fact *slot = (struct fact *)find_fact(state, fact->key);

    if (!slot && state->count < FACTS) {
        slot = &state->facts[state->count++];
    } else if (!slot) {
        slot = &state->facts[state->oldest];
        state->oldest = (uint8_t)((state->oldest + 1) % FACTS);
    }
    *slot = *fact;
}

static void
restrict_to(struct fact *fact, const struct wd_opt_node *node, bool yes)
{
    if (yes != node->invert)
        keep_inside(fact, &node->in);
    else
        keep_outside(fact, &node->in);
}

/* What is known behind an outcome of a test. */
static void
learn(const struct wd_opt_graph *graph, struct state *state, const struct wd_opt_node *node, bool yes)
{
    struct fact fact;

    state->classes &= yes ? node->may_yes : node->may_no;
    if (!(node->may_yes & node->may_no))
        return; /* the classes say it all */
    fact = fact_about(graph, state, node->key);
    restrict_to(&fact, node, yes);
    fact.present |= yes;
    set_fact(state, &fact);
}

static bool
is_present(const struct wd_opt_graph *graph, const struct state *state, const struct fact *fact)
{
    const struct wd_opt_key *key = &graph->keys[fact->key];

    return fact->present || (key->always && !(state->classes & ~key->with));
}

static bool
meets(const struct fact *fact, const struct wd_opt_interval *in)
{
    for (uint8_t i = 0; i < fact->count; i++)
        if (wd_opt_compare(fact->in[i].min, in->max) <= 0 && wd_opt_compare(in->min, fact->in[i].max) <= 0)
            return true;
    return false;
}

/* All in one interval of the fact or not: between them are values, or they would be one. */
static bool
is_inside(const struct fact *fact, const struct wd_opt_interval *in)
{
    return fact->count == 0 || (wd_opt_compare(in->min, fact->in[0].min) <= 0 &&
                                wd_opt_compare(fact->in[fact->count - 1].max, in->max) <= 0);
}

/* Which outcomes are possible.  Without a fact about the key both are, as far as its value goes. */
static void
decide(const struct wd_opt_graph *graph, const struct state *state, const struct wd_opt_node *node, bool *ret_yes,
       bool *ret_no)
{
    const struct fact *fact;
    bool within, without;

    *ret_yes = state->classes & node->may_yes;
    *ret_no = state->classes & node->may_no;
    if (!*ret_yes || !*ret_no || !(fact = find_fact(state, node->key)))
        return;
    within = meets(fact, &node->in);
    without = !is_inside(fact, &node->in);
    if (!(node->invert ? without : within))
        *ret_yes = false;
    else if (!(node->invert ? within : without) && is_present(graph, state, fact))
        *ret_no = false;
}

/* ---- Ways --------------------------------------------------------------- */

/* From a test of a chain of equalities, where the value is known, to the next one that is about it. */
static uint32_t
skip(const struct pass *pass, const struct state *state, uint32_t at)
{
    const struct fact *fact;

    if (!pass->skips.count || pass->skips.last[at] == at)
        return at;
    fact = find_fact(state, pass->graph->nodes[at].key);
    if (!fact || fact->count != 1 || wd_opt_compare(fact->in[0].min, fact->in[0].max) != 0)
        return at;
    return wd_opt_skip(&pass->skips, at, fact->in[0].min);
}

/* Where a jump to target must lead in this state, leaving out up to limit tests; *ret_passed: how many, or more than 1. */
static uint32_t
follow(struct pass *pass, const struct state *state, uint32_t target, uint32_t limit, uint32_t *ret_passed)
{
    uint32_t passed = 0, next;
    bool yes, no;

    while (wd_opt_is_test(target) && passed < limit && pass->steps_left) {
        const struct wd_opt_node *node = &pass->graph->nodes[target];

        pass->steps_left--;
        next = skip(pass, state, target);
        if (next != target) {
            passed += next == node->no ? 1 : 2;
            target = next;
            continue;
        }
        decide(pass->graph, state, node, &yes, &no);
        if (yes && no && node->yes != node->no)
            break;
        target = yes ? node->yes : node->no;
        passed += node->yes != node->no;
    }
    *ret_passed = passed;
    return target;
}

/* Values that are possible on one of two ways; a key that one way's packets do not have says nothing there. */
static void
join(const struct wd_opt_graph *graph, struct state *state, const struct state *other)
{
    struct state sum = {.classes = state->classes | other->classes};

    for (uint8_t i = 0; i < state->count; i++) {
        struct fact fact = state->facts[i];
        bool there = other->classes & graph->keys[fact.key].with;
        const struct fact *second = find_fact(other, fact.key);

        if (second)
            unite(&fact, second);
        else if (there)
            continue;
        fact.present &= there;
        sum.facts[sum.count++] = fact;
    }
    for (uint8_t i = 0; i < other->count && sum.count < FACTS; i++) {
        struct fact fact = other->facts[i];

        if (find_fact(state, fact.key) || state->classes & graph->keys[fact.key].with)
            continue;
        fact.present = false;
        sum.facts[sum.count++] = fact;
    }
    *state = sum;
}

static int
arrive(struct pass *pass, uint32_t target, const struct state *state)
{
    struct state *copy;

    if (!wd_opt_is_test(target))
        return 0;
    if (pass->at[target]) {
        join(pass->graph, pass->at[target], state);
        return 0;
    }
    copy = pass->unused;
    if (copy)
        pass->unused = copy->next;
    else if (!(copy = wd_arena_alloc(pass->graph->arena, 1, sizeof(*copy))))
        return -ENOMEM;
    *copy = *state;
    pass->at[target] = copy;
    return 0;
}

/*
 * A test whose "no" comes out all the same when it is left out and the way
 * goes on as if it had held, or the other way round: "tcp" before
 * "tcp.DstPort == 80".  Only where the packets that took the short way now meet
 * one test instead of this one, not several.
 */
static bool
is_needless(struct pass *pass, const struct wd_opt_node *node, const struct state *behind, uint32_t leads_to,
            uint32_t other_way)
{
    uint32_t passed;

    if (wd_opt_is_test(other_way) && pass->graph->nodes[other_way].key == node->key)
        return false; /* both become one region */
    return follow(pass, behind, other_way, 2, &passed) == leads_to && passed <= 1;
}

static int
leave_out(struct pass *pass, uint32_t at, const struct state *state, uint32_t way)
{
    uint32_t passed;

    way = follow(pass, state, way, UINT32_MAX, &passed);
    pass->alias[at] = way;
    return arrive(pass, way, state);
}

static void
note_known(struct pass *pass, struct wd_opt_node *node, const struct state *state)
{
    const struct fact fact = fact_about(pass->graph, state, node->key);

    node->present = is_present(pass->graph, state, &fact);
    node->known = pass->graph->keys[node->key].domain;
    if (fact.count)
        node->known = (struct wd_opt_interval){fact.in[0].min, fact.in[fact.count - 1].max};
}

static int
visit(struct pass *pass, uint32_t at, const struct state *state)
{
    struct wd_opt_node *node = &pass->graph->nodes[at];
    struct state held = *state, failed = *state;
    uint32_t yes, no, passed;
    int ret;

    learn(pass->graph, &held, node, true);
    learn(pass->graph, &failed, node, false);
    yes = follow(pass, &held, node->yes, UINT32_MAX, &passed);
    no = follow(pass, &failed, node->no, UINT32_MAX, &passed);
    if (yes == no || is_needless(pass, node, &failed, no, node->yes))
        return leave_out(pass, at, state, yes == no ? yes : node->yes);
    if (is_needless(pass, node, &held, yes, node->no))
        return leave_out(pass, at, state, node->no);
    note_known(pass, node, state);
    node->yes = yes;
    node->no = no;
    ret = arrive(pass, yes, &held);
    return ret ? ret : arrive(pass, no, &failed);
}

static void
resolve(struct pass *pass)
{
    struct wd_opt_graph *graph = pass->graph;
    uint32_t *alias = pass->alias;

    for (uint32_t i = graph->count; i-- > 0;) {
        struct wd_opt_node *node = &graph->nodes[i];

        if (alias[i] != i) {
            alias[i] = wd_opt_is_test(alias[i]) ? alias[alias[i]] : alias[i];
            continue;
        }
        node->yes = wd_opt_is_test(node->yes) ? alias[node->yes] : node->yes;
        node->no = wd_opt_is_test(node->no) ? alias[node->no] : node->no;
        if (node->yes == node->no)
            alias[i] = node->yes;
    }
    if (wd_opt_is_test(graph->start))
        graph->start = alias[graph->start];
}

int
wd_opt_apply_facts(struct wd_opt_graph *graph)
{
    struct pass pass = {.graph = graph, .steps_left = 4096 + 256ull * graph->count};
    struct state everything = {.classes = WD_OPT_ALL};
    uint32_t passed;
    int ret;

    if (!(pass.at = wd_arena_alloc(graph->arena, graph->count, sizeof(*pass.at))) ||
        !(pass.alias = wd_arena_alloc(graph->arena, graph->count, sizeof(*pass.alias))))
        return -ENOMEM;
    if ((ret = wd_opt_find_skips(graph, &pass.skips)) < 0)
        return ret;
    for (uint32_t i = 0; i < graph->count; i++)
        pass.alias[i] = i;
    graph->start = follow(&pass, &everything, graph->start, UINT32_MAX, &passed);
    ret = arrive(&pass, graph->start, &everything);
    for (uint32_t i = 0; i < graph->count && !ret; i++) {
        struct state *state = pass.at[i];

        if (!state)
            continue;
        ret = visit(&pass, i, state);
        state->next = pass.unused;
        pass.unused = state;
    }
    if (!ret)
        resolve(&pass);
    return ret;
}
