/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * modify: replaces a word in the data of the packets that match a filter.
 *
 *     modify FILTER WORD NEW-WORD        (both words have the same length)
 */
#include <stdio.h>
#include <string.h>

#include "support.h"
#include "windivert.h"

/* Replaces it everywhere in data; how often. */
static UINT
replace(char *data, size_t len, const char *word, const char *new_word)
{
    size_t word_len = strlen(word);
    UINT count = 0;

    for (size_t i = 0; i + word_len <= len; i++)
        if (memcmp(data + i, word, word_len) == 0) {
            memcpy(data + i, new_word, word_len);
            count++;
        }
    return count;
}

static void
modify(HANDLE handle, const char *word, const char *new_word)
{
    static char packet[WINDIVERT_MTU_MAX];
    UINT64 packets = 0, words = 0;
    WINDIVERT_ADDRESS addr;
    UINT len, data_len, count;

    while (WinDivertRecv(handle, packet, sizeof(packet), &len, &addr)) {
        void *data = NULL;

        WinDivertHelperParsePacket(packet, len, NULL, NULL, NULL, NULL, NULL, NULL, NULL, &data, &data_len, NULL,
                                   NULL);
        count = data ? replace(data, data_len, word, new_word) : 0;
        if (count)
            WinDivertHelperCalcChecksums(packet, len, &addr, 0);
        if (!WinDivertSend(handle, packet, len, NULL, &addr))
            complain_last_error();
        packets++;
        words += count;
    }
    if (GetLastError() != ERROR_NO_DATA)
        complain_last_error();
    printf("%llu packets, %llu words replaced\n", (unsigned long long)packets, (unsigned long long)words);
}

int
main(int argc, char **argv)
{
    HANDLE handle;

    tool_name = "modify";
    if (argc != 4 || !argv[2][0] || strlen(argv[2]) != strlen(argv[3])) {
        fprintf(stderr, "usage: modify FILTER WORD NEW-WORD   (words of the same length)\n");
        return 1;
    }
    handle = open_network(argv[1], 0, 0);
    if (handle == INVALID_HANDLE_VALUE || !stop_on_signal(handle))
        return 1;
    modify(handle, argv[2], argv[3]);
    WinDivertClose(handle);
    return 0;
}
