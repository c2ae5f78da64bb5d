/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * One test: a value is loaded and compared.
 *
 * Where the header of the field, or the element of an array, may not be there,
 * the test does not hold.  Either a jump leads away before the comparison, or,
 * a jump less, the value is made one for which it does not hold: r0 is all ones
 * where it is not there and 0 where it is.
 */
#include "core/tree.h"
#include "gen_test.h"

/* ---- Whether it is there ------------------------------------------------ */

/* Outcome by class alone. */
static void
branch_class(struct wd_tests *t, uint8_t set, uint32_t yes, uint32_t no)
{
    const struct wd_compare c = {.op = BPF_JSET, .dst = R0, .imm = set};

    if (!(t->classes & ~set)) {
        wd_tests_go_to(t, yes, t->classes);
    } else if (!(t->classes & set)) {
        wd_tests_go_to(t, no, t->classes);
    } else {
        wd_gen_read(t->g, BPF_W, R0, SP_INFO);
        wd_tests_branch(t, c, yes, t->classes & set, no, t->classes & (uint8_t)~set);
    }
}

/* Whether a test with this operator does not hold for 0, so that nothing is made 0; else for all ones. */
static bool
wants_zero(uint8_t op)
{
    return op == WD_OP_NE || op == WD_OP_GT || op == WD_OP_GE;
}

/* dst becomes a number for which the operator does not hold where r0 is all ones; r0 is lost. */
static void
gen_absent(struct wd_tests *t, uint8_t op, int dst)
{
    struct wd_asm *a = &t->g->a;

    if (wants_zero(op)) {
        wd_asm_alu_imm(a, BPF_XOR, R0, -1);
        wd_asm_alu(a, BPF_AND, dst, R0);
    } else {
        wd_asm_alu(a, BPF_OR, dst, R0);
    }
}

/* ---- Values ------------------------------------------------------------- */

/* Fields whose value each program knows. */
static bool
is_constant(const struct wd_gen_opts *opts, uint8_t field, uint64_t *ret_value)
{
    bool outbound = opts->hook == WD_HOOK_LOCAL_OUT;

    switch (field) {
    case WD_F_FALSE:
    case WD_F_EVENT:
    case WD_F_SUBIFIDX:
        *ret_value = 0;
        return true;
    case WD_F_TRUE:
        *ret_value = 1;
        return true;
    case WD_F_INBOUND:
        *ret_value = !outbound;
        return true;
    case WD_F_OUTBOUND:
        *ret_value = outbound;
        return true;
    case WD_F_LOOPBACK:
        *ret_value = opts->loopback;
        return !opts->kernel;
    case WD_F_IFIDX:
        *ret_value = opts->oif;
        return outbound && !opts->kernel;
    default:
        return false;
    }
}

/* Tests of the same value have the same number. */
static uint32_t
value_id(const struct wd_test *test)
{
    bool array = wd_fields[test->field].kind == WD_KIND_ARRAY;

    return test->field | (array ? (uint32_t)(test->index + 65536) << 8 : 0);
}

/* r1 = the field, unless it is there already */
static void
load_value(struct wd_tests *t, const struct wd_test *test)
{
    uint32_t id = value_id(test);

    if (t->cached != id)
        wd_gen_field(t->g, test->field);
    t->cached = id;
    t->absent = NEVER;
}

/* r1, r2 = the halves of an address */
static void
load_address(struct wd_tests *t, const struct wd_test *test)
{
    uint32_t id = value_id(test);

    if (t->cached == id)
        return;
    wd_gen_half(t->g, test->field, true, R1);
    wd_gen_half(t->g, test->field, false, R2);
    t->cached = id;
    t->absent = NEVER;
}

/* ---- Comparisons -------------------------------------------------------- */

/* How a test is done. */
struct manner {
    const struct wd_test *test;
    uint8_t with; /* the classes that have its header, where they are told apart by r0; else all */
};

static int
jump_op(uint8_t op, bool is_signed)
{
    static const int unsigned_op[] = {BPF_JEQ, BPF_JNE, BPF_JLT, BPF_JLE, BPF_JGT, BPF_JGE};
    static const int signed_op[] = {BPF_JEQ, BPF_JNE, BPF_JSLT, BPF_JSLE, BPF_JSGT, BPF_JSGE};

    return is_signed ? signed_op[op] : unsigned_op[op];
}

