/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* A compiled filter as an eBPF program, of type SOCKET_FILTER or NETFILTER, for one netfilter hook. */
#ifndef WD_BPF_GEN_H
#define WD_BPF_GEN_H

#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/prog.h"

enum wd_hook { WD_HOOK_LOCAL_OUT, WD_HOOK_LOCAL_IN, WD_HOOK_FORWARD, WD_HOOK_PRE_ROUTING };
#define WD_HOOKS 4

enum wd_gen_mode {
    WD_GEN_MATCH, /* SOCKET_FILTER: returns 1 for a matching packet, 0 otherwise (divert, drop); NETFILTER: drops it */
    WD_GEN_SNIFF, /* copies a matching packet into the ring as a struct wd_record; always returns "no match" */
};

/*
 * Which packets can match, by the size of the segments that the kernel may still
 * take them apart to (GSO, GRO); "whole": a segment is surely no longer than
 * NFQUEUE can hand over.
 */
enum wd_gen_form {
    WD_GEN_ANY_FORM,
    WD_GEN_NO_AGGREGATES,
    WD_GEN_WHOLE_AGGREGATES,
    WD_GEN_WHOLE, /* these or no aggregates */
    WD_GEN_LONG_AGGREGATES
};
#define WD_GEN_SEGMENT_MAX (65531 - 256) /* payload of a segment that is whole: leaves room for headers */

/* Tags by which every process recognises packets that a handle injected; the same in all versions. */
#define WD_TAG_SO_PRIORITY 0x57D00000u      /* outbound: skb->priority = this | (priority + 30001) << 4 */
#define WD_TAG_SO_PRIORITY_MASK 0xFFF0000Fu /* ... compared under this mask */
#define WD_TAG_LEVEL(priority)                                                                                       \
    ((uint32_t)((priority) + 30001)) /* inbound, forward: skb->tc_index, with skb->hash = magic */

/*
 * skb->priority of fragments for this machine, from a handle that takes them
 * singly: the packet that is put together of them has it, too, and is not for
 * that handle.
 */
#define WD_TAG_FRAGMENT 0x57F00000u

/*
 * Slots of the counter map (an array with one value of WD_COUNTERS u64,
 * mmapable, so that programs reach them by BPF_PSEUDO_MAP_VALUE), added to
 * atomically.
 *
 * SLEEPING is not a count: a reader that goes to sleep on the ring stores 1
 * there, looks into the ring once more, and polls.  A SNIFF program, after it
 * has reserved its record (not before: else a wake-up could be lost), exchanges
 * the slot with 0 (BPF_XCHG, a full barrier) and submits with
 * BPF_RB_FORCE_WAKEUP where it was 1 and with BPF_RB_NO_WAKEUP otherwise, so
 * that an idle reader is woken by the first record and a busy one never.
 *
 * WRITTEN counts the records in the ring, TAKEN (the reader's) those that it
 * has read, and LIMIT (the library's) is how many may be there unread; a packet
 * beyond that is counted in TOO_MANY and not copied.
 */
enum wd_counter {
    WD_COUNT_MATCHED,
    WD_COUNT_RING_FULL,
    WD_COUNT_SLEEPING,
    WD_COUNT_WRITTEN,
    WD_COUNT_TAKEN,
    WD_COUNT_LIMIT,
    WD_COUNT_TOO_MANY,
    WD_COUNT_DROPPED, /* matched, by a program that drops */
    WD_COUNT_SKIPPED, /* of a flow that is passed over, and not matched for that alone */
    WD_COUNT_FLOWS,   /* flows that a program put into the map */
    WD_COUNTERS
};

/* One sniffed packet in the ring: this header, then cap_len bytes of packet. */
struct wd_record {
    uint64_t ktime_ns; /* CLOCK_MONOTONIC, the value `timestamp` tests saw (divided by 100) */
    uint64_t cookie;   /* of the socket, 0: none */
    uint32_t len;      /* of the packet */
    uint32_t cap_len;  /* bytes that follow */
    uint32_t ifindex;  /* as the hook sees it; at LOCAL_OUT the oif of the options */
    uint8_t hook;      /* enum wd_hook */
    uint8_t impostor;
    uint8_t loopback; /* the constant of the program that wrote it */
    uint8_t unused;
};

