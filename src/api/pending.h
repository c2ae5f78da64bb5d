/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The receives of a handle that wait in line, from the first overlapped one on:
 * packets go to them in the order in which they were asked for.  Whoever adds
 * one takes what there is; for the rest a thread of the handle's waits.
 */
#ifndef WD_API_PENDING_H
#define WD_API_PENDING_H

#include "api/engine.h"

struct wd_pending;

/* Starts the thread; fork is held. */
int wd_pending_new(struct wd_handle *engine, struct wd_pending **ret_pending, struct wd_error *err);
/* When nobody is inside: ends the thread, and with 995 what is left.  NULL-safe. */
void wd_pending_free(struct wd_pending *pending);

/*
 * TRUE: begun, or ended already; addr_len (may be NULL) is written when it ends
 * with packets.  FALSE: last error 6 (hEvent), 8.
 */
BOOL wd_pending_add(struct wd_pending *pending, const struct wd_recv *io, UINT *addr_len, OVERLAPPED *overlapped);
/* As wd_engine_recv, in its turn. */
int wd_pending_recv(struct wd_pending *pending, struct wd_recv *io, struct wd_error *err);
/* FALSE: there was none such. */
BOOL wd_pending_cancel(struct wd_pending *pending, OVERLAPPED *overlapped);

/* Around a fork; forget in the child, instead of release. */
void wd_pending_hold(struct wd_pending *pending);
void wd_pending_release(struct wd_pending *pending);
void wd_pending_forget(struct wd_pending *pending);

#endif
