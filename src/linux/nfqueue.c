/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "nfqueue.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef NFQA_PRIORITY
#define NFQA_PRIORITY 21 /* Linux 5.18 */
#endif

#define FIRST_QUEUE 0x5700 /* far from the low numbers that people use by hand */
#define LAST_QUEUE 0xFEFF
#define FIGURES "/proc/thread-self/net/netfilter/nfnetlink_queue"
#define SPLIT_MAXLEN 16384        /* segments under way */
#define RECEIVE_BUFFER (64 << 20) /* a limit, not an allocation; a full-size packet costs it about 2 KB + its bytes */
#define SEND_BUFFER (4 << 20)

/* ---- Configuration ------------------------------------------------------ */

static struct nlmsghdr *
config_header(struct wd_nfq *nfq, uint16_t num, void *buf)
{
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    struct nfgenmsg *nfg;

    nlh->nlmsg_type = (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_CONFIG;
    nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    nlh->nlmsg_seq = ++nfq->seq;
    nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
    nfg->nfgen_family = AF_UNSPEC;
    nfg->version = NFNETLINK_V0;
    nfg->res_id = htons(num);
    return nlh;
}

/* Only before packets can arrive: reads answers from the same socket. */
static int
config_send(struct wd_nfq *nfq, struct nlmsghdr *nlh)
{
    char buf[8192] __attribute__((aligned(8)));
    struct wd_nfq_packet packet;
    struct wd_nfq_ack ack = {0};

    if (send(nfq->fd, nlh, nlh->nlmsg_len, 0) < 0)
        return -errno;
    for (;;) {
        ssize_t got = recv(nfq->fd, buf, sizeof(buf), 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (wd_nfq_parse(buf, (size_t)got, &packet, &ack) == WD_NFQ_ACK && ack.seq == nlh->nlmsg_seq)
            return ack.error;
    }
}

static int
config_bind(struct wd_nfq *nfq, uint16_t num)
{
    char buf[256] __attribute__((aligned(8)));
    struct nlmsghdr *nlh = config_header(nfq, num, buf);
    struct nfqnl_msg_config_cmd cmd = {.command = NFQNL_CFG_CMD_BIND, .pf = htons(AF_UNSPEC)};

    mnl_attr_put(nlh, NFQA_CFG_CMD, sizeof(cmd), &cmd);
    return config_send(nfq, nlh);
}

/* mode: NFQNL_COPY_x; flags: NFQA_CFG_F_x */
static int
config_params(struct wd_nfq *nfq, uint16_t num, uint8_t mode, uint32_t flags, uint32_t maxlen)
{
    char buf[256] __attribute__((aligned(8)));
    struct nlmsghdr *nlh = config_header(nfq, num, buf);
    struct nfqnl_msg_config_params params = {.copy_range = htonl(0xffff), .copy_mode = mode};

    mnl_attr_put(nlh, NFQA_CFG_PARAMS, sizeof(params), &params);
    mnl_attr_put_u32(nlh, NFQA_CFG_FLAGS, htonl(flags));
    mnl_attr_put_u32(nlh, NFQA_CFG_MASK, htonl(NFQA_CFG_F_GSO));
    mnl_attr_put_u32(nlh, NFQA_CFG_QUEUE_MAXLEN, htonl(maxlen));
    return config_send(nfq, nlh);
}

/* A number in use answers EPERM, as missing rights do: try a bounded number of others. */
static int
bind_free_number(struct wd_nfq *nfq, uint16_t after, uint16_t *ret_num)
{
    const unsigned int span = LAST_QUEUE - FIRST_QUEUE + 1;
    unsigned int start = after ? after - FIRST_QUEUE + 1u : (unsigned int)getpid() * 64;
    int error = -EPERM;

    for (unsigned int i = 0; i < 4096; i++) {
        *ret_num = (uint16_t)(FIRST_QUEUE + (start + i) % span);
        error = config_bind(nfq, *ret_num);
        if (error != -EPERM && error != -EBUSY && error != -EEXIST)
            break;
    }
    return error;
}

/* Aggregates come unsplit to the first queue, split to the second. */
static int
bind_both(struct wd_nfq *nfq, uint32_t maxlen)
{
    int error = bind_free_number(nfq, 0, &nfq->num);

    if (!error)
        error = config_params(nfq, nfq->num, NFQNL_COPY_PACKET, NFQA_CFG_F_GSO, maxlen);
    if (!error)
        error = bind_free_number(nfq, nfq->num, &nfq->split);
    if (!error)
        error = config_params(nfq, nfq->split, NFQNL_COPY_META, 0, SPLIT_MAXLEN);
    return error;
}

static int
open_socket(struct wd_nfq *nfq)
{
    struct sockaddr_nl addr = {.nl_family = AF_NETLINK};
    int receive = RECEIVE_BUFFER, send_size = SEND_BUFFER, on = 1;

    nfq->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (nfq->fd < 0)
        return -errno;
    if (bind(nfq->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return -errno;
    /* The plain options are the fallback of a user without CAP_NET_ADMIN in the initial user namespace. */
    if (setsockopt(nfq->fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive, sizeof(receive)) < 0)
        setsockopt(nfq->fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof(receive));
    if (setsockopt(nfq->fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_size, sizeof(send_size)) < 0)
        setsockopt(nfq->fd, SOL_SOCKET, SO_SNDBUF, &send_size, sizeof(send_size));
    /* Errors carry only the header of what they answer; a full buffer is no news to us: it is counted elsewhere. */
    setsockopt(nfq->fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
    setsockopt(nfq->fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof(on));
    return 0;
}

/* No module helps against these: the remedy is that of the errno. */
static bool
wants_more(int error)
{
    return error == -ENOMEM || error == -ENOBUFS || error == -EMFILE || error == -ENFILE;
}

int
wd_nfq_open(struct wd_nfq *nfq, uint32_t maxlen, struct wd_error *err)
{
    int error;

    *nfq = (struct wd_nfq){.fd = -1, .figures_fd = -1};
    error = open_socket(nfq);
    if (!error)
        error = bind_both(nfq, maxlen);
    nfq->figures_fd = open(FIGURES, O_RDONLY | O_CLOEXEC);
    if (error) {
        wd_nfq_close(nfq);
        return wd_error_set(err, error,
                            error == -EPERM     ? "run as root or with CAP_NET_ADMIN in this network namespace"
                            : wants_more(error) ? NULL
                                                : "the kernel needs nfnetlink_queue: modprobe nfnetlink_queue",
                            "bind to an NFQUEUE: %s", strerror(-error));
    }
    return 0;
}

/* No answer that could meet packets in the buffer; errors are not expected. */
static int
config_later(struct wd_nfq *nfq, struct nlmsghdr *nlh, const char *what, struct wd_error *err)
{
    nlh->nlmsg_flags = NLM_F_REQUEST;
    if (send(nfq->fd, nlh, nlh->nlmsg_len, 0) < 0)
        return wd_error_set(err, -errno, NULL, "set %s: %s", what, strerror(errno));
    return 0;
}

int
wd_nfq_set_maxlen(struct wd_nfq *nfq, uint32_t maxlen, struct wd_error *err)
{
    char buf[256] __attribute__((aligned(8)));
    struct nlmsghdr *nlh = config_header(nfq, nfq->num, buf);

    mnl_attr_put_u32(nlh, NFQA_CFG_QUEUE_MAXLEN, htonl(maxlen));
    return config_later(nfq, nlh, "the queue length", err);
}

static int
set_flag(struct wd_nfq *nfq, uint16_t num, uint32_t flag, bool on, const char *what, struct wd_error *err)
{
    char buf[256] __attribute__((aligned(8)));
    struct nlmsghdr *nlh = config_header(nfq, num, buf);

    mnl_attr_put_u32(nlh, NFQA_CFG_FLAGS, htonl(on ? flag : 0));
    mnl_attr_put_u32(nlh, NFQA_CFG_MASK, htonl(flag));
    return config_later(nfq, nlh, what, err);
}

int
wd_nfq_set_segments(struct wd_nfq *nfq, bool segments, struct wd_error *err)
{
    return set_flag(nfq, nfq->num, NFQA_CFG_F_GSO, !segments, "what becomes of aggregates", err);
}

int
wd_nfq_set_fail_open(struct wd_nfq *nfq, bool open, struct wd_error *err)
{
    return set_flag(nfq, nfq->num, NFQA_CFG_F_FAIL_OPEN, open, "what becomes of packets that do not fit", err);
}

/* Columns: number, port, packets, mode, range, dropped as the queue was full, as the buffer was full, last id, 1. */
static void
add_drops(const struct wd_nfq *nfq, const char *line, struct wd_nfq_drops *drops)
{
    unsigned int num, queue_full, buffer_full;

    if (sscanf(line, "%u %*u %*u %*u %*u %u %u", &num, &queue_full, &buffer_full) != 3)
        return;
    if (num == nfq->num)
        drops->queue = queue_full + buffer_full;
    if (num == nfq->split)
        drops->split = queue_full + buffer_full;
}

int
wd_nfq_drops(const struct wd_nfq *nfq, struct wd_nfq_drops *ret_drops)
{
    struct wd_nfq_drops drops = {0};
    char line[160];
    FILE *file;
    int fd;

    if (nfq->figures_fd < 0)
        return -ENOENT;
    fd = fcntl(nfq->figures_fd, F_DUPFD_CLOEXEC, 0);
    file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file) {
        int error = -errno;

        if (fd >= 0)
            close(fd);
        return error;
    }
    rewind(file);
    while (fgets(line, sizeof(line), file))
        add_drops(nfq, line, &drops);
    fclose(file);
    *ret_drops = drops;
    return 0;
}

/* Only for want of memory can it fail; a verdict that is not sent is a packet that is stuck: tries on. */
static int
send_all(struct wd_nfq *nfq, struct iovec *iov, size_t count)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct msghdr msg = {.msg_name = &kernel, .msg_namelen = sizeof(kernel), .msg_iov = iov, .msg_iovlen = count};
    ssize_t sent = -1;

    for (int tries = 0; tries < 1000; tries++) {
        sent = sendmsg(nfq->fd, &msg, 0);
        if (sent >= 0 || (errno != EINTR && errno != ENOBUFS && errno != ENOMEM && errno != EAGAIN))
            break;
        if (errno != EINTR)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return sent < 0 ? -errno : 0;
}

/* A command that has no effect since Linux 3.8, and is acknowledged. */
void
wd_nfq_wake(struct wd_nfq *nfq)
{
    char buf[256] __attribute__((aligned(8)));
    struct nlmsghdr *nlh = config_header(nfq, nfq->num, buf);
    struct nfqnl_msg_config_cmd cmd = {.command = NFQNL_CFG_CMD_PF_UNBIND, .pf = htons(AF_UNSPEC)};

    struct iovec iov;

    mnl_attr_put(nlh, NFQA_CFG_CMD, sizeof(cmd), &cmd);
    iov = (struct iovec){.iov_base = buf, .iov_len = nlh->nlmsg_len};
    send_all(nfq, &iov, 1);
}

void
wd_nfq_close(struct wd_nfq *nfq)
{
    if (nfq->fd >= 0)
        close(nfq->fd);
    if (nfq->figures_fd >= 0)
        close(nfq->figures_fd);
    nfq->fd = nfq->figures_fd = -1;
}

/* ---- Messages ----------------------------------------------------------- */

/* What parse_attr() reads of an attribute, at least. */
static size_t
attr_size(uint16_t type)
{
    switch (type) {
    case NFQA_PACKET_HDR:
        return sizeof(struct nfqnl_msg_packet_hdr);
    case NFQA_HWADDR:
        return sizeof(struct nfqnl_msg_packet_hw);
    case NFQA_PAYLOAD:
        return 0;
    default:
        return sizeof(uint32_t);
    }
}

static void
parse_attr(const struct nlattr *attr, struct wd_nfq_packet *packet)
{
    const struct nfqnl_msg_packet_hdr *hdr;
    const struct nfqnl_msg_packet_hw *hw;
    uint16_t type = mnl_attr_get_type(attr);
    uint32_t info;

    if (mnl_attr_get_payload_len(attr) < attr_size(type))
        return;
    switch (type) {
    case NFQA_PACKET_HDR:
        hdr = mnl_attr_get_payload(attr);
        packet->id = ntohl(hdr->packet_id);
        packet->hook = hdr->hook;
        break;
    case NFQA_MARK:
        packet->mark = ntohl(mnl_attr_get_u32(attr));
        break;
    case NFQA_PRIORITY:
        packet->priority = ntohl(mnl_attr_get_u32(attr));
        break;
    case NFQA_IFINDEX_INDEV:
        packet->indev = ntohl(mnl_attr_get_u32(attr));
        break;
    case NFQA_IFINDEX_OUTDEV:
        packet->outdev = ntohl(mnl_attr_get_u32(attr));
        break;
    case NFQA_HWADDR:
        hw = mnl_attr_get_payload(attr);
        if (hw->hw_addrlen == htons(6))
            packet->hw_source = hw->hw_addr;
        break;
    case NFQA_CAP_LEN:
        packet->len = ntohl(mnl_attr_get_u32(attr));
        break;
    case NFQA_SKB_INFO:
        info = ntohl(mnl_attr_get_u32(attr));
        packet->gso = info & NFQA_SKB_GSO;
        packet->csum_not_ready = info & NFQA_SKB_CSUMNOTREADY;
        packet->csum_not_verified = info & NFQA_SKB_CSUM_NOTVERIFIED;
        break;
    case NFQA_PAYLOAD:
        packet->payload = mnl_attr_get_payload(attr);
        packet->cap_len = mnl_attr_get_payload_len(attr);
        break;
    default:
        break;
    }
}

static enum wd_nfq_msg
parse_packet(const struct nlmsghdr *nlh, struct wd_nfq_packet *ret_packet)
{
    const struct nlattr *attr;

    const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);

    *ret_packet = (struct wd_nfq_packet){.queue = ntohs(nfg->res_id)};
    mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg)) parse_attr(attr, ret_packet);
    if (!ret_packet->payload)
        return WD_NFQ_META;
    if (ret_packet->len < ret_packet->cap_len)
        ret_packet->len = ret_packet->cap_len;
    return WD_NFQ_PACKET;
}

enum wd_nfq_msg
wd_nfq_parse(void *msg, size_t len, struct wd_nfq_packet *ret_packet, struct wd_nfq_ack *ret_ack)
{
    struct nlmsghdr *nlh = msg;
    const struct nlmsgerr *ack;

    if (!mnl_nlmsg_ok(nlh, (int)len))
        return WD_NFQ_OTHER;
    if (nlh->nlmsg_type == NLMSG_ERROR) {
        if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*ack))
            return WD_NFQ_OTHER;
        ack = mnl_nlmsg_get_payload(nlh);
        ret_ack->seq = nlh->nlmsg_seq;
        ret_ack->error = ack->error;
        return WD_NFQ_ACK;
    }
    if (nlh->nlmsg_type == ((NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET) &&
        mnl_nlmsg_get_payload_len(nlh) >= sizeof(struct nfgenmsg))
        return parse_packet(nlh, ret_packet);
    return WD_NFQ_OTHER;
}

