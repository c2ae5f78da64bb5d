/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "field.h"

#define N (1 << 0)
#define M (1 << 1)
#define F (1 << 2)
#define S (1 << 3)
#define R (1 << 4)

const struct wd_field_info wd_fields[WD_FIELD_COUNT] = {
#define FIELD(id, text, lay, knd, lo, hi, source, offset, bytes, right)                                              \
    [WD_F_##id] = {                                                                                                  \
        .name = text,                                                                                                \
        .layers = lay,                                                                                               \
        .kind = WD_KIND_##knd,                                                                                       \
        .src = WD_SRC_##source,                                                                                      \
        .off = offset,                                                                                               \
        .width = bytes,                                                                                              \
        .shift = right,                                                                                              \
        .min = (int64_t)(lo),                                                                                        \
        .umin = (uint64_t)(lo),                                                                                      \
        .max = (uint64_t)(hi),                                                                                       \
    },
#include "field.def"
#undef FIELD
};
