/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "queue_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PULLS_PER_TICK 64 /* of WD_QUEUE_PULL messages */

/* ---- Time --------------------------------------------------------------- */

static void
expire_ready(struct wd_queue *queue, int64_t now)
{
    while (queue->ready.first && queue->ready.first->timestamp + queue->limits.time < now) {
        struct wd_slot *slot = queue->ready.first;

        wd_queue_unready(queue, slot);
        wd_queue_refuse(queue, slot, &queue->stats.DropTime);
    }
}

static void
drop_held(struct wd_queue *queue, struct wd_slot *slot)
{
    wd_held_remove(&queue->held, slot);
    wd_queue_drop(queue, slot, &queue->stats.NotReturned);
}

static void
expire_held(struct wd_queue *queue, int64_t now)
{
    while (queue->held.list.first && queue->held.list.first->held_since + queue->limits.hold_time <= now)
        drop_held(queue, queue->held.list.first);
}

/*
 * A waiting reader pulls itself.  What does not fit is dropped as its length
 * demands.  False: nothing is left; true: more comes than may be taken at once,
 * as others wait for the lock and for the janitor.
 */
static bool
pull_all(struct wd_queue *queue)
{
    for (unsigned int i = 0; i < PULLS_PER_TICK; i++)
        if (queue->has_reader || wd_queue_pull(queue) < WD_QUEUE_PULL)
            return false;
    return true;
}

int64_t
wd_queue_tick(struct wd_queue *queue, int64_t now, int64_t *interval)
{
    int64_t next = INT64_MAX;
    bool more;

    pthread_mutex_lock(&queue->lock);
    more = pull_all(queue);
    expire_ready(queue, now);
    expire_held(queue, now);
    wd_queue_flush(queue);
    if (queue->waiters && queue->ready.first)
        pthread_cond_signal(&queue->followers);
    if (more)
        next = now;
    else if (queue->held.list.first)
        next = queue->held.list.first->held_since + queue->limits.hold_time;
    else if (!queue->ready.first && !queue->sent.first)
        wd_slot_pool_trim(&queue->pool);
    if (queue->limits.hold_time < *interval)
        *interval = queue->limits.hold_time;
    wd_queue_unlock(queue);
    return next;
}

bool
wd_queue_unwatch(struct wd_queue *queue, int kick_fd)
{
    bool idle;

    pthread_mutex_lock(&queue->lock);
    /* A waiting reader reads the answers to what was sent; if it leaves anything undone it kicks. */
    idle = !queue->held.list.first && !queue->ready.first && (!queue->sent.first || queue->has_reader);
    queue->unwatched = idle;
    queue->kick_fd = kick_fd;
    pthread_mutex_unlock(&queue->lock);
    return idle;
}

bool
wd_queue_wants_watch(struct wd_queue *queue)
{
    bool wants;

    pthread_mutex_lock(&queue->lock);
    wants = !queue->unwatched;
    pthread_mutex_unlock(&queue->lock);
    return wants;
}

/* Something is held or waits for confirmation: the janitor has to look after it. */
static void
kick(struct wd_queue *queue)
{
    const uint64_t one = 1;

    if (!queue->unwatched)
        return;
    queue->unwatched = false;
    if (queue->kick_fd >= 0 && write(queue->kick_fd, &one, sizeof(one)) < 0) {
        /* Cannot fail below 2^64 - 1 writes. */
    }
}

void
wd_queue_hold(struct wd_queue *queue, struct wd_slot *slot)
{
    wd_held_add(&queue->held, slot);
    kick(queue);
}

/* ---- Receiving ---------------------------------------------------------- */

