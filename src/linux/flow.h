/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Flows that a handle passes over from some packet on: the map that its programs look into. */
#ifndef WD_LINUX_FLOW_H
#define WD_LINUX_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/gen.h"
#include "core/error.h"

struct wd_flows {
    int fd;         /* -1: no program looks */
    uint32_t limit; /* packets of each flow; 0: any number */
    uint64_t put;   /* flows that were put in by wd_flows_skip, and not there yet */
};

/* Makes the map where there is none. */
int wd_flows_need(struct wd_flows *flows, struct wd_error *err);
void wd_flows_close(struct wd_flows *flows);

/* The key of a packet's flow, as the programs make it.  -EINVAL: no packet, or a fragment, which belongs to none. */
int wd_flow_key(const void *packet, size_t len, struct wd_flow *ret_flow, struct wd_error *err);
/* No packet of the flow matches any more in programs that look. */
int wd_flows_skip(struct wd_flows *flows, const struct wd_flow *flow, struct wd_error *err);

#endif
