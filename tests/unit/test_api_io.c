/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WinDivertRecv, RecvEx, Send, SendEx: arguments, batches, truncation, what a failed call leaves alone. */
#include "api_test.h"

#include <errno.h>
#include <stdlib.h>

#include <windows.h>

#define PATTERN 0xa5
#define BATCH WINDIVERT_BATCH_MAX

static int
reset(void **state)
{
    (void)state;
    em_reset();
    return 0;
}

static WINDIVERT_ADDRESS
make_address(uint8_t seed)
{
    WINDIVERT_ADDRESS addr;

    for (size_t i = 0; i < sizeof(addr); i++)
        ((uint8_t *)&addr)[i] = (uint8_t)(seed * 7 + i);
    return addr;
}

/* Puts an IPv4 packet of this length with an address to it. */
static void
put(struct wd_handle *engine, uint32_t len, uint8_t seed)
{
    WINDIVERT_ADDRESS addr = make_address(seed);
    uint8_t *packet = malloc(len);

    assert_non_null(packet);
    make_ipv4(packet, len, seed);
    em_put(engine, packet, len, &addr);
    free(packet);
}

static void
assert_packet(const uint8_t *packet, uint32_t len, uint32_t whole, uint8_t seed)
{
    uint8_t *expected = malloc(whole);

    assert_non_null(expected);
    make_ipv4(expected, whole, seed);
    assert_memory_equal(packet, expected, len);
    free(expected);
}

static void
assert_address(const WINDIVERT_ADDRESS *addr, uint8_t seed)
{
    WINDIVERT_ADDRESS expected = make_address(seed);

    assert_memory_equal(addr, &expected, sizeof(expected));
}

/* ---- outputs ----------------------------------------------------------------- */

/* All that a receive may write, filled with a pattern. */
struct outputs {
    uint8_t packet[2000];
    UINT recv_len;
    WINDIVERT_ADDRESS addr[3];
    UINT addr_len;
};

static void
fill(struct outputs *out)
{
    memset(out, PATTERN, sizeof(*out));
    out->addr_len = sizeof(out->addr);
}

static void
assert_filled(const struct outputs *out)
{
    struct outputs expected;

    fill(&expected);
    assert_memory_equal(out->packet, expected.packet, sizeof(expected.packet));
    assert_memory_equal(out->addr, expected.addr, sizeof(expected.addr));
    assert_int_equal(out->recv_len, expected.recv_len);
    assert_int_equal(out->addr_len, expected.addr_len);
}

static BOOL
recv_into(HANDLE handle, struct outputs *out)
{
    return WinDivertRecvEx(handle, out->packet, sizeof(out->packet), &out->recv_len, 0, out->addr, &out->addr_len,
                           NULL);
}

/* ---- receive ------------------------------------------------------------------ */

static void
test_recv(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct wd_handle *engine = em_last();
    struct outputs out;

    (void)state;
    fill(&out);
    put(engine, 100, 1);
    put(engine, 50, 2);
    assert_works(WinDivertRecv(handle, out.packet, sizeof(out.packet), &out.recv_len, out.addr));
    assert_int_equal(out.recv_len, 100);
    assert_packet(out.packet, 100, 100, 1);
    assert_address(&out.addr[0], 1);
    assert_int_equal(out.packet[100], PATTERN);
    assert_int_equal(((uint8_t *)&out.addr[1])[0], PATTERN);
    assert_int_equal(em_queued(engine), 1); /* one packet, though there was room for both */
    assert_works(WinDivertRecv(handle, out.packet, sizeof(out.packet), &out.recv_len, out.addr));
    assert_int_equal(out.recv_len, 50);
    assert_address(&out.addr[0], 2);
    assert_works(WinDivertClose(handle));
}

