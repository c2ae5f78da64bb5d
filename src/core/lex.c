/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "lex.h"

#include <errno.h>
#include <string.h>

#include "addr.h"
#include "field.h"
#include "tree.h"

#define WORD_MAX 39     /* characters of the longest word */
#define TOKENS_FIRST 64 /* room to begin with */

#define N (1 << WINDIVERT_LAYER_NETWORK)
#define M (1 << WINDIVERT_LAYER_NETWORK_FORWARD)
#define F (1 << WINDIVERT_LAYER_FLOW)
#define S (1 << WINDIVERT_LAYER_SOCKET)
#define R (1 << WINDIVERT_LAYER_REFLECT)

static const struct {
    const char *name;
    uint8_t kind;
} keywords[] = {
    {"and", WD_TOKEN_AND}, {"or", WD_TOKEN_OR}, {"not", WD_TOKEN_NOT}, {"b", WD_TOKEN_BYTES}, {"in", WD_TOKEN_IN},
};

static const struct {
    const char *name;
    uint8_t layers, value, field;
} macros[] = {
#define MACRO(text, lay, number, purpose) {text, lay, number, WD_F_##purpose},
#include "macro.def"
#undef MACRO
};

#define KEYWORD_COUNT (sizeof(keywords) / sizeof(keywords[0]))
#define MACRO_COUNT (sizeof(macros) / sizeof(macros[0]))
#define WORD_COUNT (KEYWORD_COUNT + WD_FIELD_COUNT + MACRO_COUNT)

/*
 * The lengths of all words, keywords first, then fields, then macros: a word
 * is looked up by going through those of its length.
 */
static const uint8_t word_lengths[WORD_COUNT] = {
    3, 2, 3, 1, 2,
#define FIELD(id, text, ...) sizeof(text) - 1,
#include "field.def"
#undef FIELD
#define MACRO(text, ...) sizeof(text) - 1,
#include "macro.def"
#undef MACRO
};

enum { CLASS_OTHER, CLASS_SPACE, CLASS_LETTER, CLASS_DIGIT, CLASS_POINT, CLASS_COLON };

/* Letters, digits, points and colons make words; a class from LETTER on. */
static const uint8_t
    classes[256] =
        {
            [' '] = CLASS_SPACE,          ['\t'] = CLASS_SPACE,         ['\r'] = CLASS_SPACE,
            ['\n'] = CLASS_SPACE,         ['\v'] = CLASS_SPACE,         ['\f'] = CLASS_SPACE,
            ['a' ... 'z'] = CLASS_LETTER, ['A' ... 'Z'] = CLASS_LETTER, ['_'] = CLASS_LETTER,
            ['0' ... '9'] = CLASS_DIGIT,  ['.'] = CLASS_POINT,          [':'] = CLASS_COLON,
};

struct lexer {
    struct wd_arena *arena;
    const char *text, *at;
    uint8_t layer_bit;
    struct wd_token *tokens;
    size_t count, room;
    size_t extended; /* as wd_lex_filter returns it */
    struct wd_filter_error *error;
};

static inline uint8_t
class_of(char c)
{
    return classes[(unsigned char)c];
}

static int
bad_token(struct lexer *lex, const char *at)
{
    return wd_filter_fail(lex->error, WD_FILTER_BAD_TOKEN, (size_t)(at - lex->text));
}

/* What stands here is no token of the original. */
static void
note_extended(struct lexer *lex)
{
    if (lex->extended == WD_LEX_ORIGINAL)
        lex->extended = (size_t)(lex->at - lex->text);
}

static int
grow(struct lexer *lex)
{
    size_t room = lex->room ? lex->room * 4 : TOKENS_FIRST;
    struct wd_token *more = wd_arena_alloc(lex->arena, room, sizeof(*more));

    if (!more)
        return wd_filter_fail(lex->error, WD_FILTER_NO_MEMORY, 0);
    if (lex->count)
        memcpy(more, lex->tokens, lex->count * sizeof(*more));
    lex->tokens = more;
    lex->room = room;
    return 0;
}

/* Appends a token and moves behind it. */
static inline int
push(struct lexer *lex, uint8_t kind, uint8_t id, size_t len)
{
    struct wd_token *token;
    int ret;

    if (lex->count == lex->room && (ret = grow(lex)) < 0)
        return ret;
    token = &lex->tokens[lex->count++];
    token->kind = kind;
    token->id = id;
    token->pos = (uint32_t)(lex->at - lex->text);
    lex->at += len;
    return 0;
}

/* Beyond the original. */
static int
push_extended(struct lexer *lex, uint8_t kind, size_t len)
{
    note_extended(lex);
    return push(lex, kind, 0, len);
}

/* bits: of an address; 0: a plain number */
static int
push_number(struct lexer *lex, uint64_t hi, uint64_t lo, uint8_t bits, size_t len)
{
    int ret = push(lex, WD_TOKEN_NUMBER, bits, len);

    if (ret == 0) {
        lex->tokens[lex->count - 1].hi = hi;
        lex->tokens[lex->count - 1].lo = lo;
    }
    return ret;
}

