/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The ends of packets that NFQUEUE cannot hand over whole (gen.h: struct wd_tail). */
#ifndef WD_LINUX_TAILS_H
#define WD_LINUX_TAILS_H

#include <stdbool.h>

#include "linux/ring.h"

#define WD_TAILS_KEPT 32

/*
 * Packets and tails come in the same order but for those of other processors,
 * and of packets that never came; so some that were passed over are kept.
 */
struct wd_tails {
    struct wd_ring *ring;
    struct wd_tail kept[WD_TAILS_KEPT]; /* len 0: none */
    unsigned int next;
};

int wd_tails_new(struct wd_tails **ret_tails, struct wd_error *err);
void wd_tails_free(struct wd_tails *tails);      /* NULL-safe */
void wd_tails_close_fds(struct wd_tails *tails); /* in a forked child, too */

/*
 * Writes what is missing of a packet of len bytes, of which the first
 * WD_TAIL_FROM are at data, behind these.  False: it is not there.
 */
bool wd_tails_complete(struct wd_tails *tails, uint8_t *data, uint32_t len);

#endif
