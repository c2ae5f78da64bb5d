/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 *     tags -> headers -> tests -> accept: count, [copy into the ring], return
 *        \        \         \---> reject: return 0
 */
#include <errno.h>
#include <stdlib.h>

#include "gen_flow.h"
#include "gen_impl.h"
#include "gen_tail.h"

#define TOUCH_MIN 64   /* tests: with fewer it does not matter how long the verifier takes, ... */
#define LARGE_MIN 1024 /* ... from here on it matters more than some instructions for each packet */

/* ---- What the filter reads ---------------------------------------------- */

static bool
src_is_transport(uint8_t src)
{
    return src == WD_SRC_ICMP || src == WD_SRC_ICMP6 || src == WD_SRC_TCP || src == WD_SRC_UDP ||
           src == WD_SRC_TCPDATA || src == WD_SRC_UDPDATA;
}

static void
need_field(struct wd_needs *needs, uint8_t field)
{
    needs->transport |= src_is_transport(wd_fields[field].src);
    switch (field) {
    case WD_F_RANDOM8:
    case WD_F_RANDOM16:
    case WD_F_RANDOM32:
        needs->random = needs->time = needs->ip6_addr = needs->transport = true;
        break;
    case WD_F_TIMESTAMP:
        needs->time = true;
        break;
    case WD_F_ICMP:
    case WD_F_ICMPV6:
    case WD_F_TCP:
    case WD_F_UDP:
    case WD_F_PROTOCOL:
    case WD_F_FRAGMENT:
        needs->transport = true;
        break;
    case WD_F_LOOPBACK:
    case WD_F_IFIDX:
        needs->device = true;
        break;
    case WD_F_LOCALPORT:
        needs->local_port = needs->transport = true;
        break;
    case WD_F_REMOTEPORT:
        needs->remote_port = needs->transport = true;
        break;
    case WD_F_LOCALADDR:
        needs->local_addr = needs->ip6_addr = true;
        break;
    case WD_F_REMOTEADDR:
        needs->remote_addr = needs->ip6_addr = true;
        break;
    case WD_F_IPV6_SRCADDR:
    case WD_F_IPV6_DSTADDR:
        needs->ip6_addr = true;
        break;
    default:
        break;
    }
}

/* Why a field cannot be read by this program; NULL: it can. */
static const char *
refuse_field(const struct wd_gen_opts *opts, uint8_t field)
{
    switch (field) {
    case WD_F_INBOUND:
    case WD_F_OUTBOUND:
    case WD_F_LOCALADDR:
    case WD_F_LOCALPORT:
    case WD_F_REMOTEADDR:
    case WD_F_REMOTEPORT:
        return opts->hook == WD_HOOK_FORWARD ? "a forwarded packet has no direction" : NULL;
    case WD_F_LOOPBACK:
        return opts->loopback_known || opts->kernel ? NULL : "loopback is not known where the program runs";
    case WD_F_IFIDX:
        return opts->hook == WD_HOOK_LOCAL_OUT && !opts->oif && !opts->kernel
                   ? "the outgoing interface is not known yet"
                   : NULL;
    default:
        return wd_fields[field].layers & (1 << WINDIVERT_LAYER_NETWORK | 1 << WINDIVERT_LAYER_NETWORK_FORWARD)
                   ? NULL
                   : "it is no field of packets";
    }
}

static int
check_fields(struct wd_gen *g, struct wd_error *err)
{
    for (uint32_t i = 0; i < g->prog->count; i++) {
        uint8_t field = g->prog->tests[i].field;
        const char *why = field < WD_FIELD_COUNT ? refuse_field(g->opts, field) : "unknown field";

        if (why)
            return wd_error_set(err, -EOPNOTSUPP, NULL, "filter program: %s: %s",
                                field < WD_FIELD_COUNT ? wd_fields[field].name : "?", why);
        need_field(&g->needs, field);
    }
    g->needs.transport |= g->opts->flow_limit != 0;
    g->needs.ip6_addr |= g->opts->flow_limit != 0;
    return 0;
}

/* ---- Beginning and end -------------------------------------------------- */

/* counter += r2 */
static void
add_count(struct wd_gen *g, enum wd_counter counter)
{
    wd_asm_load_map_value(&g->a, R1, g->opts->counters_fd, counter * sizeof(uint64_t));
    wd_asm_atomic(&g->a, BPF_DW, BPF_ADD, R1, 0, R2);
}

void
wd_gen_count(struct wd_gen *g, enum wd_counter counter)
{
    if (g->opts->counters_fd < 0)
        return;
    wd_asm_mov_imm(&g->a, R2, 1);
    add_count(g, counter);
}

