/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * What Recv writes into the bytes of a WINDIVERT_ADDRESS that the manual leaves
 * unused, and by which Send knows the packet it is given:
 *
 *   Reserved2          low half of the handle's tag, never 0: zeroed addresses do not fit
 *   union, byte 0      WINDIVERT_DATA_NETWORK
 *   union, byte 8      struct wd_addr_tag
 *   union, byte 40     zero
 */
#ifndef WD_LINUX_ADDRTAG_H
#define WD_LINUX_ADDRTAG_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "windivert.h"

struct wd_addr_tag {
    uint64_t handle; /* random, of the handle */
    uint32_t packet_id;
    uint32_t generation;
    uint16_t queue;
    uint16_t unused;
    uint32_t process_id;
    uint32_t mark; /* of the packet, so that a new one made of it takes the same route */
    uint32_t unused2;
};
_Static_assert(sizeof(struct wd_addr_tag) == 32, "layout of the tag");

#define WD_ADDR_TAG_OFFSET 8

static inline void
wd_addr_tag_put(WINDIVERT_ADDRESS *addr, const struct wd_addr_tag *tag)
{
    addr->Reserved2 = (uint32_t)tag->handle;
    memcpy(addr->Reserved3 + WD_ADDR_TAG_OFFSET, tag, sizeof(*tag));
}

/* False: not an address that a handle with this tag wrote. */
static inline bool
wd_addr_tag_get(const WINDIVERT_ADDRESS *addr, uint64_t handle, struct wd_addr_tag *ret_tag)
{
    if (addr->Reserved2 != (uint32_t)handle)
        return false;
    memcpy(ret_tag, addr->Reserved3 + WD_ADDR_TAG_OFFSET, sizeof(*ret_tag));
    return ret_tag->handle == handle;
}

#endif
