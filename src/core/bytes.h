/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Loads and stores at any address, in a named byte order; nothing here reads past the bytes it names. */
#ifndef WD_CORE_BYTES_H
#define WD_CORE_BYTES_H

#include <stdint.h>

static inline uint16_t
wd_load_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t
wd_load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t
wd_load_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static inline uint64_t
wd_load_le64(const uint8_t *p)
{
    return (uint64_t)wd_load_le32(p + 4) << 32 | wd_load_le32(p);
}

static inline void
wd_store_be16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void
wd_store_be32(uint8_t *p, uint32_t value)
{
    wd_store_be16(p, (uint16_t)(value >> 16));
    wd_store_be16(p + 2, (uint16_t)value);
}

#endif
