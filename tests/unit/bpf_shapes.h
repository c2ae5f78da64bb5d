/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Long programs of every kind, put together by hand: what the generator makes of them must not depend on an optimiser. */
#ifndef BPF_SHAPES_H
#define BPF_SHAPES_H

#include "core/prog.h"

enum shape_form {
    SHAPE_OR,  /* a or b or ... */
    SHAPE_AND, /* a and b and ... */
    SHAPE_DNF, /* (a and b) or (c and d) or ... */
    SHAPE_CNF, /* (a or b) and (c or d) and ... */
    SHAPE_TREE /* a search by halves, as of a sorted list of values */
};

/* One test of a clause; the n-th has the n-th value, and of an array the index `first` + n * step. */
struct shape_test {
    uint8_t field, op;
    int32_t first; /* no array: the value is the one of n + first */
    int32_t step;
};

struct shape {
    const char *name;
    enum shape_form form;
    uint32_t width; /* tests of a clause: the first so many of test[] */
    struct shape_test test[8];
};

extern const struct shape shapes[];
extern const uint32_t shape_count;

/* count tests (a multiple of the width is made of it) into tests, which has room for them. */
void shape_build(const struct shape *shape, uint32_t count, struct wd_test *tests, struct wd_prog *ret_prog);
/* The n-th value: small n are near each other, all lie within the field's range. */
void shape_value(uint8_t field, uint32_t n, uint64_t *ret_hi, uint64_t *ret_lo);

#endif
