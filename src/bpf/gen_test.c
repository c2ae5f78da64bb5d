/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The tests, in their order; jumps only go forward.
 *
 * What is known of the packet where a test begins is the set of the classes
 * (bits of the info word) it can be of, united over all ways to the test: a
 * header is looked for only where it is not known to be there or not, and a
 * jump to a test whose outcome is known for the class goes where that leads.
 *
 * A value stays in its register for the next test only where that one is
 * reached from this one alone.
 *
 * The verifier follows the fall-through first and keeps the other ways for
 * later, up to 8,192 of them, and every "jump to accept if" of a chain of tests
 * is one.  Long programs are therefore cut into sections, and a jump in front,
 * which is never taken, leads to the beginning of each.  The verifier takes the
 * way into the last section first, and has seen all of it and dropped what it
 * kept when it comes into it from the section before.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/tree.h"
#include "gen_impl.h"

#define THREAD_MAX 64 /* steps of looking ahead: bounds the time, not the outcome */
#define NO_VALUE UINT32_MAX
#define SECTION 1024 /* tests: each has 4 jumps at most */

/* A place in the program: a test, WD_ACCEPT or WD_REJECT. */
struct place {
    uint32_t label;
    uint8_t classes;           /* that can come here; 0: none does */
    bool jumped;               /* some jump leads here: nothing is known of the registers */
    struct wd_windows windows; /* what they hold on every way that leads here */
};

/* What r1 is where the element of an array that should be in it is not in the packet. */
enum absent { NEVER, /* ... it is in the packet, or is no element */ NEGATIVE, ZERO };

struct tests {
    struct wd_gen *g;
    struct place *place;
    uint32_t at;     /* the test in hand */
    uint8_t classes; /* ... what can be there */
    bool falls;      /* the test before falls through to this one */
    uint32_t cached; /* whose value is in r1 (and r2), by value_id; NO_VALUE */
    enum absent absent;
    struct wd_windows windows;
};

/* A comparison, of 32 or 64 bits, with a constant (sign-extended to 64) or with r3. */
struct compare {
    int op, dst;
    bool wide, reg;
    uint32_t imm;
};

/* ---- What the classes tell ---------------------------------------------- */

/* The classes that have the header a field is in. */
static uint8_t
classes_with(uint8_t field)
{
    switch (wd_fields[field].src) {
    case WD_SRC_IP4:
        return INFO_IP4;
    case WD_SRC_IP6:
        return INFO_IP6;
    case WD_SRC_ICMP:
        return INFO_IP4_ICMP;
    case WD_SRC_ICMP6:
        return INFO_IP6_ICMP6;
    case WD_SRC_TCP:
    case WD_SRC_TCPDATA:
        return INFO_TCP;
    case WD_SRC_UDP:
    case WD_SRC_UDPDATA:
        return INFO_UDP;
    default:
        return INFO_CLASSES;
    }
}

/* The classes for which a field that only depends on the class is 1; 0: the field is none of those. */
static uint8_t
classes_of_flag(uint8_t field)
{
    switch (field) {
    case WD_F_IP:
        return INFO_IP4;
    case WD_F_IPV6:
        return INFO_IP6;
    case WD_F_ICMP:
        return INFO_IP4_ICMP;
    case WD_F_ICMPV6:
        return INFO_IP6_ICMP6;
    case WD_F_TCP:
        return INFO_TCP;
    case WD_F_UDP:
        return INFO_UDP;
    default:
        return 0;
    }
}

static bool
holds(const struct wd_test *test, uint64_t value)
{
    const struct wd_number left = {false, 0, value}, right = {test->neg, test->hi, test->lo};

    return wd_op_holds(test->op, wd_number_compare(&left, &right));
}

/* Follows tests that are decided for these classes. */
static uint32_t
thread(const struct tests *t, uint32_t target, uint8_t classes)
{
    const struct wd_test *tests = t->g->prog->tests;

    for (int steps = 0; target < WD_REJECT && steps < THREAD_MAX; steps++) {
        const struct wd_test *test = &tests[target];
        uint8_t set = classes_of_flag(test->field);

        if (!(classes & classes_with(test->field)))
            target = test->no;
        else if (set && !(classes & ~set))
            target = holds(test, 1) ? test->yes : test->no;
        else if (set && !(classes & set))
            target = holds(test, 0) ? test->yes : test->no;
        else
            break;
    }
    return target;
}

