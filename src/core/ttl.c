/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "ttl.h"

#include "bytes.h"
#include "packet.h"

static uint8_t *
find_ttl(void *packet, const struct wd_packet *parsed)
{
    return (uint8_t *)packet + (parsed->version == 4 ? 8 : 7);
}

/*
 * TTL is the high byte of the 16-bit word it shares with Protocol: one less
 * there is 0x0100 less in the sum, 0x0100 more in its complement; one more is
 * 0x0100 less there, which is 0xFEFF more.
 */
static void
adjust_sum(uint8_t *ip, uint16_t more)
{
    uint32_t sum = (uint32_t)wd_load_be16(ip + 10) + more;

    wd_store_be16(ip + 10, (uint16_t)((sum & UINT16_MAX) + (sum >> 16)));
}

bool
wd_ttl_decrement(void *packet, size_t len)
{
    struct wd_packet parsed;
    uint8_t *ttl;

    if (!wd_packet_parse(packet, len, &parsed))
        return false;
    ttl = find_ttl(packet, &parsed);
    if (*ttl <= 1)
        return false;
    --*ttl;
    if (parsed.version == 4)
        adjust_sum(packet, 0x0100);
    return true;
}

bool
wd_ttl_increment(void *packet, size_t len)
{
    struct wd_packet parsed;
    uint8_t *ttl;

    if (!wd_packet_parse(packet, len, &parsed))
        return false;
    ttl = find_ttl(packet, &parsed);
    if (*ttl == UINT8_MAX)
        return false;
    ++*ttl;
    if (parsed.version == 4)
        adjust_sum(packet, 0xFEFF);
    return true;
}
