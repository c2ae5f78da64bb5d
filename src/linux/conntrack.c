/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "conntrack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TABLE 512    /* beginnings that are remembered; a power of 2 */
#define TIMEOUT_S 5u /* of an entry; a RST takes it away at once */
#define FLAGS 13     /* of a TCP header */
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define PRESENT "/proc/sys/net/netfilter/nf_conntrack_max"

/* ---- Beginnings ---------------------------------------------------------- */

struct beginning {
    struct wd_tuple tuple;
    int64_t told; /* conntrack, when; 0: not yet */
};

struct wd_beginnings {
    struct beginning slot[TABLE]; /* by hash: a later one takes the place of an earlier */
};

static struct beginning *
find_slot(struct wd_beginnings *table, const struct wd_tuple *tuple)
{
    uint64_t hash = 0, word[sizeof(*tuple) / 8];

    memcpy(word, tuple, sizeof(word));
    for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++)
        hash = (hash ^ word[i]) * 0x9e3779b97f4a7c15u;
    return &table->slot[hash >> 32 & (TABLE - 1)];
}
_Static_assert(sizeof(struct wd_tuple) % 8 == 0, "hashed by words");

/* False: no ports are there. */
static bool
tuple_of(const struct wd_packet *packet, bool reversed, struct wd_tuple *ret_tuple)
{
    uint32_t len = packet->version == 4 ? 4 : 16, at = packet->version == 4 ? 12 : 8;
    struct wd_tuple tuple = {.version = packet->version, .protocol = packet->protocol};
    const uint8_t *l4 = packet->data + packet->l4_off;

    if (packet->l4 != WD_L4_TCP && packet->l4 != WD_L4_UDP)
        return false;
    memcpy(reversed ? tuple.to : tuple.from, packet->data + at, len);
    memcpy(reversed ? tuple.from : tuple.to, packet->data + at + len, len);
    memcpy(reversed ? tuple.to_port : tuple.from_port, l4, 2);
    memcpy(reversed ? tuple.from_port : tuple.to_port, l4 + 2, 2);
    *ret_tuple = tuple;
    return true;
}

static uint8_t
tcp_flags(const struct wd_packet *packet)
{
    return packet->data[packet->l4_off + FLAGS] & (TCP_SYN | TCP_RST | TCP_ACK);
}

void
wd_beginnings_note(struct wd_beginnings **table, const struct wd_packet *packet)
{
    struct beginning *slot;
    struct wd_tuple tuple;

    if (packet->l4 == WD_L4_TCP && tcp_flags(packet) != TCP_SYN)
        return;
    if (!tuple_of(packet, false, &tuple))
        return;
    if (!*table)
        *table = calloc(1, sizeof(**table));
    if (!*table)
        return;
    slot = find_slot(*table, &tuple);
    if (memcmp(&slot->tuple, &tuple, sizeof(tuple)) != 0)
        *slot = (struct beginning){.tuple = tuple};
}

/* An ICMP or ICMPv6 error, which ends what it quotes. */
static bool
is_error(const struct wd_packet *packet)
{
    uint8_t type = packet->data[packet->l4_off];

    if (packet->l4 == WD_L4_ICMP)
        return type == 3 || type == 11 || type == 12;
    return packet->l4 == WD_L4_ICMP6 && type < 128;
}

static bool
answered_tuple(const struct wd_packet *packet, struct wd_tuple *ret_tuple)
{
    struct wd_packet quoted;
    uint8_t flags;

    if (is_error(packet))
        return wd_packet_parse(packet->data + packet->data_off, wd_packet_data_len(packet), &quoted) &&
               tuple_of(&quoted, false, ret_tuple);
    flags = packet->l4 == WD_L4_TCP ? tcp_flags(packet) : 0;
    if (packet->l4 == WD_L4_TCP && !(flags & TCP_RST) && flags != (TCP_SYN | TCP_ACK))
        return false;
    return tuple_of(packet, true, ret_tuple);
}

bool
wd_beginnings_answered(struct wd_beginnings *table, const struct wd_packet *packet, int64_t now,
                       struct wd_tuple *ret_tuple)
{
    struct beginning *slot;
    struct wd_tuple tuple;

