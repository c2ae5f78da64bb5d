/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * windivert.h: the WinDivert 2.2 programming interface.
 */
#ifndef WINDIVERT_H
#define WINDIVERT_H

#ifdef _WIN32
#include <windows.h>
#else
#include <stdint.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#ifndef WINDIVERTEXPORT
#if defined(_WIN32)
#define WINDIVERTEXPORT
#else
#define WINDIVERTEXPORT __attribute__((visibility("default")))
#endif
#endif

/* ---- Win32 spellings ------------------------------------------------ */

#ifndef _WIN32
#ifndef TRUE
#define TRUE 1
#endif
#ifndef FALSE
#define FALSE 0
#endif
typedef int BOOL;
typedef int INT;
typedef unsigned int UINT;
typedef uint32_t DWORD;
typedef int8_t INT8;
typedef int16_t INT16;
typedef int32_t INT32;
typedef int64_t INT64;
typedef uint8_t UINT8;
typedef uint16_t UINT16;
typedef uint32_t UINT32;
typedef uint64_t UINT64;
#ifndef VOID
#define VOID void
#endif
typedef void *PVOID;
typedef void *HANDLE;
#ifndef INVALID_HANDLE_VALUE
#define INVALID_HANDLE_VALUE ((HANDLE)(intptr_t)-1)
#endif
typedef struct _OVERLAPPED OVERLAPPED, *LPOVERLAPPED;

WINDIVERTEXPORT DWORD GetLastError(void);
WINDIVERTEXPORT void SetLastError(DWORD dwErrCode);

#define NO_ERROR 0
#define ERROR_SUCCESS 0
#define ERROR_ACCESS_DENIED 5
#define ERROR_INVALID_HANDLE 6
#define ERROR_NOT_ENOUGH_MEMORY 8
#define ERROR_GEN_FAILURE 31
#define ERROR_NOT_SUPPORTED 50
#define ERROR_INVALID_PARAMETER 87
#define ERROR_INSUFFICIENT_BUFFER 122
#define ERROR_NO_DATA 232
#define ERROR_OPERATION_ABORTED 995
#define ERROR_IO_PENDING 997
#define ERROR_SERVICE_DOES_NOT_EXIST 1060
#define ERROR_NETWORK_UNREACHABLE 1231
#define ERROR_HOST_UNREACHABLE 1232
#define ERROR_NO_SYSTEM_RESOURCES 1450
#endif /* _WIN32 */

/* ---- Layers, events, flags ------------------------------------------ */

typedef enum {
    WINDIVERT_LAYER_NETWORK = 0,
    WINDIVERT_LAYER_NETWORK_FORWARD = 1,
    WINDIVERT_LAYER_FLOW = 2,
    WINDIVERT_LAYER_SOCKET = 3,
    WINDIVERT_LAYER_REFLECT = 4,
} WINDIVERT_LAYER,
    *PWINDIVERT_LAYER;

typedef enum {
    WINDIVERT_EVENT_NETWORK_PACKET = 0,
    WINDIVERT_EVENT_FLOW_ESTABLISHED = 1,
    WINDIVERT_EVENT_FLOW_DELETED = 2,
    WINDIVERT_EVENT_SOCKET_BIND = 3,
    WINDIVERT_EVENT_SOCKET_CONNECT = 4,
    WINDIVERT_EVENT_SOCKET_LISTEN = 5,
    WINDIVERT_EVENT_SOCKET_ACCEPT = 6,
    WINDIVERT_EVENT_SOCKET_CLOSE = 7,
    WINDIVERT_EVENT_REFLECT_OPEN = 8,
    WINDIVERT_EVENT_REFLECT_CLOSE = 9,
} WINDIVERT_EVENT,
    *PWINDIVERT_EVENT;