/* Copies one packet out; false: it does not fit any more, or is the last that may be in this batch. */
static bool
deliver(struct wd_queue *queue, struct wd_slot *slot, struct wd_recv *io, int64_t now)
{
    uint32_t room = io->buf_len - io->ret_len;
    uint32_t len = slot->cap_len;
    bool whole = slot->cap_len == slot->len;

    if (io->buf && len > room) {
        if (io->ret_count)
            return false;
        len = room;
    }
    if (io->buf) {
        memcpy(io->buf + io->ret_len, slot->data, len);
        io->ret_len += len;
    }
    if (io->addr)
        wd_queue_address(queue, slot, &io->addr[io->ret_count]);
    io->ret_count++;
    wd_queue_unready(queue, slot);
    queue->stats.Delivered++;
    slot->held_since = now;
    slot->delivered = true;
    if (queue->recv_only) {
        wd_queue_drop(queue, slot, &queue->stats.NotReturned);
        return whole;
    }
    if (queue->held.list.count >= queue->limits.length)
        drop_held(queue, queue->held.list.first);
    wd_queue_hold(queue, slot);
    /* A packet that is cut must be the last of a batch, or its length field would hide the next. */
    return whole;
}

static int
deliver_ready(struct wd_queue *queue, struct wd_recv *io)
{
    int64_t now = wd_now();
    uint32_t first_len = queue->ready.first->cap_len;

    expire_held(queue, now);
    while (queue->ready.first && io->ret_count < io->addr_count && deliver(queue, queue->ready.first, io, now))
        ;
    wd_queue_flush(queue);
    return io->buf && first_len > io->buf_len ? -EMSGSIZE : 0;
}

static void
wait_for_reader(struct wd_queue *queue, int64_t deadline)
{
    wd_queue_flush(queue); /* of what was too old */
    wd_pollable_show(&queue->pollable, false);
    queue->waiters++;
    wd_wait_cond(&queue->followers, &queue->lock, deadline);
    queue->waiters--;
}

static int
wait_for_packet(struct wd_queue *queue, int64_t deadline)
{
    bool late;

    for (;;) {
        if (queue->aborted)
            return -ECANCELED;
        expire_ready(queue, wd_now());
        if (queue->ready.first)
            return 0;
        late = wd_wait_passed(deadline);
        if (queue->has_reader && late)
            return -ETIMEDOUT;
        if (queue->has_reader)
            wait_for_reader(queue, deadline);
        else if (!queue->shut_recv && !late)
            wd_queue_wait_and_pull(queue, deadline);
        else if (wd_queue_pull(queue) == 0)
            return queue->shut_recv ? -ENODATA : -ETIMEDOUT;
    }
}

int
wd_queue_recv(struct wd_queue *queue, struct wd_recv *io)
{
    int error;

    pthread_mutex_lock(&queue->lock);
    error = wait_for_packet(queue, io->deadline);
    if (!error)
        error = deliver_ready(queue, io);
    if (queue->ready.first || queue->sent.first)
        kick(queue);
    if (queue->waiters)
        pthread_cond_signal(&queue->followers); /* the next reader, or for what is left in ready */
    wd_queue_flush(queue);
    wd_queue_unlock(queue);
    return error;
}

int
wd_queue_get_fd(struct wd_queue *queue, int *ret_fd, struct wd_error *err)
{
    int error = 0;

    pthread_mutex_lock(&queue->lock);
    if (queue->pollable.epoll_fd < 0) {
        error = wd_pollable_open(&queue->pollable, err);
        if (!error)
            error = wd_pollable_add(&queue->pollable, queue->nfq.fd, err);
        if (error)
            wd_pollable_close(&queue->pollable);
    }
    if (!error)
        *ret_fd = queue->pollable.epoll_fd;
    wd_queue_unlock(queue);
    return error;
}

/* ---- Life --------------------------------------------------------------- */

static int
staging_new(struct wd_queue *queue)
{
    for (unsigned int i = 0; i < WD_QUEUE_PULL; i++) {
        if (!queue->staging[i])
            queue->staging[i] = malloc(WD_NFQ_MSG_MAX);
        if (!queue->staging[i])
            return -ENOMEM;
        queue->iov[i] = (struct iovec){.iov_base = queue->staging[i], .iov_len = WD_NFQ_MSG_MAX};
        queue->msgs[i].msg_hdr = (struct msghdr){.msg_iov = &queue->iov[i], .msg_iovlen = 1};
    }
    return 0;
}

