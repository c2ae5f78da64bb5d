/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WinDivertSetParam, WinDivertGetParam, and the same for extensions and statistics. */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "error.h"
#include "handle.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct param {
    const char *name;
    UINT64 min, max;
    bool fixed; /* read-only; its value is min */
};

static const struct param params[] = {
    [WINDIVERT_PARAM_QUEUE_LENGTH] = {"QUEUE_LENGTH", WINDIVERT_PARAM_QUEUE_LENGTH_MIN,
                                      WINDIVERT_PARAM_QUEUE_LENGTH_MAX, false},
    [WINDIVERT_PARAM_QUEUE_TIME] = {"QUEUE_TIME", WINDIVERT_PARAM_QUEUE_TIME_MIN, WINDIVERT_PARAM_QUEUE_TIME_MAX,
                                    false},
    [WINDIVERT_PARAM_QUEUE_SIZE] = {"QUEUE_SIZE", WINDIVERT_PARAM_QUEUE_SIZE_MIN, WINDIVERT_PARAM_QUEUE_SIZE_MAX,
                                    false},
    [WINDIVERT_PARAM_VERSION_MAJOR] = {"VERSION_MAJOR", 2, 2, true},
    [WINDIVERT_PARAM_VERSION_MINOR] = {"VERSION_MINOR", 2, 2, true},
};

static const struct param ext_params[] = {
    /* the upper end is the handle's own QUEUE_TIME, which the engine knows */
    [WINDIVERT_EXT_PARAM_HOLD_TIME] = {"HOLD_TIME", WINDIVERT_EXT_PARAM_HOLD_TIME_MIN, WINDIVERT_PARAM_QUEUE_TIME_MAX,
                                       false},
    [WINDIVERT_EXT_PARAM_SEGMENTS] = {"SEGMENTS", 0, 1, false},
    [WINDIVERT_EXT_PARAM_FAIL_OPEN] = {"FAIL_OPEN", 0, 1, false},
    [WINDIVERT_EXT_PARAM_FLOW_PACKETS] = {"FLOW_PACKETS", 0, WINDIVERT_EXT_PARAM_FLOW_PACKETS_MAX, false},
};

/* The row of a parameter; NULL with last error 87 where there is none. */
static const struct param *
find_param(const struct param *rows, size_t count, unsigned param)
{
    if (param < count && rows[param].name)
        return &rows[param];
    wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "there is no parameter %u", param);
    return NULL;
}

static BOOL
check_set(const struct param *row, UINT64 value)
{
    if (!row)
        return FALSE;
    if (row->fixed)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "parameter %s is read-only", row->name);
    if (value < row->min || value > row->max)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "%s: %llu is not in %llu..%llu", row->name,
                           (unsigned long long)value, (unsigned long long)row->min, (unsigned long long)row->max);
    return TRUE;
}

static BOOL
check_get(const struct param *row, const UINT64 *pValue)
{
    if (!row)
        return FALSE;
    if (!pValue)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "pValue is NULL");
    return TRUE;
}

BOOL
WinDivertSetParam(HANDLE handle, WINDIVERT_PARAM param, UINT64 value)
{
    struct wd_error err = {.text = "", .remedy = ""};
    struct wd_use use;
    BOOL ok;
    int ret;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    ok = check_set(find_param(params, COUNT(params), param), value);
    if (ok) {
        wd_handle_hold_fork(); /* another QUEUE_SIZE may mean other descriptors */
        ret = wd_engine_set_param(use.engine, param, value, &err);
        wd_handle_release_fork();
        ok = ret ? wd_api_fail_errno(ret, &err) : TRUE;
    }
    wd_handle_leave(&use);
    return ok;
}

/* *ret_value is written on success only, whatever the engine does. */
static BOOL
get_param(struct wd_handle *engine, WINDIVERT_PARAM param, const struct param *row, UINT64 *ret_value)
{
    struct wd_error err = {.text = "", .remedy = ""};
    UINT64 value = row->min;
    int ret = row->fixed ? 0 : wd_engine_get_param(engine, param, &value, &err);

    if (ret)
        return wd_api_fail_errno(ret, &err);
    *ret_value = value;
    return TRUE;
}

BOOL
WinDivertGetParam(HANDLE handle, WINDIVERT_PARAM param, UINT64 *pValue)
{
    const struct param *row;
    struct wd_use use;
    BOOL ok;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    row = find_param(params, COUNT(params), param);
    ok = check_get(row, pValue) && get_param(use.engine, param, row, pValue);
    wd_handle_leave(&use);
    return ok;
}

BOOL
WinDivertExtSetParam(HANDLE handle, WINDIVERT_EXT_PARAM param, UINT64 value)
{
    struct wd_error err = {.text = "", .remedy = ""};
    struct wd_use use;
    BOOL ok;
    int ret;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    ok = check_set(find_param(ext_params, COUNT(ext_params), param), value);
    if (ok) {
        wd_handle_hold_fork(); /* programs are loaded */
        ret = wd_engine_set_ext_param(use.engine, param, value, &err);
        wd_handle_release_fork();
        ok = ret ? wd_api_fail_errno(ret, &err) : TRUE;
    }
    wd_handle_leave(&use);
    return ok;
}

BOOL
WinDivertExtSkipFlow(HANDLE handle, const VOID *pPacket, UINT packetLen)
{
    struct wd_error err = {.text = "", .remedy = ""};
    struct wd_use use;
    BOOL ok;
    int ret;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    if (!pPacket) {
        ok = wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "pPacket is NULL");
    } else {
        wd_handle_hold_fork(); /* the first time programs are loaded */
        ret = wd_engine_skip_flow(use.engine, pPacket, packetLen, &err);
        wd_handle_release_fork();
        ok = ret ? wd_api_fail_errno(ret, &err) : TRUE;
    }
    wd_handle_leave(&use);
    return ok;
}

BOOL
WinDivertExtGetParam(HANDLE handle, WINDIVERT_EXT_PARAM param, UINT64 *pValue)
{
    struct wd_error err = {.text = "", .remedy = ""};
    struct wd_use use;
    UINT64 value = 0;
    BOOL ok;
    int ret;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    ok = check_get(find_param(ext_params, COUNT(ext_params), param), pValue);
    if (ok) {
        ret = wd_engine_get_ext_param(use.engine, param, &value, &err);
        ok = ret ? wd_api_fail_errno(ret, &err) : TRUE;
    }
    if (ok)
        *pValue = value;
    wd_handle_leave(&use);
    return ok;
}

/* Programs older or newer than the library have a shorter or longer structure: the common part is filled in. */
static void
copy_stats(WINDIVERT_EXT_STATS *to, WINDIVERT_EXT_STATS *from)
{
    UINT64 size = to->Size < sizeof(*from) ? to->Size : sizeof(*from);

    from->Size = size - size % sizeof(UINT64);
    memcpy(to, from, (size_t)from->Size);
}

BOOL
WinDivertExtGetStats(HANDLE handle, WINDIVERT_EXT_STATS *pStats)
{
    WINDIVERT_EXT_STATS stats = {0};
    struct wd_use use;
    BOOL ok = TRUE;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    if (!pStats)
        ok = wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "pStats is NULL");
    else if (pStats->Size < sizeof(UINT64))
        ok = wd_api_fail(ERROR_INVALID_PARAMETER, "set it to sizeof(WINDIVERT_EXT_STATS)", "pStats->Size is not set");
    if (ok) {
        wd_engine_get_stats(use.engine, &stats);
        copy_stats(pStats, &stats);
    }
    wd_handle_leave(&use);
    return ok;
}
