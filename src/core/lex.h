/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Filter text to tokens. */
#ifndef WD_CORE_LEX_H
#define WD_CORE_LEX_H

#include "filter.h"

enum wd_token_kind {
    WD_TOKEN_END, /* always the last token, at the end of the text */
    WD_TOKEN_OPEN,
    WD_TOKEN_CLOSE,
    WD_TOKEN_INDEX_OPEN,
    WD_TOKEN_INDEX_CLOSE,
    WD_TOKEN_QUESTION,
    WD_TOKEN_COLON,
    WD_TOKEN_MINUS,
    WD_TOKEN_NOT,
    WD_TOKEN_AND,
    WD_TOKEN_OR,
    WD_TOKEN_BYTES,   /* the b of an index in bytes */
    WD_TOKEN_OP,      /* id: enum wd_op */
    WD_TOKEN_FIELD,   /* id: enum wd_field */
    WD_TOKEN_NUMBER,  /* hi, lo; addresses and macros too; id: bits of an address (32, 128), else 0 */
    WD_TOKEN_FOREIGN, /* a macro of other layers: a word, but no place in the grammar */
    /* Beyond the original: */
    WD_TOKEN_IN,
    WD_TOKEN_BRACE_OPEN,
    WD_TOKEN_BRACE_CLOSE,
    WD_TOKEN_COMMA,
    WD_TOKEN_RANGE, /* .. */
    WD_TOKEN_SLASH,
};

struct wd_token {
    uint8_t kind, id;
    uint32_t pos;
    uint64_t hi, lo;
};

/* A macro of one layer by the field it is meant for, or NULL: how the formatter prints events and layers. */
const char *wd_macro_name(uint8_t field, WINDIVERT_LAYER layer, uint64_t value);

#define WD_LEX_ORIGINAL SIZE_MAX /* every token so far is one of the original's */

/*
 * Splits the whole text.  The first token that is bad, or bad for the layer,
 * is the error; -EINVAL or -ENOMEM with *ret_error filled in.  Whatever it
 * returns, *ret_extended is where the first word or sign stands that is a bad
 * token to the original, or WD_LEX_ORIGINAL.
 */
int wd_lex_filter(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_token **ret_tokens,
                  size_t *ret_extended, struct wd_filter_error *ret_error);

#endif
