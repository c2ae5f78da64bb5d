/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "dump.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define MAY_GOTO 0xE5 /* Linux 6.9; not in older headers */

struct writer {
    char *buffer;
    size_t size, len;
};

static void __attribute__((format(printf, 2, 3))) put(struct writer *out, const char *format, ...)
{
    size_t room = out->len < out->size ? out->size - out->len : 0;
    __builtin_va_list args;
    int len;

    __builtin_va_start(args, format);
    len = vsnprintf(room ? out->buffer + out->len : NULL, room, format, args);
    __builtin_va_end(args);
    out->len += len > 0 ? (size_t)len : 0;
}

static const char *
type_of(uint8_t code)
{
    switch (BPF_SIZE(code)) {
    case BPF_B:
        return "u8";
    case BPF_H:
        return "u16";
    case BPF_W:
        return "u32";
    default:
        return "u64";
    }
}

/* Registers are w0.. where 32 bits of them are meant. */
static char
width_of(uint8_t code)
{
    return BPF_CLASS(code) == BPF_ALU || BPF_CLASS(code) == BPF_JMP32 ? 'w' : 'r';
}

static void
put_operand(struct writer *out, const struct bpf_insn *insn)
{
    if (BPF_SRC(insn->code) == BPF_X)
        put(out, "%c%u", width_of(insn->code), insn->src_reg);
    else
        put(out, "%d", insn->imm);
}

static void
put_memory(struct writer *out, uint8_t code, unsigned int reg, int off)
{
    put(out, "*(%s *)(r%u %c %d)", type_of(code), reg, off < 0 ? '-' : '+', off < 0 ? -off : off);
}

static void
put_unknown(struct writer *out, const struct bpf_insn *insn)
{
    put(out, "? %02x %x %x %d %d", insn->code, insn->dst_reg, insn->src_reg, insn->off, insn->imm);
}

static void
put_alu(struct writer *out, const struct bpf_insn *insn)
{
    static const char *const op[] = {"+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", NULL, "%=", "^=", "=", "s>>="};
    unsigned int n = BPF_OP(insn->code) >> 4;
    char r = width_of(insn->code);

    if (BPF_OP(insn->code) == BPF_END && r == 'w')
        put(out, "r%u = %s%d r%u", insn->dst_reg, BPF_SRC(insn->code) == BPF_TO_BE ? "be" : "le", insn->imm,
            insn->dst_reg);
    else if (BPF_OP(insn->code) == BPF_NEG)
        put(out, "%c%u = -%c%u", r, insn->dst_reg, r, insn->dst_reg);
    else if (n >= sizeof(op) / sizeof(op[0]) || !op[n])
        put_unknown(out, insn);
    else {
        put(out, "%c%u %s ", r, insn->dst_reg, op[n]);
        put_operand(out, insn);
    }
}

static const char *
helper_name(int32_t helper)
{
    switch (helper) {
    case BPF_FUNC_ktime_get_ns:
        return " ktime_get_ns";
    case BPF_FUNC_skb_load_bytes:
        return " skb_load_bytes";
    case BPF_FUNC_get_socket_cookie:
        return " get_socket_cookie";
    case BPF_FUNC_ringbuf_reserve:
        return " ringbuf_reserve";
    case BPF_FUNC_ringbuf_submit:
        return " ringbuf_submit";
    case BPF_FUNC_ringbuf_discard:
        return " ringbuf_discard";
    default:
        return "";
    }
}

static void
put_jump(struct writer *out, const struct bpf_insn *insn, size_t at)
{
    static const char *const op[] = {NULL,  "==", ">",  ">=", "&",  "!=", "s>",
                                     "s>=", NULL, NULL, "<",  "<=", "s<", "s<="};
    unsigned int n = BPF_OP(insn->code) >> 4;
    long target = (long)at + 1 + insn->off;

    if (insn->code == (BPF_JMP | BPF_JA))
        put(out, "goto %ld", target);
    else if (insn->code == (BPF_JMP | BPF_CALL))
        put(out, "call %d%s", insn->imm, helper_name(insn->imm));
    else if (insn->code == (BPF_JMP | BPF_EXIT))
        put(out, "exit");
    else if (insn->code == MAY_GOTO)
        put(out, "may_goto %ld", target);
    else if (n >= sizeof(op) / sizeof(op[0]) || !op[n])
        put_unknown(out, insn);
    else {
        put(out, "if %c%u %s ", width_of(insn->code), insn->dst_reg, op[n]);
        put_operand(out, insn);
        put(out, " goto %ld", target);
    }
}

