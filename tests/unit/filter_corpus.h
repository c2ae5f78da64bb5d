/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The packets, addresses and filters of tests/vectors, read into memory. */
#ifndef FILTER_CORPUS_H
#define FILTER_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/packet.h"
#include "windivert.h"

#define CORPUS_PACKETS 512
#define CORPUS_FILTERS 4096
#define CORPUS_EVENTS 64
#define CORPUS_LAYERS 5
#define CORPUS_ADDRESSES 3 /* of each packet, at each of the two packet layers */

struct corpus_packet {
    uint8_t *data; /* exactly len bytes */
    size_t len;
    bool valid; /* wd_packet_parse took it */
    struct wd_packet packet;
    WINDIVERT_ADDRESS addr[2][CORPUS_ADDRESSES];
};

struct corpus_filter {
    char *text;
    WINDIVERT_LAYER layer;
    char *verdict; /* "ok" or the error text */
    unsigned pos;
    char *matches; /* NULL, or one digit per evaluation */
};

struct corpus {
    struct corpus_packet packets[CORPUS_PACKETS];
    struct corpus_filter filters[CORPUS_FILTERS];
    WINDIVERT_ADDRESS events[CORPUS_LAYERS][CORPUS_EVENTS];
    size_t packet_count, filter_count, event_count[CORPUS_LAYERS];
};

/* Ends the program where the vectors cannot be read. */
struct corpus *corpus_load(void);
void corpus_free(struct corpus *corpus);

#endif
