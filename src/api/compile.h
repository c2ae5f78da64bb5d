/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Filters as the calls of the programming interface get them. */
#ifndef WD_API_COMPILE_H
#define WD_API_COMPILE_H

#include "core/filter.h"
#include "windivert.h"

/* FALSE, last error 87: not one of the five layers. */
BOOL wd_api_check_layer(WINDIVERT_LAYER layer);

/*
 * Compiles a filter or object, not NULL, for a layer that is one.  TRUE; or
 * FALSE with last error 87 (8: no memory), the text showing where it is wrong,
 * and *ret_error filled in.
 */
BOOL wd_api_compile(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_filter **ret_filter,
                    struct wd_filter_error *ret_error);

/* The object of a filter, in the arena.  NULL: last error 8. */
const char *wd_api_object(struct wd_arena *arena, const struct wd_filter *filter);

#endif
