/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "queue.h"

#include <errno.h>
#include <limits.h>
#include <linux/netfilter.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/gen.h"
#include "core/cksum.h"
#include "core/packet.h"
#include "core/ttl.h"
#include "linux/addrtag.h"
#include "linux/nat.h"

#define ACK_EVERY 256   /* verdicts between two confirmations that are asked for */
#define VERIFY_MAX 2048 /* transport checksums of longer packets are not verified */
#define RECOVER_WAIT_MS 20
#define PULLS_PER_TICK 64  /* of WD_QUEUE_PULL messages */
#define LOOPBACK_IFINDEX 1 /* in every network namespace */

static void
ready_append(struct wd_queue *queue, struct wd_slot *slot)
{
    wd_slot_append(&queue->ready, slot);
    queue->ready_bytes += slot->len;
}

static void
ready_remove(struct wd_queue *queue, struct wd_slot *slot)
{
    wd_slot_remove(&queue->ready, slot);
    queue->ready_bytes -= slot->len;
}

/* ---- Verdicts ----------------------------------------------------------- */

/* Of what went back since the last time, which was queued before a hook was put in front of ours? */
static void
expect_echoes(struct wd_queue *queue)
{
    uint32_t now = wd_echoes_now(&queue->echoes);

    for (const struct wd_slot *slot = queue->sent.last; slot && (int32_t)(slot->seq - queue->flushed) > 0;
         slot = slot->prev)
        if (slot->delivered && slot->shift != now)
            wd_echoes_expect(&queue->echoes, slot->data, slot->cap_len, slot->seq, wd_now());
    queue->flushed = queue->nfq.seq;
}

int
wd_queue_flush(struct wd_queue *queue)
{
    int error = wd_nfq_batch_send(&queue->nfq, &queue->batch);

    expect_echoes(queue);
    return error;
}

static void
send_if_full(struct wd_queue *queue)
{
    if (wd_nfq_batch_full(&queue->batch))
        wd_queue_flush(queue);
}

static void
verdict_drop(struct wd_queue *queue, uint32_t id)
{
    wd_nfq_batch_add(&queue->nfq, &queue->batch, id, NF_DROP, NULL, 0, false);
    send_if_full(queue);
}

void
wd_queue_accept(struct wd_queue *queue, struct wd_slot *slot, bool changed)
{
    bool ack = ++queue->ack_count >= ACK_EVERY;

    if (ack)
        queue->ack_count = 0;
    slot->seq = wd_nfq_batch_add(&queue->nfq, &queue->batch, slot->id, NF_ACCEPT, changed ? slot->data : NULL,
                                 slot->cap_len, ack);
    wd_slot_append(&queue->sent, slot);
    send_if_full(queue);
}

/* ---- Confirmation ------------------------------------------------------- */

/* The kernel took every verdict up to seq. */
static void
confirm(struct wd_queue *queue, uint32_t seq)
{
    wd_echoes_confirm(&queue->echoes, seq);
    while (queue->sent.first && (int32_t)(queue->sent.first->seq - seq) <= 0) {
        struct wd_slot *slot = queue->sent.first;

        wd_slot_remove(&queue->sent, slot);
        wd_slot_put(&queue->pool, slot);
    }
}

int
wd_queue_inject(struct wd_queue *queue, const struct wd_packet *packet, bool outbound, uint32_t ifindex,
                uint32_t mark)
{
    if (!outbound || queue->forward)
        return wd_inject_inbound(queue->inject, packet, ifindex);
    wd_inject_set_mark(queue->inject, mark);
    return wd_inject_outbound(queue->inject, packet, ifindex);
}

/* Under the lock: waits a little for room in the socket's buffer. */
static int
inject_soon(struct wd_queue *queue, const struct wd_packet *packet, const struct wd_slot *slot)
{
    int error = wd_queue_inject(queue, packet, slot->outbound, slot->ifindex, slot->mark);

    if (error != -EAGAIN)
        return error;
    wd_inject_wait(queue->inject, packet, slot->outbound, RECOVER_WAIT_MS);
    return wd_queue_inject(queue, packet, slot->outbound, slot->ifindex, slot->mark);
}

static int
open_nat(void *arg)
{
    struct wd_queue *queue = arg;

    return wd_nat_open(&queue->nat_fd);
}

/* What arrives again meets the user's prerouting again. */
static void
undo_nat(struct wd_queue *queue, struct wd_slot *slot)
{
    if (queue->nat_fd < 0)
        wd_ruleset_inside(queue->inject->rules, open_nat, queue);
    if (queue->nat_fd >= 0)
        wd_nat_undo(queue->nat_fd, slot->data, slot->cap_len);
}