/* Every pointer of RecvEx NULL or not; with an OVERLAPPED the same comes, but for the length, which is there. */
static void
test_recv_null(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct wd_handle *engine = em_last();
    OVERLAPPED ov = {0};
    struct outputs out;

    (void)state;
    for (unsigned mask = 0; mask < 32; mask++) {
        bool packet = mask & 1, recv_len = mask & 2, addr = mask & 4, addr_len = mask & 8, overlapped = mask & 16;
        unsigned count = addr_len ? 2 : 1;

        fill(&out);
        put(engine, 100, 1);
        put(engine, 200, 2);
        SetLastError(UNTOUCHED);
        assert_int_equal(WinDivertRecvEx(handle, packet ? out.packet : NULL, sizeof(out.packet),
                                         recv_len ? &out.recv_len : NULL, 0, addr ? out.addr : NULL,
                                         addr_len ? &out.addr_len : NULL, overlapped ? &ov : NULL),
                         !overlapped);
        assert_int_equal(GetLastError(), overlapped ? 997 : UNTOUCHED);
        assert_int_equal(em_queued(engine), 2 - count);
        if (overlapped)
            assert_int_equal(ov.InternalHigh, !packet ? 0 : count == 2 ? 300 : 100);
        if (packet)
            assert_packet(out.packet, 100, 100, 1);
        if (packet && count == 2)
            assert_packet(out.packet + 100, 200, 200, 2);
        if (!overlapped && recv_len)
            assert_int_equal(out.recv_len, !packet ? 0 : count == 2 ? 300 : 100);
        if (addr)
            assert_address(&out.addr[count - 1], (uint8_t)count);
        if (addr_len)
            assert_int_equal(out.addr_len, 2 * ADDRESS_SIZE);
        while (em_queued(engine))
            assert_works(WinDivertRecv(handle, NULL, 0, NULL, NULL));
    }
    assert_works(WinDivertClose(handle));
}

static void
test_recv_null_packet_with_length(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    UINT len = 99;

    (void)state;
    put(em_last(), 100, 1);
    assert_works(WinDivertRecv(handle, NULL, 5000, &len, NULL));
    assert_int_equal(len, 0);
    assert_works(WinDivertClose(handle));
}

/* Every flag combination that opens: SEND_ONLY and DROP cannot receive. */
static void
test_recv_flags(void **state)
{
    struct outputs out;

    (void)state;
    for (unsigned flags = 0; flags < 64; flags++) {
        HANDLE handle = WinDivertOpen("true", WINDIVERT_LAYER_NETWORK, 0, flags);
        bool may = !(flags & (WINDIVERT_FLAG_DROP | WINDIVERT_FLAG_SEND_ONLY));

        if (handle == INVALID_HANDLE_VALUE)
            continue;
        fill(&out);
        put(em_last(), 100, 1);
        if (may) {
            assert_works(WinDivertRecv(handle, out.packet, sizeof(out.packet), &out.recv_len, out.addr));
        } else {
            assert_fails(WinDivertRecv(handle, out.packet, sizeof(out.packet), &out.recv_len, out.addr), 87);
            assert_text(flags & WINDIVERT_FLAG_SEND_ONLY ? "SEND_ONLY" : "DROP");
            assert_fails(recv_into(handle, &out), 87);
            assert_filled(&out);
        }
        assert_works(WinDivertClose(handle));
    }
}

static void
test_recv_ex_flags(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct outputs out;

    (void)state;
    fill(&out);
    put(em_last(), 100, 1);
    for (unsigned bit = 0; bit < 64; bit++)
        assert_fails(WinDivertRecvEx(handle, out.packet, sizeof(out.packet), &out.recv_len, (UINT64)1 << bit,
                                     out.addr, &out.addr_len, NULL),
                     87);
    assert_filled(&out);
    assert_int_equal(em_queued(em_last()), 1);
    assert_works(WinDivertClose(handle));
}

/* Every length of addresses from nothing to beyond the limit. */
static void
test_recv_addr_len(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS *addr = calloc(BATCH + 2, sizeof(*addr));
    struct wd_handle *engine = em_last();
    struct outputs out;

    (void)state;
    assert_non_null(addr);
    for (UINT bytes = 0; bytes <= (BATCH + 2) * ADDRESS_SIZE; bytes++) {
        bool good = bytes && bytes % ADDRESS_SIZE == 0 && bytes / ADDRESS_SIZE <= BATCH;
        UINT len = bytes;

        fill(&out);
        put(engine, 100, 1);
        if (good) {
            assert_works(WinDivertRecvEx(handle, out.packet, sizeof(out.packet), NULL, 0, addr, &len, NULL));
            assert_int_equal(len, ADDRESS_SIZE);
        } else {
            assert_fails(
                WinDivertRecvEx(handle, out.packet, sizeof(out.packet), &out.recv_len, 0, out.addr, &len, NULL), 87);
            assert_int_equal(len, bytes);
            assert_filled(&out);
            assert_works(WinDivertRecv(handle, NULL, 0, NULL, NULL));
        }
    }
    for (UINT64 bytes = 256 * 80; bytes < UINT32_MAX; bytes *= 3) {
        UINT len = (UINT)bytes;
        assert_fails(WinDivertRecvEx(handle, out.packet, sizeof(out.packet), NULL, 0, addr, &len, NULL), 87);
    }
    free(addr);
    assert_works(WinDivertClose(handle));
}

