/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "rule.h"

#include <stdio.h> /* libnftnl/expr.h needs it */

#include <arpa/inet.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/if_arp.h>
#include <linux/ip.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/xt_NFQUEUE.h>
#include <linux/netfilter/xt_bpf.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>

#define XT_SIZE(type) ((sizeof(type) + 7) / 8 * 8) /* xtables pads what it is given to 8 bytes */

struct builder {
    struct nftnl_rule *nft;
    bool failed; /* no memory */
};

static void
add_expr(struct builder *b, struct nftnl_expr *expr)
{
    if (expr)
        nftnl_rule_add_expr(b->nft, expr);
    else
        b->failed = true;
}

/* Register 1 = meta KEY */
static void
add_meta(struct builder *b, uint32_t key)
{
    struct nftnl_expr *meta = nftnl_expr_alloc("meta");

    if (meta) {
        nftnl_expr_set_u32(meta, NFTNL_EXPR_META_KEY, key);
        nftnl_expr_set_u32(meta, NFTNL_EXPR_META_DREG, NFT_REG_1);
    }
    add_expr(b, meta);
}

/* Register 1 in network order, so that it can be compared by order. */
static void
add_big_endian(struct builder *b)
{
    struct nftnl_expr *order = nftnl_expr_alloc("byteorder");

    if (order) {
        nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_SREG, NFT_REG_1);
        nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_DREG, NFT_REG_1);
        nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_OP, NFT_BYTEORDER_HTON);
        nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_LEN, sizeof(uint32_t));
        nftnl_expr_set_u32(order, NFTNL_EXPR_BYTEORDER_SIZE, sizeof(uint32_t));
    }
    add_expr(b, order);
}

/* Register 1 OP value, or the rule ends here. */
static void
add_cmp(struct builder *b, uint32_t op, const void *value, uint32_t size)
{
    struct nftnl_expr *cmp = nftnl_expr_alloc("cmp");

    if (cmp) {
        nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
        nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_OP, op);
        nftnl_expr_set(cmp, NFTNL_EXPR_CMP_DATA, value, size);
    }
    add_expr(b, cmp);
}

static void
add_meta_compare(struct builder *b, uint32_t key, uint32_t op, const void *value, uint32_t size)
{
    add_meta(b, key);
    add_cmp(b, op, value, size);
}

/* Register 1 &= mask; four bytes long: the kernel then does it in place. */
static void
add_mask(struct builder *b, const uint8_t mask[4])
{
    const uint8_t none[4] = {0};
    struct nftnl_expr *bitwise = nftnl_expr_alloc("bitwise");

    if (bitwise) {
        nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
        nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
        nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_LEN, sizeof(none));
        nftnl_expr_set(bitwise, NFTNL_EXPR_BITWISE_MASK, mask, sizeof(none));
        nftnl_expr_set(bitwise, NFTNL_EXPR_BITWISE_XOR, none, sizeof(none));
    }
    add_expr(b, bitwise);
}

/* Register 1 = len bytes at offset from the network header. */
static void
add_payload(struct builder *b, uint32_t offset, uint32_t len)
{
    struct nftnl_expr *payload = nftnl_expr_alloc("payload");

    if (payload) {
        nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
        nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
        nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_LEN, len);
        nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
    }
    add_expr(b, payload);
}

static void
add_compare(struct builder *b, const struct wd_compare *compare)
{
    static const uint32_t ops[] = {
        [WD_COMPARE_EQ] = NFT_CMP_EQ,
        [WD_COMPARE_NE] = NFT_CMP_NEQ,
        [WD_COMPARE_GE] = NFT_CMP_GTE,
        [WD_COMPARE_LE] = NFT_CMP_LTE,
    };
    const uint8_t mask[4] = {compare->mask};

    add_payload(b, compare->offset, compare->len);
    if (compare->mask)
        add_mask(b, mask);
    add_cmp(b, ops[compare->op], compare->value, compare->len);
}

/* meta length >= min */
static void
add_min_length(struct builder *b, uint32_t min)
{
    const uint32_t least = htonl(min);

    add_meta(b, NFT_META_LEN);
    add_big_endian(b);
    add_cmp(b, NFT_CMP_GTE, &least, sizeof(least));
}

/* Register 1, a single byte = is there a fragment header? */
static void
add_fragment_header(struct builder *b)
{
    struct nftnl_expr *exthdr = nftnl_expr_alloc("exthdr");

    if (exthdr) {
        nftnl_expr_set_u8(exthdr, NFTNL_EXPR_EXTHDR_TYPE, IPPROTO_FRAGMENT);
        nftnl_expr_set_u32(exthdr, NFTNL_EXPR_EXTHDR_OFFSET, 0);
        nftnl_expr_set_u32(exthdr, NFTNL_EXPR_EXTHDR_LEN, 1);
        nftnl_expr_set_u32(exthdr, NFTNL_EXPR_EXTHDR_FLAGS, NFT_EXTHDR_F_PRESENT);
        nftnl_expr_set_u32(exthdr, NFTNL_EXPR_EXTHDR_OP, NFT_EXTHDR_OP_IPV6);
        nftnl_expr_set_u32(exthdr, NFTNL_EXPR_EXTHDR_DREG, NFT_REG_1);
    }
    add_expr(b, exthdr);
}

