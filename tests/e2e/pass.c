/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The program under the handle: receive, perhaps change, send back. */
#include "e2e.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_BYTES (1u << 20)
#define PATIENCE_S 5u

#define OPENED_MAX 16

static HANDLE opened[OPENED_MAX]; /* the last ones of this process */
static _Atomic unsigned opened_count;

/* What this process's handles dropped; empty: nothing. */
static void
tell_losses(char *buf, size_t size)
{
    size_t used = 0;

    *buf = 0;
    for (unsigned i = 0; i < OPENED_MAX && used < size; i++) {
        WINDIVERT_EXT_STATS s = {.Size = sizeof(s)};

        if (!opened[i] || !WinDivertExtGetStats(opened[i], &s))
            continue;
        if (s.NotReturned + s.DropLength + s.DropSize + s.DropTime + s.DropBuffer + s.DropFlushed + s.Recovered)
            used += (size_t)snprintf(buf + used, size - used,
                                     "; handle %u: not returned %llu, dropped: length %llu, size %llu, time %llu, "
                                     "buffer %llu, flushed %llu; recovered %llu",
                                     i, (unsigned long long)s.NotReturned, (unsigned long long)s.DropLength,
                                     (unsigned long long)s.DropSize, (unsigned long long)s.DropTime,
                                     (unsigned long long)s.DropBuffer, (unsigned long long)s.DropFlushed,
                                     (unsigned long long)s.Recovered);
    }
}

HANDLE
e2e_open_at(WINDIVERT_LAYER layer, const char *filter, INT16 priority, UINT64 flags)
{
    HANDLE h = WinDivertOpen(filter, layer, priority, flags);

    CHECK(h != INVALID_HANDLE_VALUE, "WinDivertOpen(\"%s\", %d, %#llx): error %u: %s", filter, priority,
          (unsigned long long)flags, (unsigned)GetLastError(), WinDivertExtGetLastErrorText());
    opened[opened_count++ % OPENED_MAX] = h;
    e2e_tell_more = tell_losses;
    return h;
}

HANDLE
e2e_open(const char *filter, INT16 priority, UINT64 flags)
{
    return e2e_open_at(WINDIVERT_LAYER_NETWORK, filter, priority, flags);
}

/* The length of the first packet of a batch by its own header; a packet the library had to cut ends the batch. */
static UINT
packet_length(const uint8_t *packet, UINT left)
{
    struct e2e_view v;

    CHECK(e2e_view(packet, left, &v), "received something that is no IP packet (%u bytes)", left);
    return v.end < left ? v.end : left;
}

static void
note_length(struct e2e_passer *p, unsigned len)
{
    unsigned old = atomic_load(&p->max_len);

    while (len > old && !atomic_compare_exchange_weak(&p->max_len, &old, len))
        ;
}

static void
send_back(struct e2e_passer *p, const uint8_t *out, UINT out_len, const WINDIVERT_ADDRESS *addr, UINT count)
{
    UINT sent = 0;

    if (!count)
        return;
    if (p->batch <= 1)
        CHECK_API(WinDivertSend(p->handle, out, out_len, &sent, addr));
    else
        CHECK_API(WinDivertSendEx(p->handle, out, out_len, &sent, 0, addr, count * (UINT)sizeof(*addr), NULL));
    CHECK(sent == out_len, "sent %u bytes of %u", sent, out_len);
    atomic_fetch_add(&p->sent, count);
}

/* Splits a batch, edits each packet into out, sends what is left of it. */
static void
handle_batch(struct e2e_passer *p, uint8_t *in, UINT in_len, WINDIVERT_ADDRESS *addr, UINT count, uint8_t *out)
{
    UINT out_len = 0, out_count = 0;

    for (UINT i = 0; i < count; i++) {
        UINT len = packet_length(in, in_len), in_this = len;

        note_length(p, len);
        memcpy(out + out_len, in, len);
        in += in_this;
        in_len -= in_this;
        if (p->edit && !p->edit(p, out + out_len, &len, &addr[i]))
            continue;
        out_len += len;
        addr[out_count++] = addr[i];
    }
    CHECK(in_len == 0, "%u bytes more in the batch than its %u packets", in_len, count);
    send_back(p, out, out_len, addr, out_count);
}

