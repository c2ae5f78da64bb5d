/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What the files of the generator share. */
#ifndef WD_BPF_GEN_IMPL_H
#define WD_BPF_GEN_IMPL_H

#include "asm.h"
#include "gen.h"

/* r6 is the packet (struct __sk_buff) all through the program; the parser says what it does with the others. */
enum wd_reg { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 };
#define R_SKB R6

/*
 * The stack, from r10 down.  All that is known of the packet is here and is
 * loaded again for each test: bytes that a helper wrote, or that were stored
 * in parts of 8-byte words other than the first, are unknown to the verifier,
 * whatever was compared before.  So it does not tell apart the ways by which a
 * test can be reached, and looks at each test once; with registers the number
 * of ways would double with every test.
 */
enum wd_stack {
    SP_IP = -40,     /* IPv4: 20 bytes, IPv6: 40 */
    SP_L4 = -64,     /* the first 20 bytes of TCP, 8 of the others */
    SP_TIME = -72,   /* 8 bytes: ktime in ns */
    SP_INFO = -76,   /* 4 bytes, INFO_x */
    SP_WALK = -79,   /* what the header walk has found so far, WALK_x */
    SP_TAGGED = -78, /* the packet carries the tag of an injection: 2, else 1 */
    SP_PROTOCOL = -77,
    SP_END = -84,   /* 4 bytes: where the packet ends (its IP length, cut to what is there) */
    SP_RPORT = -86, /* 2 bytes each */
    SP_LPORT = -90,
    SP_DATA = -100,     /* 4 bytes: where the payload begins */
    SP_RANDOM32 = -108, /* parts of the hash: 4 bytes, ... */
    SP_RANDOM16 = -110,
    SP_RANDOM8 = -111,
    SP_LOCAL = -128, /* localAddr, remoteAddr: 16 bytes in network order */
    SP_REMOTE = -144,
    SP_BYTES = -152, /* one element of an array, or the beginning of an extension header */
    SP_HIDE = -156,  /* 4 bytes: what goes through here is unknown to the verifier */
    SP_ROUND = -168, /* 8 bytes: count of the header walk */
    SP_LANES = -232, /* 8 words of the hash */
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
    bool matches;            /* some test leads to `accept`: else nothing may be there */
    uint32_t accept, reject; /* labels */
};

/* Parser and what is computed from the headers. */
void wd_gen_parse(struct wd_gen *g);
/* To label where one of the bits of the info word is set; r0 is lost. */
void wd_gen_if_info(struct wd_gen *g, uint32_t bits, uint32_t label);
/* dst = 0, of which the verifier does not know that it is. */
void wd_gen_hidden_zero(struct wd_gen *g, int dst);
/* An address as 128 bits, a port as 16 bits, to the stack; source or destination. */
void wd_gen_address(struct wd_gen *g, bool source, int stack_off);
void wd_gen_port(struct wd_gen *g, bool source, int stack_off);
/* Current time to SP_TIME. */
void wd_gen_time(struct wd_gen *g);
/* HashPacket to SP_RANDOMx; needs SP_TIME. */
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
