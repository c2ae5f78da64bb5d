/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Filters that are swapped beside traffic: datagram i goes to port 5001 + i % 4,
 * of which the one filter matches 5001 and 5003, the other 5002 and 5003.  What the sender had
 * sent before a swap began is decided by the filter before it, what it began to
 * send after the swap's end by the one after.
 */
#include "e2e.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS 4
#define FIRST_PORT 5001
#define DATAGRAMS_MAX (16u << 20)
#define SEND_BUFFER (1 << 20)
#define SIZE 64
#define AHEAD 2000 /* matching datagrams that are not yet seen */
#define PAUSE 500  /* datagrams between two swaps, at least */

struct traffic {
    int tx[PORTS], rx[PORTS];
    uint8_t *seen; /* how often the handle saw a datagram */
    _Atomic uint32_t begun, done, count;
    _Atomic bool stop;
    bool by_error; /* a datagram that cannot be sent was seen */
    bool wait;     /* for the handle: nothing holds the sender back */
    pthread_t thread;
};

struct swap {
    uint32_t done, begun; /* when it began; when it had ended */
};

static void
traffic_open(struct traffic *t, const char *ip)
{
    int bytes = SEND_BUFFER;

    t->seen = e2e_shared(DATAGRAMS_MAX);
    for (unsigned i = 0; i < PORTS; i++) {
        t->rx[i] = e2e_udp_receiver("b", ip, (uint16_t)(FIRST_PORT + i));
        t->tx[i] = e2e_udp_sender("a", ip, (uint16_t)(FIRST_PORT + i), 0);
        setsockopt(t->tx[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    }
}

static void
note(struct traffic *t, uint32_t i)
{
    CHECK(i < atomic_load(&t->begun), "datagram %u, which was not sent", i);
    CHECK(!t->seen[i]++, "datagram %u came twice", i);
    atomic_fetch_add(&t->count, 1);
}

static void *
send_all(void *arg)
{
    struct traffic *t = arg;

    for (uint32_t i = 0; !atomic_load(&t->stop) && i < DATAGRAMS_MAX; i++) {
        while (t->wait && i / 2 > atomic_load(&t->count) + AHEAD && !atomic_load(&t->stop))
            e2e_nap_us(50);
        atomic_store(&t->begun, i + 1);
        if (!e2e_send(t->tx[i % PORTS], SIZE, i)) {
            CHECK(t->by_error && errno == EPERM, "send of datagram %u: %s", i, strerror(errno));
            note(t, i);
        }
        atomic_store(&t->done, i + 1);
    }
    return NULL;
}

/* Does the filter number f (0, 1) match datagram i? */
static bool
match(unsigned f, uint32_t i)
{
    return i % PORTS == 2 || i % PORTS == f;
}

static void
check_decisions(const struct traffic *t, const struct swap *swaps, unsigned count)
{
    uint32_t either = 0;
    unsigned k = 0;

    for (uint32_t i = 0; i < t->done; i++) {
        while (k < count && i >= swaps[k].begun)
            k++;
        if (k < count && i >= swaps[k].done) {
            either++;
            CHECK(t->seen[i] ? i % PORTS != 3 : i % PORTS != 2, "datagram %u, during swap %u of %u: %u", i, k, count,
                  t->seen[i]);
        } else {
            CHECK(t->seen[i] == match(k % 2, i), "datagram %u, to %u, after %u swaps of %u: seen %u", i,
                  FIRST_PORT + i % PORTS, k, count, t->seen[i]);
        }
    }
    CHECK(t->done - either >= count * PAUSE, "%u of %u datagrams were sent during a swap", either, t->done);
}

/* Swaps between the two, begins with the first in force, and leaves traffic running. */
static void
swap_beside(struct traffic *t, HANDLE h, const char *const filters[2], struct swap *swaps, unsigned count)
{
    CHECK(pthread_create(&t->thread, NULL, send_all, t) == 0, "pthread_create");
    for (unsigned k = 0; k < count; k++) {
        uint32_t from = atomic_load(&t->done);

        WAIT_UNTIL(atomic_load(&t->done) >= from + PAUSE, 5000, "the traffic stands still: %u sent, %u seen",
                   atomic_load(&t->done), atomic_load(&t->count));
        swaps[k].done = atomic_load(&t->done);
        CHECK(WinDivertExtSetFilter(h, filters[(k + 1) % 2]), "swap %u: error %u: %s", k, (unsigned)GetLastError(),
              WinDivertExtGetLastErrorText());
        swaps[k].begun = atomic_load(&t->begun);
    }
    atomic_store(&t->stop, true);
    pthread_join(t->thread, NULL);
}

static bool
see(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct traffic *t = p->arg;
    struct e2e_view v;
    uint32_t i;

    CHECK(e2e_view(packet, *len, &v) && v.proto == IPPROTO_UDP && v.end - v.payload == SIZE, "another packet");
    memcpy(&i, packet + v.payload, 4);
    CHECK(v.dport == FIRST_PORT + i % PORTS, "datagram %u to port %u", i, v.dport);
    note(t, i);
    return !addr->Sniffed;
}

static void
swap_at_rate(const char *ip, UINT64 flags, UINT64 segments, const char *a, const char *b, unsigned count)
{
    const char *const filters[2] = {a, b};
    struct swap *swaps = calloc(count, sizeof(*swaps));
    struct traffic t = {.wait = flags & WINDIVERT_FLAG_SNIFF};
    struct e2e_passer p = {.batch = 64, .edit = see, .arg = &t};
    WINDIVERT_EXT_STATS stats;

    CHECK(swaps, "no memory");
    traffic_open(&t, ip);
    p.handle = e2e_open(a, 0, flags);
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_LENGTH, WINDIVERT_PARAM_QUEUE_LENGTH_MAX));
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    CHECK_API(WinDivertExtSetParam(p.handle, WINDIVERT_EXT_PARAM_HOLD_TIME, 2000));
    if (segments)
        CHECK_API(WinDivertExtSetParam(p.handle, WINDIVERT_EXT_PARAM_SEGMENTS, 1));
    e2e_pass_start(&p);
    swap_beside(&t, p.handle, filters, swaps, count);
    stats = e2e_stats(p.handle);
    CHECK(!stats.DropLength && !stats.DropTime && !stats.DropBuffer && !stats.NotReturned, "packets were dropped");
    e2e_pass_stop(&p);
    check_decisions(&t, swaps, count);
    free(swaps);
}

