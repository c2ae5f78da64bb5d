/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "sniff.h"

#include <errno.h>
#include <linux/bpf.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bpf/gen.h"
#include "bpf/load.h"
#include "core/cksum.h"
#include "core/packet.h"

#define RECORD_ALIGN 8
#define NAP_NS 50000       /* a reader that has just emptied the ring naps so long before it asks to be woken */
#define LOOPBACK_IFINDEX 1 /* in every network namespace */

/*
 * The kernel's ring buffer, mapped: a page that we write (how far we have
 * read), a page that the kernel writes (how far it has written), then the
 * data, twice in a row so that no record is ever cut by the end.
 */
struct wd_sniff {
    pthread_mutex_t lock;
    pthread_cond_t followers;
    bool has_reader, shut, aborted;
    uint32_t waiters;
    int ring_fd, wake_fd;
    uint64_t size;
    unsigned long *consumer;
    uint8_t *producer; /* its page, and the data behind it */
    uint64_t *counters;
    const struct wd_prog *exact;
    WINDIVERT_EXT_STATS stats;
};

static uint64_t
ring_size(uint32_t bytes)
{
    uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE);

    while (size < bytes)
        size *= 2;
    return size;
}

static int
ring_map(struct wd_sniff *sniff)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *map = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, sniff->ring_fd, 0);

    if (map == MAP_FAILED)
        return -errno;
    sniff->consumer = map;
    map = mmap(NULL, page + 2 * sniff->size, PROT_READ, MAP_SHARED, sniff->ring_fd, (off_t)page);
    if (map == MAP_FAILED)
        return -errno;
    sniff->producer = map;
    return 0;
}

int
wd_sniff_new(uint32_t size, uint64_t *counters, struct wd_sniff **ret_sniff, struct wd_error *err)
{
    struct wd_sniff *sniff = calloc(1, sizeof(*sniff));
    int error;

    if (!sniff)
        return wd_error_set(err, -ENOMEM, NULL, "open: out of memory");
    pthread_mutex_init(&sniff->lock, NULL);
    pthread_cond_init(&sniff->followers, NULL);
    sniff->counters = counters;
    sniff->size = ring_size(size);
    sniff->ring_fd = -1;
    sniff->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (sniff->wake_fd < 0)
        error = wd_error_set(err, -errno, "raise the limit of open files (ulimit -n)", "open an eventfd: %s",
                             strerror(errno));
    else
        error = wd_bpf_map(BPF_MAP_TYPE_RINGBUF, "wd_ring", 0, 0, (uint32_t)sniff->size, 0, &sniff->ring_fd, err);
    if (!error) {
        error = ring_map(sniff);
        if (error)
            wd_error_set(err, error, NULL, "map the ring: %s", strerror(-error));
    }
    if (error) {
        wd_sniff_free(sniff);
        return error;
    }
    *ret_sniff = sniff;
    return 0;
}

void
wd_sniff_close_fds(struct wd_sniff *sniff)
{
    if (sniff->ring_fd >= 0)
        close(sniff->ring_fd);
    if (sniff->wake_fd >= 0)
        close(sniff->wake_fd);
    sniff->ring_fd = sniff->wake_fd = -1;
}

void
wd_sniff_free(struct wd_sniff *sniff)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (!sniff)
        return;
    if (sniff->consumer)
        munmap(sniff->consumer, page);
    if (sniff->producer)
        munmap(sniff->producer, page + 2 * sniff->size);
    wd_sniff_close_fds(sniff);
    pthread_cond_destroy(&sniff->followers);
    pthread_mutex_destroy(&sniff->lock);
    free(sniff);
}

int
wd_sniff_ring_fd(const struct wd_sniff *sniff)
{
    return sniff->ring_fd;
}

void
wd_sniff_set_exact(struct wd_sniff *sniff, const struct wd_prog *exact)
{
    sniff->exact = exact;
}

/* ---- Records ------------------------------------------------------------ */

