/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What the files of the generator share. */
#ifndef WD_BPF_GEN_IMPL_H
#define WD_BPF_GEN_IMPL_H

#include "asm.h"
#include "gen.h"

/* r6 is the packet (struct __sk_buff, or struct sk_buff: gen_ctx.c) all through the program; the parser says what it does with the others. */
enum wd_reg { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 };
#define R_SKB R6

/*
 * The stack, from r10 down.  All that is known of the packet is here and is
 * loaded again for each test: bytes that a helper wrote, or of an 8-byte word
 * that was stored in parts, the first part first, are unknown to the verifier,
 * whatever was compared before.  So it does not tell apart the ways by which a
 * test can be reached, and looks at each test once; with registers the number
 * of ways would double with every test.
 *
 * The verifier copies the whole stack that is in use for every way it keeps,
 * so what not every program has lies below, as far down as is needed
 * (wd_gen_stack).
 */
enum wd_stack {
    SP_IP = -40,   /* IPv4: 20 bytes, IPv6: 40 */
    SP_INFO = -44, /* 4 bytes, INFO_x */
    SP_L4 = -64,   /* the first 20 bytes of TCP, 8 of the others */
    SP_LEFT = -68, /* 4 bytes: length of the payload; stored after SP_DATA */
    SP_DATA = -72, /* 4 bytes: where the payload begins */
    SP_HIDE = -76, /* 4 bytes: what goes through here is unknown to the verifier */
    SP_PROTOCOL = -77,
    SP_TAGGED = -78, /* the packet carries the tag of an injection: 2, else 1 */
    SP_WALK = -79,   /* what the header walk has found so far, WALK_x */
    SP_BYTES = -88,  /* one element of an array, or the beginning of an extension header */
    SP_ROUND = -96,  /* 8 bytes: count of the header walk, where that is bounded */
    SP_END = -512
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
    bool device;    /* NETFILTER: the interface */
    bool time, random, local_addr, remote_addr, local_port, remote_port;
};

/* Where on the stack the rest is; 0: this program does not have it. */
struct wd_places {
    int time;          /* 8 bytes: ktime in ns */
    int random;        /* 8 bytes, RANDOMx_OFF */
    int ports;         /* 8 bytes, xPORT_OFF */
    int local, remote; /* addresses: see wd_gen_address */
    int lanes;         /* 8 words of the hash */
    int dynptr;        /* NETFILTER: 16 bytes, the packet's bytes */
    int flow;          /* struct wd_flow */
    int flow_count;    /* 8 bytes */
    int device;        /* NETFILTER: 8 bytes, IFINDEX_OFF, LOOPBACK_OFF */
};

#define RANDOM8_OFF 1
#define RANDOM16_OFF 2
#define RANDOM32_OFF 4
#define REMOTE_PORT_OFF 2
#define LOCAL_PORT_OFF 6
#define LOOPBACK_OFF 3 /* not first in the word: see above */
#define IFINDEX_OFF 4

/* The arrays that elements are taken from: the whole buffer, the payload from its start, and from its end. */
enum wd_array { WD_ARRAY_PACKET, WD_ARRAY_HEAD, WD_ARRAY_TAIL, WD_ARRAYS };

#define WD_WINDOW_SIZE 64

/* The bytes of an array that are on the stack, by their offsets from its start (end): low .. high - 1; 0, 0: none. */
struct wd_window {
    int32_t low, high;
};

/* What the windows hold. */
struct wd_windows {
    struct wd_window of[WD_ARRAYS];
};

#define WD_HEADERS 6 /* kinds of headers that fields are in */
#define WD_SLOTS (-SP_END / 8)

struct wd_gen {
    struct wd_asm a;
    const struct wd_prog *prog;
    const struct wd_gen_opts *opts;
    struct wd_needs needs;
    struct wd_places sp;
    int stack_end;                 /* the lowest byte of the stack that is given out */
    int window[WD_ARRAYS];         /* where on the stack the windows are; 0: not yet given out */
    uint32_t next_look[WD_ARRAYS]; /* the test from which it is worth while to look for a new window again */
    int prepared[WD_FIELD_COUNT];  /* where on the stack fields are ready to be compared; 0: they are not */
    uint32_t *first_way;           /* of each test the first test that leads to it, UINT32_MAX: none */
    int halved[WD_FIELD_COUNT];    /* ... half the lower half of an address, rounded down, up, 8 bytes each */
    struct {
        uint8_t with;
        int off;
    } without[WD_HEADERS + 1]; /* ... what wd_gen_without loads; with 0: no more */
    bool large;                /* so many tests that loading takes long */
    bool matches;              /* some test leads to `accept`: else nothing may be there */
    bool misses;               /* some test leads to `no_match` */
    bool touches;              /* see wd_gen_touch */
    struct {
        int size, off; /* of some load from this 8-byte word of the stack; off 0: none */
    } read[WD_SLOTS];
    uint32_t accept, reject; /* labels */
    uint32_t no_match;       /* what tests that reject jump to, `reject` or in front of it */
};