#define ONE "udp.DstPort == 5001 or udp.DstPort == 5003"
#define TWO "udp.DstPort == 5002 or udp.DstPort == 5003"
/* Decided by the library, of everything there is. */
#define SOFT(filter) "(" filter ") or (timestamp == 1 and udp)"

static void
swap_divert4(void)
{
    swap_at_rate(E2E_B4, 0, 0, ONE, TWO, 1000);
}

static void
swap_divert6(void)
{
    swap_at_rate(E2E_B6, 0, 0, "outbound and (" ONE ")", TWO, 300);
}

static void
swap_divert_library(void)
{
    swap_at_rate(E2E_B4, 0, 0, SOFT(ONE), SOFT(TWO), 300);
}

static void
swap_divert_to_library(void)
{
    swap_at_rate(E2E_B4, 0, 0, ONE, SOFT(TWO), 300);
}

static void
swap_divert_segments(void)
{
    swap_at_rate(E2E_B4, 0, 1, ONE, SOFT(TWO), 300);
}

static void
swap_divert_fragments(void)
{
    swap_at_rate(E2E_B4, WINDIVERT_FLAG_FRAGMENTS, 0, "outbound and (" ONE ")", TWO, 300);
}

static void
swap_sniff4(void)
{
    swap_at_rate(E2E_B4, WINDIVERT_FLAG_SNIFF, 0, ONE, TWO, 1000);
}

static void
swap_sniff6(void)
{
    swap_at_rate(E2E_B6, WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_FRAGMENTS, 0, "outbound and (" ONE ")", TWO, 1000);
}