#define WINDIVERT_FLAG_SNIFF 0x0001
#define WINDIVERT_FLAG_DROP 0x0002
#define WINDIVERT_FLAG_RECV_ONLY 0x0004
#define WINDIVERT_FLAG_READ_ONLY WINDIVERT_FLAG_RECV_ONLY
#define WINDIVERT_FLAG_SEND_ONLY 0x0008
#define WINDIVERT_FLAG_WRITE_ONLY WINDIVERT_FLAG_SEND_ONLY
#define WINDIVERT_FLAG_NO_INSTALL 0x0010
#define WINDIVERT_FLAG_FRAGMENTS 0x0020

typedef enum {
    WINDIVERT_PARAM_QUEUE_LENGTH = 0,
    WINDIVERT_PARAM_QUEUE_TIME = 1,
    WINDIVERT_PARAM_QUEUE_SIZE = 2,
    WINDIVERT_PARAM_VERSION_MAJOR = 3,
    WINDIVERT_PARAM_VERSION_MINOR = 4,
} WINDIVERT_PARAM,
    *PWINDIVERT_PARAM;
#define WINDIVERT_PARAM_MAX WINDIVERT_PARAM_VERSION_MINOR

typedef enum {
    WINDIVERT_SHUTDOWN_RECV = 0x1,
    WINDIVERT_SHUTDOWN_SEND = 0x2,
    WINDIVERT_SHUTDOWN_BOTH = 0x3,
} WINDIVERT_SHUTDOWN,
    *PWINDIVERT_SHUTDOWN;
#define WINDIVERT_SHUTDOWN_MAX WINDIVERT_SHUTDOWN_BOTH

#define WINDIVERT_PRIORITY_HIGHEST 30000
#define WINDIVERT_PRIORITY_LOWEST (-WINDIVERT_PRIORITY_HIGHEST)
#define WINDIVERT_PARAM_QUEUE_LENGTH_DEFAULT 4096
#define WINDIVERT_PARAM_QUEUE_LENGTH_MIN 32
#define WINDIVERT_PARAM_QUEUE_LENGTH_MAX 16384
#define WINDIVERT_PARAM_QUEUE_TIME_DEFAULT 2000
#define WINDIVERT_PARAM_QUEUE_TIME_MIN 100
#define WINDIVERT_PARAM_QUEUE_TIME_MAX 16000
#define WINDIVERT_PARAM_QUEUE_SIZE_DEFAULT 4194304
#define WINDIVERT_PARAM_QUEUE_SIZE_MIN 65535
#define WINDIVERT_PARAM_QUEUE_SIZE_MAX 33554432
#define WINDIVERT_BATCH_MAX 0xFF
#define WINDIVERT_MTU_MAX (40 + 0xFFFF)

/* ---- Addresses ------------------------------------------------------- */

typedef struct {
    UINT32 IfIdx;
    UINT32 SubIfIdx;
} WINDIVERT_DATA_NETWORK, *PWINDIVERT_DATA_NETWORK;

typedef struct {
    UINT64 EndpointId;
    UINT64 ParentEndpointId;
    UINT32 ProcessId;
    UINT32 LocalAddr[4];
    UINT32 RemoteAddr[4];
    UINT16 LocalPort;
    UINT16 RemotePort;
    UINT8 Protocol;
} WINDIVERT_DATA_FLOW, *PWINDIVERT_DATA_FLOW;

typedef struct {
    UINT64 EndpointId;
    UINT64 ParentEndpointId;
    UINT32 ProcessId;
    UINT32 LocalAddr[4];
    UINT32 RemoteAddr[4];
    UINT16 LocalPort;
    UINT16 RemotePort;
    UINT8 Protocol;
} WINDIVERT_DATA_SOCKET, *PWINDIVERT_DATA_SOCKET;

typedef struct {
    INT64 Timestamp;
    UINT32 ProcessId;
    WINDIVERT_LAYER Layer;
    UINT64 Flags;
    INT16 Priority;
} WINDIVERT_DATA_REFLECT, *PWINDIVERT_DATA_REFLECT;

