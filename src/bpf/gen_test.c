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
#include "gen_test.h"

#define THREAD_MAX 64 /* steps of looking ahead: bounds the time, not the outcome */
#define MARK_INSNS 8  /* see gen_mark */
#define MARK_JUMPS 2
#define SECTION 1024 /* tests: each has 4 jumps at most */

/* ---- What the classes tell ---------------------------------------------- */

uint8_t
wd_classes_with(uint8_t field)
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

uint8_t
wd_classes_of_flag(uint8_t field)
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

bool
wd_test_holds(const struct wd_test *test, uint64_t value)
{
    const struct wd_number left = {false, 0, value}, right = {test->neg, test->hi, test->lo};

    return wd_op_holds(test->op, wd_number_compare(&left, &right));
}

uint32_t
wd_tests_thread(const struct wd_tests *t, uint32_t target, uint8_t classes)
{
    const struct wd_test *tests = t->g->prog->tests;

    for (int steps = 0; target < WD_REJECT && steps < THREAD_MAX; steps++) {
        const struct wd_test *test = &tests[target];
        uint8_t set = wd_classes_of_flag(test->field);

        if (!(classes & wd_classes_with(test->field)))
            target = test->no;
        else if (set && !(classes & ~set))
            target = wd_test_holds(test, 1) ? test->yes : test->no;
        else if (set && !(classes & set))
            target = wd_test_holds(test, 0) ? test->yes : test->no;
        else
            break;
    }
    return target;
}

static struct wd_place *
place_of(const struct wd_tests *t, uint32_t target)
{
    uint32_t count = t->g->prog->count;

    return &t->place[target == WD_ACCEPT ? count : target == WD_REJECT ? count + 1 : target];
}

/* ---- Jumps -------------------------------------------------------------- */

