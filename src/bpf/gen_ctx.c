/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * What a program is given of the packet, and how it reads it.
 *
 * SOCKET_FILTER (the rule's match): r1 = struct __sk_buff; helpers read bytes.
 * NETFILTER (a link): r1 = struct bpf_nf_ctx, two pointers to kernel
 * structures; bytes come through a dynptr.
 */
#include <net/if_arp.h>
#include <stddef.h>

#include "btf.h"
#include "gen_impl.h"

#define DYNPTR_READ 201 /* bpf_dynptr_read: not in older headers */

/* struct bpf_nf_ctx */
enum nf_ctx { NF_CTX_STATE = 0, NF_CTX_SKB = 8 };

static bool
is_netfilter(const struct wd_gen *g)
{
    return g->opts->kernel;
}

/*
 * r0 = r1, a kernel structure of this type, for the verifier no longer one that
 * can be trusted to be there.  It costs no instruction, and loading pointers
 * from one that is trusted costs the verifier more than 2 ms each (Linux 6.18: it
 * looks for annotations by name among all types of the kernel).
 */
static void
gen_cast(struct wd_gen *g, const struct wd_kernel *kernel, uint32_t type)
{
    wd_asm_mov_imm(&g->a, R2, (int32_t)type);
    wd_asm_call_kernel(&g->a, kernel->rdonly_cast);
}

/* r1 = ifindex of the outgoing interface: skb->dst->dev.  Of the pointer to dst the lowest bits are flags. */
void
wd_gen_route_interface(struct wd_gen *g)
{
    const struct wd_kernel *kernel = g->opts->route;
    struct wd_asm *a = &g->a;

    wd_asm_mov(a, R1, R_SKB);
    gen_cast(g, kernel, kernel->skb_type);
    wd_asm_load(a, BPF_DW, R1, R0, kernel->skb_dst);
    wd_asm_alu_imm(a, BPF_AND, R1, -8);
    gen_cast(g, kernel, kernel->dst_type);
    wd_asm_load(a, BPF_DW, R1, R0, kernel->dst_dev);
    gen_cast(g, kernel, kernel->dev_type_id);
    wd_asm_load(a, BPF_W, R1, R0, kernel->dev_ifindex);
}

/*
 * To the stack: the interface and whether it is the loopback device.  What
 * came in by that one was seen when it went out.
 */
static void
gen_device(struct wd_gen *g)
{
    const struct wd_kernel *kernel = g->opts->kernel;
    struct wd_asm *a = &g->a;
    bool out = g->opts->hook == WD_HOOK_LOCAL_OUT;
    uint32_t other = wd_asm_label(a);

    wd_asm_load(a, BPF_DW, R1, R1, NF_CTX_STATE);
    gen_cast(g, kernel, kernel->state_type);
    wd_asm_load(a, BPF_DW, R2, R0, out ? kernel->state_out : kernel->state_in);
    wd_asm_load(a, BPF_W, R3, R2, kernel->dev_ifindex);
    wd_asm_store(a, BPF_W, R10, g->sp.device + IFINDEX_OFF, R3);
    wd_asm_load(a, BPF_H, R3, R2, kernel->dev_type);
    if (g->opts->hook == WD_HOOK_LOCAL_IN) {
        wd_asm_jump_if_imm(a, BPF_JEQ, R3, ARPHRD_LOOPBACK, g->reject);
        wd_asm_store_imm(a, BPF_B, R10, g->sp.device + LOOPBACK_OFF, 0);
        return;
    }
    wd_asm_mov_imm(a, R2, 0);
    wd_asm_jump_if_imm(a, BPF_JNE, R3, ARPHRD_LOOPBACK, other);
    wd_asm_mov_imm(a, R2, 1);
    wd_asm_bind(a, other);
    wd_asm_store(a, BPF_B, R10, g->sp.device + LOOPBACK_OFF, R2);
}

void
wd_gen_entry(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    if (!is_netfilter(g)) {
        wd_asm_mov(a, R_SKB, R1);
        return;
    }
    wd_asm_load(a, BPF_DW, R_SKB, R1, NF_CTX_SKB);
    if (g->sp.device)
        gen_device(g);
    wd_asm_mov(a, R1, R_SKB);
    wd_asm_mov_imm(a, R2, 0);
    wd_asm_mov(a, R3, R10);
    wd_asm_alu_imm(a, BPF_ADD, R3, g->sp.dynptr);
    wd_asm_call_kernel(a, g->opts->kernel->dynptr_from_skb);
}

void
wd_gen_verdict(struct wd_gen *g, bool match)
{
    bool drop = match && g->opts->mode == WD_GEN_MATCH;

    wd_asm_mov_imm(&g->a, R0, is_netfilter(g) ? !drop : drop); /* NF_DROP is 0, NF_ACCEPT 1 */
    wd_asm_exit(&g->a);
}

void
wd_gen_load_skb(struct wd_gen *g, int dst, enum wd_skb_field field)
{
    static const size_t sk_buff[] = {
        [SKB_LEN] = offsetof(struct __sk_buff, len),           [SKB_PRIORITY] = offsetof(struct __sk_buff, priority),
        [SKB_HASH] = offsetof(struct __sk_buff, hash),         [SKB_TC_INDEX] = offsetof(struct __sk_buff, tc_index),
        [SKB_IFINDEX] = offsetof(struct __sk_buff, ifindex),   [SKB_GSO_SIZE] = offsetof(struct __sk_buff, gso_size),
        [SKB_GSO_SEGS] = offsetof(struct __sk_buff, gso_segs),
    };
    const struct wd_kernel *kernel = g->opts->kernel;

    if (!is_netfilter(g))
        wd_asm_load(&g->a, BPF_W, dst, R_SKB, (int)sk_buff[field]);
    else if (field == SKB_IFINDEX)
        wd_asm_load(&g->a, BPF_W, dst, R10, g->sp.device + IFINDEX_OFF);
    else
        wd_asm_load(&g->a, field == SKB_TC_INDEX ? BPF_H : BPF_W, dst, R_SKB,
                    field == SKB_LEN        ? kernel->skb_len
                    : field == SKB_PRIORITY ? kernel->skb_priority
                    : field == SKB_HASH     ? kernel->skb_hash
                                            : kernel->skb_tc_index);
}

void
wd_gen_copy(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    if (!is_netfilter(g)) {
        wd_asm_mov(a, R1, R_SKB);
        wd_asm_call(a, BPF_FUNC_skb_load_bytes);
        return;
    }
    wd_asm_mov(a, R1, R3);
    wd_asm_mov(a, R5, R2);
    wd_asm_mov(a, R2, R4);
    wd_asm_mov(a, R4, R5);
    wd_asm_mov(a, R3, R10);
    wd_asm_alu_imm(a, BPF_ADD, R3, g->sp.dynptr);
    wd_asm_mov_imm(a, R5, 0);
    wd_asm_call(a, DYNPTR_READ);
}

void
wd_gen_copy_bytes(struct wd_gen *g, int stack_off)
{
    struct wd_asm *a = &g->a;

    wd_asm_mov(a, R3, R10);
    wd_asm_alu_imm(a, BPF_ADD, R3, stack_off);
    wd_gen_copy(g);
}

void
wd_gen_load_bytes(struct wd_gen *g, int stack_off, int32_t len)
{
    wd_asm_mov_imm(&g->a, R4, len);
    wd_gen_copy_bytes(g, stack_off);
}

/* A NETFILTER program cannot make a cookie, but sees one that was made. */
void
wd_gen_cookie(struct wd_gen *g)
{
    struct wd_asm *a = &g->a;

    wd_asm_mov(a, R1, R_SKB);
    if (!is_netfilter(g)) {
        wd_asm_call(a, BPF_FUNC_get_socket_cookie);
        return;
    }
    gen_cast(g, g->opts->kernel, g->opts->kernel->skb_type);
    wd_asm_load(a, BPF_DW, R0, R0, g->opts->kernel->skb_sk); /* loads through NULL give 0 */
    wd_asm_load(a, BPF_DW, R0, R0, g->opts->kernel->sk_cookie);
}