/* The next finished record, or NULL.  *ret_next: the consumer position behind it. */
static const struct wd_record *
ring_peek(struct wd_sniff *sniff, unsigned long *ret_next)
{
    const uint8_t *data = sniff->producer + sysconf(_SC_PAGESIZE);
    unsigned long consumer = *sniff->consumer;

    while (consumer < __atomic_load_n((unsigned long *)(void *)sniff->producer, __ATOMIC_ACQUIRE)) {
        const uint32_t *head = (const void *)(data + (consumer & (sniff->size - 1)));
        uint32_t len = __atomic_load_n(head, __ATOMIC_ACQUIRE);
        unsigned long next;

        if (len & BPF_RINGBUF_BUSY_BIT)
            return NULL;
        next = consumer +
               ((len & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT)) + BPF_RINGBUF_HDR_SZ + RECORD_ALIGN - 1) /
                   RECORD_ALIGN * RECORD_ALIGN;
        if (!(len & BPF_RINGBUF_DISCARD_BIT)) {
            *ret_next = next;
            return (const void *)((const uint8_t *)head + BPF_RINGBUF_HDR_SZ);
        }
        consumer = next;
        __atomic_store_n(sniff->consumer, consumer, __ATOMIC_RELEASE);
    }
    return NULL;
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

/* Parses and, where the programs are coarser than the filter, decides. */
static bool
record_matches(struct wd_sniff *sniff, const struct wd_record *record, struct wd_packet *ret_packet)
{
    WINDIVERT_ADDRESS addr;

    if (!wd_packet_parse((const uint8_t *)(record + 1), record->cap_len, ret_packet))
        return false;
    if (!sniff->exact)
        return true;
    record_address(record, ret_packet, &addr);
    return wd_prog_eval(sniff->exact, ret_packet, &addr);
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
    const struct wd_record *record;
    struct wd_packet packet;
    unsigned long next;

    while (io->ret_count < io->addr_count && (record = ring_peek(sniff, &next))) {
        if (!record_matches(sniff, record, &packet))
            sniff->stats.Unmatched++;
        else if (!deliver(sniff, record, &packet, io, ret_cut))
            return;
        __atomic_store_n(sniff->consumer, next, __ATOMIC_RELEASE);
        __atomic_fetch_add(&sniff->counters[WD_COUNT_TAKEN], 1, __ATOMIC_RELAXED);
    }
}

/* ---- Waiting ------------------------------------------------------------ */

/*
 * A wake-up costs the writer an interrupt to itself.  So the reader naps once,
 * which under load is enough; only then it says that it sleeps, looks again,
 * and waits to be woken by the next record.
 */
static void
wait_for_record(struct wd_sniff *sniff)
{
    struct pollfd fds[] = {{.fd = sniff->ring_fd, .events = POLLIN}, {.fd = sniff->wake_fd, .events = POLLIN}};
    const struct timespec nap = {.tv_nsec = NAP_NS};
    unsigned long next;

    sniff->has_reader = true;
    pthread_mutex_unlock(&sniff->lock);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    if (!ring_peek(sniff, &next)) {
        __atomic_store_n(&sniff->counters[WD_COUNT_SLEEPING], 1, __ATOMIC_SEQ_CST);
        if (!ring_peek(sniff, &next))
            poll(fds, 2, -1);
        __atomic_store_n(&sniff->counters[WD_COUNT_SLEEPING], 0, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_lock(&sniff->lock);
    sniff->has_reader = false;
}

static int
recv_locked(struct wd_sniff *sniff, struct wd_recv *io)
{
    bool cut = false;

    for (;;) {
        if (sniff->aborted)
            return -ECANCELED;
        if (sniff->has_reader) {
            sniff->waiters++;
            pthread_cond_wait(&sniff->followers, &sniff->lock);
            sniff->waiters--;
            continue;
        }
        take_records(sniff, io, &cut);
        if (io->ret_count)
            return cut ? -EMSGSIZE : 0;
        if (sniff->shut)
            return -ENODATA;
        wait_for_record(sniff);
    }
}

int
wd_sniff_recv(struct wd_sniff *sniff, struct wd_recv *io)
{
    int error;

    pthread_mutex_lock(&sniff->lock);
    error = recv_locked(sniff, io);
    if (sniff->waiters)
        pthread_cond_signal(&sniff->followers);
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
wd_sniff_set_length(struct wd_sniff *sniff, uint32_t length)
{
    __atomic_store_n(&sniff->counters[WD_COUNT_LIMIT], length, __ATOMIC_RELAXED);
}

void
wd_sniff_get_stats(struct wd_sniff *sniff, WINDIVERT_EXT_STATS *ret_stats)
{
    pthread_mutex_lock(&sniff->lock);
    *ret_stats = sniff->stats;
    ret_stats->DropBuffer = __atomic_load_n(&sniff->counters[WD_COUNT_RING_FULL], __ATOMIC_RELAXED);
    ret_stats->DropLength = __atomic_load_n(&sniff->counters[WD_COUNT_TOO_MANY], __ATOMIC_RELAXED);
    pthread_mutex_unlock(&sniff->lock);
}
