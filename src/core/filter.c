/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include <errno.h>

#include "filter_impl.h"
#include "optimise.h"

const char *
wd_filter_strerror(enum wd_filter_code code)
{
    static const char *const texts[WD_FILTER_CODE_COUNT] = {
        [WD_FILTER_OK] = "No error",
        [WD_FILTER_NO_MEMORY] = "Out of memory",
        [WD_FILTER_TOO_DEEP] = "Filter expression too deep",
        [WD_FILTER_TOO_LONG] = "Filter expression too long",
        [WD_FILTER_BAD_TOKEN] = "Filter expression contains a bad token",
        [WD_FILTER_BAD_TOKEN_FOR_LAYER] = "Filter expression contains a bad token for layer",
        [WD_FILTER_SYNTAX] = "Filter expression parse error",
        [WD_FILTER_BAD_INDEX] = "Filter expression array index is out-of-bounds",
        [WD_FILTER_OBJECT_TOO_SHORT] = "Filter object buffer is too short",
        [WD_FILTER_BAD_OBJECT] = "Filter object is invalid",
    };

    return texts[code];
}

int
wd_filter_fail(struct wd_filter_error *error, enum wd_filter_code code, size_t pos)
{
    error->code = code;
    error->pos = (uint32_t)pos;
    return code == WD_FILTER_NO_MEMORY ? -ENOMEM : -EINVAL;
}

void
wd_filter_diagnose(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_filter_error *error)
{
    struct wd_filter_error found;
    struct wd_node *tree;
    size_t extended;

    if (text[0] != '@' && wd_parse_extended(arena, text, layer, &tree, &extended, &found) == -EINVAL)
        *error = found;
}

/* Text as written, or the folded tree of an object. */
static int
read_tree(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_node **ret_tree,
          struct wd_filter_error *ret_error)
{
    if (text[0] == '@')
        return wd_object_read(arena, text, layer, ret_tree, ret_error);
    return wd_parse_filter(arena, text, layer, ret_tree, ret_error);
}

int
wd_filter_compile(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_filter **ret_filter,
                  struct wd_filter_error *ret_error)
{
    struct wd_filter_error error = {WD_FILTER_OK, 0};
    struct wd_filter *filter;
    struct wd_node *tree;
    struct wd_prog *plain, *prog;
    int ret;

    if ((ret = read_tree(arena, text, layer, &tree, ret_error)) < 0)
        return ret;
    tree = wd_fold_tree(tree);
    filter = wd_arena_alloc(arena, 1, sizeof(*filter));
    if (!filter || wd_flatten_tree(arena, tree, layer, &plain) < 0 || wd_prog_optimise(arena, plain, &prog) < 0 ||
        wd_prog_prepare(arena, prog) < 0)
        return wd_filter_fail(ret_error, WD_FILTER_NO_MEMORY, 0);
    filter->layer = layer;
    filter->tree = tree;
    filter->plain = plain;
    filter->prog = prog;
    *ret_filter = filter;
    *ret_error = error;
    return 0;
}

const struct wd_prog *
wd_filter_prog(const struct wd_filter *filter)
{
    return filter->prog;
}

const struct wd_prog *
wd_filter_prog_plain(const struct wd_filter *filter)
{
    return filter->plain;
}

int
wd_filter_prog_unfolded(struct wd_arena *arena, const char *text, WINDIVERT_LAYER layer, struct wd_prog **ret_prog)
{
    struct wd_filter_error error;
    struct wd_node *tree;
    struct wd_prog *prog;
    int ret = read_tree(arena, text, layer, &tree, &error);

    if (!ret)
        ret = wd_flatten_tree(arena, tree, layer, &prog);
    if (!ret)
        ret = wd_prog_prepare(arena, prog);
    if (!ret)
        *ret_prog = prog;
    return ret;
}

typedef void emit_function(struct wd_writer *out, const struct wd_node *tree, WINDIVERT_LAYER layer);

/* Measures first: a buffer that is too small is left alone. */
static int
emit(const struct wd_filter *filter, emit_function *function, char *buffer, size_t size, size_t *ret_needed)
{
    struct wd_writer measure = {0}, out = {.buffer = buffer, .size = size};

    function(&measure, filter->tree, filter->layer);
    if (ret_needed)
        *ret_needed = measure.len;
    if (measure.len > size)
        return -ENOSPC;
    function(&out, filter->tree, filter->layer);
    return 0;
}

int
wd_filter_object(const struct wd_filter *filter, char *buffer, size_t size, size_t *ret_needed)
{
    return emit(filter, wd_object_write, buffer, size, ret_needed);
}

int
wd_filter_format(const struct wd_filter *filter, char *buffer, size_t size, size_t *ret_needed)
{
    return emit(filter, wd_format_tree, buffer, size, ret_needed);
}
