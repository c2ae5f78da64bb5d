/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Sniffing handles see everything exactly and disturb nothing. */
#include "e2e.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT 10000
#define PORT 5001

static void
large_queue(HANDLE h)
{
    CHECK_API(WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_LENGTH, WINDIVERT_PARAM_QUEUE_LENGTH_MAX));
    CHECK_API(WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    CHECK_API(WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_TIME, WINDIVERT_PARAM_QUEUE_TIME_MAX));
}

struct seen {
    uint8_t *times;
    bool outbound;
};

/* The datagram inside a sniffed packet must be one that was sent, not seen before. */
static bool
sniffed(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    static uint8_t expect[65536];
    struct seen *seen = p->arg;
    struct e2e_view v;
    uint32_t i;
    unsigned size;

    CHECK(e2e_view(packet, *len, &v) && v.proto == IPPROTO_UDP && v.dport == PORT, "sniffed something else");
    CHECK(addr->Sniffed && addr->Outbound == seen->outbound, "sniffed %u, outbound %u", addr->Sniffed,
          addr->Outbound);
    size = *len - v.payload;
    if (size < 4)
        return false;
    memcpy(&i, packet + v.payload, 4);
    CHECK(i < COUNT && !seen->times[i]++, "datagram %u was sniffed twice or never sent", i);
    e2e_datagram(expect, size, i);
    CHECK(size == e2e_size_unfragmented(i) && !memcmp(packet + v.payload, expect, size),
          "datagram %u was sniffed with other content", i);
    return false;
}

