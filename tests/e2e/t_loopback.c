/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Packets of this machine to itself: seen once, outbound, flagged; never inbound. */
#include "e2e.h"

#include <errno.h>
#include <sys/socket.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define COUNT 1000
#define PORT 5001

struct lo_arg {
    uint32_t ifindex;
};

static bool
check_flags(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct lo_arg *arg = p->arg;

    (void)packet;
    (void)len;
    CHECK(addr->Outbound && addr->Loopback, "outbound %u, loopback %u", addr->Outbound, addr->Loopback);
    CHECK(addr->Network.IfIdx == arg->ifindex, "interface %u, expected %u", addr->Network.IfIdx, arg->ifindex);
    return true;
}

static bool
must_not_come(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    (void)p;
    (void)packet;
    FAIL("received %u bytes, outbound %u, loopback %u", *len, addr->Outbound, addr->Loopback);
}

/* Every datagram once through a handle for everything and never through one for inbound or other packets. */
static void
once(const char *ip, size_t (*size)(uint32_t), unsigned batch)
{
    struct e2e_pump pump = {.count = COUNT, .size = size};
    struct lo_arg arg = {e2e_ifindex("a", "lo")};
    struct e2e_passer p = {.batch = batch, .edit = check_flags, .arg = &arg};
    struct e2e_passer in = {.batch = 1, .edit = must_not_come}, not_lo = {.batch = 1, .edit = must_not_come};

    pump.rx = e2e_udp_receiver("a", ip, PORT);
    pump.tx = e2e_udp_sender("a", ip, PORT, 0);
    p.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    in.handle = e2e_open("inbound and udp.DstPort == 5001", 1, 0);
    not_lo.handle = e2e_open("not loopback and udp.DstPort == 5001", -1, 0);
    e2e_pass_start(&p);
    e2e_pass_start(&in);
    e2e_pass_start(&not_lo);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&not_lo);
    e2e_pass_stop(&in);
    e2e_pass_stop(&p);
    e2e_marker(pump.tx, pump.rx);
    CHECK(p.received == COUNT, "%llu packets, expected %u", (unsigned long long)p.received, COUNT);
}

static void
loopback_127(void)
{
    once("127.0.0.1", e2e_size_unfragmented, 1);
}

static void
loopback_v6(void)
{
    once("::1", e2e_size_unfragmented, 64);
}

static void
loopback_own_address4(void)
{
    once(E2E_A4, e2e_size_unfragmented, 64);
}

static void
loopback_own_address6(void)
{
    once(E2E_A6, e2e_size_unfragmented, 1);
}

/* Up to 65,535 bytes in one packet: more than a queue's message holds. */
static void
loopback_all_sizes4(void)
{
    once("127.0.0.1", e2e_size_mixed, 1);
}

static void
loopback_all_sizes4_batch(void)
{
    once("127.0.0.1", e2e_size_mixed, 64);
}

static void
loopback_all_sizes6(void)
{
    once("::1", e2e_size_mixed, 1);
}

static void
loopback_tcp(void)
{
    struct e2e_tcp tcp = {"a", "a", "127.0.0.1", PORT, 32, 256 << 10, 0};
    struct lo_arg arg = {e2e_ifindex("a", "lo")};
    struct e2e_passer p = {.batch = 16, .edit = check_flags, .arg = &arg};

    p.handle = e2e_open("tcp", 0, 0);
    e2e_pass_start(&p);
    e2e_tcp_run(&tcp);
    e2e_pass_stop(&p);
    CHECK(p.received > 64 * 3, "only %llu packets were diverted", (unsigned long long)p.received);
}

/* A new packet to this machine itself goes out over lo and arrives once. */
static void
inject(const char *ip)
{
    struct e2e_passer in = {.batch = 1, .edit = must_not_come};
    bool v6 = strchr(ip, ':');
    uint8_t packet[256], payload[32];
    int rx = e2e_udp_receiver("a", ip, PORT), tx = e2e_udp_sender("a", ip, PORT, 0);
    WINDIVERT_ADDRESS addr = e2e_new_outbound(v6);
    UINT len;

    e2e_datagram(payload, sizeof(payload), 9);
    len = e2e_make_udp(packet, ip, 4000, ip, PORT, payload, sizeof(payload));
    in.handle = e2e_open("udp.DstPort == 5001", 0, 0);
    e2e_pass_start(&in);
    e2e_send_packet(in.handle, packet, len, &addr);
    CHECK(e2e_receive(rx, packet, sizeof(packet), 2000) == sizeof(payload), "the injected datagram did not arrive");
    CHECK(!memcmp(packet, payload, sizeof(payload)), "other content");
    e2e_pass_stop(&in);
    e2e_marker(tx, rx);
}

static void
loopback_inject4(void)
{
    inject("127.0.0.1");
}

static void
loopback_inject6(void)
{
    inject("::1");
}

static void
loopback_inject_own_address(void)
{
    inject(E2E_A4);
}

/*
 * On lo TCP makes aggregates of more than 65,535 bytes, whose length field is
 * 0.  They are packets of the connection as all others: each byte is changed.
 */
static bool
invert_payload(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    (void)p;
    CHECK(e2e_view(packet, *len, &v) && v.end == *len && addr->Loopback, "not a whole loopback packet");
    for (unsigned i = v.payload; i < *len; i++)
        packet[i] ^= 0xFF;
    addr->TCPChecksum = 0;
    return true;
}

static void
big_changed(const char *filter, const char *ip)
{
    const struct e2e_tcp t = {.client_ns = "a",
                              .server_ns = "a",
                              .server_ip = ip,
                              .port = 5001,
                              .streams = 1,
                              .bytes = 16 << 20,
                              .client_xor = 0xFF};
    struct e2e_passer p = {.batch = 64, .edit = invert_payload};

    p.handle = e2e_open(filter, 0, 0);
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    e2e_pass_start(&p);
    e2e_tcp_run(&t);
    e2e_pass_stop(&p);
}

