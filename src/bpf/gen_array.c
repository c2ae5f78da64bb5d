/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The elements of arrays: of the whole buffer or of a payload, at a constant
 * distance from its start or its end.  A call of a helper for each costs more
 * than all the rest of a test, so those close by are read at once, into a
 * window of up to 64 bytes; whether an element is there, and is not what
 * happens to be behind a short payload, is asked for each.
 */
#include "gen_impl.h"

#define AHEAD 64u       /* tests that are looked at for elements that a window can hold ... */
#define LOOK_EVERY 3u   /* tests between two looks from tests that do not need one */
#define USES_MIN 6u     /* ... so many of which make it worth while for packets that need none of them */
#define PAYLOAD_MIN 28u /* where the first payload can begin: IPv4 and UDP */

/* A test's element: bytes low .. high - 1 of its array. */
struct element {
    enum wd_array array;
    int32_t low, high;
};

static struct element
element_of(const struct wd_test *test)
{
    const struct wd_field_info *info = &wd_fields[test->field];
    bool payload = info->src != WD_SRC_PACKET;

    return (struct element){
        .array = !payload          ? WD_ARRAY_PACKET
                 : test->index < 0 ? WD_ARRAY_TAIL
                                   : WD_ARRAY_HEAD,
        .low = test->index,
        .high = test->index + info->width,
    };
}

/* dst = bytes of the array beyond `needed`; below 0: it is shorter */
static void
bytes_beyond(struct wd_gen *g, enum wd_array array, int32_t needed, int dst)
{
    if (array == WD_ARRAY_PACKET)
        wd_gen_load_skb(g, dst, SKB_LEN);
    else
        wd_gen_read(g, BPF_W, dst, SP_LEFT);
    wd_asm_alu_imm(&g->a, BPF_SUB, dst, needed);
}

/* r2 = where in the packet the byte is that is so far from the start or the end of the array */
static void
find_byte(struct wd_gen *g, enum wd_array array, int32_t at)
{
    struct wd_asm *a = &g->a;

    if (array == WD_ARRAY_PACKET && at >= 0) {
        wd_asm_mov_imm(a, R2, at);
        return;
    }
    if (array == WD_ARRAY_PACKET)
        wd_gen_load_skb(g, R2, SKB_LEN);
    else
        wd_gen_read(g, BPF_W, R2, SP_DATA);
    if (array == WD_ARRAY_TAIL) {
        wd_gen_read(g, BPF_W, R3, SP_LEFT);
        wd_asm_alu(a, BPF_ADD, R2, R3);
    }
    wd_asm_alu_imm(a, BPF_ADD, R2, at);
}

/* ---- One element -------------------------------------------------------- */

/* The helper fails beyond the packet, and with an offset below 0, which is made where a payload is too short. */
static void
load_one(struct wd_gen *g, const struct element *e)
{
    find_byte(g, e->array, e->low);
    if (e->array != WD_ARRAY_PACKET) {
        bytes_beyond(g, e->array, e->low < 0 ? -e->low : e->high, R3);
        wd_asm_alu_imm(&g->a, BPF_ARSH, R3, 63);
        wd_asm_alu(&g->a, BPF_OR, R2, R3);
    }
    wd_gen_load_bytes(g, SP_BYTES, e->high - e->low);
    wd_gen_number(g, (uint8_t)(e->high - e->low), R1, SP_BYTES);
}

/* ---- Windows ------------------------------------------------------------ */

/*
 * The bytes low .. high - 1, and what makes a window of them: its size is a
 * power of two, and what lies at a multiple of 4 in the array does so on the
 * stack, from which nothing else can be loaded at once.
 */
static struct wd_window
window_of(int32_t low, int32_t high)
{
    struct wd_window window = {low & ~3, (high + 3) & ~3};
    int32_t size = 4;

    while (size < window.high - window.low)
        size *= 2;
    if (low < 0)
        window.low = window.high - size;
    else
        window.high = window.low + size;
    return window;
}

/*
 * Whether a test's element can be in this window or a wider one.  None can that
 * goes beyond the end of its array, or is counted from the end of the buffer.
 */
static bool
widen(struct wd_window *window, const struct element *e)
{
    struct wd_window wider = window_of(e->low, e->high);

    if (e->low < 0 && (e->array == WD_ARRAY_PACKET || e->high > 0))
        return false;
    if (window->low != window->high)
        wider =
            window_of(e->low < window->low ? e->low : window->low, e->high > window->high ? e->high : window->high);
    if (wider.high - wider.low > WD_WINDOW_SIZE)
        return false;
    *window = wider;
    return true;
}

