/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "exact.h"

#include <errno.h>
#include <stdlib.h>

int
wd_compiled_new(const char *object, WINDIVERT_LAYER layer, struct wd_compiled **ret_compiled, struct wd_error *err)
{
    struct wd_compiled *compiled = calloc(1, sizeof(*compiled));
    struct wd_filter_error bad;
    int error;

    if (!compiled)
        return wd_error_set(err, -ENOMEM, NULL, "compile the filter: out of memory");
    wd_arena_init(&compiled->arena, NULL);
    error = wd_filter_compile(&compiled->arena, object, layer, &compiled->filter, &bad);
    if (error) {
        wd_compiled_free(compiled);
        return wd_error_set(err, error, NULL, "compile the filter: %s", wd_filter_strerror(bad.code));
    }
    *ret_compiled = compiled;
    return 0;
}

void
wd_compiled_free(struct wd_compiled *compiled)
{
    if (!compiled)
        return;
    wd_arena_free(&compiled->arena);
    free(compiled);
}

const struct wd_prog *
wd_exact_set(struct wd_exact *exact, const struct wd_prog *prog)
{
    const struct wd_prog **last = exact->last ? &exact->last->then : &exact->prog;
    const struct wd_prog *was = *last;

    *last = prog;
    return was;
}

void
wd_exact_push(struct wd_exact *exact, struct wd_former *former)
{
    former->next = NULL;
    if (exact->last)
        exact->last->next = former;
    else
        exact->first = former;
    exact->last = former;
}

static void
pop(struct wd_exact *exact)
{
    struct wd_former *former = exact->first;

    exact->prog = former->then;
    exact->first = former->next;
    if (!exact->first)
        exact->last = NULL;
    wd_compiled_free(former->filter);
    free(former);
}

void
wd_exact_pass(struct wd_exact *exact, uint64_t position)
{
    while (exact->first && exact->first->until <= position)
        pop(exact);
}

void
wd_exact_pass32(struct wd_exact *exact, uint32_t position)
{
    while (exact->first && (int32_t)(position - (uint32_t)exact->first->until) >= 0)
        pop(exact);
}

void
wd_exact_free(struct wd_exact *exact)
{
    while (exact->first)
        pop(exact);
}
