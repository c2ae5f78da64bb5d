/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The fault law of WinDivertOpen and WinDivertExtSetFilter: system call n, allocation n fails, for
 * n = 1, 2, ... until there is no such one.  Whatever fails, the open succeeds
 * or answers a documented code with a text, nothing is left behind, and the
 * next open works.  A swap that fails leaves the old filter in force.
 *
 * A process installs a seccomp filter on itself that sends the calls in
 * question to its parent, which lets them pass or answers them with an error.
 */
#include "e2e.h"

#include <dirent.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS_MAX 400 /* of one open */
#define MODES 4

struct plan {
    _Atomic int fail_at; /* 0: count only */
    _Atomic int error;
    _Atomic int seen; /* since this was set to 0; negative: not now */
    _Atomic int listener;
    _Atomic int last_failed; /* number of the system call, -1: none */
};
static struct plan *plan; /* shared */

static const struct {
    const char *filter;
    UINT64 flags;
} mode[MODES] = {
    {"udp.DstPort == 5001", 0},
    {"udp.DstPort == 5001", WINDIVERT_FLAG_SNIFF},
    {"udp.DstPort == 5001", WINDIVERT_FLAG_DROP},
    {"udp.DstPort == 5001 and timestamp > 0", WINDIVERT_FLAG_DROP}, /* with a thread */
};

/* ---- Allocations --------------------------------------------------------- */

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ALLOCATIONS_FAIL 1
#else
#define ALLOCATIONS_FAIL 0
#endif

#if ALLOCATIONS_FAIL
static _Atomic int allocations, allocation_to_fail; /* the first counts up to the second; 0: none fails */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static bool
fails(void)
{
    if (allocation_to_fail == 0 || ++allocations != allocation_to_fail)
        return false;
    errno = ENOMEM;
    return true;
}

#define VISIBLE __attribute__((visibility("default"))) /* the library's allocations, too */

VISIBLE void *
malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

VISIBLE void *
calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

VISIBLE void *
realloc(void *old, size_t size)
{
    return fails() ? NULL : __libc_realloc(old, size);
}
#endif

/* ---- System calls --------------------------------------------------------- */

static const int fallible[] = {
    SYS_socket,    SYS_bind,   SYS_setsockopt,    SYS_sendto,    SYS_sendmsg,  SYS_recvfrom, SYS_recvmsg,
    SYS_bpf,       SYS_openat, SYS_mmap,          SYS_clone3,    SYS_clone,    SYS_mkdirat,  SYS_eventfd2,
    SYS_getrandom, SYS_flock,  SYS_epoll_create1, SYS_epoll_ctl, SYS_renameat, SYS_capget,   SYS_getsockname,
#ifdef SYS_mkdir
    SYS_mkdir,
#endif
};
#define FALLIBLE (sizeof(fallible) / sizeof(fallible[0]))

/* Installs the filter; the listener's number goes to the parent, which fetches it. */
static void
confess(void)
{
    struct sock_filter code[FALLIBLE + 3] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    struct sock_fprog program = {.len = FALLIBLE + 3, .filter = code};
    long fd;

    for (size_t i = 0; i < FALLIBLE; i++)
        code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)fallible[i],
                                                   (uint8_t)(FALLIBLE - i), 0);
    code[FALLIBLE + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[FALLIBLE + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    CHECK(fd >= 0, "seccomp: %s", strerror(errno));
    plan->listener = (int)fd;
}

static void
answer(int listener)
{
    struct seccomp_notif call = {0};
    struct seccomp_notif_resp resp = {0};
    int n;

    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
        return;
    resp.id = call.id;
    n = plan->seen < 0 ? -1 : ++plan->seen;
    if (n > 0 && n == plan->fail_at) {
        resp.error = -plan->error;
        plan->last_failed = call.data.nr;
    } else {
        resp.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    }
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &resp);
}

