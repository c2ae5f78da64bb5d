/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Emitter, disassembly, and the shape of generated programs; nothing here asks the kernel. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bpf/asm.h"
#include "bpf/btf.h"
#include "bpf/dump.h"
#include "bpf/gen.h"
#include "core/filter.h"
#include "filter_corpus.h"

#define REACH 32767

/* ---- The emitter -------------------------------------------------------- */

static void
emit_everything(struct wd_asm *a)
{
    uint32_t end = wd_asm_label(a), back = wd_asm_here(a);

    wd_asm_mov(a, 6, 1);
    wd_asm_mov_imm(a, 0, -1);
    wd_asm_alu(a, BPF_ADD, 1, 2);
    wd_asm_alu_imm(a, BPF_RSH, 1, 4);
    wd_asm_alu32(a, BPF_XOR, 1, 2);
    wd_asm_alu32_imm(a, BPF_AND, 1, 255);
    wd_asm_alu_imm(a, BPF_NEG, 1, 0);
    wd_asm_load_imm64(a, 2, 7);
    wd_asm_load_imm64(a, 2, UINT64_MAX);
    wd_asm_load_imm64(a, 2, UINT32_MAX);
    wd_asm_load_imm64(a, 2, UINT64_C(0x123456789ABCDEF0));
    wd_asm_load_map(a, 1, 5);
    wd_asm_load_map_value(a, 1, 5, 16);
    wd_asm_big_endian(a, 3, 16);
    wd_asm_little_endian(a, 3, 64);
    wd_asm_load(a, BPF_W, 1, 6, 32);
    wd_asm_store(a, BPF_DW, 10, -8, 1);
    wd_asm_store_imm(a, BPF_B, 10, -9, 2);
    wd_asm_atomic(a, BPF_DW, BPF_ADD, 1, 0, 2);
    wd_asm_atomic(a, BPF_DW, BPF_XCHG, 1, 8, 2);
    wd_asm_jump_if(a, BPF_JSLT, 1, 2, end);
    wd_asm_jump_if_imm(a, BPF_JSET, 1, 3, back);
    wd_asm_jump32_if_imm(a, BPF_JNE, 1, 0x80000000, end);
    wd_asm_jump_code(a, 0xE5, end);
    wd_asm_jump(a, end);
    wd_asm_call(a, BPF_FUNC_skb_load_bytes);
    wd_asm_bind(a, end);
    wd_asm_exit(a);
}

static const char everything[] = "    0: r6 = r1\n"
                                 "    1: r0 = -1\n"
                                 "    2: r1 += r2\n"
                                 "    3: r1 >>= 4\n"
                                 "    4: w1 ^= w2\n"
                                 "    5: w1 &= 255\n"
                                 "    6: r1 = -r1\n"
                                 "    7: r2 = 7\n"
                                 "    8: r2 = -1\n"
                                 "    9: w2 = -1\n"
                                 "   10: r2 = 0x123456789abcdef0\n"
                                 "   12: r1 = map 5\n"
                                 "   14: r1 = map 5 value + 16\n"
                                 "   16: r3 = be16 r3\n"
                                 "   17: r3 = le64 r3\n"
                                 "   18: r1 = *(u32 *)(r6 + 32)\n"
                                 "   19: *(u64 *)(r10 - 8) = r1\n"
                                 "   20: *(u8 *)(r10 - 9) = 2\n"
                                 "   21: lock add *(u64 *)(r1 + 0), r2\n"
                                 "   22: r2 = lock xchg *(u64 *)(r1 + 8), r2\n"
                                 "   23: if r1 s< r2 goto 29\n"
                                 "   24: if r1 & 3 goto 0\n"
                                 "   25: if w1 != -2147483648 goto 29\n"
                                 "   26: may_goto 29\n"
                                 "   27: goto 29\n"
                                 "   28: call 26 skb_load_bytes\n"
                                 "   29: exit\n";