static void
put_atomic(struct writer *out, const struct bpf_insn *insn)
{
    bool exchange = insn->imm == BPF_XCHG;

    if (!exchange && (insn->imm & ~BPF_FETCH) != BPF_ADD) {
        put_unknown(out, insn);
        return;
    }
    if (exchange || insn->imm & BPF_FETCH)
        put(out, "r%u = ", insn->src_reg);
    put(out, "lock %s ", exchange ? "xchg" : "add");
    put_memory(out, insn->code, insn->dst_reg, insn->off);
    put(out, ", r%u", insn->src_reg);
}

static void
put_store(struct writer *out, const struct bpf_insn *insn)
{
    put_memory(out, insn->code, insn->dst_reg, insn->off);
    if (BPF_CLASS(insn->code) == BPF_STX)
        put(out, " = r%u", insn->src_reg);
    else
        put(out, " = %d", insn->imm);
}

static void
put_wide(struct writer *out, const struct bpf_insn *insn)
{
    uint64_t value = (uint64_t)(uint32_t)insn[1].imm << 32 | (uint32_t)insn[0].imm;

    if (insn->src_reg == BPF_PSEUDO_MAP_FD)
        put(out, "r%u = map %d", insn->dst_reg, insn->imm);
    else if (insn->src_reg == BPF_PSEUDO_MAP_VALUE)
        put(out, "r%u = map %d value + %d", insn->dst_reg, insn->imm, insn[1].imm);
    else
        put(out, "r%u = 0x%llx", insn->dst_reg, (unsigned long long)value);
}

/* Loads and stores. */
static void
put_transfer(struct writer *out, const struct bpf_insn *insn)
{
    uint8_t class = BPF_CLASS(insn->code), mode = BPF_MODE(insn->code);

    if (class == BPF_LDX && mode == BPF_MEM) {
        put(out, "r%u = ", insn->dst_reg);
        put_memory(out, insn->code, insn->src_reg, insn->off);
    } else if (class == BPF_STX && mode == BPF_ATOMIC) {
        put_atomic(out, insn);
    } else if ((class == BPF_STX || class == BPF_ST) && mode == BPF_MEM) {
        put_store(out, insn);
    } else {
        put_unknown(out, insn);
    }
}

static size_t
put_insn(struct writer *out, const struct bpf_insn *insns, size_t count, size_t at)
{
    const struct bpf_insn *insn = &insns[at];
    bool wide = insn->code == (BPF_LD | BPF_DW | BPF_IMM) && count - at > 1;

    if (wide) {
        put_wide(out, insn);
        return 2;
    }
    switch (BPF_CLASS(insn->code)) {
    case BPF_ALU:
    case BPF_ALU64:
        put_alu(out, insn);
        break;
    case BPF_JMP:
    case BPF_JMP32:
        put_jump(out, insn, at);
        break;
    default:
        put_transfer(out, insn);
        break;
    }
    return 1;
}

size_t
wd_dump_insn(const struct bpf_insn *insns, size_t count, size_t at, char *line, size_t size)
{
    struct writer out = {.buffer = line, .size = size};

    return put_insn(&out, insns, count, at);
}

size_t
wd_dump(const struct bpf_insn *insns, size_t count, char *buffer, size_t size)
{
    struct writer out = {.buffer = buffer, .size = size};

    if (size)
        buffer[0] = '\0';
    for (size_t at = 0; at < count;) {
        put(&out, "%5zu: ", at);
        at += put_insn(&out, insns, count, at);
        put(&out, "\n");
    }
    return out.len + 1;
}
