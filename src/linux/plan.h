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

#define WD_PLAN_RULES_MAX (WD_RULE_IFS_MAX + 4)

struct wd_plan_opts {
    enum wd_gen_mode mode;
    enum wd_rule_action action;
    int16_t priority;
    uint16_t queue;  /* QUEUE: its number */
    int counters_fd; /* map of the programs' counters */
    int ring_fd;     /* SNIFF */
};

struct wd_plan {
    struct wd_rule rule[WD_PLAN_RULES_MAX];
    size_t count;
    bool exact; /* the programs decide as the filter does; else they let through more than it */
};

/*
 * NETWORK layer.  A field that cannot be decided where a program runs, or a
 * program that the kernel refuses, makes the plan inexact; it never fails a
 * filter.  The programs belong to the plan.
 */
int wd_plan_network(const struct wd_filter *filter, const struct wd_plan_opts *opts, struct wd_plan *ret_plan,
                    struct wd_error *err);
/* Closes the programs (rules that are installed keep theirs). */
void wd_plan_free(struct wd_plan *plan);

#endif
