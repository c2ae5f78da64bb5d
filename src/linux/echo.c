/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "echo.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MS INT64_C(10000)     /* of 100 ns */
#define SETTLE_TIME (50 * MS) /* no packet is longer on its way through the hooks as they were before */
#define KEEP_TIME (1000 * MS) /* at most: a verdict is confirmed before */
#define ENTRIES 8192          /* a power of two */
#define PROBES 16

struct wd_echo {
    uint64_t digest;
    int64_t until; /* 100 ns; 0: free */
    uint32_t seq;  /* of the verdict */
    bool common;   /* there was another like it: none of them is taken for an echo */
};

void
wd_echoes_start(struct wd_echoes *echoes, const _Atomic uint32_t *shifts)
{
    echoes->shifts = shifts;
    echoes->seen = echoes->settled = wd_echoes_now(echoes);
    echoes->marked = false;
}

void
wd_echoes_free(struct wd_echoes *echoes)
{
    free(echoes->table);
    echoes->table = NULL;
}

void
wd_echoes_look(struct wd_echoes *echoes, int64_t now, uint32_t seq)
{
    uint32_t count = wd_echoes_now(echoes);

    if (count == echoes->settled)
        return;
    if (count != echoes->seen) {
        echoes->seen = count;
        echoes->changed_at = now;
        echoes->marked = false;
    } else if (echoes->drained_at - echoes->changed_at > SETTLE_TIME) {
        echoes->settled = count;
    } else if (!echoes->marked && now - echoes->changed_at > SETTLE_TIME) {
        echoes->mark = seq;
        echoes->marked = true;
    }
}

void
wd_echoes_confirm(struct wd_echoes *echoes, uint32_t seq)
{
    echoes->confirmed = seq;
    if (!echoes->marked || (int32_t)(seq - echoes->mark) < 0)
        return;
    echoes->settled = echoes->seen;
    echoes->marked = false;
}

void
wd_echoes_drained(struct wd_echoes *echoes, int64_t now)
{
    echoes->drained_at = now;
}

/* Keyed, so that no sender can choose packets that are taken for each other. */
static uint64_t
digest(const struct wd_echoes *echoes, const uint8_t *data, size_t len)
{
    uint64_t sum = echoes->key ^ len;

    for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
        uint64_t word = 0;

        memcpy(&word, data + i, len - i < sizeof(word) ? len - i : sizeof(word));
        sum = (sum ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        sum = (sum << 29 | sum >> 35) + echoes->key;
    }
    return sum ^ sum >> 32;
}

static bool
make_table(struct wd_echoes *echoes)
{
    if (echoes->table)
        return true;
    if (getrandom(&echoes->key, sizeof(echoes->key), 0) != sizeof(echoes->key))
        return false;
    echoes->table = calloc(ENTRIES, sizeof(*echoes->table));
    return echoes->table;
}

/* The entry of a digest; else a free place for it, or that of the one that is forgotten first. */
static struct wd_echo *
find_place(struct wd_echoes *echoes, uint64_t sum, int64_t now)
{
    struct wd_echo *place = &echoes->table[sum % ENTRIES];

    for (uint64_t i = 0; i < PROBES; i++) {
        struct wd_echo *next = &echoes->table[(sum + i) % ENTRIES];

        if (next->digest == sum && next->until > now)
            return next;
        if (next->until < place->until)
            place = next;
    }
    return place;
}

void
wd_echoes_expect(struct wd_echoes *echoes, const uint8_t *data, size_t len, uint32_t seq, int64_t now)
{
    struct wd_echo *place;
    uint64_t sum;

    if (!make_table(echoes))
        return;
    sum = digest(echoes, data, len);
    place = find_place(echoes, sum, now);
    *place = (struct wd_echo){
        .digest = sum,
        .until = now + KEEP_TIME,
        .seq = seq,
        .common = place->digest == sum && place->until > now,
    };
    echoes->until = now + KEEP_TIME;
    echoes->fresh = true;
}

bool
wd_echoes_take(struct wd_echoes *echoes, const uint8_t *data, size_t len, int64_t now)
{
    struct wd_echo *echo;
    uint64_t sum;

    if (now >= echoes->until)
        return false;
    sum = digest(echoes, data, len);
    echo = find_place(echoes, sum, now);
    if (echo->digest != sum || echo->until <= now || echo->common || (int32_t)(echoes->confirmed - echo->seq) >= 0)
        return false;
    echo->common = true;
    return true;
}