/* Stack for so many bytes, a multiple of 8; 0: there is none left. */
int wd_gen_stack(struct wd_gen *g, int size);
/* A load, in a test, from what is on the stack before the tests; _note: only remembers it. */
void wd_gen_note(struct wd_gen *g, int size, int stack_off);
void wd_gen_read(struct wd_gen *g, int size, int dst, int stack_off);
/*
 * Loads all that tests load from the stack once more.  Linux 6.18 goes through
 * the whole program each time it has come to the end of a way on which it has
 * seen a new load from the stack, unless what that loads is needed further on
 * anyway.  The ends are the first that it sees.
 */
void wd_gen_touch(struct wd_gen *g);
/* What is the same for all packets a program is run for, and what kind of program it is (gen_ctx.c). */
enum wd_skb_field { SKB_LEN, SKB_PRIORITY, SKB_HASH, SKB_TC_INDEX, SKB_IFINDEX, SKB_GSO_SIZE, SKB_GSO_SEGS };
void wd_gen_route_interface(struct wd_gen *g);     /* r1 = of the outgoing packet, by its route; clobbers r0-r5 */
void wd_gen_entry(struct wd_gen *g);               /* from r1, the context */
void wd_gen_verdict(struct wd_gen *g, bool match); /* ends the program */
void wd_gen_load_skb(struct wd_gen *g, int dst, enum wd_skb_field field);
void wd_gen_copy(struct wd_gen *g); /* r4 bytes at offset r2 to r3; r0 = 0, or below 0 where the packet is shorter */
void wd_gen_cookie(struct wd_gen *g); /* r0 = cookie of the packet's socket, 0: none */

/* Parser and what is computed from the headers. */
void wd_gen_parse(struct wd_gen *g);
/* To label where one of the bits of the info word is set; r0 is lost. */
void wd_gen_if_info(struct wd_gen *g, uint32_t bits, uint32_t label);
/* dst = 0, of which the verifier does not know that it is. */
void wd_gen_hidden_zero(struct wd_gen *g, int dst);
/*
 * An address to the stack, source or destination: its upper half and its lower
 * half, of 8 bytes each, as numbers.  of_ip4: IPv4 addresses too.
 */
void wd_gen_address(struct wd_gen *g, bool source, bool of_ip4, int stack_off);
/* A port, 16 bits. */
void wd_gen_port(struct wd_gen *g, bool source, int stack_off);
/* Current time to sp.time. */
void wd_gen_time(struct wd_gen *g);
/* HashPacket to sp.random; needs the time. */
void wd_gen_random(struct wd_gen *g);
/*
 * Fields that many tests read, made ready to be compared, on the stack; and
 * the place for elements of arrays.  Then
 * r1 = the field of a test, of up to 64 bits, that is no element of an array;
 * or dst = the upper or the lower half of an address.
 */
void wd_gen_prepare(struct wd_gen *g);
void wd_gen_prepare_arrays(struct wd_gen *g);
void wd_gen_field(struct wd_gen *g, uint8_t field);
void wd_gen_half(struct wd_gen *g, uint8_t field, bool upper, int dst);
/* The classes that have the header a field is in. */
uint8_t wd_classes_with(uint8_t field);
/* dst = all ones for packets of other classes, else 0 */
void wd_gen_without(struct wd_gen *g, uint8_t with, int dst);
/* Whether the verifier may be led to this test, not the first one, from in front of all tests. */
bool wd_gen_is_entry(uint32_t test);
/*
 * Loads the windows that many of the tests from this one on need; in large
 * programs also if it does not need them itself.  False: none.
 */
bool wd_gen_windows(struct wd_gen *g, struct wd_windows *windows, uint32_t at);
/*
 * r1 = the element that test `at` reads, or anything where it is not there;
 * then r0 is below 0, else 0; r2 is lost.  Where others that can be in a
 * window with it follow, that is loaded.  False: there is no such element in
 * any packet; nothing is generated.
 */
bool wd_gen_element(struct wd_gen *g, struct wd_windows *windows, uint32_t at);
/* dst = the number of `width` bytes at this place of the stack */
void wd_gen_number(struct wd_gen *g, uint8_t width, int dst, int stack_off);
/* The tests, ending in jumps to accept and reject.  -ENOMEM or 0. */
int wd_gen_tests(struct wd_gen *g);
/* Behind `accept`: copies the packet into the ring; ends the program. */
void wd_gen_sniff(struct wd_gen *g);
/* Adds 1 to a counter. */
void wd_gen_count(struct wd_gen *g, enum wd_counter counter);
/*
 * r4 bytes of the packet from offset r2 on, or this many, to a place of the
 * stack.  r0 is 0; or below 0 where the packet is shorter or r2 below 0, and
 * the bytes may be anything.
 */
void wd_gen_copy_bytes(struct wd_gen *g, int stack_off);
void wd_gen_load_bytes(struct wd_gen *g, int stack_off, int32_t len);

#endif
