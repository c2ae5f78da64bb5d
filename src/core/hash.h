/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The hash of a packet's headers. */
#ifndef WD_CORE_HASH_H
#define WD_CORE_HASH_H

#include "packet.h"

/*
 * 64 bits from the IP and transport headers and the seed; not cryptographic.
 * The same on every machine and in every release: filters (random8, random16,
 * random32) and programs rely on the value.
 */
uint64_t wd_hash_packet(const struct wd_packet *packet, uint64_t seed);

#endif
