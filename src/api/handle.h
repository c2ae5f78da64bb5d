/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The handles of this process: which are open, who is inside a call of one,
 * and what becomes of them in a forked child.  See docs/design/api.md.
 */
#ifndef WD_API_HANDLE_H
#define WD_API_HANDLE_H

#include "api/engine.h"

struct wd_slot;

/* One call inside one handle: from enter to leave the engine's handle stays valid. */
struct wd_use {
    struct wd_handle *engine;
    WINDIVERT_LAYER layer; /* as opened */
    UINT64 flags;          /* as opened */
    struct wd_slot *slot;
    int cancel_state;
};

/*
 * Opens a handle of the engine and gives it a HANDLE.  TRUE; or FALSE with the
 * last error set: what the engine answered, 8 (no memory), 1450 (too many
 * handles are open).
 */
BOOL wd_handle_open(const struct wd_open *open, HANDLE *ret_handle);

/*
 * Enters a call.  TRUE; or FALSE with last error 6: NULL,
 * INVALID_HANDLE_VALUE, closed, from before a fork, or no handle at all.
 * Takes no lock.  A thread is not cancelled (pthread_cancel) between enter and
 * leave: Close would wait for it for ever.
 */
BOOL wd_handle_enter(HANDLE handle, struct wd_use *ret_use);
void wd_handle_leave(struct wd_use *use);

/*
 * Closes: from here on the HANDLE is invalid, calls inside return 995; then
 * waits for the last of them to leave and frees the engine's handle.  FALSE
 * with last error 6 as for enter, and where another thread is closing it.
 */
BOOL wd_handle_close(HANDLE handle);

/*
 * From inside: the receives that wait in line (pending.h); NULL: there never
 * was one.  make: the first; NULL then with the last error 8, 1450 or 31.
 */
struct wd_pending;
struct wd_pending *wd_handle_pending(const struct wd_use *use);
struct wd_pending *wd_handle_make_pending(const struct wd_use *use);

/* Once, before anything that a forked child has to forget.  FALSE, last error 8. */
BOOL wd_handle_prepare(void);

/*
 * Between hold and release no fork falls: for what opens or closes descriptors
 * of an engine handle, which a child must find complete to be able to forget
 * it.  Not held by calls that block.
 */
void wd_handle_hold_fork(void);
void wd_handle_release_fork(void);

#endif
