/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "fragment.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

#define IP4_DF 0x4000
#define IP4_MF 0x2000
#define IP4_OFFSET 0x1FFF
#define IP4_OPTION_COPIED 0x80 /* the option belongs in every fragment */
#define IP4_OPTION_NOP 1
#define IP6_FRAGMENT_HEADER 8
#define LENGTH_MAX 65535 /* lo's MTU is more */

/* Options of the first fragment only become no-operations. */
static void
blank_options(uint8_t *header, uint32_t len)
{
    for (uint32_t at = 20; at < len && header[at] != 0;) {
        uint32_t size = header[at] == IP4_OPTION_NOP || at + 1 >= len ? 1 : header[at + 1];

        if (size == 0 || at + size > len)
            return;
        if (!(header[at] & IP4_OPTION_COPIED))
            memset(header + at, IP4_OPTION_NOP, size);
        at += size;
    }
}

struct pieces {
    const struct wd_packet *packet;
    uint32_t head;  /* bytes repeated in every fragment: of the packet, ... */
    uint32_t extra; /* ... and a fragment header behind them */
    uint32_t next;  /* IPv6: offset of the byte that names the header behind head */
    uint32_t mtu;
    wd_fragment_fn fn;
    void *ctx;
    uint8_t *buffer; /* of mtu bytes */
    void (*mark)(struct pieces *pieces, uint32_t offset, uint32_t len, bool last);
    uint32_t id;
};

/* buffer: header as in the packet, `len` bytes of data from `offset` of its payload */
static void
mark4(struct pieces *pieces, uint32_t offset, uint32_t len, bool last)
{
    uint8_t *ip = pieces->buffer;
    uint16_t was = wd_load_be16(ip + 6);

    wd_store_be16(ip + 2, pieces->head + len);
    wd_store_be16(ip + 4, pieces->id);
    wd_store_be16(ip + 6, (was & ~(uint32_t)(IP4_MF | IP4_OFFSET)) | (last ? was & IP4_MF : IP4_MF) |
                              ((was & IP4_OFFSET) + offset / 8));
    if (offset)
        blank_options(ip, pieces->head);
}

/* Fragment header: next header, reserved, offset in units of 8 and M, identification. */
static void
mark6(struct pieces *pieces, uint32_t offset, uint32_t len, bool last)
{
    uint8_t *fragment = pieces->buffer + pieces->head;
    uint32_t id = htonl(pieces->id);

    wd_store_be16(pieces->buffer + 4, pieces->head - 40 + pieces->extra + len);
    fragment[0] = pieces->buffer[pieces->next];
    pieces->buffer[pieces->next] = IPPROTO_FRAGMENT;
    fragment[1] = 0;
    wd_store_be16(fragment + 2, offset | (last ? 0 : 1));
    memcpy(fragment + 4, &id, sizeof(id));
}

static int
emit(struct pieces *pieces)
{
    const struct wd_packet *packet = pieces->packet;
    uint32_t room = pieces->mtu - pieces->head - pieces->extra, total = packet->ip_len - pieces->head;
    int error = 0;

    for (uint32_t offset = 0; offset < total && !error;) {
        uint32_t len = total - offset <= room ? total - offset : room / 8 * 8;
        struct wd_packet fragment = {.version = packet->version, .data = pieces->buffer};

        memcpy(pieces->buffer, packet->data, pieces->head);
        memcpy(pieces->buffer + pieces->head + pieces->extra, packet->data + pieces->head + offset, len);
        pieces->mark(pieces, offset, len, offset + len == total);
        fragment.ip_len = fragment.buf_len = pieces->head + pieces->extra + len;
        error = pieces->fn(pieces->ctx, &fragment);
        offset += len;
    }
    return error;
}

/*
 * The part of an IPv6 packet that every hop has to see: the header and the
 * extension headers up to a hop-by-hop or routing header.  *ret_next: where the
 * number of the header behind it stands.
 */
static uint32_t
unfragmentable(const struct wd_packet *packet, uint32_t *ret_next)
{
    uint32_t at = 40, next = 6, end = 40;

    *ret_next = 6;
    while (at + 8 <= packet->ip_len) {
        uint8_t type = packet->data[next];

        if (type != 0 && type != 43 && type != 60)
            break;
        next = at;
        at += (packet->data[at + 1] + 1u) * 8;
        if (type != 60 && at <= packet->ip_len) {
            end = at;
            *ret_next = next;
        }
    }
    return end;
}

int
wd_fragment(const struct wd_packet *packet, uint32_t mtu, uint32_t id, wd_fragment_fn fn, void *ctx)
{
    struct pieces pieces = {.packet = packet, .fn = fn, .ctx = ctx, .id = id};
    int error;

    if (packet->version == 4) {
        if (wd_load_be16(packet->data + 6) & IP4_DF)
            return -EMSGSIZE;
        if ((wd_load_be16(packet->data + 6) & IP4_OFFSET) + packet->ip_len / 8 > IP4_OFFSET)
            return -EMSGSIZE; /* the offset of a piece would run into the flags */
        pieces.head = (packet->data[0] & 15u) * 4;
        pieces.mark = mark4;
        if (wd_load_be16(packet->data + 4))
            pieces.id = wd_load_be16(packet->data + 4);
    } else {
        if (packet->fragment)
            return -EMSGSIZE;
        pieces.head = unfragmentable(packet, &pieces.next);
        pieces.extra = IP6_FRAGMENT_HEADER;
        pieces.mark = mark6;
    }
    pieces.mtu = mtu < LENGTH_MAX ? mtu : LENGTH_MAX;
    if (mtu < pieces.head + pieces.extra + 8)
        return -EMSGSIZE;
    pieces.buffer = malloc(pieces.mtu);
    if (!pieces.buffer)
        return -ENOMEM;
    error = emit(&pieces);
    free(pieces.buffer);
    return error;
}
