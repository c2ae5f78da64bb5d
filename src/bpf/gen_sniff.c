/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The end of a sniffing program: a matching packet goes into the ring. */
#include "gen_impl.h"

#define CAPTURE_MAX 65575 /* no packet is longer (40 + 0xFFFF) but BIG TCP; of that the beginning */

/*
 * The ring hands out records of constant size only, so there are classes of
 * them.  The steps waste at most half of a record's bytes below 256, a third
 * above; 1536 holds what an Ethernet carries.
 */
static const int32_t capture_class[] = {64,   128,  192,  256,  384,   512,   768,   1024,  1536,           2048,
                                        3072, 4096, 6144, 9216, 16384, 24576, 32768, 49152, CAPTURE_MAX + 1};

#define CLASSES (sizeof(capture_class) / sizeof(capture_class[0]))
#define HEADER ((int32_t)sizeof(struct wd_record))
#define FIELD(name) ((int)offsetof(struct wd_record, name))

_Static_assert(sizeof(struct wd_record) % 8 == 0, "records are aligned");

/* r7 = length, r8 = bytes to copy: 1 .. CAPTURE_MAX */
static void
gen_lengths(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t fits = wd_asm_label(a);

    wd_gen_load_skb(g, R7, SKB_LEN);
    wd_asm_mov(a, R8, R7);
    wd_asm_jump_if_imm(a, BPF_JLT, R8, 1, g->reject); /* the verifier of Linux 6.1 learns nothing from "not 0" */
    wd_asm_jump_if_imm(a, BPF_JLE, R8, CAPTURE_MAX, fits);
    wd_asm_mov_imm(a, R8, CAPTURE_MAX);
    wd_asm_bind(a, fits);
}

/* r0 = a record for r8 bytes, or NULL; the verifier needs to see r8 within its class on each way to `reserved`. */
static void
gen_reserve(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t reserved = wd_asm_label(a);

    for (size_t i = 0; i < CLASSES; i++) {
        uint32_t next = wd_asm_label(a);

        if (i < CLASSES - 1)
            wd_asm_jump_if_imm(a, BPF_JGT, R8, capture_class[i], next);
        wd_asm_load_map(a, R1, g->opts->ring_fd);
        wd_asm_mov_imm(a, R2, HEADER + capture_class[i]);
        wd_asm_mov_imm(a, R3, 0);
        wd_asm_call(a, BPF_FUNC_ringbuf_reserve);
        wd_asm_jump(a, reserved);
        wd_asm_bind(a, next);
    }
    wd_asm_bind(a, reserved);
}

static void
gen_interface(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    if (g->opts->hook == WD_HOOK_LOCAL_OUT && g->opts->route && !g->opts->oif)
        wd_gen_route_interface(g);
    else if (g->opts->hook == WD_HOOK_LOCAL_OUT && !g->opts->kernel)
        wd_asm_load_imm64(a, R1, g->opts->oif);
    else
        wd_gen_load_skb(g, R1, SKB_IFINDEX);
    wd_asm_store(a, BPF_W, R9, FIELD(ifindex), R1);
    if (g->opts->kernel)
        wd_asm_load(a, BPF_B, R1, R10, g->sp.device + LOOPBACK_OFF);
    else
        wd_asm_mov_imm(a, R1, g->opts->loopback_known && g->opts->loopback);
    wd_asm_store(a, BPF_B, R9, FIELD(loopback), R1);
}

/* r9 = record; r7, r8 as above */
static void
gen_header(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    wd_asm_load(a, BPF_DW, R1, R10, g->sp.time);
    wd_asm_store(a, BPF_DW, R9, FIELD(ktime_ns), R1);
    wd_gen_cookie(g);
    wd_asm_store(a, BPF_DW, R9, FIELD(cookie), R0);
    wd_asm_store(a, BPF_W, R9, FIELD(len), R7);
    wd_asm_store(a, BPF_W, R9, FIELD(cap_len), R8);
    gen_interface(g);
    wd_asm_store_imm(a, BPF_B, R9, FIELD(hook), g->opts->hook);
    wd_asm_load(a, BPF_B, R1, R10, SP_TAGGED);
    wd_asm_alu_imm(a, BPF_SUB, R1, 1);
    wd_asm_store(a, BPF_B, R9, FIELD(impostor), R1);
    wd_asm_store_imm(a, BPF_B, R9, FIELD(unused), 0);
}

