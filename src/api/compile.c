/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "compile.h"

#include <errno.h>
#include <string.h>

#include "error.h"

#define EXCERPT 40 /* bytes of a bad filter that the error text shows */

BOOL
wd_api_check_layer(WINDIVERT_LAYER layer)
{
    if ((unsigned)layer > WINDIVERT_LAYER_REFLECT)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "there is no layer %d", (int)layer);
    return TRUE;
}

/*
 * "filter, byte 12: Filter expression contains a bad token: frobnicate == 1":
 * the start of the trouble, readable.  The text is for people: of a filter in
 * the language beyond the original it says what is wrong there.
 */
static BOOL
fail_filter(struct wd_arena *arena, const char *filter, WINDIVERT_LAYER layer, struct wd_filter_error error)
{
    char excerpt[EXCERPT + 1] = "";
    size_t length = strlen(filter), from, i;

    wd_filter_diagnose(arena, filter, layer, &error);
    from = error.pos < length ? error.pos : length;
    for (i = 0; i < EXCERPT && filter[from + i]; i++)
        excerpt[i] = filter[from + i] >= ' ' && filter[from + i] <= '~' ? filter[from + i] : '?';
    return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "filter, byte %u: %s: %s%s", error.pos,
                       wd_filter_strerror(error.code), i ? excerpt : "(its end)", filter[from + i] ? "..." : "");
}

BOOL
wd_api_compile(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_filter **ret_filter,
               struct wd_filter_error *ret_error)
{
    int ret = wd_filter_compile(arena, text, layer, ret_filter, ret_error);

    if (ret == -ENOMEM)
        return wd_api_fail_errno(ret, NULL);
    return ret ? fail_filter(arena, text, layer, *ret_error) : TRUE;
}

const char *
wd_api_object(struct wd_arena *arena, const struct wd_filter *filter)
{
    size_t needed = 0;
    char *object;

    wd_filter_object(filter, NULL, 0, &needed);
    object = wd_arena_alloc(arena, needed, 1);
    if (object && wd_filter_object(filter, object, needed, NULL) == 0)
        return object;
    wd_api_fail_errno(-ENOMEM, NULL);
    return NULL;
}
