/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* TCP streams, both directions of each at once, compared by SHA-256. */
#include "e2e.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 16384
#define STALL_MS 10000

/* One end of a stream: what it sends is keyed by its key, what it receives must hash as the peer's key. */
struct end {
    int fd;
    pthread_t thread;
    uint64_t key, peer_key;
    size_t bytes;
    uint8_t receive_xor; /* undoes what happened on the way */
    unsigned stream;
    const char *side;
};

/* The stream of a key is the chunks filled with key + chunk number. */
static void
stream_digest(uint64_t key, size_t bytes, uint8_t ret_digest[32])
{
    uint8_t chunk[CHUNK];
    struct e2e_sha256 sha;

    e2e_sha256_init(&sha);
    for (size_t at = 0; at < bytes; at += CHUNK) {
        size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;

        e2e_fill(chunk, n, key + at / CHUNK);
        e2e_sha256_add(&sha, chunk, n);
    }
    e2e_sha256_end(&sha, ret_digest);
}

static size_t
send_more(struct end *e, size_t sent)
{
    uint8_t chunk[CHUNK];
    size_t in = sent % CHUNK, left = e->bytes - sent, room = CHUNK - in < left ? CHUNK - in : left;
    ssize_t n;

    e2e_fill(chunk, in + room, e->key + sent / CHUNK);
    n = send(e->fd, chunk + in, room, MSG_DONTWAIT | MSG_NOSIGNAL);
    CHECK(n >= 0 || errno == EAGAIN, "stream %u, %s: send after %zu bytes: %s", e->stream, e->side, sent,
          strerror(errno));
    if (n > 0 && sent + (size_t)n == e->bytes)
        shutdown(e->fd, SHUT_WR);
    return n > 0 ? (size_t)n : 0;
}

/* Bytes received; *ret_end at the end of the stream. */
static size_t
receive_more(struct end *e, struct e2e_sha256 *sha, size_t got, bool *ret_end)
{
    uint8_t chunk[CHUNK];
    ssize_t n = recv(e->fd, chunk, sizeof(chunk), MSG_DONTWAIT);

    CHECK(n >= 0 || errno == EAGAIN, "stream %u, %s: receive after %zu bytes: %s", e->stream, e->side, got,
          strerror(errno));
    *ret_end = n == 0;
    for (ssize_t i = 0; i < n; i++)
        chunk[i] ^= e->receive_xor;
    if (n > 0)
        e2e_sha256_add(sha, chunk, (size_t)n);
    return n > 0 ? (size_t)n : 0;
}

static void *
end_thread(void *arg)
{
    struct end *e = arg;
    uint8_t want[32], have[32];
    struct e2e_sha256 sha;
    size_t sent = 0, got = 0;
    bool ended = false;

    e2e_sha256_init(&sha);
    while (!ended || sent < e->bytes) {
        struct pollfd p = {.fd = e->fd, .events = (short)((ended ? 0 : POLLIN) | (sent < e->bytes ? POLLOUT : 0))};

        CHECK(poll(&p, 1, STALL_MS) > 0, "stream %u, %s: stalled, %zu sent, %zu received of %zu", e->stream, e->side,
              sent, got, e->bytes);
        if (sent < e->bytes && p.revents & POLLOUT)
            sent += send_more(e, sent);
        if (!ended && p.revents & (POLLIN | POLLHUP | POLLERR))
            got += receive_more(e, &sha, got, &ended);
    }
    CHECK(got == e->bytes, "stream %u, %s: %zu bytes of %zu", e->stream, e->side, got, e->bytes);
    stream_digest(e->peer_key, e->bytes, want);
    e2e_sha256_end(&sha, have);
    CHECK(!memcmp(want, have, 32), "stream %u, %s: SHA-256 differs", e->stream, e->side);
    return NULL;
}

static void
end_start(struct end *e)
{
    CHECK(pthread_create(&e->thread, NULL, end_thread, e) == 0, "pthread_create");
}

