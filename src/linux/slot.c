/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "slot.h"

#include <stdlib.h>
#include <string.h>

#include "linux/nfqueue.h"

#define FREE_SLOTS_KEPT 1024 /* beyond, and when idle, memory goes back */

/* ---- Lists -------------------------------------------------------------- */

void
wd_slot_append(struct wd_slot_list *list, struct wd_slot *slot)
{
    slot->prev = list->last;
    slot->next = NULL;
    if (list->last)
        list->last->next = slot;
    else
        list->first = slot;
    list->last = slot;
    list->count++;
}

void
wd_slot_remove(struct wd_slot_list *list, struct wd_slot *slot)
{
    if (slot->prev)
        slot->prev->next = slot->next;
    else
        list->first = slot->next;
    if (slot->next)
        slot->next->prev = slot->prev;
    else
        list->last = slot->prev;
    list->count--;
}

/* ---- Slots and buffers -------------------------------------------------- */

uint8_t *
wd_slot_big_get(struct wd_slot_pool *pool)
{
    if (pool->free_big_count)
        return pool->free_big[--pool->free_big_count];
    return malloc(WD_NFQ_MSG_MAX);
}

void
wd_slot_big_put(struct wd_slot_pool *pool, uint8_t *big)
{
    if (!big)
        return;
    if (pool->free_big_count < WD_SLOT_BIG_KEPT)
        pool->free_big[pool->free_big_count++] = big;
    else
        free(big);
}

struct wd_slot *
wd_slot_get(struct wd_slot_pool *pool)
{
    struct wd_slot *slot = pool->free_slots;

    if (slot) {
        pool->free_slots = slot->next;
        pool->free_count--;
    } else {
        slot = malloc(sizeof(*slot));
        if (!slot)
            return NULL;
    }
    slot->big = NULL;
    slot->data = slot->small;
    slot->generation = ++pool->generations;
    return slot;
}

void
wd_slot_put(struct wd_slot_pool *pool, struct wd_slot *slot)
{
    wd_slot_big_put(pool, slot->big);
    slot->big = NULL;
    if (pool->free_count >= FREE_SLOTS_KEPT) {
        free(slot);
        return;
    }
    slot->next = pool->free_slots;
    pool->free_slots = slot;
    pool->free_count++;
}

static size_t
slot_room(const struct wd_slot *slot)
{
    return slot->big ? (size_t)(slot->big + WD_NFQ_MSG_MAX - slot->data) : sizeof(slot->small);
}

/* Replaces the slot's bytes; false: no memory. */
bool
wd_slot_store(struct wd_slot_pool *pool, struct wd_slot *slot, const uint8_t *data, size_t len)
{
    if (slot_room(slot) < len) {
        uint8_t *big = wd_slot_big_get(pool);

        if (!big)
            return false;
        wd_slot_big_put(pool, slot->big);
        slot->big = big;
        slot->data = big;
    }
    memcpy(slot->data, data, len);
    slot->cap_len = slot->len = (uint32_t)len;
    return true;
}

void
wd_slot_pool_trim(struct wd_slot_pool *pool)
{
    while (pool->free_slots) {
        struct wd_slot *next = pool->free_slots->next;

        free(pool->free_slots);
        pool->free_slots = next;
    }
    pool->free_count = 0;
    while (pool->free_big_count)
        free(pool->free_big[--pool->free_big_count]);
}

/* ---- Held packets, by id ------------------------------------------------ */

static struct wd_slot **
held_bucket(struct wd_held *held, uint32_t id)
{
    return &held->bucket[id % WD_HELD_BUCKETS];
}

void
wd_held_add(struct wd_held *held, struct wd_slot *slot)
{
    struct wd_slot **bucket = held_bucket(held, slot->id);

    slot->hash_next = *bucket;
    *bucket = slot;
    wd_slot_append(&held->list, slot);
}

void
wd_held_remove(struct wd_held *held, struct wd_slot *slot)
{
    struct wd_slot **link = held_bucket(held, slot->id);

    while (*link != slot)
        link = &(*link)->hash_next;
    *link = slot->hash_next;
    wd_slot_remove(&held->list, slot);
}

struct wd_slot *
wd_held_find(const struct wd_held *held, uint32_t id, uint32_t generation)
{
    struct wd_slot *slot = held->bucket[id % WD_HELD_BUCKETS];

    while (slot && (slot->id != id || slot->generation != generation))
        slot = slot->hash_next;
    return slot;
}