    if (!table || !answered_tuple(packet, &tuple))
        return false;
    slot = find_slot(table, &tuple);
    if (memcmp(&slot->tuple, &tuple, sizeof(tuple)) != 0 || (slot->told && now - slot->told < WD_BEGINNINGS_AGAIN))
        return false;
    slot->told = now;
    *ret_tuple = tuple;
    return true;
}

/* ---- ctnetlink ----------------------------------------------------------- */

int
wd_conntrack_open(int *ret_fd)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int fd;

    /* To ask would load the module, which nobody needs who has not. */
    if (access(PRESENT, F_OK) < 0)
        return -ENOENT;
    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0) {
        int error = -errno;

        close(fd);
        return error;
    }
    *ret_fd = fd;
    return 0;
}

static void
put_address(struct nlmsghdr *nlh, const struct wd_tuple *tuple, bool source, const uint8_t *address)
{
    if (tuple->version == 4)
        mnl_attr_put(nlh, source ? CTA_IP_V4_SRC : CTA_IP_V4_DST, 4, address);
    else
        mnl_attr_put(nlh, source ? CTA_IP_V6_SRC : CTA_IP_V6_DST, 16, address);
}

static void
put_tuple(struct nlmsghdr *nlh, const struct wd_tuple *tuple, uint16_t attr, bool reply)
{
    struct nlattr *outer = mnl_attr_nest_start(nlh, attr), *inner = mnl_attr_nest_start(nlh, CTA_TUPLE_IP);

    put_address(nlh, tuple, true, reply ? tuple->to : tuple->from);
    put_address(nlh, tuple, false, reply ? tuple->from : tuple->to);
    mnl_attr_nest_end(nlh, inner);
    inner = mnl_attr_nest_start(nlh, CTA_TUPLE_PROTO);
    mnl_attr_put_u8(nlh, CTA_PROTO_NUM, tuple->protocol);
    mnl_attr_put(nlh, CTA_PROTO_SRC_PORT, 2, reply ? tuple->to_port : tuple->from_port);
    mnl_attr_put(nlh, CTA_PROTO_DST_PORT, 2, reply ? tuple->from_port : tuple->to_port);
    mnl_attr_nest_end(nlh, inner);
    mnl_attr_nest_end(nlh, outer);
}

/* A SYN was seen; the answer's sequence numbers, which conntrack cannot judge, are let pass. */
static void
put_tcp_state(struct nlmsghdr *nlh)
{
    const struct nf_ct_tcp_flags liberal = {IP_CT_TCP_FLAG_BE_LIBERAL, IP_CT_TCP_FLAG_BE_LIBERAL};
    struct nlattr *outer = mnl_attr_nest_start(nlh, CTA_PROTOINFO), *inner;

    inner = mnl_attr_nest_start(nlh, CTA_PROTOINFO_TCP);
    mnl_attr_put_u8(nlh, CTA_PROTOINFO_TCP_STATE, TCP_CONNTRACK_SYN_SENT);
    mnl_attr_put(nlh, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, sizeof(liberal), &liberal);
    mnl_attr_put(nlh, CTA_PROTOINFO_TCP_FLAGS_REPLY, sizeof(liberal), &liberal);
    mnl_attr_nest_end(nlh, inner);
    mnl_attr_nest_end(nlh, outer);
}

void
wd_conntrack_enter(int fd, const struct wd_tuple *tuple)
{
    _Alignas(struct nlmsghdr) char buf[512];
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    struct nfgenmsg *nfg;

    nlh->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW;
    nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
    nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
    nfg->nfgen_family = tuple->version == 4 ? AF_INET : AF_INET6;
    nfg->version = NFNETLINK_V0;
    put_tuple(nlh, tuple, CTA_TUPLE_ORIG, false);
    put_tuple(nlh, tuple, CTA_TUPLE_REPLY, true);
    mnl_attr_put_u32(nlh, CTA_TIMEOUT, htonl(TIMEOUT_S));
    if (tuple->protocol == IPPROTO_TCP)
        put_tcp_state(nlh);
    /* The kernel is done when the call returns.  A refusal (there is an entry) is as good, but has to be read. */
    if (send(fd, buf, nlh->nlmsg_len, MSG_DONTWAIT) > 0)
        while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
            ;
}