static void
emitters(void **state)
{
    struct bpf_insn *insns;
    char text[4096];
    struct wd_asm a;
    size_t count;

    (void)state;
    wd_asm_init(&a);
    emit_everything(&a);
    assert_int_equal(wd_asm_finish(&a, &insns, &count), 0);
    assert_int_equal(wd_dump(insns, count, text, sizeof(text)), sizeof(everything));
    assert_string_equal(text, everything);
    /* Against the numbers of the instruction set, not our own words for them. */
    assert_memory_equal(&insns[0], "\xbf\x16\0\0\0\0\0\0", 8);
    assert_memory_equal(&insns[3], "\x77\x01\0\0\x04\0\0\0", 8);
    assert_memory_equal(&insns[10], "\x18\x02\0\0\xf0\xde\xbc\x9a\0\0\0\0\x78\x56\x34\x12", 16);
    assert_memory_equal(&insns[14], "\x18\x21\0\0\x05\0\0\0\0\0\0\0\x10\0\0\0", 16);
    assert_memory_equal(&insns[18], "\x61\x61\x20\0\0\0\0\0", 8);
    assert_memory_equal(&insns[19], "\x7b\x1a\xf8\xff\0\0\0\0", 8);
    assert_memory_equal(&insns[24], "\x45\x01\xe7\xff\x03\0\0\0", 8);
    assert_memory_equal(&insns[25], "\x56\x01\x03\0\0\0\0\x80", 8);
    free(insns);
    wd_asm_free(&a);
}

static void
emit_far_back(struct wd_asm *a)
{
    uint32_t start = wd_asm_here(a);

    for (int i = 0; i < REACH + 1; i++)
        wd_asm_exit(a);
    wd_asm_jump(a, start);
}

/* Jumps over relays, of which as many are made as there are instructions allowed. */
static void
relays_end(void **state)
{
    (void)state;
    for (uint32_t max = 16380; max < 16394; max++) {
        struct bpf_insn *insns = NULL;
        struct wd_asm a;
        size_t count;

        wd_asm_init(&a);
        a.max = max;
        for (int i = 0; i < 10; i++)
            wd_asm_jump(&a, wd_asm_label(&a));
        while (a.count < 16385 && !a.error) {
            wd_asm_mov_imm(&a, 0, 0);
            wd_asm_relay(&a, max % 2);
        }
        for (uint32_t label = 0; label < 10; label++)
            wd_asm_bind(&a, label);
        assert_int_equal(wd_asm_finish(&a, &insns, &count), -E2BIG);
        assert_null(insns);
        wd_asm_free(&a);
    }
}

static void
errors_stick(void **state)
{
    struct bpf_insn *insns = NULL;
    struct wd_asm a;
    size_t count;

    (void)state;
    wd_asm_init(&a);
    a.max = 20; /* too long */
    emit_everything(&a);
    assert_int_equal(a.count, 20);
    assert_int_equal(wd_asm_finish(&a, &insns, &count), -E2BIG);
    assert_null(insns);
    wd_asm_free(&a);

    wd_asm_init(&a); /* a label that is bound nowhere */
    wd_asm_jump(&a, wd_asm_label(&a));
    wd_asm_exit(&a);
    assert_int_equal(wd_asm_finish(&a, &insns, &count), -EINVAL);
    wd_asm_free(&a);

    wd_asm_init(&a); /* bound twice; what follows changes nothing */
    wd_asm_bind(&a, wd_asm_here(&a));
    wd_asm_exit(&a);
    assert_int_equal(a.count, 0);
    assert_int_equal(wd_asm_finish(&a, &insns, &count), -EINVAL);
    wd_asm_free(&a);

    wd_asm_init(&a); /* a label there never was */
    wd_asm_jump(&a, 3);
    wd_asm_jump(&a, 4);
    assert_int_equal(wd_asm_finish(&a, &insns, &count), -EINVAL);
    wd_asm_free(&a);

    wd_asm_init(&a);
    wd_asm_bind(&a, 3);
    assert_int_equal(wd_asm_finish(&a, &insns, &count), -EINVAL);
    wd_asm_free(&a);

    wd_asm_init(&a); /* no jump back so far */
    emit_far_back(&a);
    assert_int_equal(wd_asm_finish(&a, &insns, &count), -E2BIG);
    wd_asm_free(&a);
    assert_null(insns);
}

