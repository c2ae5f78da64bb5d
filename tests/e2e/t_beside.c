/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Nothing is lost: pairs of questions sent at once, and traffic beside handles that come and go. */
#include "e2e.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Pairs of questions ---------------------------------------------------------- */

#define PAIRS 1000
#define ASKERS 4 /* threads */
#define DNS 53

struct pairs {
    const char *server_ns, *server_ip; /* where it listens */
    const char *asked_ip;              /* where questions are sent to */
    const char *handle_ns;
    WINDIVERT_LAYER layer;
    const char *filter;
    const char *rules_ns, *rules; /* NULL: none */
    unsigned passes;              /* how often a question, and an answer, comes to the handle */
};

/* A and AAAA with one id, as a resolver asks for both from one socket at once. */
struct question {
    uint16_t id, type;
    uint32_t pair;
};

struct server {
    int fd;
    _Atomic bool stop;
    _Atomic unsigned asked;
    uint8_t seen[PAIRS][2];
    pthread_t thread;
};

static void *
answer_all(void *arg)
{
    struct server *s = arg;

    while (!s->stop) {
        struct pollfd wait = {.fd = s->fd, .events = POLLIN};
        struct sockaddr_storage from;
        socklen_t len = sizeof(from);
        struct question q;

        if (poll(&wait, 1, 20) != 1 || recvfrom(s->fd, &q, sizeof(q), 0, (struct sockaddr *)&from, &len) != sizeof(q))
            continue;
        CHECK(q.pair < PAIRS && q.type < 2, "a question that nobody asked");
        CHECK(!s->seen[q.pair][q.type]++, "question %u of pair %u came twice", q.type, q.pair);
        s->asked++;
        CHECK(sendto(s->fd, &q, sizeof(q), 0, (struct sockaddr *)&from, len) == sizeof(q), "answer: %s",
              strerror(errno));
    }
    return NULL;
}

struct asker {
    const struct pairs *pairs;
    unsigned first, count;
    pthread_t thread;
};

static void
ask(int fd, uint32_t pair)
{
    struct question q[2] = {{(uint16_t)pair, 0, pair}, {(uint16_t)pair, 1, pair}};
    struct iovec iov[2] = {{&q[0], sizeof(q[0])}, {&q[1], sizeof(q[1])}};
    struct mmsghdr msgs[2] = {{.msg_hdr = {.msg_iov = &iov[0], .msg_iovlen = 1}},
                              {.msg_hdr = {.msg_iov = &iov[1], .msg_iovlen = 1}}};

    CHECK(sendmmsg(fd, msgs, 2, 0) == 2, "pair %u: send: %s", pair, strerror(errno));
}

static void
expect_answers(int fd, uint32_t pair)
{
    unsigned got[2] = {0};
    struct question q;

    for (unsigned i = 0; i < 2; i++) {
        CHECK(e2e_receive(fd, (uint8_t *)&q, sizeof(q), 3000) == sizeof(q), "pair %u has %u of 2 answers", pair, i);
        CHECK(q.pair == pair && q.type < 2, "pair %u got an answer of pair %u", pair, q.pair);
        got[q.type]++;
    }
    CHECK(got[0] == 1 && got[1] == 1, "pair %u: one question answered twice", pair);
    CHECK(e2e_receive(fd, (uint8_t *)&q, sizeof(q), 0) < 0, "pair %u has an answer too many", pair);
}

/* All questions first, then all answers. */
static void *
ask_all(void *arg)
{
    struct asker *a = arg;
    int *fd = calloc(a->count, sizeof(*fd));

    CHECK(fd, "no memory");
    for (unsigned i = 0; i < a->count; i++)
        fd[i] = e2e_udp_sender("a", a->pairs->asked_ip, DNS, 0);
    for (unsigned i = 0; i < a->count; i++)
        ask(fd[i], a->first + i);
    for (unsigned i = 0; i < a->count; i++) {
        expect_answers(fd[i], a->first + i);
        close(fd[i]);
    }
    free(fd);
    return NULL;
}

