/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * windivert_ext.h: what OpenDivert offers beyond WinDivert 2.2.  Every name
 * begins with WinDivertExt or WINDIVERT_EXT_; nothing here changes what the
 * calls of windivert.h mean to a program that does not use it.
 */
#ifndef WINDIVERT_EXT_H
#define WINDIVERT_EXT_H

#include "windivert.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The text of the last error of the calling thread, for people: what failed
 * and why, one line, no newline at its end.  Empty before the first failure.
 * Never NULL.  Valid until the next OpenDivert call of the same thread that
 * fails.  A successful call leaves it as it is, as GetLastError() does.  It
 * goes with the code of that error: empty while SetLastError() has put another
 * code in its place.
 *
 * One success has a text, with the code 0: WinDivertOpen where the kernel's
 * verifier refused the filter's program.  The handle works, the filter is
 * evaluated exactly in the library (Unmatched of WINDIVERT_EXT_STATS counts what
 * that passes on), and the text is the end of the verifier's log.
 */
WINDIVERTEXPORT const char *WinDivertExtGetLastErrorText(void);

/*
 * What to do about the last error of the calling thread ("run as root or with
 * CAP_NET_ADMIN ..."); empty where there is nothing to advise.  Lifetime as
 * WinDivertExtGetLastErrorText.
 */
WINDIVERTEXPORT const char *WinDivertExtGetLastErrorRemedy(void);

/*
 * WinDivertRecvEx that waits for at most timeoutMs: 0 does not block,
 * WINDIVERT_EXT_INFINITE has no end.  (258 is what a wait for an event answers on
 * Windows; 232 would end the loop of a program that knows shutdown by it.)
 *
 * FALSE: as WinDivertRecvEx, and
 *   258   WAIT_TIMEOUT: nothing came in time
 */
#define WINDIVERT_EXT_INFINITE 0xFFFFFFFFu
WINDIVERTEXPORT BOOL WinDivertExtRecv(HANDLE handle, VOID *pPacket, UINT packetLen, UINT *pRecvLen,
                                      WINDIVERT_ADDRESS *pAddr, UINT *pAddrLen, UINT32 timeoutMs);

/*
 * A descriptor for poll(), select() and epoll: readable (POLLIN, level-triggered)
 * while a receive would not block, that is packets are there or shutdown or close
 * has been called.  The same with each call; it costs nothing before the first.
 * Do not read it, and do not close it: it is the handle's, and gone with it; take
 * it out of your set before WinDivertClose.
 *
 * It may be readable once too often: for a packet that then is too old, or that
 * the library, deciding exactly, does not match.  So receive with a timeoutMs of 0
 * and take 258 for "not yet".  In a program with several readers of a handle each
 * is woken.
 *
 * -1: 6 no open handle; 87 the handle is SEND_ONLY or DROP; 8, 1450, 31.
 */
WINDIVERTEXPORT int WinDivertExtGetFd(HANDLE handle);

/* Parameters of a handle beyond WINDIVERT_PARAM; set and read by the two calls below. */
typedef enum {
    /*
     * How long a received packet may stay with the program before it is
     * dropped and counted as not returned, milliseconds, 1..QUEUE_TIME,
     * default 100.  A Send that comes later injects a new packet.
     */
    WINDIVERT_EXT_PARAM_HOLD_TIME = 0,
    /*
     * Of a handle that diverts: 0 (the default): bulk transfer comes in the
     * aggregates in which the kernel handles it (GSO, GRO), up to 65,535 bytes;
     * 1: in packets as they are on the wire, each of which is filtered by
     * itself.  From the packets on that arrive after the call; what is queued comes as
     * it is.  Costs most of the throughput of bulk TCP.  Other handles: 50.
     */
    WINDIVERT_EXT_PARAM_SEGMENTS = 1,
    /*
     * Of a handle that diverts: what becomes of packets that its queue cannot
     * keep (QUEUE_LENGTH, QUEUE_SIZE, QUEUE_TIME, the kernel's buffer).  0 (the
     * default): they are dropped, and counted as dropped; 1: they go on as if
     * the handle were not there, and are counted in PassedOpen.  Other handles: 50.
     */
    WINDIVERT_EXT_PARAM_FAIL_OPEN = 2,
    /*
     * Of each flow (WinDivertExtSkipFlow says what that is) only so many
     * matching packets are diverted, sniffed or dropped, those of both directions
     * together, from the call on; 0 (the default): any number.  Counted in the kernel,
     * which decides; 50 where it cannot decide the filter exactly.  An aggregate
     * (SEGMENTS) counts as one packet.  Fragments belong to no flow: they
     * are not counted and always match.  Another number later takes the counts as they are.
     */
    WINDIVERT_EXT_PARAM_FLOW_PACKETS = 4,
} WINDIVERT_EXT_PARAM;
#define WINDIVERT_EXT_PARAM_HOLD_TIME_DEFAULT 100
#define WINDIVERT_EXT_PARAM_HOLD_TIME_MIN 1
#define WINDIVERT_EXT_PARAM_SEGMENTS_DEFAULT 0
#define WINDIVERT_EXT_PARAM_FAIL_OPEN_DEFAULT 0
#define WINDIVERT_EXT_PARAM_FLOW_PACKETS_DEFAULT 0
#define WINDIVERT_EXT_PARAM_FLOW_PACKETS_MAX 1000000

