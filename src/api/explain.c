/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "compile.h"
#include "engine.h"
#include "error.h"
#include "open.h"
#include "windivert_ext.h"

static BOOL
copy_out(const char *text, char *buffer, UINT len, UINT *ret_needed)
{
    size_t needed = strlen(text) + 1;

    if (ret_needed)
        *ret_needed = (UINT)needed;
    if (needed > len)
        return wd_api_fail(ERROR_INSUFFICIENT_BUFFER, NULL, "%zu bytes are needed, the buffer has %u", needed, len);
    memcpy(buffer, text, needed);
    return TRUE;
}

BOOL
WinDivertExtExplainFilter(const char *filter, WINDIVERT_LAYER layer, INT16 priority, UINT64 flags, UINT64 options,
                          char *buffer, UINT bufLen, UINT *pNeeded)
{
    struct wd_error err = {.text = "", .remedy = ""};
    struct wd_open open;
    struct wd_arena arena;
    char *text;
    BOOL ok;
    int ret;

    if (options & ~(UINT64)WINDIVERT_EXT_EXPLAIN_PROGRAMS)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "options is 0x%llx", (unsigned long long)options);
    if (!buffer && bufLen)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "buffer is NULL");
    wd_arena_init(&arena, NULL);
    ok = wd_api_prepare_open(&arena, filter, layer, priority, flags, &open);
    if (ok) {
        ret = wd_engine_explain(&open, options & WINDIVERT_EXT_EXPLAIN_PROGRAMS, &text, &err);
        ok = ret ? wd_api_fail_errno(ret, &err) : copy_out(text, buffer, bufLen, pNeeded);
        if (!ret)
            free(text);
    }
    wd_arena_free(&arena);
    return ok;
}
