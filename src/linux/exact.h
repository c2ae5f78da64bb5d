/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Which filter the library evaluates where the kernel's programs are coarser
 * than it, while the filter of the handle changes.
 *
 * What the kernel lets through comes in one stream, whose positions only grow.
 * A swap puts the new programs in place, waits until nobody runs the old ones any
 * more, and notes the position: all in front of it is decided by the former
 * filter, which an old program let through or, for a moment, a new one.  Both are
 * right for a packet of that moment: whoever lets a packet through that the
 * other filter does not match leaves the decision to the one that is asked
 * here.  So only what is evaluated has to change at one point.
 */
#ifndef WD_LINUX_EXACT_H
#define WD_LINUX_EXACT_H

#include <stdint.h>

#include "core/error.h"
#include "core/filter.h"

/* A filter in memory of its own. */
struct wd_compiled {
    struct wd_arena arena;
    struct wd_filter *filter;
};

int wd_compiled_new(const char *object, WINDIVERT_LAYER layer, struct wd_compiled **ret_compiled,
                    struct wd_error *err);
void wd_compiled_free(struct wd_compiled *compiled); /* NULL-safe */

/* A filter that is no longer the handle's, but evaluated up to a position of the stream. */
struct wd_former {
    struct wd_former *next;
    struct wd_compiled *filter; /* freed when the position is passed; may be NULL */
    const struct wd_prog *then; /* from there on; NULL: nothing is evaluated */
    uint64_t until;
};

struct wd_exact {
    const struct wd_prog *prog; /* NULL: the programs decide */
    struct wd_former *first, *last;
};

/* What the newest packets are evaluated with; set: from now on.  Returns what it was. */
const struct wd_prog *wd_exact_set(struct wd_exact *exact, const struct wd_prog *prog);
/* Takes former, whose position is not in front of the one before. */
void wd_exact_push(struct wd_exact *exact, struct wd_former *former);
/* Everything in front of this position has been decided. */
void wd_exact_pass(struct wd_exact *exact, uint64_t position);
/* The same by the lower 32 bits of the positions. */
void wd_exact_pass32(struct wd_exact *exact, uint32_t position);
void wd_exact_free(struct wd_exact *exact);

#endif
