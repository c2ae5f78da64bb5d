/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Flows that a handle passes over, or counts. */
#ifndef WD_BPF_GEN_FLOW_H
#define WD_BPF_GEN_FLOW_H

#include "gen_impl.h"

/* Behind `accept`: jumps to `reject` where the flow is to be passed over. */
void wd_gen_flow(struct wd_gen *g);

#endif
