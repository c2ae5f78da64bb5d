/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The folded tree as text: the fewest parentheses, one spelling for each test. */
#include "addr.h"
#include "lex.h"
#include "tree.h"

static void
put(struct wd_writer *out, const char *text)
{
    while (*text)
        wd_write_char(out, *text++);
}

/* Decimal; only timestamps and the like can be negative. */
static void
put_number(struct wd_writer *out, bool neg, uint64_t value)
{
    char digits[20];
    size_t count = 0;

    if (neg)
        wd_write_char(out, '-');
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (count)
        wd_write_char(out, digits[--count]);
}

/* An address that is an IPv4 one is written as such: both texts are the same number. */
static void
put_address(struct wd_writer *out, uint64_t hi, uint64_t lo)
{
    const uint32_t words[4] = {(uint32_t)lo, (uint32_t)(lo >> 32), (uint32_t)hi, (uint32_t)(hi >> 32)};
    char text[WD_ADDR6_TEXT];

    if (hi == 0 && lo >> 32 == 0xFFFF)
        wd_addr_format4((uint32_t)lo, text);
    else
        wd_addr_format6(words, text);
    put(out, text);
}

/* An index counts words where it can, bytes where it must. */
static void
put_index(struct wd_writer *out, int32_t index, uint8_t width)
{
    uint32_t offset = index < 0 ? -(uint32_t)index : (uint32_t)index;

    wd_write_char(out, '[');
    put_number(out, index < 0, offset % width ? offset : offset / width);
    if (offset % width)
        wd_write_char(out, 'b');
    wd_write_char(out, ']');
}

static void
put_value(struct wd_writer *out, const struct wd_node *test, WINDIVERT_LAYER layer)
{
    uint8_t kind = wd_fields[test->field].kind;
    const char *macro = wd_macro_name(test->field, layer, test->lo);

    if (kind == WD_KIND_ADDR || kind == WD_KIND_ADDR4)
        put_address(out, test->hi, test->lo);
    else if (macro)
        put(out, macro);
    else
        put_number(out, test->neg, test->lo);
}

static void
put_test(struct wd_writer *out, const struct wd_node *test, WINDIVERT_LAYER layer)
{
    static const char *const ops[] = {" == ", " != ", " < ", " <= ", " > ", " >= "};
    const struct wd_field_info *info = &wd_fields[test->field];

    if (info->kind == WD_KIND_FLAG && !test->lo)
        put(out, "not ");
    put(out, info->name);
    if (info->kind == WD_KIND_FLAG)
        return;
    if (info->kind == WD_KIND_ARRAY)
        put_index(out, test->index, info->width);
    put(out, ops[test->op]);
    put_value(out, test, layer);
}

/*
 * Whether a node opens a level of parentheses below a parent of that kind.  A
 * conditional has its own, save after "not", whose serve both.
 */
static bool
opens_level(const struct wd_node *node, uint8_t parent_kind)
{
    switch (node->kind) {
    case WD_NODE_NOT:
        return true;
    case WD_NODE_COND:
        return parent_kind != WD_NODE_NOT;
    case WD_NODE_OR:
        return parent_kind == WD_NODE_AND;
    default:
        return false;
    }
}

static void
put_node(struct wd_writer *out, const struct wd_node *node, uint8_t parent_kind, WINDIVERT_LAYER layer)
{
    static const char *const cond_separators[] = {" ? ", " : "};
    bool parenthesis = opens_level(node, parent_kind);
    int part = 0;

    if (node->kind == WD_NODE_TEST || node->kind == WD_NODE_CONST) {
        if (node->kind == WD_NODE_TEST)
            put_test(out, node, layer);
        else
            put(out, wd_fields[node->truth ? WD_F_TRUE : WD_F_FALSE].name);
        return;
    }
    if (node->kind == WD_NODE_NOT)
        put(out, "not ");
    if (parenthesis)
        wd_write_char(out, '(');
    for (const struct wd_node *kid = node->first; kid; kid = kid->next) {
        put_node(out, kid, node->kind, layer);
        if (kid->next)
            put(out, node->kind == WD_NODE_COND ? cond_separators[part++]
                     : node->kind == WD_NODE_OR ? " or "
                                                : " and ");
    }
    if (parenthesis)
        wd_write_char(out, ')');
}

void
wd_format_tree(struct wd_writer *out, const struct wd_node *tree, WINDIVERT_LAYER layer)
{
    put_node(out, tree, WD_NODE_TEST, layer);
    wd_write_char(out, 0);
}

static unsigned
depth_of(const struct wd_node *node, uint8_t parent_kind)
{
    unsigned deepest = 0;

    if (node->kind == WD_NODE_TEST || node->kind == WD_NODE_CONST)
        return 0;
    for (const struct wd_node *kid = node->first; kid; kid = kid->next) {
        unsigned depth = depth_of(kid, node->kind);

        if (depth > deepest)
            deepest = depth;
    }
    return deepest + opens_level(node, parent_kind);
}

unsigned
wd_format_depth(const struct wd_node *tree)
{
    return depth_of(tree, WD_NODE_TEST);
}
