/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "inbound.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf/gen.h"
#include "bpf/load.h"
#include "core/cksum.h"

#define LOOPBACK_IFINDEX 1
#define HANDOVER_PRIORITY 0x57E00000u /* | level << 4: between our socket and our program only */
#define HANDOVER_MASK 0xFFF0000Fu
#define ATTACH_TCX_EGRESS 47 /* BPF_TCX_EGRESS, Linux 6.6; not in older headers */
#define ATTACH_BEFORE 8      /* BPF_F_BEFORE: ahead of every other program */
#define NEXT (-1)            /* TCX_NEXT: none of ours */

/* FNV-1a of the boot id. */
static uint32_t
boot_hash(void)
{
    uint32_t hash = 2166136261u;
    char id[64];
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? 0 : read(fd, id, sizeof(id));

    if (fd >= 0)
        close(fd);
    for (ssize_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)id[i]) * 16777619u;
    return hash ? hash : 1;
}

uint32_t
wd_inbound_magic(void)
{
    static _Atomic uint32_t magic;

    if (!magic)
        magic = boot_hash();
    return magic;
}

void
wd_inbound_mac(uint8_t mac[WD_INBOUND_MAC_LEN])
{
    uint32_t magic = wd_inbound_magic();

    mac[0] = 0x56; /* locally administered, unicast */
    mac[1] = 0x44;
    memcpy(mac + 2, &magic, sizeof(magic));
}

/* ---- The program on lo -------------------------------------------------- */

#define INSN(c, d, s, o, i)                                                                                          \
    {                                                                                                                \
        .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)                                          \
    }
#define LOAD(dst, field) INSN(BPF_LDX | BPF_MEM | BPF_W, dst, 6, offsetof(struct __sk_buff, field), 0)
#define STORE(field, src) INSN(BPF_STX | BPF_MEM | BPF_W, 6, src, offsetof(struct __sk_buff, field), 0)
#define MOV(dst, src) INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define MOV_IMM(dst, imm) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define CALL(function) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function)
#define EXIT() INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

/* r6 = skb, r7 = priority as found, then the level; r8 = target interface */
static int
load_program(int *ret_fd, struct wd_error *err)
{
    struct bpf_insn insns[] = {
        MOV(6, 1),
        LOAD(7, priority),
        MOV(2, 7),
        INSN(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, (int32_t)HANDOVER_MASK),
        INSN(BPF_JMP32 | BPF_JEQ | BPF_K, 2, 0, 2, (int32_t)HANDOVER_PRIORITY),
        MOV_IMM(0, NEXT),
        EXIT(),
        LOAD(8, mark),
        MOV_IMM(2, 0),
        STORE(mark, 2),
        STORE(priority, 2),
        INSN(BPF_ALU | BPF_RSH | BPF_K, 7, 0, 0, 4),
        INSN(BPF_ALU | BPF_AND | BPF_K, 7, 0, 0, 0xFFFF),
        STORE(tc_index, 7),
        MOV(1, 6),
        MOV_IMM(2, (int32_t)wd_inbound_magic()),
        CALL(BPF_FUNC_set_hash),
        MOV(1, 8),
        MOV_IMM(2, BPF_F_INGRESS),
        CALL(BPF_FUNC_redirect),
        EXIT(),
    };

    return wd_bpf_load(BPF_PROG_TYPE_SCHED_CLS, insns, sizeof(insns) / sizeof(insns[0]), "wd_inject", ret_fd, err);
}

/* r6 = skb, r7 = level, r8 = target interface */
int
wd_inbound_load(int *ret_prog_fd, struct wd_error *err)
{
    struct bpf_insn insns[] = {
        MOV(6, 1),
        LOAD(7, priority),
        LOAD(8, mark),
        MOV_IMM(2, 0),
        STORE(mark, 2),
        STORE(priority, 2),
        STORE(tc_index, 7),
        MOV(1, 6),
        MOV_IMM(2, (int32_t)wd_inbound_magic()),
        CALL(BPF_FUNC_set_hash),
        MOV(1, 6),
        MOV(2, 8),
        MOV_IMM(3, BPF_F_INGRESS),
        CALL(BPF_FUNC_clone_redirect),
        EXIT(),
    };

    return wd_bpf_load(BPF_PROG_TYPE_SCHED_CLS, insns, sizeof(insns) / sizeof(insns[0]), "wd_inject", ret_prog_fd,
                       err);
}

/* struct link_create of bpf_attr with the part for tcx, which older headers lack. */
struct tcx_link_create {
    uint32_t prog_fd, target_ifindex, attach_type, flags;
    uint32_t relative_fd, unused;
    uint64_t expected_revision;
};

