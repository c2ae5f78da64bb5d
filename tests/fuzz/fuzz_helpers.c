/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The helper functions on arbitrary bytes:
 *
 *   byte 0            byte 1         bytes 2..3      then
 *   layer, flag bits  bits of addr   length of text  filter text, packet
 *
 * What an accepted filter promises is checked: its object gives the same
 * matches and the same normal form, and the normal form is its own.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "windivert.h"

#define FORM_MAX (1 << 20)
#define OBJECT_MAX (1 << 20)

static char form[FORM_MAX], again[FORM_MAX], object[OBJECT_MAX];

static void
must(int truth)
{
    if (!truth)
        abort();
}

static void
fuzz_filter(const char *text, WINDIVERT_LAYER layer, const void *packet, UINT len, const WINDIVERT_ADDRESS *addr)
{
    const char *why = "unset";
    UINT pos = 0;
    BOOL match;

    if (!WinDivertHelperCompileFilter(text, layer, object, sizeof(object), &why, &pos)) {
        must(why && pos <= strlen(text));
        return;
    }
    if (!WinDivertHelperFormatFilter(text, layer, form, sizeof(form))) {
        must(GetLastError() == ERROR_INSUFFICIENT_BUFFER);
        return;
    }
    must(WinDivertHelperFormatFilter(form, layer, again, sizeof(again)));
    must(strcmp(form, again) == 0);
    if (strstr(form, "random")) /* differs from call to call */
        return;
    match = WinDivertHelperEvalFilter(text, packet, len, addr);
    must(WinDivertHelperEvalFilter(form, packet, len, addr) == match);
    must(WinDivertHelperEvalFilter(object, packet, len, addr) == match);
}

static void
fuzz_packet(const uint8_t *data, UINT len, const WINDIVERT_ADDRESS *addr, UINT64 flags)
{
    WINDIVERT_ADDRESS copy = *addr;
    uint8_t *packet = malloc(len ? len : 1);
    void *payload = NULL, *next = NULL;
    UINT payload_len = 0, next_len = 0;

    if (!packet)
        return;
    memcpy(packet, data, len);
    if (WinDivertHelperParsePacket(packet, len, NULL, NULL, NULL, NULL, NULL, NULL, NULL, &payload, &payload_len,
                                   &next, &next_len)) {
        must(!payload || (uint8_t *)payload + payload_len <= packet + len);
        must(!next || (uint8_t *)next + next_len == packet + len);
    }
    (void)WinDivertHelperHashPacket(packet, len, flags);
    WinDivertHelperCalcChecksums(packet, len, &copy, flags);
    WinDivertHelperDecrementTTL(packet, len);
    free(packet);
}

static void
fuzz_text(const char *text)
{
    UINT32 words[4];
    char buffer[64];

    if (WinDivertHelperParseIPv4Address(text, words))
        must(WinDivertHelperFormatIPv4Address(words[0], buffer, sizeof(buffer)));
    if (WinDivertHelperParseIPv6Address(text, words))
        must(WinDivertHelperFormatIPv6Address(words, buffer, sizeof(buffer)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    WINDIVERT_ADDRESS addr = {0};
    size_t text_len;
    char *text;

    if (size < 4)
        return 0;
    text_len = (size_t)data[2] | (size_t)data[3] << 8;
    if (text_len > size - 4)
        text_len = size - 4;
    text = malloc(text_len + 1);
    if (!text)
        return 0;
    memcpy(text, data + 4, text_len);
    text[text_len] = 0;

    addr.Layer = data[0] % 5;
    addr.Outbound = data[1] & 1;
    addr.Loopback = data[1] >> 1 & 1;
    addr.Impostor = data[1] >> 2 & 1;
    addr.Sniffed = data[1] >> 3 & 1;
    addr.IPv6 = data[1] >> 4 & 1;
    if (addr.Layer <= WINDIVERT_LAYER_NETWORK_FORWARD)
        addr.Network.IfIdx = data[1];

    fuzz_text(text);
    fuzz_filter(text, (WINDIVERT_LAYER)addr.Layer, data + 4 + text_len, (UINT)(size - 4 - text_len), &addr);
    fuzz_packet(data + 4 + text_len, (UINT)(size - 4 - text_len), &addr, data[0] >> 3);
    free(text);
    return 0;
}
