/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Writes the program.  The tests of a region are a function of one key: its
 * values in order fall into pieces, each with an exit, and the piece a value
 * lies in is found by halves.  Tests are made from the last to the first, the
 * same test with the same targets only once.
 */
#include <errno.h>

#include "optimise_impl.h"

#define KEPT_MAX 3 /* tests of a region that stay as they are where a search has no fewer */

/* Values from min up to the next piece; behind the last one stands the end of what is known of the key. */
struct piece {
    struct wd_opt_value min;
    uint32_t exit;
};

/* Tests as they come, the last one of the program first. */
struct out {
    struct wd_test *tests;
    uint32_t count, room;
    uint32_t *slots, mask; /* numbers of tests + 1, by hash */
};

struct search {
    struct out *out;
    const struct wd_opt_key *key;
    const struct piece *pieces;
    uint32_t absent; /* the exit where the key is not there */
};

/* ---- Tests -------------------------------------------------------------- */

static uint32_t
hash_test(const struct wd_test *test)
{
    uint64_t hash =
        test->field | (uint64_t)test->op << 8 | (uint64_t)test->neg << 16 | (uint64_t)(uint32_t)test->index << 32;

    hash = (hash ^ test->hi) * 0x9E3779B97F4A7C15;
    hash = (hash ^ hash >> 29 ^ test->lo) * 0xBF58476D1CE4E5B9;
    hash = (hash ^ hash >> 32 ^ test->yes) * 0x94D049BB133111EB;
    hash = (hash ^ hash >> 29 ^ test->no) * 0x9E3779B97F4A7C15;
    return (uint32_t)(hash >> 32);
}

static bool
is_same(const struct wd_test *a, const struct wd_test *b)
{
    return a->field == b->field && a->op == b->op && a->neg == b->neg && a->index == b->index && a->hi == b->hi &&
           a->lo == b->lo && a->yes == b->yes && a->no == b->no;
}

static uint32_t
make_test(struct out *out, const struct wd_test *test)
{
    uint32_t at = hash_test(test) & out->mask;

    if (test->yes == test->no)
        return test->yes;
    for (; out->slots[at]; at = (at + 1) & out->mask)
        if (is_same(&out->tests[out->slots[at] - 1], test))
            return out->slots[at] - 1;
    out->tests[out->count++] = *test;
    out->slots[at] = out->count;
    return out->count - 1;
}

/* "key op value"; a flag is asked by its name or its negation. */
static uint32_t
make(struct search *s, uint8_t op, struct wd_opt_value value, uint32_t yes, uint32_t no)
{
    struct wd_test test = {
        .field = s->key->field,
        .op = op,
        .index = s->key->index,
        .hi = value.hi,
        .lo = value.lo,
        .yes = yes,
        .no = no,
    };
    uint8_t kind = wd_fields[test.field].kind;

    if (kind == WD_KIND_INT) {
        test.lo ^= 1ull << 63;
        test.neg = test.lo >> 63;
        test.lo = test.neg ? -test.lo : test.lo;
    } else if (kind == WD_KIND_FLAG && op == WD_OP_NE) {
        test.op = WD_OP_EQ;
        test.lo = !test.lo;
    }
    return make_test(s->out, &test);
}

/* Whether the key is there at all: by the flag of its header, for an element of an array by a test that always holds. */
static uint32_t
make_presence(struct search *s, uint32_t yes, uint32_t no)
{
    struct wd_test test = {.field = s->key->field, .op = WD_OP_GE, .index = s->key->index, .yes = yes, .no = no};

    if (wd_fields[test.field].kind != WD_KIND_ARRAY) {
        test.field = (uint8_t)wd_src_presence(wd_fields[test.field].src);
        test.op = WD_OP_EQ;
        test.lo = 1;
    }
    return make_test(s->out, &test);
}

/* ---- The search --------------------------------------------------------- */

static bool
is_point(const struct search *s, uint32_t at)
{
    const struct wd_opt_value max = wd_opt_before(s->pieces[at + 1].min);

    return wd_opt_compare(s->pieces[at].min, max) == 0;
}

static bool
leads_to(const struct search *s, uint32_t first, uint32_t last, uint32_t exit)
{
    for (uint32_t i = first; i <= last; i++)
        if (s->pieces[i].exit == exit)
            return true;
    return false;
}

