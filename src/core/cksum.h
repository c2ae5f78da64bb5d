/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Internet checksums (RFC 1071) of IP headers and transports. */
#ifndef WD_CORE_CKSUM_H
#define WD_CORE_CKSUM_H

#include "packet.h"

/*
 * Adds len bytes to a running ones' complement sum, which starts at 0.  Every
 * piece but the last has an even length.  The sum is in memory order: what
 * wd_cksum_fold gives is stored with memcpy.
 */
uint64_t wd_cksum_add(uint64_t sum, const void *bytes, size_t len);

/* The sum folded to 16 bits, in memory order, not complemented. */
uint16_t wd_cksum_fold(uint64_t sum);

/* Three answers, one per checksum that an address has a bit for. */
struct wd_sums {
    bool ip, tcp, udp;
};

/*
 * Which checksums of the packet are right.  False also for a part that is not
 * there, for a transport that is not all there (fragment, truncated), and for
 * tcp and udp where transport is false.  A UDP checksum of 0 is right over
 * IPv4 and wrong over IPv6 (RFC 768, RFC 8200 8.1).
 */
void wd_cksum_verify(const struct wd_packet *packet, bool transport, struct wd_sums *ret_right);
bool wd_cksum_verify_ip(const struct wd_packet *packet);

/*
 * Computes the checksums of the first packet of a buffer and stores them,
 * those excluded by WINDIVERT_HELPER_NO_x in no_flags aside.  A UDP sum of 0 is
 * stored as 0xFFFF.  *ret_done (may be NULL; untouched where the packet is
 * refused) says which of its three were stored.  False: wd_packet_parse refuses the packet (nothing is changed then),
 * or a transport checksum was asked for of a packet whose transport is not all
 * there, truncated or first fragment (the IPv4 header checksum is stored then).
 */
bool wd_cksum_calc(void *packet, size_t len, uint64_t no_flags, struct wd_sums *ret_done);

/* The same for a packet to be sent: a UDP checksum of 0 over IPv4, "none", stays 0. */
bool wd_cksum_fill(void *packet, size_t len, uint64_t no_flags);

#endif