static void
sniff_exact(const char *handle_ns, const char *ip, bool outbound, unsigned batch)
{
    struct e2e_pump pump = {.count = COUNT, .size = e2e_size_unfragmented};
    struct seen seen = {e2e_shared(COUNT), outbound};
    struct e2e_passer p = {.batch = batch, .edit = sniffed, .arg = &seen};

    pump.rx = e2e_udp_receiver("b", ip, PORT);
    pump.tx = e2e_udp_sender("a", ip, PORT, 0);
    e2e_enter(handle_ns);
    p.handle = e2e_open("udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY);
    large_queue(p.handle);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    WAIT_UNTIL(p.received >= COUNT, 3000, "%llu of %u packets were sniffed", (unsigned long long)p.received, COUNT);
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
    CHECK(p.received == COUNT, "%llu packets were sniffed, expected %u", (unsigned long long)p.received, COUNT);
}

static void
sniff_udp4_out(void)
{
    sniff_exact("a", E2E_B4, true, 1);
}

static void
sniff_udp6_out(void)
{
    sniff_exact("a", E2E_B6, true, 64);
}

static void
sniff_udp4_in(void)
{
    sniff_exact("b", E2E_B4, false, 64);
}

static void
sniff_udp6_in(void)
{
    sniff_exact("b", E2E_B6, false, 1);
}

/* The largest packet, whole. */
static void
sniff_largest(const char *ip)
{
    static uint8_t buf[E2E_PACKET_MAX], expect[65536];
    unsigned head = strchr(ip, ':') ? 48 : 28;
    int rx = e2e_udp_receiver("b", ip, PORT), tx = e2e_udp_sender("a", ip, PORT, 0);
    WINDIVERT_ADDRESS addr;
    HANDLE h = e2e_open("outbound and udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF);
    UINT len;

    CHECK(e2e_send(tx, 65507, 7), "send");
    len = e2e_recv_packet(h, buf, &addr);
    CHECK(len == head + 65507, "sniffed %u bytes, expected %u", len, head + 65507);
    e2e_datagram(expect, 65507, 7);
    CHECK(!memcmp(buf + head, expect, 65507), "other content");
    CHECK(e2e_receive(rx, buf, sizeof(buf), 2000) == 65507, "the datagram did not arrive");
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

static void
sniff_largest4(void)
{
    sniff_largest(E2E_B4);
}

static void
sniff_largest6(void)
{
    sniff_largest(E2E_B6);
}

/* Receives what is left after Shutdown; returns how many packets that was. */
static uint64_t
drain(HANDLE h)
{
    static uint8_t buf[1 << 20];
    WINDIVERT_ADDRESS addr[WINDIVERT_BATCH_MAX];
    uint64_t n = 0;
    UINT len, bytes = sizeof(addr);

    CHECK_API(WinDivertShutdown(h, WINDIVERT_SHUTDOWN_RECV));
    while (WinDivertRecvEx(h, buf, sizeof(buf), &len, 0, addr, &bytes, NULL)) {
        n += bytes / sizeof(*addr);
        bytes = sizeof(addr);
    }
    CHECK(GetLastError() == ERROR_NO_DATA, "drained with error %u", (unsigned)GetLastError());
    return n;
}

/* Nobody reads: all traffic goes on at once, and what the queue could not keep is counted. */
static void
sniff_never_read(void)
{
    struct e2e_pump before = {.count = COUNT}, pump = {.count = COUNT};
    int64_t start, base_us, took_us;
    WINDIVERT_EXT_STATS stats;
    uint64_t drained;
    HANDLE h;

    before.rx = pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    before.tx = pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    start = e2e_now_us();
    e2e_udp_pump(&before);
    base_us = e2e_now_us() - start;
    h = e2e_open("udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF);
    start = e2e_now_us();
    e2e_udp_pump(&pump);
    took_us = e2e_now_us() - start;
    CHECK(took_us < 3 * base_us + 300000, "%u datagrams took %lld us, without a handle %lld us", COUNT,
          (long long)took_us, (long long)base_us);
    CHECK(pump.max_gap_us < before.max_gap_us + 90000, "a datagram came only after %lld us",
          (long long)pump.max_gap_us);
    drained = drain(h);
    stats = e2e_stats(h);
    CHECK(drained > 0 && drained <= WINDIVERT_PARAM_QUEUE_LENGTH_DEFAULT, "%llu packets were queued",
          (unsigned long long)drained);
    CHECK(drained == stats.Delivered && drained + stats.DropLength + stats.DropTime + stats.DropBuffer == COUNT,
          "delivered %llu (%llu), too many %llu, too old %llu, no buffer %llu: together not %u",
          (unsigned long long)drained, (unsigned long long)stats.Delivered, (unsigned long long)stats.DropLength,
          (unsigned long long)stats.DropTime, (unsigned long long)stats.DropBuffer, COUNT);
    CHECK_API(WinDivertClose(h));
    e2e_marker(pump.tx, pump.rx);
}

static bool
count_only(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    (void)p;
    (void)packet;
    (void)len;
    CHECK(addr->Sniffed, "not marked as sniffed");
    return false;
}

static void
sniff_tcp(void)
{
    struct e2e_tcp tcp = {"a", "b", E2E_B4, PORT, 32, 256 << 10, 0};
    struct e2e_passer p = {.batch = 64, .edit = count_only};

    p.handle = e2e_open("tcp", 0, WINDIVERT_FLAG_SNIFF);
    e2e_pass_start(&p);
    e2e_tcp_run(&tcp);
    e2e_pass_stop(&p);
    CHECK(p.received > 64 * 3, "only %llu packets were sniffed", (unsigned long long)p.received);
}

/* What a sniffing handle sends is a new packet, which it does not see itself. */
static void
sniff_send_again(void)
{
    uint8_t buf[E2E_PACKET_MAX];
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE h = e2e_open("outbound and udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF);
    WINDIVERT_ADDRESS addr;
    UINT len;

    CHECK(e2e_send(tx, 64, 1), "send");
    len = e2e_recv_packet(h, buf, &addr);
    addr.Sniffed = 0;
    e2e_send_packet(h, buf, len, &addr);
    for (unsigned i = 0; i < 2; i++)
        CHECK(e2e_receive(rx, buf, sizeof(buf), 2000) == 64, "only %u of 2 copies arrived", i);
    CHECK(drain(h) == 0, "the handle sniffed what it had sent");
    CHECK(e2e_stats(h).Injected == 1, "%llu injected", (unsigned long long)e2e_stats(h).Injected);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

struct order {
    _Atomic uint32_t next;
};

/* Datagrams in the order in which they were sent, none missing. */
static bool
in_order(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct order *order = p->arg;
    struct e2e_view v;
    uint32_t i;

    (void)addr;
    CHECK(e2e_view(packet, *len, &v) && *len - v.payload >= 4, "sniffed something else");
    memcpy(&i, packet + v.payload, 4);
    CHECK(i == order->next, "datagram %u was sniffed when %u was to come", i, order->next);
    order->next++;
    return false;
}

/* Another size in the middle of unread packets: nothing is lost, and the old ones come first. */
static void
sniff_resize_unread(void)
{
    static const uint32_t sizes[] = {WINDIVERT_PARAM_QUEUE_SIZE_MAX, WINDIVERT_PARAM_QUEUE_SIZE_MIN,
                                     WINDIVERT_PARAM_QUEUE_SIZE_DEFAULT};
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE h = e2e_open("outbound and udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF);
    static uint8_t buf[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    uint32_t sent = 0;
    struct e2e_view v;
    uint32_t number;

    e2e_stay_on_cpu();
    for (unsigned s = 0; s < 4; s++) {
        for (unsigned i = 0; i < 100; i++)
            CHECK(e2e_send(tx, 64, sent++), "send");
        if (s < 3)
            CHECK_API(WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_SIZE, sizes[s]));
    }
    for (uint32_t i = 0; i < sent; i++) {
        UINT len = e2e_recv_packet(h, buf, &addr);

        CHECK(e2e_view(buf, len, &v), "sniffed something else");
        memcpy(&number, buf + v.payload, 4);
        CHECK(number == i, "datagram %u was sniffed when %u was to come", number, i);
    }
    CHECK(e2e_stats(h).Delivered == sent, "%llu delivered", (unsigned long long)e2e_stats(h).Delivered);
    CHECK_API(WinDivertClose(h));
    e2e_drain(rx);
    e2e_marker(tx, rx);
}

/* A limit on what unread packets can hold: the size can be changed only so often without reading. */
static void
sniff_resize_too_often(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    HANDLE h = e2e_open("outbound and udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF);
    static uint8_t buf[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    unsigned changed = 0, packets = 0;

    for (; changed < 64; changed++) {
        CHECK(e2e_send(tx, 64, packets++), "send");
        if (!WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_SIZE, changed % 2 ? 65536 : 131072))
            break;
    }
    CHECK(changed > 1 && changed < 64 && GetLastError() == ERROR_NO_SYSTEM_RESOURCES, "%u changes, error %u", changed,
          (unsigned)GetLastError());
    CHECK(strstr(WinDivertExtGetLastErrorText(), "unread"), "%s", WinDivertExtGetLastErrorText());
    for (unsigned i = 0; i < packets; i++)
        e2e_recv_packet(h, buf, &addr);
    CHECK_API(WinDivertSetParam(h, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    CHECK(e2e_send(tx, 64, packets), "send");
    e2e_recv_packet(h, buf, &addr);
    CHECK_API(WinDivertClose(h));
    e2e_drain(rx);
}

/* Changed again and again beside the traffic and a reader that sleeps now and then: every packet once, in order. */
static void
sniff_resize_busy(void)
{
    struct e2e_pump pump = {.count = 500};
    struct order order = {0};
    struct e2e_passer p = {.batch = 16, .edit = in_order, .arg = &order};

    e2e_stay_on_cpu();
    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    p.handle = e2e_open("outbound and udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF);
    large_queue(p.handle);
    e2e_pass_start(&p);
    for (unsigned round = 0; round < 20; round++) {
        order.next = 0; /* all of the round before were read */
        e2e_udp_pump(&pump);
        CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_SIZE,
                                    round % 2 ? WINDIVERT_PARAM_QUEUE_SIZE_MAX : 1 << 20));
        WAIT_UNTIL(p.received >= (round + 1) * pump.count, 3000, "%llu packets were sniffed in round %u",
                   (unsigned long long)p.received, round);
    }
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
}

/* Bytes of kernel memory behind this process's bpf maps and programs. */
static unsigned long
bpf_memory(void)
{
    unsigned long total = 0;

    for (int fd = 0; fd < 256; fd++) {
        char path[64], line[128];
        unsigned long n;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        f = fopen(path, "r");
        while (f && fgets(line, sizeof(line), f))
            if (sscanf(line, "memlock: %lu", &n) == 1)
                total += n;
        if (f)
            fclose(f);
    }
    return total;
}

static void
sniff_memory(void)
{
    unsigned long before = bpf_memory(), after;
    HANDLE h = e2e_open("true", 0, WINDIVERT_FLAG_SNIFF);

    after = bpf_memory();
    CHECK(after > before && after - before < 6 << 20, "a default handle takes %lu bytes", after - before);
    CHECK_API(WinDivertClose(h));
    CHECK(bpf_memory() == before, "%lu bytes are left", bpf_memory() - before);
}

/*
 * An interface that came after the handle: its number is reported.  (Before
 * Linux 6.4 a rule in front of the program tells it, so there it is 0.)
 */
static void
sniff_new_interface(void)
{
    HANDLE h = e2e_open("outbound and udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF);
    bool by_rules = !e2e_kernel_since(6, 4);
    static uint8_t buf[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    int tx;

    free(e2e_shell("a", "ip link add late type veth peer name late2 && ip addr add 10.79.0.1/24 dev late && "
                        "ip link set late up && ip link set late2 up && "
                        "ip neigh add 10.79.0.2 lladdr 02:00:00:00:00:01 dev late"));
    tx = e2e_udp_sender("a", "10.79.0.2", PORT, 0);
    CHECK(e2e_send(tx, 64, 0), "send");
    e2e_recv_packet(h, buf, &addr);
    CHECK(addr.Network.IfIdx == (by_rules ? 0 : e2e_ifindex("a", "late")) && !addr.Loopback, "IfIdx %u",
          addr.Network.IfIdx);
    CHECK_API(WinDivertClose(h));
    free(e2e_shell("a", "ip link del late"));
}

const struct e2e_test e2e_sniff_tests[] = {
    {"sniff_udp4_out", sniff_udp4_out, 0},
    {"sniff_udp6_out", sniff_udp6_out, 0},
    {"sniff_udp4_in", sniff_udp4_in, 0},
    {"sniff_udp6_in", sniff_udp6_in, 0},
    {"sniff_largest4", sniff_largest4, 0},
    {"sniff_largest6", sniff_largest6, 0},
    {"sniff_never_read", sniff_never_read, 0},
    {"sniff_tcp", sniff_tcp, 60},
    {"sniff_resize_unread", sniff_resize_unread, 0},
    {"sniff_resize_too_often", sniff_resize_too_often, 0},
    {"sniff_resize_busy", sniff_resize_busy, 0},
    {"sniff_memory", sniff_memory, 0},
    {"sniff_new_interface", sniff_new_interface, 0},
    {"sniff_send_again", sniff_send_again, 0},
    {NULL, NULL, 0},
};
