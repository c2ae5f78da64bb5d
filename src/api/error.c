/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "windivert_ext.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/*
 * text belongs to the failure that set text_code.  Where the program has put
 * another code in its place since (SetLastError), the text is no longer true
 * of it and reads as empty.
 */
static _Thread_local struct {
    DWORD code;
    DWORD text_code;
    struct wd_error error;
} last;

struct row {
    int error;
    DWORD code;
    const char *text;
    const char *remedy;
};

#define PRIVILEGE "run as root, or with CAP_NET_ADMIN in the user namespace that owns the network namespace"
#define DESCRIPTORS "close handles that are not needed, or raise the limit of open files (ulimit -n)"

/* What an errno of the engine means to a WinDivert program; what is not here is 31. */
static const struct row rows[] = {
    /* the kernel asked for a privilege that the process lacks; EPERM and EACCES both, as it answers now one, now the
       other */
    {EACCES, ERROR_ACCESS_DENIED, "the kernel denied access", PRIVILEGE},
    {EPERM, ERROR_ACCESS_DENIED, "the operation is not permitted", PRIVILEGE},
    /* opened with NO_INSTALL while no handle is open that the caller could see */
    {ENOENT, ERROR_SERVICE_DOES_NOT_EXIST,
     "no handle is open, and WINDIVERT_FLAG_NO_INSTALL does not let this be the first",
     "open without WINDIVERT_FLAG_NO_INSTALL"},
    /* what only the engine can see is wrong: a malformed packet, a value out of range */
    {EINVAL, ERROR_INVALID_PARAMETER, "a parameter is invalid", NULL},
    /* this kernel, this build or this layer cannot do it */
    {EOPNOTSUPP, ERROR_NOT_SUPPORTED, "not possible on this system", NULL},
    /* recv: truncated; not a failure of the delivery, which took place */
    {EMSGSIZE, ERROR_INSUFFICIENT_BUFFER, "the packet is larger than the buffer; the rest of it is lost",
     "give a buffer of WINDIVERT_MTU_MAX bytes"},
    /* recv: shut down, and nothing is queued any more */
    {ENODATA, ERROR_NO_DATA, "the handle is shut down for receiving and its queue is empty", NULL},
    /* send: shut down; Windows has one code for both directions */
    {ESHUTDOWN, ERROR_NO_DATA, "the handle is shut down for sending", NULL},
    /* recv: what a wait for an event answers, too; 232 would be the end of a loop */
    {ETIMEDOUT, WAIT_TIMEOUT, "nothing came in time", NULL},
    /* closed by another thread while the call was inside */
    {ECANCELED, ERROR_OPERATION_ABORTED, "the handle was closed during the call", NULL},
    /* no route for a new packet */
    {ENETUNREACH, ERROR_NETWORK_UNREACHABLE, "there is no route to the packet's destination", NULL},
    /* the loop guard: an impostor's TTL or HopLimit would become zero */
    {EHOSTUNREACH, ERROR_HOST_UNREACHABLE, "the TTL or HopLimit of the packet has reached zero", NULL},
    {ENOMEM, ERROR_NOT_ENOUGH_MEMORY, "out of memory", NULL},
    /* kernel memory for sockets, queues and rules */
    {ENOBUFS, ERROR_NO_SYSTEM_RESOURCES, "the kernel is out of buffer space", NULL},
    /* descriptors: of the process, of the system */
    {EMFILE, ERROR_NO_SYSTEM_RESOURCES, "the process has too many open files", DESCRIPTORS},
    {ENFILE, ERROR_NO_SYSTEM_RESOURCES, "the system has too many open files", DESCRIPTORS},
    /* a table of fixed size is full (queue numbers, map entries) */
    {ENOSPC, ERROR_NO_SYSTEM_RESOURCES, "no room is left", NULL},
};

static const struct row *
find_row(int error)
{
    for (size_t i = 0; i < COUNT(rows); i++)
        if (rows[i].error == -error)
            return &rows[i];
    return NULL;
}

DWORD
wd_api_code(int error)
{
    const struct row *row = find_row(error);

    return row ? row->code : ERROR_GEN_FAILURE;
}

BOOL
wd_api_fail(DWORD code, const char *remedy, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(last.error.text, sizeof(last.error.text), format, args);
    va_end(args);
    snprintf(last.error.remedy, sizeof(last.error.remedy), "%s", remedy ? remedy : "");
    last.code = last.text_code = code;
    return FALSE;
}

BOOL
wd_api_fail_errno(int error, const struct wd_error *err)
{
    const struct row *row = find_row(error);
    const char *remedy = row ? row->remedy : NULL;

    if (err && err->text[0])
        return wd_api_fail(wd_api_code(error), err->remedy[0] ? err->remedy : remedy, "%s", err->text);
    if (row)
        return wd_api_fail(row->code, remedy, "%s", row->text);
    errno = -error; /* %m: the only thread-safe spelling that glibc and musl share */
    return wd_api_fail(ERROR_GEN_FAILURE, NULL, "the kernel refused: %m");
}

BOOL
wd_api_fail_code(DWORD code)
{
    for (size_t i = 0; i < COUNT(rows); i++)
        if (rows[i].code == code)
            return wd_api_fail(code, rows[i].remedy, "%s", rows[i].text);
    return wd_api_fail(code, NULL, "the operation failed");
}

void
wd_api_note(const struct wd_error *err)
{
    wd_api_fail(NO_ERROR, err->remedy, "%s", err->text);
}

DWORD
GetLastError(void)
{
    return last.code;
}

void
SetLastError(DWORD dwErrCode)
{
    last.code = dwErrCode;
}

const char *
WinDivertExtGetLastErrorText(void)
{
    return last.code == last.text_code ? last.error.text : "";
}

const char *
WinDivertExtGetLastErrorRemedy(void)
{
    return last.code == last.text_code ? last.error.remedy : "";
}

BOOL
wd_api_result(int error, const struct wd_error *err)
{
    if (error)
        return wd_api_fail_errno(error, err);
    if (err->text[0])
        wd_api_note(err);
    return TRUE;
}