/* What is dropped on the way out its sender is told of. */
static void
swap_drop4(void)
{
    static const char *const filters[2] = {ONE, TWO};
    static struct swap swaps[1000];
    struct traffic t = {.by_error = true};
    WINDIVERT_EXT_STATS stats;
    HANDLE h;

    traffic_open(&t, E2E_B4);
    h = e2e_open(filters[0], 0, WINDIVERT_FLAG_DROP);
    swap_beside(&t, h, filters, swaps, 1000);
    stats = e2e_stats(h);
    CHECK(stats.DropFilter == t.count, "%llu dropped, %u sends failed", (unsigned long long)stats.DropFilter,
          t.count);
    CHECK_API(WinDivertClose(h));
    check_decisions(&t, swaps, 1000);
}

/* ---- Errors, the registry, what is left ---------------------------------- */

static bool
diverted(HANDLE h, int tx, int rx)
{
    static uint8_t buf[E2E_PACKET_MAX];
    UINT64 before = e2e_stats(h).Delivered;
    WINDIVERT_ADDRESS addr;

    CHECK(e2e_send(tx, SIZE, 1), "send: %s", strerror(errno));
    if (e2e_receive(rx, buf, sizeof(buf), 300) >= 0)
        return false;
    e2e_recv_packet(h, buf, &addr);
    CHECK(e2e_stats(h).Delivered == before + 1, "not one packet came");
    return true;
}

static void
swap_errors(void)
{
    struct traffic t = {0};
    HANDLE h, sender;

    traffic_open(&t, E2E_B4);
    h = e2e_open("udp.DstPort == 5001", 0, 0);
    sender = e2e_open("true", 0, WINDIVERT_FLAG_SEND_ONLY);
    CHECK_ERROR(WinDivertExtSetFilter(h, "udp.DstPort =="), ERROR_INVALID_PARAMETER);
    CHECK(strstr(WinDivertExtGetLastErrorText(), "filter, byte"), "%s", WinDivertExtGetLastErrorText());
    CHECK_ERROR(WinDivertExtSetFilter(h, NULL), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertExtSetFilter(sender, "true"), ERROR_NOT_SUPPORTED);
    CHECK(diverted(h, t.tx[0], t.rx[0]) && !diverted(h, t.tx[1], t.rx[1]), "the filter is not the old one");
    CHECK_API(WinDivertExtSetFilter(h, "false"));
    CHECK(!diverted(h, t.tx[0], t.rx[0]) && !diverted(h, t.tx[1], t.rx[1]), "\"false\" diverts");
    CHECK_API(WinDivertExtSetFilter(h, "udp.DstPort == 5002"));
    CHECK(!diverted(h, t.tx[0], t.rx[0]) && diverted(h, t.tx[1], t.rx[1]), "the filter is not the new one");
    CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_RECV));
    CHECK_ERROR(WinDivertExtSetFilter(h, "udp"), ERROR_NO_DATA);
    CHECK_API(WinDivertClose(h));
    CHECK_API(WinDivertClose(sender));
}

/* The handle stays where it was opened, whatever namespace the caller is in by now; other hooks are its own, too. */
static void
swap_from_elsewhere(void)
{
    static const UINT64 flags[] = {0, WINDIVERT_FLAG_SNIFF, WINDIVERT_FLAG_DROP};
    int tx = e2e_udp_sender("b", E2E_A4, 5003, 0), rx = e2e_udp_receiver("a", E2E_A4, 5003);

    for (unsigned i = 0; i < 3; i++) {
        HANDLE h;

        e2e_enter("a");
        h = e2e_open("outbound and udp.DstPort == 5001", 0, flags[i]);
        e2e_enter("b");
        CHECK_API(WinDivertExtSetFilter(h, "inbound and udp.DstPort == 5003"));
        CHECK(e2e_send(tx, SIZE, i), "send: %s", strerror(errno));
        WAIT_UNTIL(e2e_stats(h).Matched == 1, 2000, "flags %u: the packet is not matched", (unsigned)flags[i]);
        CHECK_API(WinDivertClose(h));
    }
    CHECK(e2e_drain(rx) <= 2, "what was dropped arrived");
}