static void
test_recv_batch(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS *addr = calloc(BATCH, sizeof(*addr));
    UINT len = 0, addr_len = BATCH * ADDRESS_SIZE, at = 0;
    uint8_t *packets = malloc(100000);
    struct wd_handle *engine = em_last();

    (void)state;
    assert_non_null(addr);
    assert_non_null(packets);
    for (unsigned i = 0; i < 300; i++)
        put(engine, 20 + i, (uint8_t)i);
    assert_works(WinDivertRecvEx(handle, packets, 100000, &len, 0, addr, &addr_len, NULL));
    assert_int_equal(addr_len, BATCH * ADDRESS_SIZE);
    for (unsigned i = 0; i < BATCH; at += 20 + i, i++) {
        assert_packet(packets + at, 20 + i, 20 + i, (uint8_t)i);
        assert_address(&addr[i], (uint8_t)i);
    }
    assert_int_equal(len, at);
    assert_int_equal(em_queued(engine), 45);
    assert_works(WinDivertRecvEx(handle, packets, 100000, &len, 0, addr, &addr_len, NULL));
    assert_int_equal(addr_len, 45 * ADDRESS_SIZE);
    free(addr);
    free(packets);
    assert_works(WinDivertClose(handle));
}

/* Where the next packet does not fit any more, the batch ends before it. */
static void
test_recv_batch_room(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct wd_handle *engine = em_last();
    struct outputs out;

    (void)state;
    fill(&out);
    put(engine, 100, 1);
    put(engine, 100, 2);
    assert_works(WinDivertRecvEx(handle, out.packet, 199, &out.recv_len, 0, out.addr, &out.addr_len, NULL));
    assert_int_equal(out.recv_len, 100);
    assert_int_equal(out.addr_len, ADDRESS_SIZE);
    assert_int_equal(out.packet[100], PATTERN);
    assert_int_equal(em_queued(engine), 1);
    assert_works(WinDivertClose(handle));
}

/* 122 delivers what there is room for, its length and its address, and the packet is gone. */
static void
test_recv_truncated(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct wd_handle *engine = em_last();
    struct outputs out;

    (void)state;
    for (UINT room = 0; room <= 100; room++) {
        fill(&out);
        put(engine, 100, 3);
        if (room == 100) {
            assert_works(WinDivertRecv(handle, out.packet, room, &out.recv_len, out.addr));
        } else {
            assert_fails(WinDivertRecvEx(handle, out.packet, room, &out.recv_len, 0, out.addr, &out.addr_len, NULL),
                         122);
            assert_int_equal(out.addr_len, ADDRESS_SIZE);
        }
        assert_int_equal(out.recv_len, room);
        assert_packet(out.packet, room, 100, 3);
        assert_int_equal(out.packet[room], PATTERN);
        assert_address(&out.addr[0], 3);
        assert_int_equal(em_queued(engine), 0);
    }
    put(engine, 100, 3);
    assert_fails(WinDivertRecv(handle, out.packet, 10, NULL, NULL), 122);
    assert_works(WinDivertClose(handle));
}

/* Whatever the engine answers but a truncated packet: no output changes, though the engine left rubbish. */
static void
test_recv_failures(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct outputs out;

    (void)state;
    fill(&out);
    for (int error = 1; error < 200; error++) {
        if (error == EMSGSIZE)
            continue;
        em_fail(EM_RECV, -error, "it failed", NULL);
        SetLastError(UNTOUCHED);
        assert_false(recv_into(handle, &out));
        assert_int_not_equal(GetLastError(), UNTOUCHED);
        assert_string_equal(WinDivertExtGetLastErrorText(), "it failed");
        assert_filled(&out);
    }
    em_fail(EM_RECV, 0, NULL, NULL);
    assert_works(WinDivertClose(handle));
}

