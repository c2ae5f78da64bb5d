/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What others see of a packet: on the wire, in the kernel's counters, in the user's rules. */
#include "e2e.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int
e2e_capture(const char *ns, const char *ifname)
{
    struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    int fd = e2e_socket(ns, AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK, 0), bytes = 8 << 20;

    addr.sll_ifindex = (int)e2e_ifindex(ns, ifname);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
    CHECK(bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0, "bind to %s: %s", ifname, strerror(errno));
    return fd;
}

unsigned
e2e_captured(int fd, uint8_t *buf, unsigned ms, e2e_want want, void *arg)
{
    int64_t end = e2e_now_us() + (int64_t)ms * 1000;
    struct pollfd p = {.fd = fd, .events = POLLIN};

    do {
        ssize_t n = recv(fd, buf, E2E_PACKET_MAX, MSG_DONTWAIT);

        if (n > 0 && want(buf, (unsigned)n, arg))
            return (unsigned)n;
        if (n < 0)
            poll(&p, 1, 5);
    } while (e2e_now_us() < end);
    return 0;
}

bool
e2e_is_udp_to(const uint8_t *packet, unsigned len, void *port)
{
    struct e2e_view v;

    return e2e_view(packet, len, &v) && v.proto == IPPROTO_UDP && v.dport == *(uint16_t *)port;
}

/* The file as text, of a namespace. */
static void
read_proc(const char *ns, const char *path, char *text, size_t room)
{
    int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), fd;
    size_t used = 0;
    ssize_t n;

    CHECK(home >= 0, "own namespace: %s", strerror(errno));
    e2e_enter(ns);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && setns(home, CLONE_NEWNET) == 0, "%s: %s", path, strerror(errno));
    while (used < room - 1 && (n = read(fd, text + used, room - 1 - used)) > 0)
        used += (size_t)n;
    text[used] = '\0';
    close(fd);
    close(home);
}

/* "Udp: NAME NAME\nUdp: VALUE VALUE\n": the value under the name. */
static bool
find_below(char *text, const char *group, const char *name, uint64_t *ret_value)
{
    char label[32], *names, *values, *save_name, *save_value;

    snprintf(label, sizeof(label), "%s: ", group);
    names = strstr(text, label);
    values = names ? strchr(names, '\n') : NULL;
    if (!values)
        return false;
    *values++ = '\0';
    *strchrnul(values, '\n') = '\0';
    names = strtok_r(names, " ", &save_name);
    values = strtok_r(values, " ", &save_value);
    while (names && values && strcmp(names, name) != 0) {
        names = strtok_r(NULL, " ", &save_name);
        values = strtok_r(NULL, " ", &save_value);
    }
    if (!names || !values)
        return false;
    *ret_value = strtoull(values, NULL, 10);
    return true;
}

/* "Udp6InErrors   VALUE\n" */
static bool
find_beside(char *text, const char *group, const char *name, uint64_t *ret_value)
{
    char label[64], *at;

    snprintf(label, sizeof(label), "%s%s", group, name);
    at = strstr(text, label);
    if (!at || !strchr(" \t", at[strlen(label)]))
        return false;
    *ret_value = strtoull(at + strlen(label), NULL, 10);
    return true;
}

uint64_t
e2e_snmp(const char *ns, const char *group, const char *name)
{
    bool v6 = strchr(group, '6'), ext = strstr(group, "Ext");
    char text[16384];
    uint64_t value;

    read_proc(ns,
              v6    ? "/proc/thread-self/net/snmp6"
              : ext ? "/proc/thread-self/net/netstat"
                    : "/proc/thread-self/net/snmp",
              text, sizeof(text));
    CHECK(v6 ? find_beside(text, group, name, &value) : find_below(text, group, name, &value), "no counter %s %s",
          group, name);
    return value;
}
