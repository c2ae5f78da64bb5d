/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Throughput of UDP over a veth through a program, and beside one that sniffs.
 * "plain" is what one writes with libnetfilter_queue: recv, one verdict for
 * each packet, 32 MB of buffer.  Needs root; makes namespaces of its own.
 */
#include "../e2e/e2e.h"
#include "nft.h"
#include "world.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001
#define FILTER "outbound and udp.DstPort == 5001"
#define ROUNDS 7
#define WARM_UP_US 50000
#define MEASURE_US 300000
#define SEND_BUFFER (1 << 20) /* fewer packets under way than a handle's queue holds */

/* ---- the consumer to compare with ---------------------------------------- */

struct plain {
    struct mnl_socket *nft; /* owns the table */
    struct nfq_handle *nfq;
    struct nfq_q_handle *queue;
    pthread_t thread;
    _Atomic bool end;
};

static int
accept_packet(struct nfq_q_handle *queue, struct nfgenmsg *msg, struct nfq_data *data, void *arg)
{
    (void)msg;
    (void)arg;
    return nfq_set_verdict(queue, ntohl(nfq_get_msg_packet_hdr(data)->packet_id), NF_ACCEPT, 0, NULL);
}

static void *
plain_thread(void *arg)
{
    static char buf[70000] __attribute__((aligned));
    struct plain *p = arg;
    struct pollfd wait = {.fd = nfq_fd(p->nfq), .events = POLLIN};

    while (!p->end) {
        ssize_t n;

        if (poll(&wait, 1, 20) < 1)
            continue;
        while (!p->end && (n = recv(wait.fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
            nfq_handle_packet(p->nfq, buf, (int)n);
    }
    return NULL;
}

static void
plain_start(struct plain *p)
{
    memset(p, 0, sizeof(*p));
    p->nfq = nfq_open();
    CHECK(p->nfq, "nfq_open: %s", strerror(errno));
    p->queue = nfq_create_queue(p->nfq, NFT_QUEUE_NUM, accept_packet, NULL);
    CHECK(p->queue, "nfq_create_queue: %s", strerror(errno));
    CHECK(nfq_set_mode(p->queue, NFQNL_COPY_PACKET, 0xffff) == 0, "nfq_set_mode: %s", strerror(errno));
    nfq_set_queue_maxlen(p->queue, 8192);
    nfnl_rcvbufsiz(nfq_nfnlh(p->nfq), 32 << 20);
    p->nft = nft_install(NFT_QUEUE_PORT, PORT);
    CHECK(pthread_create(&p->thread, NULL, plain_thread, p) == 0, "pthread_create");
}

static void
plain_stop(struct plain *p)
{
    p->end = true;
    pthread_join(p->thread, NULL);
    mnl_socket_close(p->nft);
    nfq_destroy_queue(p->queue);
    nfq_close(p->nfq);
}

/* ---- ours -------------------------------------------------------------- */

struct ours {
    HANDLE h;
    unsigned batch;
    bool sniff;
    pthread_t thread;
};

static void *
ours_thread(void *arg)
{
    static uint8_t buf[1 << 20];
    static WINDIVERT_ADDRESS addr[64];
    struct ours *o = arg;

    for (;;) {
        UINT len, bytes = o->batch * (UINT)sizeof(*addr);

        if (o->batch == 1) {
            if (!WinDivertRecv(o->h, buf, 65536, &len, addr))
                break;
            if (!o->sniff)
                WinDivertSend(o->h, buf, len, NULL, addr);
            continue;
        }
        if (!WinDivertRecvEx(o->h, buf, sizeof(buf), &len, 0, addr, &bytes, NULL))
            break;
        if (!o->sniff)
            WinDivertSendEx(o->h, buf, len, NULL, 0, addr, bytes, NULL);
    }
    return NULL;
}

static void
ours_start(struct ours *o, unsigned batch, bool sniff)
{
    *o = (struct ours){.batch = batch, .sniff = sniff};
    o->h = WinDivertOpen(FILTER, WINDIVERT_LAYER_NETWORK, 0, sniff ? WINDIVERT_FLAG_SNIFF : 0);
    CHECK(o->h != INVALID_HANDLE_VALUE, "open: %s", WinDivertExtGetLastErrorText());
    CHECK(pthread_create(&o->thread, NULL, ours_thread, o) == 0, "pthread_create");
}

/* A figure counts only if the packets did go through the program. */
static void
ours_stop(struct ours *o)
{
    WINDIVERT_EXT_STATS s = {.Size = sizeof(s)};
    uint64_t lost;

    WinDivertShutdown(o->h, WINDIVERT_SHUTDOWN_RECV);
    pthread_join(o->thread, NULL);
    CHECK(WinDivertExtGetStats(o->h, &s) && s.Delivered > 1000, "only %llu packets were delivered",
          (unsigned long long)s.Delivered);
    lost = s.NotReturned + s.DropLength + s.DropSize + s.DropTime + s.DropBuffer + s.DropFlushed;
    if (lost)
        printf("# %s, batch %u: %llu of %llu packets lost\n", o->sniff ? "sniff" : "divert", o->batch,
               (unsigned long long)lost, (unsigned long long)(lost + s.Delivered));
    CHECK(o->sniff || lost < s.Delivered / 100, "%llu packets lost", (unsigned long long)lost);
    WinDivertClose(o->h);
}

/* ---- measuring ------------------------------------------------------------ */

static uint64_t
send_for(int tx, size_t size, int64_t us)
{
    static uint8_t payload[1400];
    int64_t end = e2e_now_us() + us;
    uint64_t n = 0;

    while (e2e_now_us() < end) {
        for (unsigned i = 0; i < 64; i++)
            n += send(tx, payload, size, 0) == (ssize_t)size;
    }
    return n;
}

/* Thousand packets a second that the sender gets rid of; held packets hold it back. */
static void
measure(const char *name, const char *variant, int tx, size_t size)
{
    int64_t start;
    uint64_t n;

    send_for(tx, size, WARM_UP_US);
    start = e2e_now_us();
    n = send_for(tx, size, MEASURE_US);
    printf("%s %zu B\t%s\tkpps\t%.1f\n", name, size, variant, (double)n * 1000 / (double)(e2e_now_us() - start));
    fflush(stdout);
}

static void
round_divert(int tx, size_t size)
{
    struct plain plain;
    struct ours ours;

    plain_start(&plain);
    measure("divert", "libnetfilter_queue", tx, size);
    plain_stop(&plain);
    ours_start(&ours, 1, false);
    measure("divert", "recv+send", tx, size);
    ours_stop(&ours);
    ours_start(&ours, 64, false);
    measure("divert", "recvex+sendex 64", tx, size);
    ours_stop(&ours);
}

static void
round_sniff(int tx, size_t size)
{
    struct ours ours;

    measure("sniff", "no handle", tx, size);
    ours_start(&ours, 1, true);
    measure("sniff", "recv", tx, size);
    ours_stop(&ours);
    ours_start(&ours, 64, true);
    measure("sniff", "recvex 64", tx, size);
    ours_stop(&ours);
}

static void
run(void)
{
    static const size_t sizes[] = {64, 1400};
    int bytes = SEND_BUFFER, tx;

    e2e_enter("a");
    /* The receiver is a rule that drops early, so that a second process does not take the sender's CPU. */
    free(e2e_shell("b",
                   "printf %%s \"table inet t { counter c { }; chain p { type filter hook prerouting priority -400; "
                   "udp dport 5001 counter name c drop; }; }\" | nft -f -"));
    tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    CHECK(setsockopt(tx, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) == 0, "send buffer: %s", strerror(errno));
    for (unsigned r = 0; r < ROUNDS; r++) {
        for (unsigned i = 0; i < 2; i++) {
            round_divert(tx, sizes[i]);
            round_sniff(tx, sizes[i]);
        }
    }
}

int
main(void)
{
    return world_run("divert", run);
}
