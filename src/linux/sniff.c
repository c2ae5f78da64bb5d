/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "sniff.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/cksum.h"
#include "core/packet.h"
#include "linux/queue.h"

#define NAP_NS 50000 /* a reader under load naps so long before it asks to be woken */
#define LOAD 10000   /* a wait that ends sooner, 100 ns, is under load */
#define IP6_LEN 40
#define LOOPBACK_IFINDEX 1 /* in every network namespace */

struct wd_sniff {
    pthread_mutex_t lock;
    pthread_cond_t followers;
    bool has_reader, shut, aborted;
    bool loaded; /* the last wait was a short one */
    uint32_t waiters;
    int wake_fd;
    struct wd_pollable pollable; /* over the rings */
    bool blind;                  /* it cannot watch them: then it is always readable */
    struct wd_ring *rings;       /* oldest first; only the last one is written to */
    uint64_t *counters;
    struct wd_exact exact;   /* positions: those of the rings */
    int64_t time;            /* records that are older are not delivered, 100 ns */
    struct wd_record *first; /* room for the beginning of a large aggregate; NULL until there is one */
    WINDIVERT_EXT_STATS stats;
};

int
wd_sniff_new(struct wd_ring *ring, uint64_t *counters, struct wd_sniff **ret_sniff, struct wd_error *err)
{
    struct wd_sniff *sniff = calloc(1, sizeof(*sniff));

    if (!sniff)
        return wd_error_set(err, -ENOMEM, NULL, "open: out of memory");
    sniff->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (sniff->wake_fd < 0) {
        free(sniff);
        return wd_error_set(err, -errno, "raise the limit of open files (ulimit -n)", "open an eventfd: %s",
                            strerror(errno));
    }
    pthread_mutex_init(&sniff->lock, NULL);
    wd_wait_cond_init(&sniff->followers);
    sniff->pollable = WD_POLLABLE_NONE;
    sniff->counters = counters;
    sniff->rings = ring;
    *ret_sniff = sniff;
    return 0;
}

void
wd_sniff_close_fds(struct wd_sniff *sniff)
{
    for (struct wd_ring *ring = sniff->rings; ring; ring = ring->next)
        wd_ring_close_fd(ring);
    wd_pollable_close(&sniff->pollable);
    if (sniff->wake_fd >= 0)
        close(sniff->wake_fd);
    sniff->wake_fd = -1;
}

void
wd_sniff_free(struct wd_sniff *sniff)
{
    if (!sniff)
        return;
    while (sniff->rings) {
        struct wd_ring *next = sniff->rings->next;

        wd_ring_free(sniff->rings);
        sniff->rings = next;
    }
    wd_exact_free(&sniff->exact);
    free(sniff->first);
    wd_pollable_close(&sniff->pollable);
    if (sniff->wake_fd >= 0)
        close(sniff->wake_fd);
    pthread_cond_destroy(&sniff->followers);
    pthread_mutex_destroy(&sniff->lock);
    free(sniff);
}

const struct wd_prog *
wd_sniff_set_exact(struct wd_sniff *sniff, const struct wd_prog *exact)
{
    const struct wd_prog *was;

    pthread_mutex_lock(&sniff->lock);
    was = wd_exact_set(&sniff->exact, exact);
    pthread_mutex_unlock(&sniff->lock);
    return was;
}

static struct wd_ring *
last_ring(const struct wd_sniff *sniff)
{
    struct wd_ring *ring = sniff->rings;

    while (ring->next)
        ring = ring->next;
    return ring;
}

void
wd_sniff_swap(struct wd_sniff *sniff, struct wd_former *former)
{
    pthread_mutex_lock(&sniff->lock);
    former->until = wd_ring_write_position(last_ring(sniff));
    wd_exact_push(&sniff->exact, former);
    wd_exact_pass(&sniff->exact, wd_ring_read_position(sniff->rings));
    pthread_mutex_unlock(&sniff->lock);
}

/* ---- Records ------------------------------------------------------------ */

/* Of the oldest ring that has one.  A ring that nobody writes to any more goes when it is empty. */
static const struct wd_record *
next_record(struct wd_sniff *sniff, unsigned long *ret_next)
{
    const struct wd_record *record = wd_ring_peek(sniff->rings, ret_next);

    while (!record && sniff->rings->next) {
        struct wd_ring *empty = sniff->rings;

        sniff->rings = empty->next;
        wd_pollable_remove(&sniff->pollable, empty->fd);
        wd_ring_free(empty);
        record = wd_ring_peek(sniff->rings, ret_next);
    }
    wd_exact_pass(&sniff->exact, wd_ring_read_position(sniff->rings));
    return record;
}

