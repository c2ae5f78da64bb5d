/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Memory of one compilation: allocated piece by piece, freed at once. */
#ifndef WD_CORE_ARENA_H
#define WD_CORE_ARENA_H

#include <stddef.h>

/* Where an arena gets its blocks from; tests pass one that fails on purpose. */
struct wd_allocator {
    void *(*alloc)(void *ctx, size_t size); /* NULL: no memory */
    void (*free)(void *ctx, void *block);
    void *ctx;
};

struct wd_arena {
    const struct wd_allocator *from;
    struct wd_arena_block *blocks;
};

/* from == NULL: malloc and free. */
void wd_arena_init(struct wd_arena *arena, const struct wd_allocator *from);
/* Zeroed, aligned for any type; NULL when there is no memory or count * size overflows. */
void *wd_arena_alloc(struct wd_arena *arena, size_t count, size_t size);
void wd_arena_free(struct wd_arena *arena);

#endif