/* ---- Verdicts ----------------------------------------------------------- */

/*
 *  0            16         20     24        28      32
 *  | nlmsghdr   | nfgenmsg | nla  | verdict | id    | nla of the payload ... payload ... padding |
 */
struct verdict_head {
    struct nlmsghdr nlh;
    struct nfgenmsg nfg;
    struct nlattr verdict_attr;
    struct nfqnl_msg_verdict_hdr verdict;
    struct nlattr payload_attr;
};
_Static_assert(sizeof(struct verdict_head) == WD_NFQ_VERDICT_SIZE, "layout of a verdict message");

static void
add_iov(struct wd_nfq_batch *batch, const void *base, size_t len)
{
    struct iovec *last = batch->iov_count ? &batch->iov[batch->iov_count - 1] : NULL;

    batch->bytes += len;
    if (last && (const uint8_t *)last->iov_base + last->iov_len == base) {
        last->iov_len += len;
        return;
    }
    batch->iov[batch->iov_count++] = (struct iovec){.iov_base = (void *)(uintptr_t)base, .iov_len = len};
}

uint32_t
wd_nfq_batch_repeat(struct wd_nfq *nfq, struct wd_nfq_batch *batch, uint32_t id)
{
    struct wd_nfq split = {.num = nfq->split, .seq = nfq->seq};

    nfq->seq = wd_nfq_batch_add(&split, batch, id, NF_REPEAT, NULL, 0, false);
    return nfq->seq;
}