static void
allow_files(void)
{
    struct rlimit limit = {4 * PAIRS, 4 * PAIRS};

    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0, "RLIMIT_NOFILE: %s", strerror(errno));
}

static void
ask_pairs(const struct pairs *pairs)
{
    static struct server s;
    struct asker askers[ASKERS];
    struct e2e_passer p = {.batch = 16};

    allow_files();
    if (pairs->rules)
        e2e_set_table(pairs->rules_ns, pairs->rules);
    s = (struct server){.fd = e2e_udp_receiver(pairs->server_ns, pairs->server_ip, DNS)};
    CHECK(fcntl(s.fd, F_SETFL, 0) == 0, "fcntl: %s", strerror(errno)); /* answers that are held fill its buffer */
    CHECK(pthread_create(&s.thread, NULL, answer_all, &s) == 0, "pthread_create");
    e2e_enter(pairs->handle_ns);
    p.handle = e2e_open_at(pairs->layer, pairs->filter, 0, 0);
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_LENGTH, WINDIVERT_PARAM_QUEUE_LENGTH_MAX));
    e2e_pass_start(&p);
    for (unsigned i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.pairs = pairs, .first = i * (PAIRS / ASKERS), .count = PAIRS / ASKERS};
        CHECK(pthread_create(&askers[i].thread, NULL, ask_all, &askers[i]) == 0, "pthread_create");
    }
    for (unsigned i = 0; i < ASKERS; i++)
        pthread_join(askers[i].thread, NULL);
    s.stop = true;
    pthread_join(s.thread, NULL);
    e2e_pass_stop(&p);
    CHECK(s.asked == 2 * PAIRS, "the server was asked %u times", s.asked);
    CHECK(p.received == 4 * PAIRS * pairs->passes, "%llu packets at the handle, expected %u",
          (unsigned long long)p.received, 4 * PAIRS * pairs->passes);
    close(s.fd);
    e2e_enter("a");
    if (pairs->rules)
        e2e_delete_table(pairs->rules_ns);
}

#define ANY_DNS "udp.DstPort == 53 or udp.SrcPort == 53"
#define TRACK                                                                                                        \
    "chain i { type filter hook input priority 0; policy drop; iif lo accept; ct state established,related accept; " \
    "udp dport 53 accept; meta l4proto ipv6-icmp accept; }; "

static void
beside_pairs(void)
{
    ask_pairs(&(struct pairs){"b", E2E_B4, E2E_B4, "a", WINDIVERT_LAYER_NETWORK, ANY_DNS, NULL, NULL, 1});
    ask_pairs(&(struct pairs){"b", E2E_B6, E2E_B6, "a", WINDIVERT_LAYER_NETWORK, ANY_DNS, NULL, NULL, 1});
}

static void
beside_pairs_local(void)
{
    ask_pairs(&(struct pairs){"a", "127.0.0.1", "127.0.0.1", "a", WINDIVERT_LAYER_NETWORK, ANY_DNS, "a", TRACK, 1});
    ask_pairs(&(struct pairs){"a", "::1", "::1", "a", WINDIVERT_LAYER_NETWORK, ANY_DNS, "a", TRACK, 1});
}

static void
beside_pairs_tracked(void)
{
    ask_pairs(&(struct pairs){"b", E2E_B4, E2E_B4, "a", WINDIVERT_LAYER_NETWORK, ANY_DNS, "a", TRACK, 1});
    ask_pairs(&(struct pairs){"b", E2E_B6, E2E_B6, "a", WINDIVERT_LAYER_NETWORK, ANY_DNS, "a", TRACK, 1});
}

/* At the server: connection tracking has seen both questions, and remembers neither yet, while they are held. */
static void
beside_pairs_tracked_server(void)
{
    ask_pairs(&(struct pairs){"b", E2E_B4, E2E_B4, "b", WINDIVERT_LAYER_NETWORK, ANY_DNS, "b", TRACK, 1});
    ask_pairs(&(struct pairs){"b", E2E_B6, E2E_B6, "b", WINDIVERT_LAYER_NETWORK, ANY_DNS, "b", TRACK, 1});
}