static void
supervise(pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), listener;
    struct pollfd fds[2] = {{.fd = pidfd, .events = POLLIN}};

    CHECK(pidfd >= 0, "pidfd_open: %s", strerror(errno));
    WAIT_UNTIL(plan->listener, 5000, "the child did not get as far as its filter");
    if (plan->listener < 0)
        return;
    listener = (int)syscall(SYS_pidfd_getfd, pidfd, plan->listener, 0);
    CHECK(listener >= 0, "pidfd_getfd: %s", strerror(errno));
    fds[1] = (struct pollfd){.fd = listener, .events = POLLIN};
    while (poll(fds, 2, 60000) > 0 && !(fds[0].revents & POLLIN))
        answer(listener);
    close(listener);
    close(pidfd);
}

static unsigned
entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned count = 0;

    CHECK(dir, "%s: %s", path, strerror(errno));
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* What a process has when nothing is open but what was open before. */
struct before {
    unsigned fds, threads, registered;
};

static struct before
take_stock(void)
{
    return (struct before){entries("/proc/self/fd"), entries("/proc/self/task"), entries("/run/windivert")};
}

static bool
documented(DWORD code)
{
    return code == ERROR_ACCESS_DENIED || code == ERROR_NOT_ENOUGH_MEMORY || code == ERROR_NO_SYSTEM_RESOURCES ||
           code == ERROR_NOT_SUPPORTED || code == ERROR_GEN_FAILURE || code == ERROR_SERVICE_DOES_NOT_EXIST;
}

/* An open of which one thing failed, and what is to be seen of it afterwards. */
static void
one_open(unsigned m, const char *what, int n, const struct before *before, bool *ret_opened)
{
    HANDLE h = WinDivertOpen(mode[m].filter, WINDIVERT_LAYER_NETWORK, 0, mode[m].flags);
    DWORD code = GetLastError();

    plan->seen = -1;
#if ALLOCATIONS_FAIL
    allocation_to_fail = 0;
#endif
    *ret_opened = h != INVALID_HANDLE_VALUE;
    if (*ret_opened) {
        CHECK_API(WinDivertClose(h));
    } else {
        CHECK(documented(code), "mode %u, %s %d failed: code %u", m, what, n, (unsigned)code);
        CHECK(WinDivertExtGetLastErrorText()[0], "mode %u, %s %d failed: no text", m, what, n);
    }
    CHECK(entries("/proc/self/fd") == before->fds, "mode %u, %s %d (of number %d) failed: %u descriptors, before %u",
          m, what, n, plan->last_failed, entries("/proc/self/fd"), before->fds);
    WAIT_UNTIL(entries("/proc/self/task") == before->threads, 1000, "mode %u, %s %d failed: a thread is left", m,
               what, n);
    CHECK(entries("/run/windivert") == before->registered, "mode %u, %s %d failed: a handle is still registered", m,
          what, n);
}

struct run {
    unsigned mode;
    int error;
    bool second; /* another handle keeps the table and the places for links */
};

/* A handle that could not be opened drops nothing. */
static void
check_passes(int n)
{
    static uint32_t number;
    int tx = e2e_udp_sender("a", E2E_B4, 5001, 0), rx = e2e_udp_receiver("b", E2E_B4, 5001);
    uint8_t datagram[64];

    CHECK(e2e_send(tx, sizeof(datagram), ++number), "system call %d failed: the handle drops all the same", n);
    CHECK(e2e_receive(rx, datagram, sizeof(datagram), 1000) == sizeof(datagram),
          "system call %d failed: the handle drops all the same", n);
    close(tx);
    close(rx);
}

