/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* RecvEx and SendEx: up to 255 packets at once, packed, none split. */
#include "e2e.h"

#include <string.h>
#include <unistd.h>

#define PORT 5001
#define ROOM (1u << 20)

static uint8_t buf[ROOM];

struct flow {
    int rx, tx;
    HANDLE h;
};

static struct flow
start_flow(void)
{
    struct flow f;

    f.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    f.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    f.h = e2e_open("udp.DstPort == 5001", 0, 0);
    return f;
}

static void
end_flow(struct flow *f)
{
    CHECK_API(WinDivertClose(f->h));
    e2e_marker(f->tx, f->rx);
    close(f->tx);
    close(f->rx);
}

/* Receives at most `room` packets, checks that they are datagrams first, first + 1 ...; returns how many. */
static UINT
receive(HANDLE h, UINT room, uint32_t first, size_t (*size)(uint32_t), WINDIVERT_ADDRESS *addr, UINT *ret_len)
{
    UINT bytes = room * (UINT)sizeof(*addr), at = 0, count;

    CHECK_API(WinDivertRecvEx(h, buf, ROOM, ret_len, 0, addr, &bytes, NULL));
    CHECK(bytes % sizeof(*addr) == 0, "%u bytes of addresses", bytes);
    count = bytes / (UINT)sizeof(*addr);
    CHECK(count >= 1 && count <= room, "%u packets, asked for up to %u", count, room);
    for (UINT i = 0; i < count; i++) {
        uint8_t expect[2048];
        size_t want = size(first + i);

        e2e_datagram(expect, want, first + i);
        CHECK(at + 28 + want <= *ret_len && !memcmp(buf + at + 28, expect, want),
              "packet %u of %u is not datagram %u", i, count, first + i);
        at += 28 + (UINT)want;
    }
    CHECK(at == *ret_len, "%u bytes, the packets are %u", *ret_len, at);
    return count;
}

static void
one_size(UINT room)
{
    struct flow f = start_flow();
    WINDIVERT_ADDRESS addr[WINDIVERT_BATCH_MAX];
    uint32_t total = 4 * room > 40 ? 4 * room : 40, got = 0;
    UINT largest = 0, len, sent;

    for (uint32_t i = 0; i < total; i++)
        CHECK(e2e_send(f.tx, e2e_size_unfragmented(i), i), "send");
    while (got < total) {
        UINT count = receive(f.h, room, got, e2e_size_unfragmented, addr, &len);

        got += count;
        largest = count > largest ? count : largest;
        CHECK_API(WinDivertSendEx(f.h, buf, len, &sent, 0, addr, count * (UINT)sizeof(*addr), NULL));
        CHECK(sent == len, "sent %u bytes of %u", sent, len);
    }
    CHECK(room == 1 || largest > 1, "never more than one packet at once");
    for (uint32_t i = 0; i < total; i++)
        CHECK(e2e_receive(f.rx, buf, ROOM, 2000) == (ssize_t)e2e_size_unfragmented(i), "%u of %u arrived", i, total);
    end_flow(&f);
}

static void
batch_sizes(void)
{
    static const UINT rooms[] = {1, 2, 3, 64, 128, 254, 255};

    for (unsigned i = 0; i < sizeof(rooms) / sizeof(*rooms); i++)
        one_size(rooms[i]);
}

/* With everything queued beforehand, 255 come in one call. */
static void
batch_255_at_once(void)
{
    struct flow f = start_flow();
    WINDIVERT_ADDRESS addr[WINDIVERT_BATCH_MAX];
    UINT len, sent, count = 0;
    uint32_t first = 0;

    for (uint32_t i = 0; i < 2000; i++)
        CHECK(e2e_send(f.tx, 64, i), "send");
    for (unsigned n = 0; n < 100 && count < 255 && first < 2000; n++) {
        count = receive(f.h, 255, first, e2e_size_64, addr, &len);
        CHECK_API(WinDivertSendEx(f.h, buf, len, &sent, 0, addr, count * (UINT)sizeof(*addr), NULL));
        first += count;
    }
    CHECK(count == 255, "the largest batch from a full queue had %u packets", count);
    CHECK_API(WinDivertClose(f.h));
    for (uint32_t i = 0; i < 2000; i++)
        CHECK(e2e_receive(f.rx, buf, ROOM, 2000) == 64, "%u of 2000 arrived", i);
    e2e_marker(f.tx, f.rx);
}

/* A buffer for two and a half packets gets two; the third comes with the next call. */
static void
batch_never_splits(void)
{
    struct flow f = start_flow();
    WINDIVERT_ADDRESS addr[WINDIVERT_BATCH_MAX];
    UINT len, bytes, sent;
    unsigned total = 0;

    for (uint32_t i = 0; i < 30; i++)
        CHECK(e2e_send(f.tx, 1000, i), "send");
    while (total < 30) {
        bytes = sizeof(addr);
        CHECK_API(WinDivertRecvEx(f.h, buf, 1028 * 2 + 500, &len, 0, addr, &bytes, NULL));
        bytes /= (UINT)sizeof(*addr);
        CHECK((bytes == 1 || bytes == 2) && len == 1028 * bytes, "%u packets, %u bytes", bytes, len);
        CHECK_API(WinDivertSendEx(f.h, buf, len, &sent, 0, addr, bytes * (UINT)sizeof(*addr), NULL));
        total += bytes;
    }
    for (uint32_t i = 0; i < 30; i++)
        CHECK(e2e_receive(f.rx, buf, ROOM, 2000) == 1000, "%u of 30 arrived", i);
    end_flow(&f);
}

