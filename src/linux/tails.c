/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "tails.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/packet.h"
#include "windivert.h"

#define RING_SIZE (256 * 1024) /* 2,000 tails: a receive buffer holds fewer packets of that length */

int
wd_tails_new(struct wd_tails **ret_tails, struct wd_error *err)
{
    struct wd_tails *tails = calloc(1, sizeof(*tails));
    int error;

    if (!tails)
        return wd_error_set(err, -ENOMEM, NULL, "open: out of memory");
    error = wd_ring_new(RING_SIZE, &tails->ring, err);
    if (error) {
        free(tails);
        return error;
    }
    *ret_tails = tails;
    return 0;
}

void
wd_tails_close_fds(struct wd_tails *tails)
{
    wd_ring_close_fd(tails->ring);
}

void
wd_tails_free(struct wd_tails *tails)
{
    if (tails)
        wd_ring_free(tails->ring);
    free(tails);
}

/* Where the transport checksum is, which the kernel may complete after the program ran; WD_TAIL_HEAD: not so near. */
static size_t
checksum_at(const uint8_t *data)
{
    struct wd_packet packet;
    size_t at = WD_TAIL_HEAD;

    if (wd_packet_parse(data, WD_TAIL_FROM, &packet)) {
        if (packet.l4 == WD_L4_TCP)
            at = packet.l4_off + offsetof(WINDIVERT_TCPHDR, Checksum);
        else if (packet.l4 == WD_L4_UDP)
            at = packet.l4_off + offsetof(WINDIVERT_UDPHDR, Checksum);
    }
    return at < WD_TAIL_HEAD ? at : WD_TAIL_HEAD;
}

static bool
is_head(const uint8_t *data, const uint8_t head[WD_TAIL_HEAD])
{
    size_t at = checksum_at(data), behind = at + sizeof(uint16_t);

    return memcmp(data, head, at) == 0 &&
           (behind >= WD_TAIL_HEAD || memcmp(data + behind, head + behind, WD_TAIL_HEAD - behind) == 0);
}

static bool
complete(uint8_t *data, uint32_t len, const struct wd_tail *tail)
{
    if (tail->len != len || !is_head(data, tail->head))
        return false;
    memcpy(data + WD_TAIL_FROM, tail->tail, len - WD_TAIL_FROM);
    return true;
}

static bool
complete_from_kept(struct wd_tails *tails, uint8_t *data, uint32_t len)
{
    for (unsigned int i = 0; i < WD_TAILS_KEPT; i++) {
        struct wd_tail *tail = &tails->kept[(tails->next + i) % WD_TAILS_KEPT]; /* the oldest first */

        if (tail->len && complete(data, len, tail)) {
            tail->len = 0;
            return true;
        }
    }
    return false;
}

bool
wd_tails_complete(struct wd_tails *tails, uint8_t *data, uint32_t len)
{
    const struct wd_tail *tail;
    unsigned long next;

    if (len <= WD_TAIL_FROM || len > WD_TAIL_FROM + WD_TAIL_MAX)
        return false;
    if (complete_from_kept(tails, data, len))
        return true;
    while ((tail = wd_ring_peek(tails->ring, &next))) {
        bool found = complete(data, len, tail);

        if (!found) {
            tails->kept[tails->next] = *tail;
            tails->next = (tails->next + 1) % WD_TAILS_KEPT;
        }
        wd_ring_advance(tails->ring, next);
        if (found)
            return true;
    }
    return false;
}