static void
finish(struct wd_tests *t, const struct manner *m, struct wd_compare c)
{
    wd_tests_branch(t, c, m->test->yes, t->classes & m->with, m->test->no, t->classes);
}

/* The same, of a value for which the test does not hold where r0 is all ones. */
static void
finish_absent(struct wd_tests *t, const struct manner *m, struct wd_compare c)
{
    t->cached = NO_VALUE;
    if (m->test->op == WD_OP_NE) { /* only what is equal is 0 */
        wd_asm_alu32_imm(&t->g->a, BPF_XOR, R1, (int32_t)c.imm);
        c.imm = 0;
    }
    gen_absent(t, m->test->op, R1);
    c.reg = !wants_zero(m->test->op) && c.imm > INT32_MAX; /* 32 bits of all ones are a value as well */
    if (c.reg)
        wd_asm_load_imm64(&t->g->a, R3, c.imm);
    finish(t, m, c);
}

/* r3 = the bits in which the address differs: one jump, and the address stays in its registers */
static void
compare_equal(struct wd_tests *t, const struct manner *m)
{
    const struct wd_compare c = {.op = jump_op(m->test->op, false), .dst = R3, .wide = true};
    struct wd_asm *a = &t->g->a;

    load_address(t, m->test);
    wd_asm_load_imm64(a, R3, m->test->hi);
    wd_asm_load_imm64(a, R4, m->test->lo);
    wd_asm_alu(a, BPF_XOR, R3, R1);
    wd_asm_alu(a, BPF_XOR, R4, R2);
    wd_asm_alu(a, BPF_OR, R3, R4);
    if (m->with != INFO_CLASSES) {
        wd_gen_without(t->g, m->with, R0);
        gen_absent(t, m->test->op, R3);
    }
    finish(t, m, c);
}

/* The upper halves are compared, or, where they are equal, the lower ones. */
static void
compare_halves(struct wd_tests *t, const struct manner *m)
{
    const struct wd_compare c = {.op = jump_op(m->test->op, false), .dst = R1, .reg = true};
    struct wd_asm *a = &t->g->a;
    uint32_t differ = wd_asm_label(a);

    wd_gen_half(t->g, m->test->field, true, R1);
    wd_asm_load_imm64(a, R3, m->test->hi);
    wd_asm_jump_if(a, BPF_JNE, R1, R3, differ);
    wd_gen_half(t->g, m->test->field, false, R1);
    wd_asm_load_imm64(a, R3, m->test->lo);
    wd_asm_bind(a, differ);
    t->cached = NO_VALUE;
    finish(t, m, c);
}

/* A test of order as "below" or "not below" a bound; false: one that compare_borrow cannot do. */
static bool
bound_of(const struct wd_test *test, uint64_t *ret_hi, uint64_t *ret_lo)
{
    bool next = test->op == WD_OP_LE || test->op == WD_OP_GT;

    *ret_lo = test->lo + next;
    *ret_hi = test->hi + (next && *ret_lo == 0);
    return *ret_hi != UINT64_MAX;
}

/*
 * No jump but the last: the address is below a bound if its upper half is below
 * the bound's upper half, plus 1 if its lower half is below the bound's lower
 * half.  That is the sign of a difference of numbers of up to 2^63: of the
 * halves of the numbers, rounded down for an even bound, up for an odd one.
 */
static void
compare_borrow(struct wd_tests *t, const struct manner *m, uint64_t hi, uint64_t lo)
{
    bool below = m->test->op == WD_OP_LT || m->test->op == WD_OP_LE;
    const struct wd_compare c = {.op = below ? BPF_JLT : BPF_JGE, .dst = R2, .reg = true};
    struct wd_asm *a = &t->g->a;

    wd_gen_half(t->g, m->test->field, true, R2);
    wd_asm_load_imm64(a, R3, hi);
    if (lo) {
        wd_gen_read(t->g, BPF_DW, R1, t->g->halved[m->test->field] + (lo & 1 ? 8 : 0));
        wd_asm_load_imm64(a, R4, (lo >> 1) + (lo & 1));
        wd_asm_alu(a, BPF_SUB, R1, R4);
        wd_asm_alu_imm(a, BPF_RSH, R1, 63);
        wd_asm_alu(a, BPF_ADD, R3, R1);
    }
    if (m->with != INFO_CLASSES) {
        wd_gen_without(t->g, m->with, R0);
        gen_absent(t, m->test->op, R2);
    }
    t->cached = NO_VALUE;
    finish(t, m, c);
}