int
wd_inbound_attach(int *ret_link_fd, struct wd_error *err)
{
    struct tcx_link_create attr = {
        .target_ifindex = LOOPBACK_IFINDEX,
        .attach_type = ATTACH_TCX_EGRESS,
        .flags = ATTACH_BEFORE,
    };
    int prog_fd, link_fd, error = load_program(&prog_fd, err);

    if (error)
        return error;
    attr.prog_fd = (uint32_t)prog_fd;
    link_fd = (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
    error = link_fd < 0 ? -errno : 0;
    close(prog_fd);
    if (error)
        return wd_error_set(err, error, "inbound injection needs tcx (Linux 6.6)", "attach to lo: %s",
                            strerror(-error));
    *ret_link_fd = link_fd;
    return 0;
}

/* ---- The socket --------------------------------------------------------- */

int
wd_inbound_socket(int16_t priority, int *ret_fd, struct wd_error *err)
{
    uint32_t handover = HANDOVER_PRIORITY | WD_TAG_LEVEL(priority) << 4;
    int size = 4 << 20;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); /* protocol 0: it receives nothing */

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &handover, sizeof(handover)) < 0) {
        int error = -errno;

        if (fd >= 0)
            close(fd);
        return wd_error_set(err, error, "run as root or with CAP_NET_RAW and CAP_NET_ADMIN",
                            "open a packet socket: %s", strerror(-error));
    }
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    *ret_fd = fd;
    return 0;
}

/* The target's hardware address, so that the packet counts as meant for this machine.  Of the socket's namespace. */
static int
target_address(int fd, uint32_t ifindex, uint8_t mac[ETH_ALEN])
{
    struct ifreq ifr = {.ifr_ifindex = (int)ifindex};
    static const uint8_t zero[ETH_ALEN];

    if (ioctl(fd, SIOCGIFNAME, &ifr) < 0)
        return -errno;
    if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
        return -errno;
    if (!(ifr.ifr_flags & IFF_UP))
        return -ENETDOWN;
    if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
        return -errno;
    memcpy(mac, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
    if (memcmp(mac, zero, ETH_ALEN) == 0)
        mac[0] = 2; /* tun: any address but zero will do */
    return 0;
}

static int
send_frame(int fd, const struct ethhdr *eth, const struct wd_packet *packet, uint32_t ifindex)
{
    struct sockaddr_ll lo = {.sll_family = AF_PACKET, .sll_protocol = eth->h_proto, .sll_ifindex = LOOPBACK_IFINDEX};
    struct iovec iov[] = {{(void *)(uintptr_t)eth, sizeof(*eth)}, {(void *)(uintptr_t)packet->data, packet->ip_len}};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(ifindex))] = {0};
    struct msghdr msg = {
        .msg_name = &lo,
        .msg_namelen = sizeof(lo),
        .msg_iov = iov,
        .msg_iovlen = 2,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    ssize_t sent;

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SO_MARK;
    cmsg->cmsg_len = CMSG_LEN(sizeof(ifindex));
    memcpy(CMSG_DATA(cmsg), &ifindex, sizeof(ifindex));
    do
        sent = sendmsg(fd, &msg, MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int
wd_inbound_send(int fd, const struct wd_packet *packet, uint32_t ifindex)
{
    struct ethhdr eth = {.h_proto = htons(packet->version == 4 ? ETH_P_IP : ETH_P_IPV6)};
    int error = target_address(fd, ifindex, eth.h_dest);

    if (error)
        return error;
    wd_inbound_mac(eth.h_source);
    error = send_frame(fd, &eth, packet, ifindex);
    return error == -ENETDOWN || error == -ENXIO ? -ENOLINK : error;
}

int
wd_inbound_run(int prog_fd, int fd, int16_t priority, const struct wd_packet *packet, bool sum, uint32_t ifindex)
{
    struct __sk_buff ctx = {.mark = ifindex, .priority = WD_TAG_LEVEL(priority)};
    uint8_t frame[sizeof(struct ethhdr) + WD_INBOUND_RUN_MAX];
    struct ethhdr eth = {.h_proto = htons(packet->version == 4 ? ETH_P_IP : ETH_P_IPV6)};
    uint32_t value;
    int error;

    if (packet->ip_len > WD_INBOUND_RUN_MAX)
        return -EMSGSIZE;
    error = target_address(fd, ifindex, eth.h_dest);
    if (error)
        return error;
    wd_inbound_mac(eth.h_source);
    memcpy(frame, &eth, sizeof(eth));
    memcpy(frame + sizeof(eth), packet->data, packet->ip_len);
    if (sum)
        wd_cksum_fill(frame + sizeof(eth), packet->ip_len, (uint64_t)~WINDIVERT_HELPER_NO_IP_CHECKSUM);
    error = wd_bpf_run_frame(prog_fd, frame, sizeof(eth) + packet->ip_len, &ctx, sizeof(ctx), &value, NULL);
    return error ? error : value ? -EIO : 0;
}
