/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The compiled filter: a list of tests, each with the test to go to when it holds and when not. */
#ifndef WD_CORE_PROG_H
#define WD_CORE_PROG_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "field.h"
#include "packet.h"
#include "windivert.h"

enum wd_op { WD_OP_EQ, WD_OP_NE, WD_OP_LT, WD_OP_LE, WD_OP_GT, WD_OP_GE };

#define WD_ACCEPT UINT32_MAX
#define WD_REJECT (UINT32_MAX - 1)
#define WD_TESTS_MAX 16384 /* tests of one filter (documented: at least 4,096) */
#define WD_DEPTH_MAX 1024  /* levels of nesting */

/*
 * "field op value": yes where it holds; no where it does not, and also where
 * the packet does not have the field or the array index is out of range.
 * Jumps only go forward: yes and no are WD_ACCEPT, WD_REJECT or > own index.
 * The value is a sign and a 128-bit magnitude; in a folded program it lies
 * strictly inside the field's range in the sense that the test is not
 * constant; in an unfolded one it may be anything.
 */
struct wd_test {
    uint8_t field; /* enum wd_field */
    uint8_t op;    /* enum wd_op */
    bool neg;      /* the value is below zero */
    int32_t index; /* ARRAY: byte offset of the word, from the start if >= 0, from the end if < 0 */
    uint64_t hi, lo;
    uint32_t yes, no;
};

struct wd_step; /* a test prepared for evaluation */

struct wd_prog {
    WINDIVERT_LAYER layer;
    uint32_t start; /* first test, or WD_ACCEPT, WD_REJECT for a constant filter */
    uint32_t count;
    struct wd_test *tests;
    struct wd_step *steps; /* the tests again, for wd_prog_eval; NULL where a program was put together by hand */
};

/*
 * Evaluates.  packet: the parsed packet, NULL at the event layers; at the
 * packet layers a buffer that wd_packet_parse refused makes every filter
 * false: the caller then does not call this.
 */
bool wd_prog_eval(const struct wd_prog *prog, const struct wd_packet *packet, const WINDIVERT_ADDRESS *addr);

#endif
