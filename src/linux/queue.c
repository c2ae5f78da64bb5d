/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "queue.h"

#include <errno.h>
#include <limits.h>
#include <linux/netfilter.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "bpf/gen.h"
#include "core/cksum.h"
#include "core/packet.h"
#include "core/ttl.h"
#include "linux/addrtag.h"

#define ACK_EVERY 256          /* verdicts between two confirmations that are asked for */
#define VERIFY_MAX 2048        /* transport checksums of longer packets are not verified */
#define FREE_SLOTS_KEPT 1024   /* beyond, and when idle, memory goes back */
#define LOOPBACK_IFINDEX 1     /* in every network namespace */

int64_t
wd_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 10000000 + now.tv_nsec / 100;
}

/* ---- Lists -------------------------------------------------------------- */

static void
list_append(struct wd_slot_list *list, struct wd_slot *slot)
{
    slot->prev = list->last;
    slot->next = NULL;
    if (list->last)
        list->last->next = slot;
    else
        list->first = slot;
    list->last = slot;
    list->count++;
}

static void
list_remove(struct wd_slot_list *list, struct wd_slot *slot)
{
    if (slot->prev)
        slot->prev->next = slot->next;
    else
        list->first = slot->next;
    if (slot->next)
        slot->next->prev = slot->prev;
    else
        list->last = slot->prev;
    list->count--;
}

static void
ready_append(struct wd_queue *queue, struct wd_slot *slot)
{
    list_append(&queue->ready, slot);
    queue->ready_bytes += slot->len;
}

static void
ready_remove(struct wd_queue *queue, struct wd_slot *slot)
{
    list_remove(&queue->ready, slot);
    queue->ready_bytes -= slot->len;
}

/* ---- Slots and buffers -------------------------------------------------- */

static uint8_t *
big_get(struct wd_queue *queue)
{
    if (queue->free_big_count)
        return queue->free_big[--queue->free_big_count];
    return malloc(WD_NFQ_MSG_MAX);
}

static void
big_put(struct wd_queue *queue, uint8_t *big)
{
    if (!big)
        return;
    if (queue->free_big_count < WD_QUEUE_PULL)
        queue->free_big[queue->free_big_count++] = big;
    else
        free(big);
}

static struct wd_slot *
slot_get(struct wd_queue *queue)
{
    struct wd_slot *slot = queue->free_slots;

    if (slot) {
        queue->free_slots = slot->next;
        queue->free_count--;
    } else {
        slot = malloc(sizeof(*slot));
        if (!slot)
            return NULL;
    }
    slot->big = NULL;
    slot->data = slot->small;
    slot->generation = ++queue->generations;
    return slot;
}

static void
slot_put(struct wd_queue *queue, struct wd_slot *slot)
{
    big_put(queue, slot->big);
    slot->big = NULL;
    if (queue->free_count >= FREE_SLOTS_KEPT) {
        free(slot);
        return;
    }
    slot->next = queue->free_slots;
    queue->free_slots = slot;
    queue->free_count++;
}

static size_t
slot_room(const struct wd_slot *slot)
{
    return slot->big ? (size_t)(slot->big + WD_NFQ_MSG_MAX - slot->data) : sizeof(slot->small);
}

/* Replaces the slot's bytes; false: no memory. */
static bool
slot_store(struct wd_queue *queue, struct wd_slot *slot, const uint8_t *data, size_t len)
{
    if (slot_room(slot) < len) {
        uint8_t *big = big_get(queue);

        if (!big)
            return false;
        big_put(queue, slot->big);
        slot->big = big;
        slot->data = big;
    }
    memcpy(slot->data, data, len);
    slot->cap_len = slot->len = (uint32_t)len;
    return true;
}

static void
trim_memory(struct wd_queue *queue)
{
    while (queue->free_slots) {
        struct wd_slot *next = queue->free_slots->next;

        free(queue->free_slots);
        queue->free_slots = next;
    }
    queue->free_count = 0;
    while (queue->free_big_count)
        free(queue->free_big[--queue->free_big_count]);
}

/* ---- Held packets, by id ------------------------------------------------ */

static struct wd_slot **
held_bucket(struct wd_queue *queue, uint32_t id)
{
    return &queue->hash[id % WD_HASH_SIZE];
}

