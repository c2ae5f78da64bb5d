/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#ifndef WD_BPF_GEN_TAIL_H
#define WD_BPF_GEN_TAIL_H

#include "gen_impl.h"

/* A matching packet that is too long for NFQUEUE: its end goes into the ring, as a struct wd_tail. */
void wd_gen_tail(struct wd_gen *g);

#endif
