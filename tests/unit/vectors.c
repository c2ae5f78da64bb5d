/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vectors_file {
    FILE *stream;
    char *line;
    size_t room;
};

static void *
need(void *block)
{
    if (block)
        return block;
    perror("vectors");
    exit(2);
}

void
vectors_open(struct vectors *rows, const char *name)
{
    char path[4096];

    memset(rows, 0, sizeof(*rows));
    rows->file = need(calloc(1, sizeof(*rows->file)));
    snprintf(path, sizeof(path), "%s/%s", TEST_VECTORS_DIR, name);
    rows->file->stream = need(fopen(path, "r"));
}

int
vectors_next(struct vectors *rows)
{
    struct vectors_file *file = rows->file;
    ssize_t len = getline(&file->line, &file->room, file->stream);
    char *rest = file->line;

    if (len < 0) {
        fclose(file->stream);
        free(file->line);
        free(file);
        rows->file = NULL;
        return 0;
    }
    if (len > 0 && rest[len - 1] == '\n')
        rest[len - 1] = 0;
    for (rows->count = 0; rest && rows->count < VECTORS_FIELDS; rows->count++) {
        char *tab = strchr(rest, '\t');

        rows->field[rows->count] = rest;
        if (tab)
            *tab = 0;
        rest = tab ? tab + 1 : NULL;
    }
    rows->row++;
    return 1;
}

uint8_t *
vectors_bytes(const char *hex, size_t *ret_len)
{
    size_t len = strlen(hex) / 2;
    uint8_t *bytes = need(malloc(len ? len : 1));

    for (size_t i = 0; i < len; i++)
        if (sscanf(hex + 2 * i, "%2hhx", &bytes[i]) != 1) {
            fprintf(stderr, "vectors: not hexadecimal: %s\n", hex);
            exit(2);
        }
    *ret_len = len;
    return bytes;
}

uint8_t *
vectors_packet(unsigned id, size_t *ret_len)
{
    struct vectors rows;
    uint8_t *packet = NULL;

    vectors_open(&rows, "packets.tsv");
    while (vectors_next(&rows))
        if (!packet && strtoul(rows.field[0], NULL, 10) == id)
            packet = vectors_bytes(rows.field[1], ret_len);
    return packet;
}