/*
 * r2 = flags for the submission.  The policy of wake-ups: the slot SLEEPING is
 * 1 only while a reader sleeps, and taking it away is a full barrier: either
 * we see 1, or the reader, looking once more before it polls, sees our record.
 * Without counters the kernel decides.
 */
static void
gen_wakeup(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    _Static_assert(BPF_RB_NO_WAKEUP == 1 && BPF_RB_FORCE_WAKEUP == 2, "the slot + 1");
    wd_asm_mov_imm(a, R2, 0);
    if (g->opts->counters_fd < 0)
        return;
    wd_asm_load_map_value(a, R1, g->opts->counters_fd, WD_COUNT_SLEEPING * sizeof(uint64_t));
    wd_asm_atomic(a, BPF_DW, BPF_XCHG, R1, 0, R2);
    wd_asm_alu_imm(a, BPF_AND, R2, 1);
    wd_asm_alu_imm(a, BPF_ADD, R2, 1);
}

static void
gen_add(struct wd_gen *g, enum wd_counter counter, int32_t amount)
{
    wd_asm_load_map_value(&g->a, R1, g->opts->counters_fd, counter * sizeof(uint64_t));
    wd_asm_mov_imm(&g->a, R2, amount);
    wd_asm_atomic(&g->a, BPF_DW, BPF_ADD | BPF_FETCH, R1, 0, R2);
}

/* Takes one of the LIMIT places for unread records, or gives up. */
static void
gen_take_place(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t room = wd_asm_label(a);

    if (g->opts->counters_fd < 0)
        return;
    gen_add(g, WD_COUNT_WRITTEN, 1);
    wd_asm_load_map_value(a, R1, g->opts->counters_fd, 0);
    wd_asm_load(a, BPF_DW, R3, R1, WD_COUNT_TAKEN * sizeof(uint64_t));
    wd_asm_load(a, BPF_DW, R4, R1, WD_COUNT_LIMIT * sizeof(uint64_t));
    wd_asm_alu(a, BPF_SUB, R2, R3);
    wd_asm_jump_if(a, BPF_JLT, R2, R4, room);
    gen_add(g, WD_COUNT_WRITTEN, -1);
    wd_gen_count(g, WD_COUNT_TOO_MANY);
    wd_asm_jump(a, g->reject);
    wd_asm_bind(a, room);
}

static void
gen_return_place(struct wd_gen *g)
{
    if (g->opts->counters_fd >= 0)
        gen_add(g, WD_COUNT_WRITTEN, -1);
}

void
wd_gen_sniff(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t full = wd_asm_label(a), cut = wd_asm_label(a);

    if (!g->needs.time)
        wd_gen_time(g);
    gen_lengths(g);
    gen_take_place(g);
    gen_reserve(g);
    wd_asm_jump_if_imm(a, BPF_JEQ, R0, 0, full);
    wd_asm_mov(a, R9, R0);
    gen_header(g);
    wd_asm_mov_imm(a, R2, 0);
    wd_asm_mov(a, R3, R9);
    wd_asm_alu_imm(a, BPF_ADD, R3, HEADER);
    wd_asm_mov(a, R4, R8);
    wd_gen_copy(g);
    wd_asm_jump_if_imm(a, BPF_JNE, R0, 0, cut);
    gen_wakeup(g);
    wd_asm_mov(a, R1, R9);
    wd_asm_call(a, BPF_FUNC_ringbuf_submit);
    wd_asm_jump(a, g->reject);
    wd_asm_bind(a, cut); /* fragments of the packet that cannot be read: cannot be told of */
    wd_asm_mov(a, R1, R9);
    wd_asm_mov_imm(a, R2, BPF_RB_NO_WAKEUP);
    wd_asm_call(a, BPF_FUNC_ringbuf_discard);
    wd_asm_bind(a, full);
    gen_return_place(g);
    wd_gen_count(g, WD_COUNT_RING_FULL);
}
