/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * passthru: takes the packets that match a filter and sends them on unchanged,
 * in batches, with several threads.
 *
 *     passthru FILTER [BATCH] [THREADS] [PRIORITY]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "windivert.h"
#include "windivert_ext.h"

#define THREADS_MAX 64

struct worker {
    HANDLE handle;
    long batch;
    pthread_t thread;
    UINT64 received, sent, refused;
    DWORD error; /* what ended it, ERROR_NO_DATA: the shutdown */
};

/* Bytes of the first packet in the buffer. */
static UINT
packet_len(const void *buffer, UINT len)
{
    void *next = NULL;
    UINT next_len = 0;

    if (!WinDivertHelperParsePacket(buffer, len, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, &next,
                                    &next_len))
        return len;
    return next ? len - next_len : len;
}

/* SendEx stops at a packet that is refused: leave that one out and go on with the next. */
static void
send_all(struct worker *w, const UINT8 *buffer, UINT len, const WINDIVERT_ADDRESS *addr, UINT count)
{
    UINT at = 0, i = 0; /* bytes and packets done */

    while (i < count && at < len) {
        UINT sent_len = 0, end;

        if (!WinDivertSendEx(w->handle, buffer + at, len - at, &sent_len, 0, addr + i, (count - i) * sizeof(*addr),
                             NULL))
            sent_len = 0;
        for (end = at + sent_len; at < end; i++, w->sent++)
            at += packet_len(buffer + at, len - at);
        if (at >= len)
            break;
        if (w->refused++ == 0)
            complain_last_error();
        at += packet_len(buffer + at, len - at);
        i++;
    }
}

static void *
work(void *arg)
{
    struct worker *w = arg;
    UINT buffer_len = (UINT)w->batch * WINDIVERT_MTU_MAX, len, addr_len;
    UINT8 *buffer = malloc(buffer_len);
    WINDIVERT_ADDRESS *addr = calloc((size_t)w->batch, sizeof(*addr));

    w->error = ERROR_NOT_ENOUGH_MEMORY;
    while (buffer && addr) {
        addr_len = (UINT)w->batch * sizeof(*addr);
        if (!WinDivertRecvEx(w->handle, buffer, buffer_len, &len, 0, addr, &addr_len, NULL)) {
            w->error = GetLastError();
            if (w->error != ERROR_NO_DATA)
                complain_last_error();
            break;
        }
        w->received += addr_len / sizeof(*addr);
        send_all(w, buffer, len, addr, addr_len / sizeof(*addr));
    }
    free(addr);
    free(buffer);
    return NULL;
}

/* Runs them all until the handle is shut down; false: one of them could not go on. */
static bool
run(HANDLE handle, struct worker *workers, long threads, long batch)
{
    long started = 0;
    bool ok = true;

    for (; started < threads; started++) {
        struct worker *w = &workers[started];

        *w = (struct worker){.handle = handle, .batch = batch};
        if (pthread_create(&w->thread, NULL, work, w) != 0) {
            complain("thread", "cannot be started");
            WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_RECV);
            ok = false;
            break;
        }
    }
    for (long i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        ok = ok && workers[i].error == ERROR_NO_DATA;
    }
    return ok;
}

static void
print_totals(HANDLE handle, const struct worker *workers, long threads)
{
    WINDIVERT_EXT_STATS stats = {.Size = sizeof(stats)};
    UINT64 received = 0, sent = 0, refused = 0;

    for (long i = 0; i < threads; i++) {
        received += workers[i].received;
        sent += workers[i].sent;
        refused += workers[i].refused;
    }
    printf("%llu packets received, %llu sent on, %llu refused\n", (unsigned long long)received,
           (unsigned long long)sent, (unsigned long long)refused);
    if (WinDivertExtGetStats(handle, &stats))
        printf("%llu lost because the queue was full, %llu because they were not sent on in time\n",
               (unsigned long long)(stats.DropLength + stats.DropSize + stats.DropTime + stats.DropBuffer),
               (unsigned long long)stats.NotReturned);
}

static void
usage(FILE *to)
{
    fprintf(to,
            "usage: passthru FILTER [BATCH] [THREADS] [PRIORITY]\n"
            "Takes the packets to and from this machine that match FILTER and sends them on unchanged.\n"
            "\n"
            "  FILTER    in the WinDivert language, for instance \"udp or tcp.DstPort == 443\"\n"
            "  BATCH     packets received and sent with one call, 1 to %d; default: 64\n"
            "  THREADS   that receive and send, 1 to %d; default: 1\n"
            "  PRIORITY  from -30000 to 30000, higher sees a packet earlier; default: 0\n"
            "\n"
            "Ctrl-C sends on what is queued, prints totals and ends.\n",
            WINDIVERT_BATCH_MAX, THREADS_MAX);
}

int
main(int argc, char **argv)
{
    static struct worker workers[THREADS_MAX];
    long batch = 64, threads = 1, priority = 0;
    HANDLE handle;
    bool ok;

    tool_name = "passthru";
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        usage(stdout);
        return 0;
    }
    if (argc < 2 || argc > 5) {
        usage(stderr);
        return 1;
    }
    if ((argc > 2 && !parse_number("batch", argv[2], 1, WINDIVERT_BATCH_MAX, &batch)) ||
        (argc > 3 && !parse_number("threads", argv[3], 1, THREADS_MAX, &threads)) ||
        (argc > 4 &&
         !parse_number("priority", argv[4], WINDIVERT_PRIORITY_LOWEST, WINDIVERT_PRIORITY_HIGHEST, &priority)))
        return 1;

    handle = open_network(argv[1], (INT16)priority, 0);
    if (handle == INVALID_HANDLE_VALUE || !stop_on_signal(handle))
        return 1;
    ok = run(handle, workers, threads, batch);
    print_totals(handle, workers, threads);
    WinDivertClose(handle);
    return ok ? 0 : 1;
}
