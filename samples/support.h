/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What the samples and tools share: errors for people, numbers, opening a handle, Ctrl-C. */
#ifndef SAMPLES_SUPPORT_H
#define SAMPLES_SUPPORT_H

#include <stdbool.h>

#include "windivert.h"

/* The first part of every message, set once: "tool: what: why". */
extern const char *tool_name;

/* Prints "tool: what: why" to stderr. */
void complain(const char *what, const char *why);

/* "tool: what: why" and the remedy of the last error of this thread, in the words of the library. */
void complain_last_error(void);

/* Is it a filter of this layer?  If not: says why, and shows the text with a caret under the place. */
bool filter_is_good(const char *filter, WINDIVERT_LAYER layer);

/* A decimal number in min..max as the whole text; else complains about it under the name what. */
bool parse_number(const char *what, const char *text, long min, long max, long *ret_number);

/* WinDivertOpen at the NETWORK layer, and a line on stderr once it is open; INVALID_HANDLE_VALUE: failed, explained. */
HANDLE open_network(const char *filter, INT16 priority, UINT64 flags);

/*
 * From now on Ctrl-C (SIGINT, SIGTERM, SIGHUP) shuts the handle down for
 * receiving: what is queued can still be received, then Recv ends with
 * ERROR_NO_DATA.  A second signal ends the process at once.  Call it before
 * any thread is started.  False: no thread for it; explained.
 */
bool stop_on_signal(HANDLE handle);

#endif