/*
 * NFQUEUE hands over 65,531 bytes of a packet (a 16-bit attribute).  What is
 * behind them the program of a diverting handle writes into a ring, with the
 * beginning of the packet to know it by.
 */
#define WD_TAIL_FROM 65531
#define WD_TAIL_MAX 44 /* up to 65,575 bytes */
#define WD_TAIL_HEAD 64
struct wd_tail {
    uint32_t len; /* of the packet */
    uint8_t head[WD_TAIL_HEAD];
    uint8_t tail[WD_TAIL_MAX]; /* len - WD_TAIL_FROM of them */
};

/*
 * Key of the map of flows (a hash map of u64): both directions have the same.
 * Addresses and ports as they are in the packet, addresses of IPv4 in the second
 * word; the end whose words and port are the smaller ones, as numbers of this
 * machine, is the first.  Ports are 0 where there is no TCP or UDP.  A fragment
 * belongs to no flow.
 */
struct wd_flow {
    uint64_t addr[2][2];
    uint16_t port[2];
    uint16_t protocol;
    uint16_t version;
};
#define WD_FLOW_SKIPPED (UINT64_C(1) << 62) /* instead of a count */
#define WD_FLOW_LIMIT_MAX 0x7FFFFFFF

struct wd_kernel;

struct wd_gen_opts {
    const struct wd_kernel *kernel; /* of type NETFILTER, for this kernel; it sees the interface itself: loopback,
                                       loopback_known and oif do not count.  NULL: of type SOCKET_FILTER */
    const struct wd_kernel *route;  /* SOCKET_FILTER that sniffs, LOCAL_OUT: where oif is unknown the interface in the
                                      record is that of the packet's route (Linux 6.2); NULL: 0 */
    enum wd_hook hook;
    enum wd_gen_mode mode;
    enum wd_counter counter; /* of what matches */
    int16_t priority;        /* of the handle: tags of this level and below are skipped: never a match */
    bool loopback;       /* the rule in front lets only loopback (true) or only other packets (false) through ... */
    bool loopback_known; /* ... if this is set; otherwise the program does not read `loopback` */
    uint32_t
        oif; /* LOCAL_OUT: the interface that the rule in front lets through: `ifIdx`, and in the record; 0: unknown */
    uint32_t inject_magic;  /* skb->hash of packets injected inbound and into the forward path; 0: none are */
    int counters_fd;        /* map of enum wd_counter; -1: do not count */
    int ring_fd;            /* ring buffer map: SNIFF: of the records; MATCH: of the tails, -1: none are written */
    enum wd_gen_form form;  /* SOCKET_FILTER: the others do not match */
    bool single;            /* fragments were taken singly: what carries WD_TAG_FRAGMENT does not match */
    bool big;               /* aggregates over 65,535 bytes, whose length field is 0, are packets, too */
    bool bounded;           /* no endless loops (Linux before 6.9, wd_bpf_can_loop): packets with more than 32 IPv6
                               extension headers do not match */
    int flows_fd;           /* the map of flows ... */
    uint32_t flow_limit;    /* ... of which those with so many packets do not match; 0: there is no map */
    bool flow_counts;       /* and what matches is counted there */
    bool large;             /* tests: as where there are so many tests that loading takes long */
    uint64_t fixed_time_ns; /* tests: use this instead of the clock; 0: the clock */
};

struct wd_code {
    struct bpf_insn *insns; /* malloc'ed */
    size_t count;
};

/*
 * Generates.  prog is specialised: it reads no field that the hook cannot
 * know.  0, -ENOMEM, -E2BIG (a limit of the verifier is known to be exceeded)
 * or -EOPNOTSUPP (a field that has no code at this hook) with *err.
 */
int wd_gen(const struct wd_prog *prog, const struct wd_gen_opts *opts, struct wd_code *ret_code,
           struct wd_error *err);
void wd_code_free(struct wd_code *code);

#endif
