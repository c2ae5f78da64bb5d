/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The reader's side of a BPF ring buffer, mapped into memory. */
#ifndef WD_LINUX_RING_H
#define WD_LINUX_RING_H

#include <stdint.h>

#include "bpf/gen.h"
#include "core/error.h"

struct wd_ring {
    struct wd_ring *next;
    int fd;
    uint64_t size;           /* bytes of records */
    uint64_t base;           /* bytes of records in the rings that were written to before this one */
    unsigned long *consumer; /* a page that we write: how far we have read */
    uint8_t *producer;       /* a page that the kernel writes, then the data, twice in a row: no record is cut */
};

/* The size a ring for so many bytes has: the next power of two, at least a page. */
uint64_t wd_ring_size(uint32_t bytes);
int wd_ring_new(uint32_t bytes, struct wd_ring **ret_ring, struct wd_error *err);
void wd_ring_free(struct wd_ring *ring);     /* NULL-safe */
void wd_ring_close_fd(struct wd_ring *ring); /* in a forked child, too */

/* The next finished record, or NULL.  *ret_next: the position behind it, for wd_ring_advance.  One reader at a time. */
const void *wd_ring_peek(struct wd_ring *ring, unsigned long *ret_next);
void wd_ring_advance(struct wd_ring *ring, unsigned long next);
/* Positions that go on from ring to ring: of the next record to be read, and to be written. */
uint64_t wd_ring_read_position(const struct wd_ring *ring);
uint64_t wd_ring_write_position(const struct wd_ring *ring);

#endif
