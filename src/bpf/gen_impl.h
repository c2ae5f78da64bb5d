/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What the files of the generator share. */
#ifndef WD_BPF_GEN_IMPL_H
#define WD_BPF_GEN_IMPL_H

#include "asm.h"
#include "gen.h"

/*
 * Registers that live through the program: r6 the packet (struct __sk_buff),
 * and behind the header parser r7 the info word, r8 the offset of the payload,
 * r9 where the packet ends (its IP length).  r0 to r5 are for anyone.
 */
enum wd_reg { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 };
#define R_SKB R6
#define R_INFO R7
#define R_DATA R8
#define R_END R9

/*
 * The stack, from r10 down.  What comes from the packet is loaded from here
 * again for each test, and the info word is not on an 8-byte boundary: such
 * bytes are unknown to the verifier, so that it does not tell apart the ways
 * by which a test can be reached, and looks at each test once.
 */
enum wd_stack {
    SP_IP = -40,      /* IPv4: 20 bytes, IPv6: 40 */
    SP_L4 = -64,      /* the first 20 bytes of TCP, 8 of the others */
    SP_TIME = -72,    /* ktime in ns */
    SP_RANDOM = -80,  /* hash of the packet */
    SP_LOCAL = -96,   /* localAddr, remoteAddr: high half, low half, in host order */
    SP_REMOTE = -112, /* ... */
    SP_INFO = -116,   /* 4 bytes */
    SP_LPORT = -118,
    SP_RPORT = -120,
    SP_PROTOCOL = -121,
    SP_WALK = -122,   /* what the header walk has found so far, WALK_x */
    SP_TAGGED = -123, /* the packet carries the tag of an injection: 2, else 1 */
    SP_BYTES = -136,  /* one element of an array, or an extension header */
    SP_ROUND = -144,  /* count of the header walk */
    SP_HIDE = -148,   /* 4 bytes: what goes through here is unknown to the verifier */
    SP_LANES = -216,  /* 8 words of the hash */
};

/* Info word: one bit for the class of the packet, and some more. */
enum wd_info {
    INFO_IP4_OTHER = 1 << 0, /* IPv4 without a transport header, ... */
    INFO_IP4_TCP = 1 << 1,
    INFO_IP4_UDP = 1 << 2,
    INFO_IP4_ICMP = 1 << 3,
    INFO_IP6_OTHER = 1 << 4,
    INFO_IP6_TCP = 1 << 5,
    INFO_IP6_UDP = 1 << 6,
    INFO_IP6_ICMP6 = 1 << 7,
    INFO_IP4 = 0x0F,
    INFO_IP6 = 0xF0,
    INFO_TCP = INFO_IP4_TCP | INFO_IP6_TCP,
    INFO_UDP = INFO_IP4_UDP | INFO_IP6_UDP,
    INFO_CLASSES = 0xFF,
    INFO_FRAGMENT = 1 << 8,
    INFO_NEVER = 1 << 15, /* always 0, which the verifier cannot know */
};

/* What the program has to find out before the first test. */
struct wd_needs {
    bool transport; /* everything behind the IP header */
    bool ip6_addr;  /* more than the first 20 bytes of an IPv6 header */
    bool time, random, local_addr, remote_addr, local_port, remote_port;
};

struct wd_gen {
    struct wd_asm a;
    const struct wd_prog *prog;
    const struct wd_gen_opts *opts;
    struct wd_needs needs;
    bool far;                /* many jumps: see gen_test.c */
    bool matches;            /* some test leads to `accept`: else nothing may be there */
    uint32_t accept, reject; /* labels */
};

/* Parser and what is computed from the headers. */
void wd_gen_parse(struct wd_gen *g);
/* An address as 128 bits, a port as 16 bits, to the stack; source or destination. */
void wd_gen_address(struct wd_gen *g, bool source, int stack_off);
void wd_gen_port(struct wd_gen *g, bool source, int stack_off);
/* Current time to SP_TIME. */
void wd_gen_time(struct wd_gen *g);
/* HashPacket to SP_RANDOM. */
void wd_gen_random(struct wd_gen *g);
/* The tests, ending in jumps to accept and reject.  -ENOMEM or 0. */
int wd_gen_tests(struct wd_gen *g);
/* Behind `accept`: copies the packet into the ring; ends the program. */
void wd_gen_sniff(struct wd_gen *g);
/* Adds 1 to a counter. */
void wd_gen_count(struct wd_gen *g, enum wd_counter counter);
/* r3 = stack address, then bpf_skb_load_bytes(r6, r2, r3, len): r0 is 0 or the packet is shorter, the bytes are 0. */
void wd_gen_load_bytes(struct wd_gen *g, int stack_off, int32_t len);

#endif
