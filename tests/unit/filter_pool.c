/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "filter_pool.h"

#include <stdlib.h>

void
pool_fill(struct rng *rng, WINDIVERT_LAYER layer, const struct corpus *corpus, int count, struct pool *ret_pool)
{
    ret_pool->count = count;
    for (int i = 0; i < count; i++) {
        ret_pool->buffers[i] = NULL;
        random_address(rng, layer, &ret_pool->addrs[i]);
        ret_pool->subjects[i] = (struct law_subject){NULL, &ret_pool->addrs[i]};
        if (layer > WINDIVERT_LAYER_NETWORK_FORWARD)
            continue;
        while (!random_packet(rng, corpus, &ret_pool->buffers[i], &ret_pool->packets[i])) {
        }
        ret_pool->subjects[i].packet = &ret_pool->packets[i];
    }
}

void
pool_empty(struct pool *pool)
{
    for (int i = 0; i < pool->count; i++)
        free(pool->buffers[i]);
}
