/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "ttl.h"

#include "bytes.h"
#include "packet.h"

/*
 * TTL is the high byte of the 16-bit word it shares with Protocol: one less
 * there is 0x0100 less in the sum, 0x0100 more in its complement.
 */
bool
wd_ttl_decrement(void *packet, size_t len)
{
    uint8_t *ip = packet;
    struct wd_packet parsed;
    uint32_t sum;
    uint8_t *ttl;

    if (!wd_packet_parse(packet, len, &parsed))
        return false;
    ttl = ip + (parsed.version == 4 ? 8 : 7);
    if (*ttl <= 1)
        return false;
    --*ttl;
    if (parsed.version == 4) {
        sum = wd_load_be16(ip + 10) + 0x0100u;
        wd_store_be16(ip + 10, (uint16_t)((sum & UINT16_MAX) + (sum >> 16)));
    }
    return true;
}
