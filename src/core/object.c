/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The object: a folded tree as printable text.
 *
 *   @OpenDivert1  L    CCCCCCCC  node
 *   what it is    layer  check   the tree, in prefix order
 *
 *   node := OPS+op field [index] value          a test; index of an array
 *         | OPS+6+op ...                        the same, the value below zero
 *         | AND count node... | OR count node... | NOT node
 *         | COND node node node | FALSE | TRUE
 *
 * All of node is numbers of six bits to a character, low bits first: five of
 * the number and one that says that more follow.  index: twice the offset, or
 * one less than twice the negated offset.  value: up to 128 bits.  check: eight
 * hexadecimal digits over everything but itself.
 *
 * The number of a field is its place in field.def, so the digit after the name
 * changes when that order does.
 */
#include <errno.h>
#include <string.h>

#include "tree.h"

#define PREFIX "@OpenDivert1"
#define PREFIX_LEN (sizeof(PREFIX) - 1)
#define CHECK_LEN 8
#define BODY (PREFIX_LEN + 1 + CHECK_LEN)
#define OP_COUNT 6
/* Levels of the tree: one of parentheses is a conditional or a negation, and in it an "or" of "and"s at most. */
#define TREE_DEPTH_MAX (3 * WD_DEPTH_MAX + 3)

enum { CODE_NEG = OP_COUNT, CODE_AND = 2 * OP_COUNT, CODE_OR, CODE_NOT, CODE_COND, CODE_FALSE, CODE_TRUE };

static const char alphabet[64] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

/* FNV-1a over the layer and the nodes. */
#define CHECK_START 0x811C9DC5u

static uint32_t
check_add(uint32_t check, char c)
{
    return (check ^ (unsigned char)c) * 0x01000193u;
}

struct object_writer {
    struct wd_writer *out;
    uint32_t check;
};

static void
write_checked(struct object_writer *w, char c)
{
    w->check = check_add(w->check, c);
    wd_write_char(w->out, c);
}

static void
write_number(struct object_writer *w, uint64_t hi, uint64_t lo)
{
    unsigned more;

    do {
        unsigned bits = lo & 31;

        lo = lo >> 5 | hi << 59;
        hi >>= 5;
        more = hi || lo;
        write_checked(w, alphabet[bits | more << 5]);
    } while (more);
}

static void
write_test(struct object_writer *w, const struct wd_node *test)
{
    write_number(w, 0, test->op + (test->neg ? CODE_NEG : 0u));
    write_number(w, 0, test->field);
    if (wd_fields[test->field].kind == WD_KIND_ARRAY)
        write_number(w, 0, test->index < 0 ? -2 * (int64_t)test->index - 1 : 2 * (int64_t)test->index);
    write_number(w, test->hi, test->lo);
}

static void
write_node(struct object_writer *w, const struct wd_node *node)
{
    static const uint8_t codes[] = {
        [WD_NODE_AND] = CODE_AND, [WD_NODE_OR] = CODE_OR, [WD_NODE_NOT] = CODE_NOT, [WD_NODE_COND] = CODE_COND};
    uint64_t count = 0;

    if (node->kind == WD_NODE_TEST) {
        write_test(w, node);
        return;
    }
    if (node->kind == WD_NODE_CONST) {
        write_number(w, 0, CODE_FALSE + node->truth);
        return;
    }
    write_number(w, 0, codes[node->kind]);
    if (node->kind == WD_NODE_AND || node->kind == WD_NODE_OR) {
        for (const struct wd_node *kid = node->first; kid; kid = kid->next)
            count++;
        write_number(w, 0, count);
    }
    for (const struct wd_node *kid = node->first; kid; kid = kid->next)
        write_node(w, kid);
}

static char
hex_char(uint32_t check, int place)
{
    return "0123456789abcdef"[check >> (28 - 4 * place) & 15];
}

void
wd_object_write(struct wd_writer *out, const struct wd_node *tree, WINDIVERT_LAYER layer)
{
    struct object_writer w = {out, CHECK_START};

    for (size_t i = 0; i < PREFIX_LEN; i++)
        wd_write_char(out, PREFIX[i]);
    write_checked(&w, (char)('0' + layer));
    for (int i = 0; i < CHECK_LEN; i++)
        wd_write_char(out, '0');
    write_node(&w, tree);
    wd_write_char(out, 0);
    for (int i = 0; i < CHECK_LEN; i++)
        if (PREFIX_LEN + 1 + i < out->size)
            out->buffer[PREFIX_LEN + 1 + i] = hex_char(w.check, i);
}

struct reader {
    struct wd_arena *arena;
    const char *at; /* the text is valid characters up to its NUL */
    unsigned tests;
    uint8_t layer_bit;
};

/* The value of a character of the alphabet, or -1. */
static int
digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'Z')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 36;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

static int
read_number(struct reader *r, uint64_t *ret_hi, uint64_t *ret_lo)
{
    uint64_t hi = 0, lo = 0;

    for (unsigned shift = 0;; shift += 5) {
        int digit = digit_of(*r->at);
        uint64_t bits = (uint64_t)digit & 31;

        if (digit < 0 || shift > 125 || (shift == 125 && bits >> 3))
            return -EINVAL;
        r->at++;
        if (shift < 64)
            lo |= bits << shift;
        if (shift >= 64)
            hi |= bits << (shift - 64);
        else if (shift > 59)
            hi |= bits >> (64 - shift);
        if (digit < 32)
            break;
    }
    *ret_hi = hi;
    *ret_lo = lo;
    return 0;
}

