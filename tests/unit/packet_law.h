/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What holds for the packet helpers whatever bytes they get; for unit tests and the fuzzer. */
#ifndef PACKET_LAW_H
#define PACKET_LAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Gives the bytes, in heap blocks of exactly their size (ASan sees one byte too
 * far), to every packet helper.  NULL, or what does not hold, as text; static.
 * *ret_packet: whether they are a packet.
 */
const char *packet_law(const uint8_t *bytes, size_t len, bool *ret_packet);

/* RFC 1071 as written there: pairs of bytes, the last padded, added to sum. */
uint32_t packet_law_sum(uint32_t sum, const uint8_t *bytes, size_t len);

#endif