/* Of an aggregate that the queue takes apart: its segments. */
static void
gen_count_match(struct wd_gen *g)
{
    uint32_t counted = wd_asm_label(&g->a);

    if (g->opts->counters_fd < 0)
        return;
    wd_asm_mov_imm(&g->a, R2, 1);
    if (g->opts->form == WD_GEN_WHOLE || g->opts->form == WD_GEN_WHOLE_AGGREGATES) {
        wd_gen_load_skb(g, R1, SKB_GSO_SEGS);
        wd_asm_jump_if_imm(&g->a, BPF_JEQ, R1, 0, counted);
        wd_asm_mov(&g->a, R2, R1);
    }
    wd_asm_bind(&g->a, counted);
    add_count(g, g->opts->counter);
}

void
wd_gen_time(struct wd_gen *g)
{
    if (g->opts->fixed_time_ns)
        wd_asm_load_imm64(&g->a, R0, g->opts->fixed_time_ns);
    else
        wd_asm_call(&g->a, BPF_FUNC_ktime_get_ns);
    wd_asm_store(&g->a, BPF_DW, R10, g->sp.time, R0);
}

/* r1 = level of the handle that injected: those up to our own are not for us */
static void
gen_level(struct wd_gen *g)
{
    wd_asm_alu_imm(&g->a, BPF_AND, R1, 0xFFFF);
    wd_asm_jump_if_imm(&g->a, BPF_JLE, R1, (int32_t)WD_TAG_LEVEL(g->opts->priority), g->reject);
    wd_asm_store_imm(&g->a, BPF_B, R10, SP_TAGGED, 2);
}

/* Injected outbound (also where it came in again through lo): priority = 0x57D00000 | level << 4. */
static void
gen_priority_tag(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t untagged = wd_asm_label(a);

    wd_gen_load_skb(g, R1, SKB_PRIORITY);
    if (g->opts->single)
        wd_asm_jump32_if_imm(a, BPF_JEQ, R1, (int32_t)WD_TAG_FRAGMENT, g->reject);
    wd_asm_mov(a, R2, R1);
    wd_asm_alu32_imm(a, BPF_AND, R2, (int32_t)WD_TAG_SO_PRIORITY_MASK);
    wd_asm_jump32_if_imm(a, BPF_JNE, R2, WD_TAG_SO_PRIORITY, untagged);
    wd_asm_alu_imm(a, BPF_RSH, R1, 4);
    gen_level(g);
    wd_asm_bind(a, untagged);
}

/* Injected inbound or into the forward path: hash = magic, tc_index = level. */
static void
gen_hash_tag(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;
    uint32_t untagged = wd_asm_label(a);

    wd_gen_load_skb(g, R1, SKB_HASH);
    wd_asm_jump32_if_imm(a, BPF_JNE, R1, g->opts->inject_magic, untagged);
    wd_gen_load_skb(g, R1, SKB_TC_INDEX);
    gen_level(g);
    wd_asm_bind(a, untagged);
}

static void
gen_form(struct wd_gen *g)
{
    if (g->opts->form == WD_GEN_ANY_FORM)
        return;
    wd_gen_load_skb(g, R1, SKB_GSO_SIZE);
    if (g->opts->form == WD_GEN_NO_AGGREGATES)
        wd_asm_jump_if_imm(&g->a, BPF_JNE, R1, 0, g->reject);
    else if (g->opts->form == WD_GEN_LONG_AGGREGATES)
        wd_asm_jump_if_imm(&g->a, BPF_JLE, R1, WD_GEN_SEGMENT_MAX, g->reject);
    else
        wd_asm_jump_if_imm(&g->a, BPF_JGT, R1, WD_GEN_SEGMENT_MAX, g->reject);
    if (g->opts->form == WD_GEN_WHOLE_AGGREGATES)
        wd_asm_jump_if_imm(&g->a, BPF_JEQ, R1, 0, g->reject);
}

static void
gen_begin(struct wd_gen *g)
{
    wd_gen_entry(g);
    gen_form(g);
    wd_asm_store_imm(&g->a, BPF_B, R10, SP_TAGGED, 1);
    gen_priority_tag(g);
    if (g->opts->inject_magic && g->opts->hook != WD_HOOK_LOCAL_OUT)
        gen_hash_tag(g);
}

int
wd_gen_stack(struct wd_gen *g, int size)
{
    if (g->stack_end - size < SP_END)
        return 0;
    g->stack_end -= size;
    return g->stack_end;
}

void
wd_gen_note(struct wd_gen *g, int size, int stack_off)
{
    int slot = (-stack_off - 1) / 8;

    g->read[slot].size = size;
    g->read[slot].off = stack_off;
}

void
wd_gen_read(struct wd_gen *g, int size, int dst, int stack_off)
{
    wd_asm_load(&g->a, size, dst, R10, stack_off);
    wd_gen_note(g, size, stack_off);
}

void
wd_gen_touch(struct wd_gen *g)
{
    for (int slot = 0; g->touches && slot < WD_SLOTS; slot++)
        if (g->read[slot].off)
            wd_asm_load(&g->a, g->read[slot].size, R1, R10, g->read[slot].off);
}

