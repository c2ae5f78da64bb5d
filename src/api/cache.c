/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "cache.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "compile.h"
#include "error.h"

#define ENTRIES 8
#define TEXT_MAX 65536 /* longer texts are not kept */

struct wd_cached {
    atomic_uint refs; /* of the table, and of those that evaluate now */
    WINDIVERT_LAYER layer;
    struct wd_arena arena;
    struct wd_filter *filter;
    size_t len;
    char text[];
};

/*
 * The lock is only tried: whoever does not get it (another thread has it, or
 * had it when this process was forked) compiles for itself.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct wd_cached *entries[ENTRIES];
static unsigned int next_victim;

static struct wd_cached *
find(const char *text, size_t len, WINDIVERT_LAYER layer)
{
    for (unsigned int i = 0; i < ENTRIES; i++) {
        struct wd_cached *entry = entries[i];

        if (entry && entry->layer == layer && entry->len == len && memcmp(entry->text, text, len) == 0) {
            atomic_fetch_add(&entry->refs, 1);
            return entry;
        }
    }
    return NULL;
}

static struct wd_cached *
compile(const char *text, size_t len, WINDIVERT_LAYER layer)
{
    struct wd_cached *entry = malloc(sizeof(*entry) + len + 1);
    struct wd_filter_error error;

    if (!entry) {
        wd_api_fail(ERROR_NOT_ENOUGH_MEMORY, NULL, "out of memory");
        return NULL;
    }
    atomic_init(&entry->refs, 1);
    entry->layer = layer;
    entry->len = len;
    memcpy(entry->text, text, len + 1);
    wd_arena_init(&entry->arena, NULL);
    if (!wd_api_compile(&entry->arena, entry->text, layer, &entry->filter, &error)) {
        wd_cache_put(entry);
        return NULL;
    }
    return entry;
}

/* Takes the place of the entry that has been there longest. */
static void
keep(struct wd_cached *entry)
{
    struct wd_cached *victim;

    if (entry->len > TEXT_MAX || pthread_mutex_trylock(&lock) != 0)
        return;
    atomic_fetch_add(&entry->refs, 1);
    victim = entries[next_victim];
    entries[next_victim] = entry;
    next_victim = (next_victim + 1) % ENTRIES;
    pthread_mutex_unlock(&lock);
    if (victim)
        wd_cache_put(victim);
}

struct wd_cached *
wd_cache_get(const char *text, WINDIVERT_LAYER layer)
{
    size_t len = strlen(text);
    struct wd_cached *entry = NULL;

    if (pthread_mutex_trylock(&lock) == 0) {
        entry = find(text, len, layer);
        pthread_mutex_unlock(&lock);
    }
    if (entry)
        return entry;
    entry = compile(text, len, layer);
    if (entry)
        keep(entry);
    return entry;
}

const struct wd_filter *
wd_cache_filter(const struct wd_cached *cached)
{
    return cached->filter;
}

void
wd_cache_put(struct wd_cached *cached)
{
    if (atomic_fetch_sub(&cached->refs, 1) != 1)
        return;
    wd_arena_free(&cached->arena);
    free(cached);
}
