/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WinDivertOpen, WinDivertExtSetFilter, WinDivertShutdown, WinDivertClose. */
#include <pthread.h>

#include "compile.h"
#include "error.h"
#include "handle.h"
#include "open.h"

#define FLAGS_ALL                                                                                                    \
    (WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_DROP | WINDIVERT_FLAG_RECV_ONLY | WINDIVERT_FLAG_SEND_ONLY |              \
     WINDIVERT_FLAG_NO_INSTALL | WINDIVERT_FLAG_FRAGMENTS)
#define FLAGS_EVENTS (WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY)

/* What each layer insists on. */
static const struct {
    UINT64 required;
    const char *text;
} layers[] = {
    [WINDIVERT_LAYER_NETWORK] = {0, NULL},
    [WINDIVERT_LAYER_NETWORK_FORWARD] = {0, NULL},
    [WINDIVERT_LAYER_FLOW] = {FLAGS_EVENTS, "layer FLOW needs WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY"},
    [WINDIVERT_LAYER_SOCKET] = {WINDIVERT_FLAG_RECV_ONLY, "layer SOCKET needs WINDIVERT_FLAG_RECV_ONLY"},
    [WINDIVERT_LAYER_REFLECT] = {FLAGS_EVENTS, "layer REFLECT needs WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY"},
};

static bool
has_all(UINT64 flags, UINT64 wanted)
{
    return (flags & wanted) == wanted;
}

/* Both need a layer that is in range. */
static BOOL
check_flags(WINDIVERT_LAYER layer, UINT64 flags)
{
    if (flags & ~(UINT64)FLAGS_ALL)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "flags has unknown bits: 0x%llx",
                           (unsigned long long)(flags & ~(UINT64)FLAGS_ALL));
    if (has_all(flags, WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_DROP))
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL,
                           "WINDIVERT_FLAG_SNIFF and WINDIVERT_FLAG_DROP exclude each other");
    if (has_all(flags, WINDIVERT_FLAG_RECV_ONLY | WINDIVERT_FLAG_SEND_ONLY))
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL,
                           "WINDIVERT_FLAG_RECV_ONLY and WINDIVERT_FLAG_SEND_ONLY exclude each other");
    if (!has_all(flags, layers[layer].required))
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "%s", layers[layer].text);
    return TRUE;
}

static BOOL
check_open(const char *filter, WINDIVERT_LAYER layer, INT16 priority, UINT64 flags)
{
    if (!filter)
        return wd_api_fail(ERROR_INVALID_PARAMETER, "the filter for everything is \"true\"", "filter is NULL");
    if (!wd_api_check_layer(layer))
        return FALSE;
    if (priority < WINDIVERT_PRIORITY_LOWEST || priority > WINDIVERT_PRIORITY_HIGHEST)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "priority %d is not in %d..%d", priority,
                           WINDIVERT_PRIORITY_LOWEST, WINDIVERT_PRIORITY_HIGHEST);
    return check_flags(layer, flags);
}

BOOL
wd_api_prepare_open(struct wd_arena *arena, const char *filter, WINDIVERT_LAYER layer, INT16 priority, UINT64 flags,
                    struct wd_open *ret_open)
{
    struct wd_open open = {.layer = layer, .priority = priority, .flags = flags};
    struct wd_filter_error error = {.code = WD_FILTER_OK, .pos = 0};
    struct wd_filter *compiled;

    if (!check_open(filter, layer, priority, flags) || !wd_api_compile(arena, filter, layer, &compiled, &error))
        return FALSE;
    open.object = wd_api_object(arena, compiled);
    if (!open.object)
        return FALSE;
    *ret_open = open;
    return TRUE;
}

HANDLE
WinDivertOpen(const char *filter, WINDIVERT_LAYER layer, INT16 priority, UINT64 flags)
{
    HANDLE handle = INVALID_HANDLE_VALUE;
    struct wd_arena arena;
    struct wd_open open;
    int cancel_state;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    wd_arena_init(&arena, NULL);
    if (wd_api_prepare_open(&arena, filter, layer, priority, flags, &open))
        wd_handle_open(&open, &handle);
    wd_arena_free(&arena);
    pthread_setcancelstate(cancel_state, NULL);
    return handle;
}

/* arena: for what is needed meanwhile. */
static BOOL
set_filter(const struct wd_use *use, struct wd_arena *arena, const char *filter)
{
    struct wd_error err = {.text = "", .remedy = ""};
    struct wd_filter_error error = {.code = WD_FILTER_OK, .pos = 0};
    struct wd_filter *compiled;
    const char *object;
    int ret;

    if (!filter)
        return wd_api_fail(ERROR_INVALID_PARAMETER, "the filter for everything is \"true\"", "filter is NULL");
    if (!wd_api_compile(arena, filter, use->layer, &compiled, &error))
        return FALSE;
    object = wd_api_object(arena, compiled);
    if (!object)
        return FALSE;
    wd_handle_hold_fork(); /* programs are loaded */
    ret = wd_engine_set_filter(use->engine, object, &err);
    wd_handle_release_fork();
    return wd_api_result(ret, &err);
}

BOOL
WinDivertExtSetFilter(HANDLE handle, const char *filter)
{
    struct wd_arena arena;
    struct wd_use use;
    BOOL ok;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    wd_arena_init(&arena, NULL);
    ok = set_filter(&use, &arena, filter);
    wd_arena_free(&arena);
    wd_handle_leave(&use);
    return ok;
}

BOOL
WinDivertShutdown(HANDLE handle, WINDIVERT_SHUTDOWN how)
{
    struct wd_error err = {.text = "", .remedy = ""};
    struct wd_use use;
    BOOL ok;
    int ret;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    if (how < WINDIVERT_SHUTDOWN_RECV || how > WINDIVERT_SHUTDOWN_MAX) {
        ok = wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "how is %d, not in 1..3", (int)how);
        goto out;
    }
    wd_handle_hold_fork();
    ret = wd_engine_shutdown(use.engine, how, &err);
    wd_handle_release_fork();
    ok = ret ? wd_api_fail_errno(ret, &err) : TRUE;
out:
    wd_handle_leave(&use);
    return ok;
}

BOOL
WinDivertClose(HANDLE handle)
{
    return wd_handle_close(handle);
}