static void
record_sums(const struct wd_record *record, const struct wd_packet *packet, WINDIVERT_ADDRESS *addr)
{
    struct wd_sums sums = {0};

    if (packet->truncated)
        return;
    wd_cksum_verify(packet, packet->ip_len <= 2048, &sums);
    addr->IPChecksum = sums.ip;
    addr->TCPChecksum = sums.tcp;
    addr->UDPChecksum = sums.udp;
    (void)record;
}

static void
record_address(const struct wd_record *record, const struct wd_packet *packet, WINDIVERT_ADDRESS *ret_addr)
{
    *ret_addr = (WINDIVERT_ADDRESS){
        .Timestamp = (int64_t)(record->ktime_ns / 100),
        .Layer = record->hook == WD_HOOK_FORWARD ? WINDIVERT_LAYER_NETWORK_FORWARD : WINDIVERT_LAYER_NETWORK,
        .Event = WINDIVERT_EVENT_NETWORK_PACKET,
        .Sniffed = 1,
        .Outbound = record->hook == WD_HOOK_LOCAL_OUT,
        .Loopback = record->loopback,
        .Impostor = record->impostor,
        .IPv6 = packet->version == 6,
        .Network.IfIdx = record->loopback ? LOOPBACK_IFINDEX : record->ifindex,
    };
}

static bool
is_aggregate(const struct wd_record *record)
{
    const uint8_t *ip = (const uint8_t *)(record + 1);

    return record->len > UINT16_MAX && record->cap_len > IP6_LEN && wd_load_be16(ip + (ip[0] >> 4 == 4 ? 2 : 4)) == 0;
}

/*
 * An aggregate of more than 65,535 bytes has a length of 0 and is longer than
 * any packet a program expects: its beginning becomes one, of the greatest
 * length that there is.  NULL: no memory.
 */
static const struct wd_record *
cut_aggregate(struct wd_sniff *sniff, const struct wd_record *record)
{
    bool v4 = *(const uint8_t *)(record + 1) >> 4 == 4;
    uint32_t room = UINT16_MAX + (v4 ? 0 : IP6_LEN), len = record->cap_len < room ? record->cap_len : room;
    uint8_t *ip;

    if (!sniff->first)
        sniff->first = malloc(sizeof(*record) + UINT16_MAX + IP6_LEN);
    if (!sniff->first)
        return NULL;
    memcpy(sniff->first, record, sizeof(*record) + len);
    sniff->first->len = sniff->first->cap_len = len;
    ip = (uint8_t *)(sniff->first + 1);
    wd_store_be16(ip + (v4 ? 2 : 4), (uint16_t)(v4 ? len : len - IP6_LEN));
    return sniff->first;
}

/* Parses and, where the programs are coarser than the filter, decides. */
static bool
record_matches(struct wd_sniff *sniff, const struct wd_record *record, struct wd_packet *ret_packet)
{
    WINDIVERT_ADDRESS addr;

    if (!wd_packet_parse((const uint8_t *)(record + 1), record->cap_len, ret_packet))
        return false;
    if (!sniff->exact.prog)
        return true;
    record_address(record, ret_packet, &addr);
    return wd_prog_eval(sniff->exact.prog, ret_packet, &addr);
}

/* Copies one record out; false: it does not fit any more. */
static bool
deliver(struct wd_sniff *sniff, const struct wd_record *record, const struct wd_packet *packet, struct wd_recv *io,
        bool *ret_cut)
{
    uint32_t room = io->buf_len - io->ret_len, len = record->cap_len;

    if (io->buf && len > room) {
        if (io->ret_count)
            return false;
        len = room;
        *ret_cut = true;
    }
    if (io->addr) {
        record_address(record, packet, &io->addr[io->ret_count]);
        record_sums(record, packet, &io->addr[io->ret_count]);
    }
    if (io->buf) {
        memcpy(io->buf + io->ret_len, record + 1, len);
        io->ret_len += len;
    }
    io->ret_count++;
    sniff->stats.Delivered++;
    return true;
}