static struct place *
place_of(const struct tests *t, uint32_t target)
{
    uint32_t count = t->g->prog->count;

    return &t->place[target == WD_ACCEPT ? count : target == WD_REJECT ? count + 1 : target];
}

/* ---- Jumps -------------------------------------------------------------- */

/* One more way leads to a target. */
static struct place *
arrive(struct tests *t, uint32_t target, uint8_t classes)
{
    struct place *place = place_of(t, target);

    for (int i = 0; i < WD_ARRAYS; i++) {
        struct wd_window *there = &place->windows.of[i], here = t->windows.of[i];

        if (!place->classes)
            *there = here;
        else if (there->low != here.low || there->high != here.high)
            *there = (struct wd_window){0, 0};
    }
    place->classes |= classes;
    return place;
}

/* The label of a target, which a jump will lead to. */
static uint32_t
reach(struct tests *t, uint32_t target, uint8_t classes)
{
    struct place *place = arrive(t, target, classes);

    place->jumped = true;
    return place->label;
}

static void
jump_if(struct tests *t, const struct compare *c, uint32_t label)
{
    if (c->reg)
        wd_asm_jump_if(&t->g->a, c->op, c->dst, R3, label);
    else if (c->wide)
        wd_asm_jump_if_imm(&t->g->a, c->op, c->dst, (int32_t)c->imm, label);
    else
        wd_asm_jump32_if_imm(&t->g->a, c->op, c->dst, c->imm, label);
}

/* Leaves the test on the way. */
static void
leave_if(struct tests *t, const struct compare *c, uint32_t target)
{
    jump_if(t, c, reach(t, thread(t, target, t->classes), t->classes));
}

static void
go_to(struct tests *t, uint32_t target, uint8_t classes)
{
    target = thread(t, target, classes);
    if (target == t->at + 1) {
        arrive(t, target, classes);
        t->falls = true;
    } else {
        wd_asm_jump(&t->g->a, reach(t, target, classes));
    }
}

static struct compare
invert(struct compare c)
{
    static const struct {
        int op, inverse;
    } pair[] = {
        {BPF_JEQ, BPF_JNE}, {BPF_JLT, BPF_JGE}, {BPF_JLE, BPF_JGT}, {BPF_JSLT, BPF_JSGE}, {BPF_JSLE, BPF_JSGT}};

    if (c.op == BPF_JSET) { /* one of the classes: any of the others */
        c.imm = ~c.imm & INFO_CLASSES;
        return c;
    }
    for (size_t i = 0; i < sizeof(pair) / sizeof(pair[0]); i++) {
        if (c.op == pair[i].op) {
            c.op = pair[i].inverse;
            break;
        }
        if (c.op == pair[i].inverse) {
            c.op = pair[i].op;
            break;
        }
    }
    return c;
}

/* Ends a test: to one of two targets.  Either is the next test, which is fallen into, or is jumped to. */
static void
branch(struct tests *t, struct compare c, uint32_t yes, uint8_t yes_classes, uint32_t no, uint8_t no_classes)
{
    yes = thread(t, yes, yes_classes);
    no = thread(t, no, no_classes);
    if (yes == no) {
        go_to(t, yes, yes_classes | no_classes);
    } else if (yes == t->at + 1) {
        c = invert(c);
        jump_if(t, &c, reach(t, no, no_classes));
        go_to(t, yes, yes_classes);
    } else {
        jump_if(t, &c, reach(t, yes, yes_classes));
        go_to(t, no, no_classes);
    }
}