static void
compare_address(struct wd_tests *t, const struct manner *m)
{
    uint64_t hi, lo;

    if (m->test->op == WD_OP_EQ || m->test->op == WD_OP_NE)
        compare_equal(t, m);
    else if (t->g->halved[m->test->field] && bound_of(m->test, &hi, &lo))
        compare_borrow(t, m, hi, lo);
    else
        compare_halves(t, m);
}

static void
compare_value(struct wd_tests *t, const struct manner *m)
{
    const struct wd_test *test = m->test;
    bool is_signed = wd_fields[test->field].kind == WD_KIND_INT;
    struct wd_compare c = {
        .op = jump_op(test->op, is_signed), .dst = R1, .imm = (uint32_t)test->lo, .reg = is_signed};

    load_value(t, test);
    if (m->with != INFO_CLASSES) {
        wd_gen_without(t->g, m->with, R0);
        finish_absent(t, m, c);
        return;
    }
    if (c.reg)
        wd_asm_load_imm64(&t->g->a, R3, test->neg ? -test->lo : test->lo);
    finish(t, m, c);
}

/* ---- Elements of arrays ------------------------------------------------- */

/* r1 is no element: the test does not hold. */
static const struct wd_compare out_of_range = {.op = BPF_JSLT, .dst = R1, .wide = true, .imm = 0};

/* Whether the next test is on the same element and is reached from this one alone where this one holds. */
static bool
same_again(const struct wd_tests *t, const struct wd_test *test)
{
    uint32_t next = t->at + 1;

    return test->yes == next && value_id(&t->g->prog->tests[next]) == value_id(test);
}

/* r0 = all ones where it is below 0, else 0 */
static void
gen_spread(struct wd_tests *t)
{
    wd_asm_alu_imm(&t->g->a, BPF_ARSH, R0, 63);
}

/*
 * r1 = an element, r0 = 0, or below 0 where there is none or no such header.
 * False: there never is one; the test is ended.
 */
static bool
load_element(struct wd_tests *t, const struct manner *m)
{
    if (!wd_gen_element(t->g, &t->windows, t->at)) {
        wd_tests_go_to(t, m->test->no, t->classes);
        return false;
    }
    if (m->with != INFO_CLASSES) {
        wd_gen_without(t->g, m->with, R2);
        wd_asm_alu(&t->g->a, BPF_OR, R0, R2);
    }
    return true;
}

/*
 * r1 = an element that stays there for the next test, unless it is there
 * already; where there is none, 0 or a number below 0 of 64 bits.
 */
static bool
keep_element(struct wd_tests *t, const struct manner *m, bool zero)
{
    uint32_t id = value_id(m->test);

    if (t->cached == id && (t->absent == NEVER || (t->absent == ZERO) == zero))
        return true;
    if (!load_element(t, m))
        return false;
    if (zero)
        gen_spread(t);
    gen_absent(t, zero ? WD_OP_GE : WD_OP_EQ, R1);
    t->cached = id;
    t->absent = zero ? ZERO : NEGATIVE;
    return true;
}

static void
compare_kept(struct wd_tests *t, const struct manner *m)
{
    const struct wd_test *test = m->test;
    struct wd_compare c = {.op = jump_op(test->op, false), .dst = R1, .imm = (uint32_t)test->lo};

    if (!keep_element(t, m, test->op != WD_OP_NE && wants_zero(test->op)))
        return;
    if (test->op == WD_OP_NE && t->absent == NEGATIVE) {
        wd_tests_leave_if(t, &out_of_range, test->no);
        t->absent = NEVER;
    }
    /* The lower half of an error is above INT32_MAX: up to there 32 bits will do. */
    c.reg = t->absent == NEGATIVE && test->lo > INT32_MAX;
    if (c.reg)
        wd_asm_load_imm64(&t->g->a, R3, test->lo);
    finish(t, m, c);
    if (t->falls && test->yes == t->at + 1 && test->no != t->at + 1)
        t->absent = NEVER; /* the test held */
}

