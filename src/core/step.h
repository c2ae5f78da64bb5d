/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* A test as wd_prog_eval runs it. */
#ifndef WD_CORE_STEP_H
#define WD_CORE_STEP_H

#include "prog.h"

/*
 * How a step gets its value.  Below WD_FIELD_COUNT it is a field that is
 * always present, computed by a function; from there on:
 */
enum wd_load {
    WD_LOAD_IP8 = WD_FIELD_COUNT, /* at off in the IP header, if the version is `need` */
    WD_LOAD_IP16,
    WD_LOAD_IP32,
    WD_LOAD_IP128,
    WD_LOAD_L4_8, /* at off in the transport header, if it is `need` */
    WD_LOAD_L4_16,
    WD_LOAD_L4_32,
    WD_LOAD_DATA_LEN, /* bytes of payload, if the transport header is `need` */
    WD_LOAD_ARRAY8,   /* at off in the buffer (need == WD_L4_NONE) or the payload, from its end if off < 0 */
    WD_LOAD_ARRAY16,
    WD_LOAD_ARRAY32,
    WD_LOAD_LOCAL, /* 128 bits */
    WD_LOAD_REMOTE,
};

#define WD_STEP_ACCEPT UINT16_MAX
#define WD_STEP_REJECT (UINT16_MAX - 1)

/*
 * Up to 64 bits: the test holds where ((value & mask) - base <= span) differs
 * from `invert`: every comparison asks whether the value lies in one interval,
 * or outside it, also the signed ones, modulo 2^64.
 * 128 bits: base and span are the high and the low half to compare with by op.
 */
struct wd_step {
    uint8_t load; /* enum wd_load */
    uint8_t need;
    union {
        uint8_t invert; /* 0 or 1 */
        uint8_t op;
    };
    int32_t off;
    uint32_t mask;    /* header fields and arrays: the bits of the field, where they lie in the load */
    uint16_t yes, no; /* the next step, WD_STEP_ACCEPT or WD_STEP_REJECT */
    uint64_t base, span;
};

_Static_assert(WD_TESTS_MAX < WD_STEP_REJECT, "16 bits number every step");
_Static_assert(WD_LOAD_REMOTE <= UINT8_MAX, "8 bits number every load");

void wd_step_prepare(struct wd_step *step, const struct wd_test *test);

#endif
