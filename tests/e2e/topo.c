/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The private world of the tests: namespaces, links, processes in them. */
#include "e2e.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/utsname.h>
#include <unistd.h>

static _Noreturn void
die(const char *what)
{
    fprintf(stderr, "e2e: %s: %s\n", what, strerror(errno));
    exit(1);
}

static ino_t
netns_inode(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return 0;
    return st.st_ino;
}

/*
 * A network and a mount namespace of our own: nothing here reaches the
 * machine's links and rules, and /run (names of namespaces, the registry of
 * handles) is ours alone.  Proved, not assumed: the inode differs from the one
 * we came from and, where it may be read, from that of process 1.
 */
void
e2e_isolate(void)
{
    ino_t before = netns_inode("/proc/self/ns/net"), after;

    if (!before)
        die("/proc/self/ns/net");
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
        die("unshare");
    after = netns_inode("/proc/self/ns/net");
    if (!after || after == before || after == netns_inode("/proc/1/ns/net")) {
        fprintf(stderr, "e2e: still in the original network namespace: refusing to go on\n");
        exit(1);
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        die("mount private");
    if (mount("e2e", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0)
        die("mount /run");
}

static const char topology[] =
    "set -e\n"
    "ip netns add a; ip netns add b; ip netns add c\n"
    "ip -n a link add va address 02:77:00:00:00:01 type veth"
    " peer name vb address 02:77:00:00:00:02 netns b\n"
    "ip -n b link add vbc address 02:77:00:00:00:03 type veth"
    " peer name vc address 02:77:00:00:00:04 netns c\n"
    "for n in a b c; do\n"
    "  ip -n $n link set lo up; ip -n $n link set v$n addrgenmode none up\n"
    "done\n"
    "ip -n b link set vbc addrgenmode none up\n"
    "ip -n a addr add 10.77.0.1/24 dev va; ip -n b addr add 10.77.0.2/24 dev vb\n"
    "ip -n a addr add fd77::1/64 dev va nodad; ip -n b addr add fd77::2/64 dev vb nodad\n"
    "ip -n a neigh replace 10.77.0.2 dev va lladdr 02:77:00:00:00:02 nud permanent\n"
    "ip -n a neigh replace fd77::2 dev va lladdr 02:77:00:00:00:02 nud permanent\n"
    "ip -n b neigh replace 10.77.0.1 dev vb lladdr 02:77:00:00:00:01 nud permanent\n"
    "ip -n b neigh replace fd77::1 dev vb lladdr 02:77:00:00:00:01 nud permanent\n"
    "ip -n b addr add 10.78.0.1/24 dev vbc; ip -n c addr add 10.78.0.2/24 dev vc\n"
    "ip -n b addr add fd78::1/64 dev vbc nodad; ip -n c addr add fd78::2/64 dev vc nodad\n"
    "ip -n b neigh replace 10.78.0.2 dev vbc lladdr 02:77:00:00:00:04 nud permanent\n"
    "ip -n b neigh replace fd78::2 dev vbc lladdr 02:77:00:00:00:04 nud permanent\n"
    "ip -n c neigh replace 10.78.0.1 dev vc lladdr 02:77:00:00:00:03 nud permanent\n"
    "ip -n c neigh replace fd78::1 dev vc lladdr 02:77:00:00:00:03 nud permanent\n"
    "ip -n a route add 10.78.0.0/24 via 10.77.0.2; ip -n c route add 10.77.0.0/24 via 10.78.0.1\n"
    "ip -n a route add fd78::/64 via fd77::2; ip -n c route add fd77::/64 via fd78::1\n"
    "ip netns exec b sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n";

int
e2e_topology_build(void)
{
    if (system(topology) == 0)
        return 0;
    fprintf(stderr, "e2e: cannot build the topology\n");
    return -1;
}

void
e2e_topology_clear(void)
{
    if (system("ip netns del a 2>/dev/null; ip netns del b 2>/dev/null; ip netns del c 2>/dev/null") < 0)
        perror("e2e: system");
}

int
e2e_ns_fd(const char *ns)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/run/netns/%s", ns);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0, "%s: %s", path, strerror(errno));
    return fd;
}

void
e2e_enter(const char *ns)
{
    int fd = e2e_ns_fd(ns);

    CHECK(setns(fd, CLONE_NEWNET) == 0, "setns %s: %s", ns, strerror(errno));
    close(fd);
}

int
e2e_socket(const char *ns, int family, int type, int protocol)
{
    int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), fd;

    CHECK(home >= 0, "own namespace: %s", strerror(errno));
    e2e_enter(ns);
    fd = socket(family, type | SOCK_CLOEXEC, protocol);
    CHECK(fd >= 0, "socket: %s", strerror(errno));
    CHECK(setns(home, CLONE_NEWNET) == 0, "setns: %s", strerror(errno));
    close(home);
    return fd;
}

unsigned
e2e_ifindex(const char *ns, const char *ifname)
{
    int fd = e2e_socket(ns, AF_INET, SOCK_DGRAM, 0);
    struct ifreq ifr = {0};

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
    CHECK(ioctl(fd, SIOCGIFINDEX, &ifr) == 0, "no interface %s in %s", ifname, ns);
    close(fd);
    return (unsigned)ifr.ifr_ifindex;
}

