/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "tree.h"

static struct wd_node *
set_const(struct wd_node *node, bool truth)
{
    node->kind = WD_NODE_CONST;
    node->truth = truth;
    return node;
}

static struct wd_node *
set_test(struct wd_node *node, uint8_t op, const struct wd_number *value)
{
    node->op = op;
    node->neg = value->neg;
    node->hi = value->hi;
    node->lo = value->lo;
    return node;
}

/* A flag is asked by its name: "f" is == 1, "not f" is == 0. */
static struct wd_node *
set_flag(struct wd_node *node, uint8_t field, bool truth)
{
    const struct wd_number value = {false, 0, truth};

    node->kind = WD_NODE_TEST;
    node->field = field;
    node->index = 0;
    return set_test(node, WD_OP_EQ, &value);
}

static bool
is_const(const struct wd_node *node, bool truth)
{
    return node->kind == WD_NODE_CONST && node->truth == truth;
}

static bool
is_meta(const struct wd_node *node)
{
    return node->kind == WD_NODE_TEST && wd_fields[node->field].src == WD_SRC_META;
}

/*
 * A test that holds for every value asks whether the field is there.  For an
 * array element that is its index, and the test against the least value asks
 * it.
 */
static struct wd_node *
fold_presence(struct wd_node *test)
{
    const struct wd_number zero = {0};
    uint8_t src = wd_fields[test->field].src;

    if (src == WD_SRC_META)
        return set_const(test, true);
    if (wd_fields[test->field].kind == WD_KIND_ARRAY)
        return set_test(test, WD_OP_GE, &zero);
    return set_flag(test, (uint8_t)wd_src_presence(src), true);
}

/* The number above or below; never asked for the one below zero or beyond 128 bits. */
static struct wd_number
step_number(struct wd_number number, bool up)
{
    if (number.neg == up) { /* towards zero */
        number.hi -= number.lo == 0;
        number.lo--;
        number.neg = number.neg && (number.hi || number.lo);
    } else {
        number.neg = !up;
        number.lo++;
        number.hi += number.lo == 0;
    }
    return number;
}

static bool
is_next(const struct wd_number *value, const struct wd_number *end, bool up)
{
    struct wd_number next = step_number(*end, up);

    return wd_number_compare(value, &next) == 0;
}

/*
 * "x <= min" is "x == min", "x > min" is "x != min", "x < min + 1" and
 * "x >= min + 1" the same; mirrored at the other end.
 */
static void
fold_edge(struct wd_node *test)
{
    struct wd_number value = wd_node_value(test), min, max, *end = NULL;
    bool less = test->op == WD_OP_LT || test->op == WD_OP_LE; /* holds at the lower end */

    if (test->op == WD_OP_EQ || test->op == WD_OP_NE)
        return;
    wd_field_range(test->field, &min, &max);
    if (test->op == WD_OP_LE || test->op == WD_OP_GT) {
        if (wd_number_compare(&value, &min) == 0)
            end = &min;
        else if (is_next(&value, &max, false))
            end = &max;
    } else {
        if (wd_number_compare(&value, &max) == 0)
            end = &max;
        else if (is_next(&value, &min, true))
            end = &min;
    }
    if (end)
        set_test(test, less == (end == &min) ? WD_OP_EQ : WD_OP_NE, end);
}

static struct wd_node *
fold_test(struct wd_node *test)
{
    struct wd_number value = wd_node_value(test);
    enum wd_verdict verdict = wd_range_decide(test->field, test->op, &value);

    if (test->field == WD_F_TRUE || test->field == WD_F_FALSE) {
        const struct wd_number self = {false, 0, test->field == WD_F_TRUE};

        return set_const(test, wd_op_holds(test->op, wd_number_compare(&self, &value)));
    }
    if (verdict == WD_NEVER)
        return set_const(test, false);
    if (verdict == WD_ALWAYS)
        return fold_presence(test);
    fold_edge(test);
    if (wd_fields[test->field].kind == WD_KIND_FLAG)
        set_flag(test, test->field, (test->op == WD_OP_EQ) == (test->lo == 1));
    return test;
}

