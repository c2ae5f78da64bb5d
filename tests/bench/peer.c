/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "peer.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "bench.h"

#define SNAPLEN 262144
#define KERNEL_MAX 4096 /* instructions that the kernel takes */

struct peer {
    struct bpf_program program;
};

/* As struct sock_fprog of linux/filter.h; the instructions are the same. */
struct kernel_program {
    unsigned short count;
    struct bpf_insn *insns;
};

struct peer *
peer_compile(const char *text)
{
    static pcap_t *pcap;
    struct peer *peer = malloc(sizeof(*peer));

    if (!pcap)
        pcap = pcap_open_dead(DLT_RAW, SNAPLEN);
    if (!pcap || !peer)
        bench_fail("libpcap: no memory");
    if (pcap_compile(pcap, &peer->program, text, 1, PCAP_NETMASK_UNKNOWN) < 0)
        bench_fail("libpcap: %s: %.80s", pcap_geterr(pcap), text);
    return peer;
}

void
peer_free(struct peer *peer)
{
    pcap_freecode(&peer->program);
    free(peer);
}

unsigned
peer_count(const struct peer *peer)
{
    return peer->program.bf_len;
}

bool
peer_match(const struct peer *peer, const uint8_t *packet, size_t len)
{
    return bpf_filter(peer->program.bf_insns, packet, (unsigned)len, (unsigned)len) != 0;
}

int
peer_attach(const struct peer *peer, int fd)
{
    struct kernel_program program = {(unsigned short)peer->program.bf_len, peer->program.bf_insns};

    if (peer->program.bf_len > KERNEL_MAX)
        return -E2BIG;
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
}