pid_t
e2e_spawn(const char *ns, void (*fn)(void *arg), void *arg)
{
    pid_t parent = getpid(), pid = fork();

    CHECK(pid >= 0, "fork: %s", strerror(errno));
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    e2e_enter(ns);
    fn(arg);
    _exit(0);
}

void
e2e_join(pid_t pid)
{
    int status;

    CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a process of the test ended with status %#x", status);
}

void
e2e_kill9(pid_t pid)
{
    e2e_report->killed = 1;
    CHECK(kill(pid, SIGKILL) == 0, "kill: %s", strerror(errno));
    CHECK(waitpid(pid, NULL, 0) == pid, "waitpid: %s", strerror(errno));
}

char *
e2e_shell(const char *ns, const char *fmt, ...)
{
    static const size_t room = 65536;
    char command[2048], full[2200], *out = calloc(1, room + 1);
    size_t used = 0, n;
    va_list ap;
    FILE *f;

    va_start(ap, fmt);
    vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    snprintf(full, sizeof(full), "exec %s %s sh -c '%s'", ns ? "ip netns exec" : "", ns ? ns : "", command);
    f = popen(full, "r");
    CHECK(f && out, "popen: %s", strerror(errno));
    while (used < room && (n = fread(out + used, 1, room - used, f)) > 0)
        used += n;
    CHECK(pclose(f) == 0, "in %s: %s: failed", ns ? ns : "this namespace", command);
    return out;
}

/* The neighbours are named, so that nothing but the tests' packets is under way. */
void
e2e_configure_link(const char *ns, const char *ifname, bool first)
{
    unsigned own = first ? 1 : 2, other = first ? 2 : 1;

    free(e2e_shell(ns,
                   "set -e; ip link set %s addrgenmode none up; "
                   "ip addr replace 10.90.0.%u/24 dev %s; ip addr replace fd90::%u/64 dev %s nodad; "
                   "ip neigh replace 10.90.0.%u dev %s lladdr 02:90:00:00:00:0%u nud permanent; "
                   "ip neigh replace fd90::%u dev %s lladdr 02:90:00:00:00:0%u nud permanent",
                   ifname, own, ifname, own, ifname, other, ifname, other, other, ifname, other));
}

void
e2e_add_link(void)
{
    free(e2e_shell("a",
                   "ip link add wa index %u address 02:90:00:00:00:01 type veth "
                   "peer name wb address 02:90:00:00:00:02 netns b",
                   E2E_W_INDEX));
    e2e_configure_link("a", "wa", true);
    e2e_configure_link("b", "wb", false);
}

bool
e2e_kernel_since(unsigned major, unsigned minor)
{
    const char *tier = getenv("WINDIVERT_TIER");
    unsigned here[2] = {0};
    struct utsname name;

    CHECK(uname(&name) == 0 && sscanf(tier ? tier : name.release, "%u.%u", &here[0], &here[1]) == 2, "which kernel?");
    return here[0] > major || (here[0] == major && here[1] >= minor);
}

void
e2e_set_table(const char *ns, const char *body)
{
    free(e2e_shell(ns, "printf %%s \"table inet t { %s }\" | nft -f -", body));
}

void
e2e_delete_table(const char *ns)
{
    free(e2e_shell(ns, "nft delete table inet t"));
}

uint64_t
e2e_nft_counter(const char *ns, const char *name)
{
    char *out = e2e_shell(ns, "nft list counter inet t %s", name), *at = strstr(out, "packets ");
    uint64_t n;

    CHECK(at, "no counter %s in %s", name, ns);
    n = strtoull(at + 8, NULL, 10);
    free(out);
    return n;
}

static void
ethtool_set(int fd, const char *ifname, uint32_t command, bool on)
{
    struct ethtool_value value = {command, on};
    struct ifreq ifr = {.ifr_data = (void *)&value};

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
    CHECK(ioctl(fd, SIOCETHTOOL, &ifr) == 0, "ethtool %#x on %s: %s", command, ifname, strerror(errno));
}

void
e2e_offload(const char *ns, const char *ifname, bool tx, bool gso, bool gro)
{
    int fd = e2e_socket(ns, AF_INET, SOCK_DGRAM, 0);

    ethtool_set(fd, ifname, ETHTOOL_STXCSUM, tx);
    ethtool_set(fd, ifname, ETHTOOL_STSO, tx && gso);
    ethtool_set(fd, ifname, ETHTOOL_SGSO, gso);
    ethtool_set(fd, ifname, ETHTOOL_SGRO, gro);
    close(fd);
}

void
e2e_tx_checksum(const char *ns, const char *ifname, bool on)
{
    int fd = e2e_socket(ns, AF_INET, SOCK_DGRAM, 0);

    ethtool_set(fd, ifname, ETHTOOL_STXCSUM, on);
    if (on)
        ethtool_set(fd, ifname, ETHTOOL_STSO, true);
    close(fd);
}
