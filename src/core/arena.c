/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE 4096

struct wd_arena_block {
    struct wd_arena_block *next;
    size_t used, size;
    _Alignas(max_align_t) unsigned char data[];
};

static void *
heap_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return malloc(size);
}

static void
heap_free(void *ctx, void *block)
{
    (void)ctx;
    free(block);
}

static const struct wd_allocator heap = {heap_alloc, heap_free, NULL};

void
wd_arena_init(struct wd_arena *arena, const struct wd_allocator *from)
{
    arena->from = from ? from : &heap;
    arena->blocks = NULL;
}

static struct wd_arena_block *
block_add(struct wd_arena *arena, size_t need)
{
    size_t size = need > BLOCK_SIZE ? need : BLOCK_SIZE;
    struct wd_arena_block *block = arena->from->alloc(arena->from->ctx, sizeof(*block) + size);

    if (!block)
        return NULL;
    block->next = arena->blocks;
    block->used = 0;
    block->size = size;
    arena->blocks = block;
    return block;
}

void *
wd_arena_alloc(struct wd_arena *arena, size_t count, size_t size)
{
    const size_t align = _Alignof(max_align_t);
    struct wd_arena_block *block = arena->blocks;
    size_t need;
    void *ret;

    if (size && count > (SIZE_MAX - sizeof(*block) - align) / size)
        return NULL;
    need = (count * size + align - 1) / align * align;
    if (!block || block->size - block->used < need) {
        block = block_add(arena, need);
        if (!block)
            return NULL;
    }
    ret = block->data + block->used;
    block->used += need;
    return memset(ret, 0, need);
}

void
wd_arena_free(struct wd_arena *arena)
{
    while (arena->blocks) {
        struct wd_arena_block *next = arena->blocks->next;

        arena->from->free(arena->from->ctx, arena->blocks);
        arena->blocks = next;
    }
}