/* Follows goto after goto. */
static uint32_t
destination(const struct bpf_insn *insns, uint32_t at)
{
    do
        at += 1 + (uint32_t)(int32_t)insns[at].off;
    while (insns[at].code == (BPF_JMP | BPF_JA));
    return at;
}

/* Jumps over 100,000 instructions arrive; without relays that is refused. */
static void
far_jumps(void **state)
{
    enum { LENGTH = 100000 };

    (void)state;
    for (int relays = 0; relays < 2; relays++) {
        struct bpf_insn *insns;
        struct wd_asm a;
        uint32_t end, near_end;
        size_t count;
        int error;

        wd_asm_init(&a);
        end = wd_asm_label(&a);
        near_end = wd_asm_label(&a);
        for (int i = 0; i < LENGTH; i++) {
            if (relays)
                wd_asm_relay(&a, true);
            wd_asm_jump_if_imm(&a, BPF_JEQ, 1, i, i % 2 ? end : near_end);
        }
        wd_asm_bind(&a, near_end);
        wd_asm_mov_imm(&a, 0, 0);
        wd_asm_bind(&a, end);
        wd_asm_exit(&a);
        error = wd_asm_finish(&a, &insns, &count);
        assert_int_equal(error, relays ? 0 : -E2BIG);
        for (uint32_t i = 0, n = 0; !error && i < count - 2; i++)
            if (insns[i].code != (BPF_JMP | BPF_JA))
                assert_int_equal(destination(insns, i), count - (n++ % 2 ? 1 : 2));
        if (!error)
            free(insns);
        wd_asm_free(&a);
    }
}

static void
dump_bounds(void **state)
{
    const struct bpf_insn strange[] = {{.code = 0xFF, .dst_reg = 1, .off = -1, .imm = 3}, {.code = 0x18}};
    char text[64], line[WD_DUMP_LINE];
    size_t needed = wd_dump(strange, 2, NULL, 0);

    (void)state;
    assert_true(needed < sizeof(text));
    for (size_t size = 1; size <= needed; size++) {
        memset(text, 'x', sizeof(text));
        assert_int_equal(wd_dump(strange, 2, text, size), needed);
        assert_int_equal(strlen(text), size - 1);
        assert_int_equal(text[size], 'x');
    }
    assert_string_equal(text, "    0: ? ff 1 0 -1 3\n    1: ? 18 0 0 0 0\n");
    assert_int_equal(wd_dump_insn(strange, 2, 0, line, sizeof(line)), 1);
    assert_string_equal(line, "? ff 1 0 -1 3");
}

/* ---- Memory ------------------------------------------------------------- */

static unsigned long fail_at, allocations; /* fail_at 0: never */

void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);

void *
__wrap_calloc(size_t count, size_t size)
{
    return ++allocations == fail_at ? NULL : __real_calloc(count, size);
}

void *
__wrap_realloc(void *block, size_t size)
{
    return ++allocations == fail_at ? NULL : __real_realloc(block, size);
}

/* Allocation n fails, for every n: -ENOMEM, an error text, nothing leaks (ASan), nothing is returned. */
static void
no_memory(void **state)
{
    const struct wd_gen_opts opts = {.hook = WD_HOOK_LOCAL_IN, .mode = WD_GEN_SNIFF, .counters_fd = 5, .ring_fd = 6};
    struct wd_filter_error filter_error;
    struct wd_filter *filter;
    struct wd_arena arena;
    int result = -ENOMEM;

    (void)state;
    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, "tcp.DstPort == 80 or random8 < 7 or ip.TTL > 3",
                                       WINDIVERT_LAYER_NETWORK, &filter, &filter_error),
                     0);
    for (unsigned long n = 1; result < 0; n++) {
        struct wd_code code = {NULL, 12345};
        struct wd_error error = {0};

        allocations = 0;
        fail_at = n;
        result = wd_gen(wd_filter_prog(filter), &opts, &code, &error);
        fail_at = 0;
        if (result == 0) {
            assert_true(n > 8);
            wd_code_free(&code);
            break;
        }
        assert_int_equal(result, -ENOMEM);
        assert_true(error.text[0]);
        assert_null(code.insns);
        assert_int_equal(code.count, 12345);
    }
    wd_arena_free(&arena);
}

