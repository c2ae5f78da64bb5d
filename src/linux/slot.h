/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Slots: our own copies of packets, the pool they come from, the lists they
 * are in, and the index of those that the program holds.  No locking here.
 */
#ifndef WD_LINUX_SLOT_H
#define WD_LINUX_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WD_SLOT_SMALL 2048 /* room of a slot that has no big buffer */
#define WD_SLOT_BIG_KEPT 64
#define WD_HELD_BUCKETS 4096

struct wd_slot {
    struct wd_slot *prev, *next; /* in the list of its state */
    struct wd_slot *hash_next;   /* held: others with the same hash */
    uint32_t id;                 /* the kernel's, of the queue */
    uint32_t generation;         /* of the slot: an address of an earlier packet does not fit */
    uint32_t seq;                /* sent: of the verdict message */
    uint32_t shift;              /* stamp of echo.h */
    bool delivered;              /* the program got it */
    int64_t timestamp;           /* when it was pulled, 100 ns */
    int64_t held_since;          /* 100 ns */
    uint32_t len;                /* in the kernel */
    uint32_t cap_len;            /* bytes in data */
    uint32_t ifindex;
    uint32_t mark;
    bool outbound, loopback, impostor, ipv6;
    bool ip_csum_ok, tcp_csum_ok, udp_csum_ok;
    bool csum_not_ready; /* data has only the pseudo header's sum: the kernel's packet has it done by the device */
    uint8_t *data;       /* small, or a big buffer of WD_NFQ_MSG_MAX bytes with the packet somewhere in it */
    uint8_t *big;        /* that buffer, or NULL */
    uint8_t small[WD_SLOT_SMALL];
};

struct wd_slot_list {
    struct wd_slot *first, *last;
    uint32_t count;
};

struct wd_slot_pool {
    struct wd_slot *free_slots;
    uint32_t free_count;
    uint8_t *free_big[WD_SLOT_BIG_KEPT]; /* buffers of WD_NFQ_MSG_MAX bytes */
    uint32_t free_big_count;
    uint32_t generations;
};

/* The held packets in the order of their receipt, and by id. */
struct wd_held {
    struct wd_slot_list list;
    struct wd_slot *bucket[WD_HELD_BUCKETS];
};

void wd_slot_append(struct wd_slot_list *list, struct wd_slot *slot);
void wd_slot_remove(struct wd_slot_list *list, struct wd_slot *slot);

/* NULL: no memory.  The packet's fields are undefined, its data empty. */
struct wd_slot *wd_slot_get(struct wd_slot_pool *pool);
void wd_slot_put(struct wd_slot_pool *pool, struct wd_slot *slot);
uint8_t *wd_slot_big_get(struct wd_slot_pool *pool);
void wd_slot_big_put(struct wd_slot_pool *pool, uint8_t *big); /* NULL-safe */
/* Replaces the slot's bytes; false: no memory, nothing changed. */
bool wd_slot_store(struct wd_slot_pool *pool, struct wd_slot *slot, const uint8_t *data, size_t len);
/* Frees what is not in use. */
void wd_slot_pool_trim(struct wd_slot_pool *pool);

void wd_held_add(struct wd_held *held, struct wd_slot *slot);
void wd_held_remove(struct wd_held *held, struct wd_slot *slot);
struct wd_slot *wd_held_find(const struct wd_held *held, uint32_t id, uint32_t generation);

#endif
