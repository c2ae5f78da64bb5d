/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Recursive descent, one function to a rule of the grammar.  Only parentheses
 * recurse, WD_DEPTH_MAX deep at most.
 */
#include <errno.h>

#include "lex.h"
#include "tree.h"

#define INDEX_MAX 65575 /* greatest number that may be written in an index */

struct parser {
    struct wd_arena *arena;
    const struct wd_token *token; /* the next one; END is never passed */
    unsigned depth, tests;
    struct wd_filter_error *error;
};

static int parse_or(struct parser *parser, struct wd_node **ret_node);

static int
fail(struct parser *parser, enum wd_filter_code code)
{
    return wd_filter_fail(parser->error, code, parser->token->pos);
}

static bool
take(struct parser *parser, uint8_t kind)
{
    if (parser->token->kind != kind)
        return false;
    parser->token++;
    return true;
}

static int
expect(struct parser *parser, uint8_t kind)
{
    return take(parser, kind) ? 0 : fail(parser, WD_FILTER_SYNTAX);
}

static int
new_node(struct parser *parser, uint8_t kind, struct wd_node **ret_node)
{
    struct wd_node *node = wd_arena_alloc(parser->arena, 1, sizeof(*node));

    if (!node)
        return wd_filter_fail(parser->error, WD_FILTER_NO_MEMORY, 0);
    node->kind = kind;
    *ret_node = node;
    return 0;
}

/*
 * index := "[" ["-"] number ["b"] "]"
 *
 * A number no packet has is reported where it stands; an offset that the word
 * does not fit at, at the "]".
 */
static int
parse_index(struct parser *parser, uint8_t width, int32_t *ret_index)
{
    const struct wd_token *number;
    int64_t offset;
    bool minus;
    int ret;

    if ((ret = expect(parser, WD_TOKEN_INDEX_OPEN)) < 0)
        return ret;
    minus = take(parser, WD_TOKEN_MINUS);
    number = parser->token;
    if (number->kind == WD_TOKEN_NUMBER && (number->hi || number->lo > INDEX_MAX))
        return fail(parser, WD_FILTER_BAD_INDEX);
    if ((ret = expect(parser, WD_TOKEN_NUMBER)) < 0)
        return ret;
    offset = (int64_t)number->lo * (take(parser, WD_TOKEN_BYTES) ? 1 : width);
    if (parser->token->kind == WD_TOKEN_INDEX_CLOSE &&
        ((minus && offset == 0) || !wd_index_valid(minus ? -offset : offset, width)))
        return fail(parser, WD_FILTER_BAD_INDEX);
    if ((ret = expect(parser, WD_TOKEN_INDEX_CLOSE)) < 0)
        return ret;
    *ret_index = (int32_t)(minus ? -offset : offset);
    return 0;
}

/* value := ["-"] number */
static int
parse_value(struct parser *parser, struct wd_node *test)
{
    bool minus = take(parser, WD_TOKEN_MINUS);

    if (parser->token->kind != WD_TOKEN_NUMBER)
        return fail(parser, WD_FILTER_SYNTAX);
    test->hi = parser->token->hi;
    test->lo = parser->token->lo;
    test->neg = minus && (test->hi || test->lo);
    parser->token++;
    return 0;
}

/* test := field [ index ] [ op value ], negated by what stood before it */
static int
parse_test(struct parser *parser, bool negate, struct wd_node **ret_node)
{
    struct wd_node *test = NULL;
    int ret;

    if (parser->token->kind != WD_TOKEN_FIELD)
        return fail(parser, WD_FILTER_SYNTAX);
    if (++parser->tests > WD_TESTS_MAX)
        return fail(parser, WD_FILTER_TOO_LONG);
    if ((ret = new_node(parser, WD_NODE_TEST, &test)) < 0)
        return ret;
    test->field = parser->token++->id;
    if (wd_fields[test->field].kind == WD_KIND_ARRAY &&
        (ret = parse_index(parser, wd_fields[test->field].width, &test->index)) < 0)
        return ret;
    test->op = WD_OP_NE;
    if (parser->token->kind == WD_TOKEN_OP) {
        test->op = parser->token++->id;
        if ((ret = parse_value(parser, test)) < 0)
            return ret;
    }
    if (negate)
        test->op = wd_op_invert(test->op);
    *ret_node = test;
    return 0;
}

