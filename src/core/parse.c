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
parse_value(struct parser *parser, struct wd_number *ret_value)
{
    bool minus = take(parser, WD_TOKEN_MINUS);
    const struct wd_token *number = parser->token;
    int ret = expect(parser, WD_TOKEN_NUMBER);

    if (ret < 0)
        return ret;
    *ret_value = (struct wd_number){minus && (number->hi || number->lo), number->hi, number->lo};
    return 0;
}

/* One test more of the field and the index of another one. */
static int
new_test(struct parser *parser, const struct wd_node *like, uint8_t op, const struct wd_number *value,
         struct wd_node **ret_node)
{
    struct wd_node *test = NULL;
    int ret;

    if (parser->tests == WD_TESTS_MAX)
        return fail(parser, WD_FILTER_TOO_LONG);
    if ((ret = new_node(parser, WD_NODE_TEST, &test)) < 0)
        return ret;
    parser->tests++;
    test->field = like->field;
    test->index = like->index;
    test->op = op;
    test->neg = value->neg;
    test->hi = value->hi;
    test->lo = value->lo;
    *ret_node = test;
    return 0;
}

/* ---- Beyond the original: ranges, prefixes and sets, as tests of the original --- */

struct range {
    struct wd_number min, max;
};

/* prefix := address "/" number, after the "/": what follows the first bits of the address counts as 0, and as 1. */
static int
parse_prefix(struct parser *parser, const struct wd_token *address, uint8_t kind, struct range *range)
{
    const struct wd_token *number = parser->token;
    uint64_t hi, lo, host;

    if (!address->id || (kind != WD_KIND_ADDR && kind != WD_KIND_ADDR4) || number->kind != WD_TOKEN_NUMBER ||
        number->hi || number->lo > address->id)
        return fail(parser, WD_FILTER_SYNTAX);
    parser->token++;
    host = address->id - number->lo;
    lo = host >= 64 ? UINT64_MAX : (UINT64_C(1) << host) - 1;
    hi = host <= 64 ? 0 : host == 128 ? UINT64_MAX : (UINT64_C(1) << (host - 64)) - 1;
    range->max = (struct wd_number){false, range->min.hi | hi, range->min.lo | lo};
    range->min = (struct wd_number){false, range->min.hi & ~hi, range->min.lo & ~lo};
    return 0;
}

/* element := value [ ".." value ] | prefix */
static int
parse_element(struct parser *parser, uint8_t kind, struct range *ret_range)
{
    const struct wd_token *first = parser->token;
    struct range range;
    int ret;

    if ((ret = parse_value(parser, &range.min)) < 0)
        return ret;
    range.max = range.min;
    if (take(parser, WD_TOKEN_SLASH)) {
        ret = parse_prefix(parser, first, kind, &range);
    } else if (take(parser, WD_TOKEN_RANGE)) {
        first = parser->token;
        ret = parse_value(parser, &range.max);
        if (!ret && wd_number_compare(&range.min, &range.max) > 0)
            ret = wd_filter_fail(parser->error, WD_FILTER_SYNTAX, first->pos);
    }
    if (!ret)
        *ret_range = range;
    return ret;
}

/* "x >= min and x <= max", or, negated, "x < min or x > max"; without an end that the field never passes. */
static int
lower_range(struct parser *parser, const struct wd_node *field, const struct range *range, bool negate,
            struct wd_node **ret_node)
{
    struct wd_node *list = NULL, *lower = NULL, *upper = NULL;
    struct wd_number least, greatest;
    bool from, to;
    int ret = 0;

    if (wd_number_compare(&range->min, &range->max) == 0)
        return new_test(parser, field, negate ? WD_OP_NE : WD_OP_EQ, &range->min, ret_node);
    wd_field_range(field->field, &least, &greatest);
    to = wd_number_compare(&range->max, &greatest) < 0;
    from = !to || wd_number_compare(&range->min, &least) > 0;
    if (from)
        ret = new_test(parser, field, negate ? WD_OP_LT : WD_OP_GE, &range->min, &lower);
    if (!ret && to)
        ret = new_test(parser, field, negate ? WD_OP_GT : WD_OP_LE, &range->max, &upper);
    if (!ret && from && to)
        ret = new_node(parser, negate ? WD_NODE_OR : WD_NODE_AND, &list);
    if (ret)
        return ret;
    if (list) {
        wd_node_append(list, lower);
        wd_node_append(list, upper);
    }
    *ret_node = list ? list : lower ? lower : upper;
    return 0;
}

