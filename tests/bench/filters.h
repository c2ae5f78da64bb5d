/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Filters of any number of tests, said in both languages, and packets for them. */
#ifndef BENCH_FILTERS_H
#define BENCH_FILTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum filter_shape {
    FILTER_PORTS, /* tcp.DstPort == 1000 or tcp.DstPort == 1007 or ... */
    FILTER_MIX,   /* (an address and a port and a flag, TTL or payload) or ...; what is over: (an address) */
};
#define FILTER_SHAPES 2

struct filter_texts {
    char *ours, *pcap;
};

/* negate: a packet matches where it would not. */
struct filter_texts filter_texts(enum filter_shape shape, unsigned tests, bool negate);
void filter_texts_free(struct filter_texts *texts);
const char *filter_shape_name(enum filter_shape shape);

#define FILTER_PACKET_MAX 128
enum filter_packet {
    FILTER_PACKET_LAST, /* only the last tests match it */
    FILTER_PACKET_NONE, /* TCP to another port and address */
};
size_t filter_packet(enum filter_shape shape, unsigned tests, enum filter_packet which, uint8_t *ret_packet);

/* One of many packets of both IP versions that such filters tell apart, some of them matches. */
size_t filter_sample(unsigned tests, unsigned number, uint8_t *ret_packet);
#define FILTER_SAMPLES 3000

#endif