/* Register 1 = fib daddr type, in network order */
static void
add_address_type(struct builder *b)
{
    struct nftnl_expr *fib = nftnl_expr_alloc("fib");

    if (fib) {
        nftnl_expr_set_u32(fib, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
        nftnl_expr_set_u32(fib, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
        nftnl_expr_set_u32(fib, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
    }
    add_expr(b, fib);
    add_big_endian(b);
}

/* meta nfproto ipv4 ip frag-off & 0x3fff != 0, or: meta nfproto ipv6 exthdr frag exists */
static void
add_is_fragment(struct builder *b, enum wd_rule_fragments fragments)
{
    const uint8_t proto = fragments == WD_RULE_FRAGMENTS4 ? NFPROTO_IPV4 : NFPROTO_IPV6, yes = 1;
    const uint8_t mask[4] = {0x3f, 0xff}, none[2] = {0};

    add_meta_compare(b, NFT_META_NFPROTO, NFT_CMP_EQ, &proto, sizeof(proto));
    if (fragments == WD_RULE_FRAGMENTS6) {
        add_fragment_header(b);
        add_cmp(b, NFT_CMP_EQ, &yes, sizeof(yes));
        return;
    }
    add_payload(b, offsetof(struct iphdr, frag_off), sizeof(uint16_t));
    add_mask(b, mask);
    add_cmp(b, NFT_CMP_NEQ, none, sizeof(none));
}

/* Local, broadcast, anycast, multicast: what is not forwarded.  Then meta priority set WD_TAG_FRAGMENT. */
static void
add_tag_local(struct builder *b)
{
    const uint32_t first = htonl(RTN_LOCAL), last = htonl(RTN_MULTICAST), tag = WD_TAG_FRAGMENT;
    struct nftnl_expr *load = nftnl_expr_alloc("immediate"), *set = nftnl_expr_alloc("meta");

    add_address_type(b);
    add_cmp(b, NFT_CMP_GTE, &first, sizeof(first));
    add_cmp(b, NFT_CMP_LTE, &last, sizeof(last));
    if (load) {
        nftnl_expr_set_u32(load, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
        nftnl_expr_set(load, NFTNL_EXPR_IMM_DATA, &tag, sizeof(tag));
    }
    add_expr(b, load);
    if (set) {
        nftnl_expr_set_u32(set, NFTNL_EXPR_META_KEY, NFT_META_PRIORITY);
        nftnl_expr_set_u32(set, NFTNL_EXPR_META_SREG, NFT_REG_1);
    }
    add_expr(b, set);
}

/* What most packets fail at comes first. */
static void
add_prefix(struct builder *b, const struct wd_rule *rule)
{
    const uint16_t loopback = ARPHRD_LOOPBACK;

    if (rule->min_length)
        add_min_length(b, rule->min_length);
    if (rule->fragments)
        add_is_fragment(b, rule->fragments);
    for (unsigned int i = 0; rule->prefix && i < rule->prefix->count; i++)
        add_compare(b, &rule->prefix->compare[i]);
    if (rule->dev != WD_RULE_ANY_DEV)
        add_meta_compare(b, rule->hook == WD_HOOK_LOCAL_OUT ? NFT_META_OIFTYPE : NFT_META_IIFTYPE,
                         rule->dev == WD_RULE_LOOPBACK_DEV ? NFT_CMP_EQ : NFT_CMP_NEQ, &loopback, sizeof(loopback));
    if (rule->oif)
        add_meta_compare(b, NFT_META_OIF, NFT_CMP_EQ, &rule->oif, sizeof(rule->oif));
    for (unsigned int i = 0; i < rule->not_oif_count; i++)
        add_meta_compare(b, NFT_META_OIF, NFT_CMP_NEQ, &rule->not_oif[i], sizeof(rule->not_oif[i]));
}

/* The xtables match "bpf" on a program's descriptor; the rule takes its own reference to the program. */
static void
add_program(struct builder *b, int prog_fd)
{
    struct nftnl_expr *expr = nftnl_expr_alloc("match");
    struct xt_bpf_info_v1 *info = calloc(1, sizeof(*info)); /* libnftnl takes and frees it */

    if (!expr || !info) {
        b->failed = true;
        free(info);
        if (expr)
            nftnl_expr_free(expr);
        return;
    }
    info->mode = XT_BPF_MODE_FD_ELF;
    info->fd = prog_fd;
    nftnl_expr_set_str(expr, NFTNL_EXPR_MT_NAME, "bpf");
    nftnl_expr_set_u32(expr, NFTNL_EXPR_MT_REV, 1);
    nftnl_expr_set(expr, NFTNL_EXPR_MT_INFO, info, sizeof(*info));
    nftnl_rule_add_expr(b->nft, expr);
}

/* The xtables target "NFQUEUE", so that no CONFIG_NFT_QUEUE is needed; BYPASS: pass when nobody listens. */
static void
add_queue(struct builder *b, const struct wd_rule *rule)
{
    struct nftnl_expr *expr = nftnl_expr_alloc("target");
    struct xt_NFQ_info_v3 *info = calloc(1, XT_SIZE(*info));

    if (!expr || !info) {
        b->failed = true;
        free(info);
        if (expr)
            nftnl_expr_free(expr);
        return;
    }
    info->queuenum = rule->queue;
    info->queues_total = 1;
    info->flags = NFQ_FLAG_BYPASS;
    nftnl_expr_set_str(expr, NFTNL_EXPR_TG_NAME, "NFQUEUE");
    nftnl_expr_set_u32(expr, NFTNL_EXPR_TG_REV, 3);
    nftnl_expr_set(expr, NFTNL_EXPR_TG_INFO, info, XT_SIZE(*info));
    nftnl_rule_add_expr(b->nft, expr);
}

static void
add_nft_queue(struct builder *b, const struct wd_rule *rule)
{
    struct nftnl_expr *queue = nftnl_expr_alloc("queue");

    if (queue) {
        nftnl_expr_set_u16(queue, NFTNL_EXPR_QUEUE_NUM, rule->queue);
        nftnl_expr_set_u16(queue, NFTNL_EXPR_QUEUE_TOTAL, 1);
        nftnl_expr_set_u16(queue, NFTNL_EXPR_QUEUE_FLAGS, NFT_QUEUE_FLAG_BYPASS);
    }
    add_expr(b, queue);
}

static void
add_drop(struct builder *b)
{
    struct nftnl_expr *expr = nftnl_expr_alloc("immediate");

    if (expr) {
        nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
        nftnl_expr_set_u32(expr, NFTNL_EXPR_IMM_VERDICT, NF_DROP);
    }
    add_expr(b, expr);
}

/* nft == NULL: failed */
static struct builder
begin(const char *table, const char *chain)
{
    struct builder b = {.nft = nftnl_rule_alloc()};

    if (b.nft)
        b.failed = nftnl_rule_set_str(b.nft, NFTNL_RULE_TABLE, table) < 0 ||
                   nftnl_rule_set_str(b.nft, NFTNL_RULE_CHAIN, chain) < 0;
    return b;
}

static struct nftnl_rule *
end(struct builder *b)
{
    if (!b->failed)
        return b->nft;
    nftnl_rule_free(b->nft);
    return NULL;
}

struct nftnl_rule *
wd_rule_build(const struct wd_rule *rule, enum wd_queue_by by, const char *table, const char *chain)
{
    struct builder b = begin(table, chain);

    if (!b.nft)
        return NULL;
    add_prefix(&b, rule);
    if (rule->fragments)
        add_tag_local(&b);
    if (rule->prog_fd >= 0)
        add_program(&b, rule->prog_fd);
    if (rule->action == WD_RULE_QUEUE && by == WD_QUEUE_BY_NFT)
        add_nft_queue(&b, rule);
    else if (rule->action == WD_RULE_QUEUE)
        add_queue(&b, rule);
    else if (rule->action == WD_RULE_DROP)
        add_drop(&b);
    return end(&b);
}

/* tproxy to :register 1 */
static void
add_tproxy(struct builder *b)
{
    struct nftnl_expr *tproxy = nftnl_expr_alloc("tproxy");

    if (tproxy) {
        nftnl_expr_set_u32(tproxy, NFTNL_EXPR_TPROXY_FAMILY, NFPROTO_IPV6);
        nftnl_expr_set_u32(tproxy, NFTNL_EXPR_TPROXY_REG_PORT, NFT_REG_1);
    }
    add_expr(b, tproxy);
}

/* Register 1 = ct state */
static void
add_ct(struct builder *b)
{
    struct nftnl_expr *ct = nftnl_expr_alloc("ct");

    if (ct) {
        nftnl_expr_set_u32(ct, NFTNL_EXPR_CT_KEY, NFT_CT_STATE);
        nftnl_expr_set_u32(ct, NFTNL_EXPR_CT_DREG, NFT_REG_1);
    }
    add_expr(b, ct);
}

struct nftnl_rule *
wd_rule_build_reassembly(enum wd_reassembly by, const char *table, const char *chain)
{
    struct builder b = begin(table, chain);

    if (!b.nft)
        return NULL;
    if (by == WD_REASSEMBLY_TPROXY) {
        add_meta(&b, NFT_META_MARK); /* loads the register */
        add_tproxy(&b);
    } else {
        add_ct(&b);
    }
    return end(&b);
}
