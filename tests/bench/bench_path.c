/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * What an open handle costs packets that it does not match, and dropping beside
 * a rule of nftables: nanoseconds of a UDP send over a veth.  Goals: 1.1 times
 * an empty base chain where native compares turn the packet away, 1.1 times a
 * chain with a trivial program otherwise, nothing where the filter is false at
 * the hook; DROP 0.98 of the throughput of an nft drop where native compares
 * could say the filter, 0.92 otherwise.  Needs root.
 *
 * Every variant has a network namespace and a veth of its own for as long as
 * the benchmark lasts, so that they can be measured in short slices.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "../e2e/e2e.h"
#include "bench.h"
#include "bpf/load.h"
#include "nft.h"
#include "world.h"

#define PORT 5001
#define CHECK_PACKETS 10

enum place_kind { PLACE_EMPTY, PLACE_NFT, PLACE_HANDLE };

struct place {
    const char *name;
    enum place_kind kind;
    enum nft_rule rule; /* NFT */
    uint32_t arg;
    const char *filter; /* HANDLE */
    UINT64 flags;
    double goal; /* 0: none */
    const char *goal_of;
    bool drops;
    bool skip; /* HANDLE: the flow is skipped */
    int tx;
};

#define NATIVE "outbound and tcp.DstPort == 443"
#define PAYLOAD "outbound and udp.Payload[0] == 1"

static struct place passing[] = {
    {.name = "nothing"},
    {.name = "nothing again"},
    {.name = "empty chain", .kind = PLACE_NFT, .rule = NFT_NO_RULE},
    {.name = "chain, trivial program", .kind = PLACE_NFT, .rule = NFT_BPF_DROP},
    {.name = "divert, other hook",
     .kind = PLACE_HANDLE,
     .filter = "inbound and udp",
     .goal = 1.02,
     .goal_of = "nothing"},
    {.name = "divert, other protocol", .kind = PLACE_HANDLE, .filter = NATIVE, .goal = 1.1, .goal_of = "empty chain"},
    {.name = "divert, payload",
     .kind = PLACE_HANDLE,
     .filter = PAYLOAD,
     .goal = 1.1,
     .goal_of = "chain, trivial program"},
    {.name = "divert, skipped flow",
     .kind = PLACE_HANDLE,
     .filter = "outbound and udp.DstPort == 5001 and udp.Payload[0] == 0",
     .skip = true,
     .goal = 1.1,
     .goal_of = "divert, payload"},
    {.name = "drop, other protocol",
     .kind = PLACE_HANDLE,
     .filter = NATIVE,
     .flags = WINDIVERT_FLAG_DROP,
     .goal = 1.1,
     .goal_of = "chain, trivial program"},
    {.name = "drop, payload",
     .kind = PLACE_HANDLE,
     .filter = PAYLOAD,
     .flags = WINDIVERT_FLAG_DROP,
     .goal = 1.1,
     .goal_of = "chain, trivial program"},
    {.name = "sniff, other protocol",
     .kind = PLACE_HANDLE,
     .filter = NATIVE,
     .flags = WINDIVERT_FLAG_SNIFF,
     .goal = 1.1,
     .goal_of = "chain, trivial program"},
};

static struct place dropping[] = {
    {.name = "nft drop", .kind = PLACE_NFT, .rule = NFT_DROP_PORT, .arg = PORT, .drops = true},
    {.name = "nft drop again", .kind = PLACE_NFT, .rule = NFT_DROP_PORT, .arg = PORT, .drops = true},
    {.name = "drop, port",
     .kind = PLACE_HANDLE,
     .filter = "outbound and udp.DstPort == 5001",
     .flags = WINDIVERT_FLAG_DROP,
     .goal = 1 / 0.98,
     .goal_of = "nft drop",
     .drops = true},
    {.name = "drop, payload",
     .kind = PLACE_HANDLE,
     .filter = "outbound and udp.Payload[0] == 0",
     .flags = WINDIVERT_FLAG_DROP,
     .goal = 1 / 0.92,
     .goal_of = "nft drop",
     .drops = true},
};

/* ---- Places ------------------------------------------------------------------ */

/* Namespace s<i>, its veth to namespace b with addresses of its own. */
static void
make_namespace(unsigned i)
{
    char command[800];

    snprintf(command, sizeof(command),
             "set -e; i=%u; n=s$i; mac=02:78:00:00:00:$(printf %%02x $i); ip netns add $n\n"
             "ip -n $n link add v type veth peer name w$i address $mac netns b\n"
             "ip -n $n link set lo up; ip -n $n link set v addrgenmode none up\n"
             "ip -n b link set w$i addrgenmode none up\n"
             "ip -n $n addr add 10.78.$i.1/24 dev v; ip -n b addr add 10.78.$i.2/24 dev w$i\n"
             "ip -n $n neigh replace 10.78.$i.2 dev v lladdr $mac nud permanent\n",
             i);
    CHECK(system(command) == 0, "cannot make namespace %u", i);
}

