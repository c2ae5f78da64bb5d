/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The elements of arrays: of the whole buffer or of a payload, at a constant
 * distance from its start or its end.  A call of a helper for each costs more
 * than all the rest of a test, so those close by are read at once, into a
 * window of up to 64 bytes; whether an element is there, and is not what
 * happens to be behind a short payload, is asked for each.
 */
#include "gen_impl.h"

#define AHEAD 128       /* tests that are looked at for others in reach of a window */
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
        wd_asm_load(&g->a, BPF_W, dst, R_SKB, offsetof(struct __sk_buff, len));
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
        wd_asm_load(a, BPF_W, R2, R_SKB, offsetof(struct __sk_buff, len));
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
 * The bytes low .. high - 1 and what makes a window of them: its size is a
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

/* The window that is best loaded for test `at`: as many of the elements that come soon as it can hold. */
static struct wd_window
choose_window(const struct wd_gen *g, uint32_t at, const struct element *e)
{
    struct wd_window window = window_of(e->low, e->high);
    uint32_t end = g->prog->count - at > AHEAD ? at + AHEAD : g->prog->count, uses = 1;

    for (uint32_t i = at + 1; i < end; i++) {
        const struct wd_test *test = &g->prog->tests[i];
        struct wd_window wider;
        struct element other;

        if (wd_fields[test->field].kind != WD_KIND_ARRAY)
            continue;
        other = element_of(test);
        wider = window_of(other.low < window.low ? other.low : window.low,
                          other.high > window.high ? other.high : window.high);
        if (other.array != e->array || (other.low < 0) != (e->low < 0) || wider.high - wider.low > WD_WINDOW_SIZE)
            continue;
        window = wider;
        uses++;
    }
    return uses > 1 ? window : (struct wd_window){0, 0};
}

/* Of a packet that ends within the window what there is; it has at least one byte else nothing is done. */
static void
load_short(struct wd_gen *g, enum wd_array array, const struct wd_window *window, uint32_t done)
{
    struct wd_asm *a = &g->a;

    find_byte(g, array, window->low);
    wd_asm_load(a, BPF_W, R4, R_SKB, offsetof(struct __sk_buff, len));
    wd_asm_alu(a, BPF_SUB, R4, R2);
    wd_asm_alu_imm(a, BPF_SUB, R4, 1);
    wd_asm_jump_if_imm(a, BPF_JSLT, R4, 0, done);
    wd_asm_alu_imm(a, BPF_AND, R4, window->high - window->low - 1); /* for the verifier: it is less */
    wd_asm_alu_imm(a, BPF_ADD, R4, 1);
    wd_asm_mov(a, R1, R_SKB);
    wd_asm_mov(a, R3, R10);
    wd_asm_alu_imm(a, BPF_ADD, R3, g->window[array]);
    wd_asm_call(a, BPF_FUNC_skb_load_bytes);
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

/* Whether an element is in a window, which is loaded where that is worth while. */
static bool
in_window(struct wd_gen *g, struct wd_windows *windows, uint32_t at, const struct element *e)
{
    struct wd_window *held = &windows->of[e->array], window;

    if (e->array == WD_ARRAY_PACKET && e->low < 0)
        return false;
    if (e->low >= held->low && e->high <= held->high)
        return true;
    window = choose_window(g, at, e);
    if (window.low == window.high)
        return false;
    if (!g->window[e->array])
        g->window[e->array] = wd_gen_stack(g, WD_WINDOW_SIZE);
    if (!g->window[e->array])
        return false;
    load_window(g, e->array, &window);
    *held = window;
    return true;
}

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
    if (in_window(g, windows, at, &e)) {
        load_number(g, &e, g->window[e.array] + e.low - windows->of[e.array].low);
        bytes_beyond(g, e.array, e.low < 0 ? -e.low : e.high, R0);
        wd_asm_alu_imm(&g->a, BPF_ARSH, R0, 63);
    } else {
        load_one(g, &e);
    }
    return true;
}