static void
test_recv_shutdown(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    struct outputs out;

    (void)state;
    put(em_last(), 100, 1);
    put(em_last(), 100, 2);
    assert_works(WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_RECV));
    fill(&out);
    assert_works(recv_into(handle, &out));
    assert_int_equal(out.recv_len, 200);
    fill(&out);
    assert_fails(recv_into(handle, &out), 232);
    assert_filled(&out);
    assert_works(WinDivertClose(handle));
}

/* At the layers of events there is no packet, only an address. */
static void
test_recv_events(void **state)
{
    static const int layers[] = {WINDIVERT_LAYER_FLOW, WINDIVERT_LAYER_SOCKET, WINDIVERT_LAYER_REFLECT};
    WINDIVERT_ADDRESS addr = make_address(9);
    struct outputs out;

    (void)state;
    for (size_t i = 0; i < COUNT(layers); i++) {
        HANDLE handle = open_handle((WINDIVERT_LAYER)layers[i], WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY);

        fill(&out);
        em_put(em_last(), NULL, 0, &addr);
        assert_works(WinDivertRecv(handle, NULL, 0, &out.recv_len, out.addr));
        assert_int_equal(out.recv_len, 0);
        assert_address(&out.addr[0], 9);
        assert_works(WinDivertClose(handle));
    }
}

/* ---- send --------------------------------------------------------------------- */

static void
assert_sent(unsigned index, uint32_t len, uint8_t seed)
{
    static uint8_t packet[WINDIVERT_MTU_MAX];
    WINDIVERT_ADDRESS addr;
    uint32_t sent_len;

    assert_true(em_sent(index, packet, &sent_len, &addr));
    assert_int_equal(sent_len, len);
    assert_packet(packet, len, len, seed);
    assert_address(&addr, seed);
}

static void
test_send(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS addr = make_address(5);
    UINT len = UNTOUCHED;
    uint8_t packet[300];

    (void)state;
    make_ipv4(packet, sizeof(packet), 5);
    assert_works(WinDivertSend(handle, packet, sizeof(packet), &len, &addr));
    assert_int_equal(len, sizeof(packet));
    assert_sent(0, sizeof(packet), 5);
    assert_works(WinDivertSendEx(handle, packet, sizeof(packet), &len, 0, &addr, sizeof(addr), NULL));
    assert_int_equal(len, sizeof(packet));
    assert_sent(1, sizeof(packet), 5);
    assert_works(WinDivertClose(handle));
}

/* Every pointer of SendEx NULL or not. */
static void
test_send_null(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS addr = make_address(5);
    uint8_t packet[40];
    OVERLAPPED ov = {0};

    (void)state;
    make_ipv4(packet, sizeof(packet), 5);
    for (unsigned mask = 0; mask < 16; mask++) {
        DWORD code = !(mask & 1) || !(mask & 4) ? 87 : mask & 8 ? 997 : UNTOUCHED;
        UINT len = UNTOUCHED;

        em_reset();
        SetLastError(UNTOUCHED);
        assert_int_equal(WinDivertSendEx(handle, mask & 1 ? packet : NULL, sizeof(packet), mask & 2 ? &len : NULL, 0,
                                         mask & 4 ? &addr : NULL, sizeof(addr), mask & 8 ? &ov : NULL),
                         code == UNTOUCHED);
        assert_int_equal(GetLastError(), code);
        assert_int_equal(em_sent_count(), code != 87);
        if (code == 997)
            assert_int_equal(ov.InternalHigh, sizeof(packet));
        assert_int_equal(len, code == UNTOUCHED && (mask & 2) ? sizeof(packet) : UNTOUCHED);
        if (mask & 8)
            continue;
        SetLastError(UNTOUCHED);
        assert_int_equal(WinDivertSend(handle, mask & 1 ? packet : NULL, sizeof(packet), mask & 2 ? &len : NULL,
                                       mask & 4 ? &addr : NULL),
                         code == UNTOUCHED);
        assert_int_equal(GetLastError(), code);
    }
    assert_works(WinDivertClose(handle));
}

