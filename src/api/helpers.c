/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WinDivertHelper*: packets, addresses, byte order.  Filters are in helpers_filter.c. */
#include <string.h>

#include "core/addr.h"
#include "core/bytes.h"
#include "core/cksum.h"
#include "core/hash.h"
#include "core/packet.h"
#include "core/ttl.h"
#include "error.h"

static BOOL
fail_null(const char *name)
{
    return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "%s is NULL", name);
}

static BOOL
fail_packet(const void *packet, UINT len)
{
    if (!packet)
        return fail_null("pPacket");
    return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "the %u bytes do not begin with an IPv4 or IPv6 header", len);
}

/* ---- packets ------------------------------------------------------------- */

static void *
pointer_at(const struct wd_packet *packet, uint32_t offset)
{
    return (uint8_t *)packet->data + offset;
}

/* The transport header where it is of that kind. */
static void *
transport(const struct wd_packet *packet, enum wd_l4 kind)
{
    return packet->l4 == kind ? pointer_at(packet, packet->l4_off) : NULL;
}

static void
put_headers(const struct wd_packet *packet, PWINDIVERT_IPHDR *ppIpHdr, PWINDIVERT_IPV6HDR *ppIpv6Hdr,
            UINT8 *pProtocol)
{
    if (ppIpHdr)
        *ppIpHdr = packet->version == 4 ? pointer_at(packet, 0) : NULL;
    if (ppIpv6Hdr)
        *ppIpv6Hdr = packet->version == 6 ? pointer_at(packet, 0) : NULL;
    if (pProtocol)
        *pProtocol = packet->protocol;
}

/* Bytes of the packet, or of what follows it: no bytes are NULL. */
static void
put_rest(const struct wd_packet *packet, uint32_t offset, uint32_t len, PVOID *ret_start, UINT *ret_len)
{
    if (ret_start)
        *ret_start = len ? pointer_at(packet, offset) : NULL;
    if (ret_len)
        *ret_len = len;
}

BOOL
WinDivertHelperParsePacket(const VOID *pPacket, UINT packetLen, PWINDIVERT_IPHDR *ppIpHdr,
                           PWINDIVERT_IPV6HDR *ppIpv6Hdr, UINT8 *pProtocol, PWINDIVERT_ICMPHDR *ppIcmpHdr,
                           PWINDIVERT_ICMPV6HDR *ppIcmpv6Hdr, PWINDIVERT_TCPHDR *ppTcpHdr,
                           PWINDIVERT_UDPHDR *ppUdpHdr, PVOID *ppData, UINT *pDataLen, PVOID *ppNext, UINT *pNextLen)
{
    bool batch = ppNext || pNextLen;
    struct wd_packet packet;

    if (!(batch ? wd_packet_parse : wd_packet_parse_whole)(pPacket, packetLen, &packet))
        return fail_packet(pPacket, packetLen);
    put_headers(&packet, ppIpHdr, ppIpv6Hdr, pProtocol);
    if (ppIcmpHdr)
        *ppIcmpHdr = transport(&packet, WD_L4_ICMP);
    if (ppIcmpv6Hdr)
        *ppIcmpv6Hdr = transport(&packet, WD_L4_ICMP6);
    if (ppTcpHdr)
        *ppTcpHdr = transport(&packet, WD_L4_TCP);
    if (ppUdpHdr)
        *ppUdpHdr = transport(&packet, WD_L4_UDP);
    put_rest(&packet, packet.data_off, wd_packet_data_len(&packet), ppData, pDataLen);
    put_rest(&packet, packet.ip_len, packet.buf_len - packet.ip_len, ppNext, pNextLen);
    return TRUE;
}

UINT64
WinDivertHelperHashPacket(const VOID *pPacket, UINT packetLen, UINT64 seed)
{
    struct wd_packet packet;

    if (wd_packet_parse(pPacket, packetLen, &packet))
        return wd_hash_packet(&packet, seed);
    fail_packet(pPacket, packetLen);
    return 0;
}

/* Only where a call has failed: why. */
static BOOL
fail_checksums(const void *bytes, UINT len)
{
    struct wd_packet packet;

    if (!wd_packet_parse(bytes, len, &packet))
        return fail_packet(bytes, len);
    return wd_api_fail(ERROR_INVALID_PARAMETER,
                       "exclude the transport checksum with a WINDIVERT_HELPER_NO_x_CHECKSUM flag",
                       "the transport checksum needs bytes that the packet does not have: it is %s",
                       packet.truncated ? "truncated" : "a first fragment");
}

BOOL
WinDivertHelperCalcChecksums(VOID *pPacket, UINT packetLen, WINDIVERT_ADDRESS *pAddr, UINT64 flags)
{
    struct wd_sums done = {0};
    bool all = wd_cksum_calc(pPacket, packetLen, flags, &done);

    if (pAddr) {
        pAddr->IPChecksum |= done.ip;
        pAddr->TCPChecksum |= done.tcp;
        pAddr->UDPChecksum |= done.udp;
    }
    return all ? TRUE : fail_checksums(pPacket, packetLen);
}

