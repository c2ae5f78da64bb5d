/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What the order of the tests (gen_test.c) and their comparisons (gen_compare.c) share. */
#ifndef WD_BPF_GEN_TEST_H
#define WD_BPF_GEN_TEST_H

#include "gen_impl.h"

#define NO_VALUE UINT32_MAX

/* A place in the program: a test, WD_ACCEPT or WD_REJECT. */
struct wd_place {
    uint32_t label;
    uint8_t classes;           /* that can come here; 0: none does */
    bool jumped;               /* some jump leads here: nothing is known of the registers */
    struct wd_windows windows; /* what they hold on every way that leads here */
};

/* What r1 is where the element of an array that should be in it is not in the packet. */
enum wd_absent { NEVER, /* ... it is in the packet, or is no element */ NEGATIVE, ZERO };

struct wd_tests {
    struct wd_gen *g;
    struct wd_place *place;
    uint32_t at;     /* the test in hand */
    uint8_t classes; /* ... what can be there */
    bool falls;      /* the test before falls through to this one */
    bool arrays;     /* there are tests of elements */
    uint32_t cached; /* whose value is in r1 (and r2), by value_id; NO_VALUE */
    enum wd_absent absent;
    struct wd_windows windows;
    uint32_t seen, insns, jumps; /* see gen_mark */
};

/* A comparison, of 32 or 64 bits, with a constant (sign-extended to 64) or with r3. */
struct wd_compare {
    int op, dst;
    bool wide, reg;
    uint32_t imm;
};

/* The classes for which a field that only depends on the class is 1; 0: the field is none of those. */
uint8_t wd_classes_of_flag(uint8_t field);
bool wd_test_holds(const struct wd_test *test, uint64_t value);

/* Where a jump for these classes leads, over all tests that are decided for them. */
uint32_t wd_tests_thread(const struct wd_tests *t, uint32_t target, uint8_t classes);
/* Ends a test for these classes. */
void wd_tests_go_to(struct wd_tests *t, uint32_t target, uint8_t classes);
/* Leaves the test on the way: by a comparison, for all classes; or for those that do not have a field's header. */
void wd_tests_leave_if(struct wd_tests *t, const struct wd_compare *c, uint32_t target);
void wd_tests_leave_without(struct wd_tests *t, uint8_t with, uint32_t target);
/* Ends a test: to one of two targets.  Either is the next test, which is fallen into, or is jumped to. */
void wd_tests_branch(struct wd_tests *t, struct wd_compare c, uint32_t yes, uint8_t yes_classes, uint32_t no,
                     uint8_t no_classes);
/* Generates the test in hand. */
void wd_tests_compare(struct wd_tests *t, const struct wd_test *test);

#endif
