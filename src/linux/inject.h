/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* New packets into the stack of the namespace in which the sockets were opened. */
#ifndef WD_LINUX_INJECT_H
#define WD_LINUX_INJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/packet.h"
#include "linux/conntrack.h"
#include "linux/ruleset.h"

struct wd_inject {
    int fd4, fd6;     /* raw sockets; -1 where the family is not available */
    int fd_in;        /* packet socket of inbound.h, once it was needed (closing one takes a grace period) */
    bool no_tcx;      /* known to be so */
    int fd_run;       /* instead: the program of inbound.h that is run for each packet */
    int fd_ct;        /* ctnetlink, once it was needed */
    int16_t priority; /* of the handle */
    uint32_t mark;    /* of outbound packets */
    struct wd_questions *questions; /* what was received, as far as answers need it; NULL: nothing */
    struct wd_ruleset *rules;       /* that the inbound way is attached with */
};

/* Sockets in the namespace of the ruleset, whose packets carry the tag of this handle priority. */
int wd_inject_open(struct wd_inject *inject, int16_t priority, struct wd_ruleset *rules, struct wd_error *err);
void wd_inject_close(struct wd_inject *inject);

/* The mark (SO_MARK) of the outbound packets that follow: policy routing and the user's rules may ask for it. */
void wd_inject_set_mark(struct wd_inject *inject, uint32_t mark);

/*
 * Sends packet->ip_len bytes outbound.  The kernel routes it by its
 * addresses and rewrites the IPv4 header checksum.  ifindex: the interface
 * of a link-local or multicast destination, 0: the routing table's.  A packet
 * larger than the MTU leaves in pieces: TCP in segments, all other in fragments.  Not for two threads at once.
 * Never waits: -EAGAIN there is no room in the socket's buffer.
 * -ENODEV no such interface, or none for a link-local destination;
 * -ENETUNREACH, -EHOSTUNREACH no route; -EMSGSIZE larger than the MTU, and not
 * to be fragmented (DF).  That a handle or rule behind ours drops it is no
 * error.
 */
int wd_inject_outbound(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex);

/*
 * As if the packet had just arrived on ifindex.  Not for two threads at once.  What is meant for the
 * loopback device goes the outbound way, which ends there.  IPv6 packets of
 * more than 65,536 bytes arrive in fragments; without tcx (Linux 6.6) all of more
 * than 3,400 bytes, TCP in segments, and -EMSGSIZE where DF forbids it.
 * -EOPNOTSUPP the kernel has neither way; -ENODEV no such interface; -ENETDOWN it (or lo) is down;
 * -EAGAIN as above.
 */
int wd_inject_inbound(struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex);

/*
 * For a packet that the handle received, and for one that it is about to send
 * as new: an answer to what it received passes the user's stateful rules
 * (conntrack.h).
 */
void wd_inject_note(struct wd_inject *inject, const struct wd_packet *received, bool tracked);
void wd_inject_expect(struct wd_inject *inject, const struct wd_packet *answer, int64_t now);

/* After -EAGAIN for that packet: until there is room, or timeout_ms are over. */
void wd_inject_wait(const struct wd_inject *inject, const struct wd_packet *packet, bool outbound, int timeout_ms);

#endif
