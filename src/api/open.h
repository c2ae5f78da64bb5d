/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The arguments of WinDivertOpen. */
#ifndef WD_API_OPEN_H
#define WD_API_OPEN_H

#include "core/arena.h"
#include "engine.h"

/*
 * Checks them, compiles the filter, and fills in *ret_open; the object lives in
 * the arena.  FALSE, last error 87 or 8.
 */
BOOL wd_api_prepare_open(struct wd_arena *arena, const char *filter, WINDIVERT_LAYER layer, INT16 priority,
                         UINT64 flags, struct wd_open *ret_open);

#endif
