/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Answers to what was held back.  A packet that a handle took out of the stack
 * before conntrack saw it is unknown there, and an answer that the program makes
 * itself is "invalid" or "new" to the user's firewall: a connection that is
 * refused by a RST would wait for its timeout.  So what the handle received is
 * remembered, and when the program sends a new packet that answers it, conntrack
 * is told first (ctnetlink):
 *
 *   received                  answered the other way by              conntrack
 *   TCP SYN                   RST, SYN|ACK, ICMP's errors (quoted)   enters the connection
 *   UDP                       UDP, ICMP's errors                     enters the connection
 *   other TCP, before it      TCP                                    no longer judges the connection's windows,
 *   came to conntrack                                                as the answer acknowledges what it did not see
 *
 * What answers nothing is left to the firewall.  A connection that is known is
 * not entered again.
 */
#ifndef WD_LINUX_CONNTRACK_H
#define WD_LINUX_CONNTRACK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/packet.h"

/* Of the question; addresses and ports as in the packet, IPv4 in the first 4 bytes. */
struct wd_question {
    uint8_t from[16], to[16];
    uint8_t from_port[2], to_port[2];
    uint8_t version, protocol;
    bool begins; /* a connection */
    uint8_t zero;
};

struct wd_questions; /* the last of one handle; not for two threads at once */

/*
 * Remembers a packet that was received.  tracked: conntrack has seen it.
 * *table: NULL before the first; left so where there is no memory.
 */
void wd_questions_note(struct wd_questions **table, const struct wd_packet *packet, bool tracked);

/*
 * Does the packet answer one of those?  True at most once in
 * WD_QUESTIONS_AGAIN for each.  now in 100 ns; table may be NULL.
 */
bool wd_questions_answered(struct wd_questions *table, const struct wd_packet *packet, int64_t now,
                           struct wd_question *ret_question);
#define WD_QUESTIONS_AGAIN 10000000 /* 1 s, in 100 ns: an entry lasts longer */

/* A ctnetlink socket in the calling thread's namespace.  -ENOENT: the kernel tracks no connections. */
int wd_conntrack_open(int *ret_fd);

/*
 * Enters the connection that the question begins, for a few seconds if nothing
 * follows, or takes the windows of the one it belongs to as they come.
 */
void wd_conntrack_tell(int fd, const struct wd_question *question);

#endif