static void
gen_match(struct wd_gen *g)
{
    wd_asm_bind(&g->a, g->accept);
    wd_gen_touch(g);
    wd_gen_flow(g);
    gen_count_match(g);
    if (g->opts->mode == WD_GEN_SNIFF) {
        wd_gen_sniff(g);
        return;
    }
    if (g->opts->ring_fd >= 0)
        wd_gen_tail(g);
    wd_gen_verdict(g, true);
}

static void
gen_end(struct wd_gen *g)
{
    if (g->no_match != g->reject && g->misses) {
        wd_asm_bind(&g->a, g->no_match);
        wd_gen_touch(g);
        wd_asm_jump(&g->a, g->reject);
    }
    if (g->matches)
        gen_match(g);
    wd_asm_bind(&g->a, g->reject);
    wd_gen_verdict(g, false);
}

/* ---- The whole ---------------------------------------------------------- */

/* What tests read that is not in the headers as it is. */
static void
gen_derived(struct wd_gen *g)
{
    bool outbound = g->opts->hook == WD_HOOK_LOCAL_OUT;

    if (g->needs.time)
        wd_gen_time(g);
    if (g->needs.random)
        wd_gen_random(g);
    if (g->needs.local_addr)
        wd_gen_address(g, outbound, true, g->sp.local);
    if (g->needs.remote_addr)
        wd_gen_address(g, !outbound, true, g->sp.remote);
    if (g->needs.local_port)
        wd_gen_port(g, outbound, g->sp.ports + LOCAL_PORT_OFF);
    if (g->needs.remote_port)
        wd_gen_port(g, !outbound, g->sp.ports + REMOTE_PORT_OFF);
    wd_gen_prepare(g);
    wd_gen_prepare_arrays(g);
}

static void
place_all(struct wd_gen *g)
{
    const struct wd_needs *needs = &g->needs;

    g->stack_end = g->opts->bounded ? SP_ROUND : SP_BYTES;
    if (g->opts->kernel) {
        g->sp.dynptr = wd_gen_stack(g, 16);
        if (needs->device || g->opts->mode == WD_GEN_SNIFF || g->opts->hook == WD_HOOK_LOCAL_IN)
            g->sp.device = wd_gen_stack(g, 8);
    }
    if (needs->time || g->opts->mode == WD_GEN_SNIFF)
        g->sp.time = wd_gen_stack(g, 8);
    if (g->opts->flow_limit) {
        g->sp.flow = wd_gen_stack(g, sizeof(struct wd_flow));
        g->sp.flow_count = wd_gen_stack(g, 8);
    }
    if (needs->random) {
        g->sp.random = wd_gen_stack(g, 8);
        g->sp.lanes = wd_gen_stack(g, 64);
    }
    if (needs->local_port || needs->remote_port)
        g->sp.ports = wd_gen_stack(g, 8);
    if (needs->local_addr)
        g->sp.local = wd_gen_stack(g, 16);
    if (needs->remote_addr)
        g->sp.remote = wd_gen_stack(g, 16);
}

static int
gen_program(struct wd_gen *g)
{
    int error;

    g->accept = wd_asm_label(&g->a);
    g->reject = g->no_match = wd_asm_label(&g->a);
    g->touches = g->opts->large || g->prog->count >= TOUCH_MIN;
    g->large = g->opts->large || g->prog->count >= LARGE_MIN;
    if (g->touches)
        g->no_match = wd_asm_label(&g->a);
    place_all(g);
    gen_begin(g);
    wd_gen_parse(g);
    gen_derived(g);
    error = wd_gen_tests(g);
    gen_end(g);
    return error ? error : g->a.error;
}

/* No packet matches: nothing to look at. */
static void
gen_never(struct wd_gen *g)
{
    g->reject = g->no_match = wd_asm_label(&g->a);
    gen_end(g);
}

/* That no class of packets can match may show only at the end. */
static int
gen_whole(struct wd_gen *g)
{
    int error = 0;

    wd_asm_init(&g->a);
    if (g->prog->start != WD_REJECT)
        error = gen_program(g);
    if (!error && !g->matches) {
        wd_asm_free(&g->a);
        wd_asm_init(&g->a);
        gen_never(g);
    }
    return error;
}

int
wd_gen(const struct wd_prog *prog, const struct wd_gen_opts *opts, struct wd_code *ret_code, struct wd_error *err)
{
    struct wd_gen g = {.prog = prog, .opts = opts};
    int error = check_fields(&g, err);

    if (error)
        return error;
    error = gen_whole(&g);
    if (!error)
        error = wd_asm_finish(&g.a, &ret_code->insns, &ret_code->count);
    wd_asm_free(&g.a);
    return error ? wd_error_set(err, error, NULL, "generate a filter program: %s",
                                error == -ENOMEM ? "out of memory" : "too long")
                 : 0;
}

void
wd_code_free(struct wd_code *code)
{
    free(code->insns);
    *code = (struct wd_code){0};
}