#ifdef _MSC_VER
#pragma warning(push)
#pragma warning(disable : 4201)
#endif
typedef struct {
    INT64 Timestamp;
    UINT32 Layer : 8;
    UINT32 Event : 8;
    UINT32 Sniffed : 1;
    UINT32 Outbound : 1;
    UINT32 Loopback : 1;
    UINT32 Impostor : 1;
    UINT32 IPv6 : 1;
    UINT32 IPChecksum : 1;
    UINT32 TCPChecksum : 1;
    UINT32 UDPChecksum : 1;
    UINT32 Reserved1 : 8;
    UINT32 Reserved2;
    union {
        WINDIVERT_DATA_NETWORK Network;
        WINDIVERT_DATA_FLOW Flow;
        WINDIVERT_DATA_SOCKET Socket;
        WINDIVERT_DATA_REFLECT Reflect;
        UINT8 Reserved3[64];
    };
} WINDIVERT_ADDRESS, *PWINDIVERT_ADDRESS;
#ifdef _MSC_VER
#pragma warning(pop)
#endif

/* ---- Packet input and output ----------------------------------------- */

WINDIVERTEXPORT HANDLE WinDivertOpen(const char *filter, WINDIVERT_LAYER layer, INT16 priority, UINT64 flags);
WINDIVERTEXPORT BOOL WinDivertRecv(HANDLE handle, VOID *pPacket, UINT packetLen, UINT *pRecvLen,
                                   WINDIVERT_ADDRESS *pAddr);
WINDIVERTEXPORT BOOL WinDivertRecvEx(HANDLE handle, VOID *pPacket, UINT packetLen, UINT *pRecvLen, UINT64 flags,
                                     WINDIVERT_ADDRESS *pAddr, UINT *pAddrLen, LPOVERLAPPED lpOverlapped);
WINDIVERTEXPORT BOOL WinDivertSend(HANDLE handle, const VOID *pPacket, UINT packetLen, UINT *pSendLen,
                                   const WINDIVERT_ADDRESS *pAddr);
WINDIVERTEXPORT BOOL WinDivertSendEx(HANDLE handle, const VOID *pPacket, UINT packetLen, UINT *pSendLen, UINT64 flags,
                                     const WINDIVERT_ADDRESS *pAddr, UINT addrLen, LPOVERLAPPED lpOverlapped);
WINDIVERTEXPORT BOOL WinDivertShutdown(HANDLE handle, WINDIVERT_SHUTDOWN how);
WINDIVERTEXPORT BOOL WinDivertClose(HANDLE handle);
WINDIVERTEXPORT BOOL WinDivertSetParam(HANDLE handle, WINDIVERT_PARAM param, UINT64 value);
WINDIVERTEXPORT BOOL WinDivertGetParam(HANDLE handle, WINDIVERT_PARAM param, UINT64 *pValue);

/* ---- Protocol headers (network byte order) ---------------------------- */

typedef struct {
    UINT8 HdrLength : 4;
    UINT8 Version : 4;
    UINT8 TOS;
    UINT16 Length;
    UINT16 Id;
    UINT16 FragOff0;
    UINT8 TTL;
    UINT8 Protocol;
    UINT16 Checksum;
    UINT32 SrcAddr;
    UINT32 DstAddr;
} WINDIVERT_IPHDR, *PWINDIVERT_IPHDR;

#define WINDIVERT_IPHDR_GET_FRAGOFF(hdr) (((hdr)->FragOff0) & 0xFF1F)
#define WINDIVERT_IPHDR_GET_MF(hdr) ((((hdr)->FragOff0) & 0x0020) != 0)
#define WINDIVERT_IPHDR_GET_DF(hdr) ((((hdr)->FragOff0) & 0x0040) != 0)
#define WINDIVERT_IPHDR_GET_RESERVED(hdr) ((((hdr)->FragOff0) & 0x0080) != 0)

#define WINDIVERT_IPHDR_SET_FRAGOFF(hdr, val)                                                                        \
    do {                                                                                                             \
        (hdr)->FragOff0 = (UINT16)(((hdr)->FragOff0 & 0x00E0) | ((val)&0xFF1F));                                     \
    } while (0)