/* Takes what there is and fits. */
static void
take_records(struct wd_sniff *sniff, struct wd_recv *io, bool *ret_cut)
{
    const uint64_t oldest = (uint64_t)(wd_now() - sniff->time);
    const struct wd_record *record;
    struct wd_packet packet;
    unsigned long next;

    while (io->ret_count < io->addr_count && (record = next_record(sniff, &next))) {
        bool late = record->ktime_ns / 100 < oldest;

        if (is_aggregate(record))
            record = cut_aggregate(sniff, record);
        if (!record)
            sniff->stats.DropBuffer++;
        else if (!record_matches(sniff, record, &packet))
            sniff->stats.Unmatched++;
        else if (late)
            sniff->stats.DropTime++;
        else if (!deliver(sniff, record, &packet, io, ret_cut))
            return;
        wd_ring_advance(sniff->rings, next);
        __atomic_fetch_add(&sniff->counters[WD_COUNT_TAKEN], 1, __ATOMIC_RELAXED);
    }
}

/* ---- Waiting ------------------------------------------------------------ */

/*
 * A wake-up costs the writer an interrupt to itself.  So under load the
 * reader naps once, which is enough; else, or after that, it says that it
 * sleeps, looks again, and waits to be woken by the next record.
 */
static void
wait_for_record(struct wd_sniff *sniff, int64_t deadline)
{
    struct wd_ring *ring = sniff->rings; /* only a reader frees rings */
    struct pollfd fds[] = {{.fd = ring->fd, .events = POLLIN}, {.fd = sniff->wake_fd, .events = POLLIN}};
    const struct timespec nap = {.tv_nsec = NAP_NS};
    const int64_t since = wd_now();
    unsigned long next;
    uint64_t wakes;

    sniff->has_reader = true;
    wd_pollable_show(&sniff->pollable, sniff->blind);
    pthread_mutex_unlock(&sniff->lock);
    if (sniff->loaded)
        clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    if (!wd_ring_peek(ring, &next)) {
        __atomic_store_n(&sniff->counters[WD_COUNT_SLEEPING], 1, __ATOMIC_SEQ_CST);
        if (!wd_ring_peek(ring, &next))
            wd_wait_poll(fds, 2, deadline);
        __atomic_store_n(&sniff->counters[WD_COUNT_SLEEPING], 0, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_lock(&sniff->lock);
    sniff->has_reader = false;
    sniff->loaded = wd_now() - since < LOAD;
    if (read(sniff->wake_fd, &wakes, sizeof(wakes)) > 0) {
        /* Under the lock: whatever we were woken for is there to be seen. */
    }
}

static int
recv_locked(struct wd_sniff *sniff, struct wd_recv *io)
{
    bool cut = false, late;

    for (;;) {
        if (sniff->aborted)
            return -ECANCELED;
        late = wd_wait_passed(io->deadline);
        if (sniff->has_reader) {
            if (late)
                return -ETIMEDOUT;
            sniff->waiters++;
            wd_wait_cond(&sniff->followers, &sniff->lock, io->deadline);
            sniff->waiters--;
            continue;
        }
        take_records(sniff, io, &cut);
        if (io->ret_count)
            return cut ? -EMSGSIZE : 0;
        if (sniff->shut)
            return -ENODATA;
        if (late)
            return -ETIMEDOUT;
        wait_for_record(sniff, io->deadline);
    }
}

/*
 * What the descriptor shows when a receive is over: either there is a record
 * left, or the programs have been told to wake whoever waits with the next one.
 * A reader that waits does this itself.
 */
static void
show(struct wd_sniff *sniff)
{
    unsigned long next;
    bool more;

    if (sniff->pollable.epoll_fd < 0 || sniff->has_reader)
        return;
    more = sniff->shut || sniff->aborted || sniff->blind || next_record(sniff, &next);
    if (!more) {
        __atomic_store_n(&sniff->counters[WD_COUNT_SLEEPING], 1, __ATOMIC_SEQ_CST);
        more = next_record(sniff, &next);
    }
    wd_pollable_show(&sniff->pollable, more);
}

static void
watch(struct wd_sniff *sniff, const struct wd_ring *ring)
{
    sniff->blind |= wd_pollable_add(&sniff->pollable, ring->fd, NULL) < 0;
}

int
wd_sniff_get_fd(struct wd_sniff *sniff, int *ret_fd, struct wd_error *err)
{
    int error = 0;

    pthread_mutex_lock(&sniff->lock);
    if (sniff->pollable.epoll_fd < 0) {
        error = wd_pollable_open(&sniff->pollable, err);
        for (const struct wd_ring *ring = sniff->rings; !error && ring; ring = ring->next)
            watch(sniff, ring);
        show(sniff);
    }
    if (!error)
        *ret_fd = sniff->pollable.epoll_fd;
    pthread_mutex_unlock(&sniff->lock);
    return error;
}

int
wd_sniff_recv(struct wd_sniff *sniff, struct wd_recv *io)
{
    int error;

    pthread_mutex_lock(&sniff->lock);
    error = recv_locked(sniff, io);
    if (sniff->waiters)
        pthread_cond_signal(&sniff->followers);
    show(sniff);
    pthread_mutex_unlock(&sniff->lock);
    return error;
}

static void
wake_all(struct wd_sniff *sniff)
{
    const uint64_t one = 1;

    if (write(sniff->wake_fd, &one, sizeof(one)) < 0) {
        /* Cannot fail below 2^64 - 1 writes. */
    }
    pthread_cond_broadcast(&sniff->followers);
    wd_pollable_show(&sniff->pollable, sniff->shut || sniff->aborted || sniff->blind);
}

void
wd_sniff_shut(struct wd_sniff *sniff)
{
    pthread_mutex_lock(&sniff->lock);
    sniff->shut = true;
    wake_all(sniff);
    pthread_mutex_unlock(&sniff->lock);
}

void
wd_sniff_abort(struct wd_sniff *sniff)
{
    pthread_mutex_lock(&sniff->lock);
    sniff->aborted = true;
    wake_all(sniff);
    pthread_mutex_unlock(&sniff->lock);
}

void
wd_sniff_add_ring(struct wd_sniff *sniff, struct wd_ring *ring)
{
    struct wd_ring *last;

    pthread_mutex_lock(&sniff->lock);
    last = last_ring(sniff);
    ring->base = wd_ring_write_position(last);
    last->next = ring;
    watch(sniff, ring);
    wake_all(sniff);
    show(sniff);
    pthread_mutex_unlock(&sniff->lock);
}

struct wd_ring *
wd_sniff_last_ring(struct wd_sniff *sniff)
{
    struct wd_ring *ring;

    pthread_mutex_lock(&sniff->lock);
    ring = last_ring(sniff);
    pthread_mutex_unlock(&sniff->lock);
    return ring;
}

unsigned int
wd_sniff_rings(struct wd_sniff *sniff)
{
    unsigned int count = 0;

    pthread_mutex_lock(&sniff->lock);
    for (const struct wd_ring *ring = sniff->rings; ring; ring = ring->next)
        count++;
    pthread_mutex_unlock(&sniff->lock);
    return count;
}

void
wd_sniff_set_limits(struct wd_sniff *sniff, uint32_t length, int64_t time)
{
    pthread_mutex_lock(&sniff->lock);
    sniff->time = time;
    __atomic_store_n(&sniff->counters[WD_COUNT_LIMIT], length, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&sniff->lock);
}

static uint64_t
counter(const struct wd_sniff *sniff, enum wd_counter slot)
{
    return __atomic_load_n(&sniff->counters[slot], __ATOMIC_RELAXED);
}

/* A program counts a match before it knows where it goes; between the two the packet is queued. */
void
wd_sniff_get_stats(struct wd_sniff *sniff, WINDIVERT_EXT_STATS *ret_stats)
{
    uint64_t known;

    pthread_mutex_lock(&sniff->lock);
    *ret_stats = sniff->stats;
    ret_stats->DropBuffer += counter(sniff, WD_COUNT_RING_FULL);
    ret_stats->DropLength += counter(sniff, WD_COUNT_TOO_MANY);
    known = ret_stats->Delivered + ret_stats->DropTime + ret_stats->DropBuffer + ret_stats->DropLength;
    ret_stats->Matched = counter(sniff, WD_COUNT_MATCHED) - ret_stats->Unmatched;
    if (ret_stats->Matched < known)
        ret_stats->Matched = known;
    ret_stats->Queued = ret_stats->Matched - known;
    pthread_mutex_unlock(&sniff->lock);
}
