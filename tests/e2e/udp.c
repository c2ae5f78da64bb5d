/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* UDP traffic that is counted and compared datagram by datagram. */
#include "e2e.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DATAGRAM_MAX 65536

static uint64_t
mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

void
e2e_fill(uint8_t *buf, size_t len, uint64_t key)
{
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = mix(key = mix(key));

        memcpy(buf + at, &word, len - at < 8 ? len - at : 8);
    }
}

socklen_t
e2e_sockaddr(const char *ip, uint16_t port, struct sockaddr_storage *ret_addr)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret_addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret_addr;

    memset(ret_addr, 0, sizeof(*ret_addr));
    if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return sizeof(*v4);
    }
    CHECK(inet_pton(AF_INET6, ip, &v6->sin6_addr) == 1, "not an address: %s", ip);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    return sizeof(*v6);
}

static void
set_buffer(int fd, int force_option)
{
    int bytes = 32 << 20;

    CHECK(setsockopt(fd, SOL_SOCKET, force_option, &bytes, sizeof(bytes)) == 0, "socket buffer: %s", strerror(errno));
}

int
e2e_udp_receiver(const char *ns, const char *ip, uint16_t port)
{
    struct sockaddr_storage addr;
    socklen_t len = e2e_sockaddr(ip, port, &addr);
    int fd = e2e_socket(ns, addr.ss_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);

    set_buffer(fd, SO_RCVBUFFORCE);
    CHECK(bind(fd, (struct sockaddr *)&addr, len) == 0, "bind %s port %u: %s", ip, port, strerror(errno));
    return fd;
}

int
e2e_udp_sender(const char *ns, const char *ip, uint16_t port, uint16_t source_port)
{
    struct sockaddr_storage addr, any = {0};
    socklen_t len = e2e_sockaddr(ip, port, &addr);
    int fd = e2e_socket(ns, addr.ss_family, SOCK_DGRAM, 0);

    set_buffer(fd, SO_SNDBUFFORCE);
    if (source_port) {
        e2e_sockaddr(addr.ss_family == AF_INET ? "0.0.0.0" : "::", source_port, &any);
        CHECK(bind(fd, (struct sockaddr *)&any, len) == 0, "bind port %u: %s", source_port, strerror(errno));
    }
    CHECK(connect(fd, (struct sockaddr *)&addr, len) == 0, "connect %s: %s", ip, strerror(errno));
    return fd;
}

void
e2e_datagram(uint8_t *buf, size_t len, uint32_t i)
{
    e2e_fill(buf, len, i);
    memcpy(buf, &i, len < 4 ? len : 4);
}

bool
e2e_send(int fd, size_t len, uint32_t i)
{
    static _Thread_local uint8_t buf[DATAGRAM_MAX];

    e2e_datagram(buf, len, i);
    return send(fd, buf, len, 0) == (ssize_t)len;
}

ssize_t
e2e_receive(int fd, uint8_t *buf, size_t room, unsigned ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    if (poll(&p, 1, (int)ms) <= 0)
        return -1;
    return recv(fd, buf, room, MSG_DONTWAIT);
}

unsigned
e2e_drain(int fd)
{
    static uint8_t buf[DATAGRAM_MAX];
    unsigned n = 0;

    while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) >= 0)
        n++;
    return n;
}

void
e2e_marker(int tx, int rx)
{
    static const char text[] = "the end of the test";
    uint8_t buf[DATAGRAM_MAX];
    ssize_t n;

    CHECK(send(tx, text, sizeof(text), 0) == sizeof(text), "marker: %s", strerror(errno));
    n = e2e_receive(rx, buf, sizeof(buf), 3000);
    CHECK(n >= 0, "nothing arrives after the handle is gone");
    CHECK(n == sizeof(text) && !memcmp(buf, text, sizeof(text)), "one datagram too many arrived (%zd bytes)", n);
    CHECK(e2e_drain(rx) == 0, "datagrams too many arrived");
}

size_t
e2e_size_mixed(uint32_t i)
{
    static const uint16_t edge[] = {0, 65507, 1, 1472, 1473, 65506, 2, 3, 1452, 1453, 7, 8, 65499, 32768, 1400, 9000};

    if (i < sizeof(edge) / sizeof(*edge))
        return edge[i];
    if (i % 100 == 0)
        return mix(i) % 65508;
    return mix(i) % 1500;
}

size_t
e2e_size_unfragmented(uint32_t i)
{
    return i == 0 ? 1400 : mix(i) % 1401;
}

