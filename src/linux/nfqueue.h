/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* One NFQUEUE: its netlink socket, the packets that come out of it, the verdicts that go in. */
#ifndef WD_LINUX_NFQUEUE_H
#define WD_LINUX_NFQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/error.h"

/*
 * NFQA_PAYLOAD is a 16-bit attribute: 65,531 bytes of packet at most.  The
 * attributes before it stay far below the rest of WD_NFQ_MSG_MAX.
 */
#define WD_NFQ_PAYLOAD_MAX 65531
#define WD_NFQ_MSG_MAX (65536 + 1024)

struct wd_nfq {
    int fd;
    int figures_fd; /* /proc/net/netfilter/nfnetlink_queue of the namespace; -1: there is none */
    uint16_t num;   /* queue number */
    uint16_t split; /* of a second queue on the same socket: what comes there comes in segments, without bytes; each
                       is to be sent through the rules again (NF_REPEAT) */
    uint32_t seq;   /* of the last message sent */
};

/* What one message says of one packet; payload points into the message. */
struct wd_nfq_packet {
    uint32_t id;
    uint32_t mark;
    uint32_t priority; /* skb->priority; 0 where the kernel does not tell */
    uint32_t indev, outdev;
    const uint8_t *hw_source; /* inbound: 6 bytes of the sender's hardware address, in the message; or NULL */
    uint32_t len;             /* of the packet in the kernel */
    uint32_t cap_len;         /* bytes of payload here: less only past 65,531 */
    uint8_t *payload;
    uint16_t queue; /* num or split */
    uint8_t hook;   /* NF_INET_x */
    bool gso;
    bool csum_not_ready;    /* the transport checksum is still to be filled in by the device */
    bool csum_not_verified; /* nobody has checked it yet */
};

enum wd_nfq_msg {
    WD_NFQ_PACKET,
    WD_NFQ_META /* a packet without bytes */,
    WD_NFQ_ACK /* or an error */,
    WD_NFQ_OTHER
};

struct wd_nfq_ack {
    uint32_t seq; /* of the message that is answered */
    int error;    /* 0, or negative errno: -ENOENT: the packet was no longer there */
};

/*
 * Creates and binds a queue with a number that nobody uses: packets are copied
 * whole, aggregates (GSO) unsplit.  maxlen: packets the kernel keeps at most,
 * received or not, until their verdict; beyond they are dropped and counted.
 */
int wd_nfq_open(struct wd_nfq *nfq, uint32_t maxlen, struct wd_error *err);
/*
 * What the kernel dropped since the open because a queue, or the socket's
 * buffer, was full: of the queue, and of that which takes aggregates apart.
 */
struct wd_nfq_drops {
    uint32_t queue, split; /* wrap */
};
/* -errno, -ENOENT: the kernel does not tell. */
int wd_nfq_drops(const struct wd_nfq *nfq, struct wd_nfq_drops *ret_drops);
/* Whether packets that do not fit go on. */
int wd_nfq_set_fail_open(struct wd_nfq *nfq, bool open, struct wd_error *err);
/* Whether aggregates that come from now on are handed over in the packets that they are made of. */
int wd_nfq_set_segments(struct wd_nfq *nfq, bool segments, struct wd_error *err);
int wd_nfq_set_maxlen(struct wd_nfq *nfq, uint32_t maxlen, struct wd_error *err);
/* Makes the kernel send a message (an acknowledgement), for a thread that waits for one. */
void wd_nfq_wake(struct wd_nfq *nfq);
/* Packets still in the kernel's queue are dropped by it: verdicts first. */
void wd_nfq_close(struct wd_nfq *nfq);

/* One message of len bytes; fills in what its kind says. */
enum wd_nfq_msg wd_nfq_parse(void *msg, size_t len, struct wd_nfq_packet *ret_packet, struct wd_nfq_ack *ret_ack);

/* ---- Verdicts, gathered into one send() --------------------------------- */

#define WD_NFQ_VERDICTS 256           /* verdicts in one send at most */
#define WD_NFQ_VERDICT_SIZE 36        /* header, attribute, and the head of a payload attribute */
#define WD_NFQ_BYTES_MAX (256 * 1024) /* gathered before a send; below the send buffer of an unprivileged user */

struct wd_nfq_batch {
    unsigned int count;
    size_t bytes;
    int iov_count;
    size_t head_used;
    uint8_t head[WD_NFQ_VERDICTS * WD_NFQ_VERDICT_SIZE];
    struct iovec iov[3 * WD_NFQ_VERDICTS]; /* head, payload, padding */
};

static inline void
wd_nfq_batch_init(struct wd_nfq_batch *batch)
{
    batch->count = 0;
    batch->bytes = 0;
    batch->iov_count = 0;
    batch->head_used = 0;
}

static inline bool
wd_nfq_batch_full(const struct wd_nfq_batch *batch)
{
    return batch->count == WD_NFQ_VERDICTS || batch->bytes > WD_NFQ_BYTES_MAX;
}

/*
 * Adds a verdict (NF_ACCEPT or NF_DROP) on packet id.  payload (may be NULL:
 * the packet stays as it is) must stay valid until the send; at most 65,531
 * bytes.  ack: the kernel is to confirm it.  Returns the message's sequence
 * number.
 */
/* Moves a packet of the queue to the queue `split`, where it comes in segments. */
uint32_t wd_nfq_batch_split(struct wd_nfq *nfq, struct wd_nfq_batch *batch, uint32_t id);
/* Sends a packet of the queue `split` through the rules again. */
uint32_t wd_nfq_batch_repeat(struct wd_nfq *nfq, struct wd_nfq_batch *batch, uint32_t id);
uint32_t wd_nfq_batch_add(struct wd_nfq *nfq, struct wd_nfq_batch *batch, uint32_t id, uint32_t verdict,
                          const void *payload, size_t len, bool ack);
/* Sends what was gathered and empties the batch.  0 or -errno. */
int wd_nfq_batch_send(struct wd_nfq *nfq, struct wd_nfq_batch *batch);

#endif
