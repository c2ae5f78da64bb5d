/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* One rule of ours, and what nftables calls it: compares, a program, an action. */
#ifndef WD_LINUX_RULE_H
#define WD_LINUX_RULE_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/gen.h"
#include "linux/native.h"

/* Native compare in front of a program: the type of the outgoing (LOCAL_OUT) or incoming device. */
enum wd_rule_dev { WD_RULE_ANY_DEV, WD_RULE_LOOPBACK_DEV, WD_RULE_OTHER_DEV };
#define WD_RULE_IFS_MAX 32

enum wd_rule_action { WD_RULE_QUEUE, WD_RULE_DROP, WD_RULE_NONE /* the program does it all */ };

/* PRE_ROUTING: only fragments, of this IP version, for this machine; they get WD_TAG_FRAGMENT. */
enum wd_rule_fragments { WD_RULE_WHOLE, WD_RULE_FRAGMENTS4, WD_RULE_FRAGMENTS6 };

struct wd_rule {
    enum wd_hook hook;
    enum wd_rule_dev dev;
    uint32_t oif;            /* only packets leaving by this interface; 0: by any */
    const uint32_t *not_oif; /* but none leaving by these */
    unsigned int not_oif_count;
    const struct wd_prefix *prefix; /* only packets that fulfil it; NULL: all */
    uint32_t min_length;            /* only packets of so many bytes, of aggregates the whole */
    enum wd_gen_form form;          /* what the program lets through */
    enum wd_rule_fragments fragments;
    int prog_fd; /* SOCKET_FILTER program; < 0: every packet */
    enum wd_rule_action action;
    uint16_t queue; /* QUEUE: first queue number */
};

/*
 * How a rule queues: kernels have both, or only one of them.  Both pass
 * packets when nobody listens.
 */
enum wd_queue_by {
    WD_QUEUE_BY_XTABLES, /* the target NFQUEUE (nft_compat, xt_NFQUEUE) */
    WD_QUEUE_BY_NFT,     /* the expression queue (nft_queue) */
    WD_QUEUE_BYS
};

struct nftnl_rule;

/* For libnftnl, to be freed with nftnl_rule_free; NULL: no memory. */
struct nftnl_rule *wd_rule_build(const struct wd_rule *rule, enum wd_queue_by by, const char *table,
                                 const char *chain);

/*
 * A rule, for a chain at no hook, that is there for what the kernel turns on
 * with it: the reassembly of IPv6 fragments before they are routed
 * (nf_defrag_ipv6).  No packet ever meets it.
 */
enum wd_reassembly {
    WD_REASSEMBLY_TPROXY, /* that alone */
    WD_REASSEMBLY_CT,     /* and connection tracking, which costs every packet of the namespace */
    WD_REASSEMBLIES
};
struct nftnl_rule *wd_rule_build_reassembly(enum wd_reassembly by, const char *table, const char *chain);

#endif
