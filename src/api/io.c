/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WinDivertRecv, WinDivertRecvEx, WinDivertSend, WinDivertSendEx; waiting otherwise than in them. */
#include <errno.h>
#include <stddef.h>

#include "error.h"
#include "event.h"
#include "handle.h"
#include "pending.h"

#define ADDRESS_SIZE ((UINT)sizeof(WINDIVERT_ADDRESS))

static BOOL
check_addr_len(UINT bytes)
{
    if (bytes == 0 || bytes % ADDRESS_SIZE)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL,
                           "the length of the addresses is %u, not a multiple of %u above 0", bytes, ADDRESS_SIZE);
    if (bytes / ADDRESS_SIZE > WINDIVERT_BATCH_MAX)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "%u packets at once, but the limit is %u",
                           bytes / ADDRESS_SIZE, WINDIVERT_BATCH_MAX);
    return TRUE;
}

static BOOL
check_flags(UINT64 flags)
{
    return flags ? wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "flags is 0x%llx, not 0", (unsigned long long)flags)
                 : TRUE;
}

/* ---- receive ----------------------------------------------------------- */

static BOOL
check_receives(const struct wd_use *use)
{
    if (use->flags & WINDIVERT_FLAG_SEND_ONLY)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "the handle was opened with WINDIVERT_FLAG_SEND_ONLY");
    if (use->flags & WINDIVERT_FLAG_DROP)
        return wd_api_fail(ERROR_INVALID_PARAMETER, "to see what is dropped, divert it and do not send it back",
                           "the handle was opened with WINDIVERT_FLAG_DROP");
    return TRUE;
}

/* A truncated packet is a failure that delivers: what there is of it goes out like a success. */
static BOOL
run_recv(const struct wd_use *use, struct wd_recv *io, UINT *pRecvLen, UINT *pAddrLen)
{
    struct wd_pending *pending = wd_handle_pending(use);
    struct wd_error err;
    int ret;

    err.text[0] = err.remedy[0] = '\0';
    ret = pending ? wd_pending_recv(pending, io, &err) : wd_engine_recv(use->engine, io, &err);
    if (ret && ret != -EMSGSIZE)
        return wd_api_fail_errno(ret, &err);
    if (pRecvLen)
        *pRecvLen = io->ret_len;
    if (pAddrLen)
        *pAddrLen = io->ret_count * ADDRESS_SIZE;
    return ret ? wd_api_fail_errno(ret, &err) : TRUE;
}

static BOOL
begin_recv(const struct wd_use *use, const struct wd_recv *io, UINT *pAddrLen, LPOVERLAPPED overlapped)
{
    struct wd_pending *pending = wd_handle_make_pending(use);

    if (!pending || !wd_pending_add(pending, io, pAddrLen, overlapped))
        return FALSE;
    return wd_api_fail(ERROR_IO_PENDING, NULL, "the receive has begun");
}

static BOOL
receive(HANDLE handle, struct wd_recv *io, UINT *pRecvLen, UINT64 flags, UINT *pAddrLen, LPOVERLAPPED overlapped)
{
    UINT addr_bytes = pAddrLen ? *pAddrLen : ADDRESS_SIZE;
    struct wd_use use;
    BOOL ok;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    io->addr_count = addr_bytes / ADDRESS_SIZE;
    if (!io->buf)
        io->buf_len = 0;
    ok = check_receives(&use) && check_addr_len(addr_bytes) && check_flags(flags);
    if (ok)
        ok = overlapped ? begin_recv(&use, io, pAddrLen, overlapped) : run_recv(&use, io, pRecvLen, pAddrLen);
    wd_handle_leave(&use);
    return ok;
}

BOOL
WinDivertRecvEx(HANDLE handle, VOID *pPacket, UINT packetLen, UINT *pRecvLen, UINT64 flags, WINDIVERT_ADDRESS *pAddr,
                UINT *pAddrLen, LPOVERLAPPED lpOverlapped)
{
    struct wd_recv io = {.buf = pPacket, .buf_len = packetLen, .addr = pAddr};

    return receive(handle, &io, pRecvLen, flags, pAddrLen, lpOverlapped);
}

BOOL
WinDivertRecv(HANDLE handle, VOID *pPacket, UINT packetLen, UINT *pRecvLen, WINDIVERT_ADDRESS *pAddr)
{
    return WinDivertRecvEx(handle, pPacket, packetLen, pRecvLen, 0, pAddr, NULL, NULL);
}

BOOL
WinDivertExtRecv(HANDLE handle, VOID *pPacket, UINT packetLen, UINT *pRecvLen, WINDIVERT_ADDRESS *pAddr,
                 UINT *pAddrLen, UINT32 timeoutMs)
{
    struct wd_recv io = {
        .buf = pPacket, .buf_len = packetLen, .addr = pAddr, .deadline = wd_event_deadline(timeoutMs)};

    return receive(handle, &io, pRecvLen, 0, pAddrLen, NULL);
}