static void
loopback_big_changed4(void)
{
    big_changed("tcp.DstPort == 5001", "127.0.0.1");
}

static void
loopback_big_changed6(void)
{
    big_changed("tcp.DstPort == 5001", "::1");
}

/* Which of the segments match is known only when there are segments. */
static void
loopback_big_by_length(void)
{
    big_changed("tcp.DstPort == 5001 and tcp.PayloadLength > 0", "127.0.0.1");
}

struct stream {
    int fd;
    _Atomic bool stop;
    _Atomic uint64_t bytes;
};

static void *
send_on(void *arg)
{
    static const uint8_t zero[65536];
    struct stream *s = arg;

    while (!s->stop) {
        ssize_t n = send(s->fd, zero, sizeof(zero), MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n <= 0)
            e2e_nap_us(500);
    }
    return NULL;
}

static void *
receive_on(void *arg)
{
    static uint8_t buf[65536];
    struct stream *s = arg;
    ssize_t n;

    while ((n = recv(s->fd, buf, sizeof(buf), 0)) > 0)
        s->bytes += (uint64_t)n;
    return NULL;
}

/* A handle that drops takes all of a running connection away. */
static void
loopback_big_dropped(void)
{
    struct sockaddr_storage addr;
    socklen_t len = e2e_sockaddr("127.0.0.1", 5001, &addr);
    int lfd = e2e_socket("a", AF_INET, SOCK_STREAM, 0), one = 1;
    struct stream out = {.fd = e2e_socket("a", AF_INET, SOCK_STREAM, 0)}, in = {0};
    pthread_t sender, receiver;
    uint64_t before;
    HANDLE h;

    setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    CHECK(bind(lfd, (struct sockaddr *)&addr, len) == 0 && listen(lfd, 1) == 0, "listen: error %d", errno);
    CHECK(connect(out.fd, (struct sockaddr *)&addr, len) == 0, "connect: error %d", errno);
    in.fd = accept(lfd, NULL, NULL);
    CHECK(in.fd >= 0, "accept: error %d", errno);
    CHECK(pthread_create(&sender, NULL, send_on, &out) == 0 && pthread_create(&receiver, NULL, receive_on, &in) == 0,
          "pthread_create");
    WAIT_UNTIL(in.bytes > 50 << 20, 5000, "no transfer");
    h = e2e_open("tcp.DstPort == 5001", 0, WINDIVERT_FLAG_DROP);
    e2e_nap_us(100000);
    before = in.bytes;
    e2e_nap_us(300000);
    CHECK(in.bytes == before, "%llu bytes came through", (unsigned long long)(in.bytes - before));
    CHECK_API(WinDivertClose(h));
    WAIT_UNTIL(in.bytes > before + (1 << 20), 10000, "it does not go on");
    out.stop = true;
    pthread_join(sender, NULL);
    shutdown(out.fd, SHUT_RDWR);
    pthread_join(receiver, NULL);
}

/* Sniffed, they come as packets of the greatest length. */
static bool
look_at_big(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct e2e_view v;

    (void)addr;
    CHECK(e2e_view(packet, *len, &v) && v.end == *len, "%u bytes, and the packet ends at %u", *len, v.end);
    if (v.sport == 5001 || v.dport == 5001)
        *(_Atomic uint64_t *)p->arg += *len - v.payload;
    return false;
}

static void
loopback_big_sniffed(void)
{
    const struct e2e_tcp t = {
        .client_ns = "a", .server_ns = "a", .server_ip = "127.0.0.1", .port = 5001, .streams = 1, .bytes = 16 << 20};
    _Atomic uint64_t bytes = 0;
    struct e2e_passer p = {.batch = 64, .edit = look_at_big, .arg = &bytes};
    WINDIVERT_EXT_STATS s;

    p.handle = e2e_open("tcp", 0, WINDIVERT_FLAG_SNIFF);
    CHECK_API(WinDivertSetParam(p.handle, WINDIVERT_PARAM_QUEUE_SIZE, WINDIVERT_PARAM_QUEUE_SIZE_MAX));
    e2e_pass_start(&p);
    e2e_tcp_run(&t);
    s = e2e_stats(p.handle);
    e2e_pass_stop(&p);
    CHECK(s.Unmatched == 0, "%llu are no packets", (unsigned long long)s.Unmatched);
    CHECK(bytes > 16 << 20, "%llu bytes sniffed", (unsigned long long)bytes);
}

const struct e2e_test e2e_loopback_tests[] = {
    {"loopback_127", loopback_127, 0},
    {"loopback_v6", loopback_v6, 0},
    {"loopback_own_address4", loopback_own_address4, 0},
    {"loopback_own_address6", loopback_own_address6, 0},
    {"loopback_all_sizes4", loopback_all_sizes4, 0},
    {"loopback_all_sizes4_batch", loopback_all_sizes4_batch, 0},
    {"loopback_all_sizes6", loopback_all_sizes6, 0},
    {"loopback_tcp", loopback_tcp, 60},
    {"loopback_inject4", loopback_inject4, 0},
    {"loopback_inject6", loopback_inject6, 0},
    {"loopback_inject_own_address", loopback_inject_own_address, 0},
    {"loopback_big_changed4", loopback_big_changed4, 0},
    {"loopback_big_changed6", loopback_big_changed6, 0},
    {"loopback_big_by_length", loopback_big_by_length, 0},
    {"loopback_big_dropped", loopback_big_dropped, 0},
    {"loopback_big_sniffed", loopback_big_sniffed, 0},
    {NULL, NULL, 0},
};