/* The filter line of the only entry. */
static void
registered(char *ret_object, size_t room)
{
    FILE *f = popen("cat /run/windivert/[0-9]* 2>/dev/null", "r");
    char line[4096];

    CHECK(f, "popen");
    *ret_object = '\0';
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, "filter ", 7) == 0)
            snprintf(ret_object, room, "%.*s", (int)strcspn(line + 7, "\n"), line + 7);
    pclose(f);
}

static void
swap_registry(void)
{
    HANDLE h = e2e_open("tcp", 0, 0);
    char object[4096], expected[4096];

    CHECK_API(WinDivertExtSetFilter(h, "udp.DstPort == 5002"));
    CHECK_API(WinDivertHelperCompileFilter("udp.DstPort == 5002", WINDIVERT_LAYER_NETWORK, expected, sizeof(expected),
                                           NULL, NULL));
    registered(object, sizeof(object));
    CHECK(strcmp(object, expected) == 0, "registered is %s, the filter is %s", object, expected);
    CHECK_API(WinDivertClose(h));
    registered(object, sizeof(object));
    CHECK(!*object, "an entry is left");
}

static unsigned
descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    CHECK(dir, "/proc/self/fd");
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static long
resident_kb(void)
{
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    long kb = -1;

    CHECK(f, "/proc/self/status");
    while (fgets(line, sizeof(line), f))
        sscanf(line, "VmRSS: %ld", &kb);
    fclose(f);
    return kb;
}

/* Memory and descriptors after many swaps are those after a few; nobody receives. */
static void
swap_flat_with(UINT64 flags, const char *const filters[2], unsigned count)
{
    HANDLE h = e2e_open(filters[1], 0, flags);
    unsigned fds = 0;
    long kb = 0;

    for (unsigned k = 0; k < count; k++) {
        CHECK_API(WinDivertExtSetFilter(h, filters[k % 2]));
        if (k == count / 10) {
            fds = descriptors();
            kb = resident_kb();
        }
    }
    CHECK(descriptors() == fds, "%u descriptors, after a tenth of the swaps %u", descriptors(), fds);
    CHECK(resident_kb() < kb + 512, "%ld KB, after a tenth of the swaps %ld", resident_kb(), kb);
    CHECK_API(WinDivertClose(h));
}

static void
swap_flat(void)
{
    swap_flat_with(0, (const char *const[]){ONE, TWO}, 2000);
}

static void
swap_flat_library(void)
{
    swap_flat_with(0, (const char *const[]){SOFT(ONE), TWO}, 1000);
    swap_flat_with(WINDIVERT_FLAG_SNIFF, (const char *const[]){ONE, "ip and (" TWO ")"}, 2000);
    swap_flat_with(WINDIVERT_FLAG_DROP, (const char *const[]){ONE, "ip and (" TWO ")"}, 2000);
}

const struct e2e_test e2e_swap_tests[] = {
    {"swap_divert4", swap_divert4, 120},
    {"swap_divert6", swap_divert6, 120},
    {"swap_divert_library", swap_divert_library, 120},
    {"swap_divert_to_library", swap_divert_to_library, 120},
    {"swap_divert_segments", swap_divert_segments, 60},
    {"swap_divert_fragments", swap_divert_fragments, 60},
    {"swap_sniff4", swap_sniff4, 120},
    {"swap_sniff6", swap_sniff6, 120},
    {"swap_drop4", swap_drop4, 120},
    {"swap_errors", swap_errors, 0},
    {"swap_from_elsewhere", swap_from_elsewhere, 0},
    {"swap_registry", swap_registry, 0},
    {"swap_flat", swap_flat, 120},
    {"swap_flat_library", swap_flat_library, 120},
    {NULL, NULL, 0},
};
