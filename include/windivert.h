/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * windivert.h: the WinDivert 2.2 programming interface.
 *
 * A handle stands for a filter at a layer.  What matches is taken out of the
 * network stack and waits for WinDivertRecv; what is to go on is given back,
 * changed or not, with WinDivertSend:
 *
 *     HANDLE handle = WinDivertOpen("udp.DstPort == 53", WINDIVERT_LAYER_NETWORK, 0, 0);
 *     while (WinDivertRecv(handle, packet, sizeof(packet), &len, &addr))
 *         WinDivertSend(handle, packet, len, NULL, &addr);
 *
 * What holds for all calls:
 *
 *   Failure    FALSE (WinDivertOpen: INVALID_HANDLE_VALUE), the reason in
 *              GetLastError(); windivert_ext.h has the text.  A failed call
 *              changes no output, but for what its contract names.
 *   Threads    Every function may be called by any number of threads at once,
 *              on one handle too, as long as no two share an output.
 *   Memory     The caller owns every buffer; none is used after the return, or
 *              with an OVERLAPPED after the operation has ended.
 *   Bytes      Lengths are bytes.  Packets and the header structures are in
 *              network byte order, addresses (WINDIVERT_ADDRESS) and numbers
 *              given as arguments in host byte order.
 *
 * The numbers behind "Manual" are the sections of the WinDivert 2.2 manual.
 * What differs from Windows on purpose is in docs/compat.md.
 */
#ifndef WINDIVERT_H
#define WINDIVERT_H

#ifdef _WIN32
#include <windows.h>
#else
#include <stdint.h>
#endif
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * How the functions are declared.  Windows: imported from the dll, exported
 * where the dll is built (WINDIVERT_BUILD), neither in a static library
 * (WINDIVERT_STATIC).  A program may define it otherwise before the #include.
 */
#ifndef WINDIVERTEXPORT
#if defined(_WIN32) && defined(WINDIVERT_BUILD)
#define WINDIVERTEXPORT extern __declspec(dllexport)
#elif defined(_WIN32) && !defined(WINDIVERT_STATIC)
#define WINDIVERTEXPORT extern __declspec(dllimport)
#elif defined(_WIN32)
#define WINDIVERTEXPORT extern
#else
#define WINDIVERTEXPORT __attribute__((visibility("default")))
#endif
#endif

/*
 * WINDIVERT_ASSERT_(condition): refuses to compile where it is false, so that a
 * compiler that lays a structure out differently is noticed at once.
 */