static void
held_add(struct wd_queue *queue, struct wd_slot *slot)
{
    struct wd_slot **bucket = held_bucket(queue, slot->id);

    slot->hash_next = *bucket;
    *bucket = slot;
    list_append(&queue->held, slot);
}

static void
held_remove(struct wd_queue *queue, struct wd_slot *slot)
{
    struct wd_slot **link = held_bucket(queue, slot->id);

    while (*link != slot)
        link = &(*link)->hash_next;
    *link = slot->hash_next;
    list_remove(&queue->held, slot);
}

static struct wd_slot *
held_find(struct wd_queue *queue, const struct wd_addr_tag *tag)
{
    struct wd_slot *slot = *held_bucket(queue, tag->packet_id);

    while (slot && (slot->id != tag->packet_id || slot->generation != tag->generation))
        slot = slot->hash_next;
    return slot;
}

/* ---- Verdicts ----------------------------------------------------------- */

/*
 * Gives the packet back to the kernel, unchanged or with the slot's bytes, and
 * keeps the slot until it is certain that the kernel had the packet still.
 */
static void
verdict_accept(struct wd_queue *queue, struct wd_slot *slot, bool changed)
{
    bool ack = ++queue->ack_count >= ACK_EVERY;

    if (ack)
        queue->ack_count = 0;
    slot->seq = wd_nfq_batch_add(&queue->nfq, &queue->batch, slot->id, NF_ACCEPT, changed ? slot->data : NULL,
                                 slot->cap_len, ack);
    list_append(&queue->sent, slot);
    if (wd_nfq_batch_full(&queue->batch))
        wd_nfq_batch_send(&queue->nfq, &queue->batch);
}

static void
verdict_drop(struct wd_queue *queue, struct wd_slot *slot)
{
    wd_nfq_batch_add(&queue->nfq, &queue->batch, slot->id, NF_DROP, NULL, 0, false);
    slot_put(queue, slot);
    if (wd_nfq_batch_full(&queue->batch))
        wd_nfq_batch_send(&queue->nfq, &queue->batch);
}

static int
verdicts_flush(struct wd_queue *queue)
{
    return wd_nfq_batch_send(&queue->nfq, &queue->batch);
}

/* ---- Confirmation ------------------------------------------------------- */

/* The kernel took every verdict up to seq. */
static void
confirm(struct wd_queue *queue, uint32_t seq)
{
    while (queue->sent.first && (int32_t)(queue->sent.first->seq - seq) <= 0) {
        struct wd_slot *slot = queue->sent.first;

        list_remove(&queue->sent, slot);
        slot_put(queue, slot);
    }
}

/* The kernel had dropped the packet (a flush of all queues, a device gone down): our copy takes its place. */
static void
recover(struct wd_queue *queue, struct wd_slot *slot)
{
    struct wd_packet packet;

    if (slot->outbound && slot->cap_len == slot->len && wd_packet_parse(slot->data, slot->cap_len, &packet) &&
        wd_inject_outbound(queue->inject, &packet, slot->ifindex) == 0)
        queue->stats.Recovered++;
    else
        queue->stats.DropFlushed++;
}

static void
take_ack(struct wd_queue *queue, const struct wd_nfq_ack *ack)
{
    struct wd_slot *slot = queue->sent.first;

    if (ack->error == 0) {
        confirm(queue, ack->seq);
        return;
    }
    while (slot && slot->seq != ack->seq)
        slot = slot->next;
    if (!slot)
        return; /* a drop: nothing is missed */
    list_remove(&queue->sent, slot);
    recover(queue, slot);
    slot_put(queue, slot);
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
    };

    *ret_addr = (WINDIVERT_ADDRESS){
        .Timestamp = slot->timestamp,
        .Layer = WINDIVERT_LAYER_NETWORK,
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

    if (!queue->exact)
        return true;
    slot_address(queue, slot, &addr);
    return wd_prog_eval(queue->exact, packet, &addr);
}