/* *hi:*lo = *hi:*lo * factor + digit; false where 128 bits are not enough.  factor is at most 16. */
static bool
shift_in(uint64_t *hi, uint64_t *lo, uint64_t factor, uint64_t digit)
{
    uint64_t low = (*lo & UINT32_MAX) * factor + digit;
    uint64_t high = (*lo >> 32) * factor + (low >> 32);

    if (*hi > (UINT64_MAX - (high >> 32)) / factor)
        return false;
    *hi = *hi * factor + (high >> 32);
    *lo = high << 32 | (low & UINT32_MAX);
    return true;
}

static int
hex_digit(char c)
{
    if (class_of(c) == CLASS_DIGIT)
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* "0x" and any number of digits, none is 0 */
static int
lex_hex(struct lexer *lex, size_t len)
{
    uint64_t hi = 0, lo = 0;

    if (len > WORD_MAX)
        return bad_token(lex, lex->at);
    for (size_t i = 2; i < len; i++) {
        int digit = hex_digit(lex->at[i]);

        if (digit < 0 || !shift_in(&hi, &lo, 16, (uint64_t)digit))
            return bad_token(lex, lex->at);
    }
    return push_number(lex, hi, lo, 0, len);
}

/* digits, where "b" may follow at once: a token of its own */
static int
lex_decimal(struct lexer *lex, size_t len)
{
    uint64_t hi = 0, lo = 0;
    size_t digits = 0;
    int ret;

    for (; digits < len && class_of(lex->at[digits]) == CLASS_DIGIT; digits++)
        if (!shift_in(&hi, &lo, 10, (uint64_t)(lex->at[digits] - '0')))
            return bad_token(lex, lex->at);
    if (digits > WORD_MAX || digits + 1 < len || (digits < len && lex->at[digits] != 'b'))
        return bad_token(lex, lex->at);
    ret = push_number(lex, hi, lo, 0, digits);
    if (ret < 0 || digits == len)
        return ret;
    return push(lex, WD_TOKEN_BYTES, 0, 1);
}

static int
lex_ipv6(struct lexer *lex, size_t len)
{
    uint32_t words[4];

    if (!wd_addr_parse6(lex->at, len, words))
        return bad_token(lex, lex->at);
    return push_number(lex, (uint64_t)words[3] << 32 | words[2], (uint64_t)words[1] << 32 | words[0], 128, len);
}

/* begins with a digit: 0xHEX, IPv4 or decimal */
static int
lex_number(struct lexer *lex, size_t len)
{
    uint32_t addr;

    if (lex->at[0] == '0' && len >= 2 && lex->at[1] == 'x')
        return lex_hex(lex, len);
    if (!memchr(lex->at, '.', len))
        return lex_decimal(lex, len);
    if (!wd_addr_parse4(lex->at, len, &addr))
        return bad_token(lex, lex->at);
    return push_number(lex, 0, 0xFFFF00000000 | addr, 32, len);
}

static const char *
word_name(size_t index)
{
    if (index < KEYWORD_COUNT)
        return keywords[index].name;
    index -= KEYWORD_COUNT;
    return index < WD_FIELD_COUNT ? wd_fields[index].name : macros[index - WD_FIELD_COUNT].name;
}

/* The first word from index `from` on that equals the text; WORD_COUNT: none. */
static size_t
find_word(const char *text, size_t len, size_t from)
{
    while (from < WORD_COUNT) {
        const uint8_t *hit = memchr(word_lengths + from, (int)len, WORD_COUNT - from);

        if (!hit)
            break;
        from = (size_t)(hit - word_lengths);
        if (memcmp(word_name(from), text, len) == 0)
            return from;
        from++;
    }
    return WORD_COUNT;
}

/* A name may stand for different values on different layers. */
static int
lex_macro(struct lexer *lex, size_t index, size_t len)
{
    do {
        size_t macro = index - KEYWORD_COUNT - WD_FIELD_COUNT;

        if (macros[macro].layers & lex->layer_bit)
            return push_number(lex, 0, macros[macro].value, 0, len);
        index = find_word(lex->at, len, index + 1);
    } while (index < WORD_COUNT);
    return push(lex, WD_TOKEN_FOREIGN, 0, len);
}

static int
lex_name(struct lexer *lex, size_t len)
{
    size_t index = find_word(lex->at, len, 0);

    if (index == WORD_COUNT)
        return bad_token(lex, lex->at);
    if (index < KEYWORD_COUNT && keywords[index].kind == WD_TOKEN_IN)
        return push_extended(lex, WD_TOKEN_IN, len);
    if (index < KEYWORD_COUNT)
        return push(lex, keywords[index].kind, 0, len);
    if (index >= KEYWORD_COUNT + WD_FIELD_COUNT)
        return lex_macro(lex, index, len);
    index -= KEYWORD_COUNT;
    if (!(wd_fields[index].layers & lex->layer_bit))
        return wd_filter_fail(lex->error, WD_FILTER_BAD_TOKEN_FOR_LAYER, (size_t)(lex->at - lex->text));
    return push(lex, WD_TOKEN_FIELD, (uint8_t)index, len);
}

static bool
is_range(const char *at)
{
    return at[0] == '.' && at[1] == '.';
}

/*
 * word := the longest run of letters, digits, '_', '.' and ':', less one ':'
 * at its end that is not half of a '::'
 *
 * To the original, no word with ".." in it is a token; here it ends in front
 * of them.
 */
static int
lex_word(struct lexer *lex)
{
    size_t len = 0, colons = 0, run = 0;

    for (uint8_t class; (class = class_of(lex->at[len])) >= CLASS_LETTER; len++) {
        if (is_range(lex->at + len)) {
            note_extended(lex);
            break;
        }
        run = class == CLASS_COLON ? run + 1 : 0;
        colons += class == CLASS_COLON;
    }
    len -= run % 2;
    colons -= run % 2;
    if (class_of(lex->at[0]) == CLASS_DIGIT && !colons)
        return lex_number(lex, len);
    if (len > WORD_MAX)
        return bad_token(lex, lex->at);
    return colons ? lex_ipv6(lex, len) : lex_name(lex, len);
}

static int
lex_op(struct lexer *lex, uint8_t op, uint8_t op_equal)
{
    if (lex->at[1] == '=')
        return push(lex, WD_TOKEN_OP, op_equal, 2);
    return push(lex, WD_TOKEN_OP, op, 1);
}

static int
lex_twice(struct lexer *lex, uint8_t kind)
{
    if (lex->at[1] != lex->at[0])
        return bad_token(lex, lex->at);
    return push(lex, kind, 0, 2);
}

static int
lex_sign(struct lexer *lex)
{
    switch (lex->at[0]) {
    case '(':
        return push(lex, WD_TOKEN_OPEN, 0, 1);
    case ')':
        return push(lex, WD_TOKEN_CLOSE, 0, 1);
    case '[':
        return push(lex, WD_TOKEN_INDEX_OPEN, 0, 1);
    case ']':
        return push(lex, WD_TOKEN_INDEX_CLOSE, 0, 1);
    case '?':
        return push(lex, WD_TOKEN_QUESTION, 0, 1);
    case '{':
        return push_extended(lex, WD_TOKEN_BRACE_OPEN, 1);
    case '}':
        return push_extended(lex, WD_TOKEN_BRACE_CLOSE, 1);
    case ',':
        return push_extended(lex, WD_TOKEN_COMMA, 1);
    case '/':
        return push_extended(lex, WD_TOKEN_SLASH, 1);
    case '-':
        return push(lex, WD_TOKEN_MINUS, 0, 1);
    case '!':
        return lex->at[1] == '=' ? push(lex, WD_TOKEN_OP, WD_OP_NE, 2) : push(lex, WD_TOKEN_NOT, 0, 1);
    case '=':
        return lex_op(lex, WD_OP_EQ, WD_OP_EQ);
    case '<':
        return lex_op(lex, WD_OP_LT, WD_OP_LE);
    case '>':
        return lex_op(lex, WD_OP_GT, WD_OP_GE);
    case '&':
        return lex_twice(lex, WD_TOKEN_AND);
    case '|':
        return lex_twice(lex, WD_TOKEN_OR);
    default:
        return bad_token(lex, lex->at);
    }
}

static int
lex_token(struct lexer *lex)
{
    uint8_t class = class_of(lex->at[0]);

    if (class == CLASS_COLON && lex->at[1] != ':')
        return push(lex, WD_TOKEN_COLON, 0, 1);
    if (is_range(lex->at))
        return push_extended(lex, WD_TOKEN_RANGE, 2);
    return class >= CLASS_LETTER ? lex_word(lex) : lex_sign(lex);
}

static int
lex_tokens(struct lexer *lex)
{
    int ret;

    for (;;) {
        while (class_of(*lex->at) == CLASS_SPACE)
            lex->at++;
        if (*lex->at == 0)
            break;
        ret = lex_token(lex);
        if (ret < 0)
            return ret;
    }
    return push(lex, WD_TOKEN_END, 0, 0);
}

int
wd_lex_filter(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_token **ret_tokens,
              size_t *ret_extended, struct wd_filter_error *ret_error)
{
    struct lexer lex = {
        .arena = arena,
        .text = text,
        .at = text,
        .layer_bit = (uint8_t)(1 << layer),
        .extended = WD_LEX_ORIGINAL,
        .error = ret_error,
    };
    int ret = lex_tokens(&lex);

    *ret_extended = lex.extended;
    if (ret == 0)
        *ret_tokens = lex.tokens;
    return ret;
}

const char *
wd_macro_name(uint8_t field, WINDIVERT_LAYER layer, uint64_t value)
{
    for (size_t i = 0; i < MACRO_COUNT; i++)
        if (macros[i].field == field && macros[i].value == value && (macros[i].layers & 1 << layer))
            return macros[i].name;
    return NULL;
}