#define WINDIVERT_IPHDR_SET_MF(hdr, val)                                                                             \
    do {                                                                                                             \
        (hdr)->FragOff0 = (UINT16)(((hdr)->FragOff0 & 0xFFDF) | (((val)&0x0001) << 5));                              \
    } while (0)
#define WINDIVERT_IPHDR_SET_DF(hdr, val)                                                                             \
    do {                                                                                                             \
        (hdr)->FragOff0 = (UINT16)(((hdr)->FragOff0 & 0xFFBF) | (((val)&0x0001) << 6));                              \
    } while (0)
#define WINDIVERT_IPHDR_SET_RESERVED(hdr, val)                                                                       \
    do {                                                                                                             \
        (hdr)->FragOff0 = (UINT16)(((hdr)->FragOff0 & 0xFF7F) | (((val)&0x0001) << 7));                              \
    } while (0)

typedef struct {
    UINT8 TrafficClass0 : 4;
    UINT8 Version : 4;
    UINT8 FlowLabel0 : 4;
    UINT8 TrafficClass1 : 4;
    UINT16 FlowLabel1;
    UINT16 Length;
    UINT8 NextHdr;
    UINT8 HopLimit;
    UINT32 SrcAddr[4];
    UINT32 DstAddr[4];
} WINDIVERT_IPV6HDR, *PWINDIVERT_IPV6HDR;

#define WINDIVERT_IPV6HDR_GET_TRAFFICCLASS(hdr) ((((hdr)->TrafficClass0) << 4) | ((hdr)->TrafficClass1))
#define WINDIVERT_IPV6HDR_GET_FLOWLABEL(hdr) ((((UINT32)(hdr)->FlowLabel0) << 16) | ((UINT32)(hdr)->FlowLabel1))

#define WINDIVERT_IPV6HDR_SET_TRAFFICCLASS(hdr, val)                                                                 \
    do {                                                                                                             \
        (hdr)->TrafficClass0 = (UINT8)(((val) >> 4) & 0x0F);                                                         \
        (hdr)->TrafficClass1 = (UINT8)((val)&0x0F);                                                                  \
    } while (0)
#define WINDIVERT_IPV6HDR_SET_FLOWLABEL(hdr, val)                                                                    \
    do {                                                                                                             \
        (hdr)->FlowLabel0 = (UINT8)(((val) >> 16) & 0x0F);                                                           \
        (hdr)->FlowLabel1 = (UINT16)(val);                                                                           \
    } while (0)

typedef struct {
    UINT8 Type;
    UINT8 Code;
    UINT16 Checksum;
    UINT32 Body;
} WINDIVERT_ICMPHDR, *PWINDIVERT_ICMPHDR;

typedef struct {
    UINT8 Type;
    UINT8 Code;
    UINT16 Checksum;
    UINT32 Body;
} WINDIVERT_ICMPV6HDR, *PWINDIVERT_ICMPV6HDR;

typedef struct {
    UINT16 SrcPort;
    UINT16 DstPort;
    UINT32 SeqNum;
    UINT32 AckNum;
    UINT16 Reserved1 : 4;
    UINT16 HdrLength : 4;
    UINT16 Fin : 1;
    UINT16 Syn : 1;
    UINT16 Rst : 1;
    UINT16 Psh : 1;
    UINT16 Ack : 1;
    UINT16 Urg : 1;
    UINT16 Reserved2 : 2;
    UINT16 Window;
    UINT16 Checksum;
    UINT16 UrgPtr;
} WINDIVERT_TCPHDR, *PWINDIVERT_TCPHDR;

typedef struct {
    UINT16 SrcPort;
    UINT16 DstPort;
    UINT16 Length;
    UINT16 Checksum;
} WINDIVERT_UDPHDR, *PWINDIVERT_UDPHDR;

/* ---- Helpers ----------------------------------------------------------- */

