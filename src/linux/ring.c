/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "ring.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bpf/load.h"

#define RECORD_ALIGN 8

static size_t
page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

uint64_t
wd_ring_size(uint32_t bytes)
{
    uint64_t size = page_size();

    while (size < bytes)
        size *= 2;
    return size;
}

static int
ring_map(struct wd_ring *ring)
{
    size_t page = page_size();
    void *map = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);

    if (map == MAP_FAILED)
        return -errno;
    ring->consumer = map;
    map = mmap(NULL, page + 2 * ring->size, PROT_READ, MAP_SHARED, ring->fd, (off_t)page);
    if (map == MAP_FAILED)
        return -errno;
    ring->producer = map;
    return 0;
}

int
wd_ring_new(uint32_t bytes, struct wd_ring **ret_ring, struct wd_error *err)
{
    struct wd_ring *ring = calloc(1, sizeof(*ring));
    int error;

    if (!ring)
        return wd_error_set(err, -ENOMEM, NULL, "make a ring: out of memory");
    ring->size = wd_ring_size(bytes);
    ring->fd = -1;
    error = wd_bpf_map(BPF_MAP_TYPE_RINGBUF, "wd_ring", 0, 0, (uint32_t)ring->size, 0, &ring->fd, err);
    if (!error) {
        error = ring_map(ring);
        if (error)
            wd_error_set(err, error, NULL, "map the ring: %s", strerror(-error));
    }
    if (error) {
        wd_ring_free(ring);
        return error;
    }
    *ret_ring = ring;
    return 0;
}

void
wd_ring_close_fd(struct wd_ring *ring)
{
    if (ring->fd >= 0)
        close(ring->fd);
    ring->fd = -1;
}

void
wd_ring_free(struct wd_ring *ring)
{
    if (!ring)
        return;
    if (ring->consumer)
        munmap(ring->consumer, page_size());
    if (ring->producer)
        munmap(ring->producer, page_size() + 2 * ring->size);
    wd_ring_close_fd(ring);
    free(ring);
}

const void *
wd_ring_peek(struct wd_ring *ring, unsigned long *ret_next)
{
    const uint8_t *data = ring->producer + page_size();
    unsigned long consumer = *ring->consumer;

    while (consumer < __atomic_load_n((unsigned long *)(void *)ring->producer, __ATOMIC_ACQUIRE)) {
        const uint32_t *head = (const void *)(data + (consumer & (ring->size - 1)));
        uint32_t len = __atomic_load_n(head, __ATOMIC_ACQUIRE);
        unsigned long next;

        if (len & BPF_RINGBUF_BUSY_BIT)
            return NULL;
        next = consumer +
               ((len & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT)) + BPF_RINGBUF_HDR_SZ + RECORD_ALIGN - 1) /
                   RECORD_ALIGN * RECORD_ALIGN;
        if (!(len & BPF_RINGBUF_DISCARD_BIT)) {
            *ret_next = next;
            return (const uint8_t *)head + BPF_RINGBUF_HDR_SZ;
        }
        consumer = next;
        wd_ring_advance(ring, consumer);
    }
    return NULL;
}

void
wd_ring_advance(struct wd_ring *ring, unsigned long next)
{
    __atomic_store_n(ring->consumer, next, __ATOMIC_RELEASE);
}

uint64_t
wd_ring_read_position(const struct wd_ring *ring)
{
    return ring->base + *ring->consumer;
}

uint64_t
wd_ring_write_position(const struct wd_ring *ring)
{
    return ring->base + __atomic_load_n((unsigned long *)(void *)ring->producer, __ATOMIC_ACQUIRE);
}