static void
skip_flow(HANDLE handle, int tx, unsigned i)
{
    struct sockaddr_in own;
    socklen_t len = sizeof(own);
    char source[24], address[24];
    uint8_t packet[64];

    CHECK(getsockname(tx, (struct sockaddr *)&own, &len) == 0, "getsockname: %s", strerror(errno));
    snprintf(source, sizeof(source), "10.78.%u.1", i);
    snprintf(address, sizeof(address), "10.78.%u.2", i);
    len = e2e_make_udp(packet, source, ntohs(own.sin_port), address, PORT, "x", 1);
    CHECK(WinDivertExtSkipFlow(handle, packet, len), "skip a flow: %s", WinDivertExtGetLastErrorText());
}

static void
install(struct place *place, unsigned i, uint32_t trivial_fd)
{
    HANDLE handle;

    if (place->kind == PLACE_NFT)
        nft_install(place->rule, place->rule == NFT_BPF_DROP ? trivial_fd : place->arg);
    if (place->kind != PLACE_HANDLE)
        return;
    handle = WinDivertOpen(place->filter, WINDIVERT_LAYER_NETWORK, 0, place->flags);
    CHECK(handle != INVALID_HANDLE_VALUE, "open %s: %s", place->name, WinDivertExtGetLastErrorText());
    if (place->skip)
        skip_flow(handle, place->tx, i);
}

static void
make_place(struct place *place, unsigned i, uint32_t trivial_fd)
{
    char ns[16], address[24];

    snprintf(ns, sizeof(ns), "s%u", i);
    snprintf(address, sizeof(address), "10.78.%u.2", i);
    make_namespace(i);
    e2e_enter(ns);
    place->tx = e2e_udp_sender(ns, address, PORT, 0);
    install(place, i, trivial_fd);
}

static int
load_trivial(void)
{
    const struct bpf_insn insns[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
    struct wd_error error;
    int fd;

    CHECK(wd_bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, insns, BENCH_COUNT(insns), "bench", &fd, &error) == 0, "%s",
          error.text);
    return fd;
}

/* ---- Sending ----------------------------------------------------------------- */

static unsigned
send_packets(const struct place *place, unsigned n)
{
    static const uint8_t payload[64];
    unsigned sent = 0;

    for (unsigned i = 0; i < n; i++)
        sent += send(place->tx, payload, sizeof(payload), 0) == sizeof(payload);
    return sent;
}

static void
run_send(void *arg, unsigned n)
{
    bench_sink += send_packets(arg, n);
}

/* A figure counts only if the packets went where they should. */
static void
check_place(const struct place *place)
{
    uint64_t before = e2e_nft_counter("b", "c"), expected = place->drops ? 0 : CHECK_PACKETS, arrived;
    unsigned sent = send_packets(place, CHECK_PACKETS);

    arrived = e2e_nft_counter("b", "c") - before;
    CHECK(sent == expected && arrived == expected, "%s: of %u packets %u were sent and %u arrived", place->name,
          CHECK_PACKETS, sent, (unsigned)arrived);
}

static void
compare(const char *name, struct place *place, size_t count)
{
    struct bench_variant variant[BENCH_VARIANTS_MAX];

    for (size_t i = 0; i < count; i++) {
        check_place(&place[i]);
        variant[i] = (struct bench_variant){place[i].name, run_send, &place[i], NULL};
    }
    bench_compare(name, variant, count);
    for (size_t i = 0; i < count; i++) {
        check_place(&place[i]);
        if (place[i].goal > 0)
            bench_goal(name, place[i].name, place[i].goal, place[i].goal_of);
    }
}

static void
run(void)
{
    uint32_t trivial_fd = (uint32_t)load_trivial();

    free(e2e_shell("b",
                   "printf %%s \"table inet t { counter c { }; chain p { type filter hook prerouting priority -400; "
                   "udp dport 5001 counter name c drop; }; }\" | nft -f -"));
    for (unsigned i = 0; i < BENCH_COUNT(passing); i++)
        make_place(&passing[i], i, trivial_fd);
    for (unsigned i = 0; i < BENCH_COUNT(dropping); i++)
        make_place(&dropping[i], BENCH_COUNT(passing) + i, trivial_fd);
    e2e_stay_on_cpu();
    bench_use_wall_clock();
    compare("not matching", passing, BENCH_COUNT(passing));
    compare("dropping", dropping, BENCH_COUNT(dropping));
}

int
main(int argc, char **argv)
{
    bench_init(argc, argv);
    return world_run("path", run);
}