/* The kernel had dropped the packet (a flush of all queues, a device gone down): our copy takes its place. */
static void
recover(struct wd_queue *queue, struct wd_slot *slot)
{
    struct wd_packet packet;

    if (slot->csum_not_ready)
        wd_cksum_fill(slot->data, slot->cap_len, 0);
    if (queue->forward)
        wd_ttl_increment(slot->data, slot->cap_len);
    if (!slot->outbound)
        undo_nat(queue, slot);
    if (slot->cap_len == slot->len && wd_packet_parse(slot->data, slot->cap_len, &packet) &&
        inject_soon(queue, &packet, slot) == 0)
        queue->stats.Recovered++;
    else
        queue->stats.DropFlushed++;
}

static void
take_ack(struct wd_queue *queue, const struct wd_nfq_ack *ack)
{
    struct wd_slot *slot = queue->sent.first;

    wd_exact_pass32(&queue->exact, ack->seq);
    if (ack->error == 0) {
        confirm(queue, ack->seq);
        return;
    }
    while (slot && slot->seq != ack->seq)
        slot = slot->next;
    if (!slot)
        return; /* a drop: nothing is missed */
    wd_slot_remove(&queue->sent, slot);
    recover(queue, slot);
    wd_slot_put(&queue->pool, slot);
}

/* ---- From the kernel ---------------------------------------------------- */

static void
check_sums(struct wd_slot *slot, const struct wd_nfq_packet *nfq, const struct wd_packet *packet)
{
    struct wd_sums sums = {0};

    slot->ip_csum_ok = slot->tcp_csum_ok = slot->udp_csum_ok = false;
    if (packet->truncated)
        return;
    /* An inbound sum that is ready and not marked as unverified was verified by the device or the kernel. */
    if (!nfq->csum_not_ready && !nfq->csum_not_verified && !slot->outbound && !packet->fragment) {
        slot->ip_csum_ok = packet->version == 4 && wd_cksum_verify_ip(packet);
        slot->tcp_csum_ok = packet->l4 == WD_L4_TCP;
        slot->udp_csum_ok = packet->l4 == WD_L4_UDP;
        return;
    }
    wd_cksum_verify(packet, !nfq->csum_not_ready && packet->ip_len <= VERIFY_MAX, &sums);
    slot->ip_csum_ok = sums.ip;
    slot->tcp_csum_ok = sums.tcp;
    slot->udp_csum_ok = sums.udp;
}

static void
slot_address(const struct wd_queue *queue, const struct wd_slot *slot, WINDIVERT_ADDRESS *ret_addr)
{
    struct wd_addr_tag tag = {
        .handle = queue->tag,
        .packet_id = slot->id,
        .generation = slot->generation,
        .mark = slot->mark,
    };

    *ret_addr = (WINDIVERT_ADDRESS){
        .Timestamp = slot->timestamp,
        .Layer = queue->forward ? WINDIVERT_LAYER_NETWORK_FORWARD : WINDIVERT_LAYER_NETWORK,
        .Event = WINDIVERT_EVENT_NETWORK_PACKET,
        .Outbound = slot->outbound,
        .Loopback = slot->loopback,
        .Impostor = slot->impostor,
        .IPv6 = slot->ipv6,
        .IPChecksum = slot->ip_csum_ok,
        .TCPChecksum = slot->tcp_csum_ok,
        .UDPChecksum = slot->udp_csum_ok,
        .Network.IfIdx = slot->ifindex,
    };
    wd_addr_tag_put(ret_addr, &tag);
}

static bool
matches(const struct wd_queue *queue, const struct wd_slot *slot, const struct wd_packet *packet)
{
    WINDIVERT_ADDRESS addr;

    if (!queue->exact.prog)
        return true;
    slot_address(queue, slot, &addr);
    return wd_prog_eval(queue->exact.prog, packet, &addr);
}

