/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "nat.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cksum.h"
#include "core/packet.h"
#include "windivert.h"

/* Addresses and ports of one direction, in network order; IPv4 in the first 4 bytes. */
struct tuple {
    uint8_t src[16], dst[16], sport[2], dport[2];
};

/* ---- Packets ------------------------------------------------------------------ */

static size_t
address_len(const struct wd_packet *packet)
{
    return packet->version == 4 ? 4 : 16;
}

static uint32_t
source_offset(const struct wd_packet *packet)
{
    return packet->version == 4 ? 12 : 8;
}

static struct tuple
tuple_of(const struct wd_packet *packet)
{
    const uint8_t *addr = packet->data + source_offset(packet), *l4 = packet->data + packet->l4_off;
    struct tuple tuple = {0};

    memcpy(tuple.src, addr, address_len(packet));
    memcpy(tuple.dst, addr + address_len(packet), address_len(packet));
    memcpy(tuple.sport, l4, sizeof(tuple.sport));
    memcpy(tuple.dport, l4 + sizeof(tuple.sport), sizeof(tuple.dport));
    return tuple;
}

static struct tuple
turned(const struct tuple *tuple)
{
    struct tuple other = {0};

    memcpy(other.src, tuple->dst, sizeof(other.src));
    memcpy(other.dst, tuple->src, sizeof(other.dst));
    memcpy(other.sport, tuple->dport, sizeof(other.sport));
    memcpy(other.dport, tuple->sport, sizeof(other.dport));
    return other;
}

static void
set_destination(const struct wd_packet *packet, uint8_t *bytes, const struct tuple *tuple)
{
    size_t len = address_len(packet);
    struct wd_sums right;

    wd_cksum_verify(packet, true, &right);
    memcpy(bytes + source_offset(packet) + len, tuple->dst, len);
    memcpy(bytes + packet->l4_off + sizeof(tuple->sport), tuple->dport, sizeof(tuple->dport));
    wd_cksum_fill(bytes, packet->ip_len,
                  (right.tcp ? 0 : WINDIVERT_HELPER_NO_TCP_CHECKSUM) |
                      (right.udp ? 0 : WINDIVERT_HELPER_NO_UDP_CHECKSUM));
}

/* ---- conntrack ------------------------------------------------------------------ */

static size_t
build_question(const struct wd_packet *packet, const struct tuple *tuple, uint8_t *buf)
{
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
    struct nlattr *outer, *inner;
    bool v4 = packet->version == 4;

    nlh->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
    nlh->nlmsg_flags = NLM_F_REQUEST;
    nfg->nfgen_family = v4 ? AF_INET : AF_INET6;
    outer = mnl_attr_nest_start(nlh, CTA_TUPLE_ORIG);
    inner = mnl_attr_nest_start(nlh, CTA_TUPLE_IP);
    mnl_attr_put(nlh, v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, address_len(packet), tuple->src);
    mnl_attr_put(nlh, v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, address_len(packet), tuple->dst);
    mnl_attr_nest_end(nlh, inner);
    inner = mnl_attr_nest_start(nlh, CTA_TUPLE_PROTO);
    mnl_attr_put_u8(nlh, CTA_PROTO_NUM, packet->protocol);
    mnl_attr_put(nlh, CTA_PROTO_SRC_PORT, sizeof(tuple->sport), tuple->sport);
    mnl_attr_put(nlh, CTA_PROTO_DST_PORT, sizeof(tuple->dport), tuple->dport);
    mnl_attr_nest_end(nlh, inner);
    mnl_attr_nest_end(nlh, outer);
    return nlh->nlmsg_len;
}

/* Copies the attribute of a type within a nest, cut to len bytes. */
static void
copy(const struct nlattr *nest, uint16_t type, void *to, size_t len)
{
    const struct nlattr *attr;

    mnl_attr_for_each_nested(attr, nest)
    {
        size_t have = mnl_attr_get_payload_len(attr);

        if (mnl_attr_get_type(attr) == type)
            memcpy(to, mnl_attr_get_payload(attr), have < len ? have : len);
    }
}

static void
read_part(const struct nlattr *part, struct tuple *tuple)
{
    if (mnl_attr_get_type(part) == CTA_TUPLE_IP) {
        copy(part, CTA_IP_V4_SRC, tuple->src, 4);
        copy(part, CTA_IP_V4_DST, tuple->dst, 4);
        copy(part, CTA_IP_V6_SRC, tuple->src, 16);
        copy(part, CTA_IP_V6_DST, tuple->dst, 16);
    } else if (mnl_attr_get_type(part) == CTA_TUPLE_PROTO) {
        copy(part, CTA_PROTO_SRC_PORT, tuple->sport, 2);
        copy(part, CTA_PROTO_DST_PORT, tuple->dport, 2);
    }
}

static struct tuple
read_tuple(const struct nlattr *nest)
{
    struct tuple tuple = {0};
    const struct nlattr *part;

    mnl_attr_for_each_nested(part, nest) read_part(part, &tuple);
    return tuple;
}

/* The tuple of the connection that is not the one that was asked for. */
static bool
read_answer(const void *buf, size_t len, const struct tuple *asked, struct tuple *ret_other)
{
    const struct nlmsghdr *nlh = buf;
    struct tuple original = {0}, reply = {0};
    const struct nlattr *attr;

    if (!mnl_nlmsg_ok(nlh, (int)len) || nlh->nlmsg_type != (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW))
        return false;
    mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(attr) == CTA_TUPLE_ORIG)
            original = read_tuple(attr);
        else if (mnl_attr_get_type(attr) == CTA_TUPLE_REPLY)
            reply = read_tuple(attr);
    }
    if (memcmp(&original, asked, sizeof(original)) == 0)
        *ret_other = reply;
    else if (memcmp(&reply, asked, sizeof(reply)) == 0)
        *ret_other = original;
    else
        return false;
    return true;
}

static bool
ask(int fd, const struct wd_packet *packet, const struct tuple *asked, struct tuple *ret_other)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    _Alignas(struct nlmsghdr) uint8_t buf[4096];
    size_t len = build_question(packet, asked, buf);
    bool found = false;
    ssize_t got;

    /* The kernel is done when the call returns. */
    if (sendto(fd, buf, len, MSG_DONTWAIT, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
        return false;
    while ((got = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
        found |= read_answer(buf, (size_t)got, asked, ret_other);
    return found;
}

void
wd_nat_undo(int fd, void *bytes, size_t len)
{
    struct wd_packet packet;
    struct tuple passing, back, arrived;

    if (!wd_packet_parse(bytes, len, &packet) || (packet.l4 != WD_L4_TCP && packet.l4 != WD_L4_UDP))
        return;
    passing = tuple_of(&packet);
    back = turned(&passing);
    if (ask(fd, &packet, &back, &arrived) && memcmp(&arrived, &passing, sizeof(passing)) != 0)
        set_destination(&packet, bytes, &arrived);
}