int
e2e_tcp_listener(const char *ns, const char *ip, uint16_t port)
{
    struct sockaddr_storage addr;
    socklen_t len = e2e_sockaddr(ip, port, &addr);
    int fd = e2e_socket(ns, addr.ss_family, SOCK_STREAM, 0), one = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    CHECK(bind(fd, (struct sockaddr *)&addr, len) == 0, "bind: %s", strerror(errno));
    CHECK(listen(fd, 128) == 0, "listen: %s", strerror(errno));
    return fd;
}

int
e2e_connecting(const char *ns, const char *ip, uint16_t port)
{
    struct sockaddr_storage to;
    socklen_t len = e2e_sockaddr(ip, port, &to);
    int fd = e2e_socket(ns, to.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);

    CHECK(connect(fd, (struct sockaddr *)&to, len) < 0 && errno == EINPROGRESS, "connect: %s", strerror(errno));
    return fd;
}

void
e2e_expect_error(int fd, short events, unsigned ms, int want)
{
    struct pollfd p = {.fd = fd, .events = events};
    int error = 0;
    socklen_t len = sizeof(error);

    CHECK(poll(&p, 1, (int)ms) == 1, "the socket still waits");
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == want, "error %d (%s), not %d", error,
          strerror(error), want);
    close(fd);
}

void
e2e_tcp_pair(int listener, const char *ns, const char *ip, uint16_t port, int *ret_client, int *ret_server)
{
    struct sockaddr_storage to;
    socklen_t len = e2e_sockaddr(ip, port, &to);

    *ret_client = e2e_socket(ns, to.ss_family, SOCK_STREAM, 0);
    CHECK(connect(*ret_client, (struct sockaddr *)&to, len) == 0, "connect: %s", strerror(errno));
    *ret_server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(*ret_server >= 0, "accept: %s", strerror(errno));
}

static void
connect_stream(const struct e2e_tcp *t, int lfd, struct sockaddr_storage *addr, socklen_t len, struct end ends[2])
{
    struct pollfd p;

    ends[0].fd = e2e_socket(t->client_ns, addr->ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK(connect(ends[0].fd, (struct sockaddr *)addr, len) == 0 || errno == EINPROGRESS, "connect: %s",
          strerror(errno));
    p = (struct pollfd){.fd = lfd, .events = POLLIN};
    CHECK(poll(&p, 1, STALL_MS) == 1, "stream %u: no connection", ends[0].stream);
    ends[1].fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
    CHECK(ends[1].fd >= 0, "accept: %s", strerror(errno));
}

void
e2e_tcp_run(const struct e2e_tcp *t)
{
    e2e_tcp_run_to(t, t->server_ip, t->port);
}

void
e2e_tcp_run_to(const struct e2e_tcp *t, const char *ip, uint16_t port)
{
    struct end(*ends)[2] = calloc(t->streams, sizeof(*ends));
    struct sockaddr_storage addr;
    socklen_t len;
    int lfd;

    CHECK(ends, "no memory");
    lfd = e2e_tcp_listener(t->server_ns, t->server_ip, t->port);
    len = e2e_sockaddr(ip, port, &addr);
    for (unsigned i = 0; i < t->streams; i++) {
        uint64_t key = (uint64_t)(i + 1) << 32;

        ends[i][0] = (struct end){.key = key, .peer_key = ~key, .bytes = t->bytes, .stream = i, .side = "client"};
        ends[i][1] = (struct end){.key = ~key, .peer_key = key, .bytes = t->bytes, .stream = i, .side = "server"};
        ends[i][1].receive_xor = t->client_xor;
        connect_stream(t, lfd, &addr, len, ends[i]);
        end_start(&ends[i][0]);
        end_start(&ends[i][1]);
    }
    for (unsigned i = 0; i < 2 * t->streams; i++) {
        pthread_join(ends[i / 2][i % 2].thread, NULL);
        close(ends[i / 2][i % 2].fd);
    }
    close(lfd);
    free(ends);
}
