/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "nft.h"

#include "../e2e/e2e.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/xt_NFQUEUE.h>
#include <linux/netfilter/xt_bpf.h>
#include <stdlib.h>
#include <string.h>

#define TABLE "bench"
#define CHAIN "out"
#define XT_SIZE(type) ((sizeof(type) + 7) / 8 * 8) /* xtables pads what it is given to 8 bytes */

static void
add_table(struct mnl_nlmsg_batch *b, uint32_t *seq)
{
    struct nftnl_table *t = nftnl_table_alloc();
    struct nlmsghdr *nlh =
        nftnl_nlmsg_build_hdr(mnl_nlmsg_batch_current(b), NFT_MSG_NEWTABLE, NFPROTO_INET, NLM_F_CREATE, (*seq)++);

    nftnl_table_set_str(t, NFTNL_TABLE_NAME, TABLE);
    nftnl_table_set_u32(t, NFTNL_TABLE_FLAGS, NFT_TABLE_F_OWNER);
    nftnl_table_nlmsg_build_payload(nlh, t);
    nftnl_table_free(t);
    mnl_nlmsg_batch_next(b);
}

static void
add_chain(struct mnl_nlmsg_batch *b, uint32_t *seq)
{
    struct nftnl_chain *c = nftnl_chain_alloc();
    struct nlmsghdr *nlh =
        nftnl_nlmsg_build_hdr(mnl_nlmsg_batch_current(b), NFT_MSG_NEWCHAIN, NFPROTO_INET, NLM_F_CREATE, (*seq)++);

    nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, TABLE);
    nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, CHAIN);
    nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, "filter");
    nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, NF_INET_LOCAL_OUT);
    nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, -1000000);
    nftnl_chain_nlmsg_build_payload(nlh, c);
    nftnl_chain_free(c);
    mnl_nlmsg_batch_next(b);
}

/* ---- Expressions ----------------------------------------------------------- */

static struct nftnl_expr *
add_expr(struct nftnl_rule *rule, const char *name)
{
    struct nftnl_expr *expr = nftnl_expr_alloc(name);

    CHECK(expr, "no memory");
    nftnl_rule_add_expr(rule, expr);
    return expr;
}

/* The register equals value. */
static void
add_compare(struct nftnl_rule *rule, const void *value, uint32_t size)
{
    struct nftnl_expr *cmp = add_expr(rule, "cmp");

    nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
    nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_OP, NFT_CMP_EQ);
    nftnl_expr_set(cmp, NFTNL_EXPR_CMP_DATA, value, size);
}

static void
add_udp(struct nftnl_rule *rule)
{
    struct nftnl_expr *meta = add_expr(rule, "meta");
    uint8_t udp = IPPROTO_UDP;

    nftnl_expr_set_u32(meta, NFTNL_EXPR_META_KEY, NFT_META_L4PROTO);
    nftnl_expr_set_u32(meta, NFTNL_EXPR_META_DREG, NFT_REG_1);
    add_compare(rule, &udp, sizeof(udp));
}

