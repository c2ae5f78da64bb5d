/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Throughput of UDP over a veth through a program, and beside one that sniffs.
 * "plain" is what one writes with libnetfilter_queue: recv, one verdict for
 * each packet, 32 MB of buffer.  Needs root; makes namespaces of its own.
 */
#include "../e2e/e2e.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/xt_NFQUEUE.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT 5001
#define FILTER "outbound and udp.DstPort == 5001"
#define ROUNDS 7
#define WARM_UP_US 50000
#define MEASURE_US 300000
#define SEND_BUFFER (1 << 20) /* fewer packets under way than a handle's queue holds */

/* ---- the consumer to compare with ---------------------------------------- */

#define TABLE "bench"
#define CHAIN "out"
#define QUEUE 7

struct plain {
    struct mnl_socket *nft; /* owns the table */
    struct nfq_handle *nfq;
    struct nfq_q_handle *queue;
    pthread_t thread;
    _Atomic bool end;
};

static void
add_table(struct mnl_nlmsg_batch *b, uint32_t *seq)
{
    struct nftnl_table *t = nftnl_table_alloc();
    struct nlmsghdr *nlh =
        nftnl_nlmsg_build_hdr(mnl_nlmsg_batch_current(b), NFT_MSG_NEWTABLE, NFPROTO_INET, NLM_F_CREATE, (*seq)++);

    nftnl_table_set_str(t, NFTNL_TABLE_NAME, TABLE);
    nftnl_table_set_u32(t, NFTNL_TABLE_FLAGS, NFT_TABLE_F_OWNER);
    nftnl_table_nlmsg_build_payload(nlh, t);
    nftnl_table_free(t);
    mnl_nlmsg_batch_next(b);
}

static void
add_chain(struct mnl_nlmsg_batch *b, uint32_t *seq)
{
    struct nftnl_chain *c = nftnl_chain_alloc();
    struct nlmsghdr *nlh =
        nftnl_nlmsg_build_hdr(mnl_nlmsg_batch_current(b), NFT_MSG_NEWCHAIN, NFPROTO_INET, NLM_F_CREATE, (*seq)++);

    nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, TABLE);
    nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, CHAIN);
    nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, "filter");
    nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, NF_INET_LOCAL_OUT);
    nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, -1000000);
    nftnl_chain_nlmsg_build_payload(nlh, c);
    nftnl_chain_free(c);
    mnl_nlmsg_batch_next(b);
}

/* th dport PORT -> NFQUEUE; the target of xtables, as kernels without nft_queue have only that. */
static void
add_rule(struct mnl_nlmsg_batch *b, uint32_t *seq)
{
    struct nlmsghdr *nlh = nftnl_nlmsg_build_hdr(mnl_nlmsg_batch_current(b), NFT_MSG_NEWRULE, NFPROTO_INET,
                                                 NLM_F_CREATE | NLM_F_APPEND, (*seq)++);
    struct nftnl_expr *load = nftnl_expr_alloc("payload"), *cmp = nftnl_expr_alloc("cmp"),
                      *target = nftnl_expr_alloc("target");
    struct xt_NFQ_info_v3 *info = calloc(1, 8); /* padded to 8; the expression takes it over */
    struct nftnl_rule *r = nftnl_rule_alloc();
    uint16_t port = htons(PORT);

    CHECK(load && cmp && target && info && r, "no memory");
    nftnl_rule_set_str(r, NFTNL_RULE_TABLE, TABLE);
    nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, CHAIN);
    nftnl_expr_set_u32(load, NFTNL_EXPR_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
    nftnl_expr_set_u32(load, NFTNL_EXPR_PAYLOAD_OFFSET, 2);
    nftnl_expr_set_u32(load, NFTNL_EXPR_PAYLOAD_LEN, 2);
    nftnl_expr_set_u32(load, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
    nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
    nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_OP, NFT_CMP_EQ);
    nftnl_expr_set(cmp, NFTNL_EXPR_CMP_DATA, &port, sizeof(port));
    info->queuenum = QUEUE;
    info->queues_total = 1;
    nftnl_expr_set_str(target, NFTNL_EXPR_TG_NAME, "NFQUEUE");
    nftnl_expr_set_u32(target, NFTNL_EXPR_TG_REV, 3);
    nftnl_expr_set(target, NFTNL_EXPR_TG_INFO, info, 8);
    nftnl_rule_add_expr(r, load);
    nftnl_rule_add_expr(r, cmp);
    nftnl_rule_add_expr(r, target);
    nftnl_rule_nlmsg_build_payload(nlh, r);
    nftnl_rule_free(r);
    mnl_nlmsg_batch_next(b);
}

static void
install_rule(struct plain *p)
{
    static char buf[16384];
    struct mnl_nlmsg_batch *b = mnl_nlmsg_batch_start(buf, sizeof(buf) / 2);
    char answer[8192];
    uint32_t seq = 1;
    ssize_t n;

    nftnl_batch_begin(mnl_nlmsg_batch_current(b), seq++);
    mnl_nlmsg_batch_next(b);
    add_table(b, &seq);
    add_chain(b, &seq);
    add_rule(b, &seq);
    /* The answer to this one says that all went well. */
    ((struct nlmsghdr *)mnl_nlmsg_batch_head(b))->nlmsg_flags |= NLM_F_ACK;
    nftnl_batch_end(mnl_nlmsg_batch_current(b), seq++);
    mnl_nlmsg_batch_next(b);
    p->nft = mnl_socket_open(NETLINK_NETFILTER);
    CHECK(p->nft && mnl_socket_bind(p->nft, 0, MNL_SOCKET_AUTOPID) == 0, "netlink: %s", strerror(errno));
    CHECK(mnl_socket_sendto(p->nft, mnl_nlmsg_batch_head(b), mnl_nlmsg_batch_size(b)) > 0, "netlink: %s",
          strerror(errno));
    n = mnl_socket_recvfrom(p->nft, answer, sizeof(answer));
    CHECK(n > 0 && mnl_cb_run(answer, (size_t)n, 0, 0, NULL, NULL) >= 0, "rule for the plain consumer: %s",
          strerror(errno));
    mnl_nlmsg_batch_stop(b);
}

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
    p->queue = nfq_create_queue(p->nfq, QUEUE, accept_packet, NULL);
    CHECK(p->queue, "nfq_create_queue: %s", strerror(errno));
    CHECK(nfq_set_mode(p->queue, NFQNL_COPY_PACKET, 0xffff) == 0, "nfq_set_mode: %s", strerror(errno));
    nfq_set_queue_maxlen(p->queue, 8192);
    nfnl_rcvbufsiz(nfq_nfnlh(p->nfq), 32 << 20);
    install_rule(p);
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
    lost = s.NotReturned + s.DropLength + s.DropTime + s.DropBuffer + s.DropFlushed;
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
    pid_t pid;
    int state;

    if (geteuid() != 0) {
        printf("SKIP divert: needs root (network namespaces)\nSKIP sniff: needs root (network namespaces)\n");
        return 0;
    }
    e2e_isolate();
    e2e_report = e2e_shared(sizeof(*e2e_report));
    if (e2e_topology_build() < 0)
        return 1;
    pid = fork();
    if (pid == 0) {
        run();
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &state, 0) < 0)
        perror("bench_divert");
    e2e_topology_clear();
    if (e2e_report->reason[0])
        fprintf(stderr, "bench_divert: %s\n", e2e_report->reason);
    return pid < 0 || e2e_report->reason[0] || state != 0;
}