#define POINTS_MAX 2 /* as fast as halving, and fewer tests */

/* Single values among pieces with one exit. */
struct points {
    uint32_t rest, count;
    uint32_t at[POINTS_MAX];
};

static bool
find_points(const struct search *s, uint32_t first, uint32_t last, struct points *ret_points)
{
    struct points points = {.rest = s->pieces[first].exit};

    if (last - first > 2 * POINTS_MAX)
        return false;
    for (uint32_t i = first; i <= last; i++)
        if (!is_point(s, i))
            points.rest = s->pieces[i].exit;
    for (uint32_t i = first; i <= last; i++) {
        if (s->pieces[i].exit == points.rest)
            continue;
        if (points.count == POINTS_MAX || !is_point(s, i))
            return false;
        points.at[points.count++] = i;
    }
    *ret_points = points;
    return true;
}

/* With absent, some piece's exit is that of a missing key: the last "no" must lead there. */
static uint32_t
make_points(struct search *s, struct points *points, bool absent)
{
    const struct piece *pieces = s->pieces;
    uint32_t *at = points->at, target = points->rest, left = points->count;

    if (absent && s->absent != points->rest) {
        if (left == 2 && pieces[at[1]].exit != s->absent) {
            uint32_t swap = at[0];

            at[0] = at[1];
            at[1] = swap;
        }
        left--;
        target = make(s, WD_OP_NE, pieces[at[left]].min, points->rest, s->absent);
    }
    while (left-- > 0)
        target = make(s, WD_OP_EQ, pieces[at[left]].min, pieces[at[left]].exit, target);
    return target;
}

/*
 * The pieces first..last.  A missing key takes every "no": the half with the
 * exit that belongs to it stands there.
 */
static uint32_t
make_search(struct search *s, uint32_t first, uint32_t last, bool absent)
{
    uint32_t middle = first + (last - first + 1) / 2, lower, upper;
    struct points points;

    if (absent && !leads_to(s, first, last, s->absent))
        return make_presence(s, make_search(s, first, last, false), s->absent);
    if (find_points(s, first, last, &points))
        return make_points(s, &points, absent);
    if (!absent || leads_to(s, middle, last, s->absent)) {
        upper = make_search(s, middle, last, absent);
        lower = make_search(s, first, middle - 1, false);
        return make(s, WD_OP_LT, s->pieces[middle].min, lower, upper);
    }
    upper = make_search(s, middle, last, false);
    lower = make_search(s, first, middle - 1, true);
    return make(s, WD_OP_GE, s->pieces[middle].min, upper, lower);
}

/* ---- Which value leads where -------------------------------------------- */

/*
 * The atoms, intervals that no test of the region divides, in order.  Each is
 * at one test at a time; those at a test are a treap by their numbers.
 */
struct atom {
    struct wd_opt_value min;
    uint32_t left, right, exit;
};

#define EMPTY UINT32_MAX

struct writer {
    const struct wd_opt_graph *graph;
    struct wd_opt_regions regions;
    struct out out;
    uint32_t *result;            /* of each test further on: the test written for it, or the end */
    struct wd_opt_value *values; /* for sorting: twice what a region can have */
    struct atom *atoms;
    struct piece *pieces;
    uint32_t *set; /* of each test: the atoms that come to it */
};

/* Multiples of the golden ratio: of neighbouring numbers neither goes first for long, so treaps are flat. */
static uint32_t
rank(uint32_t atom)
{
    return atom * 0x9E3779B1;
}

/* Divides a set into the atoms below `at` and the others. */
static void
split(struct atom *atoms, uint32_t set, uint32_t at, uint32_t *ret_below, uint32_t *ret_others)
{
    if (set == EMPTY) {
        *ret_below = *ret_others = EMPTY;
    } else if (set < at) {
        *ret_below = set;
        split(atoms, atoms[set].right, at, &atoms[set].right, ret_others);
    } else {
        *ret_others = set;
        split(atoms, atoms[set].left, at, ret_below, &atoms[set].left);
    }
}

/* All of a are below all of b. */
static uint32_t
concatenate(struct atom *atoms, uint32_t a, uint32_t b)
{
    if (a == EMPTY || b == EMPTY)
        return a == EMPTY ? b : a;
    if (rank(a) > rank(b)) {
        atoms[a].right = concatenate(atoms, atoms[a].right, b);
        return a;
    }
    atoms[b].left = concatenate(atoms, a, atoms[b].left);
    return b;
}