/* Copies a small packet; of a large one the slot takes the buffer itself, and the queue a fresh one. */
static bool
slot_fill(struct wd_queue *queue, struct wd_slot *slot, const struct wd_nfq_packet *nfq, unsigned int index)
{
    if (nfq->cap_len > sizeof(slot->small)) {
        uint8_t *fresh = wd_slot_big_get(&queue->pool);

        if (!fresh)
            return false;
        slot->big = queue->staging[index];
        slot->data = nfq->payload;
        queue->staging[index] = fresh;
        queue->iov[index].iov_base = fresh;
    } else {
        memcpy(slot->small, nfq->payload, nfq->cap_len);
    }
    slot->id = nfq->id;
    slot->len = nfq->len;
    slot->cap_len = nfq->cap_len;
    slot->outbound = nfq->hook == NF_INET_LOCAL_OUT;
    slot->mark = nfq->mark;
    slot->ifindex = slot->outbound ? nfq->outdev : nfq->indev;
    slot->loopback = slot->ifindex == LOOPBACK_IFINDEX && !queue->forward;
    slot->csum_not_ready = nfq->csum_not_ready;
    slot->impostor = (nfq->priority & WD_TAG_SO_PRIORITY_MASK) == WD_TAG_SO_PRIORITY ||
                     (nfq->hw_source && memcmp(nfq->hw_source, queue->inbound_mac, WD_INBOUND_MAC_LEN) == 0);
    return true;
}

void
wd_queue_give_up(struct wd_queue *queue, struct wd_slot *slot)
{
    verdict_drop(queue, slot->id);
    wd_slot_put(&queue->pool, slot);
}

static void
drop_unread(struct wd_queue *queue, struct wd_slot *slot, UINT64 *counter)
{
    ++*counter;
    wd_queue_give_up(queue, slot);
}

/* The same of a packet that the queue cannot keep: it may go on instead. */
static void
refuse(struct wd_queue *queue, struct wd_slot *slot, UINT64 *counter)
{
    if (!queue->fail_open) {
        drop_unread(queue, slot, counter);
        return;
    }
    queue->stats.PassedOpen++;
    wd_queue_accept(queue, slot, false);
}

/*
 * Datagrams that were sent, or came in, as one (UDP_SEGMENT): the program is
 * given each, as no program could know where one ends, and neither the kernel
 * nor a receiver what to make of them changed or as a new packet.
 */
static bool
is_datagrams(const struct wd_nfq_packet *nfq)
{
    struct wd_packet packet;

    return nfq->gso && wd_packet_parse(nfq->payload, nfq->cap_len, &packet) && packet.l4 == WD_L4_UDP;
}

static void
split(struct wd_queue *queue, const struct wd_nfq_packet *nfq)
{
    queue->pulled++;
    queue->uncounted++;
    wd_nfq_batch_split(&queue->nfq, &queue->batch, nfq->id);
    send_if_full(queue);
}

static void
take_packet(struct wd_queue *queue, struct wd_nfq_packet *nfq, unsigned int index, int64_t now)
{
    struct wd_slot *slot = wd_slot_get(&queue->pool);
    struct wd_packet packet;

    queue->pulled++;
    if (nfq->cap_len == WD_TAIL_FROM && queue->tails && wd_tails_complete(queue->tails, nfq->payload, nfq->len))
        nfq->cap_len = nfq->len;
    if (!slot || !slot_fill(queue, slot, nfq, index)) {
        queue->stats.DropBuffer++;
        verdict_drop(queue, nfq->id);
        if (slot)
            wd_slot_put(&queue->pool, slot);
        return;
    }
    slot->timestamp = now;
    slot->shift = wd_echoes_stamp(&queue->echoes);
    slot->delivered = false;
    if (wd_echoes_take(&queue->echoes, slot->data, slot->cap_len, now)) {
        queue->uncounted++;
        wd_queue_accept(queue, slot, false);
        return;
    }
    if (!wd_packet_parse(slot->data, slot->cap_len, &packet)) {
        queue->stats.Unmatched++;
        wd_queue_accept(queue, slot, false);
        return;
    }
    slot->ipv6 = packet.version == 6;
    check_sums(slot, nfq, &packet);
    if (!matches(queue, slot, &packet)) {
        queue->stats.Unmatched++;
        wd_queue_accept(queue, slot, false);
    } else if (queue->ready.count >= queue->limits.length) {
        refuse(queue, slot, &queue->stats.DropLength);
    } else if (queue->ready_bytes + slot->len > queue->limits.size) {
        refuse(queue, slot, &queue->stats.DropSize);
    } else {
        if (!queue->recv_only)
            wd_inject_note(queue->inject, &packet, !slot->outbound);
        ready_append(queue, slot);
    }
}

/* A segment of an aggregate that was too large for us: as a packet of its own it goes through the rules again. */
static void
repeat(struct wd_queue *queue, const struct wd_nfq_packet *nfq)
{
    if (nfq->queue != queue->nfq.split)
        return;
    wd_nfq_batch_repeat(&queue->nfq, &queue->batch, nfq->id);
    send_if_full(queue);
}

