/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Generated programs in the kernel, beside the classic BPF of libpcap for
 * filters of the same meaning, each attached to an AF_UNIX datagram pair whose
 * receiving end drops what the filter does not match.  Only that is timed, as
 * nothing is queued then; the packet that matches at the end is measured with
 * the negated filter ("last").  What a send costs with a program that drops at
 * once is subtracted.  (A pair each: with one for all, the kernel frees what
 * was attached before while the next one is timed.)  Goal: no slower.  Needs
 * CAP_BPF.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"
#include "bpf/gen.h"
#include "bpf/load.h"
#include "core/filter.h"
#include "filters.h"
#include "peer.h"

struct subject {
    struct filter_texts texts;
    struct peer *peer;
    size_t insns;
    int prog_fd;
    size_t len;
    uint8_t packet[FILTER_PACKET_MAX];
};

/* A pair of sockets; packets go from tx to rx, through the filter attached there. */
struct pair {
    int tx, rx;
    struct subject *subject;
    void (*attach)(const struct pair *pair);
};

/* ---- Our programs ------------------------------------------------------------ */

static int
load(const struct bpf_insn *insns, size_t count)
{
    struct wd_error error;
    int fd;

    if (wd_bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, insns, count, "bench", &fd, &error) == 0)
        return fd;
    if (geteuid() != 0) {
        printf("SKIP bpf: needs CAP_BPF\n");
        exit(BENCH_SKIPPED);
    }
    bench_fail("bench_bpf: %s", error.text);
}

static int drop_fd;

static int
load_drop(void)
{
    const struct bpf_insn insns[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};

    return load(insns, BENCH_COUNT(insns));
}

/* Specialised for outbound packets, as at LOCAL_OUT. */
static void
generate(struct subject *s)
{
    struct wd_gen_opts opts = {.hook = WD_HOOK_LOCAL_OUT,
                               .mode = WD_GEN_MATCH,
                               .counters_fd = -1,
                               .ring_fd = -1,
                               .bounded = !wd_bpf_can_loop()};
    struct wd_known known = {0};
    struct wd_filter_error filter_error;
    struct wd_filter *filter;
    struct wd_arena arena;
    struct wd_error error;
    struct wd_prog *prog;
    struct wd_code code;
    bool exact;

    known.state[WD_F_OUTBOUND] = known.state[WD_F_INBOUND] = WD_KNOWN;
    known.value[WD_F_OUTBOUND] = 1;
    wd_arena_init(&arena, NULL);
    if (wd_filter_compile(&arena, s->texts.ours, WINDIVERT_LAYER_NETWORK, &filter, &filter_error) ||
        wd_filter_specialise(&arena, filter, &known, &prog, &exact) || !exact)
        bench_fail("bench_bpf: does not compile: %.200s", s->texts.ours);
    if (wd_gen(prog, &opts, &code, &error))
        bench_fail("bench_bpf: %s: %.200s", error.text, s->texts.ours);
    s->prog_fd = load(code.insns, code.count);
    s->insns = code.count;
    wd_code_free(&code);
    wd_arena_free(&arena);
}

/* ---- Sockets ------------------------------------------------------------------- */

static void
attach_bpf(const struct pair *pair, int prog_fd)
{
    if (setsockopt(pair->rx, SOL_SOCKET, SO_ATTACH_BPF, &prog_fd, sizeof(prog_fd)) < 0)
        bench_fail("bench_bpf: SO_ATTACH_BPF: %s", strerror(errno));
}

static void
attach_drop(const struct pair *pair)
{
    attach_bpf(pair, drop_fd);
}

static void
attach_ours(const struct pair *pair)
{
    attach_bpf(pair, pair->subject->prog_fd);
}

static void
attach_classic(const struct pair *pair)
{
    if (peer_attach(pair->subject->peer, pair->rx) < 0)
        bench_fail("bench_bpf: SO_ATTACH_FILTER: %s", strerror(errno));
}

static struct pair
make_pair(struct subject *subject, void (*attach)(const struct pair *pair))
{
    int fd[2];

    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fd) < 0)
        bench_fail("bench_bpf: socketpair: %s", strerror(errno));
    return (struct pair){fd[0], fd[1], subject, attach};
}

