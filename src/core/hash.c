/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * One round of xxHash64 over 64 bytes made from the headers:
 *
 *   lane     1        2          3           4
 *   w        the rest of an IPv6 header, transport header, seed where nothing is left
 *   a        seed     IP 0..7    IP 8..15    IPv4 16..19, IPv6 16..23
 *
 * each xored with a constant of its place; w is the accumulator of a lane, a its input.
 */
#include "hash.h"

#include "bytes.h"

#define P1 UINT64_C(11400714785074694791)
#define P2 UINT64_C(14029467366897019727)
#define P3 UINT64_C(1609587929392839161)
#define P4 UINT64_C(9650029242287828579)

/* The first round constants of SHA-256, two to a word: a[] takes 0..3, w[] 4..7. */
static const uint64_t K[] = {
    UINT64_C(0x428A2F9871374491), UINT64_C(0xB5C0FBCFE9B5DBA5), UINT64_C(0x3956C25B59F111F1),
    UINT64_C(0x923F82A4AB1C5ED5), UINT64_C(0xD807AA9812835B01), UINT64_C(0x243185BE550C7DC3),
    UINT64_C(0x72BE5D7480DEB1FE), UINT64_C(0x9BDC06A7C19BF174),
};

struct lanes {
    uint64_t a[4], w[4];
    unsigned used; /* words of w[] */
};

static uint64_t
rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static uint64_t
mix(uint64_t acc, uint64_t x)
{
    return rotl(acc + x * P2, 31) * P1;
}

static void
append(struct lanes *lanes, uint64_t word)
{
    lanes->w[lanes->used] = word ^ K[4 + lanes->used];
    lanes->used++;
}

static void
take_ip(struct lanes *lanes, const uint8_t *ip, uint8_t version)
{
    lanes->a[1] = wd_load_le64(ip) ^ K[1];
    lanes->a[2] = wd_load_le64(ip + 8) ^ K[2];
    lanes->a[3] = (version == 4 ? wd_load_le32(ip + 16) : wd_load_le64(ip + 16)) ^ K[3];
    if (version == 6) {
        append(lanes, wd_load_le64(ip + 24));
        append(lanes, wd_load_le64(ip + 32));
    }
}

/* A TCP header's last word finds no room behind IPv6 addresses: it goes into the second lane. */
static void
take_transport(struct lanes *lanes, const uint8_t *l4, uint8_t kind)
{
    if (kind == WD_L4_NONE)
        return;
    append(lanes, wd_load_le64(l4));
    if (kind != WD_L4_TCP)
        return;
    append(lanes, wd_load_le64(l4 + 8));
    if (lanes->used < 4)
        append(lanes, wd_load_le32(l4 + 16));
    else
        lanes->a[1] ^= (uint64_t)wd_load_le32(l4 + 16) << 32;
}

static uint64_t
finish(const struct lanes *lanes)
{
    uint64_t v[4], h;

    for (unsigned i = 0; i < 4; i++)
        v[i] = mix(lanes->w[i], lanes->a[i]);
    h = rotl(v[0], 1) + rotl(v[1], 7) + rotl(v[2], 12) + rotl(v[3], 18);
    for (unsigned i = 0; i < 4; i++)
        h = (h ^ mix(0, v[i])) * P1 + P4;
    h += 32;
    h = (h ^ h >> 33) * P2;
    h = (h ^ h >> 29) * P3;
    return h ^ h >> 32;
}

uint64_t
wd_hash_packet(const struct wd_packet *packet, uint64_t seed)
{
    struct lanes lanes = {.used = 0};

    lanes.a[0] = seed ^ K[0];
    take_ip(&lanes, packet->data, packet->version);
    take_transport(&lanes, packet->data + packet->l4_off, packet->l4);
    while (lanes.used < 4)
        append(&lanes, seed);
    return finish(&lanes);
}
