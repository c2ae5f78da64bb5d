/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "addr.h"

#include <string.h>

#define GROUPS 8

/* What is left of a text. */
struct span {
    const char *at, *end;
};

static int
digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 16;
}

/* Takes 1 to max digits of the base off the span; false where there are none, or more. */
static bool
take_number(struct span *text, int base, int max, uint32_t *ret_number)
{
    uint32_t number = 0;
    int count = 0;

    for (; text->at < text->end && digit_value(*text->at) < base; text->at++) {
        if (++count > max)
            return false;
        number = number * (uint32_t)base + (uint32_t)digit_value(*text->at);
    }
    *ret_number = number;
    return count > 0;
}

static bool
take(struct span *text, const char *token)
{
    size_t len = strlen(token);

    if ((size_t)(text->end - text->at) < len || memcmp(text->at, token, len) != 0)
        return false;
    text->at += len;
    return true;
}

bool
wd_addr_parse4(const char *text, size_t len, uint32_t *ret_addr)
{
    struct span rest = {text, text + len};
    uint32_t addr = 0, part;

    for (int i = 0; i < 4; i++) {
        if ((i > 0 && !take(&rest, ".")) || !take_number(&rest, 10, 3, &part) || part > 255)
            return false;
        addr = addr << 8 | part;
    }
    if (rest.at != rest.end)
        return false;
    *ret_addr = addr;
    return true;
}

/* The groups on both sides of "::". */
struct groups {
    uint16_t value[GROUPS];
    int count;
    int gap; /* the group in front of which "::" stands; -1: none */
};

static bool
push(struct groups *groups, uint32_t value)
{
    if (groups->count == GROUPS)
        return false;
    groups->value[groups->count++] = (uint16_t)value;
    return true;
}

/* group := hex | IPv4 text, which ends the address */
static bool
take_group(struct span *text, struct groups *groups)
{
    uint32_t value;

    if (wd_addr_parse4(text->at, (size_t)(text->end - text->at), &value)) {
        text->at = text->end;
        return push(groups, value >> 16) && push(groups, value & UINT16_MAX);
    }
    return take_number(text, 16, 4, &value) && push(groups, value);
}

/* address := [ list ] "::" [ list ] | list        list := group { ":" group } */
static bool
take_groups(struct span *text, struct groups *groups)
{
    if (take(text, "::"))
        groups->gap = 0;
    while (text->at < text->end) {
        if (!take_group(text, groups))
            return false;
        if (text->at == text->end)
            break;
        if (take(text, "::")) {
            if (groups->gap >= 0)
                return false;
            groups->gap = groups->count;
        } else if (!take(text, ":") || text->at == text->end) {
            return false;
        }
    }
    return groups->gap < 0 ? groups->count == GROUPS : groups->count < GROUPS;
}

bool
wd_addr_parse6(const char *text, size_t len, uint32_t ret_words[4])
{
    struct span rest = {text, text + len};
    struct groups groups = {.gap = -1};
    uint16_t full[GROUPS] = {0};
    int front;

    if (!take_groups(&rest, &groups))
        return false;
    front = groups.gap < 0 ? groups.count : groups.gap;
    for (int i = 0; i < groups.count; i++)
        full[i < front ? i : GROUPS - groups.count + i] = groups.value[i];
    for (int i = 0; i < 4; i++)
        ret_words[3 - i] = (uint32_t)full[2 * i] << 16 | full[2 * i + 1];
    return true;
}

static char *
put_decimal(char *out, uint32_t byte)
{
    if (byte >= 100)
        *out++ = (char)('0' + byte / 100);
    if (byte >= 10)
        *out++ = (char)('0' + byte / 10 % 10);
    *out++ = (char)('0' + byte % 10);
    return out;
}

size_t
wd_addr_format4(uint32_t addr, char ret_text[WD_ADDR4_TEXT])
{
    char *out = ret_text;

    for (int shift = 24; shift >= 0; shift -= 8) {
        if (out != ret_text)
            *out++ = '.';
        out = put_decimal(out, addr >> shift & 0xFF);
    }
    *out = 0;
    return (size_t)(out - ret_text);
}

static uint32_t
group_of(const uint32_t words[4], int i)
{
    return words[3 - i / 2] >> (i % 2 ? 0 : 16) & UINT16_MAX;
}

static char *
put_hex(char *out, uint32_t group)
{
    int shift = 12;

    while (shift > 0 && group >> shift == 0)
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        *out++ = "0123456789abcdef"[group >> shift & 0xF];
    return out;
}

/* The leftmost longest run of zero groups: where it begins; its length, 0 where there is none. */
static int
longest_run(const uint32_t words[4], int *ret_len)
{
    int best = 0, best_len = 0;

    for (int i = 0, len = 0; i < GROUPS; i++) {
        len = group_of(words, i) ? 0 : len + 1;
        if (len > best_len) {
            best_len = len;
            best = i + 1 - len;
        }
    }
    *ret_len = best_len;
    return best;
}

size_t
wd_addr_format6(const uint32_t words[4], char ret_text[WD_ADDR6_TEXT])
{
    char *out = ret_text;
    int len, run = longest_run(words, &len);

    for (int i = 0; i < GROUPS;) {
        if (len > 0 && i == run) {
            *out++ = ':';
            *out++ = ':';
            i += len;
            continue;
        }
        if (i > 0 && out[-1] != ':')
            *out++ = ':';
        out = put_hex(out, group_of(words, i));
        i++;
    }
    *out = 0;
    return (size_t)(out - ret_text);
}
