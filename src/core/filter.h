/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Filter text or object -> compiled filter -> object, text, program. */
#ifndef WD_CORE_FILTER_H
#define WD_CORE_FILTER_H

#include <stddef.h>

#include "prog.h"

enum wd_filter_code {
    WD_FILTER_OK,
    WD_FILTER_NO_MEMORY,
    WD_FILTER_TOO_DEEP,
    WD_FILTER_TOO_LONG,
    WD_FILTER_BAD_TOKEN,
    WD_FILTER_BAD_TOKEN_FOR_LAYER,
    WD_FILTER_SYNTAX,
    WD_FILTER_BAD_INDEX,
    WD_FILTER_OBJECT_TOO_SHORT,
    WD_FILTER_BAD_OBJECT,
    WD_FILTER_CODE_COUNT
};

struct wd_filter_error {
    enum wd_filter_code code;
    uint32_t pos; /* byte offset in the text of the offending token; 0 on success */
};

/* The texts of the manual ("No error", "Out of memory", ...); static. */
const char *wd_filter_strerror(enum wd_filter_code code);

/*
 * Of a text that wd_filter_compile refuses with WD_FILTER_BAD_TOKEN at the
 * first token that the original does not know: what is wrong with it as a text
 * of the whole language.  The same error otherwise.
 */
void wd_filter_diagnose(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer,
                        struct wd_filter_error *error);

struct wd_filter; /* the folded tree and its program; lives in the arena */

/*
 * Compiles a filter string, or an object made by wd_filter_object (it begins
 * with '@'; a damaged one is refused).  0, or -EINVAL / -ENOMEM with *ret_error
 * filled in; *ret_filter is then untouched.
 */
int wd_filter_compile(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_filter **ret_filter,
                      struct wd_filter_error *ret_error);

/* What to run: optimised. */
const struct wd_prog *wd_filter_prog(const struct wd_filter *filter);
/* The same folded only: every test that the canonical text names, in its order. */
const struct wd_prog *wd_filter_prog_plain(const struct wd_filter *filter);

/* The same filter unfolded, as written, for the differential tests. */
int wd_filter_prog_unfolded(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer,
                            struct wd_prog **ret_prog);

/*
 * What is known of a field where a specialised program runs: nothing; its
 * value (direction at a hook, loopback behind a native compare, ...); or that
 * it cannot be decided there and either outcome is possible.
 */
enum wd_knowledge { WD_UNKNOWN, WD_KNOWN, WD_UNDECIDED };

/*
 * Fields that are always present and have at most 64 bits can be known.  What
 * follows is inferred: a version, a direction or a transport known to be there
 * excludes the others, and one known to be absent takes its header's fields
 * with it.
 */
struct wd_known {
    uint8_t state[WD_FIELD_COUNT]; /* enum wd_knowledge */
    uint64_t value[WD_FIELD_COUNT];
};

/*
 * The program that decides "may match" under *known: tests on known fields
 * become constants, tests on undecided ones are taken to hold (whether negated
 * or not), and the rest is folded again.  Exact where nothing undecided was
 * read; *ret_exact says so.  The program may come out constant
 * (start == WD_ACCEPT or WD_REJECT).
 */
int wd_filter_specialise(struct wd_arena *arena, const struct wd_filter *filter, const struct wd_known *known,
                         struct wd_prog **ret_prog, bool *ret_exact);
/* The same folded only, for the differential tests. */
int wd_filter_specialise_plain(struct wd_arena *arena, const struct wd_filter *filter, const struct wd_known *known,
                               struct wd_prog **ret_prog, bool *ret_exact);

/*
 * Object and canonical text: NUL-terminated, into buffer.  0, or -ENOSPC where
 * size is too small, nothing written.  The bytes needed, with the NUL, are in
 * *ret_needed (may be NULL) either way.
 */
int wd_filter_object(const struct wd_filter *filter, char *buffer, size_t size, size_t *ret_needed);
int wd_filter_format(const struct wd_filter *filter, char *buffer, size_t size, size_t *ret_needed);

#endif
