/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "packet_law.h"

#include <stdlib.h>
#include <string.h>

#include "core/cksum.h"
#include "windivert.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define MUST(condition)                                                                                              \
    do {                                                                                                             \
        if (!(condition))                                                                                            \
            return "packet_law.c:" TEXT(__LINE__) ": not " #condition;                                               \
    } while (0)

struct parsed {
    PWINDIVERT_IPHDR ip;
    PWINDIVERT_IPV6HDR ipv6;
    PWINDIVERT_ICMPHDR icmp;
    PWINDIVERT_ICMPV6HDR icmpv6;
    PWINDIVERT_TCPHDR tcp;
    PWINDIVERT_UDPHDR udp;
    PVOID data, next;
    UINT data_len, next_len;
    UINT8 protocol;
};

uint32_t
packet_law_sum(uint32_t sum, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return sum;
}

static uint8_t *
block_of(const uint8_t *bytes, size_t len)
{
    uint8_t *block = malloc(len ? len : 1);

    if (!block)
        abort();
    if (len)
        memcpy(block, bytes, len);
    return block;
}

static BOOL
parse(const uint8_t *packet, size_t len, struct parsed *p)
{
    return WinDivertHelperParsePacket(packet, (UINT)len, &p->ip, &p->ipv6, &p->protocol, &p->icmp, &p->icmpv6,
                                      &p->tcp, &p->udp, &p->data, &p->data_len, &p->next, &p->next_len);
}

/* NULL is inside. */
static bool
inside(const uint8_t *packet, size_t len, const void *part, size_t part_len)
{
    const uint8_t *start = part;

    return !part || (start >= packet && start <= packet + len && part_len <= (size_t)(packet + len - start));
}

static const char *
law_of_pointers(const uint8_t *packet, size_t len, const struct parsed *p)
{
    MUST(!p->ip != !p->ipv6);
    MUST(!!p->icmp + !!p->icmpv6 + !!p->tcp + !!p->udp <= 1);
    MUST(inside(packet, len, p->ip, 20) && inside(packet, len, p->ipv6, 40));
    MUST(inside(packet, len, p->icmp, 8) && inside(packet, len, p->icmpv6, 8));
    MUST(inside(packet, len, p->tcp, 20) && inside(packet, len, p->udp, 8));
    MUST(inside(packet, len, p->data, p->data_len));
    MUST(!p->data == !p->data_len && !p->next == !p->next_len);
    MUST(!p->next || (uint8_t *)p->next + p->next_len == packet + len);
    MUST(!p->data || !p->next || (uint8_t *)p->data + p->data_len == (uint8_t *)p->next);
    MUST(!p->tcp || p->protocol == 6);
    MUST(!p->udp || p->protocol == 17);
    MUST(!p->icmp || (p->protocol == 1 && p->ip));
    MUST(!p->icmpv6 || (p->protocol == 58 && p->ipv6));
    return NULL;
}

/* What a caller that reads no headers sees is the same packet. */
static const char *
law_of_seam(const uint8_t *packet, size_t len, const struct parsed *p)
{
    struct wd_packet core;

    MUST(wd_packet_parse(packet, len, &core));
    MUST(core.version == (p->ip ? 4 : 6) && core.protocol == p->protocol);
    MUST(core.ip_len + p->next_len == len);
    MUST(core.l4_off <= core.data_off && core.data_off <= core.ip_len && core.ip_len <= core.buf_len);
    MUST(core.data_off + p->data_len == core.ip_len);
    MUST(core.fragment || (!core.more_fragments && !core.frag_off));
    return NULL;
}

/* Where the packet's transport begins and how long it is; NULL: it has none. */
static const uint8_t *
transport_of(const uint8_t *packet, size_t len, const struct parsed *p, size_t *ret_len)
{
    const void *l4 = p->tcp    ? (void *)p->tcp
                     : p->udp  ? (void *)p->udp
                     : p->icmp ? (void *)p->icmp
                               : (void *)p->icmpv6;
    size_t end = p->next ? (size_t)((uint8_t *)p->next - packet) : len;

    if (l4)
        *ret_len = end - (size_t)((const uint8_t *)l4 - packet);
    return l4;
}

/* The sum over pseudo header and transport, by the words of the RFCs: 0xFFFF where the checksum is right. */
static uint32_t
transport_sum(const struct parsed *p, const uint8_t *l4, size_t len)
{
    uint8_t pseudo[40] = {0};

    if (p->icmp)
        return packet_law_sum(0, l4, len);
    if (p->ip) {
        memcpy(pseudo, (uint8_t *)p->ip + 12, 8);
        pseudo[9] = p->protocol;
        pseudo[10] = (uint8_t)(len >> 8);
        pseudo[11] = (uint8_t)len;
        return packet_law_sum(packet_law_sum(0, pseudo, 12), l4, len);
    }
    memcpy(pseudo, (uint8_t *)p->ipv6 + 8, 32);
    pseudo[33] = (uint8_t)(len >> 16);
    pseudo[34] = (uint8_t)(len >> 8);
    pseudo[35] = (uint8_t)len;
    pseudo[39] = p->protocol;
    return packet_law_sum(packet_law_sum(0, pseudo, 40), l4, len);
}