#if defined(__cplusplus) && __cplusplus >= 201103L
#define WINDIVERT_ASSERT_(condition) static_assert(condition, #condition)
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define WINDIVERT_ASSERT_(condition) _Static_assert(condition, #condition)
#else
#define WINDIVERT_ASSERT_(condition) extern char windivert_assert_[(condition) ? 1 : -1]
#endif

/* ---- Win32 spellings ------------------------------------------------ */

#ifndef _WIN32
/* Under Windows these come from <windows.h>.  BOOL is TRUE or FALSE; the numbered types have exactly these bits. */
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

/*
 * Why the last call of the calling thread failed.  A call that succeeds leaves
 * it as it is, with one exception: WinDivertHelperEvalFilter.  0 in a thread
 * where nothing failed yet.
 */
WINDIVERTEXPORT DWORD GetLastError(void);

/* Sets what GetLastError gives to the calling thread. */
WINDIVERTEXPORT void SetLastError(DWORD dwErrCode);

/* The values of GetLastError, as on Windows.  Each contract below says when it gives which. */
#define NO_ERROR 0
#define ERROR_SUCCESS 0
#define ERROR_ACCESS_DENIED 5             /* privilege is missing: CAP_NET_ADMIN */
#define ERROR_INVALID_HANDLE 6            /* closed, never opened, or opened before a fork() by the parent */
#define ERROR_NOT_ENOUGH_MEMORY 8         /* of the process */
#define ERROR_GEN_FAILURE 31              /* the kernel refused, for a reason that has no code of its own */
#define ERROR_NOT_SUPPORTED 50            /* not possible on this system */
#define ERROR_INVALID_PARAMETER 87        /* the caller's mistake */
#define ERROR_INSUFFICIENT_BUFFER 122     /* the result does not fit */
#define WAIT_TIMEOUT 258                  /* nothing came in time */
#define ERROR_NO_DATA 232                 /* shut down */
#define ERROR_OPERATION_ABORTED 995       /* closed during the call, or cancelled */
#define ERROR_IO_INCOMPLETE 996           /* the operation has not ended */
#define ERROR_IO_PENDING 997              /* begun; the OVERLAPPED will say how it ends */
#define ERROR_SERVICE_DOES_NOT_EXIST 1060 /* WINDIVERT_FLAG_NO_INSTALL, and nothing is installed */
#define ERROR_NOT_FOUND 1168              /* nothing to cancel */
#define ERROR_NETWORK_UNREACHABLE 1231    /* no route */
#define ERROR_HOST_UNREACHABLE 1232       /* the hop limit of an impostor is used up, or no route */
#define ERROR_NO_SYSTEM_RESOURCES 1450    /* descriptors, kernel memory, or room in a table of the kernel */
#endif                                    /* _WIN32 */

/* ---- Layers, events, flags ------------------------------------------ */

/* What a handle sees (Manual 5.1). */
typedef enum {
    WINDIVERT_LAYER_NETWORK = 0,         /* packets to and from this machine */
    WINDIVERT_LAYER_NETWORK_FORWARD = 1, /* packets that pass through this machine */
    WINDIVERT_LAYER_FLOW = 2,            /* connections and flows that begin and end; look only */
    WINDIVERT_LAYER_SOCKET = 3,          /* operations on sockets; can be refused, not sent */
    WINDIVERT_LAYER_REFLECT = 4,         /* handles of this library that are opened and closed; look only */
} WINDIVERT_LAYER,
    *PWINDIVERT_LAYER;

/* What happened (Manual 5.2); the name says at which layer. */
typedef enum {
    WINDIVERT_EVENT_NETWORK_PACKET = 0,   /* a packet; NETWORK and NETWORK_FORWARD know no other event */
    WINDIVERT_EVENT_FLOW_ESTABLISHED = 1, /* TCP: connected; otherwise: the first packet */
    WINDIVERT_EVENT_FLOW_DELETED = 2,     /* TCP: closed; otherwise: idle for too long */
    WINDIVERT_EVENT_SOCKET_BIND = 3,
    WINDIVERT_EVENT_SOCKET_CONNECT = 4,
    WINDIVERT_EVENT_SOCKET_LISTEN = 5,
    WINDIVERT_EVENT_SOCKET_ACCEPT = 6,
    WINDIVERT_EVENT_SOCKET_CLOSE = 7, /* the binding or connection ends; cannot be refused */
    WINDIVERT_EVENT_REFLECT_OPEN = 8,
    WINDIVERT_EVENT_REFLECT_CLOSE = 9,
} WINDIVERT_EVENT,
    *PWINDIVERT_EVENT;

/* Of WinDivertOpen (Manual 5.4). */
#define WINDIVERT_FLAG_SNIFF 0x0001     /* copies; the originals go on untouched */
#define WINDIVERT_FLAG_DROP 0x0002      /* what matches is dropped, nothing is received; not with SNIFF */
#define WINDIVERT_FLAG_RECV_ONLY 0x0004 /* the handle never sends; not with SEND_ONLY */
#define WINDIVERT_FLAG_READ_ONLY WINDIVERT_FLAG_RECV_ONLY
#define WINDIVERT_FLAG_SEND_ONLY 0x0008 /* the handle never receives: nothing is taken out of the stack */
#define WINDIVERT_FLAG_WRITE_ONLY WINDIVERT_FLAG_SEND_ONLY
#define WINDIVERT_FLAG_NO_INSTALL 0x0010 /* open only where another handle is open already; else error 1060 */
#define WINDIVERT_FLAG_FRAGMENTS 0x0020  /* NETWORK, inbound: fragments as they come, not the reassembled packet */

/* Of WinDivertSetParam and WinDivertGetParam (Manual 5.11): the limits of a handle's queue of packets to receive. */
typedef enum {
    WINDIVERT_PARAM_QUEUE_LENGTH = 0,  /* packets */
    WINDIVERT_PARAM_QUEUE_TIME = 1,    /* milliseconds that a packet may wait */
    WINDIVERT_PARAM_QUEUE_SIZE = 2,    /* bytes of packets */
    WINDIVERT_PARAM_VERSION_MAJOR = 3, /* 2; read-only */
    WINDIVERT_PARAM_VERSION_MINOR = 4, /* 2; read-only */
} WINDIVERT_PARAM,
    *PWINDIVERT_PARAM;
#define WINDIVERT_PARAM_MAX WINDIVERT_PARAM_VERSION_MINOR

/* Which direction WinDivertShutdown ends (Manual 5.9). */
typedef enum {
    WINDIVERT_SHUTDOWN_RECV = 0x1, /* no new packets are queued */
    WINDIVERT_SHUTDOWN_SEND = 0x2, /* no packets can be sent */
    WINDIVERT_SHUTDOWN_BOTH = 0x3,
} WINDIVERT_SHUTDOWN,
    *PWINDIVERT_SHUTDOWN;
#define WINDIVERT_SHUTDOWN_MAX WINDIVERT_SHUTDOWN_BOTH

#define WINDIVERT_PRIORITY_HIGHEST 30000 /* sees packets first */
#define WINDIVERT_PRIORITY_LOWEST (-WINDIVERT_PRIORITY_HIGHEST)
#define WINDIVERT_PARAM_QUEUE_LENGTH_DEFAULT 4096 /* packets */
#define WINDIVERT_PARAM_QUEUE_LENGTH_MIN 32
#define WINDIVERT_PARAM_QUEUE_LENGTH_MAX 16384
#define WINDIVERT_PARAM_QUEUE_TIME_DEFAULT 2000 /* ms */
#define WINDIVERT_PARAM_QUEUE_TIME_MIN 100
#define WINDIVERT_PARAM_QUEUE_TIME_MAX 16000
#define WINDIVERT_PARAM_QUEUE_SIZE_DEFAULT 4194304 /* bytes */
#define WINDIVERT_PARAM_QUEUE_SIZE_MIN 65535
#define WINDIVERT_PARAM_QUEUE_SIZE_MAX 33554432
#define WINDIVERT_BATCH_MAX 0xFF        /* packets of one RecvEx or SendEx */
#define WINDIVERT_MTU_MAX (40 + 0xFFFF) /* bytes of the longest packet: IPv6 header and payload */

/* ---- Addresses (Manual 5.3) ------------------------------------------- */

/* NETWORK and NETWORK_FORWARD: the interface, as if_nametoindex() numbers it. */
typedef struct {
    UINT32 IfIdx;
    UINT32 SubIfIdx; /* 0 on Linux */
} WINDIVERT_DATA_NETWORK, *PWINDIVERT_DATA_NETWORK;

/*
 * FLOW.  Host byte order; word 0 of an address is the least significant, and an
 * IPv4 address is in the mapped form: 10.0.0.1 is { 0x0A000001, 0x0000FFFF, 0, 0 },
 * ::1 is { 1, 0, 0, 0 }.
 */
typedef struct {
    UINT64 EndpointId;       /* of the socket */
    UINT64 ParentEndpointId; /* of the listening socket, for an accepted connection; else 0 */
    UINT32 ProcessId;
    UINT32 LocalAddr[4];
    UINT32 RemoteAddr[4];
    UINT16 LocalPort; /* ICMP, ICMPv6: type */
    UINT16 RemotePort;
    UINT8 Protocol; /* IANA's number: 6 TCP, 17 UDP */
} WINDIVERT_DATA_FLOW, *PWINDIVERT_DATA_FLOW;

/* SOCKET: the same fields with the same meaning. */
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

/* REFLECT: the handle that was opened or closed. */
typedef struct {
    INT64 Timestamp; /* when it was opened; unit as below */
    UINT32 ProcessId;
    WINDIVERT_LAYER Layer; /* the three arguments of its WinDivertOpen */
    UINT64 Flags;
    INT16 Priority;
} WINDIVERT_DATA_REFLECT, *PWINDIVERT_DATA_REFLECT;

/*
 * Where a packet or event comes from, or where a packet is to go; 80 bytes.
 * Recv fills in everything; bytes that have no meaning are 0.  Of an address
 * given to Send, Layer, Event, Sniffed, Timestamp and Loopback are not read.
 *
 *   bit   0       8       16  17  18  19  20  21  22  23  24
 *         | Layer | Event | S | O | L | I | 6 | IP| T | U | Reserved1 |
 *
 * Timestamp counts 100 ns of CLOCK_MONOTONIC, the clock and unit that
 * QueryPerformanceCounter has on Windows 10.
 *
 * Reserved2 and the bytes of the union from 8 on carry, on the packet layers,
 * which held packet this is.  A program that sends a packet back leaves them
 * alone; one that makes up a packet starts from an address of zeros.
 */
#ifdef _MSC_VER
#pragma warning(push)
#pragma warning(disable : 4201)
#endif
typedef struct {
    INT64 Timestamp;
    UINT32 Layer : 8;      /* WINDIVERT_LAYER */
    UINT32 Event : 8;      /* WINDIVERT_EVENT */
    UINT32 Sniffed : 1;    /* a copy: the original went on */
    UINT32 Outbound : 1;   /* leaves this machine; Send: the direction to send in */
    UINT32 Loopback : 1;   /* from and to this machine; such packets are seen outbound only */
    UINT32 Impostor : 1;   /* sent by a handle, not by the network stack */
    UINT32 IPv6 : 1;       /* IPv6, else IPv4 */
    UINT32 IPChecksum : 1; /* Recv: these checksums are right; Send: take them as they are, 0: compute them */
    UINT32 TCPChecksum : 1;
    UINT32 UDPChecksum : 1;
    UINT32 Reserved1 : 8; /* 0 */
    UINT32 Reserved2;     /* the library's */
    union {
        WINDIVERT_DATA_NETWORK Network; /* NETWORK, NETWORK_FORWARD */
        WINDIVERT_DATA_FLOW Flow;       /* FLOW */
        WINDIVERT_DATA_SOCKET Socket;   /* SOCKET */
        WINDIVERT_DATA_REFLECT Reflect; /* REFLECT */
        UINT8 Reserved3[64];
    };
} WINDIVERT_ADDRESS, *PWINDIVERT_ADDRESS;
#ifdef _MSC_VER
#pragma warning(pop)
#endif

WINDIVERT_ASSERT_(sizeof(UINT8) == 1 && sizeof(UINT16) == 2 && sizeof(UINT32) == 4 && sizeof(UINT64) == 8);
WINDIVERT_ASSERT_(sizeof(WINDIVERT_ADDRESS) == 80);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_ADDRESS, Timestamp) == 0 && offsetof(WINDIVERT_ADDRESS, Reserved2) == 12);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_ADDRESS, Network) == 16 && offsetof(WINDIVERT_ADDRESS, Flow) == 16);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_ADDRESS, Socket) == 16 && offsetof(WINDIVERT_ADDRESS, Reflect) == 16);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_ADDRESS, Reserved3) == 16);
WINDIVERT_ASSERT_(sizeof(WINDIVERT_DATA_NETWORK) == 8 && offsetof(WINDIVERT_DATA_NETWORK, SubIfIdx) == 4);
WINDIVERT_ASSERT_(sizeof(WINDIVERT_DATA_FLOW) == 64 && sizeof(WINDIVERT_DATA_SOCKET) == 64);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_FLOW, ParentEndpointId) == 8);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_FLOW, ProcessId) == 16 && offsetof(WINDIVERT_DATA_FLOW, LocalAddr) == 20);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_FLOW, RemoteAddr) == 36 && offsetof(WINDIVERT_DATA_FLOW, LocalPort) == 52);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_FLOW, RemotePort) == 54 && offsetof(WINDIVERT_DATA_FLOW, Protocol) == 56);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_SOCKET, ParentEndpointId) == 8);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_SOCKET, ProcessId) == 16 &&
                  offsetof(WINDIVERT_DATA_SOCKET, LocalAddr) == 20);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_SOCKET, RemoteAddr) == 36 &&
                  offsetof(WINDIVERT_DATA_SOCKET, LocalPort) == 52);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_SOCKET, RemotePort) == 54 &&
                  offsetof(WINDIVERT_DATA_SOCKET, Protocol) == 56);
