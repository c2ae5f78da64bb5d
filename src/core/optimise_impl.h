/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The program as the passes of the optimiser see it: every test asks whether
 * the value of a key (a field, or one element of an array) lies in one
 * interval, or outside it.
 */
#ifndef WD_CORE_OPTIMISE_IMPL_H
#define WD_CORE_OPTIMISE_IMPL_H

#include "tree.h"

#define WD_OPT_NONE (WD_REJECT - 1) /* no test */

/* Values of a field in their order, unsigned: signed ones are moved up by 2^63. */
struct wd_opt_value {
    uint64_t hi, lo;
};

struct wd_opt_interval {
    struct wd_opt_value min, max;
};

/*
 * What a packet (or event) is, all exclusive: bit
 *   transport (0 none of these, 1 TCP, 2 UDP, 3 ICMP of the version) + 4 * IPv6 + 8 * outbound
 */
#define WD_OPT_CLASSES 16
#define WD_OPT_ALL 0xFFFF

struct wd_opt_key {
    uint8_t field;
    bool always; /* present wherever the class is one of `with`; elements of arrays mostly are not */
    uint8_t cost;
    uint16_t with; /* the classes in which it can be present */
    int32_t index;
    struct wd_opt_interval domain;
};

struct wd_opt_node {
    uint32_t key, yes, no;
    bool invert;               /* holds outside `in` */
    struct wd_opt_interval in; /* within the key's domain */
    uint16_t may_yes, may_no;  /* the classes in which it can hold, and not hold */
    /* Known wherever this test is reached: */
    bool present;
    struct wd_opt_interval known; /* the value, if present */
};

/* Targets are WD_ACCEPT, WD_REJECT or nodes further on. */
struct wd_opt_graph {
    struct wd_arena *arena; /* of the optimiser: freed when it is done */
    uint32_t start, count, key_count;
    struct wd_opt_node *nodes;
    struct wd_opt_key *keys;
};

/*
 * A region: tests of one key, entered by one of them only.  Its outcome is a
 * function of that key alone.
 */
struct wd_opt_regions {
    uint32_t *owner; /* of each test: the one by which its region is entered; WD_OPT_NONE: never reached */
    uint32_t *next;  /* the region's next test in order, or WD_OPT_NONE */
};

/* Chains of equalities; see optimise_skip.c. */
struct wd_opt_skips {
    const struct wd_opt_graph *graph;
    uint32_t *last;         /* of each test: the last one of its chain, itself if there is no chain behind it */
    const uint32_t *sorted; /* those in chains, by chain, value, place */
    uint32_t count;
};

static inline int
wd_opt_compare(struct wd_opt_value a, struct wd_opt_value b)
{
    if (a.hi != b.hi)
        return a.hi < b.hi ? -1 : 1;
    return a.lo < b.lo ? -1 : a.lo > b.lo;
}

static inline struct wd_opt_value
wd_opt_after(struct wd_opt_value v)
{
    return (struct wd_opt_value){v.hi + (v.lo == UINT64_MAX), v.lo + 1};
}

static inline struct wd_opt_value
wd_opt_before(struct wd_opt_value v)
{
    return (struct wd_opt_value){v.hi - (v.lo == 0), v.lo - 1};
}

static inline bool
wd_opt_is_test(uint32_t target)
{
    return target < WD_OPT_NONE;
}

/* -ENOMEM or 0, all of them. */
int wd_opt_read(struct wd_arena *arena, const struct wd_prog *prog, struct wd_opt_graph *ret_graph);
int wd_opt_apply_facts(struct wd_opt_graph *graph);
int wd_opt_find_skips(const struct wd_opt_graph *graph, struct wd_opt_skips *ret_skips);
int wd_opt_find_regions(const struct wd_opt_graph *graph, struct wd_opt_regions *ret_regions);
int wd_opt_reorder(struct wd_opt_graph *graph, bool *ret_changed);
/* Writes the program, allocated from arena. */
int wd_opt_write(const struct wd_opt_graph *graph, struct wd_arena *arena, struct wd_prog *prog);

/* Where a packet that comes to this test, which is not the last of its chain, leaves the tests that are not about value. */
uint32_t wd_opt_skip(const struct wd_opt_skips *skips, uint32_t at, struct wd_opt_value value);

#endif
