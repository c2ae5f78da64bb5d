/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * One thread per process that does what is due on queues whose program calls
 * nothing: it takes packets out of the kernel for a reader that is away, and
 * drops what is too old or was not returned in time.  A queue on which nothing
 * happens costs it nothing: it sleeps until the queue's descriptor is readable.
 */
#ifndef WD_LINUX_JANITOR_H
#define WD_LINUX_JANITOR_H

#include "core/error.h"
#include "linux/queue.h"

/* Looks after the queue from now on; starts the thread where it does not run. */
int wd_janitor_add(struct wd_queue *queue, struct wd_error *err);
/* On return the janitor does not touch the queue any more.  The last one ends the thread. */
void wd_janitor_remove(struct wd_queue *queue);
/* In a forked child, where the thread does not exist.  Async-signal-safe. */
void wd_janitor_forget(void);

#endif
