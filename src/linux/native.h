/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Compares of header bytes that every packet a filter matches fulfils, for
 * native expressions in front of the filter's program: most packets that do
 * not match then cost no program run.
 */
#ifndef WD_LINUX_NATIVE_H
#define WD_LINUX_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/prog.h"

enum wd_compare_op { WD_COMPARE_EQ, WD_COMPARE_NE, WD_COMPARE_GE, WD_COMPARE_LE };

/* len bytes at this offset from the beginning of the IP header, as a big-endian number, against value. */
struct wd_compare {
    uint8_t offset, len;
    uint8_t mask; /* of a single byte; 0: all of it */
    uint8_t op;   /* enum wd_compare_op */
    uint8_t value[16];
};

#define WD_COMPARES_MAX 12
#define WD_PREFIXES_MAX 3

/* All of them hold.  A byte beyond the packet's end makes a compare fail. */
struct wd_prefix {
    uint8_t count;
    struct wd_compare compare[WD_COMPARES_MAX];
};

/*
 * A packet that prog matches fulfils at least one of *ret_count prefixes; a
 * single one without compares says nothing.  None: no packet matches.
 * outbound: which of the addresses and ports are local.  -ENOMEM or 0.
 */
int wd_native_prefixes(struct wd_arena *arena, const struct wd_prog *prog, bool outbound,
                       struct wd_prefix ret_prefix[WD_PREFIXES_MAX], unsigned int *ret_count);

/*
 * As nft writes raw payload: "@nh,72,8 == 0x6 @nh,176,16 == 0x1bb" (base,
 * offset and length in bits); "" for a prefix that says nothing.  Cut to size,
 * which is at least WD_PREFIX_TEXT for all of it.
 */
#define WD_PREFIX_TEXT (WD_COMPARES_MAX * 64)
void wd_native_format(const struct wd_prefix *prefix, char *buffer, size_t size);

#endif