size_t
e2e_size_64(uint32_t i)
{
    (void)i;
    return 64;
}

static size_t
size_same(size_t size)
{
    return size;
}

/* Book-keeping of one run: a datagram too short for its number is counted by its size. */
struct pump_state {
    struct e2e_pump *p;
    uint8_t *seen;
    uint32_t sent, got;
    uint32_t short_sent[4];
    uint64_t bytes_out; /* under way */
};

static void
arrived(struct pump_state *s, const uint8_t *buf, size_t len)
{
    static _Thread_local uint8_t expect[DATAGRAM_MAX];
    uint32_t i = s->got;
    size_t want;

    if (len >= 4)
        memcpy(&i, buf, 4), i -= s->p->first;
    else if (!s->p->ordered) {
        CHECK(s->short_sent[len] > 0, "a datagram of %zu bytes too many", len);
        s->short_sent[len]--;
        s->got++;
        return;
    }
    CHECK(i < s->sent, "datagram %u arrived, %u sent (%zu bytes, %u received so far)", i, s->sent, len, s->got);
    CHECK(!s->seen[i], "datagram %u arrived twice", i);
    CHECK(!s->p->ordered || i == s->got, "datagram %u arrived in the place of %u", i, s->got);
    want = s->p->size_after(s->p->size(i));
    CHECK(len == want, "datagram %u arrived with %zu bytes, expected %zu", i, len, want);
    e2e_datagram(expect, len, s->p->first + i);
    CHECK(!memcmp(buf, expect, len), "datagram %u arrived with other content (%zu bytes)", i, len);
    s->seen[i] = 1;
    if (len >= 4)
        s->bytes_out -= s->p->size(i);
    s->got++;
}

static bool
receive_some(struct pump_state *s)
{
    static _Thread_local uint8_t buf[DATAGRAM_MAX];
    bool any = false;
    ssize_t n;

    while (s->got < s->sent && (n = recv(s->p->rx, buf, sizeof(buf), MSG_DONTWAIT)) >= 0) {
        arrived(s, buf, (size_t)n);
        any = true;
    }
    return any;
}

static void
send_one(struct pump_state *s)
{
    uint32_t i = s->sent;
    size_t size = s->p->size(i), after = s->p->size_after(size);
    int64_t start = e2e_now_us(), took;

    CHECK(e2e_send(s->p->tx, size, s->p->first + i), "send of datagram %u (%zu bytes): %s", i, size, strerror(errno));
    took = e2e_now_us() - start;
    if (took > s->p->max_send_us)
        s->p->max_send_us = took;
    if (after < 4)
        s->short_sent[after]++;
    else
        s->bytes_out += size;
    s->sent++;
}

/* A veth's queue belongs to a CPU: a sender that moves to another one may overtake itself. */
void
e2e_stay_on_cpu(void)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_setaffinity(0, sizeof(one), &one);
}

void
e2e_udp_pump(struct e2e_pump *p)
{
    struct pump_state s = {.p = p, .seen = calloc(p->count, 1)};
    uint32_t window = p->window ? p->window : 64;
    unsigned stall_ms = p->stall_ms ? p->stall_ms : 5000;
    int64_t last = e2e_now_us();

    CHECK(s.seen, "no memory");
    if (p->ordered)
        e2e_stay_on_cpu();
    p->size = p->size ? p->size : e2e_size_64;
    p->size_after = p->size_after ? p->size_after : size_same;
    while (s.got < p->count) {
        struct pollfd wait = {.fd = p->rx, .events = POLLIN};
        int64_t now;

        /* No more under way than the veth's backlog takes: what is lost then is the library's. */
        if (s.sent < p->count && s.sent - s.got < window && s.bytes_out < 256 * 1024)
            send_one(&s);
        else
            poll(&wait, 1, 10);
        if (receive_some(&s)) {
            now = e2e_now_us();
            p->max_gap_us = now - last > p->max_gap_us ? now - last : p->max_gap_us;
            last = now;
        }
        CHECK(e2e_now_us() - last < stall_ms * 1000LL, "stalled: %u of %u datagrams sent, %u received", s.sent,
              p->count, s.got);
    }
    free(s.seen);
}

void
e2e_udp_exchange(const char *from, const char *to, const char *ip, uint16_t port, uint32_t n)
{
    struct e2e_pump pump = {.count = n};

    pump.rx = e2e_udp_receiver(to, ip, port);
    pump.tx = e2e_udp_sender(from, ip, port, 0);
    e2e_udp_pump(&pump);
    close(pump.rx);
    close(pump.tx);
}