static uint32_t
unite(struct atom *atoms, uint32_t a, uint32_t b)
{
    uint32_t below, others;

    if (a == EMPTY || b == EMPTY)
        return a == EMPTY ? b : a;
    if (rank(a) < rank(b))
        return unite(atoms, b, a);
    split(atoms, b, a, &below, &others);
    atoms[a].left = unite(atoms, atoms[a].left, below);
    atoms[a].right = unite(atoms, atoms[a].right, others);
    return a;
}

static void
set_exits(struct atom *atoms, uint32_t set, uint32_t exit)
{
    for (; set != EMPTY; set = atoms[set].right) {
        atoms[set].exit = exit;
        set_exits(atoms, atoms[set].left, exit);
    }
}

static uint32_t
result_of(const struct writer *w, uint32_t target)
{
    return wd_opt_is_test(target) ? w->result[target] : target;
}

static bool
is_within(const struct writer *w, uint32_t entry, uint32_t target)
{
    return wd_opt_is_test(target) && w->regions.owner[target] == entry;
}

static void
send_on(struct writer *w, uint32_t entry, uint32_t target, uint32_t set)
{
    if (is_within(w, entry, target))
        w->set[target] = unite(w->atoms, w->set[target], set);
    else
        set_exits(w->atoms, set, result_of(w, target));
}

/* The number of the first atom from value on. */
static uint32_t
find_atom(const struct atom *atoms, uint32_t count, struct wd_opt_value value)
{
    uint32_t low = 0, high = count;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (wd_opt_compare(atoms[middle].min, value) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Behind the greatest value of all comes 0. */
static bool
is_greatest(struct wd_opt_value value)
{
    return value.hi == UINT64_MAX && value.lo == UINT64_MAX;
}

static void
run_test(struct writer *w, uint32_t entry, uint32_t at, uint32_t count)
{
    const struct wd_opt_node *node = &w->graph->nodes[at];
    uint32_t from = find_atom(w->atoms, count, node->in.min), to = count, below, in, above;

    if (from + 1 < count && wd_opt_compare(wd_opt_before(w->atoms[from + 1].min), node->in.max) == 0)
        to = from + 1; /* one atom: the usual case */
    else if (!is_greatest(node->in.max))
        to = find_atom(w->atoms, count, wd_opt_after(node->in.max));
    split(w->atoms, w->set[at], from, &below, &in);
    split(w->atoms, in, to, &in, &above);
    send_on(w, entry, node->invert ? node->no : node->yes, in);
    send_on(w, entry, node->invert ? node->yes : node->no, concatenate(w->atoms, below, above));
}

/* ---- Atoms -------------------------------------------------------------- */

static uint8_t
byte_of(struct wd_opt_value value, unsigned int byte)
{
    return (uint8_t)((byte < 8 ? value.lo : value.hi) >> byte % 8 * 8);
}

/* One pass of a radix sort: in order of this byte, otherwise as they were. */
static void
sort_by_byte(const struct wd_opt_value *from, struct wd_opt_value *to, uint32_t count, unsigned int byte)
{
    uint32_t ends[256] = {0};

    for (uint32_t i = 0; i < count; i++)
        ends[byte_of(from[i], byte)]++;
    for (unsigned int i = 1; i < 256; i++)
        ends[i] += ends[i - 1];
    for (uint32_t i = count; i-- > 0;)
        to[--ends[byte_of(from[i], byte)]] = from[i];
}

static void
sort_few(struct wd_opt_value *values, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        struct wd_opt_value value = values[i];
        uint32_t at = i;

        for (; at && wd_opt_compare(value, values[at - 1]) < 0; at--)
            values[at] = values[at - 1];
        values[at] = value;
    }
}

#define FEW 32

/* The result is in one of the two arrays.  Only bytes in which the values differ take time. */
static const struct wd_opt_value *
sort(struct wd_opt_value *values, struct wd_opt_value *spare, uint32_t count)
{
    struct wd_opt_value differ = {0, 0};

    if (count <= FEW) {
        sort_few(values, count);
        return values;
    }
    for (uint32_t i = 1; i < count; i++) {
        differ.hi |= values[i].hi ^ values[0].hi;
        differ.lo |= values[i].lo ^ values[0].lo;
    }
    for (unsigned int byte = 0; byte < 16; byte++) {
        struct wd_opt_value *swap = values;

        if (!byte_of(differ, byte))
            continue;
        sort_by_byte(values, spare, count, byte);
        values = spare;
        spare = swap;
    }
    return values;
}

/* The atoms of a region, within what is known of its key; their number. */
static uint32_t
make_atoms(struct writer *w, uint32_t entry)
{
    const struct wd_opt_interval *known = &w->graph->nodes[entry].known;
    struct wd_opt_value *values = w->values;
    const struct wd_opt_value *sorted;
    uint32_t count = 0, atoms = 0;

    values[count++] = known->min;
    for (uint32_t at = entry; at != WD_OPT_NONE; at = w->regions.next[at]) {
        const struct wd_opt_interval *in = &w->graph->nodes[at].in;
        const struct wd_opt_value ends[] = {in->min, wd_opt_after(in->max)};

        for (int i = 0; i < 2; i++)
            if (wd_opt_compare(ends[i], known->min) > 0 && wd_opt_compare(ends[i], known->max) <= 0)
                values[count++] = ends[i];
    }
    sorted = sort(values, values + 2 * (size_t)w->graph->count + 1, count);
    for (uint32_t i = 0; i < count; i++)
        if (i == 0 || wd_opt_compare(sorted[i - 1], sorted[i]) < 0)
            w->atoms[atoms++] = (struct atom){.min = sorted[i], .left = EMPTY, .right = EMPTY};
    return atoms;
}

/* Runs all values through the region's tests at once. */
static void
run_region(struct writer *w, uint32_t entry, uint32_t count)
{
    uint32_t all = EMPTY;

    for (uint32_t i = 0; i < count; i++)
        all = concatenate(w->atoms, all, i);
    for (uint32_t at = entry; at != WD_OPT_NONE; at = w->regions.next[at])
        w->set[at] = EMPTY;
    w->set[entry] = all;
    for (uint32_t at = entry; at != WD_OPT_NONE; at = w->regions.next[at])
        run_test(w, entry, at, count);
}

/* ---- Regions ------------------------------------------------------------ */

/* Neighbours with the same exit are one piece. */
static uint32_t
make_pieces(struct piece *pieces, const struct atom *atoms, uint32_t atom_count)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < atom_count; i++)
        if (count == 0 || pieces[count - 1].exit != atoms[i].exit)
            pieces[count++] = (struct piece){atoms[i].min, atoms[i].exit};
    return count;
}