static bool
header_is_right(const uint8_t *packet)
{
    return packet_law_sum(0, packet, (packet[0] & 15u) * 4) == 0xFFFF;
}

/* After CalcChecksums what it says it computed is right, by another way of computing. */
static const char *
law_of_checksums(uint8_t *packet, size_t len, const struct parsed *p)
{
    WINDIVERT_ADDRESS addr;
    struct wd_packet core;
    struct wd_sums sums;
    const uint8_t *l4;
    size_t l4_len = 0;
    BOOL all;

    memset(&addr, 0, sizeof(addr));
    all = WinDivertHelperCalcChecksums(packet, (UINT)len, &addr, 0);
    MUST(addr.IPChecksum == (p->ip != NULL));
    MUST(!p->ip || header_is_right(packet));
    MUST(addr.TCPChecksum == (all && p->tcp) && addr.UDPChecksum == (all && p->udp));
    l4 = transport_of(packet, len, p, &l4_len);
    MUST(all || l4);
    MUST(!all || !l4 || transport_sum(p, l4, l4_len) == 0xFFFF);

    MUST(wd_packet_parse(packet, len, &core));
    wd_cksum_verify(&core, true, &sums);
    MUST(sums.ip == addr.IPChecksum);
    MUST(!all || (sums.tcp == addr.TCPChecksum && sums.udp == addr.UDPChecksum));
    MUST(all || (!sums.tcp && !sums.udp));
    return NULL;
}

/* Only the hop limit and the IPv4 checksum change, and a right one stays right. */
static const char *
law_of_ttl(const uint8_t *original, uint8_t *packet, size_t len)
{
    bool ip4 = original[0] >> 4 == 4;
    unsigned at = ip4 ? 8 : 7;
    BOOL done = WinDivertHelperDecrementTTL(packet, (UINT)len);

    MUST(done == (original[at] > 1));
    MUST(packet[at] == original[at] - done);
    MUST(!ip4 || header_is_right(packet) == header_is_right(original));
    packet[at] = original[at];
    if (ip4)
        memcpy(packet + 10, original + 10, 2);
    MUST(memcmp(packet, original, len) == 0);
    return NULL;
}

static const char *
law_of_ttl_copied(const uint8_t *original, size_t len)
{
    uint8_t *packet = block_of(original, len);
    const char *wrong = law_of_ttl(original, packet, len);

    free(packet);
    return wrong;
}

static const char *
law_of_packet(uint8_t *packet, size_t len, const struct parsed *p)
{
    UINT64 hash = WinDivertHelperHashPacket(packet, (UINT)len, 7);
    const char *wrong;

    MUST(hash == WinDivertHelperHashPacket(packet, (UINT)len, 7));
    if ((wrong = law_of_pointers(packet, len, p)) || (wrong = law_of_seam(packet, len, p)) ||
        (wrong = law_of_ttl_copied(packet, len)) || (wrong = law_of_checksums(packet, len, p)))
        return wrong;
    return law_of_ttl_copied(packet, len); /* now with right checksums */
}

/* A refusal gives its reason and changes nothing. */
static const char *
law_of_refusal(const uint8_t *original, uint8_t *packet, size_t len)
{
    struct parsed p, before;
    WINDIVERT_ADDRESS addr, zero;

    memset(&p, 0xA5, sizeof(p));
    memcpy(&before, &p, sizeof(p));
    memset(&addr, 0, sizeof(addr));
    memset(&zero, 0, sizeof(zero));
    SetLastError(0);
    MUST(!parse(packet, len, &p) && GetLastError() == ERROR_INVALID_PARAMETER);
    MUST(memcmp(&p, &before, sizeof(p)) == 0);
    SetLastError(0);
    MUST(!WinDivertHelperCalcChecksums(packet, (UINT)len, &addr, 0) && GetLastError() == ERROR_INVALID_PARAMETER);
    SetLastError(0);
    MUST(!WinDivertHelperDecrementTTL(packet, (UINT)len) && GetLastError() == ERROR_INVALID_PARAMETER);
    SetLastError(0);
    MUST(WinDivertHelperHashPacket(packet, (UINT)len, 7) == 0 && GetLastError() == ERROR_INVALID_PARAMETER);
    MUST(memcmp(&addr, &zero, sizeof(addr)) == 0);
    MUST(len == 0 || memcmp(packet, original, len) == 0);
    return NULL;
}

const char *
packet_law(const uint8_t *bytes, size_t len, bool *ret_packet)
{
    uint8_t *packet = block_of(bytes, len);
    const char *wrong;
    struct parsed p;

    memset(&p, 0xA5, sizeof(p));
    *ret_packet = parse(packet, len, &p);
    wrong = *ret_packet ? law_of_packet(packet, len, &p) : law_of_refusal(bytes, packet, len);
    free(packet);
    return wrong;
}