/* The address of the resolver is translated, on the asking machine. */
static void
beside_pairs_translated(void)
{
    ask_pairs(&(struct pairs){
        "b", E2E_B4, "10.77.0.53", "a", WINDIVERT_LAYER_NETWORK, ANY_DNS, "a",
        TRACK
        "chain n { type nat hook output priority -100; ip daddr 10.77.0.53 udp dport 53 dnat ip to 10.77.0.2; }; ",
        1});
    ask_pairs(&(struct pairs){
        "b", E2E_B6, "fd77::53", "a", WINDIVERT_LAYER_NETWORK, ANY_DNS, "a",
        TRACK
        "chain n { type nat hook output priority -100; ip6 daddr fd77::53 udp dport 53 dnat ip6 to fd77::2; }; ",
        1});
}

#define ROUTER4                                                                                                      \
    "chain n { type nat hook prerouting priority -100; ip daddr 10.77.0.54 udp dport 53 dnat ip to 10.78.0.2; }; "   \
    "chain m { type nat hook postrouting priority 100; oifname vbc masquerade; }; "
#define ROUTER6                                                                                                      \
    "chain n { type nat hook prerouting priority -100; ip6 daddr fd77::54 udp dport 53 dnat ip6 to fd78::2; }; "     \
    "chain m { type nat hook postrouting priority 100; oifname vbc masquerade; }; "

/* On a router that translates both addresses; what is asked there is not what conntrack may remember untranslated. */
static void
beside_pairs_router(void)
{
    free(e2e_shell("a", "ip neigh replace 10.77.0.54 dev va lladdr 02:77:00:00:00:02 nud permanent; "
                        "ip neigh replace fd77::54 dev va lladdr 02:77:00:00:00:02 nud permanent"));
    ask_pairs(
        &(struct pairs){"c", E2E_C4, "10.77.0.54", "b", WINDIVERT_LAYER_NETWORK_FORWARD, ANY_DNS, "b", ROUTER4, 1});
    ask_pairs(
        &(struct pairs){"c", E2E_C6, "fd77::54", "b", WINDIVERT_LAYER_NETWORK_FORWARD, ANY_DNS, "b", ROUTER6, 1});
    ask_pairs(&(struct pairs){"c", E2E_C4, E2E_C4, "b", WINDIVERT_LAYER_NETWORK_FORWARD, ANY_DNS, NULL, NULL, 1});
}

/* ---- Handles that come and go -------------------------------------------------------- */

#define PORT 5001
#define OPENERS 3 /* two processes and a thread of this one */
#define OPENS 80  /* of each */

struct opener {
    _Atomic unsigned opened;
    _Atomic bool begin, done;
    unsigned seed;
};

/* Handles of every kind, above, beside and below the one that passes the traffic. */
static void
open_and_close(void *arg)
{
    static const struct {
        const char *filter;
        UINT64 flags;
    } kinds[] = {{"udp.DstPort == 9", 0},
                 {"tcp or udp", WINDIVERT_FLAG_SNIFF},
                 {"udp.DstPort == 9", WINDIVERT_FLAG_DROP},
                 {"inbound and icmp", 0},
                 {"true", WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY}};
    static const INT16 priority[] = {100, 0, -100, 1, -1};
    struct opener *o = arg;

    WAIT_UNTIL(o->begin, 10000, "never told to begin");
    for (unsigned i = 0; i < OPENS; i++) {
        unsigned kind = (i + o->seed) % 5, level = (i / 5 + o->seed) % 5;
        HANDLE h = e2e_open(kinds[kind].filter, priority[level], kinds[kind].flags);

        o->opened++;
        e2e_nap_us((i * 7919 + o->seed) % 3000);
        CHECK_API(WinDivertClose(h));
        e2e_nap_us((i * 104729 + o->seed) % 2000);
    }
    o->done = true;
}

static void *
open_and_close_thread(void *arg)
{
    open_and_close(arg);
    return NULL;
}

struct openers {
    struct opener *o;
    pid_t pid[OPENERS - 1];
    pthread_t thread;
};

