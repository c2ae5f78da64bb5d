/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The rows of tests/vectors, and what they are made of. */
#ifndef VECTORS_H
#define VECTORS_H

#include <stddef.h>
#include <stdint.h>

#define VECTORS_FIELDS 16

struct vectors {
    struct vectors_file *file;
    unsigned row; /* from 1, of what is in field */
    int count;
    char *field[VECTORS_FIELDS];
};

/* Opens tests/vectors/NAME; ends the program where it cannot be read. */
void vectors_open(struct vectors *rows, const char *name);

/* The next row, split at its tabs, in rows->field until the call after; 0: none is left, and the file is closed. */
int vectors_next(struct vectors *rows);

/*
 * The bytes of a hexadecimal text, in a block of exactly their number (at
 * least one is allocated), to be freed.  Ends the program where it is no such text.
 */
uint8_t *vectors_bytes(const char *hex, size_t *ret_len);

/* A packet of packets.tsv in a block of exactly its length, to be freed; NULL: there is no such id. */
uint8_t *vectors_packet(unsigned id, size_t *ret_len);

#endif
