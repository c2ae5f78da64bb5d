/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * From a filter to what is installed for it: for every class of packets that
 * the kernel can tell apart before any program runs (hook; loopback or not;
 * outgoing interface) the filter specialised to that class, as a loaded
 * program.  A class for which the filter comes out false gets nothing.
 */
#ifndef WD_LINUX_PLAN_H
#define WD_LINUX_PLAN_H

#include "bpf/gen.h"
#include "core/filter.h"
#include "linux/ruleset.h"

struct wd_plan_opts {
    enum wd_gen_mode mode;
    enum wd_rule_action action;
    int16_t priority;
    uint16_t queue;  /* QUEUE: its number, ... */
    uint16_t split;  /* ... and that of the one that takes aggregates apart */
    int counters_fd; /* map of the programs' counters */
    int ring_fd;     /* SNIFF */
    bool links;      /* SNIFF, DROP: programs for links instead of rules, but at PRE_ROUTING */
    bool keep_links; /* also where the kernel refuses the filter's program: then a coarse one */
    bool routes;     /* SNIFF by rules: programs find the outgoing interface in the packet's route, where BTF tells
                            how; else it is known of those only that are there.  -EOPNOTSUPP: the kernel refuses that */
    bool segments;   /* QUEUE: the queue gets what aggregates are made of, packet by packet */
    bool fragments;  /* NETWORK: what comes in fragments is taken at PRE_ROUTING, fragment by fragment */
    int flows_fd;    /* map of flows, and ... */
    uint32_t flow_limit; /* ... how many packets of each match; 0: there is no map */
    bool flow_counts;
    bool dry; /* generate, load nothing */
};

/* One class of packets: its program, and the rules that lead to it. */
struct wd_plan_class {
    struct wd_plan_class *next;
    enum wd_hook hook;
    size_t first_rule, rule_count; /* in the array of the plan; links have none */
    struct wd_code code;
    int prog_fd;
    bool split;  /* aggregates are taken apart, and the segments come again */
    bool linked; /* the program is for a link */
    bool coarse; /* the program is only a stand-in: the kernel refused the filter's */
};

struct wd_plan {
    struct wd_arena arena;
    struct wd_plan_class *classes, **last_class;
    struct wd_rule *rule; /* of all classes, in their order */
    size_t count, room;
    bool reassemble;                /* IPv6 fragments have to be put together before LOCAL_IN */
    bool exact;                     /* the programs decide as the filter does; else they let through more than it */
    struct wd_error refusal;        /* why the kernel refused a program; no text: it did not */
    bool undecided[WD_FIELD_COUNT]; /* fields that the filter reads and some program cannot decide */
};

/*
 * NETWORK and NETWORK_FORWARD.  A field that cannot be decided where a program runs, or a
 * program that the kernel refuses, makes the plan inexact; it never fails a
 * filter.  The programs belong to the plan.
 *
 * With opts->links such programs see the interface themselves, so that there
 * is one at each hook and it is exact; -EOPNOTSUPP: they cannot be had here.
 */
int wd_plan(const struct wd_filter *filter, const struct wd_plan_opts *opts, struct wd_plan *ret_plan,
            struct wd_error *err);
/* Closes the programs (rules that are installed keep theirs); the rules are gone, too. */
void wd_plan_free(struct wd_plan *plan);

#endif