/* They wait; the processes are made before there are threads (of which a child of fork() would keep the locks). */
static struct openers
start_openers(void)
{
    struct openers all = {.o = e2e_shared(OPENERS * sizeof(struct opener))};

    for (unsigned i = 0; i < OPENERS; i++)
        all.o[i].seed = i;
    for (unsigned i = 0; i < OPENERS - 1; i++)
        all.pid[i] = e2e_spawn("a", open_and_close, &all.o[i]);
    CHECK(pthread_create(&all.thread, NULL, open_and_close_thread, &all.o[OPENERS - 1]) == 0, "pthread_create");
    return all;
}

static void
begin_opening(const struct openers *all)
{
    for (unsigned i = 0; i < OPENERS; i++)
        all->o[i].begin = true;
}

static bool
openers_done(const struct openers *all)
{
    bool done = true;

    for (unsigned i = 0; i < OPENERS; i++)
        done &= all->o[i].done;
    return done;
}

static void
end_openers(struct openers *all)
{
    unsigned opened = 0;

    for (unsigned i = 0; i < OPENERS - 1; i++)
        e2e_join(all->pid[i]);
    pthread_join(all->thread, NULL);
    for (unsigned i = 0; i < OPENERS; i++)
        opened += all->o[i].opened;
    CHECK(opened == OPENERS * OPENS && opened >= 200, "%u opens", opened);
}

/* The flushes of the kernel did happen, and cost nothing. */
static void
expect_nothing_lost(HANDLE h, bool flushes)
{
    WINDIVERT_EXT_STATS s = e2e_stats(h);

    CHECK(s.DropFlushed == 0 && s.DropLength == 0 && s.DropTime == 0 && s.DropBuffer == 0,
          "dropped: %llu flushed, %llu length, %llu time, %llu buffer", (unsigned long long)s.DropFlushed,
          (unsigned long long)s.DropLength, (unsigned long long)s.DropTime, (unsigned long long)s.DropBuffer);
    CHECK(s.NotReturned == 0, "%llu were not returned in time", (unsigned long long)s.NotReturned);
    CHECK(!flushes || s.Recovered > 0, "nothing was flushed: this proves nothing");
}