/* ---- Generated programs ------------------------------------------------- */

/* As the kernel wants it: jumps stay within, no instruction is out of reach, the end is an exit.  NULL, or what not. */
static const char *
program_invalid(const struct bpf_insn *insns, size_t count)
{
    uint8_t *seen = calloc(count + 1, 1); /* 1: reached, 2: the second half of a constant */
    const char *wrong = insns[count - 1].code == (BPF_JMP | BPF_EXIT) ? NULL : "the end is no exit";
    bool changed = true;

    seen[0] = 1;
    while (changed && !wrong) { /* more than one round only where something jumps back */
        changed = false;
        for (size_t i = 0; i < count && !wrong; i++) {
            uint8_t code = insns[i].code, class = BPF_CLASS(code);
            bool jump = (class == BPF_JMP || class == BPF_JMP32) && code != (BPF_JMP | BPF_CALL) &&
                        code != (BPF_JMP | BPF_EXIT);
            size_t next[] = {i + (code == (BPF_LD | BPF_DW | BPF_IMM) ? 2 : 1), (size_t)((long)i + 1 + insns[i].off)};

            if (seen[i] != 1)
                continue;
            if (next[0] == i + 2)
                seen[i + 1] = 2;
            for (int k = 0; k < 2 && !wrong; k++) {
                if (k == 0 ? code == (BPF_JMP | BPF_JA) || code == (BPF_JMP | BPF_EXIT) : !jump)
                    continue;
                if (next[k] >= count || seen[next[k]] == 2)
                    wrong = "a jump to nowhere";
                else if (!seen[next[k]])
                    seen[next[k]] = 1, changed |= next[k] < i;
            }
        }
    }
    for (size_t i = 0; i < count && !wrong; i++)
        if (!seen[i])
            wrong = "an instruction out of reach";
    free(seen);
    return wrong;
}

static size_t
generate(const struct wd_prog *prog, const struct wd_gen_opts *opts, const char *text)
{
    struct wd_error error = {0};
    struct wd_code code;
    const char *wrong;
    size_t count;

    if (wd_gen(prog, opts, &code, &error) < 0)
        fail_msg("%s\n%.200s", error.text, text);
    wrong = program_invalid(code.insns, code.count);
    if (wrong)
        fail_msg("hook %d, mode %d: %s\n%.200s", (int)opts->hook, (int)opts->mode, wrong, text);
    count = code.count;
    wd_code_free(&code);
    return count;
}

static void
generate_everywhere(const char *text, WINDIVERT_LAYER layer)
{
    enum wd_hook first = layer == WINDIVERT_LAYER_NETWORK ? WD_HOOK_LOCAL_OUT : WD_HOOK_FORWARD;
    enum wd_hook last = layer == WINDIVERT_LAYER_NETWORK ? WD_HOOK_LOCAL_IN : WD_HOOK_FORWARD;
    static const struct wd_kernel kernel = {.skb_len = 1000, .skb_priority = 1004, .state_in = 8, .state_out = 16};
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_prog *unfolded;
    struct wd_arena arena;

    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, text, layer, &filter, &error), 0);
    assert_int_equal(wd_filter_prog_unfolded(&arena, text, layer, &unfolded), 0);
    for (int hook = first; hook <= (int)last; hook++) {
        for (int mode = WD_GEN_MATCH; mode <= WD_GEN_SNIFF; mode++) {
            const struct wd_gen_opts opts = {
                .hook = (enum wd_hook)hook,
                .mode = (enum wd_gen_mode)mode,
                .loopback_known = true,
                .oif = 2,
                .inject_magic = 0x12345678,
                .counters_fd = 5,
                .ring_fd = 6,
                .bounded = mode == WD_GEN_SNIFF,
            };
            struct wd_gen_opts other = opts;

            other.counters_fd = -1;
            other.loopback = other.large = true;
            generate(wd_filter_prog(filter), &opts, text);
            generate(wd_filter_prog(filter), &other, text);
            other.kernel = &kernel;
            generate(wd_filter_prog(filter), &other, text);
            generate(unfolded, &opts, text);
        }
    }
    wd_arena_free(&arena);
}