/* Outcome by class alone. */
static void
branch_class(struct tests *t, uint8_t set, uint32_t yes, uint32_t no)
{
    const struct compare c = {.op = BPF_JSET, .dst = R0, .imm = set};

    if (!(t->classes & ~set))
        go_to(t, yes, t->classes);
    else if (!(t->classes & set))
        go_to(t, no, t->classes);
    else {
        wd_gen_read(t->g, BPF_W, R0, SP_INFO);
        branch(t, c, yes, t->classes & set, no, t->classes & (uint8_t)~set);
    }
}

/* Where the field is not there the test does not hold; false: it never is. */
static bool
require(struct tests *t, const struct wd_test *test)
{
    uint8_t with = classes_with(test->field), without = t->classes & (uint8_t)~with;

    if (without && without != t->classes) {
        wd_gen_if_info(t->g, ~with & INFO_CLASSES, reach(t, thread(t, test->no, without), without));
        t->classes &= with;
    } else if (without) {
        go_to(t, test->no, t->classes);
        return false;
    }
    return true;
}

/* ---- Values ------------------------------------------------------------- */

/* Fields whose value each program knows. */
static bool
is_constant(const struct wd_gen_opts *opts, uint8_t field, uint64_t *ret_value)
{
    bool outbound = opts->hook == WD_HOOK_LOCAL_OUT;

    switch (field) {
    case WD_F_ZERO:
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
        return true;
    case WD_F_IFIDX:
        *ret_value = opts->oif;
        return outbound;
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
load_value(struct tests *t, const struct wd_test *test)
{
    uint32_t id = value_id(test);

    if (t->cached != id)
        wd_gen_field(t->g, test->field);
    t->cached = id;
    t->absent = NEVER;
}

/* r1, r2 = the halves of an address */
static void
load_address(struct tests *t, const struct wd_test *test)
{
    uint32_t id = value_id(test);

    if (t->cached == id)
        return;
    wd_gen_half(t->g, test->field, true, R1);
    wd_gen_half(t->g, test->field, false, R2);
    t->cached = id;
    t->absent = NEVER;
}

/* ---- One test ----------------------------------------------------------- */

static int
jump_op(uint8_t op, bool is_signed)
{
    static const int unsigned_op[] = {BPF_JEQ, BPF_JNE, BPF_JLT, BPF_JLE, BPF_JGT, BPF_JGE};
    static const int signed_op[] = {BPF_JEQ, BPF_JNE, BPF_JSLT, BPF_JSLE, BPF_JSGT, BPF_JSGE};

    return is_signed ? signed_op[op] : unsigned_op[op];
}

static void
finish(struct tests *t, const struct wd_test *test, struct compare c)
{
    branch(t, c, test->yes, t->classes, test->no, t->classes);
}

/* r3 = the bits in which the address differs: one jump, and the address stays in its registers */
static void
compare_equal(struct tests *t, const struct wd_test *test)
{
    const struct compare c = {.op = jump_op(test->op, false), .dst = R3, .wide = true};
    struct wd_asm *a = &t->g->a;

    wd_asm_load_imm64(a, R3, test->hi);
    wd_asm_load_imm64(a, R4, test->lo);
    wd_asm_alu(a, BPF_XOR, R3, R1);
    wd_asm_alu(a, BPF_XOR, R4, R2);
    wd_asm_alu(a, BPF_OR, R3, R4);
    finish(t, test, c);
}

/* The upper halves are compared, or, where they are equal, the lower ones. */
static void
compare_order(struct tests *t, const struct wd_test *test)
{
    const struct compare c = {.op = jump_op(test->op, false), .dst = R1, .reg = true};
    struct wd_asm *a = &t->g->a;
    uint32_t differ = wd_asm_label(a);

    wd_gen_half(t->g, test->field, true, R1);
    wd_asm_load_imm64(a, R3, test->hi);
    wd_asm_jump_if(a, BPF_JNE, R1, R3, differ);
    wd_gen_half(t->g, test->field, false, R1);
    wd_asm_load_imm64(a, R3, test->lo);
    wd_asm_bind(a, differ);
    t->cached = NO_VALUE;
    finish(t, test, c);
}

static void
compare_wide(struct tests *t, const struct wd_test *test)
{
    if (test->op == WD_OP_EQ || test->op == WD_OP_NE) {
        load_address(t, test);
        compare_equal(t, test);
    } else {
        compare_order(t, test);
    }
}

static void
compare_value(struct tests *t, const struct wd_test *test)
{
    bool is_signed = wd_fields[test->field].kind == WD_KIND_INT;
    struct compare c = {.op = jump_op(test->op, is_signed), .dst = R1, .imm = (uint32_t)test->lo, .reg = is_signed};

    load_value(t, test);
    if (c.reg)
        wd_asm_load_imm64(&t->g->a, R3, test->neg ? -test->lo : test->lo);
    finish(t, test, c);
}

/* ---- Elements of arrays ------------------------------------------------- */

/* r1 is no element: the test does not hold. */
static const struct compare out_of_range = {.op = BPF_JSLT, .dst = R1, .wide = true, .imm = 0};

static bool
wants_zero(const struct wd_test *test)
{
    return test->op == WD_OP_GT || test->op == WD_OP_GE;
}

/* Whether the next test is on the same element and is reached from this one alone where this one holds. */
static bool
same_again(const struct tests *t, const struct wd_test *test)
{
    uint32_t next = t->at + 1;

    return test->yes == next && next < t->g->prog->count && value_id(&t->g->prog->tests[next]) == value_id(test);
}

/* r0 = 0 where there is no element, else all ones */
static void
presence(struct tests *t)
{
    wd_asm_alu_imm(&t->g->a, BPF_ARSH, R0, 63);
    wd_asm_alu_imm(&t->g->a, BPF_XOR, R0, -1);
}

/*
 * r1 = an element, unless it is there already; where there is none, 0 or a
 * number below 0 of 64 bits, for which the test does not hold: a jump less for
 * each test.  False: there never is one.
 */
static bool
load_element(struct tests *t, const struct wd_test *test, bool zero)
{
    uint32_t id = value_id(test);

    if (t->cached == id && (t->absent == NEVER || (t->absent == ZERO) == zero))
        return true;
    if (!wd_gen_element(t->g, &t->windows, t->at))
        return false;
    if (zero) {
        presence(t);
        wd_asm_alu(&t->g->a, BPF_AND, R1, R0);
    } else {
        wd_asm_alu(&t->g->a, BPF_OR, R1, R0);
    }
    t->cached = id;
    t->absent = zero ? ZERO : NEGATIVE;
    return true;
}

/* Ends a test that holds only where there is an element: the next test knows that. */
static void
finish_element(struct tests *t, const struct wd_test *test, struct compare c)
{
    finish(t, test, c);
    if (t->falls && test->yes == t->at + 1 && test->no != t->at + 1)
        t->absent = NEVER;
}

/* r1 = 0 where the element is equal or is not there */
static void
compare_different(struct tests *t, const struct wd_test *test)
{
    const struct compare c = {.op = BPF_JNE, .dst = R1};

    if (!wd_gen_element(t->g, &t->windows, t->at)) {
        go_to(t, test->no, t->classes);
        return;
    }
    presence(t);
    wd_asm_alu32_imm(&t->g->a, BPF_XOR, R1, (int32_t)test->lo);
    wd_asm_alu(&t->g->a, BPF_AND, R1, R0);
    t->cached = NO_VALUE;
    finish(t, test, c);
}

static void
compare_element(struct tests *t, const struct wd_test *test)
{
    struct compare c = {.op = jump_op(test->op, false), .dst = R1, .imm = (uint32_t)test->lo};

    if (test->op == WD_OP_NE && t->cached != value_id(test) && !same_again(t, test)) {
        compare_different(t, test);
        return;
    }
    if (!load_element(t, test, wants_zero(test))) {
        go_to(t, test->no, t->classes);
        return;
    }
    if (test->op == WD_OP_NE && t->absent == NEGATIVE) {
        leave_if(t, &out_of_range, test->no);
        t->absent = NEVER;
    }
    /* The lower half of an error is above INT32_MAX: up to there 32 bits will do. */
    c.reg = t->absent == NEGATIVE && test->lo > INT32_MAX;
    if (c.reg)
        wd_asm_load_imm64(&t->g->a, R3, test->lo);
    finish_element(t, test, c);
}

/* A test that holds for every element that there is. */
static void
compare_range(struct tests *t, const struct wd_test *test)
{
    if (!load_element(t, test, false))
        go_to(t, test->no, t->classes);
    else if (t->absent == NEGATIVE)
        branch(t, out_of_range, test->no, t->classes, test->yes, t->classes);
    else
        go_to(t, test->yes, t->classes);
}

static void
gen_test(struct tests *t, const struct wd_test *test)
{
    const struct wd_number number = {test->neg, test->hi, test->lo};
    const struct wd_field_info *info = &wd_fields[test->field];
    enum wd_verdict verdict = wd_range_decide(test->field, test->op, &number);
    uint8_t set = classes_of_flag(test->field);
    uint64_t value;

    if (!require(t, test))
        return;
    if (verdict == WD_DEPENDS && is_constant(t->g->opts, test->field, &value))
        verdict = holds(test, value) ? WD_ALWAYS : WD_NEVER;
    if (verdict == WD_ALWAYS && info->kind == WD_KIND_ARRAY)
        compare_range(t, test);
    else if (verdict != WD_DEPENDS)
        go_to(t, verdict == WD_ALWAYS ? test->yes : test->no, t->classes);
    else if (set && holds(test, 1))
        branch_class(t, set, test->yes, test->no);
    else if (set)
        branch_class(t, set, test->no, test->yes);
    else if (info->kind == WD_KIND_ADDR)
        compare_wide(t, test);
    else if (info->kind == WD_KIND_ARRAY)
        compare_element(t, test);
    else
        compare_value(t, test);
}

/* ---- All of them -------------------------------------------------------- */

static int
prepare(struct tests *t)
{
    uint32_t count = t->g->prog->count;

    t->place = calloc(count + 2, sizeof(*t->place));
    if (!t->place)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        t->place[i].label = wd_asm_label(&t->g->a);
    t->place[count].label = t->g->accept;
    t->place[count + 1].label = t->g->no_match;
    return 0;
}

/* The jumps into the sections, for the verifier; the one that is taken leads to the first test. */
static void
gen_start(struct tests *t, uint8_t classes)
{
    const struct wd_prog *prog = t->g->prog;
    uint32_t last = (prog->count - 1) / SECTION * SECTION;

    t->at = UINT32_MAX; /* in front of test 0 */
    if (prog->start >= WD_REJECT || last <= prog->start) {
        go_to(t, prog->start, classes);
        return;
    }
    for (uint32_t at = 0; at < last; at += SECTION) {
        uint32_t target = at <= prog->start ? prog->start : at;

        if (at + SECTION <= prog->start)
            continue;
        wd_gen_hidden_zero(t->g, R0);
        wd_asm_jump_if_imm(&t->g->a, BPF_JEQ, R0, 0, reach(t, target, classes));
    }
    wd_asm_jump(&t->g->a, reach(t, last, classes));
}

static void
gen_all(struct tests *t)
{
    const struct wd_prog *prog = t->g->prog;

    gen_start(t, t->g->needs.transport ? INFO_CLASSES : INFO_IP4_OTHER | INFO_IP6_OTHER);
    for (uint32_t i = 0; i < prog->count; i++) {
        struct place *place = &t->place[i];

        if (!place->classes)
            continue;
        wd_asm_relay(&t->g->a, t->falls);
        wd_asm_bind(&t->g->a, place->label);
        if (place->jumped || !t->falls)
            t->cached = NO_VALUE;
        t->at = i;
        t->classes = place->classes;
        t->windows = place->windows;
        t->falls = false;
        gen_test(t, &prog->tests[i]);
    }
}

int
wd_gen_tests(struct wd_gen *g)
{
    struct tests t = {.g = g, .cached = NO_VALUE};
    int error = prepare(&t);

    if (error)
        return error;
    gen_all(&t);
    g->matches = t.place[g->prog->count].classes;
    g->misses = t.place[g->prog->count + 1].classes;
    free(t.place);
    return 0;
}
