/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Echoes: returned packets that the kernel hands over a second time, because a
 * hook was put in front of ours while they were held (shift.h).  They are known by
 * their bytes: after such a change every returned packet that may have been
 * queued before it is remembered for a while, and the first one like it goes on
 * untouched.  No locking here.
 */
#ifndef WD_LINUX_ECHO_H
#define WD_LINUX_ECHO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wd_echo;

struct wd_echoes {
    const _Atomic uint32_t *shifts;
    uint32_t seen;      /* of *shifts, last time */
    uint32_t settled;   /* what comes now was queued after that many */
    uint32_t mark;      /* verdicts from this one on confirm that `seen` is settled ... */
    bool marked;        /* ... if this is set */
    uint32_t confirmed; /* last verdict whose echo, if it had one, was read */
    int64_t changed_at; /* when `seen` was noticed, 100 ns */
    int64_t drained_at; /* when nothing was queued, last time, 100 ns */
    int64_t until;      /* nothing is remembered any more, 100 ns */
    uint64_t key;
    bool fresh;            /* something was remembered */
    struct wd_echo *table; /* NULL: nothing was remembered yet */
};

/* Every packet from here on is queued after what is counted now.  Again: the same, what is remembered stays. */
void wd_echoes_start(struct wd_echoes *echoes, const _Atomic uint32_t *shifts);
void wd_echoes_free(struct wd_echoes *echoes);

/* Messages are about to be looked at; seq: of the last verdict sent. */
void wd_echoes_look(struct wd_echoes *echoes, int64_t now, uint32_t seq);
/* All messages were read that the kernel sent before it took the verdict seq. */
void wd_echoes_confirm(struct wd_echoes *echoes, uint32_t seq);
/* Nothing was queued any more. */
void wd_echoes_drained(struct wd_echoes *echoes, int64_t now);

/* To be kept with a packet that is taken, and asked for when it has gone back: may it come again? */
static inline uint32_t
wd_echoes_stamp(const struct wd_echoes *echoes)
{
    return echoes->settled;
}

static inline uint32_t
wd_echoes_now(const struct wd_echoes *echoes)
{
    return echoes->shifts ? atomic_load_explicit(echoes->shifts, memory_order_acquire) : echoes->settled;
}

/*
 * This packet, given back by the verdict seq, may come again: before that
 * verdict is confirmed, as the kernel goes on with the packet while it takes the
 * verdict.  Without memory it may do so unnoticed.
 */
void wd_echoes_expect(struct wd_echoes *echoes, const uint8_t *data, size_t len, uint32_t seq, int64_t now);
/* Is it one that was expected?  Then that one is forgotten. */
bool wd_echoes_take(struct wd_echoes *echoes, const uint8_t *data, size_t len, int64_t now);

#endif