/* Counts the calls of an undisturbed open first: one more of them cannot fail. */
static void
child(void *arg)
{
    const struct run *run = arg;
    HANDLE other = INVALID_HANDLE_VALUE;
    struct before before;
    bool opened;
    int total;

    plan->seen = -1;
    confess();
    if (run->second)
        other = e2e_open("false", 0, WINDIVERT_FLAG_SNIFF);
    CHECK_API(WinDivertClose(e2e_open(mode[run->mode].filter, 0, mode[run->mode].flags)));
    before = take_stock();
    plan->fail_at = 0;
    plan->seen = 0;
    CHECK_API(WinDivertClose(e2e_open(mode[run->mode].filter, 0, mode[run->mode].flags)));
    total = plan->seen;
    plan->seen = -1;
    CHECK(total > 10, "only %d system calls were seen", total);
    for (int n = 1; n <= total; n++) {
        plan->last_failed = -1;
        plan->error = run->error;
        plan->fail_at = n;
        plan->seen = 0;
        one_open(run->mode, "system call", n, &before, &opened);
        if (!opened && run->second)
            check_passes(n);
    }
    plan->seen = -1;
    CHECK_API(WinDivertClose(e2e_open(mode[run->mode].filter, 0, mode[run->mode].flags)));
    if (run->second)
        CHECK_API(WinDivertClose(other));
}

/* One process whose calls fail one after the other; nothing of it stays. */
static void
supervise_mode(unsigned m, void (*fn)(void *arg), void *run)
{
    pid_t pid;

    plan = e2e_shared(sizeof(*plan));
    pid = e2e_spawn("a", fn, run);
    supervise(pid);
    e2e_join(pid);
    CHECK(e2e_table_count("a") == 0 && e2e_queue_count("a") == 0, "mode %u: a table or queue is left", m);
}

static void
fault_calls(int error, bool second)
{
#if !ALLOCATIONS_FAIL
    e2e_skip("a sanitizer ends the process when its own mmap fails");
#endif
    for (unsigned m = 0; m < MODES; m++) {
        struct run run = {.mode = m, .error = error, .second = second};

        supervise_mode(m, child, &run);
    }
}

/* ---- Another filter ------------------------------------------------------- */

/* What of UDP the handle has matched; a sniffing one is read, so that the library decides, too. */
static UINT64
matched(const struct e2e_passer *p, UINT64 flags)
{
    return flags & WINDIVERT_FLAG_SNIFF ? p->received : e2e_stats(p->handle).Matched;
}

/* Sends a datagram to 5001 + port; whether the handle matched it, which is waited for if it is to be so. */
static bool
is_matched(const struct e2e_passer *p, const int *tx, const int *rx, unsigned port, bool expected, UINT64 flags)
{
    UINT64 before = matched(p, flags);
    bool gone = !(flags & WINDIVERT_FLAG_SNIFF) && expected;
    uint8_t datagram[64];

    if (!e2e_send(tx[port], sizeof(datagram), 1))
        return true; /* dropped on the way out */
    if (!gone && e2e_receive(rx[port], datagram, sizeof(datagram), 1000) != sizeof(datagram))
        return true;
    for (int i = 0; expected && matched(p, flags) == before && i < 1000; i++)
        e2e_nap_us(1000);
    return matched(p, flags) == before + 1;
}

static bool
leave(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    (void)p;
    (void)packet;
    (void)len;
    (void)addr;
    return false;
}

struct swap_run {
    unsigned mode;
    int error;
};

