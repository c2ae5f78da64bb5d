/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WinDivertHelper*Filter. */
#include "cache.h"
#include "compile.h"
#include "core/packet.h"
#include "error.h"

static BOOL
check_filter(const char *filter, WINDIVERT_LAYER layer)
{
    if (!filter)
        return wd_api_fail(ERROR_INVALID_PARAMETER, "the filter for everything is \"true\"", "filter is NULL");
    return wd_api_check_layer(layer);
}

static BOOL
fail_space(size_t needed, UINT have)
{
    return wd_api_fail(ERROR_INSUFFICIENT_BUFFER, NULL, "%zu bytes are needed, the buffer has %u", needed, have);
}

/* ---- CompileFilter ---------------------------------------------------------- */

static BOOL
compile_object(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, char *object, UINT len,
               struct wd_filter_error *ret_error)
{
    struct wd_filter *filter;
    size_t needed;

    if (!wd_api_compile(arena, text, layer, &filter, ret_error))
        return FALSE;
    if (object && wd_filter_object(filter, object, len, &needed)) {
        ret_error->code = WD_FILTER_OBJECT_TOO_SHORT;
        return fail_space(needed, len);
    }
    return TRUE;
}

/* errorStr is set whatever the outcome: programs print it without asking. */
BOOL
WinDivertHelperCompileFilter(const char *filter, WINDIVERT_LAYER layer, char *object, UINT objLen,
                             const char **errorStr, UINT *errorPos)
{
    struct wd_filter_error error = {.code = WD_FILTER_OK};
    struct wd_arena arena;
    BOOL ok;

    ok = check_filter(filter, layer);
    if (ok) {
        wd_arena_init(&arena, NULL);
        ok = compile_object(&arena, filter, layer, object, objLen, &error);
        wd_arena_free(&arena);
    } else {
        error.code = filter ? WD_FILTER_BAD_TOKEN_FOR_LAYER : WD_FILTER_SYNTAX;
    }
    if (errorStr)
        *errorStr = wd_filter_strerror(error.code);
    if (errorPos)
        *errorPos = error.pos;
    return ok;
}

/* ---- EvalFilter --------------------------------------------------------------- */

static bool
has_packets(WINDIVERT_LAYER layer)
{
    return layer == WINDIVERT_LAYER_NETWORK || layer == WINDIVERT_LAYER_NETWORK_FORWARD;
}

static BOOL
check_eval(const char *filter, const VOID *pPacket, const WINDIVERT_ADDRESS *pAddr)
{
    if (!pAddr)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "pAddr is NULL");
    if (!check_filter(filter, (WINDIVERT_LAYER)pAddr->Layer))
        return FALSE;
    if (!pPacket && has_packets((WINDIVERT_LAYER)pAddr->Layer))
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "pPacket is NULL");
    return TRUE;
}

/* Nothing matches a packet that cannot be parsed. */
static bool
matches(const struct wd_filter *filter, const VOID *pPacket, UINT packetLen, const WINDIVERT_ADDRESS *pAddr)
{
    struct wd_packet packet;

    if (!has_packets((WINDIVERT_LAYER)pAddr->Layer))
        return wd_prog_eval(wd_filter_prog(filter), NULL, pAddr);
    return wd_packet_parse(pPacket, packetLen, &packet) && wd_prog_eval(wd_filter_prog(filter), &packet, pAddr);
}

BOOL
WinDivertHelperEvalFilter(const char *filter, const VOID *pPacket, UINT packetLen, const WINDIVERT_ADDRESS *pAddr)
{
    struct wd_cached *cached;
    BOOL match;

    if (!check_eval(filter, pPacket, pAddr))
        return FALSE;
    cached = wd_cache_get(filter, (WINDIVERT_LAYER)pAddr->Layer);
    if (!cached)
        return FALSE;
    match = matches(wd_cache_filter(cached), pPacket, packetLen, pAddr);
    wd_cache_put(cached);
    if (!match)
        SetLastError(NO_ERROR);
    return match;
}

/* ---- FormatFilter --------------------------------------------------------------- */

static BOOL
format(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, char *buffer, UINT len)
{
    struct wd_filter_error error;
    struct wd_filter *filter;
    size_t needed;

    if (!wd_api_compile(arena, text, layer, &filter, &error))
        return FALSE;
    return wd_filter_format(filter, buffer, len, &needed) ? fail_space(needed, len) : TRUE;
}

BOOL
WinDivertHelperFormatFilter(const char *filter, WINDIVERT_LAYER layer, char *buffer, UINT bufLen)
{
    struct wd_arena arena;
    BOOL ok;

    if (!check_filter(filter, layer))
        return FALSE;
    if (!buffer)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "buffer is NULL");
    wd_arena_init(&arena, NULL);
    ok = format(&arena, filter, layer, buffer, bufLen);
    wd_arena_free(&arena);
    return ok;
}
