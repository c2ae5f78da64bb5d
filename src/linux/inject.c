/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "inject.h"

#include <errno.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf/gen.h"
#include "linux/fragment.h"
#include "linux/segment.h"
#include "linux/inbound.h"
#include "linux/tier.h"

#ifndef IP_NODEFRAG
#define IP_NODEFRAG 22
#endif

#define LOOPBACK_IFINDEX 1    /* in every network namespace */
#define FRAGMENT_WAIT_MS 20   /* for room for the next fragment; after that the packet is tried again as a whole */
#define FRAME_MAX 65536       /* the MTU of lo, through which inbound packets go; IPv6 packets can be longer */
#define SEND_BUFFER (4 << 20) /* injecting does not wait for the device as long as the burst is shorter */

/*
 * Whether fragments pass conntrack as they are (and are "invalid" to rules of
 * the user's): so those that the program made.  Those that are made here are one
 * packet to rules and NAT, which leaves in fragments again.
 */
static void
keep_fragments(int fd, int keep)
{
    setsockopt(fd, SOL_IP, IP_NODEFRAG, &keep, sizeof(keep));
}

static int
open_family(int family, uint32_t tag)
{
    int on = 1, size = SEND_BUFFER, none = 0;
    int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &tag, sizeof(tag)) < 0) {
        int error = -errno;

        close(fd);
        return error;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &none, sizeof(none));
    /* Any source may be named for routing. */
    setsockopt(fd, family == AF_INET ? SOL_IP : SOL_IPV6, family == AF_INET ? IP_FREEBIND : IPV6_FREEBIND, &on,
               sizeof(on));
    if (family == AF_INET) {
        setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
        keep_fragments(fd, true);
    }
    return fd;
}

int
wd_inject_open(struct wd_inject *inject, int16_t priority, struct wd_ruleset *rules, struct wd_error *err)
{
    uint32_t tag = WD_TAG_SO_PRIORITY | WD_TAG_LEVEL(priority) << 4;

    int error;

    inject->fd4 = open_family(AF_INET, tag);
    inject->fd6 = open_family(AF_INET6, tag);
    inject->rules = rules;
    inject->priority = priority;
    inject->mark = 0;
    inject->fd_in = inject->fd_run = inject->fd_ct = -1;
    inject->questions = NULL;
    /* One family may be missing from the system; any other failure would cost the handle its packets. */
    error = inject->fd4 < 0 && (inject->fd4 != -EAFNOSUPPORT || inject->fd6 < 0) ? inject->fd4
            : inject->fd6 < 0 && inject->fd6 != -EAFNOSUPPORT                    ? inject->fd6
                                                                                 : 0;
    if (!error)
        return 0;
    wd_inject_close(inject);
    return wd_error_set(
        err, error, error == -EPERM || error == -EACCES ? "run as root or with CAP_NET_RAW and CAP_NET_ADMIN" : NULL,
        "open a raw socket: %s", strerror(-error));
}

void
wd_inject_close(struct wd_inject *inject)
{
    if (inject->fd4 >= 0)
        close(inject->fd4);
    if (inject->fd6 >= 0)
        close(inject->fd6);
    if (inject->fd_in >= 0)
        close(inject->fd_in);
    if (inject->fd_run >= 0)
        close(inject->fd_run);
    if (inject->fd_ct >= 0)
        close(inject->fd_ct);
    free(inject->questions);
    inject->questions = NULL;
    inject->fd4 = inject->fd6 = inject->fd_in = inject->fd_run = inject->fd_ct = -1;
}