BOOL
WinDivertHelperDecrementTTL(VOID *pPacket, UINT packetLen)
{
    struct wd_packet packet;

    if (wd_ttl_decrement(pPacket, packetLen))
        return TRUE;
    if (!wd_packet_parse(pPacket, packetLen, &packet))
        return fail_packet(pPacket, packetLen);
    return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "the %s of the packet is %u: the result would be 0",
                       packet.version == 4 ? "TTL" : "HopLimit", packet.data[packet.version == 4 ? 8 : 7]);
}

/* ---- addresses ------------------------------------------------------------ */

BOOL
WinDivertHelperParseIPv4Address(const char *addrStr, UINT32 *pAddr)
{
    if (!addrStr || !pAddr)
        return fail_null(addrStr ? "pAddr" : "addrStr");
    if (!wd_addr_parse4(addrStr, strlen(addrStr), pAddr))
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "not an IPv4 address: %.64s", addrStr);
    return TRUE;
}

/* Also takes an IPv4 text, which is then the number of that address, not the mapped form. */
BOOL
WinDivertHelperParseIPv6Address(const char *addrStr, UINT32 *pAddr)
{
    UINT32 words[4] = {0};
    size_t len;

    if (!addrStr || !pAddr)
        return fail_null(addrStr ? "pAddr" : "addrStr");
    len = strlen(addrStr);
    if (!wd_addr_parse4(addrStr, len, &words[0]) && !wd_addr_parse6(addrStr, len, words))
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "not an IPv6 address: %.64s", addrStr);
    memcpy(pAddr, words, sizeof(words));
    return TRUE;
}

static BOOL
put_text(const char *text, size_t len, char *buffer, UINT bufLen)
{
    if (len >= bufLen)
        return wd_api_fail(ERROR_INSUFFICIENT_BUFFER, "give a buffer of 40 bytes, enough for every address",
                           "the address needs %zu bytes, the buffer has %u", len + 1, bufLen);
    memcpy(buffer, text, len + 1);
    return TRUE;
}

BOOL
WinDivertHelperFormatIPv4Address(UINT32 addr, char *buffer, UINT bufLen)
{
    char text[WD_ADDR4_TEXT];

    if (!buffer)
        return fail_null("buffer");
    return put_text(text, wd_addr_format4(addr, text), buffer, bufLen);
}

BOOL
WinDivertHelperFormatIPv6Address(const UINT32 *pAddr, char *buffer, UINT bufLen)
{
    char text[WD_ADDR6_TEXT];

    if (!pAddr || !buffer)
        return fail_null(pAddr ? "buffer" : "pAddr");
    return put_text(text, wd_addr_format6(pAddr, text), buffer, bufLen);
}

/* ---- byte order: network to host and host to network are the same permutation ------ */

UINT16
WinDivertHelperNtohs(UINT16 x)
{
    uint8_t bytes[sizeof(x)];

    memcpy(bytes, &x, sizeof(x));
    return wd_load_be16(bytes);
}

UINT32
WinDivertHelperNtohl(UINT32 x)
{
    uint8_t bytes[sizeof(x)];

    memcpy(bytes, &x, sizeof(x));
    return wd_load_be32(bytes);
}

UINT64
WinDivertHelperNtohll(UINT64 x)
{
    uint8_t bytes[sizeof(x)];

    memcpy(bytes, &x, sizeof(x));
    return (UINT64)wd_load_be32(bytes) << 32 | wd_load_be32(bytes + 4);
}

UINT16
WinDivertHelperHtons(UINT16 x)
{
    return WinDivertHelperNtohs(x);
}

UINT32
WinDivertHelperHtonl(UINT32 x)
{
    return WinDivertHelperNtohl(x);
}

UINT64
WinDivertHelperHtonll(UINT64 x)
{
    return WinDivertHelperNtohll(x);
}

/* In host order word 0 is the least significant: the words change places too.  inAddr may be outAddr. */
void
WinDivertHelperNtohIPv6Address(const UINT *inAddr, UINT *outAddr)
{
    UINT words[4];

    if (!inAddr || !outAddr) {
        fail_null(inAddr ? "outAddr" : "inAddr");
        return;
    }
    for (int i = 0; i < 4; i++)
        words[i] = WinDivertHelperNtohl(inAddr[3 - i]);
    memcpy(outAddr, words, sizeof(words));
}

void
WinDivertHelperHtonIPv6Address(const UINT *inAddr, UINT *outAddr)
{
    WinDivertHelperNtohIPv6Address(inAddr, outAddr);
}

void
WinDivertHelperNtohIpv6Address(const UINT *inAddr, UINT *outAddr)
{
    WinDivertHelperNtohIPv6Address(inAddr, outAddr);
}

void
WinDivertHelperHtonIpv6Address(const UINT *inAddr, UINT *outAddr)
{
    WinDivertHelperNtohIPv6Address(inAddr, outAddr);
}
