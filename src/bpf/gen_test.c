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
    uint8_t classes; /* that can come here; 0: none does */
    bool jumped;     /* some jump leads here: nothing is known of the registers */
};

struct tests {
    struct wd_gen *g;
    struct place *place;
    uint32_t at;     /* the test in hand */
    uint8_t classes; /* ... what can be there */
    bool falls;      /* the test before falls through to this one */
    uint32_t cached; /* whose value is in r1 (and r2), by value_id; NO_VALUE */
    bool poison;     /* ... or, where that was out of an array's range, a number below 0 of 64 bits */
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

/* The label of a target, which a jump will lead to. */
static uint32_t
reach(struct tests *t, uint32_t target, uint8_t classes)
{
    struct place *place = place_of(t, target);

    place->classes |= classes;
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
        place_of(t, target)->classes |= classes;
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
        wd_asm_load(&t->g->a, BPF_W, R0, R10, SP_INFO);
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

static int
size_of(uint8_t width)
{
    return width == 1 ? BPF_B : width == 2 ? BPF_H : BPF_W;
}

/* r1 = the field in a header that begins at this place of the stack, or an element of an array that is there */
static void
load_packet_bytes(struct tests *t, const struct wd_field_info *info, int stack_off)
{
    struct wd_asm *a = &t->g->a;
    uint64_t whole = (UINT64_C(1) << 8 * info->width) - 1;

    wd_asm_load(a, size_of(info->width), R1, R10, stack_off);
    if (info->width > 1)
        wd_asm_big_endian(a, R1, info->width * 8);
    if (info->shift)
        wd_asm_alu_imm(a, BPF_RSH, R1, info->shift);
    if (info->kind != WD_KIND_ADDR4 && info->kind != WD_KIND_ARRAY && info->max < whole >> info->shift)
        wd_asm_alu_imm(a, BPF_AND, R1, (int32_t)info->max);
}

/* r2 = offset of an element of the whole buffer; below 0 the helper that loads it fails, as it does beyond the end. */
static void
find_buffer_element(struct tests *t, const struct wd_test *test)
{
    struct wd_asm *a = &t->g->a;

    if (test->index >= 0) {
        wd_asm_mov_imm(a, R2, test->index);
    } else {
        wd_asm_load(a, BPF_W, R2, R_SKB, offsetof(struct __sk_buff, len));
        wd_asm_alu_imm(a, BPF_ADD, R2, test->index);
    }
}

/*
 * r2 = offset of an element of the payload, or all ones, for which the helper
 * fails: the distance to the end that must not be passed gives its sign.
 */
static void
find_payload_element(struct tests *t, const struct wd_test *test)
{
    struct wd_asm *a = &t->g->a;
    bool from_start = test->index >= 0;

    wd_asm_load(a, BPF_W, R2, R10, from_start ? SP_DATA : SP_END);
    wd_asm_load(a, BPF_W, R3, R10, from_start ? SP_END : SP_DATA);
    wd_asm_alu_imm(a, BPF_ADD, R2, test->index);
    if (from_start) {
        wd_asm_alu_imm(a, BPF_SUB, R3, wd_fields[test->field].width);
        wd_asm_alu(a, BPF_SUB, R3, R2);
    } else {
        wd_asm_alu(a, BPF_SUB, R3, R2);
        wd_asm_alu_imm(a, BPF_NEG, R3, 0);
    }
    wd_asm_alu_imm(a, BPF_ARSH, R3, 63);
    wd_asm_alu(a, BPF_OR, R2, R3);
}

/*
 * r1 = an element of an array, or, where it is out of range, the error of the
 * helper: a jump less for each test that asks for equal or less.
 */
static void
load_element(struct tests *t, const struct wd_test *test)
{
    const struct wd_field_info *info = &wd_fields[test->field];

    if (info->src == WD_SRC_PACKET)
        find_buffer_element(t, test);
    else
        find_payload_element(t, test);
    wd_gen_load_bytes(t->g, SP_BYTES, info->width);
    load_packet_bytes(t, info, SP_BYTES);
    wd_asm_alu(&t->g->a, BPF_OR, R1, R0);
    t->poison = true;
}

/* r1 = a field that needs no header */
static void
load_meta(struct tests *t, uint8_t field)
{
    struct wd_asm *a = &t->g->a;

    switch (field) {
    case WD_F_TIMESTAMP:
        wd_asm_load(a, BPF_DW, R1, R10, SP_TIME);
        wd_asm_alu_imm(a, BPF_DIV, R1, 100);
        break;
    case WD_F_PROTOCOL:
        wd_asm_load(a, BPF_B, R1, R10, SP_PROTOCOL);
        break;
    case WD_F_LOCALPORT:
        wd_asm_load(a, BPF_H, R1, R10, SP_LPORT);
        break;
    case WD_F_REMOTEPORT:
        wd_asm_load(a, BPF_H, R1, R10, SP_RPORT);
        break;
    case WD_F_IMPOSTOR:
        wd_asm_load(a, BPF_B, R1, R10, SP_TAGGED);
        wd_asm_alu_imm(a, BPF_SUB, R1, 1);
        break;
    case WD_F_FRAGMENT:
        wd_asm_load(a, BPF_W, R1, R10, SP_INFO);
        wd_asm_alu_imm(a, BPF_AND, R1, INFO_FRAGMENT);
        wd_asm_alu_imm(a, BPF_RSH, R1, 8);
        break;
    case WD_F_IFIDX:
        wd_asm_load(a, BPF_W, R1, R_SKB, offsetof(struct __sk_buff, ifindex));
        break;
    case WD_F_LENGTH:
        wd_asm_load(a, BPF_W, R1, R_SKB, offsetof(struct __sk_buff, len));
        break;
    case WD_F_RANDOM8:
        wd_asm_load(a, BPF_B, R1, R10, SP_RANDOM8);
        break;
    case WD_F_RANDOM16:
        wd_asm_load(a, BPF_H, R1, R10, SP_RANDOM16);
        break;
    default:
        wd_asm_load(a, BPF_W, R1, R10, SP_RANDOM32);
        break;
    }
}

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

/* r1 = the value, unless it is there already */
static void
load_value(struct tests *t, const struct wd_test *test)
{
    const struct wd_field_info *info = &wd_fields[test->field];
    uint32_t id = value_id(test);

    if (t->cached == id)
        return;
    t->poison = false;
    if (info->kind == WD_KIND_ARRAY) {
        load_element(t, test);
    } else if (info->src == WD_SRC_META) {
        load_meta(t, test->field);
    } else if (info->src == WD_SRC_IP4 || info->src == WD_SRC_IP6) {
        load_packet_bytes(t, info, SP_IP + info->off);
    } else if (info->src == WD_SRC_TCPDATA || info->src == WD_SRC_UDPDATA) {
        wd_asm_load(&t->g->a, BPF_W, R1, R10, SP_END);
        wd_asm_load(&t->g->a, BPF_W, R2, R10, SP_DATA);
        wd_asm_alu(&t->g->a, BPF_SUB, R1, R2);
    } else {
        load_packet_bytes(t, info, SP_L4 + info->off);
    }
    t->cached = id;
}

/* r1, r2 = the halves of an address */
static void
load_wide(struct tests *t, const struct wd_test *test)
{
    const struct wd_field_info *info = &wd_fields[test->field];
    struct wd_asm *a = &t->g->a;
    uint32_t id = value_id(test);
    int off;

    if (t->cached == id)
        return;
    off = test->field == WD_F_LOCALADDR ? SP_LOCAL : test->field == WD_F_REMOTEADDR ? SP_REMOTE : SP_IP + info->off;
    wd_asm_load(a, BPF_DW, R1, R10, off);
    wd_asm_load(a, BPF_DW, R2, R10, off + 8);
    wd_asm_big_endian(a, R1, 64);
    wd_asm_big_endian(a, R2, 64);
    t->poison = false;
    t->cached = id;
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

static void
compare_order(struct tests *t, const struct wd_test *test)
{
    bool less = test->op == WD_OP_LT || test->op == WD_OP_LE;
    struct compare c = {.op = less ? BPF_JLT : BPF_JGT, .dst = R1, .reg = true};

    wd_asm_load_imm64(&t->g->a, R3, test->hi);
    leave_if(t, &c, test->yes);
    c.op = BPF_JNE;
    leave_if(t, &c, test->no);
    wd_asm_load_imm64(&t->g->a, R3, test->lo);
    c.op = jump_op(test->op, false);
    c.dst = R2;
    finish(t, test, c);
}

static void
compare_wide(struct tests *t, const struct wd_test *test)
{
    load_wide(t, test);
    if (test->op == WD_OP_EQ || test->op == WD_OP_NE)
        compare_equal(t, test);
    else
        compare_order(t, test);
}

/* r1 is no element: the test does not hold. */
static const struct compare out_of_range = {.op = BPF_JSLT, .dst = R1, .wide = true, .imm = 0};

static void
compare_value(struct tests *t, const struct wd_test *test)
{
    bool is_signed = wd_fields[test->field].kind == WD_KIND_INT;
    struct compare c = {.op = jump_op(test->op, is_signed), .dst = R1, .imm = (uint32_t)test->lo};

    load_value(t, test);
    if (t->poison && (test->op == WD_OP_NE || test->op == WD_OP_GT || test->op == WD_OP_GE)) {
        leave_if(t, &out_of_range, test->no);
        t->poison = false;
    }
    /* The lower half of an error is above INT32_MAX: up to there 32 bits will do. */
    c.reg = is_signed || (t->poison && test->lo > INT32_MAX);
    if (c.reg)
        wd_asm_load_imm64(&t->g->a, R3, test->neg ? -test->lo : test->lo);
    finish(t, test, c);
}

/* A test that holds for every element that there is. */
static void
compare_range(struct tests *t, const struct wd_test *test)
{
    load_value(t, test);
    if (t->poison)
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
    t->place[count + 1].label = t->g->reject;
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
    free(t.place);
    return 0;
}
