/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * A program that uses each type, macro and function of the public headers, so
 * that every compiler looks at them; compiled by test_headers.sh as C and C++,
 * for Linux and Windows, never run.
 */
#include "windivert.h"
#include "windivert_ext.h"

static UINT32
use_macros(PWINDIVERT_IPHDR ip, PWINDIVERT_IPV6HDR ipv6)
{
    WINDIVERT_IPHDR_SET_FRAGOFF(ip, 0xFF1F);
    WINDIVERT_IPHDR_SET_MF(ip, 1);
    WINDIVERT_IPHDR_SET_DF(ip, 1);
    WINDIVERT_IPHDR_SET_RESERVED(ip, 1);
    WINDIVERT_IPV6HDR_SET_TRAFFICCLASS(ipv6, 0xAB);
    WINDIVERT_IPV6HDR_SET_FLOWLABEL(ipv6, 0x14523);
    return (UINT32)(WINDIVERT_IPHDR_GET_FRAGOFF(ip) + WINDIVERT_IPHDR_GET_MF(ip) + WINDIVERT_IPHDR_GET_DF(ip) +
                    WINDIVERT_IPHDR_GET_RESERVED(ip) + WINDIVERT_IPV6HDR_GET_TRAFFICCLASS(ipv6)) +
           WINDIVERT_IPV6HDR_GET_FLOWLABEL(ipv6);
}

static BOOL
use_packets(UINT8 *packet, UINT len, PWINDIVERT_ADDRESS addr)
{
    PWINDIVERT_IPHDR ip = NULL;
    PWINDIVERT_IPV6HDR ipv6 = NULL;
    PWINDIVERT_ICMPHDR icmp = NULL;
    PWINDIVERT_ICMPV6HDR icmpv6 = NULL;
    PWINDIVERT_TCPHDR tcp = NULL;
    PWINDIVERT_UDPHDR udp = NULL;
    PVOID data = NULL, next = NULL;
    UINT data_len = 0, next_len = 0;
    UINT8 protocol = 0;
    UINT64 flags = WINDIVERT_HELPER_NO_IP_CHECKSUM | WINDIVERT_HELPER_NO_ICMP_CHECKSUM |
                   WINDIVERT_HELPER_NO_ICMPV6_CHECKSUM | WINDIVERT_HELPER_NO_TCP_CHECKSUM |
                   WINDIVERT_HELPER_NO_UDP_CHECKSUM;
#ifdef __cplusplus
    UINT64 hash = WinDivertHelperHashPacket(packet, len);
#else
    UINT64 hash = WinDivertHelperHashPacket(packet, len, 0);
#endif

    return WinDivertHelperParsePacket(packet, len, &ip, &ipv6, &protocol, &icmp, &icmpv6, &tcp, &udp, &data,
                                      &data_len, &next, &next_len) &&
           hash && use_macros(ip, ipv6) && WinDivertHelperCalcChecksums(packet, len, addr, flags) &&
           WinDivertHelperDecrementTTL(packet, len);
}

static BOOL
use_addresses(void)
{
    UINT32 words[4] = {0, 0, 0, 0};
    UINT swapped[4] = {0, 0, 0, 0};
    char text[40];

    WinDivertHelperNtohIPv6Address(swapped, swapped);
    WinDivertHelperHtonIPv6Address(swapped, swapped);
    WinDivertHelperNtohIpv6Address(swapped, swapped);
    WinDivertHelperHtonIpv6Address(swapped, swapped);
    return WinDivertHelperParseIPv4Address("192.0.2.1", words) && WinDivertHelperParseIPv6Address("::1", words) &&
           WinDivertHelperFormatIPv4Address(words[0], text, sizeof(text)) &&
           WinDivertHelperFormatIPv6Address(words, text, sizeof(text)) &&
           WinDivertHelperNtohs(WinDivertHelperHtons(1)) && WinDivertHelperNtohl(WinDivertHelperHtonl(1)) &&
           WinDivertHelperNtohll(WinDivertHelperHtonll(1));
}

static BOOL
use_filters(const WINDIVERT_ADDRESS *addr)
{
    const char *why = NULL;
    char object[256];
    UINT pos = 0;

    return WinDivertHelperCompileFilter("true", WINDIVERT_LAYER_FLOW, object, sizeof(object), &why, &pos) &&
           WinDivertHelperEvalFilter(object, NULL, 0, addr) &&
           WinDivertHelperFormatFilter(object, (WINDIVERT_LAYER)addr->Layer, object, sizeof(object));
}

static BOOL
use_handle(HANDLE handle, UINT8 *packet, UINT len, PWINDIVERT_ADDRESS addr)
{
    WINDIVERT_EXT_STATS stats;
    LPOVERLAPPED overlapped = NULL;
    UINT addr_len = sizeof(*addr);
    UINT64 value = 0;

    return WinDivertRecv(handle, packet, len, &len, addr) && WinDivertSend(handle, packet, len, &len, addr) &&
           WinDivertRecvEx(handle, packet, len, &len, 0, addr, &addr_len, overlapped) &&
           WinDivertSendEx(handle, packet, len, &len, 0, addr, addr_len, overlapped) &&
           WinDivertSetParam(handle, WINDIVERT_PARAM_QUEUE_LENGTH, WINDIVERT_PARAM_QUEUE_LENGTH_DEFAULT) &&
           WinDivertGetParam(handle, WINDIVERT_PARAM_VERSION_MAJOR, &value) &&
           WinDivertExtSetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, WINDIVERT_EXT_PARAM_HOLD_TIME_DEFAULT) &&
           WinDivertExtGetParam(handle, WINDIVERT_EXT_PARAM_HOLD_TIME, &value) &&
           WinDivertExtSetFilter(handle, "true") && WinDivertExtSkipFlow(handle, packet, len) &&
           WinDivertExtGetStats(handle, &stats) && WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_BOTH) &&
           WinDivertClose(handle);
}

int
main(void)
{
    static UINT8 packet[WINDIVERT_MTU_MAX];
    WINDIVERT_ADDRESS addr;
    HANDLE handle = WinDivertOpen("true", WINDIVERT_LAYER_NETWORK, WINDIVERT_PRIORITY_LOWEST,
                                  WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_READ_ONLY);

    addr.Outbound = 1;
    addr.Layer = WINDIVERT_LAYER_NETWORK;
    addr.Event = WINDIVERT_EVENT_NETWORK_PACKET;
    addr.Network.IfIdx = addr.Flow.ProcessId = addr.Socket.ProcessId = addr.Reflect.ProcessId = 0;
    if (handle == INVALID_HANDLE_VALUE) {
        DWORD error = GetLastError();

        SetLastError(ERROR_SUCCESS);
        return error == ERROR_ACCESS_DENIED && WinDivertExtGetLastErrorText()[0] &&
               WinDivertExtGetLastErrorRemedy()[0];
    }
    return use_handle(handle, packet, sizeof(packet), &addr) && use_packets(packet, sizeof(packet), &addr) &&
           use_addresses() && use_filters(&addr);
}