/*
 * The kernel's own limit counts packets until their verdict.  It only has to
 * be out of the way of ours: unread, held, and what comes between two ticks.
 */
static uint32_t
kernel_maxlen(const struct wd_queue_limits *limits)
{
    return 3 * limits->length + 1024;
}

int
wd_queue_bind(struct wd_queue *queue, struct wd_error *err)
{
    int error;

    pthread_mutex_lock(&queue->lock);
    error = staging_new(queue);
    if (error)
        wd_error_set(err, error, NULL, "bind to an NFQUEUE: out of memory");
    else
        error = wd_nfq_open(&queue->nfq, kernel_maxlen(&queue->limits), err);
    pthread_mutex_unlock(&queue->lock);
    return error;
}

int
wd_queue_new(const struct wd_queue_limits *limits, bool bound, struct wd_queue **ret_queue, struct wd_error *err)
{
    struct wd_queue *queue = calloc(1, sizeof(*queue));
    int error = 0;

    if (!queue)
        return wd_error_set(err, -ENOMEM, NULL, "open: out of memory");
    pthread_mutex_init(&queue->lock, NULL);
    wd_wait_cond_init(&queue->followers);
    queue->pollable = WD_POLLABLE_NONE;
    queue->limits = *limits;
    queue->nfq.fd = queue->nfq.figures_fd = -1;
    queue->nat_fd = -1;
    queue->kick_fd = -1;
    wd_inbound_mac(queue->inbound_mac);
    if (bound)
        error = wd_queue_bind(queue, err);
    if (error) {
        wd_queue_free(queue);
        return error;
    }
    *ret_queue = queue;
    return 0;
}

static void
free_list(struct wd_queue *queue, struct wd_slot_list *list)
{
    while (list->first) {
        struct wd_slot *slot = list->first;

        wd_slot_remove(list, slot);
        wd_slot_put(&queue->pool, slot);
    }
}

void
wd_queue_close_fds(struct wd_queue *queue)
{
    wd_nfq_close(&queue->nfq);
    if (queue->nat_fd >= 0)
        close(queue->nat_fd);
    queue->nat_fd = -1;
    wd_pollable_close(&queue->pollable);
    if (queue->tails)
        wd_tails_close_fds(queue->tails);
}

void
wd_queue_free(struct wd_queue *queue)
{
    if (!queue)
        return;
    wd_queue_close_fds(queue);
    wd_tails_free(queue->tails);
    wd_echoes_free(&queue->echoes);
    wd_exact_free(&queue->exact);
    free_list(queue, &queue->ready);
    free_list(queue, &queue->held.list);
    free_list(queue, &queue->sent);
    wd_slot_pool_trim(&queue->pool);
    for (unsigned int i = 0; i < WD_QUEUE_PULL; i++)
        free(queue->staging[i]);
    pthread_cond_destroy(&queue->followers);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

/* The reader waits for a message: it gets one. */
static void
wake_all(struct wd_queue *queue)
{
    if (queue->nfq.fd >= 0)
        wd_nfq_wake(&queue->nfq);
    pthread_cond_broadcast(&queue->followers);
}

void
wd_queue_shut_recv(struct wd_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->shut_recv = true;
    wake_all(queue);
    wd_queue_unlock(queue);
}

void
wd_queue_shut_send(struct wd_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->shut_send = true;
    pthread_mutex_unlock(&queue->lock);
}

void
wd_queue_abort(struct wd_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->aborted = true;
    wake_all(queue);
    wd_queue_unlock(queue);
}

static void
release_ready(struct wd_queue *queue)
{
    while (queue->ready.first) {
        struct wd_slot *slot = queue->ready.first;

        wd_queue_unready(queue, slot);
        wd_queue_accept(queue, slot, false);
    }
    wd_queue_flush(queue);
}

void
wd_queue_drain(struct wd_queue *queue)
{
    int got;

    if (queue->nfq.fd < 0)
        return;
    pthread_mutex_lock(&queue->lock);
    queue->limits.length = UINT32_MAX;
    queue->limits.size = UINT32_MAX;
    do {
        got = wd_queue_pull(queue);
        release_ready(queue);
    } while (got > 0);
    while (queue->held.list.first)
        drop_held(queue, queue->held.list.first);
    while (wd_queue_pull(queue) > 0) /* answers to the last verdicts */
        release_ready(queue);
    pthread_mutex_unlock(&queue->lock);
}

void
wd_queue_set_shifts(struct wd_queue *queue, const _Atomic uint32_t *shifts)
{
    pthread_mutex_lock(&queue->lock);
    wd_echoes_start(&queue->echoes, shifts);
    pthread_mutex_unlock(&queue->lock);
}

const struct wd_prog *
wd_queue_set_exact(struct wd_queue *queue, const struct wd_prog *exact)
{
    const struct wd_prog *was;

    pthread_mutex_lock(&queue->lock);
    was = wd_exact_set(&queue->exact, exact);
    pthread_mutex_unlock(&queue->lock);
    return was;
}

/*
 * The kernel's answer to a message comes behind what it has queued by then.  If
 * the buffer has no room for the answer, that to a later message tells as well.
 */
void
wd_queue_swap(struct wd_queue *queue, struct wd_former *former)
{
    pthread_mutex_lock(&queue->lock);
    wd_queue_flush(queue);
    wd_nfq_wake(&queue->nfq);
    former->until = queue->nfq.seq;
    wd_exact_push(&queue->exact, former);
    pthread_mutex_unlock(&queue->lock);
}

void
wd_queue_set_limits(struct wd_queue *queue, const struct wd_queue_limits *limits)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->nfq.fd >= 0 && limits->length != queue->limits.length)
        wd_nfq_set_maxlen(&queue->nfq, kernel_maxlen(limits), NULL);
    queue->limits = *limits;
    pthread_mutex_unlock(&queue->lock);
}

