/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "conntrack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TABLE 512    /* questions that are remembered; a power of 2 */
#define TIMEOUT_S 5u /* of an entry; a RST takes it away at once */
#define FLAGS 13     /* of a TCP header */
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define PRESENT "/proc/sys/net/netfilter/nf_conntrack_max"

/* ---- Questions ----------------------------------------------------------- */

struct asked {
    struct wd_question question;
    int64_t told; /* conntrack, when; 0: not yet */
};

struct wd_questions {
    struct asked slot[TABLE]; /* by hash: a later one takes the place of an earlier */
};

/* Of both kinds of question of a connection. */
static struct asked *
find_slot(struct wd_questions *table, const struct wd_question *question)
{
    uint32_t word[offsetof(struct wd_question, version) / 4];
    uint64_t hash = 0;

    memcpy(word, question, sizeof(word));
    for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++)
        hash = (hash ^ word[i]) * 0x9e3779b97f4a7c15u;
    return &table->slot[hash >> 32 & (TABLE - 1)];
}

/* False: no ports are there. */
static bool
question_of(const struct wd_packet *packet, bool reversed, struct wd_question *ret_question)
{
    uint32_t len = packet->version == 4 ? 4 : 16, at = packet->version == 4 ? 12 : 8;
    struct wd_question question = {.version = packet->version, .protocol = packet->protocol};
    const uint8_t *l4 = packet->data + packet->l4_off;

    if (packet->l4 != WD_L4_TCP && packet->l4 != WD_L4_UDP)
        return false;
    memcpy(reversed ? question.to : question.from, packet->data + at, len);
    memcpy(reversed ? question.from : question.to, packet->data + at + len, len);
    memcpy(reversed ? question.to_port : question.from_port, l4, 2);
    memcpy(reversed ? question.from_port : question.to_port, l4 + 2, 2);
    *ret_question = question;
    return true;
}

static uint8_t
tcp_flags(const struct wd_packet *packet)
{
    return packet->data[packet->l4_off + FLAGS] & (TCP_SYN | TCP_RST | TCP_ACK);
}

void
wd_questions_note(struct wd_questions **table, const struct wd_packet *packet, bool tracked)
{
    bool begins = packet->l4 == WD_L4_UDP || (packet->l4 == WD_L4_TCP && tcp_flags(packet) == TCP_SYN);
    struct wd_question question;
    struct asked *slot;

    if ((tracked && !begins) || !question_of(packet, false, &question))
        return;
    question.begins = begins;
    if (!*table)
        *table = calloc(1, sizeof(**table));
    if (!*table)
        return;
    slot = find_slot(*table, &question);
    if (memcmp(&slot->question, &question, sizeof(question)) != 0)
        *slot = (struct asked){.question = question};
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
question_to(const struct wd_packet *answer, struct wd_question *ret_question)
{
    struct wd_packet quoted;

    if (!is_error(answer))
        return question_of(answer, true, ret_question);
    return wd_packet_parse(answer->data + answer->data_off, wd_packet_data_len(answer), &quoted) &&
           question_of(&quoted, false, ret_question);
}

/* What the other end of a connection that begins may say first. */
static bool
may_follow(const struct wd_packet *answer, const struct wd_question *question)
{
    uint8_t flags;

    if (!question->begins || answer->l4 != WD_L4_TCP)
        return true;
    flags = tcp_flags(answer);
    return flags & TCP_RST || flags == (TCP_SYN | TCP_ACK);
}

bool
wd_questions_answered(struct wd_questions *table, const struct wd_packet *packet, int64_t now,
                      struct wd_question *ret_question)
{
    struct wd_question question;
    struct asked *slot;

    if (!table || !question_to(packet, &question))
        return false;
    slot = find_slot(table, &question);
    question.begins = slot->question.begins;
    if (memcmp(&slot->question, &question, sizeof(question)) != 0 || !may_follow(packet, &question))
        return false;
    if (slot->told && now - slot->told < WD_QUESTIONS_AGAIN)
        return false;
    slot->told = now;
    *ret_question = question;
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
put_address(struct nlmsghdr *nlh, const struct wd_question *question, bool source, const uint8_t *address)
{
    if (question->version == 4)
        mnl_attr_put(nlh, source ? CTA_IP_V4_SRC : CTA_IP_V4_DST, 4, address);
    else
        mnl_attr_put(nlh, source ? CTA_IP_V6_SRC : CTA_IP_V6_DST, 16, address);
}

static void
put_tuple(struct nlmsghdr *nlh, const struct wd_question *question, uint16_t attr, bool reply)
{
    struct nlattr *outer = mnl_attr_nest_start(nlh, attr), *inner = mnl_attr_nest_start(nlh, CTA_TUPLE_IP);

    put_address(nlh, question, true, reply ? question->to : question->from);
    put_address(nlh, question, false, reply ? question->from : question->to);
    mnl_attr_nest_end(nlh, inner);
    inner = mnl_attr_nest_start(nlh, CTA_TUPLE_PROTO);
    mnl_attr_put_u8(nlh, CTA_PROTO_NUM, question->protocol);
    mnl_attr_put(nlh, CTA_PROTO_SRC_PORT, 2, reply ? question->to_port : question->from_port);
    mnl_attr_put(nlh, CTA_PROTO_DST_PORT, 2, reply ? question->from_port : question->to_port);
    mnl_attr_nest_end(nlh, inner);
    mnl_attr_nest_end(nlh, outer);
}

/* Sequence numbers that conntrack cannot judge are let pass. */
static void
put_tcp(struct nlmsghdr *nlh, bool begins)
{
    const struct nf_ct_tcp_flags liberal = {IP_CT_TCP_FLAG_BE_LIBERAL, IP_CT_TCP_FLAG_BE_LIBERAL};
    struct nlattr *outer = mnl_attr_nest_start(nlh, CTA_PROTOINFO), *inner;

    inner = mnl_attr_nest_start(nlh, CTA_PROTOINFO_TCP);
    if (begins)
        mnl_attr_put_u8(nlh, CTA_PROTOINFO_TCP_STATE, TCP_CONNTRACK_SYN_SENT);
    mnl_attr_put(nlh, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, sizeof(liberal), &liberal);
    mnl_attr_put(nlh, CTA_PROTOINFO_TCP_FLAGS_REPLY, sizeof(liberal), &liberal);
    mnl_attr_nest_end(nlh, inner);
    mnl_attr_nest_end(nlh, outer);
}

void
wd_conntrack_tell(int fd, const struct wd_question *question)
{
    _Alignas(struct nlmsghdr) char buf[512];
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    struct nfgenmsg *nfg;

    nlh->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW;
    nlh->nlmsg_flags = NLM_F_REQUEST | (question->begins ? NLM_F_CREATE | NLM_F_EXCL : 0);
    nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
    nfg->nfgen_family = question->version == 4 ? AF_INET : AF_INET6;
    nfg->version = NFNETLINK_V0;
    put_tuple(nlh, question, CTA_TUPLE_ORIG, false);
    if (question->begins) {
        put_tuple(nlh, question, CTA_TUPLE_REPLY, true);
        mnl_attr_put_u32(nlh, CTA_TIMEOUT, htonl(TIMEOUT_S));
    }
    if (question->protocol == IPPROTO_TCP)
        put_tcp(nlh, question->begins);
    /* The kernel is done when the call returns.  A refusal (known, not known) is as good, but has to be read. */
    if (send(fd, buf, nlh->nlmsg_len, MSG_DONTWAIT) > 0)
        while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
            ;
}