uint32_t
wd_nfq_batch_split(struct wd_nfq *nfq, struct wd_nfq_batch *batch, uint32_t id)
{
    return wd_nfq_batch_add(nfq, batch, id, (uint32_t)nfq->split << NF_VERDICT_QBITS | NF_QUEUE, NULL, 0, false);
}

uint32_t
wd_nfq_batch_add(struct wd_nfq *nfq, struct wd_nfq_batch *batch, uint32_t id, uint32_t verdict, const void *payload,
                 size_t len, bool ack)
{
    struct verdict_head head = {
        .nlh.nlmsg_type = (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_VERDICT,
        .nlh.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | (ack ? NLM_F_ACK : 0)),
        .nlh.nlmsg_seq = ++nfq->seq,
        .nlh.nlmsg_len = sizeof(head) - sizeof(head.payload_attr),
        .nfg.nfgen_family = AF_UNSPEC,
        .nfg.version = NFNETLINK_V0,
        .nfg.res_id = htons(nfq->num),
        .verdict_attr = {.nla_len = 12, .nla_type = NFQA_VERDICT_HDR},
        .verdict = {.verdict = htonl(verdict), .id = htonl(id)},
        .payload_attr = {.nla_len = (uint16_t)(sizeof(struct nlattr) + len), .nla_type = NFQA_PAYLOAD},
    };
    static const uint8_t padding[4];
    size_t head_size = sizeof(head);
    uint8_t *place = batch->head + batch->head_used;
    size_t pad = (4 - len % 4) % 4;

    if (payload)
        head.nlh.nlmsg_len = (uint32_t)(sizeof(head) + len + pad);
    else
        head_size = head.nlh.nlmsg_len;
    memcpy(place, &head, head_size);
    batch->head_used += head_size;
    add_iov(batch, place, head_size);
    if (payload) {
        add_iov(batch, payload, len);
        if (pad)
            add_iov(batch, padding, pad);
    }
    batch->count++;
    return head.nlh.nlmsg_seq;
}

int
wd_nfq_batch_send(struct wd_nfq *nfq, struct wd_nfq_batch *batch)
{
    int error;

    if (batch->count == 0)
        return 0;
    error = send_all(nfq, batch->iov, (size_t)batch->iov_count);
    wd_nfq_batch_init(batch);
    return error;
}