/* Copies a small packet; of a large one the slot takes the buffer itself, and the queue a fresh one. */
static bool
slot_fill(struct wd_queue *queue, struct wd_slot *slot, const struct wd_nfq_packet *nfq, unsigned int index)
{
    if (nfq->cap_len > sizeof(slot->small)) {
        uint8_t *fresh = big_get(queue);

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
    slot->ifindex = slot->outbound ? nfq->outdev : nfq->indev;
    slot->loopback = slot->ifindex == LOOPBACK_IFINDEX;
    slot->impostor = (nfq->priority & WD_TAG_SO_PRIORITY_MASK) == WD_TAG_SO_PRIORITY;
    return true;
}

static void
drop_unread(struct wd_queue *queue, struct wd_slot *slot, UINT64 *counter)
{
    ++*counter;
    verdict_drop(queue, slot);
}

static void
take_packet(struct wd_queue *queue, const struct wd_nfq_packet *nfq, unsigned int index, int64_t now)
{
    struct wd_slot *slot = slot_get(queue);
    struct wd_packet packet;

    if (!slot || !slot_fill(queue, slot, nfq, index)) {
        queue->stats.DropBuffer++;
        wd_nfq_batch_add(&queue->nfq, &queue->batch, nfq->id, NF_DROP, NULL, 0, false);
        if (slot)
            slot_put(queue, slot);
        return;
    }
    slot->timestamp = now;
    if (!wd_packet_parse(slot->data, slot->cap_len, &packet)) {
        queue->stats.Unmatched++;
        verdict_accept(queue, slot, false);
        return;
    }
    slot->ipv6 = packet.version == 6;
    check_sums(slot, nfq, &packet);
    if (!matches(queue, slot, &packet)) {
        queue->stats.Unmatched++;
        verdict_accept(queue, slot, false);
    } else if (queue->ready.count >= queue->limits.length || queue->ready_bytes + slot->len > queue->limits.size) {
        drop_unread(queue, slot, &queue->stats.DropLength);
    } else {
        ready_append(queue, slot);
    }
}

/*
 * Takes up to WD_QUEUE_PULL messages without waiting; returns how many there
 * were.  Where the kernel had fewer than asked for, every answer to a verdict
 * sent before has been read, and so what was not refused is confirmed.
 */
static int
pull(struct wd_queue *queue)
{
    uint32_t seq = queue->nfq.seq;
    struct wd_nfq_packet packet;
    struct wd_nfq_ack ack;
    int64_t now;
    int got;

    verdicts_flush(queue);
    do
        got = recvmmsg(queue->nfq.fd, queue->msgs, WD_QUEUE_PULL, MSG_DONTWAIT, NULL);
    while (got < 0 && errno == EINTR);
    if (got <= 0) {
        if (got == 0 || errno == EAGAIN)
            confirm(queue, seq);
        return 0;
    }
    now = wd_now();
    for (int i = 0; i < got; i++) {
        switch (wd_nfq_parse(queue->iov[i].iov_base, queue->msgs[i].msg_len, &packet, &ack)) {
        case WD_NFQ_PACKET:
            take_packet(queue, &packet, (unsigned int)i, now);
            break;
        case WD_NFQ_ACK:
            take_ack(queue, &ack);
            break;
        case WD_NFQ_OTHER:
            break;
        }
    }
    if (got < WD_QUEUE_PULL)
        confirm(queue, seq);
    verdicts_flush(queue);
    return got;
}

/* ---- Time --------------------------------------------------------------- */

static void
expire_ready(struct wd_queue *queue, int64_t now)
{
    while (queue->ready.first && queue->ready.first->timestamp + queue->limits.time < now) {
        struct wd_slot *slot = queue->ready.first;

        ready_remove(queue, slot);
        drop_unread(queue, slot, &queue->stats.DropTime);
    }
}

static void
drop_held(struct wd_queue *queue, struct wd_slot *slot)
{
    held_remove(queue, slot);
    drop_unread(queue, slot, &queue->stats.NotReturned);
}

static void
expire_held(struct wd_queue *queue, int64_t now)
{
    while (queue->held.first && queue->held.first->held_since + queue->limits.hold_time <= now)
        drop_held(queue, queue->held.first);
}

int64_t
wd_queue_tick(struct wd_queue *queue, int64_t now, int64_t *interval)
{
    int64_t next = INT64_MAX;

    pthread_mutex_lock(&queue->lock);
    /* A waiting reader pulls itself.  What does not fit is dropped as its length demands. */
    while (!queue->has_reader && pull(queue) == WD_QUEUE_PULL)
        ;
    expire_ready(queue, now);
    expire_held(queue, now);
    verdicts_flush(queue);
    if (queue->waiters && queue->ready.first)
        pthread_cond_signal(&queue->followers);
    if (queue->held.first)
        next = queue->held.first->held_since + queue->limits.hold_time;
    else if (!queue->ready.first && !queue->sent.first)
        trim_memory(queue);
    if (queue->limits.hold_time < *interval)
        *interval = queue->limits.hold_time;
    pthread_mutex_unlock(&queue->lock);
    return next;
}

/* ---- Receiving ---------------------------------------------------------- */

/* Copies one packet out; false: it does not fit any more. */
static bool
deliver(struct wd_queue *queue, struct wd_slot *slot, struct wd_recv *io, int64_t now)
{
    uint32_t room = io->buf_len - io->ret_len;
    uint32_t len = slot->cap_len;

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
    if (queue->recv_only) {
        drop_unread(queue, slot, &queue->stats.NotReturned);
        return true;
    }
    if (queue->held.count >= queue->limits.length)
        drop_held(queue, queue->held.first);
    held_add(queue, slot);
    return true;
}

static int
deliver_ready(struct wd_queue *queue, struct wd_recv *io)
{
    int64_t now = wd_now();
    uint32_t first_len = queue->ready.first->cap_len;

    expire_held(queue, now);
    while (queue->ready.first && io->ret_count < io->addr_count && deliver(queue, queue->ready.first, io, now))
        ;
    verdicts_flush(queue);
    return io->buf && first_len > io->buf_len ? -EMSGSIZE : 0;
}

/* The reader's wait, without the lock. */
static void
wait_for_kernel(struct wd_queue *queue)
{
    struct pollfd fds[] = {{.fd = queue->nfq.fd, .events = POLLIN}, {.fd = queue->wake_fd, .events = POLLIN}};

    queue->has_reader = true;
    pthread_mutex_unlock(&queue->lock);
    poll(fds, 2, -1);
    pthread_mutex_lock(&queue->lock);
    queue->has_reader = false;
}

static int
wait_for_packet(struct wd_queue *queue)
{
    for (;;) {
        if (queue->aborted)
            return -ECANCELED;
        expire_ready(queue, wd_now());
        if (queue->ready.first)
            return 0;
        if (queue->has_reader) {
            queue->waiters++;
            pthread_cond_wait(&queue->followers, &queue->lock);
            queue->waiters--;
        } else if (pull(queue) == 0) {
            if (queue->shut_recv)
                return -ENODATA;
            wait_for_kernel(queue);
        }
    }
}

int
wd_queue_recv(struct wd_queue *queue, struct wd_recv *io)
{
    int error;

    pthread_mutex_lock(&queue->lock);
    error = wait_for_packet(queue);
    if (!error)
        error = deliver_ready(queue, io);
    if (queue->waiters)
        pthread_cond_signal(&queue->followers); /* the next reader, or for what is left in ready */
    pthread_mutex_unlock(&queue->lock);
    return error;
}

/* ---- Sending ------------------------------------------------------------ */

struct item {
    const WINDIVERT_ADDRESS *addr;
    const uint8_t *data;
    uint32_t len;            /* bytes in data that belong to this packet */
    struct wd_packet packet; /* parsed */
    struct wd_slot *slot;    /* held packet that this returns, or NULL */
};

static struct wd_slot *
find_returned(struct wd_queue *queue, const WINDIVERT_ADDRESS *addr)
{
    struct wd_addr_tag tag;
    struct wd_slot *slot;

    if (!wd_addr_tag_get(addr, queue->tag, &tag))
        return NULL;
    slot = held_find(queue, &tag);
    if (!slot || slot->outbound != addr->Outbound || slot->ipv6 != addr->IPv6)
        return NULL;
    return slot;
}

/*
 * The next packet of the buffer: as long as its header says; the whole rest
 * where one packet is sent; and what Recv delivered of a packet longer than
 * the kernel can hand over.
 */
static int
next_item(struct wd_queue *queue, const struct wd_send *io, const uint8_t *data, uint32_t left, struct item *ret_item)
{
    struct item item = {.addr = &io->addr[io->ret_count], .data = data};

    if (!wd_packet_parse(data, left, &item.packet))
        return -EINVAL;
    item.len = item.packet.ip_len;
    item.slot = find_returned(queue, item.addr);
    if (item.slot && item.slot->cap_len < item.slot->len && left >= item.slot->cap_len)
        item.len = item.slot->cap_len;
    else if (item.packet.truncated)
        return -EINVAL;
    *ret_item = item;
    return 0;
}

/* Fills in the checksums that the address says are not right, and an impostor's new hop limit. */
static int
finish_bytes(uint8_t *data, uint32_t len, const WINDIVERT_ADDRESS *addr)
{
    uint64_t skip = (addr->IPChecksum ? WINDIVERT_HELPER_NO_IP_CHECKSUM : 0) |
                    (addr->TCPChecksum ? WINDIVERT_HELPER_NO_TCP_CHECKSUM : 0) |
                    (addr->UDPChecksum ? WINDIVERT_HELPER_NO_UDP_CHECKSUM : 0) | WINDIVERT_HELPER_NO_ICMP_CHECKSUM |
                    WINDIVERT_HELPER_NO_ICMPV6_CHECKSUM;

    if (addr->Impostor && !wd_ttl_decrement(data, len))
        return -EHOSTUNREACH;
    wd_cksum_fill(data, len, skip);
    return 0;
}

static int
return_held(struct wd_queue *queue, const struct item *item)
{
    struct wd_slot *slot = item->slot;
    bool changed = item->len != slot->cap_len || item->addr->Impostor || memcmp(item->data, slot->data, item->len);
    int error = 0;

    if (changed && (slot->cap_len < slot->len || item->len > WD_NFQ_PAYLOAD_MAX))
        return -EINVAL; /* its end is in the kernel only, or it cannot be handed over */
    if (changed) {
        uint8_t ttl = item->data[item->packet.version == 4 ? 8 : 7];

        if (item->addr->Impostor && ttl <= 1)
            return -EHOSTUNREACH;
        if (!slot_store(queue, slot, item->data, item->len))
            return -ENOMEM;
        error = finish_bytes(slot->data, slot->cap_len, item->addr);
        if (error)
            return error;
    }
    held_remove(queue, slot);
    verdict_accept(queue, slot, changed);
    queue->stats.Returned++;
    return 0;
}

/* Under the lock, but sent at once; a copy only where bytes have to be filled in. */
static int
inject_new(struct wd_queue *queue, const struct item *item)
{
    const WINDIVERT_ADDRESS *addr = item->addr;
    struct wd_packet packet = item->packet;
    uint8_t *copy;
    int error;

    if (!addr->Outbound)
        return -EOPNOTSUPP;
    copy = big_get(queue);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, item->data, item->len);
    error = finish_bytes(copy, item->len, addr);
    if (!error && wd_packet_parse(copy, item->len, &packet))
        error = wd_inject_outbound(queue->inject, &packet, addr->Network.IfIdx);
    big_put(queue, copy);
    if (!error)
        queue->stats.Injected++;
    return error;
}