static void
compare_element(struct wd_tests *t, const struct manner *m)
{
    const struct wd_compare c = {.op = BPF_JNE, .dst = R1, .imm = (uint32_t)m->test->lo};

    if (m->test->op != WD_OP_NE || t->cached == value_id(m->test) || same_again(t, m->test)) {
        compare_kept(t, m);
    } else if (load_element(t, m)) {
        gen_spread(t);
        finish_absent(t, m, c);
    }
}

/* A test that holds for every element that there is. */
static void
compare_range(struct wd_tests *t, const struct manner *m)
{
    const struct wd_test *test = m->test;

    if (!keep_element(t, m, false))
        return;
    if (t->absent == NEGATIVE)
        wd_tests_branch(t, out_of_range, test->no, t->classes, test->yes, t->classes & m->with);
    else
        wd_tests_go_to(t, test->yes, t->classes);
}

/* ---- One test ----------------------------------------------------------- */

/*
 * Whether to do without a jump for packets that do not have the header.  It is
 * quicker for most packets, but then two ways lead on to the next test, and the
 * verifier follows each; unless the jump leads further on, or away, and where the
 * test holds it is then known that the header is there.
 */
static bool
one_jump(const struct wd_tests *t, const struct wd_test *test, uint8_t without)
{
    uint64_t hi, lo;

    if (!t->g->large || wd_tests_thread(t, test->no, without) != test->no)
        return false;
    if (test->no >= WD_REJECT && (test->yes >= WD_REJECT || !(t->place[test->yes].classes & without)))
        return false;
    if (wd_fields[test->field].kind != WD_KIND_ADDR || test->op == WD_OP_EQ || test->op == WD_OP_NE)
        return true;
    return t->g->halved[test->field] && bound_of(test, &hi, &lo) && (hi || !wants_zero(test->op));
}

/* Where the field is not there the test does not hold; false: it never is. */
static bool
require(struct wd_tests *t, struct manner *m)
{
    uint8_t with = wd_classes_with(m->test->field), without = t->classes & (uint8_t)~with;

    if (without == t->classes) {
        wd_tests_go_to(t, m->test->no, t->classes);
        return false;
    }
    if (without && one_jump(t, m->test, without))
        m->with = with;
    else if (without)
        wd_tests_leave_without(t, with, m->test->no);
    return true;
}

/* What can be said of a test that does not depend on the packet but for the header. */
static enum wd_verdict
decide(const struct wd_tests *t, const struct wd_test *test)
{
    const struct wd_number number = {test->neg, test->hi, test->lo};
    enum wd_verdict verdict = wd_range_decide(test->field, test->op, &number);
    uint64_t value;

    if (verdict == WD_DEPENDS && is_constant(t->g->opts, test->field, &value))
        verdict = wd_test_holds(test, value) ? WD_ALWAYS : WD_NEVER;
    return verdict;
}

void
wd_tests_compare(struct wd_tests *t, const struct wd_test *test)
{
    const struct wd_field_info *info = &wd_fields[test->field];
    struct manner m = {.test = test, .with = INFO_CLASSES};
    enum wd_verdict verdict = decide(t, test);
    uint8_t set = wd_classes_of_flag(test->field);

    if (verdict == WD_NEVER)
        wd_tests_go_to(t, test->no, t->classes);
    else if (verdict == WD_ALWAYS && info->kind != WD_KIND_ARRAY)
        branch_class(t, wd_classes_with(test->field), test->yes, test->no);
    else if (set)
        branch_class(t, wd_test_holds(test, 1) ? set : (uint8_t)~set, test->yes, test->no);
    else if (!require(t, &m))
        return;
    else if (verdict == WD_ALWAYS)
        compare_range(t, &m);
    else if (info->kind == WD_KIND_ADDR)
        compare_address(t, &m);
    else if (info->kind == WD_KIND_ARRAY)
        compare_element(t, &m);
    else
        compare_value(t, &m);
}
