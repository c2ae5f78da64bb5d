/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Splits an IP packet into fragments (RFC 791 3.2, RFC 8200 4.5).  Pure. */
#ifndef WD_LINUX_FRAGMENT_H
#define WD_LINUX_FRAGMENT_H

#include "core/packet.h"

/* Takes one fragment, IP header and all; 0, or -errno to stop. */
typedef int (*wd_fragment_fn)(void *ctx, const struct wd_packet *fragment);

/*
 * Calls fn for every fragment of at most mtu bytes, in order.  id: of the
 * fragments where the packet brings none (IPv4 id 0, IPv6).  The checksum of
 * the IPv4 header is left to the sender.  -EMSGSIZE: the packet must not be
 * fragmented (IPv4 DF; IPv6 a fragment already) or the mtu is too small.
 */
int wd_fragment(const struct wd_packet *packet, uint32_t mtu, uint32_t id, wd_fragment_fn fn, void *ctx);

#endif
