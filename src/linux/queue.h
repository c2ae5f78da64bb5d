/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The packets of one diverting handle in one kernel queue, from the moment the
 * kernel hands them over until their fate is certain:
 *
 *   kernel --pull--> ready --recv--> held --send--> sent --confirmed--> free
 *                      |               |              |
 *                  too many,       not sent in     flushed by the kernel:
 *                  too old:        time: dropped   injected from our copy
 *                  dropped
 *
 * One mutex guards it all.  Among the threads that want to receive one, the
 * reader, waits for the kernel; the others wait for it.  A tick, called by the
 * janitor thread, does what is due when the program calls nothing.
 */
#ifndef WD_LINUX_QUEUE_H
#define WD_LINUX_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "api/engine.h"
#include "linux/echo.h"
#include "linux/exact.h"
#include "linux/inbound.h"
#include "linux/inject.h"
#include "linux/nfqueue.h"
#include "linux/slot.h"
#include "linux/tails.h"
#include "linux/wait.h"

#define WD_QUEUE_PULL 64 /* packets taken out of the kernel with one call */

struct wd_queue_limits {
    uint32_t length;   /* packets not yet received, and packets held */
    uint32_t size;     /* bytes not yet received */
    int64_t time;      /* of a packet not yet received, 100 ns */
    int64_t hold_time; /* of a packet held, 100 ns */
};

struct wd_queue {
    pthread_mutex_t lock;
    pthread_cond_t followers;
    struct wd_pollable pollable; /* while packets are in ready, or receiving has ended: readable */
    struct wd_nfq nfq;
    int nat_fd;      /* nat.h, once it was needed; or -1 */
    bool has_reader; /* one thread waits in recvmmsg() */
    uint32_t waiters;
    bool shut_recv, shut_send, aborted;
    bool fail_open; /* what cannot be kept goes on */
    bool recv_only; /* what is received is never returned: dropped at once */
    bool unwatched; /* the janitor sleeps until the kernel has something: tell it when something is held */
    int kick_fd;    /* by this eventfd; -1: there is no janitor */

    struct wd_exact exact; /* positions: seq of messages that the kernel has answered */
    struct wd_inject *inject;
    struct wd_tails *tails; /* the queue's; NULL: packets of more than WD_NFQ_PAYLOAD_MAX bytes come cut */
    uint64_t tag;           /* of the handle, in every address */
    bool forward;           /* NETWORK_FORWARD: packets have no direction, new ones enter the forward path */
    uint8_t inbound_mac[WD_INBOUND_MAC_LEN];
    struct wd_queue_limits limits;

    struct wd_slot_pool pool;
    struct wd_slot_list ready, sent;
    uint64_t ready_bytes;
    struct wd_held held;
    struct wd_echoes echoes;
    uint32_t flushed;   /* of the last verdict that was looked at for echoes */
    uint32_t ack_count; /* verdicts since the last one for which a confirmation was asked */

    uint8_t *staging[WD_QUEUE_PULL];
    struct iovec iov[WD_QUEUE_PULL];
    struct mmsghdr msgs[WD_QUEUE_PULL];
    struct wd_nfq_batch batch; /* of verdicts, under the lock */

    WINDIVERT_EXT_STATS stats;
    uint64_t pulled;           /* packets, without those of the queue that takes aggregates apart */
    uint64_t uncounted;        /* of them: had come before, or come again in parts */
    struct wd_nfq_drops drops; /* as last read */
    uint64_t dropped, dropped_split;
};

/*
 * Allocated, and bound to an NFQUEUE where `bound` is set (else it only sends
 * new packets); -errno with *err.  wd_queue_free is NULL-safe.
 */
int wd_queue_new(const struct wd_queue_limits *limits, bool bound, struct wd_queue **ret_queue, struct wd_error *err);
void wd_queue_free(struct wd_queue *queue);
/* Binds one that was not; others may be sending by it. */
int wd_queue_bind(struct wd_queue *queue, struct wd_error *err);

/*
 * For send.c, under the lock.  accept gives the packet back to the kernel,
 * unchanged or with the slot's bytes, and keeps the slot until it is certain
 * that the kernel still had the packet; flush sends what was gathered; inject
 * sends a new packet, outbound with this mark; at NETWORK_FORWARD as if it had arrived, whatever outbound
 * says.
 */
void wd_queue_accept(struct wd_queue *queue, struct wd_slot *slot, bool changed);
void wd_queue_give_up(struct wd_queue *queue, struct wd_slot *slot); /* another packet takes its place: dropped */
void wd_queue_hold(struct wd_queue *queue, struct wd_slot *slot);    /* the program has it; the janitor knows */
int wd_queue_flush(struct wd_queue *queue);
void wd_queue_catch_up(struct wd_queue *queue); /* what went back may have come again: that is not to wait */
int wd_queue_inject(struct wd_queue *queue, const struct wd_packet *packet, bool outbound, uint32_t ifindex,
                    uint32_t mark);

/* Instead of the mutex: shows by the descriptor what is in ready. */
void wd_queue_unlock(struct wd_queue *queue);

int wd_queue_recv(struct wd_queue *queue, struct wd_recv *io);
/* Of a bound queue; the descriptor is the queue's. */
int wd_queue_get_fd(struct wd_queue *queue, int *ret_fd, struct wd_error *err);
int wd_queue_send(struct wd_queue *queue, struct wd_send *io, struct wd_error *err);
/* What is installed for the queue is in its place: what comes was queued after what is counted now (echo.h). */
void wd_queue_set_shifts(struct wd_queue *queue, const _Atomic uint32_t *shifts);
/* What the newest packets are evaluated with, NULL: the kernel's programs are exact; set now.  Returns what it was. */
const struct wd_prog *wd_queue_set_exact(struct wd_queue *queue, const struct wd_prog *exact);
/* Takes former: what is in the kernel's queue by now is evaluated as it was until now, the rest by former->then. */
void wd_queue_swap(struct wd_queue *queue, struct wd_former *former);
void wd_queue_set_limits(struct wd_queue *queue, const struct wd_queue_limits *limits);

/* Nothing new arrives any more: what is queued can be received, then -ENODATA. */
void wd_queue_shut_recv(struct wd_queue *queue);
void wd_queue_shut_send(struct wd_queue *queue);
/* Every call returns -ECANCELED from now on. */
void wd_queue_abort(struct wd_queue *queue);
/* After abort, when nobody is inside: what was not received goes on untouched, what is held is dropped. */
void wd_queue_drain(struct wd_queue *queue);

/* The janitor goes to sleep on this queue (unless something became due meanwhile: false), and is told by kick_fd. */
bool wd_queue_unwatch(struct wd_queue *queue, int kick_fd);
/* Is there something to do for a janitor that slept? */
bool wd_queue_wants_watch(struct wd_queue *queue);

/*
 * Does what is due.  Returns the next deadline in wd_now() units, INT64_MAX:
 * nothing is held; lowers *interval to the time after which new deadlines may
 * have come up.
 */
int64_t wd_queue_tick(struct wd_queue *queue, int64_t now, int64_t *interval);

void wd_queue_close_fds(struct wd_queue *queue); /* in a forked child */
/* matched: counter of the programs, in which every packet is that they let through to this queue. */
void wd_queue_get_stats(struct wd_queue *queue, const uint64_t *matched, WINDIVERT_EXT_STATS *ret_stats);
int wd_queue_set_fail_open(struct wd_queue *queue, bool open, struct wd_error *err);

#endif
