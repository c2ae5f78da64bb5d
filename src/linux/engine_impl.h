/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* A handle of the Linux engine, for the files that make it: opened and closed (engine.c), changed (change.c). */
#ifndef WD_LINUX_ENGINE_IMPL_H
#define WD_LINUX_ENGINE_IMPL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/engine.h"
#include "linux/exact.h"
#include "linux/flow.h"
#include "linux/inject.h"
#include "linux/queue.h"
#include "linux/registry.h"
#include "linux/ruleset.h"
#include "linux/sniff.h"

#define WD_MS 10000 /* of 100 ns */

struct wd_handle {
    WINDIVERT_LAYER layer;
    int16_t priority;
    uint64_t flags;
    struct wd_compiled *filter;

    struct wd_ruleset *rules;
    struct wd_places places;
    struct wd_inject inject;
    struct wd_queue *queue; /* diverted packets, and all sending */
    struct wd_sniff *sniff; /* SNIFF */
    int counters_fd;
    uint64_t *counters; /* mapped */
    struct wd_flows flows;
    struct wd_entry entry;
    bool watched; /* by the janitor */

    pthread_mutex_t lock; /* parameters, shutdown */
    uint32_t queue_length, queue_size, queue_time_ms, hold_time_ms;
    bool shut_recv, installed;
    bool segments;        /* what comes in aggregates is delivered packet by packet */
    bool linked;          /* installed by links, not rules */
    struct wd_error note; /* what the program should know of the handle */
    bool exact;

    /* DROP with a filter that the kernel cannot decide: a thread of ours receives and drops. */
    pthread_t dropper;
    bool dropping;
};

/* It holds packets: neither SNIFF nor DROP nor SEND_ONLY. */
bool wd_handle_diverts(const struct wd_handle *handle);
/* Of its queue, from its parameters. */
struct wd_queue_limits wd_handle_limits(const struct wd_handle *handle);
/* The same for a handle that sniffs. */
void wd_handle_limit_sniff(struct wd_handle *handle);
/*
 * Puts the filter into the kernel, in place of the one that is there, with the
 * parameters as they are.  On an error nothing has changed.
 */
int wd_handle_install_divert(struct wd_handle *handle, const struct wd_filter *filter, struct wd_error *err);
int wd_handle_install_sniff(struct wd_handle *handle, const struct wd_filter *filter, const struct wd_ring *ring,
                            struct wd_error *err);
int wd_handle_install_drop(struct wd_handle *handle, const struct wd_filter *filter, struct wd_error *err);
/* What the library evaluates from now on; NULL: the programs are exact.  Returns what it evaluated before. */
const struct wd_prog *wd_handle_set_exact(struct wd_handle *handle, const struct wd_prog *prog);
/* Waits until every packet that was on its way through our rules has arrived in the queue (synchronize_rcu). */
void wd_handle_wait_for_packets(void);

#endif