/* Every flag combination on every layer that opens: RECV_ONLY cannot send, and so no event layer can. */
static void
test_send_flags(void **state)
{
    WINDIVERT_ADDRESS addr = make_address(5);
    uint8_t packet[40];

    (void)state;
    make_ipv4(packet, sizeof(packet), 5);
    for (unsigned i = 0; i < 5 * 64; i++) {
        HANDLE handle = WinDivertOpen("true", (WINDIVERT_LAYER)(i / 64), 0, i % 64);
        UINT len = UNTOUCHED;

        if (handle == INVALID_HANDLE_VALUE)
            continue;
        if (i / 64 <= WINDIVERT_LAYER_NETWORK_FORWARD && !(i % 64 & WINDIVERT_FLAG_RECV_ONLY)) {
            assert_works(WinDivertSend(handle, packet, sizeof(packet), &len, &addr));
        } else {
            assert_fails(WinDivertSend(handle, packet, sizeof(packet), &len, &addr), 87);
            assert_text(i / 64 <= WINDIVERT_LAYER_NETWORK_FORWARD ? "RECV_ONLY" : "layer");
            assert_fails(WinDivertSendEx(handle, packet, sizeof(packet), &len, 0, &addr, sizeof(addr), NULL), 87);
            assert_int_equal(len, UNTOUCHED);
        }
        assert_works(WinDivertClose(handle));
    }
}

static void
test_send_ex_flags(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS addr = make_address(5);
    UINT len = UNTOUCHED;
    uint8_t packet[40];

    (void)state;
    make_ipv4(packet, sizeof(packet), 5);
    for (unsigned bit = 0; bit < 64; bit++)
        assert_fails(
            WinDivertSendEx(handle, packet, sizeof(packet), &len, (UINT64)1 << bit, &addr, sizeof(addr), NULL), 87);
    assert_int_equal(len, UNTOUCHED);
    assert_int_equal(em_sent_count(), 0);
    assert_works(WinDivertClose(handle));
}

static void
test_send_lengths(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS addr = make_address(5);
    uint8_t *packet = calloc(1, WINDIVERT_MTU_MAX + 1);
    UINT len = UNTOUCHED;

    (void)state;
    assert_non_null(packet);
    make_ipv4(packet, 40, 5);
    assert_fails(WinDivertSend(handle, packet, 0, &len, &addr), 87);
    assert_fails(WinDivertSend(handle, packet, WINDIVERT_MTU_MAX + 1, &len, &addr), 87);
    assert_fails(WinDivertSend(handle, packet, UINT32_MAX, &len, &addr), 87);
    assert_int_equal(em_counts().calls, 1); /* open: the engine was not asked */
    for (UINT room = 1; room < 40; room++)  /* malformed: less than it says */
        assert_fails(WinDivertSend(handle, packet, room, &len, &addr), 87);
    packet[0] = 0x35;
    assert_fails(WinDivertSend(handle, packet, 40, &len, &addr), 87);
    assert_text("malformed");
    assert_int_equal(len, UNTOUCHED);
    assert_int_equal(em_sent_count(), 0);
    packet[0] = 0x60; /* the largest packet there is */
    packet[4] = packet[5] = 0xff;
    assert_works(WinDivertSend(handle, packet, WINDIVERT_MTU_MAX, &len, &addr));
    assert_int_equal(len, WINDIVERT_MTU_MAX);
    free(packet);
    assert_works(WinDivertClose(handle));
}

static void
test_send_addr_len(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS *addr = calloc(BATCH + 2, sizeof(*addr));
    uint8_t packet[40];

    (void)state;
    assert_non_null(addr);
    make_ipv4(packet, sizeof(packet), 5);
    for (UINT bytes = 0; bytes <= (BATCH + 2) * ADDRESS_SIZE; bytes++) {
        bool good = bytes && bytes % ADDRESS_SIZE == 0 && bytes / ADDRESS_SIZE <= BATCH;
        UINT len = UNTOUCHED;

        if (good)
            assert_works(WinDivertSendEx(handle, packet, sizeof(packet), &len, 0, addr, bytes, NULL));
        else
            assert_fails(WinDivertSendEx(handle, packet, sizeof(packet), &len, 0, addr, bytes, NULL), 87);
        assert_int_equal(len, good ? sizeof(packet) : UNTOUCHED);
    }
    free(addr);
    assert_works(WinDivertClose(handle));
}

/* Fills packets and addresses for a batch; the bytes used. */
static UINT
make_batch(uint8_t *packets, WINDIVERT_ADDRESS *addr, unsigned count)
{
    UINT at = 0;

    for (unsigned i = 0; i < count; at += 20 + i, i++) {
        make_ipv4(packets + at, 20 + i, (uint8_t)i);
        addr[i] = make_address((uint8_t)i);
    }
    return at;
}

