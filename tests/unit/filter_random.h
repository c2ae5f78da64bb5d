/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Random filters, packets and addresses; the same seed gives the same. */
#ifndef FILTER_RANDOM_H
#define FILTER_RANDOM_H

#include "core/filter.h"
#include "filter_corpus.h"

struct rng {
    uint64_t state;
    const uint8_t *tape; /* while there are any left, the choices are read from these bytes (fuzzing) */
    size_t tape_left;
};

uint64_t rng_next(struct rng *rng);
/* 0..limit-1 */
uint32_t rng_below(struct rng *rng, uint32_t limit);

#define RANDOM_TEXT 16384
#define RANDOM_NODES 128

/*
 * A filter, and what it means: nodes refer to their kids by number; leaves are
 * single tests, whose outcome is asked by compiling them alone.
 */
struct random_node {
    enum { RANDOM_LEAF, RANDOM_NOT, RANDOM_AND, RANDOM_OR, RANDOM_COND } kind;
    int kid[3];
    uint32_t begin, end; /* LEAF: its text */
};

struct random_filter {
    char text[RANDOM_TEXT];
    size_t len;
    struct random_node nodes[RANDOM_NODES];
    int count, root;
};

/* Adds to the text; ends the program where there is no room. */
void random_put(struct random_filter *filter, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* All fields of the layer, all operators, spellings and spacings. */
void random_filter(struct rng *rng, WINDIVERT_LAYER layer, const struct corpus *corpus,
                   struct random_filter *ret_filter);

/* A changed copy of one of the corpus's packets in *buffer (malloc'ed, exactly len bytes): false where it does not parse. */
bool random_packet(struct rng *rng, const struct corpus *corpus, uint8_t **ret_buffer, struct wd_packet *ret_packet);

/* Every member in its range for the layer. */
void random_address(struct rng *rng, WINDIVERT_LAYER layer, WINDIVERT_ADDRESS *ret_addr);

#endif