static int
send_item(struct wd_queue *queue, const struct item *item)
{
    if (item->slot)
        return return_held(queue, item);
    verdicts_flush(queue); /* what was sent earlier goes earlier */
    return inject_new(queue, item);
}

static int
send_locked(struct wd_queue *queue, struct wd_send *io)
{
    int error = 0;

    while (!error && io->ret_count < io->addr_count && io->ret_len < io->buf_len) {
        struct item item;

        error = next_item(queue, io, io->buf + io->ret_len, io->buf_len - io->ret_len, &item);
        if (!error)
            error = send_item(queue, &item);
        if (!error) {
            io->ret_len += io->addr_count == 1 ? io->buf_len : item.len;
            io->ret_count++;
        }
    }
    verdicts_flush(queue);
    return io->ret_count ? 0 : error;
}

static int
explain_send(int error, struct wd_error *err)
{
    switch (error) {
    case -EINVAL:
        return wd_error_set(err, error, "send one whole IPv4 or IPv6 packet per address, its length field true",
                            "send: malformed packet");
    case -EOPNOTSUPP:
        return wd_error_set(err, error, "set pAddr->Outbound, or return the packet with the address Recv gave it",
                            "send: new packets cannot be injected inbound yet");
    case -EHOSTUNREACH:
        return wd_error_set(err, error, NULL, "send: no route to the host, or the hop limit of an impostor is used up");
    case -EMSGSIZE:
        return wd_error_set(err, -EFBIG, "split it into fragments", "send: the packet is larger than the MTU");
    default:
        return wd_error_set(err, error, NULL, "send: %s", strerror(-error));
    }
}