static uint32_t
write_pieces(struct writer *w, const struct wd_opt_node *entry, uint32_t atom_count, uint32_t absent_exit)
{
    struct search search = {&w->out, &w->graph->keys[entry->key], w->pieces, absent_exit};
    uint32_t count = make_pieces(w->pieces, w->atoms, atom_count);

    w->pieces[count].min = wd_opt_after(entry->known.max);
    return make_search(&search, 0, count - 1, !entry->present);
}

/* One test as it is, but for what is known. */
static uint32_t
write_test(struct writer *w, const struct wd_opt_node *node)
{
    const uint32_t in = result_of(w, node->invert ? node->no : node->yes);
    const uint32_t out = result_of(w, node->invert ? node->yes : node->no);
    const struct wd_opt_interval *known = &node->known;
    uint32_t count = 0;

    if (wd_opt_compare(known->min, node->in.min) < 0)
        w->atoms[count++] = (struct atom){.min = known->min, .exit = out};
    if (wd_opt_compare(node->in.min, known->max) <= 0 && wd_opt_compare(known->min, node->in.max) <= 0) {
        struct wd_opt_value min = count ? node->in.min : known->min;

        w->atoms[count++] = (struct atom){.min = min, .exit = in};
    }
    if (wd_opt_compare(node->in.max, known->max) < 0) {
        struct wd_opt_value min = count ? wd_opt_after(node->in.max) : known->min;

        w->atoms[count++] = (struct atom){.min = min, .exit = out};
    }
    return write_pieces(w, node, count, result_of(w, node->no));
}

static uint32_t
write_search(struct writer *w, uint32_t entry)
{
    uint32_t count = make_atoms(w, entry), absent = entry;

    run_region(w, entry, count);
    while (is_within(w, entry, absent))
        absent = w->graph->nodes[absent].no;
    return write_pieces(w, &w->graph->nodes[entry], count, result_of(w, absent));
}