WINDIVERT_ASSERT_(sizeof(WINDIVERT_DATA_REFLECT) == 32 && offsetof(WINDIVERT_DATA_REFLECT, ProcessId) == 8);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_REFLECT, Layer) == 12 && offsetof(WINDIVERT_DATA_REFLECT, Flags) == 16);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_DATA_REFLECT, Priority) == 24);

/* ---- Packet input and output (Manual 5.4 to 5.12) ----------------------- */

/*
 * Opens a handle (Manual 5.4).
 *
 * filter    an expression of the filter language, or an object made by
 *           WinDivertHelperCompileFilter for the same layer.
 * layer     what is seen.  FLOW needs SNIFF|RECV_ONLY, SOCKET needs RECV_ONLY,
 *           REFLECT needs SNIFF|RECV_ONLY.
 * priority  WINDIVERT_PRIORITY_LOWEST..HIGHEST.  The higher sees a packet
 *           first; what a handle sends goes on to the lower ones.
 * flags     WINDIVERT_FLAG_x; SNIFF|DROP and RECV_ONLY|SEND_ONLY are refused.
 *
 * Packets are queued from the return on, so a handle that is not read fills
 * its queue.  The handle ends with WinDivertClose or with the process; then
 * nothing of it is left in the kernel.  In a child after fork() it is invalid.
 *
 * INVALID_HANDLE_VALUE:
 *   5     the process lacks CAP_NET_ADMIN
 *   87    bad filter (its text says where), layer, priority or flags; filter is NULL
 *   1060  NO_INSTALL, and no handle is open that the caller could see
 *   50    this layer or mode is not possible on this system
 *   8, 1450, 31
 */