void
wd_inject_set_mark(struct wd_inject *inject, uint32_t mark)
{
    if (mark == inject->mark)
        return;
    if (inject->fd4 >= 0)
        setsockopt(inject->fd4, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
    if (inject->fd6 >= 0)
        setsockopt(inject->fd6, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
    inject->mark = mark;
}

/* Where a packet goes, and where it says it comes from. */
struct ends {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } from, to;
    socklen_t len;
    uint32_t ifindex; /* by which interface; 0: the routing table's */
};

static void
ends4(const struct wd_packet *packet, uint32_t ifindex, struct ends *ret_ends)
{
    struct ends ends = {.from.v4.sin_family = AF_INET, .to.v4.sin_family = AF_INET, .len = sizeof(ends.to.v4)};
    uint32_t to;

    memcpy(&ends.from.v4.sin_addr, packet->data + 12, 4);
    memcpy(&ends.to.v4.sin_addr, packet->data + 16, 4);
    to = ntohl(ends.to.v4.sin_addr.s_addr);
    if (IN_MULTICAST(to) || to == INADDR_BROADCAST)
        ends.ifindex = ifindex;
    *ret_ends = ends;
}

static void
ends6(const struct wd_packet *packet, uint32_t ifindex, struct ends *ret_ends)
{
    struct ends ends = {.from.v6.sin6_family = AF_INET6, .to.v6.sin6_family = AF_INET6, .len = sizeof(ends.to.v6)};
    const struct in6_addr *to = &ends.to.v6.sin6_addr;

    memcpy(&ends.from.v6.sin6_addr, packet->data + 8, 16);
    memcpy(&ends.to.v6.sin6_addr, packet->data + 24, 16);
    if (IN6_IS_ADDR_LINKLOCAL(to) || IN6_IS_ADDR_MULTICAST(to))
        ends.ifindex = ifindex;
    if (IN6_IS_ADDR_LINKLOCAL(to) || IN6_IS_ADDR_MC_LINKLOCAL(to))
        ends.to.v6.sin6_scope_id = ifindex;
    *ret_ends = ends;
}

static void
find_ends(const struct wd_packet *packet, uint32_t ifindex, struct ends *ret_ends)
{
    if (packet->version == 4)
        ends4(packet, ifindex, ret_ends);
    else
        ends6(packet, ifindex, ret_ends);
}

static int
socket_of(const struct wd_inject *inject, const struct wd_packet *packet)
{
    return packet->version == 4 ? inject->fd4 : inject->fd6;
}

/* One message.  with_source: routed as what its source address sends. */
static ssize_t
send_message(int fd, const struct wd_packet *packet, struct ends *ends, bool with_source)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] = {0};
    struct iovec iov = {(void *)(uintptr_t)packet->data, packet->ip_len};
    struct msghdr msg = {.msg_name = &ends->to, .msg_namelen = ends->len, .msg_iov = &iov, .msg_iovlen = 1};
    struct in6_pktinfo info6 = {.ipi6_ifindex = ends->ifindex};
    struct in_pktinfo info4 = {.ipi_ifindex = (int)ends->ifindex};
    bool v4 = packet->version == 4;
    size_t info_len = v4 ? sizeof(info4) : sizeof(info6);
    struct cmsghdr *cmsg;

    if (with_source) {
        info4.ipi_spec_dst = ends->from.v4.sin_addr;
        info6.ipi6_addr = ends->from.v6.sin6_addr;
    }
    msg.msg_control = control;
    msg.msg_controllen = CMSG_SPACE(info_len);
    cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = v4 ? SOL_IP : SOL_IPV6;
    cmsg->cmsg_type = v4 ? IP_PKTINFO : IPV6_PKTINFO;
    cmsg->cmsg_len = CMSG_LEN(info_len);
    memcpy(CMSG_DATA(cmsg), v4 ? (const void *)&info4 : (const void *)&info6, info_len);
    return sendmsg(fd, &msg, MSG_DONTWAIT);
}

/* A source for which nothing can be routed (multicast, 127.0.0.1 to elsewhere) counts for nothing. */
static ssize_t
send_by(int fd, const struct wd_packet *packet, struct ends *ends)
{
    ssize_t sent = send_message(fd, packet, ends, true);

    return sent < 0 && errno == EINVAL ? send_message(fd, packet, ends, false) : sent;
}

static int
send_whole(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    struct ends ends;
    ssize_t sent;

    find_ends(packet, ifindex, &ends);
    if (packet->version == 6 && IN6_IS_ADDR_LINKLOCAL(&ends.to.v6.sin6_addr) && !ifindex)
        return -ENODEV;
    do
        sent = send_by(socket_of(inject, packet), packet, &ends);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno == EPERM)
        return 0; /* dropped behind us, by a handle of a lower priority or a rule of the user's: it was sent */
    return sent < 0 ? -errno : 0;
}

/*
 * The kernel tells a route's MTU of a connected socket only; the caller's lock
 * keeps others from the socket.  A source that it cannot be bound to counts for
 * nothing, as above.
 */
static int
path_mtu(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex, int *ret_mtu)
{
    bool v4 = packet->version == 4;
    struct ends ends, nowhere = {.to.any.sa_family = v4 ? AF_INET : AF_INET6};
    int fd = socket_of(inject, packet), error;
    socklen_t len = sizeof(*ret_mtu);

    find_ends(packet, ifindex, &ends);
    bind(fd, &ends.from.any, ends.len);
    error = connect(fd, &ends.to.any, ends.len);
    if (!error)
        error =
            v4 ? getsockopt(fd, SOL_IP, IP_MTU, ret_mtu, &len) : getsockopt(fd, SOL_IPV6, IPV6_MTU, ret_mtu, &len);
    error = error < 0 ? -errno : 0;
    connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr));
    bind(fd, &nowhere.to.any, ends.len);
    return error;
}

struct outbound {
    const struct wd_inject *inject;
    uint32_t ifindex;
};

static int
send_fragment(void *ctx, const struct wd_packet *fragment)
{
    const struct outbound *outbound = ctx;
    int error = send_whole(outbound->inject, fragment, outbound->ifindex);

    if (error != -EAGAIN)
        return error;
    wd_inject_wait(outbound->inject, fragment, true, FRAGMENT_WAIT_MS);
    return send_whole(outbound->inject, fragment, outbound->ifindex);
}

