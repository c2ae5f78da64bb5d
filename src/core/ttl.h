/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The hop limit. */
#ifndef WD_CORE_TTL_H
#define WD_CORE_TTL_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Takes one off the TTL or HopLimit of the packet; the IPv4 checksum is
 * adjusted (RFC 1624), so that it is afterwards as right or wrong as before.
 * False, and nothing is changed, where wd_packet_parse refuses the packet or
 * the result would be 0 or less.
 */
bool wd_ttl_decrement(void *packet, size_t len);

/*
 * Adds one, for a packet that is to be routed by this machine and is to leave
 * it with the hop limit it has now.  False, unchanged: refused, or at 255.
 */
bool wd_ttl_increment(void *packet, size_t len);

#endif
