/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "filter_corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 6

static void
die(const char *file, const char *what)
{
    fprintf(stderr, "%s: %s\n", file, what);
    exit(1);
}

typedef void row_function(struct corpus *corpus, char **columns);

static void
read_rows(struct corpus *corpus, const char *name, size_t columns, row_function *function)
{
    char path[1024], *line = NULL, *cell[COLUMNS];
    size_t room = 0;
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", TEST_VECTORS_DIR, name);
    file = fopen(path, "r");
    if (!file)
        die(path, "cannot be read");
    while (getline(&line, &room, file) > 0) {
        size_t count = 0;

        line[strcspn(line, "\n")] = 0;
        for (char *rest = line; rest && count < COLUMNS; count++)
            cell[count] = strsep(&rest, "\t");
        if (count != columns)
            die(path, "a row has other columns than expected");
        function(corpus, cell);
    }
    free(line);
    fclose(file);
}

static size_t
index_below(const char *text, size_t limit)
{
    size_t index = strtoul(text, NULL, 10);

    if (index >= limit)
        die("vectors", "an id is out of range");
    return index;
}

static size_t
hex_bytes(const char *text, uint8_t *bytes, size_t room)
{
    size_t len = strlen(text) / 2;

    if (len > room)
        die("vectors", "a row is too long");
    for (size_t i = 0; i < len; i++)
        if (sscanf(text + 2 * i, "%2hhx", &bytes[i]) != 1)
            die("vectors", "bad hexadecimal digits");
    return len;
}

static void
packet_row(struct corpus *corpus, char **cell)
{
    struct corpus_packet *packet = &corpus->packets[index_below(cell[0], CORPUS_PACKETS)];

    packet->len = strlen(cell[1]) / 2;
    packet->data = malloc(packet->len ? packet->len : 1);
    if (!packet->data)
        die("vectors", "out of memory");
    hex_bytes(cell[1], packet->data, packet->len);
    packet->valid = wd_packet_parse(packet->data, packet->len, &packet->packet);
    corpus->packet_count++;
}

static void
read_address(const char *text, WINDIVERT_ADDRESS *addr)
{
    uint8_t bytes[sizeof(*addr)];

    if (hex_bytes(text, bytes, sizeof(bytes)) != sizeof(bytes))
        die("vectors", "an address is not 80 bytes");
    memcpy(addr, bytes, sizeof(bytes));
}

static void
packet_address_row(struct corpus *corpus, char **cell)
{
    struct corpus_packet *packet = &corpus->packets[index_below(cell[0], CORPUS_PACKETS)];
    size_t layer = index_below(cell[1], 2);

    for (size_t i = 0; i < CORPUS_ADDRESSES; i++)
        read_address(cell[2 + i], &packet->addr[layer][i]);
}

static void
event_row(struct corpus *corpus, char **cell)
{
    size_t layer = index_below(cell[0], CORPUS_LAYERS);

    read_address(cell[2], &corpus->events[layer][index_below(cell[1], CORPUS_EVENTS)]);
    corpus->event_count[layer]++;
}

/* The two characters \t stand for a tab. */
static char *
unescape(const char *text)
{
    char *copy = strdup(text), *to = copy;

    for (const char *from = text; *from; from++) {
        if (from[0] == '\\' && from[1] == 't') {
            *to++ = '\t';
            from++;
        } else {
            *to++ = *from;
        }
    }
    *to = 0;
    return copy;
}

static void
filter_row(struct corpus *corpus, char **cell)
{
    struct corpus_filter *filter = &corpus->filters[index_below(cell[0], CORPUS_FILTERS)];

    filter->layer = (WINDIVERT_LAYER)index_below(cell[1], CORPUS_LAYERS);
    filter->text = unescape(cell[2]);
    filter->verdict = strdup(cell[3]);
    filter->pos = (unsigned)strtoul(cell[4], NULL, 10);
    corpus->filter_count++;
}

static void
match_row(struct corpus *corpus, char **cell)
{
    struct corpus_filter *filter = &corpus->filters[index_below(cell[0], CORPUS_FILTERS)];

    if (!filter->text || filter->matches)
        die("matches.tsv", "a row without a filter, or a second one");
    filter->matches = strdup(cell[1]);
}

struct corpus *
corpus_load(void)
{
    struct corpus *corpus = calloc(1, sizeof(*corpus));

    if (!corpus)
        die("vectors", "out of memory");
    read_rows(corpus, "packets.tsv", 2, packet_row);
    read_rows(corpus, "packetaddrs.tsv", 5, packet_address_row);
    read_rows(corpus, "eventaddrs.tsv", 3, event_row);
    read_rows(corpus, "filters.tsv", 5, filter_row);
    read_rows(corpus, "matches.tsv", 2, match_row);
    return corpus;
}

void
corpus_free(struct corpus *corpus)
{
    for (size_t i = 0; i < CORPUS_PACKETS; i++)
        free(corpus->packets[i].data);
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        free(corpus->filters[i].text);
        free(corpus->filters[i].verdict);
        free(corpus->filters[i].matches);
    }
    free(corpus);
}