static int
cut(const struct wd_packet *packet, uint32_t mtu, wd_fragment_fn fn, void *ctx)
{
    uint32_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return -EIO;
    return wd_fragment(packet, mtu, id | 1, fn, ctx);
}

/* What is larger than the MTU: TCP in segments (it was an aggregate), everything else in fragments. */
static int
send_pieces(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    struct outbound outbound = {.inject = inject, .ifindex = ifindex};
    int mtu, error = path_mtu(inject, packet, ifindex, &mtu);

    if (!error)
        error = wd_segment(packet, (uint32_t)mtu, send_fragment, &outbound);
    if (error != -EMSGSIZE)
        return error;
    if (!packet->fragment)
        keep_fragments(inject->fd4, false);
    error = cut(packet, (uint32_t)mtu, send_fragment, &outbound);
    keep_fragments(inject->fd4, true);
    return error;
}

int
wd_inject_outbound(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    int error;

    if (socket_of(inject, packet) < 0)
        return -EAFNOSUPPORT;
    error = send_whole(inject, packet, ifindex);
    return error == -EMSGSIZE ? send_pieces(inject, packet, ifindex) : error;
}

static int
open_inbound(void *arg)
{
    struct wd_inject *inject = arg;
    int error = wd_tier_has(WD_FEATURE_TCX) ? wd_ruleset_enable_inbound(inject->rules) : -EOPNOTSUPP;

    inject->no_tcx = error && error != -ENOMEM && error != -EMFILE && error != -ENFILE;
    return error ? error : wd_inbound_socket(inject->priority, &inject->fd_in, NULL);
}

struct inbound {
    const struct wd_inject *inject;
    const struct wd_packet *packet; /* to run */
    uint32_t ifindex;
    bool pieces;
};

static int
send_piece(void *ctx, const struct wd_packet *piece)
{
    const struct inbound *in = ctx;

    return wd_inbound_send(in->inject->fd_in, piece, in->ifindex);
}

static int
run(void *arg)
{
    const struct inbound *in = arg;

    int any_fd = in->inject->fd4 >= 0 ? in->inject->fd4 : in->inject->fd6;

    return wd_inbound_run(in->inject->fd_run, any_fd, in->inject->priority, in->packet, in->pieces, in->ifindex);
}

static int
run_piece(void *ctx, const struct wd_packet *piece)
{
    struct inbound *in = ctx;

    in->packet = piece;
    return wd_ruleset_inside(in->inject->rules, run, in);
}

/* Without tcx, or while the loopback device is down. */
static int
inject_by_run(struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    struct inbound in = {.inject = inject, .ifindex = ifindex};
    int error;

    error = inject->fd_run < 0 ? wd_inbound_load(&inject->fd_run, NULL) : 0;
    if (error)
        return error == -ENOMEM ? error : -EOPNOTSUPP;
    if (packet->ip_len <= WD_INBOUND_RUN_MAX)
        return run_piece(&in, packet);
    in.pieces = true;
    error = wd_segment(packet, WD_INBOUND_RUN_MAX, run_piece, &in);
    return error == -EMSGSIZE ? cut(packet, WD_INBOUND_RUN_MAX, run_piece, &in) : error;
}

int
wd_inject_inbound(struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    struct inbound in = {.inject = inject, .ifindex = ifindex};
    int error;

    if (ifindex == LOOPBACK_IFINDEX)
        return wd_inject_outbound(inject, packet, ifindex);
    if (inject->fd_in < 0 && (inject->no_tcx || wd_ruleset_inside(inject->rules, open_inbound, inject) < 0))
        return inject_by_run(inject, packet, ifindex);
    error = packet->ip_len > FRAME_MAX ? cut(packet, FRAME_MAX, send_piece, &in) : send_piece(&in, packet);
    return error == -ENOLINK ? inject_by_run(inject, packet, ifindex) : error;
}

void
wd_inject_note(struct wd_inject *inject, const struct wd_packet *received, bool tracked)
{
    if (inject->fd4 >= 0 || inject->fd6 >= 0)
        wd_questions_note(&inject->questions, received, tracked);
}

static int
open_conntrack(void *arg)
{
    return wd_conntrack_open(arg);
}

void
wd_inject_expect(struct wd_inject *inject, const struct wd_packet *answer, int64_t now)
{
    struct wd_question question;

    if (!wd_questions_answered(inject->questions, answer, now, &question))
        return;
    if (inject->fd_ct < 0)
        wd_ruleset_inside(inject->rules, open_conntrack, &inject->fd_ct);
    if (inject->fd_ct >= 0)
        wd_conntrack_tell(inject->fd_ct, &question);
}

void
wd_inject_wait(const struct wd_inject *inject, const struct wd_packet *packet, bool outbound, int timeout_ms)
{
    struct pollfd room = {.fd = socket_of(inject, packet), .events = POLLOUT};

    if (!outbound && inject->fd_in >= 0)
        room.fd = inject->fd_in;
    poll(&room, 1, timeout_ms);
}
