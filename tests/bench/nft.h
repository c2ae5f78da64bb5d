/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * What handles are compared with: a base chain at LOCAL_OUT, where a handle of
 * priority 0 has its own, with at most one rule, in the network namespace of
 * the calling thread.
 */
#ifndef BENCH_NFT_H
#define BENCH_NFT_H

#include <stdint.h>

struct mnl_socket;

enum nft_rule {
    NFT_NO_RULE,
    NFT_QUEUE_PORT, /* th dport ARG queue to NFT_QUEUE_NUM: as one writes it with libnetfilter_queue */
    NFT_DROP_PORT,  /* meta l4proto udp, th dport ARG drop: as nft writes "udp dport ARG drop" */
    NFT_BPF_DROP,   /* match of the program with descriptor ARG, drop */
};
#define NFT_QUEUE_NUM 7

/* Fails the test on an error.  The rules go when the socket is closed. */
struct mnl_socket *nft_install(enum nft_rule rule, uint32_t arg);

#endif
