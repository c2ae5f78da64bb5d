/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What the program sends: a held packet goes back to the kernel, everything else is new. */
#include <errno.h>
#include <string.h>

#include "core/cksum.h"
#include "core/packet.h"
#include "core/ttl.h"
#include "linux/addrtag.h"
#include "linux/queue.h"

#define ROOM_WAIT_MS 50 /* between two looks whether the handle was closed or shut down */

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
    slot = wd_held_find(&queue->held, tag.packet_id, tag.generation);
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

/* Of the packet that the address was received with; 0: with none of this handle. */
static uint32_t
mark_of(const struct wd_queue *queue, const WINDIVERT_ADDRESS *addr)
{
    struct wd_addr_tag tag;

    return wd_addr_tag_get(addr, queue->tag, &tag) ? tag.mark : 0;
}

/* Waits for room without the lock: others receive, the janitor looks after what is held, Close gets in. */
static int
inject_when_room(struct wd_queue *queue, const struct wd_packet *packet, const WINDIVERT_ADDRESS *addr)
{
    for (;;) {
        int error = wd_queue_inject(queue, packet, addr->Outbound, addr->Network.IfIdx, mark_of(queue, addr));

        if (error != -EAGAIN)
            return error;
        wd_queue_unlock(queue);
        wd_inject_wait(queue->inject, packet, addr->Outbound, ROOM_WAIT_MS);
        pthread_mutex_lock(&queue->lock);
        if (queue->aborted)
            return -ECANCELED;
        if (queue->shut_send)
            return -ESHUTDOWN;
    }
}

static int
inject_copy(struct wd_queue *queue, const struct item *item)
{
    const WINDIVERT_ADDRESS *addr = item->addr;
    struct wd_packet packet = item->packet;
    uint8_t *copy;
    int error;

    copy = wd_slot_big_get(&queue->pool);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, item->data, item->len);
    error = finish_bytes(copy, item->len, addr);
    if (queue->forward)
        wd_ttl_increment(copy, item->len);
    if (!error && wd_packet_parse(copy, item->len, &packet)) {
        wd_inject_expect(queue->inject, &packet, wd_now());
        error = inject_when_room(queue, &packet, addr);
    }
    wd_slot_big_put(&queue->pool, copy);
    return error;
}

static int
inject_new(struct wd_queue *queue, const struct item *item)
{
    int error = inject_copy(queue, item);

    if (!error)
        queue->stats.Injected++;
    return error;
}

/*
 * A forwarded packet whose way is another now.  The kernel has routed it; it
 * routes a returned packet anew only outbound.
 */
static bool
goes_elsewhere(const struct wd_queue *queue, const struct item *item)
{
    uint32_t at = item->packet.version == 4 ? 16 : 24, len = item->packet.version == 4 ? 4 : 16;

    if (!queue->forward || !item->addr->Network.IfIdx)
        return false;
    return item->addr->Network.IfIdx != item->slot->ifindex ||
           memcmp(item->data + at, item->slot->data + at, len) != 0;
}

/* A changed packet that cannot go on by a verdict: a new one goes on in its place. */
static int
replace_held(struct wd_queue *queue, const struct item *item)
{
    struct wd_slot *slot = item->slot;
    int error;

    wd_queue_flush(queue);              /* what was sent earlier goes earlier */
    wd_held_remove(&queue->held, slot); /* the lock may be left for a while */
    error = inject_copy(queue, item);
    if (error) {
        wd_queue_hold(queue, slot);
        return error;
    }
    wd_queue_give_up(queue, slot);
    queue->stats.Returned++;
    return 0;
}

static int
return_held(struct wd_queue *queue, const struct item *item)
{
    struct wd_slot *slot = item->slot;
    bool changed = item->len != slot->cap_len || item->addr->Impostor || memcmp(item->data, slot->data, item->len);
    int error = 0;

    if (changed && slot->cap_len < slot->len)
        return -EINVAL; /* its end is in the kernel only */
    if (changed && (item->len > WD_NFQ_PAYLOAD_MAX || goes_elsewhere(queue, item)))
        return replace_held(queue, item);
    if (changed) {
        uint8_t ttl = item->data[item->packet.version == 4 ? 8 : 7];

        if (item->addr->Impostor && ttl <= 1)
            return -EHOSTUNREACH;
        if (!wd_slot_store(&queue->pool, slot, item->data, item->len))
            return -ENOMEM;
        slot->csum_not_ready = false; /* what is right is now said by the address */
        error = finish_bytes(slot->data, slot->cap_len, item->addr);
        if (error)
            return error;
        if (slot->outbound) /* conntrack is still ahead of it */
            wd_inject_expect(queue->inject, &item->packet, wd_now());
    }
    wd_held_remove(&queue->held, slot);
    wd_queue_accept(queue, slot, changed);
    queue->stats.Returned++;
    return 0;
}

static int
send_item(struct wd_queue *queue, const struct item *item)
{
    if (item->slot)
        return return_held(queue, item);
    wd_queue_flush(queue); /* what was sent earlier goes earlier */
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
    wd_queue_flush(queue);
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
        return wd_error_set(err, error, "the kernel has to allow BPF programs of type SCHED_CLS",
                            "send: new packets cannot be injected inbound on this system");
    case -ENODEV:
        return wd_error_set(err, -EINVAL, "inbound packets and link-local destinations need pAddr->Network.IfIdx",
                            "send: there is no such interface");
    case -ENETDOWN:
        return wd_error_set(err, error, "bring up the interface, and lo", "send: the interface is down");
    case -EHOSTUNREACH:
        return wd_error_set(err, error, NULL,
                            "send: no route to the host, or the hop limit of an impostor is used up");
    case -EMSGSIZE:
        return wd_error_set(err, -EFBIG, "clear DF, or send it in smaller packets",
                            "send: the packet is larger than the MTU and must not be fragmented");
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
    wd_queue_catch_up(queue);
    wd_queue_unlock(queue);
    return error ? explain_send(error, err) : 0;
}