static void
swap_child(void *arg)
{
    static const char *const filter[2] = {"udp.DstPort == 5001", "udp.DstPort == 5002 and udp.Length == 72"};
    const struct swap_run *run = arg;
    UINT64 flags = mode[run->mode].flags;
    int tx[2], rx[2], total = 1000, failures = 0;
    struct before before;
    struct e2e_passer p = {.batch = 1, .edit = leave};
    unsigned now = 0;
    HANDLE h;

    for (unsigned i = 0; i < 2; i++) {
        tx[i] = e2e_udp_sender("a", E2E_B4, (uint16_t)(5001 + i), 0);
        rx[i] = e2e_udp_receiver("b", E2E_B4, (uint16_t)(5001 + i));
    }
    plan->seen = -1;
    confess();
    h = p.handle = e2e_open(filter[0], 0, flags);
    if (flags & WINDIVERT_FLAG_SNIFF)
        e2e_pass_start(&p);
    for (int n = 0; n <= total; n++) {
        bool swapped;

        plan->error = run->error;
        plan->fail_at = n; /* 0: none, to count them */
        plan->last_failed = -1;
        plan->seen = 0;
        swapped = WinDivertExtSetFilter(h, filter[!now]);
        if (n == 0) {
            total = plan->seen;
            before = take_stock();
        }
        plan->seen = -1;
        CHECK(swapped || ((documented(GetLastError()) || run->error == EINVAL) && WinDivertExtGetLastErrorText()[0]),
              "mode %u, system call %d failed: code %u", run->mode, n, (unsigned)GetLastError());
        now = swapped ? !now : now;
        failures += !swapped;
        for (unsigned port = 0; port < 2; port++)
            CHECK(
                is_matched(&p, tx, rx, port, port == now, flags) == (port == now),
                "mode %u, system call %d (number %d) failed, swap %d: a packet to %u is decided by the other filter",
                run->mode, n, plan->last_failed, swapped, 5001 + port);
    }
    CHECK(total > 5 && (failures > 0 || run->error != ENOMEM), "%d system calls, %d failures", total, failures);
    CHECK_API(WinDivertExtSetFilter(h, filter[!now]));
    CHECK(run->error == EINVAL || entries("/proc/self/fd") == before.fds, "%u descriptors, before %u",
          entries("/proc/self/fd"), before.fds);
    if (flags & WINDIVERT_FLAG_SNIFF)
        e2e_pass_stop(&p);
    else
        CHECK_API(WinDivertClose(h));
}

/* Refused programs (EINVAL) lead to coarser ones, and to a thread that drops. */
static void
fault_swap(int error)
{
#if !ALLOCATIONS_FAIL
    e2e_skip("a sanitizer ends the process when its own mmap fails");
#endif
    for (unsigned m = 0; m < MODES - 1; m++) {
        struct swap_run run = {.mode = m, .error = error};

        supervise_mode(m, swap_child, &run);
    }
}

static void
fault_swap_no_memory(void)
{
    fault_swap(ENOMEM);
}

static void
fault_swap_no_descriptors(void)
{
    fault_swap(EMFILE);
}

static void
fault_swap_refused(void)
{
    fault_swap(EINVAL);
}

static void
fault_calls_no_memory(void)
{
    fault_calls(ENOMEM, false);
}

static void
fault_calls_second_handle(void)
{
    fault_calls(ENOMEM, true);
}

static void
fault_calls_no_descriptors(void)
{
    fault_calls(EMFILE, false);
}

/* ---- Allocations --------------------------------------------------------- */

#if ALLOCATIONS_FAIL
static void
allocations_of(unsigned m)
{
    struct before before;
    bool opened = false;
    int n = 0;

    CHECK_API(WinDivertClose(e2e_open(mode[m].filter, 0, mode[m].flags))); /* what is made once in a process */
    before = take_stock();
    do {
        CHECK(n < 20000, "mode %u: no end of allocations", m);
        allocations = 0;
        allocation_to_fail = ++n;
        one_open(m, "allocation", n, &before, &opened);
    } while (allocations >= n);
    CHECK(opened, "mode %u: did not open when no allocation failed", m);
    CHECK(n > 20, "mode %u: only %d allocations were seen", m, n);
}
#endif

static void
fault_allocations(void)
{
#if ALLOCATIONS_FAIL
    plan = e2e_shared(sizeof(*plan));
    for (unsigned m = 0; m < MODES; m++)
        allocations_of(m);
    CHECK(e2e_table_count("a") == 0 && e2e_queue_count("a") == 0, "a table or queue is left");
#else
    e2e_skip("the allocator is the sanitizer's");
#endif
}

const struct e2e_test e2e_fault_tests[] = {
    {"fault_calls_no_memory", fault_calls_no_memory, 90},
    {"fault_calls_no_descriptors", fault_calls_no_descriptors, 90},
    {"fault_calls_second_handle", fault_calls_second_handle, 90},
    {"fault_swap_no_memory", fault_swap_no_memory, 90},
    {"fault_swap_no_descriptors", fault_swap_no_descriptors, 90},
    {"fault_swap_refused", fault_swap_refused, 90},
    {"fault_allocations", fault_allocations, 90},
    {NULL, NULL, 0},
};