WINDIVERTEXPORT HANDLE WinDivertOpen(const char *filter, WINDIVERT_LAYER layer, INT16 priority, UINT64 flags);

/*
 * Receives one packet or event (Manual 5.5).  Blocks until there is one, the
 * handle is shut down, or it is closed.
 *
 * pPacket    room for packetLen bytes, 40 + 0xFFFF (WINDIVERT_MTU_MAX) for any
 *            packet; NULL: the bytes are not wanted.  FLOW and SOCKET events
 *            have none; those of a REFLECT event are the handle's filter object.
 * pRecvLen   out: the bytes stored; may be NULL.
 * pAddr      out: the address; may be NULL.
 *
 * The packet now belongs to the caller: unless it was sniffed, it goes nowhere
 * until it is sent, and is dropped if that does not happen in time.
 *
 * FALSE:
 *   6     no open handle
 *   87    the handle is SEND_ONLY or DROP
 *   122   the packet is longer than packetLen: its first packetLen bytes, the
 *         length and the address are stored, and it counts as received
 *   232   shut down for receiving, and the queue is empty
 *   995   closed during the call
 *   8, 1450, 31
 */
WINDIVERTEXPORT BOOL WinDivertRecv(HANDLE handle, VOID *pPacket, UINT packetLen, UINT *pRecvLen,
                                   WINDIVERT_ADDRESS *pAddr);

/*
 * Receives up to WINDIVERT_BATCH_MAX packets at once (Manual 5.6): as many as
 * are queued and fit, at least one, packed one behind the other without gaps;
 * none is split.  WinDivertHelperParsePacket finds where each begins.
 *
 * flags         0.
 * pAddr         one address a packet.
 * pAddrLen      in: bytes that pAddr has room for, a multiple of
 *               sizeof(WINDIVERT_ADDRESS); out: bytes used.  NULL: one address.
 * lpOverlapped  NULL; or the call does not block and answers FALSE with 997.
 *               When packets have come (those asked for earlier are first),
 *               InternalHigh and GetOverlappedResult say how many bytes, and
 *               hEvent is set; *pAddrLen is written then, *pRecvLen never.
 *               Until then the buffers, *pAddrLen and the OVERLAPPED stay where
 *               they are.  CancelIoEx and WinDivertClose end it with 995.  Not
 *               on Windows its layout and calls are in compat's windows.h.
 *
 * FALSE: as WinDivertRecv, and
 *   87    flags is not 0; *pAddrLen is 0, no multiple, or more than 255 addresses
 *   997   begun; 122, 232, 995 and 31 are then the end of the operation
 *   6     hEvent is not NULL and no event
 */
