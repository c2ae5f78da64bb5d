/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The laws of tests/unit/filter_law.h on arbitrary filters (texts and objects)
 * and packets:
 *
 *   byte 0   byte 1         bytes 2..3      then
 *   layer    bits of addr   length of text  filter, packet
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filter_law.h"

#define PACKET_MAX 65575 /* `length` is at most this */

static void
read_address(const uint8_t *data, WINDIVERT_ADDRESS *ret_addr)
{
    static const uint8_t events[] = {0, 1, 3, 8, 8};

    memset(ret_addr, 0, sizeof(*ret_addr));
    ret_addr->Layer = data[0] % 5;
    ret_addr->Event = events[ret_addr->Layer] + (data[0] >> 7);
    ret_addr->Timestamp = (INT64)data[1] - 100;
    ret_addr->Outbound = data[1] & 1;
    ret_addr->Loopback = data[1] >> 1 & 1;
    ret_addr->Impostor = data[1] >> 2 & 1;
    ret_addr->IPv6 = data[1] >> 4 & 1;
    if (ret_addr->Layer == WINDIVERT_LAYER_REFLECT) {
        ret_addr->Reflect.Priority = data[1];
        ret_addr->Reflect.Layer = (WINDIVERT_LAYER)(data[1] % 5);
    } else if (ret_addr->Layer > WINDIVERT_LAYER_NETWORK_FORWARD) {
        ret_addr->Flow.Protocol = data[1] & 32 ? 6 : 17;
        ret_addr->Flow.LocalAddr[0] = ret_addr->Flow.RemotePort = data[1];
    } else {
        ret_addr->Network.IfIdx = data[1] & 3;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct law_counts counts = {0};
    struct law_subject subject;
    WINDIVERT_ADDRESS addr;
    struct wd_packet packet;
    const char *broken;
    size_t text_len, packet_len, subjects = 0;
    char *text;

    if (size < 4)
        return 0;
    text_len = (size_t)data[2] | (size_t)data[3] << 8;
    if (text_len > size - 4)
        text_len = size - 4;
    packet_len = size - 4 - text_len;
    text = malloc(text_len + 1);
    if (!text)
        return 0;
    memcpy(text, data + 4, text_len);
    text[text_len] = 0;
    read_address(data, &addr);
    subject = (struct law_subject){NULL, &addr};
    if (addr.Layer > WINDIVERT_LAYER_NETWORK_FORWARD) {
        subjects = 1;
    } else if (packet_len <= PACKET_MAX && wd_packet_parse(data + 4 + text_len, packet_len, &packet)) {
        subject.packet = &packet;
        subjects = 1;
    }
    broken = law_check(text, (WINDIVERT_LAYER)addr.Layer, &subject, subjects, data[1] * 0x9E3779B97F4A7C15, &counts);
    if (broken) {
        fprintf(stderr, "layer %u: %s\n%s\n", addr.Layer, broken, text);
        abort();
    }
    free(text);
    return 0;
}
