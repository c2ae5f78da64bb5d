/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "segment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/cksum.h"

#define TCP_FLAGS 13 /* of the header: CWR ECE URG ACK PSH RST SYN FIN */
#define TCP_CWR 0x80
#define TCP_PSH 0x08
#define TCP_FIN 0x01

/* buffer: the packet's headers and `len` bytes of data from `offset` of its payload */
static void
mark(const struct wd_packet *packet, uint8_t *buffer, uint32_t number, uint32_t offset, uint32_t len, bool last)
{
    uint8_t *tcp = buffer + packet->l4_off;

    if (packet->version == 4) {
        wd_store_be16(buffer + 2, (uint16_t)(packet->data_off + len));
        wd_store_be16(buffer + 4, (uint16_t)(wd_load_be16(buffer + 4) + number));
    } else {
        wd_store_be16(buffer + 4, (uint16_t)(packet->data_off + len - 40));
    }
    wd_store_be32(tcp + 4, wd_load_be32(tcp + 4) + offset);
    if (offset)
        tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
    if (!last)
        tcp[TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    wd_cksum_fill(buffer, packet->data_off + len, 0);
}

int
wd_segment(const struct wd_packet *packet, uint32_t mtu, wd_fragment_fn fn, void *ctx)
{
    uint32_t head = packet->data_off, total = packet->ip_len - head, number = 0;
    uint8_t *buffer;
    int error = 0;

    if (packet->l4 != WD_L4_TCP || packet->fragment || packet->truncated || total == 0 || mtu <= head)
        return -EMSGSIZE;
    buffer = malloc(mtu);
    if (!buffer)
        return -ENOMEM;
    for (uint32_t offset = 0; offset < total && !error; number++) {
        uint32_t len = total - offset < mtu - head ? total - offset : mtu - head;
        struct wd_packet segment;

        memcpy(buffer, packet->data, head);
        memcpy(buffer + head, packet->data + head + offset, len);
        mark(packet, buffer, number, offset, len, offset + len == total);
        if (!wd_packet_parse(buffer, head + len, &segment))
            error = -EMSGSIZE;
        else
            error = fn(ctx, &segment);
        offset += len;
    }
    free(buffer);
    return error;
}