/* An element, appended to the list if there is one, else returned. */
static int
lower_element(struct parser *parser, const struct wd_node *field, bool negate, struct wd_node *list,
              struct wd_node **ret_node)
{
    struct wd_node *node = NULL;
    struct range range;
    int ret = parse_element(parser, wd_fields[field->field].kind, &range);

    if (!ret)
        ret = lower_range(parser, field, &range, negate, &node);
    if (ret)
        return ret;
    if (list)
        wd_node_append(list, node);
    else
        *ret_node = node;
    return 0;
}

/*
 * in := "in" ( element | "{" element { "," element } "}" ), after the "in"
 *
 * As tests it is a level of parentheses more at most, and counts as one.
 */
static int
parse_in(struct parser *parser, const struct wd_node *field, bool negate, struct wd_node **ret_node)
{
    struct wd_node *list = NULL;
    int ret;

    if (parser->depth == WD_DEPTH_MAX)
        return fail(parser, WD_FILTER_TOO_DEEP);
    if (!take(parser, WD_TOKEN_BRACE_OPEN))
        return lower_element(parser, field, negate, NULL, ret_node);
    if ((ret = new_node(parser, negate ? WD_NODE_AND : WD_NODE_OR, &list)) < 0)
        return ret;
    do {
        if ((ret = lower_element(parser, field, negate, list, NULL)) < 0)
            return ret;
    } while (take(parser, WD_TOKEN_COMMA));
    *ret_node = list;
    return expect(parser, WD_TOKEN_BRACE_CLOSE);
}

/* ---- Tests ------------------------------------------------------------------- */

/* [ op value ], without which it is "!= 0" */
static int
parse_comparison(struct parser *parser, const struct wd_node *field, bool negate, struct wd_node **ret_node)
{
    uint8_t op = WD_OP_NE;
    struct wd_number value = {0};
    int ret;

    if (parser->token->kind == WD_TOKEN_OP) {
        op = parser->token++->id;
        if ((ret = parse_value(parser, &value)) < 0)
            return ret;
    }
    return new_test(parser, field, negate ? wd_op_invert(op) : op, &value, ret_node);
}

/* test := field [ index ] ( [ op value ] | [ "not" ] in ), negated by what stood before it */
static int
parse_test(struct parser *parser, bool negate, struct wd_node **ret_node)
{
    struct wd_node field = {.kind = WD_NODE_TEST, .field = parser->token->id};
    int ret;

    if (parser->token->kind == WD_TOKEN_FIELD && parser->tests == WD_TESTS_MAX)
        return fail(parser, WD_FILTER_TOO_LONG);
    if ((ret = expect(parser, WD_TOKEN_FIELD)) < 0)
        return ret;
    if (wd_fields[field.field].kind == WD_KIND_ARRAY &&
        (ret = parse_index(parser, wd_fields[field.field].width, &field.index)) < 0)
        return ret;
    if (parser->token[0].kind == WD_TOKEN_NOT && parser->token[1].kind == WD_TOKEN_IN) {
        parser->token++;
        negate = !negate;
    }
    if (take(parser, WD_TOKEN_IN))
        return parse_in(parser, &field, negate, ret_node);
    return parse_comparison(parser, &field, negate, ret_node);
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
wd_parse_extended(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_node **ret_tree,
                  size_t *ret_extended, struct wd_filter_error *ret_error)
{
    struct parser parser = {.arena = arena, .error = ret_error};
    struct wd_token *tokens;
    struct wd_node *tree;
    int ret;

    if ((ret = wd_lex_filter(arena, text, layer, &tokens, ret_extended, ret_error)) < 0)
        return ret;
    parser.token = tokens;
    if ((ret = parse_or(&parser, &tree)) < 0 || (ret = expect(&parser, WD_TOKEN_END)) < 0)
        return ret;
    *ret_tree = tree;
    return 0;
}

int
wd_parse_filter(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_node **ret_tree,
                struct wd_filter_error *ret_error)
{
    size_t extended;
    int ret = wd_parse_extended(arena, text, layer, ret_tree, &extended, ret_error);

    if (ret < 0 && ret != -ENOMEM && extended != WD_LEX_ORIGINAL)
        return wd_filter_fail(ret_error, WD_FILTER_BAD_TOKEN, extended);
    return ret;
}