#define WINDIVERT_HELPER_NO_IP_CHECKSUM 1
#define WINDIVERT_HELPER_NO_ICMP_CHECKSUM 2
#define WINDIVERT_HELPER_NO_ICMPV6_CHECKSUM 4
#define WINDIVERT_HELPER_NO_TCP_CHECKSUM 8
#define WINDIVERT_HELPER_NO_UDP_CHECKSUM 16

#ifdef __cplusplus
#define WINDIVERT_DEFAULT(v) = v
#else
#define WINDIVERT_DEFAULT(v)
#endif

WINDIVERTEXPORT UINT64 WinDivertHelperHashPacket(const VOID *pPacket, UINT packetLen,
                                                 UINT64 seed WINDIVERT_DEFAULT(0));
WINDIVERTEXPORT BOOL WinDivertHelperParsePacket(const VOID *pPacket, UINT packetLen, PWINDIVERT_IPHDR *ppIpHdr,
                                                PWINDIVERT_IPV6HDR *ppIpv6Hdr, UINT8 *pProtocol,
                                                PWINDIVERT_ICMPHDR *ppIcmpHdr, PWINDIVERT_ICMPV6HDR *ppIcmpv6Hdr,
                                                PWINDIVERT_TCPHDR *ppTcpHdr, PWINDIVERT_UDPHDR *ppUdpHdr,
                                                PVOID *ppData, UINT *pDataLen, PVOID *ppNext, UINT *pNextLen);
WINDIVERTEXPORT BOOL WinDivertHelperParseIPv4Address(const char *addrStr, UINT32 *pAddr);
WINDIVERTEXPORT BOOL WinDivertHelperParseIPv6Address(const char *addrStr, UINT32 *pAddr);
WINDIVERTEXPORT BOOL WinDivertHelperFormatIPv4Address(UINT32 addr, char *buffer, UINT bufLen);
WINDIVERTEXPORT BOOL WinDivertHelperFormatIPv6Address(const UINT32 *pAddr, char *buffer, UINT bufLen);
WINDIVERTEXPORT BOOL WinDivertHelperCalcChecksums(VOID *pPacket, UINT packetLen, WINDIVERT_ADDRESS *pAddr,
                                                  UINT64 flags);
WINDIVERTEXPORT BOOL WinDivertHelperDecrementTTL(VOID *pPacket, UINT packetLen);
WINDIVERTEXPORT BOOL WinDivertHelperCompileFilter(const char *filter, WINDIVERT_LAYER layer, char *object,
                                                  UINT objLen, const char **errorStr, UINT *errorPos);
WINDIVERTEXPORT BOOL WinDivertHelperEvalFilter(const char *filter, const VOID *pPacket, UINT packetLen,
                                               const WINDIVERT_ADDRESS *pAddr);
WINDIVERTEXPORT BOOL WinDivertHelperFormatFilter(const char *filter, WINDIVERT_LAYER layer, char *buffer,
                                                 UINT bufLen);
WINDIVERTEXPORT UINT16 WinDivertHelperNtohs(UINT16 x);
WINDIVERTEXPORT UINT16 WinDivertHelperHtons(UINT16 x);
WINDIVERTEXPORT UINT32 WinDivertHelperNtohl(UINT32 x);
WINDIVERTEXPORT UINT32 WinDivertHelperHtonl(UINT32 x);
WINDIVERTEXPORT UINT64 WinDivertHelperNtohll(UINT64 x);
WINDIVERTEXPORT UINT64 WinDivertHelperHtonll(UINT64 x);
WINDIVERTEXPORT void WinDivertHelperNtohIPv6Address(const UINT *inAddr, UINT *outAddr);
WINDIVERTEXPORT void WinDivertHelperHtonIPv6Address(const UINT *inAddr, UINT *outAddr);
WINDIVERTEXPORT void WinDivertHelperNtohIpv6Address(const UINT *inAddr, UINT *outAddr);
WINDIVERTEXPORT void WinDivertHelperHtonIpv6Address(const UINT *inAddr, UINT *outAddr);

#ifdef __cplusplus
}
#endif

#endif /* WINDIVERT_H */