/* cond := filter "?" filter ":" filter, after its condition */
static int
parse_cond(struct parser *parser, struct wd_node *condition, struct wd_node **ret_node)
{
    struct wd_node *cond = NULL, *yes = NULL, *no = NULL;
    int ret;

    if ((ret = parse_or(parser, &yes)) < 0 || (ret = expect(parser, WD_TOKEN_COLON)) < 0 ||
        (ret = parse_or(parser, &no)) < 0 || (ret = new_node(parser, WD_NODE_COND, &cond)) < 0)
        return ret;
    wd_node_append(cond, condition);
    wd_node_append(cond, yes);
    wd_node_append(cond, no);
    *ret_node = cond;
    return 0;
}

/* group := "(" filter ")" | "(" cond ")", after the "(" has been seen */
static int
parse_group(struct parser *parser, struct wd_node **ret_node)
{
    struct wd_node *node;
    int ret;

    if (parser->depth == WD_DEPTH_MAX)
        return fail(parser, WD_FILTER_TOO_DEEP);
    parser->depth++;
    parser->token++;
    if ((ret = parse_or(parser, &node)) < 0)
        return ret;
    if (take(parser, WD_TOKEN_QUESTION) && (ret = parse_cond(parser, node, &node)) < 0)
        return ret;
    if ((ret = expect(parser, WD_TOKEN_CLOSE)) < 0)
        return ret;
    parser->depth--;
    *ret_node = node;
    return 0;
}

/* arg := { "not" | "!" } ( group | test ) */
static int
parse_arg(struct parser *parser, struct wd_node **ret_node)
{
    struct wd_node *node = NULL, *negation = NULL;
    bool negate = false;
    int ret;

    while (take(parser, WD_TOKEN_NOT))
        negate = !negate;
    if (parser->token->kind != WD_TOKEN_OPEN)
        return parse_test(parser, negate, ret_node);
    if ((ret = parse_group(parser, &node)) < 0)
        return ret;
    if (negate) {
        if ((ret = new_node(parser, WD_NODE_NOT, &negation)) < 0)
            return ret;
        wd_node_append(negation, node);
        node = negation;
    }
    *ret_node = node;
    return 0;
}

/* and_expr := arg { ("and" | "&&") arg } */
static int
parse_and(struct parser *parser, struct wd_node **ret_node)
{
    struct wd_node *list = NULL, *kid = NULL;
    int ret;

    if ((ret = parse_arg(parser, &kid)) < 0)
        return ret;
    if (parser->token->kind != WD_TOKEN_AND) {
        *ret_node = kid;
        return 0;
    }
    if ((ret = new_node(parser, WD_NODE_AND, &list)) < 0)
        return ret;
    wd_node_append(list, kid);
    while (take(parser, WD_TOKEN_AND)) {
        if ((ret = parse_arg(parser, &kid)) < 0)
            return ret;
        wd_node_append(list, kid);
    }
    *ret_node = list;
    return 0;
}

/* filter, or_expr := and_expr { ("or" | "||") and_expr } */
static int
parse_or(struct parser *parser, struct wd_node **ret_node)
{
    struct wd_node *list = NULL, *kid = NULL;
    int ret;

    if ((ret = parse_and(parser, &kid)) < 0)
        return ret;
    if (parser->token->kind != WD_TOKEN_OR) {
        *ret_node = kid;
        return 0;
    }
    if ((ret = new_node(parser, WD_NODE_OR, &list)) < 0)
        return ret;
    wd_node_append(list, kid);
    while (take(parser, WD_TOKEN_OR)) {
        if ((ret = parse_and(parser, &kid)) < 0)
            return ret;
        wd_node_append(list, kid);
    }
    *ret_node = list;
    return 0;
}

int
wd_parse_filter(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_node **ret_tree,
                struct wd_filter_error *ret_error)
{
    struct parser parser = {.arena = arena, .error = ret_error};
    struct wd_token *tokens;
    struct wd_node *tree;
    int ret;

    if ((ret = wd_lex_filter(arena, text, layer, &tokens, ret_error)) < 0)
        return ret;
    parser.token = tokens;
    if ((ret = parse_or(&parser, &tree)) < 0 || (ret = expect(&parser, WD_TOKEN_END)) < 0)
        return ret;
    *ret_tree = tree;
    return 0;
}