static void
test_send_batch(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS addr[BATCH + 1];
    static uint8_t packets[100000];
    UINT len = 0, total;

    (void)state;
    total = make_batch(packets, addr, BATCH);
    assert_works(WinDivertSendEx(handle, packets, total, &len, 0, addr, BATCH * ADDRESS_SIZE, NULL));
    assert_int_equal(len, total);
    assert_int_equal(em_sent_count(), BATCH);
    for (unsigned i = 0; i < BATCH; i++)
        assert_sent(i, 20 + i, (uint8_t)i);
    total = make_batch(packets, addr, BATCH + 1);
    assert_fails(WinDivertSendEx(handle, packets, total, &len, 0, addr, (BATCH + 1) * ADDRESS_SIZE, NULL), 87);
    assert_text("256 packets");
    assert_int_equal(em_sent_count(), BATCH);
    assert_works(WinDivertClose(handle));
}

/* Stops at the first refused packet: TRUE with the total of those before it; FALSE where it is the first. */
static void
test_send_stops(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS addr[10];
    uint8_t packets[1000];
    UINT total = make_batch(packets, addr, 10);

    (void)state;
    for (unsigned refused = 0; refused <= 10; refused++) {
        UINT len = UNTOUCHED, before = 0;

        em_reset();
        em_refuse_from(refused, -EHOSTUNREACH);
        for (unsigned i = 0; i < refused; i++)
            before += 20 + i;
        if (refused)
            assert_works(WinDivertSendEx(handle, packets, total, &len, 0, addr, sizeof(addr), NULL));
        else
            assert_fails(WinDivertSendEx(handle, packets, total, &len, 0, addr, sizeof(addr), NULL), 1232);
        assert_int_equal(len, refused ? before : UNTOUCHED);
        assert_int_equal(em_sent_count(), refused);
    }
    assert_works(WinDivertClose(handle));
}

static void
test_send_failures(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0);
    WINDIVERT_ADDRESS addr = make_address(5);
    UINT len = UNTOUCHED;
    uint8_t packet[40];

    (void)state;
    make_ipv4(packet, sizeof(packet), 5);
    for (int error = 1; error < 200; error++) {
        em_fail(EM_SEND, -error, "it failed", NULL);
        SetLastError(UNTOUCHED);
        assert_false(WinDivertSend(handle, packet, sizeof(packet), &len, &addr));
        assert_int_not_equal(GetLastError(), UNTOUCHED);
        assert_string_equal(WinDivertExtGetLastErrorText(), "it failed");
        assert_int_equal(len, UNTOUCHED);
    }
    em_fail(EM_SEND, 0, NULL, NULL);
    assert_works(WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_SEND));
    assert_fails(WinDivertSend(handle, packet, sizeof(packet), &len, &addr), 232);
    assert_int_equal(len, UNTOUCHED);
    assert_works(WinDivertClose(handle));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_recv, reset),
        cmocka_unit_test_setup(test_recv_null, reset),
        cmocka_unit_test_setup(test_recv_null_packet_with_length, reset),
        cmocka_unit_test_setup(test_recv_flags, reset),
        cmocka_unit_test_setup(test_recv_ex_flags, reset),
        cmocka_unit_test_setup(test_recv_addr_len, reset),
        cmocka_unit_test_setup(test_recv_batch, reset),
        cmocka_unit_test_setup(test_recv_batch_room, reset),
        cmocka_unit_test_setup(test_recv_truncated, reset),
        cmocka_unit_test_setup(test_recv_failures, reset),
        cmocka_unit_test_setup(test_recv_shutdown, reset),
        cmocka_unit_test_setup(test_recv_events, reset),
        cmocka_unit_test_setup(test_send, reset),
        cmocka_unit_test_setup(test_send_null, reset),
        cmocka_unit_test_setup(test_send_flags, reset),
        cmocka_unit_test_setup(test_send_ex_flags, reset),
        cmocka_unit_test_setup(test_send_lengths, reset),
        cmocka_unit_test_setup(test_send_addr_len, reset),
        cmocka_unit_test_setup(test_send_batch, reset),
        cmocka_unit_test_setup(test_send_stops, reset),
        cmocka_unit_test_setup_teardown(test_send_failures, reset, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