int
wd_queue_set_fail_open(struct wd_queue *queue, bool open, struct wd_error *err)
{
    int error;

    pthread_mutex_lock(&queue->lock);
    error = wd_nfq_set_fail_open(&queue->nfq, open, err);
    if (!error)
        queue->fail_open = open;
    pthread_mutex_unlock(&queue->lock);
    return error;
}

/* The kernel's counters wrap at 32 bits. */
static void
read_drops(struct wd_queue *queue)
{
    struct wd_nfq_drops drops;

    if (wd_nfq_drops(&queue->nfq, &drops) < 0)
        return;
    queue->dropped += (uint32_t)(drops.queue - queue->drops.queue);
    queue->dropped_split += (uint32_t)(drops.split - queue->drops.split);
    queue->drops = drops;
}

/*
 * What the programs let through and what nobody has seen since is on its way; or
 * the kernel let it pass a queue that was full, where it was told to.  Segments that
 * the kernel could not queue were not counted yet.
 */
static void
add_up(struct wd_queue *queue, uint64_t matched, WINDIVERT_EXT_STATS *stats)
{
    uint64_t known = queue->pulled + queue->dropped, missing = matched > known ? matched - known : 0;

    stats->DropBuffer += queue->dropped + queue->dropped_split;
    stats->Queued = queue->ready.count;
    if (queue->fail_open)
        stats->PassedOpen += missing;
    else
        stats->Queued += missing;
    stats->Matched = known + missing + queue->dropped_split - queue->uncounted - stats->Unmatched;
}

void
wd_queue_get_stats(struct wd_queue *queue, const uint64_t *matched, WINDIVERT_EXT_STATS *ret_stats)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->nfq.fd >= 0 && !queue->aborted) {
        pull_all(queue);
        read_drops(queue);
    }
    *ret_stats = queue->stats;
    ret_stats->Held = queue->held.list.count;
    if (queue->nfq.fd >= 0)
        add_up(queue, __atomic_load_n(matched, __ATOMIC_RELAXED), ret_stats);
    if (queue->waiters && queue->ready.first)
        pthread_cond_signal(&queue->followers);
    if (queue->ready.first || queue->sent.first)
        kick(queue);
    wd_queue_unlock(queue);
}
