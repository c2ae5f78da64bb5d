/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * windows.h: for a program written for WinDivert that is built on Linux, the
 * part of Win32 that overlapped operation needs: events, waits, OVERLAPPED.
 * The functions are in libwindivert; the basic types in windivert.h.
 *
 * An event is a HANDLE of its own kind, valid in this process until CloseHandle;
 * in a child after fork() it is invalid.  At most 4,095 at a time, a descriptor
 * each.  Functions may be called by any thread; closing an event that another
 * thread waits for leaves that wait undefined, as on Windows.
 */
#ifndef WD_COMPAT_WINDOWS_H
#define WD_COMPAT_WINDOWS_H

#include "windivert.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef uintptr_t ULONG_PTR;
typedef DWORD *LPDWORD;
typedef void *LPVOID;
typedef const char *LPCSTR;

/*
 * One operation.  The caller sets hEvent (an event, or NULL) and keeps the
 * structure, and the buffers of the call, until the operation has ended.
 */
struct _OVERLAPPED {
    ULONG_PTR Internal;     /* STATUS_PENDING, then how it ended */
    ULONG_PTR InternalHigh; /* bytes */
    union {
        struct {
            DWORD Offset, OffsetHigh; /* not read */
        };
        PVOID Pointer;
    };
    HANDLE hEvent;
};
WINDIVERT_ASSERT_(sizeof(void *) != 8 || sizeof(OVERLAPPED) == 32);

#define STATUS_PENDING ((DWORD)0x103)
#define HasOverlappedIoCompleted(overlapped)                                                                         \
    (__atomic_load_n(&(overlapped)->Internal, __ATOMIC_ACQUIRE) != (ULONG_PTR)STATUS_PENDING)

#define INFINITE 0xFFFFFFFFu
#define MAXIMUM_WAIT_OBJECTS 64
#define WAIT_OBJECT_0 0
#define WAIT_FAILED 0xFFFFFFFFu

/*
 * An event; manualReset: it stays set until ResetEvent, else until one wait has
 * taken it.  attributes and name are NULL.
 *
 * NULL: 50 a name was given; 1450 no descriptor, or too many events.
 */
WINDIVERTEXPORT HANDLE CreateEventA(LPVOID attributes, BOOL manualReset, BOOL initialState, LPCSTR name);
#define CreateEvent CreateEventA

/* FALSE: 6 no event. */
WINDIVERTEXPORT BOOL SetEvent(HANDLE event);
WINDIVERTEXPORT BOOL ResetEvent(HANDLE event);

/* Closes an event; of a handle of WinDivertOpen it is WinDivertClose.  FALSE: 6. */
WINDIVERTEXPORT BOOL CloseHandle(HANDLE object);

/*
 * Waits until an event is set; until one, or all at once, of up to
 * MAXIMUM_WAIT_OBJECTS are.  Milliseconds: 0 does not wait, INFINITE has no end.
 *
 * WAIT_OBJECT_0 + the index of the first that is set (all: WAIT_OBJECT_0);
 * WAIT_TIMEOUT; WAIT_FAILED: 6 not an event; 87 no or too many of them, or with
 * all one twice.
 */
WINDIVERTEXPORT DWORD WaitForSingleObject(HANDLE event, DWORD milliseconds);
WINDIVERTEXPORT DWORD WaitForMultipleObjects(DWORD count, const HANDLE *events, BOOL all, DWORD milliseconds);

/*
 * How an operation ended, begun on handle by WinDivertRecvEx or WinDivertSendEx;
 * wait: blocks until it has.  *bytes: those received or sent, also where a
 * packet was cut (122).
 *
 * FALSE: what the call without OVERLAPPED fails with; and 996 it has not ended
 * (wait is FALSE); 995 cancelled or closed; 87 an argument is NULL; 6 it has
 * not ended, and the handle is not open.
 */
WINDIVERTEXPORT BOOL GetOverlappedResult(HANDLE handle, LPOVERLAPPED overlapped, LPDWORD bytes, BOOL wait);

/*
 * Ends one receive of the handle (NULL: all) that has not ended, with 995, before it returns.  No packet is lost.
 *
 * FALSE: 6 no open handle; 1168 there is none.
 */
WINDIVERTEXPORT BOOL CancelIoEx(HANDLE handle, LPOVERLAPPED overlapped);

#ifdef __cplusplus
}
#endif

#endif /* WD_COMPAT_WINDOWS_H */
