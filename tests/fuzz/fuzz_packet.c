/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Arbitrary bytes as a packet and as the text of an address:
 *
 *   byte 0                          then
 *   flags of CalcChecksums          the packet, or the text
 *
 * What must hold for every packet is in tests/unit/packet_law.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/packet_law.h"
#include "core/addr.h"
#include "windivert.h"

static void
must(int truth, const char *what)
{
    if (truth)
        return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* What was excluded is as it was. */
static void
fuzz_flags(const uint8_t *data, size_t len, UINT64 flags)
{
    uint8_t *packet = malloc(len ? len : 1);
    WINDIVERT_ADDRESS addr;

    if (!packet)
        return;
    memset(&addr, 0, sizeof(addr));
    memcpy(packet, data, len);
    WinDivertHelperCalcChecksums(packet, (UINT)len, &addr, flags);
    must(!(flags & WINDIVERT_HELPER_NO_IP_CHECKSUM) || !addr.IPChecksum, "IP excluded, but done");
    must(!(flags & WINDIVERT_HELPER_NO_TCP_CHECKSUM) || !addr.TCPChecksum, "TCP excluded, but done");
    must(!(flags & WINDIVERT_HELPER_NO_UDP_CHECKSUM) || !addr.UDPChecksum, "UDP excluded, but done");
    if ((flags & 31) == 31)
        must(memcmp(packet, data, len) == 0, "all excluded, but the packet changed");
    free(packet);
}

/* An address that is taken has a text, which is the same address. */
static void
fuzz_text(const char *text, size_t len)
{
    uint32_t words[4], again[4], number;
    char out[WD_ADDR6_TEXT];
    size_t out_len;

    if (wd_addr_parse4(text, len, &number)) {
        out_len = wd_addr_format4(number, out);
        must(out_len < WD_ADDR4_TEXT && strlen(out) == out_len, "length of an IPv4 text");
        must(wd_addr_parse4(out, out_len, &again[0]) && again[0] == number, "IPv4 address of its own text");
    }
    if (wd_addr_parse6(text, len, words)) {
        out_len = wd_addr_format6(words, out);
        must(out_len < WD_ADDR6_TEXT && strlen(out) == out_len, "length of an IPv6 text");
        must(wd_addr_parse6(out, out_len, again) && memcmp(again, words, sizeof(words)) == 0,
             "IPv6 address of its own text");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *wrong;
    bool packet;

    if (size < 1)
        return 0;
    fuzz_text((const char *)data + 1, size - 1);
    fuzz_flags(data + 1, size - 1, data[0]);
    wrong = packet_law(data + 1, size - 1, &packet);
    must(!wrong, wrong);
    return 0;
}