/* Not into a fork: the first call makes descriptors. */
static int
get_fd(struct wd_handle *engine)
{
    struct wd_error err = {.text = "", .remedy = ""};
    int fd = -1, error;

    wd_handle_hold_fork();
    error = wd_engine_get_fd(engine, &fd, &err);
    wd_handle_release_fork();
    if (error)
        wd_api_fail_errno(error, &err);
    return error ? -1 : fd;
}

int
WinDivertExtGetFd(HANDLE handle)
{
    struct wd_use use;
    int fd;

    if (!wd_handle_enter(handle, &use))
        return -1;
    fd = check_receives(&use) ? get_fd(use.engine) : -1;
    wd_handle_leave(&use);
    return fd;
}

BOOL
CancelIoEx(HANDLE handle, LPOVERLAPPED overlapped)
{
    struct wd_pending *pending;
    struct wd_use use;
    BOOL ok;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    pending = wd_handle_pending(&use);
    ok = pending && wd_pending_cancel(pending, overlapped);
    wd_handle_leave(&use);
    return ok ? TRUE : wd_api_fail(ERROR_NOT_FOUND, NULL, "no such operation is under way");
}

/* ---- send -------------------------------------------------------------- */

/* What the packets themselves say is for the engine to judge, which splits them. */
static BOOL
check_packets(const struct wd_send *io)
{
    if (!io->buf || !io->addr)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "%s is NULL", io->buf ? "pAddr" : "pPacket");
    if (io->buf_len == 0)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "packetLen is 0");
    if (io->buf_len > io->addr_count * (uint32_t)WINDIVERT_MTU_MAX)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "%u bytes are more than %u packet%s can have", io->buf_len,
                           io->addr_count, io->addr_count == 1 ? "" : "s");
    return TRUE;
}

static BOOL
check_send(const struct wd_use *use, const struct wd_send *io, UINT addr_bytes, UINT64 flags)
{
    if (use->layer > WINDIVERT_LAYER_NETWORK_FORWARD)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "nothing can be sent on this layer");
    if (use->flags & WINDIVERT_FLAG_RECV_ONLY)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "the handle was opened with WINDIVERT_FLAG_RECV_ONLY");
    return check_addr_len(addr_bytes) && check_packets(io) && check_flags(flags);
}

static BOOL
run_send(struct wd_handle *engine, struct wd_send *io, UINT *pSendLen)
{
    struct wd_error err;
    int ret;

    err.text[0] = err.remedy[0] = '\0';
    ret = wd_engine_send(engine, io, &err);
    if (ret)
        return wd_api_fail_errno(ret, &err);
    if (pSendLen)
        *pSendLen = io->ret_len;
    return TRUE;
}

/* Nothing waits for anything: it has ended when the call returns. */
static BOOL
run_overlapped_send(struct wd_handle *engine, struct wd_send *io, LPOVERLAPPED overlapped)
{
    int error;

    if (!wd_overlapped_begin(overlapped))
        return FALSE;
    error = wd_engine_send(engine, io, NULL);
    wd_overlapped_end(overlapped, error ? wd_api_code(error) : NO_ERROR, error ? 0 : io->ret_len);
    return wd_api_fail(ERROR_IO_PENDING, NULL, "the send has begun");
}

static BOOL
send_packets(HANDLE handle, struct wd_send *io, UINT *pSendLen, UINT64 flags, UINT addr_bytes,
             LPOVERLAPPED overlapped)
{
    struct wd_use use;
    BOOL ok;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    io->addr_count = addr_bytes / ADDRESS_SIZE;
    ok = check_send(&use, io, addr_bytes, flags);
    if (ok)
        ok = overlapped ? run_overlapped_send(use.engine, io, overlapped) : run_send(use.engine, io, pSendLen);
    wd_handle_leave(&use);
    return ok;
}

BOOL
WinDivertSendEx(HANDLE handle, const VOID *pPacket, UINT packetLen, UINT *pSendLen, UINT64 flags,
                const WINDIVERT_ADDRESS *pAddr, UINT addrLen, LPOVERLAPPED lpOverlapped)
{
    struct wd_send io = {.buf = pPacket, .buf_len = packetLen, .addr = pAddr};

    return send_packets(handle, &io, pSendLen, flags, addrLen, lpOverlapped);
}

BOOL
WinDivertSend(HANDLE handle, const VOID *pPacket, UINT packetLen, UINT *pSendLen, const WINDIVERT_ADDRESS *pAddr)
{
    struct wd_send io = {.buf = pPacket, .buf_len = packetLen, .addr = pAddr};

    return send_packets(handle, &io, pSendLen, 0, ADDRESS_SIZE, NULL);
}
