/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The packets of a sniffing handle: a ring that the filter programs write and the readers empty. */
#ifndef WD_LINUX_SNIFF_H
#define WD_LINUX_SNIFF_H

#include <stdint.h>

#include "api/engine.h"
#include "linux/exact.h"
#include "linux/ring.h"

struct wd_sniff;

/*
 * Takes the ring.  counters: the mapped counter slots (gen.h) through which a
 * reader that goes to sleep asks the programs to wake it.
 */
int wd_sniff_new(struct wd_ring *ring, uint64_t *counters, struct wd_sniff **ret_sniff, struct wd_error *err);
void wd_sniff_free(struct wd_sniff *sniff); /* NULL-safe */
/* Takes a ring to which the programs write from now on; those before are read first, and no program writes to them. */
void wd_sniff_add_ring(struct wd_sniff *sniff, struct wd_ring *ring);
struct wd_ring *wd_sniff_last_ring(struct wd_sniff *sniff); /* stays while no other is added */
unsigned int wd_sniff_rings(struct wd_sniff *sniff);        /* the last one, and those that are still to be read */
/* What the newest packets are evaluated with, NULL: the programs are exact; set now.  Returns what it was. */
const struct wd_prog *wd_sniff_set_exact(struct wd_sniff *sniff, const struct wd_prog *exact);
/* Takes former: what is in the rings by now is evaluated as it was until now, the rest by former->then. */
void wd_sniff_swap(struct wd_sniff *sniff, struct wd_former *former);

int wd_sniff_recv(struct wd_sniff *sniff, struct wd_recv *io);
/* The descriptor is the sniff's. */
int wd_sniff_get_fd(struct wd_sniff *sniff, int *ret_fd, struct wd_error *err);
void wd_sniff_shut(struct wd_sniff *sniff);  /* what is in the ring can be received, then -ENODATA */
void wd_sniff_abort(struct wd_sniff *sniff); /* every call returns -ECANCELED from now on */
/* Packets not yet received: more than length are dropped, and those older than time, 100 ns, at the next receive. */
void wd_sniff_set_limits(struct wd_sniff *sniff, uint32_t length, int64_t time);
void wd_sniff_get_stats(struct wd_sniff *sniff, WINDIVERT_EXT_STATS *ret_stats);
void wd_sniff_close_fds(struct wd_sniff *sniff); /* in a forked child */

#endif
