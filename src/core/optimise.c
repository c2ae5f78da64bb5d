/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Program -> graph of tests on intervals, and the order of the passes over it. */
#include "optimise.h"

#include <errno.h>

#include "optimise_impl.h"

enum { T_NONE, T_TCP, T_UDP, T_ICMP };

#define CLASSES_IP4 0x0F0F
#define CLASSES_IP6 0xF0F0
#define CLASSES_TCP 0x2222
#define CLASSES_UDP 0x4444
#define CLASSES_ICMP4 0x0808
#define CLASSES_ICMP6 0x8080
#define CLASSES_OUTBOUND 0xFF00

#define SMALLEST_BUFFER 20 /* wd_packet_parse refuses what is shorter */
#define SHORTEST_HEADER 5  /* in words: the parser takes no IPv4 or TCP header below it */

/* ---- Keys --------------------------------------------------------------- */

static struct wd_opt_value
value_of(uint8_t field, const struct wd_number *number)
{
    if (wd_fields[field].kind == WD_KIND_INT)
        return (struct wd_opt_value){0, (number->neg ? -number->lo : number->lo) ^ 1ull << 63};
    return (struct wd_opt_value){number->hi, number->lo};
}

static uint16_t
classes_with(uint8_t src)
{
    switch (src) {
    case WD_SRC_IP4:
        return CLASSES_IP4;
    case WD_SRC_IP6:
        return CLASSES_IP6;
    case WD_SRC_ICMP:
        return CLASSES_ICMP4;
    case WD_SRC_ICMP6:
        return CLASSES_ICMP6;
    case WD_SRC_TCP:
    case WD_SRC_TCPDATA:
        return CLASSES_TCP;
    case WD_SRC_UDP:
    case WD_SRC_UDPDATA:
        return CLASSES_UDP;
    default:
        return WD_OPT_ALL;
    }
}

/* Elements of an array may lie beyond its end; not those of the first or last 20 bytes of a buffer. */
static bool
is_always_there(const struct wd_field_info *info, int32_t index)
{
    if (info->kind != WD_KIND_ARRAY)
        return true;
    if (info->src != WD_SRC_PACKET)
        return false;
    return index < 0 ? index >= -SMALLEST_BUFFER && index + info->width <= 0 : index <= SMALLEST_BUFFER - info->width;
}

/* Classes of cost: what is at hand or at a fixed place; elements of arrays; what hashes the packet. */
static uint8_t
cost_of(uint8_t field)
{
    if (field == WD_F_RANDOM8 || field == WD_F_RANDOM16 || field == WD_F_RANDOM32)
        return 2;
    return wd_fields[field].kind == WD_KIND_ARRAY;
}

static void
set_key(struct wd_opt_key *key, const struct wd_test *test)
{
    const struct wd_field_info *info = &wd_fields[test->field];
    struct wd_number min, max;

    wd_field_range(test->field, &min, &max);
    if (test->field == WD_F_TRUE)
        min = max;
    if (test->field == WD_F_FALSE)
        max = min;
    if (test->field == WD_F_IP_HDRLENGTH || test->field == WD_F_TCP_HDRLENGTH)
        min.lo = SHORTEST_HEADER;
    *key = (struct wd_opt_key){
        .field = test->field,
        .always = is_always_there(info, test->index),
        .cost = cost_of(test->field),
        .with = classes_with(info->src),
        .index = info->kind == WD_KIND_ARRAY ? test->index : 0,
        .domain = {value_of(test->field, &min), value_of(test->field, &max)},
    };
}

/* Numbers the keys; slots is a table of at least twice as many entries as tests, a power of two. */
static uint32_t
find_key(struct wd_opt_graph *graph, const struct wd_test *test, uint32_t *slots, uint32_t mask)
{
    int32_t index = wd_fields[test->field].kind == WD_KIND_ARRAY ? test->index : 0;
    uint32_t at = (((uint32_t)index * 128 + test->field) * 2654435769u >> 7) & mask;

    for (; slots[at]; at = (at + 1) & mask) {
        const struct wd_opt_key *key = &graph->keys[slots[at] - 1];

        if (key->field == test->field && key->index == index)
            return slots[at] - 1;
    }
    set_key(&graph->keys[graph->key_count], test);
    slots[at] = ++graph->key_count;
    return graph->key_count - 1;
}

/* ---- Tests -------------------------------------------------------------- */

/* The values from min to below value (or to value), cut to the domain; false: none. */
static bool
values_to(const struct wd_opt_interval *domain, struct wd_opt_value value, bool below, bool inclusive,
          struct wd_opt_interval *ret_in)
{
    int least = below ? -1 : wd_opt_compare(value, domain->min);

