/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Handles that drop: exactly what matches, only while they are open. */
#include "e2e.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNT 2000

/* Datagrams to 5001 are dropped, those to 5002 are not, both sent in turn; afterwards both arrive. */
static void
drop_udp(const char *handle_ns, const char *ip)
{
    struct e2e_pump free_flow = {.count = 1};
    int rx = e2e_udp_receiver("b", ip, 5001), tx = e2e_udp_sender("a", ip, 5001, 0);
    WINDIVERT_EXT_STATS stats;
    HANDLE h;

    free_flow.rx = e2e_udp_receiver("b", ip, 5002);
    free_flow.tx = e2e_udp_sender("a", ip, 5002, 0);
    e2e_enter(handle_ns);
    h = e2e_open("udp.DstPort == 5001", 0, WINDIVERT_FLAG_DROP);
    for (uint32_t i = 0; i < COUNT; i++) {
        /* A sender may be told that its datagram was dropped on the way out. */
        CHECK(e2e_send(tx, 100, i) || errno == EPERM, "send: error %d", errno);
        e2e_udp_pump(&free_flow);
    }
    stats = e2e_stats(h);
    CHECK(stats.DropFilter == COUNT, "%llu dropped, expected %u", (unsigned long long)stats.DropFilter, COUNT);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
    e2e_udp_pump(&(struct e2e_pump){.tx = tx, .rx = rx, .count = COUNT});
    e2e_marker(tx, rx);
    e2e_marker(free_flow.tx, free_flow.rx);
}

static void
drop_udp4_out(void)
{
    drop_udp("a", E2E_B4);
}

static void
drop_udp6_out(void)
{
    drop_udp("a", E2E_B6);
}

static void
drop_udp4_in(void)
{
    drop_udp("b", E2E_B4);
}

static void
drop_udp6_in(void)
{
    drop_udp("b", E2E_B6);
}

static bool
connected(int fd, unsigned ms)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    socklen_t len = sizeof(int);
    int err = 0;

    if (poll(&p, 1, (int)ms) != 1)
        return false;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == 0, "connect: error %d", err);
    return true;
}

/* A connection cannot be made while its SYNs are dropped; it is made with the next one after Close. */
static void
drop_connect(const char *handle_ns)
{
    struct sockaddr_storage addr;
    socklen_t len = e2e_sockaddr(E2E_B4, 5001, &addr);
    int lfd = e2e_socket("b", AF_INET, SOCK_STREAM, 0), fd = e2e_socket("a", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int one = 1;
    HANDLE h;

    setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    CHECK(bind(lfd, (struct sockaddr *)&addr, len) == 0 && listen(lfd, 5) == 0, "listen: error %d", errno);
    e2e_enter(handle_ns);
    h = e2e_open("tcp.DstPort == 5001", 0, WINDIVERT_FLAG_DROP);
    CHECK(connect(fd, (struct sockaddr *)&addr, len) < 0 && errno == EINPROGRESS, "connect: error %d", errno);
    WAIT_UNTIL(e2e_stats(h).DropFilter >= 1, 3000, "no SYN was dropped");
    CHECK(!connected(fd, 0), "connected in spite of the handle");
    CHECK_API(WinDivertClose(h));
    CHECK(connected(fd, 8000), "not connected after the handle was closed");
}

static void
drop_connect_out(void)
{
    drop_connect("a");
}

static void
drop_connect_in(void)
{
    drop_connect("b");
}

static void
drop_receives_nothing(void)
{
    HANDLE h = e2e_open("udp.DstPort == 5001", 0, WINDIVERT_FLAG_DROP);
    uint8_t buf[2048];
    WINDIVERT_ADDRESS addr;
    UINT len;

    CHECK_ERROR(WinDivertRecv(h, buf, sizeof(buf), &len, &addr), ERROR_INVALID_PARAMETER);
    CHECK_API(WinDivertClose(h));
}

const struct e2e_test e2e_drop_tests[] = {
    {"drop_udp4_out", drop_udp4_out, 0},
    {"drop_udp6_out", drop_udp6_out, 0},
    {"drop_udp4_in", drop_udp4_in, 0},
    {"drop_udp6_in", drop_udp6_in, 0},
    {"drop_connect_out", drop_connect_out, 0},
    {"drop_connect_in", drop_connect_in, 0},
    {"drop_receives_nothing", drop_receives_nothing, 0},
    {NULL, NULL, 0},
};