WINDIVERTEXPORT BOOL WinDivertRecvEx(HANDLE handle, VOID *pPacket, UINT packetLen, UINT *pRecvLen, UINT64 flags,
                                     WINDIVERT_ADDRESS *pAddr, UINT *pAddrLen, LPOVERLAPPED lpOverlapped);

/*
 * Sends a packet (Manual 5.7).  With the address that came with it, on the
 * handle that received it, Outbound and IPv6 unchanged and in time, that is the
 * packet received, changed or not; every other Send makes a new packet.
 *
 * pPacket    packetLen bytes: one IPv4 or IPv6 packet.  Its checksums are right,
 *            or the address's *Checksum bit is 0 and they are computed (a UDP
 *            checksum of 0 over IPv4 stays 0).
 * pSendLen   out: bytes sent; may be NULL.
 * pAddr      Outbound is the direction (NETWORK).  Inbound packets arrive at
 *            Network.IfIdx; outbound ones are routed, IfIdx is not read.
 *
 * Does not block for longer than the kernel takes.
 *
 * FALSE:
 *   6     no open handle
 *   87    pPacket or pAddr is NULL; the bytes are no packet or not exactly one;
 *         the handle is RECV_ONLY; nothing can be sent at its layer
 *   232   shut down for sending
 *   995   closed during the call
 *   1231  there is no route to the destination
 *   1232  Impostor is set and the TTL or HopLimit would become 0; or the host
 *         cannot be reached
 *   50    packets of this kind cannot be sent on this system
 *   8, 1450, 31
 */
WINDIVERTEXPORT BOOL WinDivertSend(HANDLE handle, const VOID *pPacket, UINT packetLen, UINT *pSendLen,
                                   const WINDIVERT_ADDRESS *pAddr);

/*
 * Sends up to WINDIVERT_BATCH_MAX packets (Manual 5.8), packed one behind the
 * other without gaps.  Stops at the first that is refused: TRUE if any went,
 * and *pSendLen then says how many bytes.
 *
 * flags         0.
 * pAddr         one address a packet.
 * addrLen       bytes of them, a multiple of sizeof(WINDIVERT_ADDRESS).
 * lpOverlapped  NULL; or the call answers FALSE with 997, and the OVERLAPPED
 *               says how it ended, as of WinDivertRecvEx, which it has on return:
 *               a Send does not wait for anything.  *pSendLen is not written.
 *
 * FALSE: as WinDivertSend, and
 *   87    flags is not 0; addrLen is 0, no multiple, or more than 255 addresses
 *   997   begun; what the packets are refused with is then the end of the operation
 *   6     hEvent is not NULL and no event
 */
WINDIVERTEXPORT BOOL WinDivertSendEx(HANDLE handle, const VOID *pPacket, UINT packetLen, UINT *pSendLen, UINT64 flags,
                                     const WINDIVERT_ADDRESS *pAddr, UINT addrLen, LPOVERLAPPED lpOverlapped);

/*
 * Ends one direction of a handle, or both (Manual 5.9), and wakes the calls
 * that block in it.  RECV: nothing more is taken out of the stack; what is
 * queued can still be received, then Recv fails with 232.  SEND: every Send
 * fails with 232.  Doing it again is no error.
 *
 * FALSE: 6 no open handle; 87 how is not one of the three; 995 closed during the call; 31.
 */
WINDIVERTEXPORT BOOL WinDivertShutdown(HANDLE handle, WINDIVERT_SHUTDOWN how);

/*
 * Closes a handle (Manual 5.10).  Packets queued and not yet received go on as
 * if they had not been taken; calls of other threads that are inside it fail
 * with 995, and Close waits for them to leave.  The HANDLE is invalid from then
 * on and is never given out again.
 *
 * FALSE: 6 no open handle (another thread has closed it, or is about to).
 */
WINDIVERTEXPORT BOOL WinDivertClose(HANDLE handle);

/*
 * Sets a limit of the handle's queue (Manual 5.11); see WINDIVERT_PARAM.  A
 * packet that would take the queue past its length or size is dropped; one
 * that is older than the time may be.
 *
 * FALSE: 6 no open handle; 87 unknown or read-only parameter, value outside
 * its WINDIVERT_PARAM_x_MIN.._MAX; 995 closed during the call; 8, 1450, 31.
 */
WINDIVERTEXPORT BOOL WinDivertSetParam(HANDLE handle, WINDIVERT_PARAM param, UINT64 value);

/*
 * Reads a parameter (Manual 5.12).
 *
 * FALSE: 6 no open handle; 87 unknown parameter, pValue is NULL; 995 closed
 * during the call.
 */
WINDIVERTEXPORT BOOL WinDivertGetParam(HANDLE handle, WINDIVERT_PARAM param, UINT64 *pValue);

/*
 * ---- Protocol headers (Manual 6.1 to 6.6) ------------------------------
 *
 * As they are in a packet: every 16- and 32-bit field is in network byte order.
 * A header in a packet need not be aligned.
 */

/*
 * IPv4 (RFC 791 3.1).
 *
 *   FragOff0 in memory order    byte 0: 0 DF MF offset 12..8    byte 1: offset 7..0
 */