static void
add_port(struct nftnl_rule *rule, uint32_t port)
{
    struct nftnl_expr *load = add_expr(rule, "payload");
    uint16_t be = htons((uint16_t)port);

    nftnl_expr_set_u32(load, NFTNL_EXPR_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
    nftnl_expr_set_u32(load, NFTNL_EXPR_PAYLOAD_OFFSET, 2);
    nftnl_expr_set_u32(load, NFTNL_EXPR_PAYLOAD_LEN, sizeof(be));
    nftnl_expr_set_u32(load, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
    add_compare(rule, &be, sizeof(be));
}

/* The target of xtables, as kernels without nft_queue have only that.  The expression takes info over. */
static void
add_queue(struct nftnl_rule *rule)
{
    struct xt_NFQ_info_v3 *info = calloc(1, XT_SIZE(*info));
    struct nftnl_expr *target = add_expr(rule, "target");

    CHECK(info, "no memory");
    info->queuenum = NFT_QUEUE_NUM;
    info->queues_total = 1;
    nftnl_expr_set_str(target, NFTNL_EXPR_TG_NAME, "NFQUEUE");
    nftnl_expr_set_u32(target, NFTNL_EXPR_TG_REV, 3);
    nftnl_expr_set(target, NFTNL_EXPR_TG_INFO, info, XT_SIZE(*info));
}

static void
add_program(struct nftnl_rule *rule, uint32_t fd)
{
    struct xt_bpf_info_v1 *info = calloc(1, XT_SIZE(*info));
    struct nftnl_expr *match = add_expr(rule, "match");

    CHECK(info, "no memory");
    info->mode = XT_BPF_MODE_FD_ELF;
    info->fd = (int)fd;
    nftnl_expr_set_str(match, NFTNL_EXPR_MT_NAME, "bpf");
    nftnl_expr_set_u32(match, NFTNL_EXPR_MT_REV, 1);
    nftnl_expr_set(match, NFTNL_EXPR_MT_INFO, info, XT_SIZE(*info));
}

static void
add_drop(struct nftnl_rule *rule)
{
    struct nftnl_expr *verdict = add_expr(rule, "immediate");

    nftnl_expr_set_u32(verdict, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(verdict, NFTNL_EXPR_IMM_VERDICT, NF_DROP);
}

/* ---- One transaction ------------------------------------------------------- */

static void
add_rule(struct mnl_nlmsg_batch *b, uint32_t *seq, enum nft_rule rule, uint32_t arg)
{
    struct nlmsghdr *nlh = nftnl_nlmsg_build_hdr(mnl_nlmsg_batch_current(b), NFT_MSG_NEWRULE, NFPROTO_INET,
                                                 NLM_F_CREATE | NLM_F_APPEND, (*seq)++);
    struct nftnl_rule *r = nftnl_rule_alloc();

    CHECK(r, "no memory");
    nftnl_rule_set_str(r, NFTNL_RULE_TABLE, TABLE);
    nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, CHAIN);
    if (rule == NFT_BPF_DROP)
        add_program(r, arg);
    if (rule == NFT_DROP_PORT)
        add_udp(r);
    if (rule == NFT_DROP_PORT || rule == NFT_QUEUE_PORT)
        add_port(r, arg);
    if (rule == NFT_QUEUE_PORT)
        add_queue(r);
    else
        add_drop(r);
    nftnl_rule_nlmsg_build_payload(nlh, r);
    nftnl_rule_free(r);
    mnl_nlmsg_batch_next(b);
}

static struct mnl_socket *
commit(struct mnl_nlmsg_batch *b)
{
    struct mnl_socket *nl = mnl_socket_open(NETLINK_NETFILTER);
    char answer[8192];
    ssize_t n;

    CHECK(nl && mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) == 0, "netlink: %s", strerror(errno));
    CHECK(mnl_socket_sendto(nl, mnl_nlmsg_batch_head(b), mnl_nlmsg_batch_size(b)) > 0, "netlink: %s",
          strerror(errno));
    n = mnl_socket_recvfrom(nl, answer, sizeof(answer));
    CHECK(n > 0 && mnl_cb_run(answer, (size_t)n, 0, 0, NULL, NULL) >= 0, "rule to compare with: %s", strerror(errno));
    return nl;
}

struct mnl_socket *
nft_install(enum nft_rule rule, uint32_t arg)
{
    static char buf[16384];
    struct mnl_nlmsg_batch *b = mnl_nlmsg_batch_start(buf, sizeof(buf) / 2);
    struct mnl_socket *nl;
    uint32_t seq = 1;

    CHECK(b, "no memory");
    nftnl_batch_begin(mnl_nlmsg_batch_current(b), seq++);
    mnl_nlmsg_batch_next(b);
    add_table(b, &seq);
    add_chain(b, &seq);
    if (rule != NFT_NO_RULE)
        add_rule(b, &seq, rule, arg);
    /* The answer to this one says that all went well. */
    ((struct nlmsghdr *)mnl_nlmsg_batch_head(b))->nlmsg_flags |= NLM_F_ACK;
    nftnl_batch_end(mnl_nlmsg_batch_current(b), seq++);
    mnl_nlmsg_batch_next(b);
    nl = commit(b);
    mnl_nlmsg_batch_stop(b);
    return nl;
}
