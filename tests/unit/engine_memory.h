/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * An engine without a kernel: it receives what a test puts in, and remembers
 * what was sent.  It keeps the contract of src/api/engine.h and ends the
 * program where its caller breaks it (a call of a destroyed handle, destroy
 * with somebody inside or without abort).  A failing function leaves rubbish
 * in what it would have written, to show who reads it.
 */
#ifndef WD_ENGINE_MEMORY_H
#define WD_ENGINE_MEMORY_H

#include <stdbool.h>

#include "api/engine.h"

enum em_call {
    EM_OPEN,
    EM_RECV,
    EM_SEND,
    EM_SHUTDOWN,
    EM_SET,
    EM_GET,
    EM_SET_EXT,
    EM_GET_EXT,
    EM_SET_FILTER,
    EM_SKIP_FLOW,
    EM_GET_FD,
    EM_CALLS
};

/* From now on calls of this kind fail with error (0: no more) and this text and remedy (NULL: none given). */
void em_fail(enum em_call call, int error, const char *text, const char *remedy);
/* From now on open and set_filter succeed with this text (NULL: without). */
void em_note(const char *text);
/* A send refuses its packet number first (from 0) and all after it; error 0: none. */
void em_refuse_from(unsigned first, int error);

/* The engine's side of the handle opened last; NULL: none was since the last em_reset. */
struct wd_handle *em_last(void);
/* As it was opened, with the filter set last; valid until it is destroyed or gets another. */
const struct wd_open *em_open(const struct wd_handle *handle);
int em_descriptor(const struct wd_handle *handle);

/* Puts a packet into the queue of the handle; at an event layer data may be NULL and len 0. */
void em_put(struct wd_handle *handle, const void *data, uint32_t len, const WINDIVERT_ADDRESS *addr);
unsigned em_queued(struct wd_handle *handle);
/* Waits until so many threads are blocked in recv of the handle. */
void em_wait_blocked(struct wd_handle *handle, unsigned threads);

/* What was sent since em_reset, by any handle, in order; false: no such packet.  data: room for 65575 bytes. */
bool em_sent(unsigned index, void *data, uint32_t *ret_len, WINDIVERT_ADDRESS *ret_addr);
unsigned em_sent_count(void);
/* Waits until so many were. */
void em_wait_sent(unsigned count);

struct em_counts {
    unsigned opened, aborted, destroyed, forgotten, calls;
};
struct em_counts em_counts(void);

/* Back to the beginning; handles that are open stay. */
void em_reset(void);

#endif