typedef struct {
    UINT8 HdrLength : 4; /* in words of 4 bytes, with options */
    UINT8 Version : 4;   /* 4 */
    UINT8 TOS;
    UINT16 Length; /* bytes of the packet, header included */
    UINT16 Id;
    UINT16 FragOff0; /* flags and fragment offset: use the macros */
    UINT8 TTL;
    UINT8 Protocol;
    UINT16 Checksum;
    UINT32 SrcAddr;
    UINT32 DstAddr;
} WINDIVERT_IPHDR, *PWINDIVERT_IPHDR;

WINDIVERT_ASSERT_(sizeof(WINDIVERT_IPHDR) == 20 && offsetof(WINDIVERT_IPHDR, TOS) == 1);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_IPHDR, Length) == 2 && offsetof(WINDIVERT_IPHDR, Id) == 4);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_IPHDR, FragOff0) == 6 && offsetof(WINDIVERT_IPHDR, TTL) == 8);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_IPHDR, Protocol) == 9 && offsetof(WINDIVERT_IPHDR, Checksum) == 10);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_IPHDR, SrcAddr) == 12 && offsetof(WINDIVERT_IPHDR, DstAddr) == 16);

/* hdr: pointer to a WINDIVERT_IPHDR, evaluated more than once.  FRAGOFF is in network byte order, the others 0 or 1. */
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

/*
 * IPv6 (RFC 8200 3).
 *
 *   byte 0            byte 1             bytes 2, 3
 *   | Version class0 | class1 label0 | label1 |
 */
typedef struct {
    UINT8 TrafficClass0 : 4; /* high half: use the macros */
    UINT8 Version : 4;       /* 6 */
    UINT8 FlowLabel0 : 4;    /* bits 16 to 19: use the macros */
    UINT8 TrafficClass1 : 4; /* low half */
    UINT16 FlowLabel1;
    UINT16 Length; /* bytes behind this header */
    UINT8 NextHdr;
    UINT8 HopLimit;
    UINT32 SrcAddr[4];
    UINT32 DstAddr[4];
} WINDIVERT_IPV6HDR, *PWINDIVERT_IPV6HDR;

WINDIVERT_ASSERT_(sizeof(WINDIVERT_IPV6HDR) == 40 && offsetof(WINDIVERT_IPV6HDR, FlowLabel1) == 2);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_IPV6HDR, Length) == 4 && offsetof(WINDIVERT_IPV6HDR, NextHdr) == 6);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_IPV6HDR, HopLimit) == 7 && offsetof(WINDIVERT_IPV6HDR, SrcAddr) == 8);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_IPV6HDR, DstAddr) == 24);

/*
 * hdr: pointer to a WINDIVERT_IPV6HDR, evaluated more than once.  TRAFFICCLASS
 * is 0..255.  FLOWLABEL is FlowLabel0 << 16 | FlowLabel1 with FlowLabel1 as it
 * is stored: label 0x12345 is 0x14523 on a little-endian machine.
 */
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

/* ICMP (RFC 792): the first 8 bytes, which all messages have. */
typedef struct {
    UINT8 Type;
    UINT8 Code;
    UINT16 Checksum;
    UINT32 Body; /* depends on Type: echo has identifier and sequence number here */
} WINDIVERT_ICMPHDR, *PWINDIVERT_ICMPHDR;

/* ICMPv6 (RFC 4443 2.1): likewise. */
typedef struct {
    UINT8 Type;
    UINT8 Code;
    UINT16 Checksum; /* with a pseudo header, unlike ICMP */
    UINT32 Body;
} WINDIVERT_ICMPV6HDR, *PWINDIVERT_ICMPV6HDR;

/*
 * TCP (RFC 9293 3.1).
 *
 *   byte 12: HdrLength Reserved1        byte 13: Reserved2 Urg Ack Psh Rst Syn Fin
 */
typedef struct {
    UINT16 SrcPort;
    UINT16 DstPort;
    UINT32 SeqNum;
    UINT32 AckNum;
    UINT16 Reserved1 : 4;
    UINT16 HdrLength : 4; /* in words of 4 bytes, with options */
    UINT16 Fin : 1;
    UINT16 Syn : 1;
    UINT16 Rst : 1;
    UINT16 Psh : 1;
    UINT16 Ack : 1;
    UINT16 Urg : 1;
    UINT16 Reserved2 : 2; /* ECE, CWR */
    UINT16 Window;
    UINT16 Checksum;
    UINT16 UrgPtr;
} WINDIVERT_TCPHDR, *PWINDIVERT_TCPHDR;

/* UDP (RFC 768). */
typedef struct {
    UINT16 SrcPort;
    UINT16 DstPort;
    UINT16 Length;   /* bytes, header included */
    UINT16 Checksum; /* 0 over IPv4: none */
} WINDIVERT_UDPHDR, *PWINDIVERT_UDPHDR;

