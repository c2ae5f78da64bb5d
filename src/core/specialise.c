/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The filter as it is where some fields are known, and others cannot be decided. */
#include <errno.h>

#include "filter_impl.h"
#include "optimise.h"

static struct wd_node *
clone(struct wd_arena *arena, const struct wd_node *node)
{
    struct wd_node *copy = wd_arena_alloc(arena, 1, sizeof(*copy));

    if (!copy)
        return NULL;
    *copy = *node;
    copy->prev = copy->next = NULL;
    if (node->kind == WD_NODE_TEST || node->kind == WD_NODE_CONST)
        return copy;
    copy->first = copy->last = NULL;
    for (const struct wd_node *kid = node->first; kid; kid = kid->next) {
        struct wd_node *kid_copy = clone(arena, kid);

        if (!kid_copy)
            return NULL;
        wd_node_append(copy, kid_copy);
    }
    return copy;
}

static void
learn(struct wd_known *known, enum wd_field field, uint64_t value)
{
    if (known->state[field] != WD_UNKNOWN)
        return;
    known->state[field] = WD_KNOWN;
    known->value[field] = value;
}

static bool
known_as(const struct wd_known *known, enum wd_field field, uint64_t value)
{
    return known->state[field] == WD_KNOWN && known->value[field] == value;
}

static void
learn_opposite(struct wd_known *known, enum wd_field a, enum wd_field b)
{
    if (known->state[a] == WD_KNOWN)
        learn(known, b, !known->value[a]);
    if (known->state[b] == WD_KNOWN)
        learn(known, a, !known->value[b]);
}

/* A packet has one version, one direction and at most one transport header, and ICMP goes with the version. */
static void
learn_consequences(struct wd_known *known)
{
    static const enum wd_field transports[] = {WD_F_ICMP, WD_F_ICMPV6, WD_F_TCP, WD_F_UDP};
    const size_t count = sizeof(transports) / sizeof(transports[0]);

    if (known_as(known, WD_F_ICMP, 1))
        learn(known, WD_F_IP, 1);
    if (known_as(known, WD_F_ICMPV6, 1))
        learn(known, WD_F_IPV6, 1);
    learn_opposite(known, WD_F_IP, WD_F_IPV6);
    learn_opposite(known, WD_F_INBOUND, WD_F_OUTBOUND);
    if (known_as(known, WD_F_IP, 0))
        learn(known, WD_F_ICMP, 0);
    if (known_as(known, WD_F_IPV6, 0))
        learn(known, WD_F_ICMPV6, 0);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count && known_as(known, transports[i], 1); j++)
            learn(known, transports[j], 0); /* the one itself is known already */
}

static struct wd_number
known_number(const struct wd_known *known, uint8_t field)
{
    uint64_t value = known->value[field];
    bool neg = wd_fields[field].kind == WD_KIND_INT && value >> 63;

    return (struct wd_number){neg, 0, neg ? -value : value};
}

static void
decide(struct wd_node *test, bool truth)
{
    test->kind = WD_NODE_CONST;
    test->truth = truth;
}

/* A value of 64 bits, and no doubt whether the field is there. */
static bool
can_be_known(const struct wd_field_info *info)
{
    return info->src == WD_SRC_META && info->kind != WD_KIND_ADDR;
}

/* Tests on known fields, and on fields known to be absent, become constants. */
static void
apply_known(struct wd_node *node, const struct wd_known *known)
{
    enum wd_field presence;
    struct wd_number value, is;

    if (node->kind == WD_NODE_CONST)
        return;
    if (node->kind != WD_NODE_TEST) {
        for (struct wd_node *kid = node->first; kid; kid = kid->next)
            apply_known(kid, known);
        return;
    }
    presence = wd_src_presence(wd_fields[node->field].src);
    if (presence != WD_FIELD_COUNT && known_as(known, presence, 0)) {
        decide(node, false);
    } else if (known->state[node->field] == WD_KNOWN && can_be_known(&wd_fields[node->field])) {
        value = wd_node_value(node);
        is = known_number(known, node->field);
        decide(node, wd_op_holds(node->op, wd_number_compare(&is, &value)));
    }
}

static bool
has_undecided(const struct wd_node *node, const struct wd_known *known)
{
    if (node->kind == WD_NODE_CONST)
        return false;
    if (node->kind == WD_NODE_TEST)
        return known->state[node->field] == WD_UNDECIDED;
    for (const struct wd_node *kid = node->first; kid; kid = kid->next)
        if (has_undecided(kid, known))
            return true;
    return false;
}

/*
 * Makes the tree hold wherever it may hold, positive; or only where it must,
 * below a negation.  A conditional whose condition cannot be decided may go
 * either way.
 */
static void
loosen(struct wd_node *node, const struct wd_known *known, bool positive)
{
    struct wd_node *kid;

    if (node->kind == WD_NODE_CONST)
        return;
    if (node->kind == WD_NODE_TEST) {
        if (known->state[node->field] == WD_UNDECIDED)
            decide(node, positive);
        return;
    }
    kid = node->first;
    if (node->kind == WD_NODE_COND) {
        if (has_undecided(kid, known)) {
            node->kind = positive ? WD_NODE_OR : WD_NODE_AND;
            node->first = kid->next;
            node->first->prev = NULL;
        }
        kid = kid->next;
    }
    for (; kid; kid = kid->next)
        loosen(kid, known, positive != (node->kind == WD_NODE_NOT));
}

/* Not prepared yet. */
static int
specialise(struct wd_arena *arena, const struct wd_filter *filter, const struct wd_known *known,
           struct wd_prog **ret_prog, bool *ret_exact)
{
    struct wd_known all = *known;
    struct wd_node *tree = clone(arena, filter->tree);
    bool exact;
    int ret;

    if (!tree)
        return -ENOMEM;
    learn_consequences(&all);
    apply_known(tree, &all);
    tree = wd_fold_tree(tree);
    exact = !has_undecided(tree, &all);
    if (!exact) {
        loosen(tree, &all, true);
        tree = wd_fold_tree(tree);
    }
    if ((ret = wd_flatten_tree(arena, tree, filter->layer, ret_prog)) < 0)
        return ret;
    *ret_exact = exact;
    return 0;
}

int
wd_filter_specialise_plain(struct wd_arena *arena, const struct wd_filter *filter, const struct wd_known *known,
                           struct wd_prog **ret_prog, bool *ret_exact)
{
    struct wd_prog *prog;
    bool exact;
    int ret = specialise(arena, filter, known, &prog, &exact);

    if (!ret)
        ret = wd_prog_prepare(arena, prog);
    if (ret)
        return ret;
    *ret_prog = prog;
    *ret_exact = exact;
    return 0;
}

int
wd_filter_specialise(struct wd_arena *arena, const struct wd_filter *filter, const struct wd_known *known,
                     struct wd_prog **ret_prog, bool *ret_exact)
{
    struct wd_prog *plain, *prog;
    bool exact;
    int ret = specialise(arena, filter, known, &plain, &exact);

    if (!ret)
        ret = wd_prog_optimise(arena, plain, &prog);
    if (!ret)
        ret = wd_prog_prepare(arena, prog);
    if (ret)
        return ret;
    *ret_prog = prog;
    *ret_exact = exact;
    return 0;
}
