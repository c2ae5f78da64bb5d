/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Random packets and addresses that filters of one layer are evaluated on. */
#ifndef FILTER_POOL_H
#define FILTER_POOL_H

#include "filter_law.h"
#include "filter_random.h"

#define POOL_MAX 48

struct pool {
    struct law_subject subjects[POOL_MAX];
    struct wd_packet packets[POOL_MAX];
    uint8_t *buffers[POOL_MAX];
    WINDIVERT_ADDRESS addrs[POOL_MAX];
    int count;
};

/* count: at most POOL_MAX. */
void pool_fill(struct rng *rng, WINDIVERT_LAYER layer, const struct corpus *corpus, int count, struct pool *ret_pool);
void pool_empty(struct pool *pool);

#endif
