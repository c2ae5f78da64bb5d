/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "inject.h"

#include <errno.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf/gen.h"
#include "linux/fragment.h"
#include "linux/segment.h"
#include "linux/inbound.h"

#ifndef IP_NODEFRAG
#define IP_NODEFRAG 22
#endif

#define LOOPBACK_IFINDEX 1    /* in every network namespace */
#define FRAGMENT_WAIT_MS 20   /* for room for the next fragment; after that the packet is tried again as a whole */
#define SEND_BUFFER (4 << 20) /* injecting does not wait for the device as long as the burst is shorter */

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
    if (family == AF_INET) {
        setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
        setsockopt(fd, SOL_IP, IP_NODEFRAG, &on, sizeof(on)); /* our fragments stay fragments before conntrack */
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
    inject->fd_in = -1;
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
    inject->fd4 = inject->fd6 = inject->fd_in = -1;
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

/* One message, to `to`; ifindex: by which interface, 0: the routing table's. */
static ssize_t
send_by(int fd, const struct wd_packet *packet, void *to, socklen_t to_len, uint32_t ifindex)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] = {0};
    struct iovec iov = {(void *)(uintptr_t)packet->data, packet->ip_len};
    struct msghdr msg = {.msg_name = to, .msg_namelen = to_len, .msg_iov = &iov, .msg_iovlen = 1};
    struct in6_pktinfo info6 = {.ipi6_ifindex = ifindex};
    struct in_pktinfo info4 = {.ipi_ifindex = (int)ifindex};
    bool v4 = packet->version == 4;
    size_t info_len = v4 ? sizeof(info4) : sizeof(info6);
    struct cmsghdr *cmsg;

    if (ifindex) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(info_len);
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = v4 ? SOL_IP : SOL_IPV6;
        cmsg->cmsg_type = v4 ? IP_PKTINFO : IPV6_PKTINFO;
        cmsg->cmsg_len = CMSG_LEN(info_len);
        memcpy(CMSG_DATA(cmsg), v4 ? (const void *)&info4 : (const void *)&info6, info_len);
    }
    return sendmsg(fd, &msg, MSG_DONTWAIT);
}

static ssize_t
send4(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    uint32_t address;

    memcpy(&to.sin_addr, packet->data + 16, 4);
    address = ntohl(to.sin_addr.s_addr);
    if (!IN_MULTICAST(address) && address != INADDR_BROADCAST)
        ifindex = 0;
    return send_by(inject->fd4, packet, &to, sizeof(to), ifindex);
}

static ssize_t
send6(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6};

    memcpy(&to.sin6_addr, packet->data + 24, 16);
    if (IN6_IS_ADDR_LINKLOCAL(&to.sin6_addr) || IN6_IS_ADDR_MC_LINKLOCAL(&to.sin6_addr))
        to.sin6_scope_id = ifindex;
    else if (!IN6_IS_ADDR_MULTICAST(&to.sin6_addr))
        ifindex = 0;
    return send_by(inject->fd6, packet, &to, sizeof(to), ifindex);
}

static int
send_whole(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    ssize_t sent;

    do
        sent = packet->version == 4 ? send4(inject, packet, ifindex) : send6(inject, packet, ifindex);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno == EPERM)
        return 0; /* dropped behind us, by a handle of a lower priority or a rule of the user's: it was sent */
    return sent < 0 ? -errno : 0;
}

/* The kernel tells a route's MTU of a connected socket only; the caller's lock keeps others from the socket. */
static int
path_mtu(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex, int *ret_mtu)
{
    struct sockaddr_in to4 = {.sin_family = AF_INET};
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_scope_id = ifindex};
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    bool v4 = packet->version == 4;
    int fd = v4 ? inject->fd4 : inject->fd6;
    socklen_t len = sizeof(*ret_mtu);
    int error;

    memcpy(&to4.sin_addr, packet->data + 16, 4);
    memcpy(&to6.sin6_addr, packet->data + 24, v4 ? 0 : 16);
    error =
        v4 ? connect(fd, (struct sockaddr *)&to4, sizeof(to4)) : connect(fd, (struct sockaddr *)&to6, sizeof(to6));
    if (!error)
        error =
            v4 ? getsockopt(fd, SOL_IP, IP_MTU, ret_mtu, &len) : getsockopt(fd, SOL_IPV6, IPV6_MTU, ret_mtu, &len);
    error = error < 0 ? -errno : 0;
    connect(fd, &nowhere, sizeof(nowhere));
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

/* What is larger than the MTU: TCP in segments (it was an aggregate), everything else in fragments. */
static int
send_pieces(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    struct outbound outbound = {.inject = inject, .ifindex = ifindex};
    uint32_t id;
    int mtu, error = path_mtu(inject, packet, ifindex, &mtu);

    if (!error)
        error = wd_segment(packet, (uint32_t)mtu, send_fragment, &outbound);
    if (error != -EMSGSIZE)
        return error;
    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return -EIO;
    return wd_fragment(packet, (uint32_t)mtu, id | 1, send_fragment, &outbound);
}

int
wd_inject_outbound(const struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    int error;

    if ((packet->version == 4 ? inject->fd4 : inject->fd6) < 0)
        return -EAFNOSUPPORT;
    error = send_whole(inject, packet, ifindex);
    return error == -EMSGSIZE ? send_pieces(inject, packet, ifindex) : error;
}

static int
open_inbound(void *arg)
{
    struct wd_inject *inject = arg;
    int error = wd_ruleset_enable_inbound(inject->rules);

    return error ? error : wd_inbound_socket(inject->priority, &inject->fd_in, NULL);
}

int
wd_inject_inbound(struct wd_inject *inject, const struct wd_packet *packet, uint32_t ifindex)
{
    if (ifindex == LOOPBACK_IFINDEX)
        return wd_inject_outbound(inject, packet, ifindex);
    if (inject->fd_in < 0 && wd_ruleset_inside(inject->rules, open_inbound, inject) < 0)
        return -EOPNOTSUPP;
    return wd_inbound_send(inject->fd_in, packet, ifindex);
}

void
wd_inject_wait(const struct wd_inject *inject, const struct wd_packet *packet, bool outbound, int timeout_ms)
{
    struct pollfd room = {.fd = packet->version == 4 ? inject->fd4 : inject->fd6, .events = POLLOUT};

    if (!outbound && inject->fd_in >= 0)
        room.fd = inject->fd_in;
    poll(&room, 1, timeout_ms);
}