/*
 * Whether every way to test k, which is at most AHEAD further on, leads over
 * test `at`; detour[i]: some way to at + i does not, known for all in front of k.
 */
static bool
leads_over(const struct wd_gen *g, uint32_t at, uint32_t k, bool *detour)
{
    const struct wd_test *test = &g->prog->tests[k];

    if (k > at && (g->first_way[k] < at || wd_gen_is_entry(k)))
        detour[k - at] = true;
    if (detour[k - at]) {
        if (test->yes < at + AHEAD)
            detour[test->yes - at] = true;
        if (test->no < at + AHEAD)
            detour[test->no - at] = true;
    }
    return !detour[k - at];
}

static bool
holds(const struct wd_windows *windows, const struct element *e)
{
    const struct wd_window *window = &windows->of[e->array];

    return e->low >= window->low && e->high <= window->high;
}

/*
 * The best window of an array for the tests from `at` on.  The first element
 * that is needed must be in it, and as many others as it can hold.  The number
 * of tests that can use it; 0 where that element is in the present window, or
 * where more tests can use that one.
 */
static uint32_t
choose_window(const struct wd_gen *g, const struct wd_windows *windows, uint32_t at, enum wd_array array,
              struct wd_window *ret_window)
{
    uint32_t end = g->prog->count - at > AHEAD ? at + AHEAD : g->prog->count, uses = 0, present = 0;
    struct wd_window window = {0, 0};
    bool detour[AHEAD] = {false};

    for (uint32_t k = at; k < end; k++) {
        const struct wd_test *test = &g->prog->tests[k];
        struct element e;

        if (!leads_over(g, at, k, detour) || wd_fields[test->field].kind != WD_KIND_ARRAY)
            continue;
        e = element_of(test);
        if (e.array != array)
            continue;
        if (!uses && holds(windows, &e))
            return 0;
        uses += widen(&window, &e);
        present += holds(windows, &e);
    }
    *ret_window = window;
    return uses > present ? uses : 0;
}

/* Of a packet that ends within the window what there is; it has at least one byte else nothing is done. */
static void
load_short(struct wd_gen *g, enum wd_array array, const struct wd_window *window, uint32_t done)
{
    struct wd_asm *a = &g->a;

    find_byte(g, array, window->low);
    wd_gen_load_skb(g, R4, SKB_LEN);
    wd_asm_alu(a, BPF_SUB, R4, R2);
    wd_asm_alu_imm(a, BPF_SUB, R4, 1);
    wd_asm_jump_if_imm(a, BPF_JSLT, R4, 0, done);
    wd_asm_alu_imm(a, BPF_AND, R4, window->high - window->low - 1); /* for the verifier: it is less */
    wd_asm_alu_imm(a, BPF_ADD, R4, 1);
    wd_gen_copy_bytes(g, g->window[array]);
}

/*
 * A window that is counted from the end and would begin before the packet: its
 * last 36 bytes, and if there are fewer, its last 8.  The payload begins at 28
 * at the least: a packet of fewer than 64 bytes has no more than 36 of payload,
 * one of fewer than 36 no more than 8.
 */
static void
load_short_tail(struct wd_gen *g, const struct wd_window *window, uint32_t done)
{
    static const int32_t sizes[] = {WD_WINDOW_SIZE - PAYLOAD_MIN, WD_WINDOW_SIZE - 2 * PAYLOAD_MIN};

    for (size_t i = 0; i < 2; i++) {
        int32_t size = sizes[i], skipped = window->high - window->low - size;

        if (skipped <= 0)
            continue;
        find_byte(g, WD_ARRAY_TAIL, window->high - size);
        wd_gen_load_bytes(g, g->window[WD_ARRAY_TAIL] + skipped, size);
        if (i == 0)
            wd_asm_jump_if_imm(&g->a, BPF_JEQ, R0, 0, done);
    }
}

/* Where the helper fails, it has set all to 0. */
static void
load_window(struct wd_gen *g, enum wd_array array, const struct wd_window *window)
{
    struct wd_asm *a = &g->a;
    uint32_t done = wd_asm_label(a);

    find_byte(g, array, window->low);
    wd_gen_load_bytes(g, g->window[array], window->high - window->low);
    wd_asm_jump_if_imm(a, BPF_JEQ, R0, 0, done);
    if (array == WD_ARRAY_TAIL)
        load_short_tail(g, window, done);
    else
        load_short(g, array, window, done);
    wd_asm_bind(a, done);
}