    if (least < 0 || (least == 0 && !inclusive))
        return false;
    *ret_in = *domain;
    if (!inclusive)
        value = wd_opt_before(value);
    if (wd_opt_compare(value, domain->max) < 0)
        ret_in->max = value;
    return true;
}

static bool
within(const struct wd_opt_interval *in, struct wd_opt_value value)
{
    return wd_opt_compare(in->min, value) <= 0 && wd_opt_compare(value, in->max) <= 0;
}

/*
 * "x op value" as "x lies in", or outside, an interval that is not empty.
 * Every value outside the domain is below or above all of it.
 */
static void
set_interval(struct wd_opt_node *node, const struct wd_opt_key *key, const struct wd_test *test)
{
    const struct wd_number number = {test->neg, test->hi, test->lo};
    struct wd_number min, max;
    struct wd_opt_value value;
    bool below, above, found;

    wd_field_range(test->field, &min, &max);
    below = wd_number_compare(&number, &min) < 0;
    above = wd_number_compare(&number, &max) > 0;
    value = above ? key->domain.max : value_of(test->field, &number);
    switch (test->op) {
    case WD_OP_EQ:
    case WD_OP_NE:
        found = !below && !above && within(&key->domain, value);
        node->in = (struct wd_opt_interval){value, value};
        node->invert = test->op == WD_OP_NE;
        break;
    case WD_OP_LT:
    case WD_OP_GE:
        found = values_to(&key->domain, value, below, above, &node->in);
        node->invert = test->op == WD_OP_GE;
        break;
    default:
        found = values_to(&key->domain, value, below, true, &node->in);
        node->invert = test->op == WD_OP_GT;
        break;
    }
    if (!found) { /* never in it: outside all of the domain */
        node->in = key->domain;
        node->invert = !node->invert;
    }
}

/* Whether the values of a flag that says what a packet is are known from its class: those where it is 1. */
static bool
classes_of_flag(uint8_t field, uint16_t *ret_classes)
{
    static const struct {
        uint8_t field;
        uint16_t classes;
    } flags[] = {
        {WD_F_IP, CLASSES_IP4},
        {WD_F_IPV6, CLASSES_IP6},
        {WD_F_ICMP, CLASSES_ICMP4},
        {WD_F_ICMPV6, CLASSES_ICMP6},
        {WD_F_TCP, CLASSES_TCP},
        {WD_F_UDP, CLASSES_UDP},
        {WD_F_OUTBOUND, CLASSES_OUTBOUND},
        {WD_F_INBOUND, WD_OPT_ALL & ~CLASSES_OUTBOUND},
    };

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (flags[i].field == field) {
            *ret_classes = flags[i].classes;
            return true;
        }
    }
    return false;
}

static bool
holds_for(const struct wd_opt_node *node, uint64_t value)
{
    return within(&node->in, (struct wd_opt_value){0, value}) != node->invert;
}

/* A transport header is there only where `protocol` (and ip.Protocol, the same of IPv4) is its number. */
static void
set_protocol_classes(struct wd_opt_node *node, uint16_t with)
{
    static const uint8_t number[2][4] = {{0, 6, 17, 1}, {0, 6, 17, 58}};

    node->may_yes = node->may_no = 0;
    for (unsigned int class = 0; class < WD_OPT_CLASSES; class ++) {
        uint16_t bit = (uint16_t)(1u << class);
        bool known = class % 4 != T_NONE, holds = holds_for(node, number[class / 4 % 2][class % 4]);

        if (with & bit && (!known || holds))
            node->may_yes |= bit;
        if (!(with & bit) || !known || !holds)
            node->may_no |= bit;
    }
}

static void
set_classes(struct wd_opt_node *node, const struct wd_opt_key *key)
{
    uint16_t ones;
    bool all =
        wd_opt_compare(node->in.min, key->domain.min) == 0 && wd_opt_compare(node->in.max, key->domain.max) == 0;

    node->may_yes = key->with;
    node->may_no = WD_OPT_ALL;
    if (all && node->invert)
        node->may_yes = 0;
    else if (all && key->always)
        node->may_no = (uint16_t)~key->with;
    else if (all)
        return;
    else if (key->field == WD_F_PROTOCOL || key->field == WD_F_IP_PROTOCOL)
        set_protocol_classes(node, key->with);
    else if (classes_of_flag(key->field, &ones)) {
        node->may_yes = holds_for(node, 1) ? ones : (uint16_t)~ones;
        node->may_no = (uint16_t)~node->may_yes;
    }
}

