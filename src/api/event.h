/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Events, and the beginning and end of an overlapped operation.  One lock guards them, the last in any order of locks. */
#ifndef WD_API_EVENT_H
#define WD_API_EVENT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <windows.h>

/* CLOCK_MONOTONIC in 100 ns; the moment so many milliseconds from now: at least 1, and 0 for INFINITE. */
int64_t wd_event_deadline(DWORD milliseconds);
struct timespec wd_event_timespec(int64_t time);

/* Marks it as pending and resets its event.  FALSE, last error 6: hEvent is not NULL and no event. */
BOOL wd_overlapped_begin(OVERLAPPED *overlapped);
/* How it ended: a Win32 code.  From here on the structure is the caller's again. */
void wd_overlapped_end(OVERLAPPED *overlapped, DWORD code, uint32_t bytes);

/* fork: no event is half-way; in the child there are none, and a pending operation was aborted. */
void wd_event_hold_fork(void);
void wd_event_release_fork(void);
void wd_event_forget(void);
void wd_overlapped_forget(OVERLAPPED *overlapped);

#endif
