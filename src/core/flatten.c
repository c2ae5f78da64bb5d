/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include <errno.h>

#include "tree.h"

struct flattener {
    struct wd_test *tests;
    uint32_t free; /* tests[free..] are filled in */
};

static uint32_t
count_tests(const struct wd_node *node)
{
    uint32_t count = 0;

    if (node->kind == WD_NODE_TEST)
        return 1;
    if (node->kind == WD_NODE_CONST)
        return 0;
    for (const struct wd_node *kid = node->first; kid; kid = kid->next)
        count += count_tests(kid);
    return count;
}

static uint32_t
flatten_test(struct flattener *out, const struct wd_node *test, uint32_t yes, uint32_t no)
{
    out->tests[--out->free] = (struct wd_test){
        .field = test->field,
        .op = test->op,
        .neg = test->neg,
        .index = test->index,
        .hi = test->hi,
        .lo = test->lo,
        .yes = yes,
        .no = no,
    };
    return out->free;
}

/*
 * Puts the tests of a node in front of those already there, so that where the
 * outcome leads is known; returns where the node begins.  Its tests stay in
 * the order of the text, and each is put down once.
 */
static uint32_t
flatten_node(struct flattener *out, const struct wd_node *node, uint32_t yes, uint32_t no)
{
    uint32_t start, other;

    switch (node->kind) {
    case WD_NODE_TEST:
        return flatten_test(out, node, yes, no);
    case WD_NODE_CONST:
        return node->truth ? yes : no;
    case WD_NODE_NOT:
        return flatten_node(out, node->first, no, yes);
    case WD_NODE_COND:
        other = flatten_node(out, node->last, yes, no);
        start = flatten_node(out, node->first->next, yes, no);
        return flatten_node(out, node->first, start, other);
    case WD_NODE_AND:
        start = yes;
        for (const struct wd_node *kid = node->last; kid; kid = kid->prev)
            start = flatten_node(out, kid, start, no);
        return start;
    default: /* WD_NODE_OR */
        start = no;
        for (const struct wd_node *kid = node->last; kid; kid = kid->prev)
            start = flatten_node(out, kid, yes, start);
        return start;
    }
}

int
wd_flatten_tree(struct wd_arena *arena, const struct wd_node *tree, WINDIVERT_LAYER layer, struct wd_prog **ret_prog)
{
    uint32_t count = count_tests(tree);
    struct wd_prog *prog = wd_arena_alloc(arena, 1, sizeof(*prog));
    struct flattener out = {.free = count};

    if (!prog)
        return -ENOMEM;
    out.tests = wd_arena_alloc(arena, count, sizeof(*out.tests));
    if (!out.tests)
        return -ENOMEM;
    prog->layer = layer;
    prog->count = count;
    prog->tests = out.tests;
    prog->start = flatten_node(&out, tree, WD_ACCEPT, WD_REJECT);
    *ret_prog = prog;
    return 0;
}
