/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Where the headers of an IP packet are.  One parser for filters, helpers and engine. */
#ifndef WD_CORE_PACKET_H
#define WD_CORE_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wd_l4 { WD_L4_NONE, WD_L4_ICMP, WD_L4_ICMP6, WD_L4_TCP, WD_L4_UDP };

/*
 *   data                l4_off        data_off           ip_len      buf_len
 *   | IPv4 or IPv6 (+ext) | transport   | payload          | next packet |
 */
struct wd_packet {
    const uint8_t *data; /* the buffer; the IP header is at its start */
    uint32_t buf_len;    /* bytes in the buffer */
    uint32_t ip_len;     /* bytes of this packet: the header's total length, cut to the buffer */
    uint32_t l4_off;     /* transport header, where l4 is not NONE; else where the walk over headers ended */
    uint32_t data_off;   /* payload: after the transport header, or at l4_off without one */
    uint8_t version;     /* 4 or 6 */
    uint8_t protocol;    /* of what begins at l4_off (IPv6: after the extension headers) */
    uint8_t l4;          /* enum wd_l4: a transport header that is really there */
    bool fragment;       /* any fragment, the first and an atomic one too */
    bool more_fragments; /* a fragment that is not the last */
    uint16_t frag_off;   /* in units of 8 bytes */
    bool truncated;      /* the header's total length is beyond the buffer */
};

/*
 * Finds the headers.  False, and *ret_packet is untouched, for what is no IP
 * packet: a version other than 4 and 6; fewer than 20 (IPv6: 40) bytes; an IPv4
 * header below 5 words, longer than the buffer or than the total length.  A
 * total length beyond the buffer is cut to it.  Behind the IP header nothing
 * is refused: a header that is cut off is just not there.
 */
bool wd_packet_parse(const void *buffer, size_t len, struct wd_packet *ret_packet);

/*
 * The same, but the packet ends where the buffer does, whatever its total
 * length says (a length smaller than the IP header is refused all the same).
 */
bool wd_packet_parse_whole(const void *buffer, size_t len, struct wd_packet *ret_packet);

static inline uint32_t
wd_packet_data_len(const struct wd_packet *packet)
{
    return packet->ip_len - packet->data_off;
}

#endif