int
wd_queue_send(struct wd_queue *queue, struct wd_send *io, struct wd_error *err)
{
    int error;

    pthread_mutex_lock(&queue->lock);
    if (queue->aborted)
        error = -ECANCELED;
    else if (queue->shut_send)
        error = -ESHUTDOWN;
    else
        error = send_locked(queue, io);
    pthread_mutex_unlock(&queue->lock);
    return error ? explain_send(error, err) : 0;
}

/* ---- Life --------------------------------------------------------------- */

static int
staging_new(struct wd_queue *queue)
{
    for (unsigned int i = 0; i < WD_QUEUE_PULL; i++) {
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
wd_queue_new(const struct wd_queue_limits *limits, bool bound, struct wd_queue **ret_queue, struct wd_error *err)
{
    struct wd_queue *queue = calloc(1, sizeof(*queue));
    int error = 0;

    if (!queue)
        return wd_error_set(err, -ENOMEM, NULL, "open: out of memory");
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->followers, NULL);
    queue->limits = *limits;
    queue->nfq.fd = -1;
    queue->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->wake_fd < 0)
        error = wd_error_set(err, -errno, "raise the limit of open files (ulimit -n)", "open an eventfd: %s",
                             strerror(errno));
    else if (bound && staging_new(queue) < 0)
        error = wd_error_set(err, -ENOMEM, NULL, "open: out of memory");
    else if (bound)
        error = wd_nfq_open(&queue->nfq, kernel_maxlen(limits), err);
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

        list_remove(list, slot);
        slot_put(queue, slot);
    }
}