/* 122: a copy that ends early, the packet counts as received, the address is whole and returns it. */
static void
batch_short_buffer(void)
{
    struct flow f = start_flow();
    WINDIVERT_ADDRESS addr;
    uint8_t small[100], whole[28 + 1000];
    UINT len = 0;

    CHECK(e2e_send(f.tx, 1000, 0), "send");
    CHECK_ERROR(WinDivertRecv(f.h, small, sizeof(small), &len, &addr), ERROR_INSUFFICIENT_BUFFER);
    CHECK(small[0] == 0x45 && small[2] == 1028 >> 8 && small[3] == (1028 & 255), "no copy was delivered");
    e2e_datagram(whole + 28, 1000, 0);
    CHECK(!memcmp(small + 28, whole + 28, sizeof(small) - 28), "another copy was delivered");
    CHECK(addr.Outbound, "no address was delivered");
    CHECK(e2e_send(f.tx, 50, 1), "send");
    len = e2e_recv_packet(f.h, buf, &addr);
    CHECK(len == 78, "the packet was delivered again (%u bytes)", len);
    e2e_send_packet(f.h, buf, len, &addr);
    CHECK(e2e_receive(f.rx, buf, ROOM, 2000) == 50, "the second datagram did not arrive");
    end_flow(&f);
}

/* No packet buffer, no length, no address: each may be left out. */
static void
batch_null_outputs(void)
{
    struct flow f = start_flow();
    WINDIVERT_ADDRESS addr;
    UINT len;

    for (uint32_t i = 0; i < 4; i++)
        CHECK(e2e_send(f.tx, 64, i), "send");
    CHECK_API(WinDivertRecv(f.h, NULL, 0, NULL, &addr));
    CHECK(addr.Outbound && addr.Network.IfIdx, "no address");
    CHECK_API(WinDivertRecv(f.h, buf, ROOM, NULL, NULL));
    CHECK(buf[28] == 1, "datagram %u instead of 1", buf[28]);
    CHECK_API(WinDivertRecv(f.h, buf, ROOM, &len, NULL));
    CHECK(len == 92 && buf[28] == 2, "datagram %u (%u bytes) instead of 2", buf[28], len);
    CHECK_API(WinDivertRecvEx(f.h, buf, ROOM, &len, 0, &addr, NULL, NULL));
    CHECK(len == 92 && buf[28] == 3, "datagram %u (%u bytes) instead of 3", buf[28], len);
    e2e_send_packet(f.h, buf, len, &addr);
    CHECK(e2e_receive(f.rx, buf, ROOM, 2000) == 64 && buf[0] == 3, "the datagram did not arrive");
    end_flow(&f);
}

/* The refused packet ends a batch; what went before it is sent and counted. */
static void
batch_stops_at_refused(void)
{
    struct flow f = start_flow();
    WINDIVERT_ADDRESS addr[3];
    uint8_t packet[3 * 60];
    UINT len = 0, sent = 0;

    for (unsigned i = 0; i < 3; i++) {
        addr[i] = e2e_new_outbound(false);
        len += e2e_make_udp(packet + len, E2E_A4, 4000, E2E_B4, PORT, "some text", 9);
    }
    addr[1].Impostor = 1;
    packet[37 + 8] = 1; /* an impostor without hops left: 1232 */
    CHECK_API(WinDivertSendEx(f.h, packet, len, &sent, 0, addr, sizeof(addr), NULL));
    CHECK(sent == 37, "%u bytes sent, expected the first packet's 37", sent);
    CHECK(e2e_receive(f.rx, buf, ROOM, 2000) == 9, "the first packet did not arrive");
    end_flow(&f);
}

static void
batch_limits(void)
{
    struct flow f = start_flow();
    WINDIVERT_ADDRESS addr[WINDIVERT_BATCH_MAX + 1];
    UINT len, bytes = sizeof(addr);

    memset(addr, 0, sizeof(addr));
    CHECK_ERROR(WinDivertRecvEx(f.h, buf, ROOM, &len, 0, addr, &bytes, NULL), ERROR_INVALID_PARAMETER);
    CHECK(bytes == sizeof(addr), "a failed call changed *pAddrLen");
    bytes = 0;
    CHECK_ERROR(WinDivertRecvEx(f.h, buf, ROOM, &len, 0, addr, &bytes, NULL), ERROR_INVALID_PARAMETER);
    bytes = sizeof(*addr);
    CHECK_ERROR(WinDivertRecvEx(f.h, buf, ROOM, &len, 1, addr, &bytes, NULL), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSendEx(f.h, buf, 64, &len, 0, addr, sizeof(addr), NULL), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSendEx(f.h, buf, 64, &len, 0, addr, 0, NULL), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSendEx(f.h, buf, 64, &len, 1, addr, sizeof(*addr), NULL), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSendEx(f.h, NULL, 64, &len, 0, addr, sizeof(*addr), NULL), ERROR_INVALID_PARAMETER);
    CHECK_ERROR(WinDivertSendEx(f.h, buf, 64, &len, 0, NULL, sizeof(*addr), NULL), ERROR_INVALID_PARAMETER);
    end_flow(&f);
}

const struct e2e_test e2e_batch_tests[] = {
    {"batch_sizes", batch_sizes, 0},
    {"batch_255_at_once", batch_255_at_once, 0},
    {"batch_never_splits", batch_never_splits, 0},
    {"batch_short_buffer", batch_short_buffer, 0},
    {"batch_null_outputs", batch_null_outputs, 0},
    {"batch_stops_at_refused", batch_stops_at_refused, 0},
    {"batch_limits", batch_limits, 0},
    {NULL, NULL, 0},
};
