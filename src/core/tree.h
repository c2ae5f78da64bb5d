/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The filter as a tree, and the passes over it: text -> tokens -> tree -> folded tree -> program, object, text. */
#ifndef WD_CORE_TREE_H
#define WD_CORE_TREE_H

#include "filter.h"

enum wd_node_kind {
    WD_NODE_TEST,
    WD_NODE_CONST,
    WD_NODE_AND,
    WD_NODE_OR,
    WD_NODE_NOT,  /* one kid; true logical negation */
    WD_NODE_COND, /* three kids: condition, then, else */
};

/* Kids form a list in the order of the text, linked both ways. */
struct wd_node {
    uint8_t kind;  /* enum wd_node_kind */
    uint8_t field; /* TEST: field, op, neg, index, hi, lo as in struct wd_test */
    uint8_t op;
    bool neg;
    union {
        int32_t index;
        bool truth; /* CONST */
    };
    union {
        struct {
            uint64_t hi, lo;
        };
        struct {
            struct wd_node *first, *last;
        };
    };
    struct wd_node *prev, *next;
};

/* A sign and a 128-bit magnitude; zero has no sign. */
struct wd_number {
    bool neg;
    uint64_t hi, lo;
};

static inline struct wd_number
wd_node_value(const struct wd_node *test)
{
    return (struct wd_number){test->neg, test->hi, test->lo};
}

static inline void
wd_node_append(struct wd_node *parent, struct wd_node *kid)
{
    kid->next = NULL;
    kid->prev = parent->last;
    if (parent->last)
        parent->last->next = kid;
    else
        parent->first = kid;
    parent->last = kid;
}

/* Fills *error and returns the errno that goes with code. */
int wd_filter_fail(struct wd_filter_error *error, enum wd_filter_code code, size_t pos);

/* Below zero, zero, above zero: a < b, a == b, a > b. */
int wd_number_compare(const struct wd_number *a, const struct wd_number *b);

/* The operator that holds exactly where op does not, on a field that is present. */
static inline uint8_t
wd_op_invert(uint8_t op)
{
    static const uint8_t inverse[] = {WD_OP_NE, WD_OP_EQ, WD_OP_GE, WD_OP_GT, WD_OP_LE, WD_OP_LT};

    return inverse[op];
}

bool wd_op_holds(uint8_t op, int compared);

/* The least and the greatest value of a field. */
void wd_field_range(uint8_t field, struct wd_number *ret_min, struct wd_number *ret_max);

/*
 * What the range of a field says about "field op value", given that the field
 * is present.
 */
enum wd_verdict { WD_NEVER, WD_ALWAYS, WD_DEPENDS };
enum wd_verdict wd_range_decide(uint8_t field, uint8_t op, const struct wd_number *value);

/* Which of the fields that are 0 or 1 says that a field of src is present; WD_FIELD_COUNT: none does. */
enum wd_field wd_src_presence(uint8_t src);

/* Whether a byte offset may stand in the index of an array of this word width. */
static inline bool
wd_index_valid(int64_t offset, uint8_t width)
{
    return offset >= 0 ? offset <= 65535 - width : -offset >= width && -offset <= 65535;
}

/* Text to tree, as written, nothing folded.  Errors as wd_filter_compile. */
int wd_parse_filter(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_node **ret_tree,
                    struct wd_filter_error *ret_error);
/* The same, but the error is what keeps the text from being one of the whole language; *ret_extended as wd_lex_filter. */
int wd_parse_extended(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_node **ret_tree,
                      size_t *ret_extended, struct wd_filter_error *ret_error);

/*
 * Rewrites a tree in place to its normal form, same outcome on every packet.
 * Never allocates, never adds a level of parentheses or a test; the normal
 * form of a normal form is itself.
 */
struct wd_node *wd_fold_tree(struct wd_node *tree);
/* The same for one node whose kids are already in normal form. */
struct wd_node *wd_fold_node(struct wd_node *node);

/* A program that decides as the tree does, not prepared.  -ENOMEM, or 0. */
int wd_flatten_tree(struct wd_arena *arena, const struct wd_node *tree, WINDIVERT_LAYER layer,
                    struct wd_prog **ret_prog);

/* Prepares prog->steps, what wd_prog_eval runs; a program without them is evaluated more slowly. */
int wd_prog_prepare(struct wd_arena *arena, struct wd_prog *prog);

/* Output that counts what would be needed: bytes beyond size are not stored. */
struct wd_writer {
    char *buffer;
    size_t size, len;
};

static inline void
wd_write_char(struct wd_writer *out, char c)
{
    if (out->len < out->size)
        out->buffer[out->len] = c;
    out->len++;
}

/* The folded tree as canonical text, and as an object; with the NUL. */
void wd_format_tree(struct wd_writer *out, const struct wd_node *tree, WINDIVERT_LAYER layer);
void wd_object_write(struct wd_writer *out, const struct wd_node *tree, WINDIVERT_LAYER layer);

/* How deeply the parentheses of the canonical text nest. */
unsigned wd_format_depth(const struct wd_node *tree);

/* An object back to its folded tree.  Anything wd_object_write would not have written for it is refused. */
int wd_object_read(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_node **ret_tree,
                   struct wd_filter_error *ret_error);

#endif
