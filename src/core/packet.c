/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "packet.h"

#include "bytes.h"

#define IP4_MIN 20
#define IP6_LEN 40

enum proto {
    PROTO_HOPOPTS = 0,
    PROTO_ICMP = 1,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    PROTO_ROUTING = 43,
    PROTO_FRAGMENT = 44,
    PROTO_AH = 51,
    PROTO_ICMP6 = 58,
    PROTO_DSTOPTS = 60,
    PROTO_MOBILITY = 135
};

/* Sets the packet's end from the header's total length; what lies beyond the buffer is not there. */
static void
set_length(struct wd_packet *packet, uint32_t total, bool whole)
{
    packet->truncated = total > packet->buf_len;
    packet->ip_len = packet->truncated || whole ? packet->buf_len : total;
}

/* Everything that is refused; from here on the IP header is there. */
static bool
is_ip(const uint8_t *ip, size_t len)
{
    uint32_t header;

    if (!ip || len < IP4_MIN)
        return false;
    if (ip[0] >> 4 != 4)
        return ip[0] >> 4 == 6 && len >= IP6_LEN;
    header = (ip[0] & 0x0Fu) * 4;
    return header >= IP4_MIN && header <= len && header <= wd_load_be16(ip + 2);
}

/* Bytes 6 and 7 of IPv4: reserved, DF, MF, 13 bits of offset. */
static void
parse_ip4(struct wd_packet *packet, bool whole)
{
    const uint8_t *ip = packet->data;
    uint16_t frag = wd_load_be16(ip + 6);

    set_length(packet, wd_load_be16(ip + 2), whole);
    packet->more_fragments = frag & 0x2000;
    packet->frag_off = frag & 0x1FFF;
    packet->fragment = packet->more_fragments || packet->frag_off;
    packet->protocol = ip[9];
    packet->l4_off = (ip[0] & 0x0Fu) * 4;
}

/* Bytes of the extension header of this number at ext, of which left are there; 0: no such header, or cut off. */
static uint32_t
extension_length(uint8_t number, const uint8_t *ext, uint32_t left)
{
    uint32_t len;

    if (left < 8)
        return 0;
    switch (number) {
    case PROTO_HOPOPTS:
    case PROTO_ROUTING:
    case PROTO_DSTOPTS:
    case PROTO_MOBILITY:
        len = (ext[1] + 1u) * 8;
        break;
    case PROTO_AH:
        len = (ext[1] + 2u) * 4;
        break;
    case PROTO_FRAGMENT:
        len = 8;
        break;
    default:
        return 0;
    }
    return len <= left ? len : 0;
}

/*
 * Walks the extension headers, each at least 8 bytes.  Bytes 2 and 3 of the
 * fragment header: 13 bits of offset, 2 reserved, more fragments.  A second
 * fragment header ends the walk, and so does the content of a later fragment.
 */
static void
parse_ip6(struct wd_packet *packet, bool whole)
{
    const uint8_t *ip = packet->data;

    set_length(packet, IP6_LEN + wd_load_be16(ip + 4), whole);
    packet->protocol = ip[6];
    packet->l4_off = IP6_LEN;
    packet->fragment = packet->more_fragments = false;
    packet->frag_off = 0;
    while (packet->frag_off == 0 && !(packet->fragment && packet->protocol == PROTO_FRAGMENT)) {
        const uint8_t *ext = ip + packet->l4_off;
        uint32_t len = extension_length(packet->protocol, ext, packet->ip_len - packet->l4_off);

        if (len == 0)
            break;
        if (packet->protocol == PROTO_FRAGMENT) {
            packet->fragment = true;
            packet->more_fragments = ext[3] & 1;
            packet->frag_off = wd_load_be16(ext + 2) >> 3;
        }
        packet->protocol = ext[0];
        packet->l4_off += len;
    }
}

/* The length of a TCP header is the high half of its byte 12, in words. */
static void
parse_transport(struct wd_packet *packet)
{
    const uint8_t *l4 = packet->data + packet->l4_off;
    uint32_t left = packet->ip_len - packet->l4_off, len = 0;

    packet->l4 = WD_L4_NONE;
    if (packet->frag_off == 0) {
        if (packet->protocol == PROTO_TCP && left >= 20 && l4[12] >> 4 >= 5) {
            packet->l4 = WD_L4_TCP;
            len = (uint32_t)(l4[12] >> 4) * 4;
        } else if (packet->protocol == PROTO_UDP && left >= 8) {
            packet->l4 = WD_L4_UDP;
            len = 8;
        } else if (packet->protocol == PROTO_ICMP && packet->version == 4 && left >= 8) {
            packet->l4 = WD_L4_ICMP;
            len = 8;
        } else if (packet->protocol == PROTO_ICMP6 && packet->version == 6 && left >= 8) {
            packet->l4 = WD_L4_ICMP6;
            len = 8;
        }
    }
    packet->data_off = packet->l4_off + (len < left ? len : left);
}

/* Writes each member once, in place: what was refused has left before. */
static bool
parse(const void *buffer, size_t len, bool whole, struct wd_packet *ret_packet)
{
    if (!is_ip(buffer, len))
        return false;
    ret_packet->data = buffer;
    ret_packet->buf_len = len < UINT32_MAX ? (uint32_t)len : UINT32_MAX;
    ret_packet->version = ret_packet->data[0] >> 4;
    if (ret_packet->version == 4)
        parse_ip4(ret_packet, whole);
    else
        parse_ip6(ret_packet, whole);
    parse_transport(ret_packet);
    return true;
}

bool
wd_packet_parse(const void *buffer, size_t len, struct wd_packet *ret_packet)
{
    return parse(buffer, len, false, ret_packet);
}

bool
wd_packet_parse_whole(const void *buffer, size_t len, struct wd_packet *ret_packet)
{
    return parse(buffer, len, true, ret_packet);
}