void
wd_queue_close_fds(struct wd_queue *queue)
{
    wd_nfq_close(&queue->nfq);
    if (queue->wake_fd >= 0)
        close(queue->wake_fd);
    queue->wake_fd = -1;
}

void
wd_queue_free(struct wd_queue *queue)
{
    if (!queue)
        return;
    wd_queue_close_fds(queue);
    free_list(queue, &queue->ready);
    free_list(queue, &queue->held);
    free_list(queue, &queue->sent);
    trim_memory(queue);
    for (unsigned int i = 0; i < WD_QUEUE_PULL; i++)
        free(queue->staging[i]);
    pthread_cond_destroy(&queue->followers);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

static void
wake_all(struct wd_queue *queue)
{
    const uint64_t one = 1;

    if (write(queue->wake_fd, &one, sizeof(one)) < 0) {
        /* Cannot fail below 2^64 - 1 writes. */
    }
    pthread_cond_broadcast(&queue->followers);
}

void
wd_queue_shut_recv(struct wd_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->shut_recv = true;
    wake_all(queue);
    pthread_mutex_unlock(&queue->lock);
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
    pthread_mutex_unlock(&queue->lock);
}

static void
release_ready(struct wd_queue *queue)
{
    while (queue->ready.first) {
        struct wd_slot *slot = queue->ready.first;

        ready_remove(queue, slot);
        verdict_accept(queue, slot, false);
    }
    verdicts_flush(queue);
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
    while (queue->held.first)
        drop_held(queue, queue->held.first);
    while (pull(queue) > 0) /* answers to the last verdicts */
        release_ready(queue);
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

void
wd_queue_get_stats(struct wd_queue *queue, WINDIVERT_EXT_STATS *ret_stats)
{
    pthread_mutex_lock(&queue->lock);
    *ret_stats = queue->stats;
    ret_stats->Held = queue->held.count;
    pthread_mutex_unlock(&queue->lock);
}