/* The kids of a list of the same kind, which are neither constants nor of that kind, move up. */
static void
append_kids(struct wd_node *list, struct wd_node *from)
{
    from->first->prev = list->last;
    if (list->last)
        list->last->next = from->first;
    else
        list->first = from->first;
    list->last = from->last;
}

/* Constants decide, or drop out; nested lists of the same kind become one. */
static struct wd_node *
fold_list(struct wd_node *list)
{
    const bool decides = list->kind == WD_NODE_OR;
    struct wd_node *kid = list->first, *next;

    list->first = list->last = NULL;
    for (; kid; kid = next) {
        next = kid->next;
        if (is_const(kid, decides))
            return kid;
        if (kid->kind == list->kind)
            append_kids(list, kid);
        else if (kid->kind != WD_NODE_CONST)
            wd_node_append(list, kid);
    }
    if (!list->first)
        return set_const(list, !decides);
    return list->first == list->last ? list->first : list;
}

static struct wd_node *
invert_meta(struct wd_node *test)
{
    test->op = wd_op_invert(test->op);
    return fold_test(test);
}

/* A field that is always present has no third outcome: its test takes the negation in. */
static struct wd_node *
fold_not(struct wd_node *node)
{
    struct wd_node *kid = node->first;

    if (kid->kind == WD_NODE_CONST)
        return set_const(kid, !kid->truth);
    if (kid->kind == WD_NODE_NOT)
        return kid->first;
    return is_meta(kid) ? invert_meta(kid) : node;
}

static struct wd_node *
make_list(struct wd_node *node, uint8_t kind, struct wd_node *left, struct wd_node *right)
{
    node->kind = kind;
    node->first = node->last = NULL;
    wd_node_append(node, left);
    wd_node_append(node, right);
    return fold_list(node);
}

static struct wd_node *
make_not(struct wd_node *node, struct wd_node *kid)
{
    node->kind = WD_NODE_NOT;
    node->first = node->last = NULL;
    wd_node_append(node, kid);
    return fold_not(node);
}

/*
 * With a constant branch a conditional is a list.  An "or" does not become
 * part of an "and" here: it would need parentheses of its own.
 */
static struct wd_node *
fold_cond(struct wd_node *node)
{
    struct wd_node *c = node->first, *yes = c->next, *no = yes->next, *swap;

    if (c->kind == WD_NODE_CONST)
        return c->truth ? yes : no;
    if (c->kind == WD_NODE_NOT) {
        c = c->first;
        swap = yes;
        yes = no;
        no = swap;
    }
    if (yes->kind == WD_NODE_CONST && no->kind == WD_NODE_CONST) {
        if (yes->truth == no->truth)
            return yes;
        return yes->truth ? c : make_not(node, c);
    }
    if (is_const(yes, true))
        return make_list(node, WD_NODE_OR, c, no);
    if (is_const(no, false) && c->kind != WD_NODE_OR && yes->kind != WD_NODE_OR)
        return make_list(node, WD_NODE_AND, c, yes);
    if (is_const(yes, false) && is_meta(c) && no->kind != WD_NODE_OR)
        return make_list(node, WD_NODE_AND, invert_meta(c), no);
    if (is_const(no, true) && is_meta(c))
        return make_list(node, WD_NODE_OR, invert_meta(c), yes);
    node->first = node->last = NULL;
    wd_node_append(node, c);
    wd_node_append(node, yes);
    wd_node_append(node, no);
    return node;
}

struct wd_node *
wd_fold_node(struct wd_node *node)
{
    switch (node->kind) {
    case WD_NODE_TEST:
        return fold_test(node);
    case WD_NODE_AND:
    case WD_NODE_OR:
        return fold_list(node);
    case WD_NODE_NOT:
        return fold_not(node);
    case WD_NODE_COND:
        return fold_cond(node);
    default:
        return node;
    }
}

struct wd_node *
wd_fold_tree(struct wd_node *tree)
{
    struct wd_node *kid, *next;

    if (tree->kind == WD_NODE_TEST)
        return fold_test(tree);
    if (tree->kind == WD_NODE_CONST)
        return tree;
    kid = tree->first;
    tree->first = tree->last = NULL;
    for (; kid; kid = next) {
        next = kid->next;
        wd_node_append(tree, wd_fold_tree(kid));
    }
    return wd_fold_node(tree);
}