static void
write_region(struct writer *w, uint32_t entry)
{
    uint32_t tests[KEPT_MAX], count = 0, before = w->out.count;

    for (uint32_t at = entry; at != WD_OPT_NONE && count <= KEPT_MAX; at = w->regions.next[at], count++)
        if (count < KEPT_MAX)
            tests[count] = at;
    if (count > 1)
        w->result[entry] = write_search(w, entry);
    if (count == 1 || (count <= KEPT_MAX && w->out.count - before >= count))
        while (count-- > 0)
            w->result[tests[count]] = write_test(w, &w->graph->nodes[tests[count]]);
}

/* ---- The program -------------------------------------------------------- */

static int
prepare(struct writer *w)
{
    struct wd_arena *arena = w->graph->arena;
    const uint32_t count = w->graph->count;
    uint32_t slots = 16;

    w->out.room = 4 * count + 4; /* a region of n: 2n + 1 and, where it is kept after all, n */
    while (slots < 2 * w->out.room)
        slots *= 2;
    w->out.mask = slots - 1;
    if (!(w->out.tests = wd_arena_alloc(arena, w->out.room, sizeof(*w->out.tests))) ||
        !(w->out.slots = wd_arena_alloc(arena, slots, sizeof(*w->out.slots))) ||
        !(w->result = wd_arena_alloc(arena, count, 2 * sizeof(*w->result))) ||
        !(w->values = wd_arena_alloc(arena, 2 * (2 * (size_t)count + 1), sizeof(*w->values))) ||
        !(w->atoms = wd_arena_alloc(arena, 2 * (size_t)count + 1, sizeof(*w->atoms))) ||
        !(w->pieces = wd_arena_alloc(arena, 2 * (size_t)count + 2, sizeof(*w->pieces))))
        return -ENOMEM;
    w->set = w->result + count;
    return wd_opt_find_regions(w->graph, &w->regions);
}

/* Numbers what is reached from the start, in `number`, from the end of the program; how many those are. */
static uint32_t
number_reached(const struct out *out, uint32_t start, uint32_t *number)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i <= start; i++)
        number[i] = WD_OPT_NONE;
    number[start] = 0;
    for (uint32_t i = start + 1; i-- > 0;) {
        const uint32_t ways[] = {out->tests[i].yes, out->tests[i].no};

        if (number[i] == WD_OPT_NONE)
            continue;
        number[i] = count++;
        for (int k = 0; k < 2; k++)
            if (wd_opt_is_test(ways[k]))
                number[ways[k]] = 0;
    }
    return count;
}

static int
take_out(struct writer *w, uint32_t start, struct wd_arena *arena, struct wd_prog *prog)
{
    uint32_t *number, count;
    struct wd_test *tests;

    if (!wd_opt_is_test(start)) {
        prog->start = start;
        prog->count = 0;
        prog->tests = NULL;
        return 0;
    }
    number = wd_arena_alloc(w->graph->arena, start + 1, sizeof(*number));
    if (!number)
        return -ENOMEM;
    count = number_reached(&w->out, start, number);
    tests = wd_arena_alloc(arena, count, sizeof(*tests));
    if (!tests)
        return -ENOMEM;
    for (uint32_t i = 0; i <= start; i++) {
        struct wd_test test = w->out.tests[i];

        if (number[i] == WD_OPT_NONE)
            continue;
        test.yes = wd_opt_is_test(test.yes) ? number[test.yes] : test.yes;
        test.no = wd_opt_is_test(test.no) ? number[test.no] : test.no;
        tests[number[i]] = test;
    }
    prog->start = 0;
    prog->count = count;
    prog->tests = tests;
    return 0;
}

int
wd_opt_write(const struct wd_opt_graph *graph, struct wd_arena *arena, struct wd_prog *prog)
{
    struct writer w = {.graph = graph};
    int ret;

    if (!wd_opt_is_test(graph->start))
        return take_out(&w, graph->start, arena, prog);
    if ((ret = prepare(&w)) < 0)
        return ret;
    for (uint32_t i = graph->count; i-- > 0;)
        if (w.regions.owner[i] == i)
            write_region(&w, i);
    return take_out(&w, w.result[graph->start], arena, prog);
}