/* A number that must be below a limit. */
static int
read_below(struct reader *r, uint64_t limit, uint64_t *ret_value)
{
    uint64_t hi, lo;

    if (read_number(r, &hi, &lo) < 0 || hi || lo >= limit)
        return -EINVAL;
    *ret_value = lo;
    return 0;
}

static int
read_test(struct reader *r, unsigned code, struct wd_node *test)
{
    const struct wd_field_info *info;
    uint64_t field, number;

    if (++r->tests > WD_TESTS_MAX || read_below(r, WD_FIELD_COUNT, &field) < 0)
        return -EINVAL;
    info = &wd_fields[field];
    if (!(info->layers & r->layer_bit))
        return -EINVAL;
    test->kind = WD_NODE_TEST;
    test->field = (uint8_t)field;
    test->neg = code >= CODE_NEG;
    test->op = (uint8_t)(code % OP_COUNT);
    if (info->kind == WD_KIND_ARRAY) {
        if (read_below(r, 2 * 65536, &number) < 0)
            return -EINVAL;
        test->index = number & 1 ? -(int32_t)(number / 2 + 1) : (int32_t)(number / 2);
        if (!wd_index_valid(test->index, info->width))
            return -EINVAL;
    }
    if (read_number(r, &test->hi, &test->lo) < 0 || (test->neg && !test->hi && !test->lo))
        return -EINVAL;
    return 0;
}

static int read_node(struct reader *r, unsigned depth, struct wd_node **ret_node);

static int
read_kids(struct reader *r, unsigned depth, uint64_t count, struct wd_node *node)
{
    int ret = 0;

    while (count-- && ret == 0) {
        struct wd_node *kid = NULL;

        ret = read_node(r, depth, &kid);
        if (ret == 0)
            wd_node_append(node, kid);
    }
    return ret;
}

static int
read_node(struct reader *r, unsigned depth, struct wd_node **ret_node)
{
    uint64_t code, count;
    struct wd_node *node;

    if (depth > TREE_DEPTH_MAX || read_below(r, CODE_TRUE + 1, &code) < 0)
        return -EINVAL;
    node = wd_arena_alloc(r->arena, 1, sizeof(*node));
    if (!node)
        return -ENOMEM;
    *ret_node = node;
    switch (code) {
    case CODE_FALSE:
    case CODE_TRUE:
        node->kind = WD_NODE_CONST;
        node->truth = code == CODE_TRUE;
        return 0;
    case CODE_AND:
    case CODE_OR:
        node->kind = code == CODE_AND ? WD_NODE_AND : WD_NODE_OR;
        if (read_below(r, WD_TESTS_MAX + 1, &count) < 0 || count < 2)
            return -EINVAL;
        return read_kids(r, depth + 1, count, node);
    case CODE_NOT:
        node->kind = WD_NODE_NOT;
        return read_kids(r, depth + 1, 1, node);
    case CODE_COND:
        node->kind = WD_NODE_COND;
        return read_kids(r, depth + 1, 3, node);
    default:
        return read_test(r, (unsigned)code, node);
    }
}

/* Everything around the nodes: what it is, the layer, the check. */
static bool
header_valid(const char *text, WINDIVERT_LAYER layer, size_t *ret_len)
{
    uint32_t check = CHECK_START;
    size_t len;

    if (strncmp(text, PREFIX, PREFIX_LEN) != 0 || text[PREFIX_LEN] != '0' + (int)layer)
        return false;
    len = strlen(text);
    if (len <= BODY)
        return false;
    check = check_add(check, text[PREFIX_LEN]);
    for (size_t i = BODY; i < len; i++)
        check = check_add(check, text[i]);
    for (int i = 0; i < CHECK_LEN; i++)
        if (text[PREFIX_LEN + 1 + i] != hex_char(check, i))
            return false;
    *ret_len = len;
    return true;
}

/* Reading and writing again must give the same text: then the tree is in normal form, and written in one way. */
static int
check_normal(struct reader *r, const char *text, size_t len, WINDIVERT_LAYER layer, struct wd_node **tree)
{
    struct wd_writer out = {.size = len + 1};

    out.buffer = wd_arena_alloc(r->arena, 1, len + 1);
    if (!out.buffer)
        return -ENOMEM;
    *tree = wd_fold_tree(*tree);
    wd_object_write(&out, *tree, layer);
    return out.len == len + 1 && memcmp(out.buffer, text, len + 1) == 0 ? 0 : -EINVAL;
}

int
wd_object_read(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_node **ret_tree,
               struct wd_filter_error *ret_error)
{
    struct reader r = {.arena = arena, .layer_bit = (uint8_t)(1 << layer)};
    struct wd_node *tree = NULL;
    size_t len;
    int ret = -EINVAL;

    if (header_valid(text, layer, &len)) {
        r.at = text + BODY;
        ret = read_node(&r, 0, &tree);
        if (ret == 0 && *r.at)
            ret = -EINVAL;
        if (ret == 0)
            ret = check_normal(&r, text, len, layer, &tree);
        if (ret == 0 && wd_format_depth(tree) > WD_DEPTH_MAX)
            ret = -EINVAL;
    }
    if (ret < 0)
        return wd_filter_fail(ret_error, ret == -ENOMEM ? WD_FILTER_NO_MEMORY : WD_FILTER_BAD_OBJECT, 0);
    *ret_tree = tree;
    return 0;
}