/* One more way leads to a target. */
static struct wd_place *
arrive(struct wd_tests *t, uint32_t target, uint8_t classes)
{
    struct wd_place *place = place_of(t, target);

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
reach(struct wd_tests *t, uint32_t target, uint8_t classes)
{
    struct wd_place *place = arrive(t, target, classes);

    place->jumped = true;
    return place->label;
}

static void
jump_if(struct wd_tests *t, const struct wd_compare *c, uint32_t label)
{
    if (c->reg)
        wd_asm_jump_if(&t->g->a, c->op, c->dst, R3, label);
    else if (c->wide)
        wd_asm_jump_if_imm(&t->g->a, c->op, c->dst, (int32_t)c->imm, label);
    else
        wd_asm_jump32_if_imm(&t->g->a, c->op, c->dst, c->imm, label);
}

void
wd_tests_leave_if(struct wd_tests *t, const struct wd_compare *c, uint32_t target)
{
    jump_if(t, c, reach(t, wd_tests_thread(t, target, t->classes), t->classes));
}

void
wd_tests_leave_without(struct wd_tests *t, uint8_t with, uint32_t target)
{
    uint8_t without = t->classes & (uint8_t)~with;

    wd_gen_if_info(t->g, ~with & INFO_CLASSES, reach(t, wd_tests_thread(t, target, without), without));
    t->classes &= with;
}

void
wd_tests_go_to(struct wd_tests *t, uint32_t target, uint8_t classes)
{
    target = wd_tests_thread(t, target, classes);
    if (target == t->at + 1) {
        arrive(t, target, classes);
        t->falls = true;
    } else {
        wd_asm_jump(&t->g->a, reach(t, target, classes));
    }
}

static struct wd_compare
invert(struct wd_compare c)
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

void
wd_tests_branch(struct wd_tests *t, struct wd_compare c, uint32_t yes, uint8_t yes_classes, uint32_t no,
                uint8_t no_classes)
{
    yes = wd_tests_thread(t, yes, yes_classes);
    no = wd_tests_thread(t, no, no_classes);
    if (yes == no) {
        wd_tests_go_to(t, yes, yes_classes | no_classes);
    } else if (yes == t->at + 1) {
        c = invert(c);
        jump_if(t, &c, reach(t, no, no_classes));
        wd_tests_go_to(t, yes, yes_classes);
    } else {
        jump_if(t, &c, reach(t, yes, yes_classes));
        wd_tests_go_to(t, no, no_classes);
    }
}

/* ---- All of them -------------------------------------------------------- */

bool
wd_gen_is_entry(uint32_t test)
{
    return test % SECTION == 0;
}

static void
find_first_ways(const struct wd_prog *prog, uint32_t *ret_first_way)
{
    for (uint32_t i = 0; i < prog->count; i++)
        ret_first_way[i] = UINT32_MAX;
    for (uint32_t i = prog->count; i > 0; i--) {
        const struct wd_test *test = &prog->tests[i - 1];

        if (test->yes < prog->count)
            ret_first_way[test->yes] = i - 1;
        if (test->no < prog->count)
            ret_first_way[test->no] = i - 1;
    }
}

static int
prepare(struct wd_tests *t)
{
    uint32_t count = t->g->prog->count;

    t->place = calloc(count + 2, sizeof(*t->place));
    t->g->first_way = calloc(count + 1, sizeof(*t->g->first_way));
    if (!t->place || !t->g->first_way)
        return -ENOMEM;
    find_first_ways(t->g->prog, t->g->first_way);
    for (uint32_t i = 0; i < count; i++) {
        t->place[i].label = wd_asm_label(&t->g->a);
        t->arrays |= wd_fields[t->g->prog->tests[i].field].kind == WD_KIND_ARRAY;
    }
    t->place[count].label = t->g->accept;
    t->place[count + 1].label = t->g->no_match;
    return 0;
}

/* The jumps into the sections, for the verifier; the one that is taken leads to the first test. */
static void
gen_start(struct wd_tests *t, uint8_t classes)
{
    const struct wd_prog *prog = t->g->prog;
    uint32_t last = (prog->count - 1) / SECTION * SECTION;

    t->at = UINT32_MAX; /* in front of test 0 */
    if (prog->start >= WD_REJECT || last <= prog->start) {
        wd_tests_go_to(t, prog->start, classes);
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

/* Goes on counting to the end of the program. */
static void
count_jumps(struct wd_tests *t)
{
    const struct wd_asm *a = &t->g->a;

    for (; t->seen < a->count; t->seen++) {
        uint8_t class = BPF_CLASS(a->insns[t->seen].code);
        bool jump = class == BPF_JMP || class == BPF_JMP32;

        if (jump && t->insns >= MARK_INSNS && t->jumps >= MARK_JUMPS)
            t->insns = t->jumps = 0;
        t->insns++;
        t->jumps += jump;
    }
}

/*
 * The verifier remembers what it knows, so as to recognise it and not follow
 * another way any further, at a jump or where one leads to, but only if there
 * were 8 instructions and 2 of them jumps since it last did.  Where ways meet
 * it should.  Only who does not jump there executes what is put in.
 */
static void
gen_mark(struct wd_tests *t)
{
    struct wd_asm *a = &t->g->a;

    count_jumps(t);
    for (; t->jumps < MARK_JUMPS; t->jumps++, t->insns += 2) {
        wd_asm_mov_imm(a, R0, 0);
        wd_asm_emit(a, (struct bpf_insn){.code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = R0, .imm = 1});
    }
    for (; t->insns < MARK_INSNS; t->insns++)
        wd_asm_mov_imm(a, R0, 0);
    t->insns = t->jumps = 0;
    t->seen = a->count;
}

/* Whether packets without the header that the test in hand needs do not leave for somewhere else. */
static bool
all_go_on(const struct wd_tests *t)
{
    const struct wd_test *test = &t->g->prog->tests[t->at];
    uint8_t without = t->classes & (uint8_t)~wd_classes_with(test->field);

    return !without || (test->no < WD_REJECT && wd_tests_thread(t, test->no, without) == test->no);
}

static void
gen_all(struct wd_tests *t)
{
    const struct wd_prog *prog = t->g->prog;

    gen_start(t, t->g->needs.transport ? INFO_CLASSES : INFO_IP4_OTHER | INFO_IP6_OTHER);
    for (uint32_t i = 0; i < prog->count; i++) {
        struct wd_place *place = &t->place[i];

        if (!place->classes)
            continue;
        if (t->falls && place->jumped && t->g->large)
            gen_mark(t);
        wd_asm_relay(&t->g->a, t->falls);
        wd_asm_bind(&t->g->a, place->label);
        if (place->jumped)
            t->cached = NO_VALUE;
        t->at = i;
        t->classes = place->classes;
        t->windows = place->windows;
        t->falls = false;
        if (t->arrays && all_go_on(t) && wd_gen_windows(t->g, &t->windows, i))
            t->cached = NO_VALUE;
        wd_tests_compare(t, &prog->tests[i]);
    }
}

int
wd_gen_tests(struct wd_gen *g)
{
    struct wd_tests t = {.g = g, .cached = NO_VALUE};
    int error = prepare(&t);

    if (!error) {
        gen_all(&t);
        g->matches = t.place[g->prog->count].classes;
        g->misses = t.place[g->prog->count + 1].classes;
    }
    free(t.place);
    free(g->first_way);
    return error;
}