static bool
receive_batch(struct e2e_passer *p, uint8_t *in, UINT *ret_len, WINDIVERT_ADDRESS *addr, UINT *ret_count)
{
    UINT bytes = p->batch * (UINT)sizeof(*addr);
    BOOL ok;

    if (p->batch <= 1)
        ok = WinDivertRecv(p->handle, in, E2E_PACKET_MAX, ret_len, addr);
    else
        ok = WinDivertRecvEx(p->handle, in, BATCH_BYTES, ret_len, 0, addr, &bytes, NULL);
    if (!ok) {
        atomic_store(&p->end_error, GetLastError());
        return false;
    }
    *ret_count = p->batch <= 1 ? 1 : bytes / (UINT)sizeof(*addr);
    CHECK(*ret_count >= 1 && *ret_count <= (p->batch ? p->batch : 1), "received %u packets, asked for %u", *ret_count,
          p->batch);
    return true;
}

void
e2e_pass_loop(struct e2e_passer *p)
{
    uint8_t *in = malloc(BATCH_BYTES), *out = malloc(BATCH_BYTES + WINDIVERT_BATCH_MAX * E2E_EDIT_ROOM);
    WINDIVERT_ADDRESS *addr = calloc(WINDIVERT_BATCH_MAX, sizeof(*addr));
    UINT len = 0, count = 0;

    CHECK(in && out && addr, "no memory");
    while (receive_batch(p, in, &len, addr, &count)) {
        atomic_fetch_add(&p->received, count);
        handle_batch(p, in, len, addr, count, out);
    }
    free(in);
    free(out);
    free(addr);
}

static void *
pass_thread(void *arg)
{
    struct e2e_passer *p = arg;
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(0, &one);
    if (p->pin)
        sched_setaffinity(0, sizeof(one), &one);
    e2e_pass_loop(p);
    return NULL;
}

void
e2e_pass_start(struct e2e_passer *p)
{
    CHECK(pthread_create(&p->thread, NULL, pass_thread, p) == 0, "pthread_create");
}

void
e2e_pass_stop(struct e2e_passer *p)
{
    CHECK_API(WinDivertShutdown(p->handle, WINDIVERT_SHUTDOWN_RECV));
    pthread_join(p->thread, NULL);
    CHECK(atomic_load(&p->end_error) == ERROR_NO_DATA, "receiving ended with error %u, expected 232",
          atomic_load(&p->end_error));
    CHECK_API(WinDivertClose(p->handle));
}

WINDIVERT_EXT_STATS
e2e_stats(HANDLE handle)
{
    WINDIVERT_EXT_STATS stats = {.Size = sizeof(stats)};

    CHECK_API(WinDivertExtGetStats(handle, &stats));
    return stats;
}

static const char *patience_file;
static int patience_line;

static void
out_of_patience(int sig)
{
    (void)sig;
    e2e_fail_at(patience_file, patience_line, "no packet was delivered within %u s", PATIENCE_S);
}

UINT
e2e_recv_packet_at(const char *file, int line, HANDLE handle, uint8_t *buf, WINDIVERT_ADDRESS *addr)
{
    UINT len = 0;

    patience_file = file;
    patience_line = line;
    signal(SIGALRM, out_of_patience);
    alarm(PATIENCE_S);
    CHECK_API(WinDivertRecv(handle, buf, E2E_PACKET_MAX, &len, addr));
    alarm(0);
    CHECK(len >= 20, "received %u bytes", len);
    return len;
}

void
e2e_send_packet(HANDLE handle, const uint8_t *buf, UINT len, const WINDIVERT_ADDRESS *addr)
{
    UINT sent = 0;

    CHECK_API(WinDivertSend(handle, buf, len, &sent, addr));
    CHECK(sent == len, "sent %u bytes of %u", sent, len);
}

bool
e2e_invert(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    (void)p;
    CHECK(e2e_view(packet, *len, &v), "no packet");
    for (unsigned i = v.payload; i < *len; i++)
        packet[i] ^= 0xFF;
    addr->TCPChecksum = addr->UDPChecksum = 0;
    return true;
}