static HANDLE
open_patient(const char *filter)
{
    HANDLE h = e2e_open(filter, 0, 0);

    CHECK_API(WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_LENGTH, WINDIVERT_PARAM_QUEUE_LENGTH_MAX));
    CHECK_API(WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    CHECK_API(WinDivertExtSetParam(h, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    return h;
}

static void
beside_stream(const char *ip)
{
    const struct e2e_tcp tcp = {"a", "b", ip, PORT, 4, 4 << 20, 0};
    struct openers openers = start_openers();
    struct e2e_passer p = {.batch = 16, .handle = open_patient("tcp.DstPort == 5001 or tcp.SrcPort == 5001")};
    unsigned runs = 0;

    e2e_pass_start(&p);
    begin_opening(&openers);
    while (!openers_done(&openers) && runs++ < 500)
        e2e_tcp_run(&tcp);
    end_openers(&openers);
    expect_nothing_lost(p.handle, false);
    e2e_pass_stop(&p);
}

static void
beside_stream4(void)
{
    beside_stream(E2E_B4);
}

static void
beside_stream6(void)
{
    beside_stream(E2E_B6);
}

/*
 * Every datagram arrives exactly once.  The handle may get one twice: opening a
 * handle above it moves its place while packets are held.
 */
static void
beside_datagrams(const char *from, const char *to, const char *ip, const char *rules)
{
    struct e2e_pump pump = {.count = 5000, .window = 200};
    struct e2e_passer p = {.batch = 16};
    struct openers openers = start_openers();
    uint64_t sent = 0;

    if (rules)
        e2e_set_table("a", rules);
    p.handle = open_patient("udp.DstPort == 5001");
    pump.rx = e2e_udp_receiver(to, ip, PORT);
    pump.tx = e2e_udp_sender(from, ip, PORT, 0);
    e2e_pass_start(&p);
    begin_opening(&openers);
    for (unsigned runs = 0; !openers_done(&openers) && runs < 500; runs++, sent += pump.count) {
        pump.first = (uint32_t)sent;
        e2e_udp_pump(&pump);
    }
    end_openers(&openers);
    expect_nothing_lost(p.handle, true);
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
    CHECK(p.received >= sent, "%llu packets at the handle, %llu sent", (unsigned long long)p.received,
          (unsigned long long)sent);
    printf("     %llu of %llu packets came to the handle twice\n", (unsigned long long)(p.received - sent),
           (unsigned long long)sent);
    fflush(stdout);
    close(pump.rx);
    close(pump.tx);
    if (rules)
        e2e_delete_table("a");
}

static void
beside_datagrams_out4(void)
{
    beside_datagrams("a", "b", E2E_B4, NULL);
}

static void
beside_datagrams_out6(void)
{
    beside_datagrams("a", "b", E2E_B6, NULL);
}

static void
beside_datagrams_in4(void)
{
    beside_datagrams("b", "a", E2E_A4, NULL);
}

static void
beside_datagrams_in6(void)
{
    beside_datagrams("b", "a", E2E_A6, NULL);
}

static const char stateful[] = "chain i { type filter hook input priority 0; policy drop; iif lo accept; "
                               "ct state established,related accept; ct state new udp dport 5001 accept; "
                               "meta l4proto ipv6-icmp accept; }; "
                               "chain o { type filter hook output priority 0; ct state invalid drop; }; ";

static void
beside_datagrams_tracked_out(void)
{
    beside_datagrams("a", "b", E2E_B4, stateful);
}

static void
beside_datagrams_tracked_in(void)
{
    beside_datagrams("b", "a", E2E_A6, stateful);
}

/*
 * Datagrams that are equal byte for byte, as of a program that says the same
 * again and again: they do not pass the handle by.
 */
static void
beside_equal_datagrams(void)
{
    int rx = e2e_udp_receiver("b", E2E_B6, PORT), tx = e2e_udp_sender("a", E2E_B6, PORT, 0);
    struct openers openers = start_openers();
    struct e2e_passer p = {.batch = 16, .handle = open_patient("udp.DstPort == 5001")};
    unsigned sent = 0;
    uint8_t buf[64];

    e2e_pass_start(&p);
    begin_opening(&openers);
    while (!openers_done(&openers) && sent < 1000000) {
        CHECK(send(tx, "the same again", 14, 0) == 14, "send: %s", strerror(errno));
        CHECK(e2e_receive(rx, buf, sizeof(buf), 3000) == 14, "datagram %u did not arrive", sent);
        sent++;
    }
    end_openers(&openers);
    e2e_pass_stop(&p);
    /* One in a second may be taken for the one before it. */
    CHECK(p.received + 20 >= sent, "%u equal datagrams passed, %llu of them came to the handle", sent,
          (unsigned long long)p.received);
    e2e_marker(tx, rx);
}

const struct e2e_test e2e_beside_tests[] = {
    {"beside_pairs", beside_pairs, 60},
    {"beside_pairs_local", beside_pairs_local, 60},
    {"beside_pairs_tracked", beside_pairs_tracked, 60},
    {"beside_pairs_tracked_server", beside_pairs_tracked_server, 60},
    {"beside_pairs_translated", beside_pairs_translated, 60},
    {"beside_pairs_router", beside_pairs_router, 60},
    {"beside_stream4", beside_stream4, 90},
    {"beside_stream6", beside_stream6, 90},
    {"beside_datagrams_out4", beside_datagrams_out4, 90},
    {"beside_datagrams_out6", beside_datagrams_out6, 90},
    {"beside_datagrams_in4", beside_datagrams_in4, 90},
    {"beside_datagrams_in6", beside_datagrams_in6, 90},
    {"beside_datagrams_tracked_out", beside_datagrams_tracked_out, 90},
    {"beside_datagrams_tracked_in", beside_datagrams_tracked_in, 90},
    {"beside_equal_datagrams", beside_equal_datagrams, 90},
    {NULL, NULL, 0},
};
