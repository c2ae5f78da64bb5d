/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The filters that EvalFilter compiled last, so that an object is not decoded for every packet. */
#ifndef WD_API_CACHE_H
#define WD_API_CACHE_H

#include "core/filter.h"

struct wd_cached;

/*
 * The compiled filter of a text or object, not NULL, for a layer that is one;
 * from any thread, never waiting for another.  NULL: last error and text are
 * those of wd_api_compile.  Each get is followed by a put.
 */
struct wd_cached *wd_cache_get(const char *text, WINDIVERT_LAYER layer);
const struct wd_filter *wd_cache_filter(const struct wd_cached *cached);
void wd_cache_put(struct wd_cached *cached);

#endif
