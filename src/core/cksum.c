/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "cksum.h"

#include <string.h>

#include "bytes.h"
#include "windivert.h"

static uint64_t
add_carry(uint64_t a, uint64_t b)
{
    a += b;
    return a + (a < b);
}

static uint64_t
load64(const uint8_t *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof(word));
    return word;
}

/* Four independent sums of 8 bytes: each addition and its carry wait for the one before, four at a time do not. */
uint64_t
wd_cksum_add(uint64_t sum, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    uint64_t s1 = 0, s2 = 0, s3 = 0;
    uint8_t tail[8] = {0};

    for (; len >= 32; p += 32, len -= 32) {
        sum = add_carry(sum, load64(p));
        s1 = add_carry(s1, load64(p + 8));
        s2 = add_carry(s2, load64(p + 16));
        s3 = add_carry(s3, load64(p + 24));
    }
    sum = add_carry(add_carry(sum, s1), add_carry(s2, s3));
    for (; len >= 8; p += 8, len -= 8)
        sum = add_carry(sum, load64(p));
    if (len)
        memcpy(tail, p, len);
    return add_carry(sum, load64(tail));
}

uint16_t
wd_cksum_fold(uint64_t sum)
{
    sum = (sum >> 32) + (sum & UINT32_MAX); /* 33 bits */
    sum = (sum >> 32) + (sum & UINT32_MAX); /* 32 bits */
    sum = (sum >> 16) + (sum & UINT16_MAX); /* 17 bits */
    sum = (sum >> 16) + (sum & UINT16_MAX); /* 16 bits */
    return (uint16_t)sum;
}

/* Of the transports: where the checksum is, which flag excludes it. */
static const struct l4_sum {
    uint8_t offset, no_flag;
} l4_sums[] = {
    [WD_L4_ICMP] = {2, WINDIVERT_HELPER_NO_ICMP_CHECKSUM},
    [WD_L4_ICMP6] = {2, WINDIVERT_HELPER_NO_ICMPV6_CHECKSUM},
    [WD_L4_TCP] = {16, WINDIVERT_HELPER_NO_TCP_CHECKSUM},
    [WD_L4_UDP] = {6, WINDIVERT_HELPER_NO_UDP_CHECKSUM},
};

/*
 * The pseudo header: both addresses, the length of the transport, its number.
 *
 *     | length (32 bits) | 0 0 0 | protocol |       RFC 8200 8.1
 *
 * The IPv4 form (RFC 9293 3.1) has the same sum.  ICMP over IPv4 has none.
 */
static uint64_t
pseudo_sum(const struct wd_packet *packet)
{
    uint8_t fixed[8] = {0};
    uint64_t sum;

    if (packet->l4 == WD_L4_ICMP)
        return 0;
    wd_store_be32(fixed, packet->ip_len - packet->l4_off);
    fixed[7] = packet->protocol;
    sum = packet->version == 4 ? wd_cksum_add(0, packet->data + 12, 8) : wd_cksum_add(0, packet->data + 8, 32);
    return wd_cksum_add(sum, fixed, sizeof(fixed));
}

/* len bytes at part without the 16 bits at offset: the checksum that belongs there. */
static uint16_t
sum_without(uint64_t sum, const uint8_t *part, uint32_t len, uint32_t offset)
{
    sum = wd_cksum_add(sum, part, offset);
    sum = wd_cksum_add(sum, part + offset + 2, len - offset - 2);
    return (uint16_t)~wd_cksum_fold(sum);
}

static uint32_t
ip4_header_length(const struct wd_packet *packet)
{
    return (packet->data[0] & 0x0Fu) * 4;
}

static bool
transport_is_whole(const struct wd_packet *packet)
{
    return !packet->truncated && !packet->more_fragments;
}

bool
wd_cksum_verify_ip(const struct wd_packet *packet)
{
    return packet->version == 4 &&
           wd_cksum_fold(wd_cksum_add(0, packet->data, ip4_header_length(packet))) == UINT16_MAX;
}

static bool
verify_transport(const struct wd_packet *packet)
{
    const uint8_t *l4 = packet->data + packet->l4_off;

    if (!transport_is_whole(packet))
        return false;
    if (packet->l4 == WD_L4_UDP && wd_load_be16(l4 + 6) == 0)
        return packet->version == 4;
    return wd_cksum_fold(wd_cksum_add(pseudo_sum(packet), l4, packet->ip_len - packet->l4_off)) == UINT16_MAX;
}

void
wd_cksum_verify(const struct wd_packet *packet, bool transport, struct wd_sums *ret_right)
{
    bool has_bit = packet->l4 == WD_L4_TCP || packet->l4 == WD_L4_UDP;
    bool right = transport && has_bit && verify_transport(packet);

    ret_right->ip = wd_cksum_verify_ip(packet);
    ret_right->tcp = right && packet->l4 == WD_L4_TCP;
    ret_right->udp = right && packet->l4 == WD_L4_UDP;
}

static void
store_transport(const struct wd_packet *packet, uint8_t *l4)
{
    uint32_t offset = l4_sums[packet->l4].offset;
    uint16_t sum = sum_without(pseudo_sum(packet), l4, packet->ip_len - packet->l4_off, offset);

    if (sum == 0 && packet->l4 == WD_L4_UDP)
        sum = UINT16_MAX;
    memcpy(l4 + offset, &sum, sizeof(sum));
}

static bool
calc(uint8_t *bytes, const struct wd_packet *packet, uint64_t no_flags, struct wd_sums *ret_done)
{
    struct wd_sums done = {0};
    bool asked = packet->l4 != WD_L4_NONE && !(no_flags & l4_sums[packet->l4].no_flag);
    bool whole = transport_is_whole(packet);

    if (packet->version == 4 && !(no_flags & WINDIVERT_HELPER_NO_IP_CHECKSUM)) {
        uint16_t sum = sum_without(0, bytes, ip4_header_length(packet), 10);

        memcpy(bytes + 10, &sum, sizeof(sum));
        done.ip = true;
    }
    if (asked && whole) {
        store_transport(packet, bytes + packet->l4_off);
        done.tcp = packet->l4 == WD_L4_TCP;
        done.udp = packet->l4 == WD_L4_UDP;
    }
    if (ret_done)
        *ret_done = done;
    return whole || !asked;
}

bool
wd_cksum_calc(void *packet, size_t len, uint64_t no_flags, struct wd_sums *ret_done)
{
    struct wd_packet parsed;

    return wd_packet_parse(packet, len, &parsed) && calc(packet, &parsed, no_flags, ret_done);
}

bool
wd_cksum_fill(void *packet, size_t len, uint64_t no_flags)
{
    struct wd_packet parsed;

    if (!wd_packet_parse(packet, len, &parsed))
        return false;
    if (parsed.version == 4 && parsed.l4 == WD_L4_UDP && wd_load_be16(parsed.data + parsed.l4_off + 6) == 0)
        no_flags |= WINDIVERT_HELPER_NO_UDP_CHECKSUM;
    return calc(packet, &parsed, no_flags, NULL);
}