int
wd_opt_read(struct wd_arena *arena, const struct wd_prog *prog, struct wd_opt_graph *ret_graph)
{
    struct wd_opt_graph graph = {.arena = arena, .start = prog->start, .count = prog->count};
    uint32_t *slots, size = 2;

    while (size < 2 * prog->count)
        size *= 2;
    if (!(slots = wd_arena_alloc(arena, size, sizeof(*slots))) ||
        !(graph.nodes = wd_arena_alloc(arena, prog->count, sizeof(*graph.nodes))) ||
        !(graph.keys = wd_arena_alloc(arena, prog->count, sizeof(*graph.keys))))
        return -ENOMEM;
    for (uint32_t i = 0; i < prog->count; i++) {
        const struct wd_test *test = &prog->tests[i];
        struct wd_opt_node *node = &graph.nodes[i];
        const struct wd_opt_key *key;

        node->key = find_key(&graph, test, slots, size - 1);
        key = &graph.keys[node->key];
        node->yes = test->yes;
        node->no = test->no;
        node->known = key->domain;
        set_interval(node, key, test);
        set_classes(node, key);
    }
    *ret_graph = graph;
    return 0;
}

/* ---- Regions ------------------------------------------------------------ */

/* A test belongs to the region of the tests that lead to it, if that is one, and of its key. */
static void
enter(const struct wd_opt_graph *graph, uint32_t *owner, uint32_t from, uint32_t to)
{
    uint32_t region;

    if (!wd_opt_is_test(to))
        return;
    region = graph->nodes[from].key == graph->nodes[to].key ? owner[from] : to;
    owner[to] = owner[to] == WD_OPT_NONE || owner[to] == region ? region : to;
}

int
wd_opt_find_regions(const struct wd_opt_graph *graph, struct wd_opt_regions *ret_regions)
{
    struct wd_opt_regions regions;
    uint32_t *last = wd_arena_alloc(graph->arena, graph->count, 3 * sizeof(*last));

    if (!last)
        return -ENOMEM;
    regions.owner = last + graph->count;
    regions.next = regions.owner + graph->count;
    for (uint32_t i = 0; i < graph->count; i++)
        regions.owner[i] = regions.next[i] = WD_OPT_NONE;
    if (wd_opt_is_test(graph->start))
        regions.owner[graph->start] = graph->start;
    for (uint32_t i = 0; i < graph->count; i++) {
        uint32_t owner = regions.owner[i];

        if (owner == WD_OPT_NONE)
            continue;
        if (owner != i)
            regions.next[last[owner]] = i;
        last[owner] = i;
        enter(graph, regions.owner, i, graph->nodes[i].yes);
        enter(graph, regions.owner, i, graph->nodes[i].no);
    }
    *ret_regions = regions;
    return 0;
}

/* ---- The passes --------------------------------------------------------- */

/* Facts, then an order in which tests of one key stand together; that gives other facts. */
static int
rewrite(struct wd_opt_graph *graph)
{
    bool changed = false;
    int ret = wd_opt_apply_facts(graph);

    if (!ret)
        ret = wd_opt_reorder(graph, &changed);
    if (!ret && changed)
        ret = wd_opt_apply_facts(graph);
    return ret;
}

/* A single test can only be constant, and that it is not in a folded program. */
static bool
is_best(const struct wd_prog *prog)
{
    const struct wd_test *test = prog->tests;
    struct wd_number value;

    if (prog->start >= WD_REJECT || prog->count != 1)
        return prog->start >= WD_REJECT;
    value = (struct wd_number){test->neg, test->hi, test->lo};
    return wd_range_decide(test->field, test->op, &value) == WD_DEPENDS && test->yes != test->no;
}

int
wd_prog_optimise(struct wd_arena *arena, const struct wd_prog *prog, struct wd_prog **ret_prog)
{
    struct wd_prog *result = wd_arena_alloc(arena, 1, sizeof(*result));
    struct wd_opt_graph graph;
    struct wd_arena work;
    int ret;

    if (!result)
        return -ENOMEM;
    *result = *prog;
    result->steps = NULL;
    if (is_best(prog)) {
        result->count = prog->start < WD_REJECT;
        *ret_prog = result;
        return 0;
    }
    wd_arena_init(&work, arena->from);
    ret = wd_opt_read(&work, prog, &graph);
    if (!ret)
        ret = rewrite(&graph);
    if (!ret)
        ret = wd_opt_write(&graph, arena, result);
    wd_arena_free(&work);
    if (!ret)
        *ret_prog = result;
    return ret;
}