static void
shapes(void **state)
{
    struct corpus *corpus = corpus_load();
    int filters = 0;

    (void)state;
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        const struct corpus_filter *row = &corpus->filters[i];

        if (!row->text || row->layer > WINDIVERT_LAYER_NETWORK_FORWARD || strcmp(row->verdict, "ok") != 0)
            continue;
        generate_everywhere(row->text, row->layer);
        filters++;
    }
    assert_true(filters > 700);
    corpus_free(corpus);
}

/* Long chains, which need sections and relays. */
static void
long_shapes(void **state)
{
    static const char *const chain[] = {"tcp.DstPort == %u", "ipv6.DstAddr >= 2001:db8::%x:1",
                                        "udp.Payload32[%u] == 7 and ip.TTL", "(tcp.Payload[%u] and icmp)"};

    (void)state;
    for (size_t i = 0; i < sizeof(chain) / sizeof(chain[0]); i++) {
        for (unsigned int n = 1000; n <= 7000; n += 2000) {
            size_t room = n * 64, len = 0;
            char *text = malloc(room);

            for (unsigned int k = 1; k <= n; k++) {
                len += (size_t)snprintf(text + len, room - len, chain[i], k);
                len += (size_t)snprintf(text + len, room - len, k < n ? " or " : "");
            }
            generate_everywhere(text, WINDIVERT_LAYER_NETWORK);
            free(text);
        }
    }
}

static int
refusal(const char *text, WINDIVERT_LAYER layer, const struct wd_gen_opts *opts)
{
    struct wd_filter_error filter_error;
    struct wd_error error = {0};
    struct wd_code code = {0};
    struct wd_filter *filter;
    struct wd_arena arena;
    int result;

    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, text, layer, &filter, &filter_error), 0);
    result = wd_gen(wd_filter_prog(filter), opts, &code, &error);
    assert_int_equal(result == 0, error.text[0] == '\0');
    wd_code_free(&code);
    wd_arena_free(&arena);
    return result;
}

/* What a hook cannot know is refused, not guessed. */
static void
refusals(void **state)
{
    struct wd_gen_opts opts = {.counters_fd = -1, .ring_fd = -1};
    static const char *const directed[] = {"outbound", "inbound", "localPort == 1", "remoteAddr == ::1"};

    (void)state;
    assert_int_equal(refusal("loopback", WINDIVERT_LAYER_NETWORK, &opts), -EOPNOTSUPP);
    assert_int_equal(refusal("ifIdx == 2", WINDIVERT_LAYER_NETWORK, &opts), -EOPNOTSUPP);
    opts.loopback_known = true;
    opts.oif = 2;
    assert_int_equal(refusal("loopback", WINDIVERT_LAYER_NETWORK, &opts), 0);
    assert_int_equal(refusal("ifIdx == 2", WINDIVERT_LAYER_NETWORK, &opts), 0);
    opts.hook = WD_HOOK_FORWARD;
    assert_int_equal(refusal("ifIdx == 2", WINDIVERT_LAYER_NETWORK_FORWARD, &opts), 0);
    for (size_t i = 0; i < sizeof(directed) / sizeof(directed[0]); i++)
        assert_int_equal(refusal(directed[i], WINDIVERT_LAYER_NETWORK, &opts), -EOPNOTSUPP);
    assert_int_equal(refusal("endpointId == 7", WINDIVERT_LAYER_FLOW, &opts), -EOPNOTSUPP);
}