static void
prepare(void *arg)
{
    const struct pair *pair = arg;

    pair->attach(pair);
}

/* A packet that the receiver's filter drops counts as sent. */
static void
run_send(void *arg, unsigned n)
{
    const struct pair *pair = arg;
    const struct subject *s = pair->subject;

    for (unsigned i = 0; i < n; i++)
        if (send(pair->tx, s->packet, s->len, MSG_DONTWAIT) != (ssize_t)s->len)
            bench_fail("bench_bpf: send: %s", strerror(errno));
}

/* Whether the filter that is attached lets the packet through. */
static bool
passes(struct pair *pair)
{
    uint8_t byte;

    run_send(pair, 1);
    if (recv(pair->rx, &byte, 1, MSG_DONTWAIT) == 1)
        return true;
    if (errno != EAGAIN)
        bench_fail("bench_bpf: recv: %s", strerror(errno));
    return false;
}

static void
check_packets(struct pair *pair, unsigned tests)
{
    struct subject *s = pair->subject;
    unsigned matches = 0;

    prepare(pair);
    for (unsigned i = 0; i < FILTER_SAMPLES; i++) {
        bool passed;

        s->len = filter_sample(tests, i, s->packet);
        passed = passes(pair);
        if (passed != peer_match(s->peer, s->packet, s->len))
            bench_fail("bench_bpf: the program and libpcap disagree (program: %d): %.200s", passed, s->texts.ours);
        matches += passed;
    }
    if (matches == 0 || matches == FILTER_SAMPLES)
        bench_fail("bench_bpf: %u of the samples match: nothing is compared", matches);
}

static void
compare(struct pair pair[3], const char *name)
{
    const struct bench_variant variants[] = {
        {"drop at once", run_send, &pair[0], prepare},
        {"classic", run_send, &pair[1], prepare},
        {"generated", run_send, &pair[2], prepare},
    };

    for (size_t v = 0; v < BENCH_COUNT(variants); v++) {
        prepare(&pair[v]);
        if (passes(&pair[v]))
            bench_fail("bench_bpf: %s: %s lets the packet through", name, variants[v].name);
    }
    bench_compare_over(name, variants, BENCH_COUNT(variants));
    bench_goal(name, "generated", 1, "classic");
}

static void
compare_filter(struct pair pair[3], enum filter_shape shape, unsigned tests, enum filter_packet which)
{
    struct subject *s = pair->subject;
    char name[64];

    snprintf(name, sizeof(name), "bpf %s %u %s", filter_shape_name(shape), tests,
             which == FILTER_PACKET_LAST ? "last" : "none");
    s->texts = filter_texts(shape, tests, which == FILTER_PACKET_LAST);
    s->peer = peer_compile(s->texts.pcap);
    generate(s);
    check_packets(&pair[2], tests);
    s->len = filter_packet(shape, tests, which, s->packet);
    if (peer_attach(s->peer, pair[1].rx) == 0)
        compare(pair, name);
    else
        printf("SKIP %s: the kernel does not take libpcap's program of %u instructions\n", name, peer_count(s->peer));
    printf("# %s: %u instructions of libpcap, %zu of ours\n", name, peer_count(s->peer), s->insns);
    close(s->prog_fd);
    peer_free(s->peer);
    filter_texts_free(&s->texts);
}

int
main(int argc, char **argv)
{
    unsigned sizes[] = {1, 3, 9, 64, 1000};
    struct subject s = {0};
    struct pair pair[3] = {make_pair(&s, attach_drop), make_pair(&s, attach_classic), make_pair(&s, attach_ours)};

    bench_init(argc, argv);
    if (bench_quick())
        sizes[4] = 250; /* libpcap takes 4 s to compile 1,000 ports */
    drop_fd = load_drop();
    for (int shape = 0; shape < FILTER_SHAPES; shape++)
        for (size_t i = 0; i < BENCH_COUNT(sizes); i++) {
            compare_filter(pair, (enum filter_shape)shape, sizes[i], FILTER_PACKET_LAST);
            compare_filter(pair, (enum filter_shape)shape, sizes[i], FILTER_PACKET_NONE);
        }
    return 0;
}