WINDIVERT_ASSERT_(sizeof(WINDIVERT_ICMPHDR) == 8 && offsetof(WINDIVERT_ICMPHDR, Code) == 1);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_ICMPHDR, Checksum) == 2 && offsetof(WINDIVERT_ICMPHDR, Body) == 4);
WINDIVERT_ASSERT_(sizeof(WINDIVERT_ICMPV6HDR) == 8 && offsetof(WINDIVERT_ICMPV6HDR, Code) == 1);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_ICMPV6HDR, Checksum) == 2 && offsetof(WINDIVERT_ICMPV6HDR, Body) == 4);
WINDIVERT_ASSERT_(sizeof(WINDIVERT_TCPHDR) == 20 && offsetof(WINDIVERT_TCPHDR, DstPort) == 2);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_TCPHDR, SeqNum) == 4 && offsetof(WINDIVERT_TCPHDR, AckNum) == 8);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_TCPHDR, Window) == 14 && offsetof(WINDIVERT_TCPHDR, Checksum) == 16);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_TCPHDR, UrgPtr) == 18);
WINDIVERT_ASSERT_(sizeof(WINDIVERT_UDPHDR) == 8 && offsetof(WINDIVERT_UDPHDR, DstPort) == 2);
WINDIVERT_ASSERT_(offsetof(WINDIVERT_UDPHDR, Length) == 4 && offsetof(WINDIVERT_UDPHDR, Checksum) == 6);

/*
 * ---- Helpers (Manual 6.7 to 6.19) ----------------------------------------
 *
 * They need no handle, no privilege and no network, do not block, and read no
 * byte outside the buffers they are given, whatever these contain.
 */

/* Of WinDivertHelperCalcChecksums: what is to be left as it is. */
#define WINDIVERT_HELPER_NO_IP_CHECKSUM 1
#define WINDIVERT_HELPER_NO_ICMP_CHECKSUM 2
#define WINDIVERT_HELPER_NO_ICMPV6_CHECKSUM 4
#define WINDIVERT_HELPER_NO_TCP_CHECKSUM 8
#define WINDIVERT_HELPER_NO_UDP_CHECKSUM 16

/* A default argument, where the language has them. */
#ifdef __cplusplus
#define WINDIVERT_DEFAULT(v) = v
#else
#define WINDIVERT_DEFAULT(v)
#endif

/*
 * 64 bits made from the packet's IP and transport headers, not the payload, and
 * the seed (Manual 6.8).  Not cryptographic.  The same value in every process,
 * release and system.  0, with last error 87, for what WinDivertHelperParsePacket
 * refuses.
 */
WINDIVERTEXPORT UINT64 WinDivertHelperHashPacket(const VOID *pPacket, UINT packetLen,
                                                 UINT64 seed WINDIVERT_DEFAULT(0));

/*
 * Finds the headers and the payload of the packet that pPacket begins with
 * (Manual 6.7).  Checks lengths only, no contents.
 *
 * Any output may be NULL.  Those of headers point into pPacket, or are NULL
 * where the packet has no such header; a fragment that is not the first has no
 * transport header.
 *
 * pProtocol          of the transport, behind the extension headers of IPv6;
 *                    where their walk ended, the number of the header there.
 * ppData, pDataLen   what follows the last header found; NULL and 0: nothing.
 * ppNext, pNextLen   what follows the packet in the buffer: the next packet of a
 *                    batch; NULL and 0: nothing.  Where both are NULL the whole
 *                    buffer is one packet, whatever length its header says.
 *
 * FALSE: 87 pPacket is NULL; fewer than 20 bytes (IPv6: 40); the version is
 * neither 4 nor 6; an IPv4 header shorter than 20 bytes, or longer than the
 * packet or the buffer.  A packet cut off by the end of the buffer is parsed as
 * far as it goes.
 */
WINDIVERTEXPORT BOOL WinDivertHelperParsePacket(const VOID *pPacket, UINT packetLen, PWINDIVERT_IPHDR *ppIpHdr,
                                                PWINDIVERT_IPV6HDR *ppIpv6Hdr, UINT8 *pProtocol,
                                                PWINDIVERT_ICMPHDR *ppIcmpHdr, PWINDIVERT_ICMPV6HDR *ppIcmpv6Hdr,
                                                PWINDIVERT_TCPHDR *ppTcpHdr, PWINDIVERT_UDPHDR *ppUdpHdr,
                                                PVOID *ppData, UINT *pDataLen, PVOID *ppNext, UINT *pNextLen);

/*
 * "192.0.2.1" to 0xC0000201, host byte order (Manual 6.9).  Four decimal parts
 * of one to three digits, 0 to 255; leading zeros are allowed and not octal.
 *
 * FALSE: 87 a pointer is NULL, or the text is no such address.
 */
WINDIVERTEXPORT BOOL WinDivertHelperParseIPv4Address(const char *addrStr, UINT32 *pAddr);

/*
 * The text of an IPv6 address (RFC 4291 2.2, without a scope) to four words in
 * host byte order, word 0 the least significant (Manual 6.10).  Also takes an
 * IPv4 address: its number and three zeros, not the mapped form.
 *
 * pAddr: room for 4 words.
 *
 * FALSE: 87 a pointer is NULL, or the text is no address.
 */
WINDIVERTEXPORT BOOL WinDivertHelperParseIPv6Address(const char *addrStr, UINT32 *pAddr);

/*
 * An IPv4 address in host byte order to text with its NUL, at most 16 bytes
 * (Manual 6.11).
 *
 * FALSE: 87 buffer is NULL; 122 it has too few bytes.
 */
WINDIVERTEXPORT BOOL WinDivertHelperFormatIPv4Address(UINT32 addr, char *buffer, UINT bufLen);

/*
 * Four words in host byte order, word 0 the least significant, to text with its
 * NUL, at most 40 bytes (Manual 6.12).  Lower case, no leading zeros; the
 * leftmost of the longest runs of zero groups, be it one group, becomes "::".
 *
 * FALSE: 87 a pointer is NULL; 122 buffer has too few bytes.
 */
