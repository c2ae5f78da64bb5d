/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Between the files of the queue: what comes from the kernel and goes back (queue_kernel.c), the rest (queue.c).  Under the lock. */
#ifndef WD_LINUX_QUEUE_IMPL_H
#define WD_LINUX_QUEUE_IMPL_H

#include "linux/queue.h"

/* Takes up to WD_QUEUE_PULL messages without waiting; returns how many there were. */
int wd_queue_pull(struct wd_queue *queue);
/* The same as the reader, who waits, without the lock, until there is something. */
void wd_queue_wait_and_pull(struct wd_queue *queue, int64_t deadline);
/* Takes a packet out of those that wait to be received. */
void wd_queue_unready(struct wd_queue *queue, struct wd_slot *slot);
/* Of a packet that is delivered. */
void wd_queue_address(const struct wd_queue *queue, const struct wd_slot *slot, WINDIVERT_ADDRESS *ret_addr);
/* Drops a packet and counts it there. */
void wd_queue_drop(struct wd_queue *queue, struct wd_slot *slot, UINT64 *counter);
/* A packet that the queue cannot keep: dropped and counted there, or passed on (fail-open). */
void wd_queue_refuse(struct wd_queue *queue, struct wd_slot *slot, UINT64 *counter);

#endif