/*
 * What came with one recvmmsg(); seq is of the last verdict sent before it.
 * Where the kernel had fewer messages than were asked for, every answer to
 * those verdicts has been read, and so what was not refused is confirmed.
 */
static void
take_messages(struct wd_queue *queue, int count, uint32_t seq)
{
    struct wd_nfq_packet packet;
    struct wd_nfq_ack ack;
    int64_t now = wd_now();

    wd_echoes_look(&queue->echoes, now, seq);
    for (int i = 0; i < count; i++) {
        switch (wd_nfq_parse(queue->iov[i].iov_base, queue->msgs[i].msg_len, &packet, &ack)) {
        case WD_NFQ_PACKET:
            if (is_datagrams(&packet))
                split(queue, &packet);
            else
                take_packet(queue, &packet, (unsigned int)i, now);
            break;
        case WD_NFQ_ACK:
            take_ack(queue, &ack);
            break;
        case WD_NFQ_META:
            repeat(queue, &packet);
            break;
        case WD_NFQ_OTHER:
            break;
        }
    }
    if (count < WD_QUEUE_PULL) {
        confirm(queue, seq);
        wd_echoes_drained(&queue->echoes, now);
    }
    wd_queue_flush(queue);
}

/* Takes up to WD_QUEUE_PULL messages without waiting; returns how many there were. */
static int
pull(struct wd_queue *queue)
{
    uint32_t seq;
    int got;

    wd_queue_flush(queue);
    seq = queue->nfq.seq;
    do
        got = recvmmsg(queue->nfq.fd, queue->msgs, WD_QUEUE_PULL, MSG_DONTWAIT, NULL);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno != EAGAIN)
        return 0;
    take_messages(queue, got < 0 ? 0 : got, seq);
    return got < 0 ? 0 : got;
}

void
wd_queue_catch_up(struct wd_queue *queue)
{
    if (queue->echoes.fresh && !queue->has_reader)
        pull(queue);
    queue->echoes.fresh = false;
}

void
wd_queue_unlock(struct wd_queue *queue)
{
    wd_pollable_show(&queue->pollable, queue->ready.first || queue->shut_recv || queue->aborted);
    pthread_mutex_unlock(&queue->lock);
}

/* The same as the reader, who waits, without the lock, until there is something. */
static void
wait_and_pull(struct wd_queue *queue, int64_t deadline)
{
    struct pollfd readable = {.fd = queue->nfq.fd, .events = POLLIN};
    uint32_t seq;
    int got;

    wd_queue_flush(queue);
    seq = queue->nfq.seq;
    queue->has_reader = true;
    wd_queue_unlock(queue);
    if (deadline)
        wd_wait_poll(&readable, 1, deadline);
    got = recvmmsg(queue->nfq.fd, queue->msgs, WD_QUEUE_PULL, deadline ? MSG_DONTWAIT : MSG_WAITFORONE, NULL);
    pthread_mutex_lock(&queue->lock);
    queue->has_reader = false;
    if (got > 0)
        take_messages(queue, got, seq);
}

/* ---- Time --------------------------------------------------------------- */

static void
expire_ready(struct wd_queue *queue, int64_t now)
{
    while (queue->ready.first && queue->ready.first->timestamp + queue->limits.time < now) {
        struct wd_slot *slot = queue->ready.first;

        ready_remove(queue, slot);
        refuse(queue, slot, &queue->stats.DropTime);
    }
}

static void
drop_held(struct wd_queue *queue, struct wd_slot *slot)
{
    wd_held_remove(&queue->held, slot);
    drop_unread(queue, slot, &queue->stats.NotReturned);
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
        if (queue->has_reader || pull(queue) < WD_QUEUE_PULL)
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
        slot_address(queue, slot, &io->addr[io->ret_count]);
    io->ret_count++;
    ready_remove(queue, slot);
    queue->stats.Delivered++;
    slot->held_since = now;
    slot->delivered = true;
    if (queue->recv_only) {
        drop_unread(queue, slot, &queue->stats.NotReturned);
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
            wait_and_pull(queue, deadline);
        else if (pull(queue) == 0)
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

        ready_remove(queue, slot);
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
        got = pull(queue);
        release_ready(queue);
    } while (got > 0);
    while (queue->held.list.first)
        drop_held(queue, queue->held.list.first);
    while (pull(queue) > 0) /* answers to the last verdicts */
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