/*
 * Sets a parameter of a handle; does not block.
 *
 * FALSE: 6 no open handle; 87 unknown parameter, value out of its range; 50 not
 * for such a handle; 995 closed during the call; 8, 1450, 31.
 */
WINDIVERTEXPORT BOOL WinDivertExtSetParam(HANDLE handle, WINDIVERT_EXT_PARAM param, UINT64 value);

/*
 * Reads a parameter of a handle; does not block.
 *
 * FALSE: 6 no open handle; 87 unknown parameter, pValue is NULL; 995 closed
 * during the call.
 */
WINDIVERTEXPORT BOOL WinDivertExtGetParam(HANDLE handle, WINDIVERT_EXT_PARAM param, UINT64 *pValue);

/*
 * Gives an open handle another filter, at one moment: every packet is decided
 * by exactly the old or the new one, what comes after the call by the new one,
 * and what was queued before stays queued.  What comes during the call may be
 * decided by either.  Fragments are decided one by one: of a packet whose fragments
 * came before and after, some by each.  Layer, priority, flags and parameters
 * stay.  Blocks for a moment where one of the two filters is evaluated in the
 * library, until the kernel has done with the old one (some milliseconds).
 *
 * TRUE with a text, code 0: as WinDivertOpen.  FALSE, and then the old filter is
 * in force as before: 6 no open handle; 87 filter is NULL, or bad (the text says
 * where); 50 the handle only sends; 232 shut down for receiving; 995 closed
 * during the call; 8, 1450, 31.
 */
WINDIVERTEXPORT BOOL WinDivertExtSetFilter(HANDLE handle, const char *filter);

/* So many flows a handle remembers at most: of WinDivertExtSkipFlow and WINDIVERT_EXT_PARAM_FLOW_PACKETS together. */
#define WINDIVERT_EXT_FLOWS_MAX 65536

/*
 * The rest of a packet's flow is not for this handle: from now on packets of the
 * flow do not match, decided in the kernel, at the cost of a packet that does not
 * match.  What is queued already still comes; a packet that the program holds is
 * its own as before.  Does not block.
 *
 * A flow is what has the same IP version, protocol and pair of addresses, and
 * with TCP and UDP the same pair of ports, in both directions.  So a later
 * connection between the same ports is of the same flow, and all ICMP between
 * two machines is one.  Fragments belong to no flow, and always match.
 *
 * Skipped flows stay skipped across WinDivertExtSetFilter, until the handle is
 * closed.  It remembers WINDIVERT_EXT_FLOWS_MAX flows (about 8 MB of the kernel, from
 * the first call on); for more the kernel forgets those first that had no packets
 * for the longest time, and what comes of these matches again.  SkippedPackets and
 * SkippedFlows of the statistics count.
 *
 * packet: any packet of the flow, as Recv gives it; packetLen: its bytes.
 *
 * FALSE: 6 no open handle; 87 packet is NULL, no IP packet, or a fragment; 50 the handle only sends; 232
 * shut down for receiving; 995 closed during the call; 8, 1450, 31.
 */
WINDIVERTEXPORT BOOL WinDivertExtSkipFlow(HANDLE handle, const VOID *pPacket, UINT packetLen);

