/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Splits a TCP packet into segments, as a network card does with an aggregate.  Pure. */
#ifndef WD_LINUX_SEGMENT_H
#define WD_LINUX_SEGMENT_H

#include "linux/fragment.h"

/*
 * Calls fn for every segment of at most mtu bytes, in order, checksums right:
 * the sequence number goes on, FIN and PSH are in the last one only, CWR in the
 * first, and the IPv4 id counts up.  -EMSGSIZE: no whole TCP packet, or the mtu is
 * too small for its headers; -ENOMEM.
 */
int wd_segment(const struct wd_packet *packet, uint32_t mtu, wd_fragment_fn fn, void *ctx);

#endif
