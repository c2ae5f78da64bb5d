/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Where a packet went before NAT, at prerouting, gave it another destination.
 * A packet that the kernel dropped while it was held is injected again as it
 * arrived, and prerouting comes once more: with the translated destination it
 * would belong to no connection, or begin another.  conntrack, which is asked,
 * knows two tuples of a connection:
 *
 *   original   a -> host:8080          arrives; goes on as  a -> container:80
 *   reply      container:80 -> a       which is this one turned round
 *
 * and the same for answers that are led back behind a masquerade.
 */
#ifndef WD_LINUX_NAT_H
#define WD_LINUX_NAT_H

#include <stddef.h>

/*
 * Gives an inbound or forwarded TCP or UDP packet the destination back with
 * which it arrived; leaves it as it is where conntrack knows no such
 * connection (its first packet is not known before it was let through), or both its
 * addresses are translated.  Checksums that are right stay so, wrong ones wrong.  fd: of
 * wd_conntrack_open.
 */
void wd_nat_undo(int fd, void *packet, size_t len);

#endif