/* A program that is none. */
static void
unknown_field(void **state)
{
    const struct wd_gen_opts opts = {.counters_fd = -1, .ring_fd = -1};
    struct wd_test test = {.field = WD_FIELD_COUNT, .yes = WD_ACCEPT, .no = WD_REJECT};
    const struct wd_prog prog = {.count = 1, .tests = &test};
    struct wd_error error = {0};
    struct wd_code code;

    (void)state;
    assert_int_equal(wd_gen(&prog, &opts, &code, &error), -EOPNOTSUPP);
    assert_non_null(strstr(error.text, "unknown field"));
}

static size_t
size_of_filter(const char *text)
{
    const struct wd_gen_opts opts = {.counters_fd = -1, .ring_fd = -1};
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_arena arena;
    size_t count;

    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, text, WINDIVERT_LAYER_NETWORK, &filter, &error), 0);
    count = generate(wd_filter_prog(filter), &opts, text);
    wd_arena_free(&arena);
    return count;
}

/* What a filter does not read is not in its program: the limits are what is needed now and a little more. */
static void
sizes(void **state)
{
    static const struct {
        const char *text;
        size_t least, most;
    } row[] = {
        {"false", 2, 2},           {"true", 30, 60}, {"ip.TTL == 5", 40, 70}, {"tcp.DstPort == 80", 100, 180},
        {"timestamp > 5", 40, 70},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        size_t count = size_of_filter(row[i].text);

        if (count < row[i].least || count > row[i].most)
            fail_msg("%s: %zu instructions", row[i].text, count);
    }
    /* One look for the header, one load, a jump for each value. */
    assert_int_equal(size_of_filter("tcp.DstPort == 80 or tcp.DstPort == 443 or tcp.DstPort == 8080"),
                     size_of_filter("tcp.DstPort == 80") + 2);
    assert_int_equal(size_of_filter("tcp.DstPort == 80 and udp.DstPort == 80"), size_of_filter("false"));
}

static const char golden[] = "    0: r6 = r1\n"
                             "    1: *(u8 *)(r10 - 78) = 1\n"
                             "    2: r1 = *(u32 *)(r6 + 32)\n"
                             "    3: r2 = r1\n"
                             "    4: w2 &= -1048561\n"
                             "    5: if w2 != 1473249280 goto 10\n"
                             "    6: r1 >>= 4\n"
                             "    7: r1 &= 65535\n"
                             "    8: if r1 <= 30001 goto 53\n"
                             "    9: *(u8 *)(r10 - 78) = 2\n"
                             "   10: r1 = *(u32 *)(r6 + 68)\n"
                             "   11: if w1 != 77 goto 16\n"
                             "   12: r1 = *(u32 *)(r6 + 44)\n"
                             "   13: r1 &= 65535\n"
                             "   14: if r1 <= 30001 goto 53\n"
                             "   15: *(u8 *)(r10 - 78) = 2\n"
                             "   16: r2 = 0\n";

/* The beginning of every program at LOCAL_IN: the tags. */
static void
tags(void **state)
{
    const struct wd_gen_opts opts = {
        .hook = WD_HOOK_LOCAL_IN,
        .inject_magic = 77,
        .counters_fd = -1,
        .ring_fd = -1,
    };
    const struct wd_prog always = {.start = WD_ACCEPT};
    struct wd_error error = {0};
    struct wd_code code;
    char text[8192];

    (void)state;
    assert_int_equal(offsetof(struct __sk_buff, priority), 32);
    assert_int_equal(offsetof(struct __sk_buff, tc_index), 44);
    assert_int_equal(offsetof(struct __sk_buff, hash), 68);
    assert_int_equal(wd_gen(&always, &opts, &code, &error), 0);
    assert_true(wd_dump(code.insns, code.count, text, sizeof(text)) <= sizeof(text));
    wd_code_free(&code);
    text[sizeof(golden) - 1] = '\0';
    assert_string_equal(text, golden);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emitters),    cmocka_unit_test(errors_stick), cmocka_unit_test(relays_end),
        cmocka_unit_test(far_jumps),   cmocka_unit_test(dump_bounds),  cmocka_unit_test(shapes),
        cmocka_unit_test(long_shapes), cmocka_unit_test(refusals),     cmocka_unit_test(unknown_field),
        cmocka_unit_test(sizes),       cmocka_unit_test(tags),         cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