/*
 * What became of the packets of one handle since it was opened; all figures
 * are packets.  Every packet that the filter matched is in exactly one place:
 *
 *     Matched   = Delivered + DropLength + DropSize + DropTime + DropBuffer + PassedOpen + Queued
 *     Delivered = Returned + NotReturned + Held           (a handle that diverts)
 *     Matched   = DropFilter                              (a handle with WINDIVERT_FLAG_DROP)
 *
 * Matched is counted in the kernel, by the filter's program, and what the kernel
 * drops by the kernel's queue; the rest by the library.  So a packet that got lost
 * in a way nobody knows of would stay in Queued for ever.  While packets come in
 * those that are just on their way into the queue are in Queued, too (fail-open:
 * in PassedOpen, for a moment).
 *
 * With WINDIVERT_EXT_PARAM_SEGMENTS Matched, too, counts segments.  An aggregate of more
 * than 65,535 bytes that is dropped or sniffed counts once.
 */
typedef struct {
    UINT64 Size;           /* in: sizeof(WINDIVERT_EXT_STATS); out: bytes filled in */
    UINT64 Delivered;      /* given to the program by Recv */
    UINT64 Returned;       /* given back by Send, as they were or changed */
    UINT64 NotReturned;    /* dropped because the program did not send them back in time */
    UINT64 Held;           /* with the program now */
    UINT64 Injected;       /* sent as new packets */
    UINT64 Unmatched;      /* reached the library, did not match the exact filter, passed on untouched */
    UINT64 DropLength;     /* dropped: QUEUE_LENGTH reached */
    UINT64 DropTime;       /* dropped: older than QUEUE_TIME */
    UINT64 DropBuffer;     /* dropped: the kernel's queue or buffer, or the ring of a sniffing handle, was full */
    UINT64 DropFlushed;    /* of Returned: dropped by the kernel's flush of all queues, and not recoverable */
    UINT64 Recovered;      /* of Returned: flushed by the kernel, injected again from the library's copy */
    UINT64 DropFilter;     /* dropped by a handle opened with WINDIVERT_FLAG_DROP */
    UINT64 Matched;        /* of the filter, in the kernel and where need be in the library */
    UINT64 DropSize;       /* dropped: QUEUE_SIZE reached */
    UINT64 PassedOpen;     /* went on undiverted, as the queue was full (WINDIVERT_EXT_PARAM_FAIL_OPEN) */
    UINT64 Queued;         /* not yet received */
    UINT64 SkippedPackets; /* would have matched, but for their flow (WinDivertExtSkipFlow, FLOW_PACKETS) */
    UINT64 SkippedFlows;   /* flows that the handle has had to remember for that; above WINDIVERT_EXT_FLOWS_MAX some
                              may be forgotten */
} WINDIVERT_EXT_STATS, *PWINDIVERT_EXT_STATS;

WINDIVERT_ASSERT_(offsetof(WINDIVERT_EXT_STATS, Size) == 0 && offsetof(WINDIVERT_EXT_STATS, SkippedFlows) == 144);

/*
 * Reads them, all at one moment; does not block.  pStats->Size says which edition of the structure
 * the caller was compiled with: no byte beyond it is written.
 *
 * FALSE: 6 no open handle; 87 pStats is NULL, or its Size is not set.
 */
WINDIVERTEXPORT BOOL WinDivertExtGetStats(HANDLE handle, WINDIVERT_EXT_STATS *pStats);

/* Options of WinDivertExtExplainFilter. */
#define WINDIVERT_EXT_EXPLAIN_PROGRAMS 0x1 /* with the instructions of the programs */

/*
 * Writes into buffer, as text for people, what a handle opened with the first
 * four arguments would put into the kernel of this machine: for each hook the
 * chain and its rules or the links, the compares in front, and the programs
 * (their number of instructions; with WINDIVERT_EXT_EXPLAIN_PROGRAMS these too).  The
 * wording may change from version to version.  Opens nothing and needs no
 * rights; does not block.
 *
 * bufLen: bytes of buffer.  *pNeeded (may be NULL): the bytes needed, with the
 * NUL at the end, also where they did not fit.
 *
 * FALSE: 87 as WinDivertOpen, unknown options, no buffer; 122 the buffer is too
 * small, nothing is written; 50 the layer has no programs; 8.
 */
WINDIVERTEXPORT BOOL WinDivertExtExplainFilter(const char *filter, WINDIVERT_LAYER layer, INT16 priority,
                                               UINT64 flags, UINT64 options, char *buffer, UINT bufLen,
                                               UINT *pNeeded);

#ifdef __cplusplus
}
#endif

#endif /* WINDIVERT_EXT_H */
