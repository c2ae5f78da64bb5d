/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What comes from the kernel, and what goes back to it until that is certain. */
#include "queue_impl.h"

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
#define LOOPBACK_IFINDEX 1 /* in every network namespace */

static void
ready_append(struct wd_queue *queue, struct wd_slot *slot)
{
    wd_slot_append(&queue->ready, slot);
    queue->ready_bytes += slot->len;
}

void
wd_queue_unready(struct wd_queue *queue, struct wd_slot *slot)
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

    return wd_conntrack_open(&queue->nat_fd);
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

void
wd_queue_address(const struct wd_queue *queue, const struct wd_slot *slot, WINDIVERT_ADDRESS *ret_addr)
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
    wd_queue_address(queue, slot, &addr);
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

void
wd_queue_drop(struct wd_queue *queue, struct wd_slot *slot, UINT64 *counter)
{
    ++*counter;
    wd_queue_give_up(queue, slot);
}

/* The same of a packet that the queue cannot keep: it may go on instead. */
void
wd_queue_refuse(struct wd_queue *queue, struct wd_slot *slot, UINT64 *counter)
{
    if (!queue->fail_open) {
        wd_queue_drop(queue, slot, counter);
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
        wd_queue_refuse(queue, slot, &queue->stats.DropLength);
    } else if (queue->ready_bytes + slot->len > queue->limits.size) {
        wd_queue_refuse(queue, slot, &queue->stats.DropSize);
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
int
wd_queue_pull(struct wd_queue *queue)
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
        wd_queue_pull(queue);
    queue->echoes.fresh = false;
}

void
wd_queue_unlock(struct wd_queue *queue)
{
    wd_pollable_show(&queue->pollable, queue->ready.first || queue->shut_recv || queue->aborted);
    pthread_mutex_unlock(&queue->lock);
}

/* The same as the reader, who waits, without the lock, until there is something. */
void
wd_queue_wait_and_pull(struct wd_queue *queue, int64_t deadline)
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