WINDIVERTEXPORT BOOL WinDivertHelperFormatIPv6Address(const UINT32 *pAddr, char *buffer, UINT bufLen);

/*
 * Computes the checksums of a packet and stores them in it (Manual 6.13; RFC
 * 1071, RFC 8200 8.1): those of the IPv4 header and of ICMP, ICMPv6, TCP or UDP,
 * as far as the packet has them and flags does not exclude them.
 *
 * pAddr   IPChecksum, TCPChecksum, UDPChecksum become 1 for what was stored and
 *         stay as they are otherwise; may be NULL.
 * flags   WINDIVERT_HELPER_NO_x_CHECKSUM.
 *
 * FALSE: 87 WinDivertHelperParsePacket refuses the packet, nothing is changed;
 * or it is truncated or the first of several fragments and its transport
 * checksum was asked for: only the IPv4 header's is stored then.
 */
WINDIVERTEXPORT BOOL WinDivertHelperCalcChecksums(VOID *pPacket, UINT packetLen, WINDIVERT_ADDRESS *pAddr,
                                                  UINT64 flags);

/*
 * Takes one off the packet's TTL or HopLimit (Manual 6.14).  The IPv4 checksum
 * is adjusted (RFC 1624), not computed: right stays right, wrong stays wrong.
 *
 * FALSE, the packet unchanged: 87 WinDivertHelperParsePacket refuses it, or the
 * result would be 0.
 */
WINDIVERTEXPORT BOOL WinDivertHelperDecrementTTL(VOID *pPacket, UINT packetLen);

/*
 * Checks a filter and makes the object of it (Manual 6.15), which every
 * parameter `filter` takes as well and which needs no parsing.
 *
 * object     out: the object, a printable text with its NUL; NULL: not wanted.
 * objLen     bytes there.
 * errorStr   out, on success too: what is wrong, static text; may be NULL.
 * errorPos   out, on success too: the byte of the filter where it is wrong, its
 *            length where it ends too early, 0 on success; may be NULL.
 *
 * FALSE: 87 filter is NULL, layer is none, or the filter is wrong; 122 object
 * is too short; 8.
 */
WINDIVERTEXPORT BOOL WinDivertHelperCompileFilter(const char *filter, WINDIVERT_LAYER layer, char *object,
                                                  UINT objLen, const char **errorStr, UINT *errorPos);

/*
 * Whether a packet or event matches a filter or object (Manual 6.16).
 *
 * pPacket   packetLen bytes.  FLOW, SOCKET, REFLECT: not read, may be NULL.
 * pAddr     says the layer; what Recv gave with the packet.
 *
 * FALSE with GetLastError() 0: it does not match; a packet that
 * WinDivertHelperParsePacket refuses matches nothing.  FALSE otherwise: 87
 * filter or pAddr, or pPacket at a packet layer, is NULL; pAddr->Layer is none;
 * the filter is wrong; 8.
 */
WINDIVERTEXPORT BOOL WinDivertHelperEvalFilter(const char *filter, const VOID *pPacket, UINT packetLen,
                                               const WINDIVERT_ADDRESS *pAddr);

/*
 * The normal form of a filter or object, as text with its NUL (Manual 6.17).
 * It is a filter for the same layer that matches the same, and its own normal
 * form.
 *
 * FALSE: 87 filter or buffer is NULL, layer is none, the filter is wrong; 122
 * buffer is too short; 8.
 */
WINDIVERTEXPORT BOOL WinDivertHelperFormatFilter(const char *filter, WINDIVERT_LAYER layer, char *buffer,
                                                 UINT bufLen);

/*
 * Network to host byte order and back, 16, 32 and 64 bits (Manual 6.18, 6.19).
 * They cannot fail.
 */
WINDIVERTEXPORT UINT16 WinDivertHelperNtohs(UINT16 x);
WINDIVERTEXPORT UINT16 WinDivertHelperHtons(UINT16 x);
WINDIVERTEXPORT UINT32 WinDivertHelperNtohl(UINT32 x);
WINDIVERTEXPORT UINT32 WinDivertHelperHtonl(UINT32 x);
WINDIVERTEXPORT UINT64 WinDivertHelperNtohll(UINT64 x);
WINDIVERTEXPORT UINT64 WinDivertHelperHtonll(UINT64 x);

/*
 * The same for an IPv6 address of 4 words (Manual 6.18, 6.19): as in a header,
 * and as WinDivertHelperFormatIPv6Address takes it, word 0 the least
 * significant.  inAddr and outAddr may be the same.  Where one is NULL nothing
 * is done, and the last error is 87.
 */
WINDIVERTEXPORT void WinDivertHelperNtohIPv6Address(const UINT *inAddr, UINT *outAddr);
WINDIVERTEXPORT void WinDivertHelperHtonIPv6Address(const UINT *inAddr, UINT *outAddr);

/* Older spellings of the two. */
WINDIVERTEXPORT void WinDivertHelperNtohIpv6Address(const UINT *inAddr, UINT *outAddr);
WINDIVERTEXPORT void WinDivertHelperHtonIpv6Address(const UINT *inAddr, UINT *outAddr);

#ifdef __cplusplus
}
#endif

#endif /* WINDIVERT_H */
