/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Answers to what was held back.  A packet that a handle took out of the stack
 * before conntrack saw it left no entry there, and an answer that the program
 * makes itself is "invalid" or "new" to the user's firewall: a connection that
 * is refused by a RST would wait for its timeout.  So what the handle received
 * of packets that begin connections is remembered, and when the program sends
 * a new packet that answers one of them, conntrack is told of that connection
 * first (ctnetlink).
 *
 *   begins one: TCP SYN; UDP
 *   answers it: TCP RST or SYN|ACK, UDP, the other way; ICMP's and ICMPv6's errors that quote it
 *
 * What answers nothing is left to the firewall.  An entry that exists is never
 * changed.
 */
#ifndef WD_LINUX_CONNTRACK_H
#define WD_LINUX_CONNTRACK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/packet.h"

/* From the one who begins; addresses and ports as in the packet, IPv4 in the first 4 bytes. */
struct wd_tuple {
    uint8_t from[16], to[16];
    uint8_t from_port[2], to_port[2];
    uint8_t version, protocol;
    uint8_t zero[2];
};

struct wd_beginnings; /* of one handle; not for two threads at once */

/* Remembers the packet if it begins a connection.  *table: NULL before the first; left so where there is no memory. */
void wd_beginnings_note(struct wd_beginnings **table, const struct wd_packet *packet);

/*
 * Does the packet answer one of those?  True at most once in
 * WD_BEGINNINGS_AGAIN for each.  now in 100 ns; table may be NULL.
 */
bool wd_beginnings_answered(struct wd_beginnings *table, const struct wd_packet *packet, int64_t now,
                            struct wd_tuple *ret_tuple);
#define WD_BEGINNINGS_AGAIN 10000000 /* 1 s, in 100 ns: an entry lasts longer */

/* A ctnetlink socket in the calling thread's namespace.  -ENOENT: the kernel tracks no connections. */
int wd_conntrack_open(int *ret_fd);

/* Enters a connection of which nothing but its beginning was seen, for a few seconds if nothing follows. */
void wd_conntrack_enter(int fd, const struct wd_tuple *tuple);

#endif
