/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What programs of type NETFILTER must know of this kernel's types, from its BTF (/sys/kernel/btf/vmlinux). */
#ifndef WD_BPF_BTF_H
#define WD_BPF_BTF_H

#include <stdint.h>

/* Byte offsets of members, and the BTF ids of types and functions. */
struct wd_kernel {
    uint16_t skb_len, skb_priority, skb_hash, skb_tc_index, skb_sk, skb_dst; /* struct sk_buff */
    uint16_t dst_dev;                                                        /* struct dst_entry */
    uint16_t sk_cookie;                                                      /* struct sock */
    uint16_t dev_ifindex, dev_type;                                          /* struct net_device */
    uint16_t state_in, state_out;                                            /* struct nf_hook_state */
    uint32_t skb_type, state_type, dst_type, dev_type_id;
    uint32_t dynptr_from_skb, rdonly_cast; /* bpf_dynptr_from_skb(), bpf_rdonly_cast() */
};

/*
 * Of the running kernel; read once in a process (about 2 ms), then remembered.
 * NULL: it has no BTF, or not all of these.
 */
const struct wd_kernel *wd_kernel(void);

/* The same from memory; -EINVAL: malformed, -ENOENT: not all is there, -ENOMEM. */
int wd_kernel_parse(const void *btf, size_t size, struct wd_kernel *ret_kernel);

#endif