/* Loads a window if at least so many tests from `at` on can use it. */
static bool
need_window(struct wd_gen *g, struct wd_windows *windows, uint32_t at, enum wd_array array, uint32_t uses)
{
    struct wd_window window;

    if (choose_window(g, windows, at, array, &window) < uses)
        return false;
    if (!g->window[array] && !g->touches)
        g->window[array] = wd_gen_stack(g, WD_WINDOW_SIZE);
    if (!g->window[array])
        return false;
    load_window(g, array, &window);
    windows->of[array] = window;
    return true;
}

bool
wd_gen_windows(struct wd_gen *g, struct wd_windows *windows, uint32_t at)
{
    const struct wd_test *test = &g->prog->tests[at];
    int own = wd_fields[test->field].kind == WD_KIND_ARRAY ? (int)element_of(test).array : WD_ARRAYS;
    bool loaded = false;

    for (int array = 0; array < WD_ARRAYS; array++) {
        if (at < g->next_look[array] || (array != own && !g->large))
            continue;
        loaded |= need_window(g, windows, at, (enum wd_array)array, USES_MIN);
        g->next_look[array] = at + LOOK_EVERY;
    }
    return loaded;
}

/* ---- Preparing ---------------------------------------------------------- */

/* What is touched must have been written on every way. */
static void
prepare_bytes(struct wd_gen *g, int stack_off, int size)
{
    wd_gen_hidden_zero(g, R1);
    for (int off = 0; off < size; off += 4) {
        wd_asm_store(&g->a, BPF_W, R10, stack_off + off, R1);
        wd_gen_note(g, BPF_W, stack_off + off);
    }
}

static void
prepare_window(struct wd_gen *g, enum wd_array array)
{
    g->window[array] = wd_gen_stack(g, WD_WINDOW_SIZE);
    if (g->window[array])
        prepare_bytes(g, g->window[array], WD_WINDOW_SIZE);
}

/* Windows are for arrays of which two elements in succession fit into one. */
void
wd_gen_prepare_arrays(struct wd_gen *g)
{
    struct wd_window last[WD_ARRAYS] = {{0, 0}};
    bool any = false;

    for (uint32_t i = 0; g->touches && i < g->prog->count; i++) {
        const struct wd_test *test = &g->prog->tests[i];
        struct element e;

        if (wd_fields[test->field].kind != WD_KIND_ARRAY)
            continue;
        e = element_of(test);
        any = true;
        if (last[e.array].high != last[e.array].low && widen(&last[e.array], &e) && !g->window[e.array])
            prepare_window(g, e.array);
        last[e.array] = (struct wd_window){0, 0};
        widen(&last[e.array], &e);
    }
    if (any)
        prepare_bytes(g, SP_BYTES, 8);
}

/* ---- Elements ----------------------------------------------------------- */

/* r1 = the number of these bytes of a window, in pieces where it is not aligned; r2 is lost */
static void
load_number(struct wd_gen *g, const struct element *e, int stack_off)
{
    int32_t width = e->high - e->low, piece = e->low % width == 0 ? width : e->low % 2 == 0 ? 2 : 1;

    wd_gen_number(g, (uint8_t)piece, R1, stack_off);
    for (int32_t at = piece; at < width; at += piece) {
        wd_gen_number(g, (uint8_t)piece, R2, stack_off + at);
        wd_asm_alu_imm(&g->a, BPF_LSH, R1, piece * 8);
        wd_asm_alu(&g->a, BPF_OR, R1, R2);
    }
}

bool
wd_gen_element(struct wd_gen *g, struct wd_windows *windows, uint32_t at)
{
    const struct element e = element_of(&g->prog->tests[at]);

    if (e.low < 0 && e.high > 0)
        return false;
    if (!holds(windows, &e))
        need_window(g, windows, at, e.array, 2);
    if (holds(windows, &e)) {
        load_number(g, &e, g->window[e.array] + e.low - windows->of[e.array].low);
        bytes_beyond(g, e.array, e.low < 0 ? -e.low : e.high, R0);
        wd_asm_alu_imm(&g->a, BPF_ARSH, R0, 63);
    } else {
        load_one(g, &e);
    }
    return true;
}
