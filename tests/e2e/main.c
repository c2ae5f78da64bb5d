/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The runner: e2e [-l] [name...]; name* selects all tests whose name begins
 * so.  One line per test, PASS, FAIL or SKIP, then the totals.
 */
#include "e2e.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_LIMIT_S 30

static const struct e2e_test *const tables[] = {
    e2e_ground_tests,   e2e_divert_tests,   e2e_change_tests,   e2e_drop_tests,     e2e_sniff_tests,
    e2e_loopback_tests, e2e_batch_tests,    e2e_shutdown_tests, e2e_priority_tests, e2e_hold_tests,
    e2e_death_tests,    e2e_error_tests,    e2e_filter_tests,   e2e_checksum_tests, e2e_inject_tests,
    e2e_send_tests,     e2e_coexist_tests,  e2e_engine_tests,   e2e_forward_tests,  e2e_redirect_tests,
    e2e_fault_tests,    e2e_fragment_tests, e2e_segments_tests, e2e_shift_tests,    e2e_account_tests,
    e2e_machine_tests,  e2e_icmp_tests,     e2e_pieces_tests,   e2e_arrival_tests,  e2e_sums_tests,
    e2e_refuse_tests,   e2e_tags_tests,     e2e_netns_tests,    e2e_rules_tests,    e2e_beside_tests,
    e2e_swap_tests,     e2e_flow_tests,     e2e_waiting_tests,  e2e_soak_tests,
};

static unsigned passed, failed, skipped;
static volatile sig_atomic_t interrupted;

static void
on_signal(int sig)
{
    interrupted = sig;
}

static void
print_result(const char *word, const char *name, const char *reason)
{
    printf(reason ? "%s %s: %s\n" : "%s %s\n", word, name, reason);
    fflush(stdout);
}

static void
end_group(pid_t pid)
{
    kill(-pid, SIGKILL);
    while (waitpid(-pid, NULL, 0) > 0 || errno == EINTR)
        ;
}

static pid_t
start_test(const struct e2e_test *t)
{
    pid_t pid = fork();

    if (pid < 0) {
        perror("e2e: fork");
        exit(1);
    }
    if (pid) {
        setpgid(pid, pid);
        return pid;
    }
    setpgid(0, 0);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    e2e_enter("a");
    t->run();
    _exit(0);
}

/* Waits for the test's process: NULL when it ended with 0, else why not. */
static const char *
await_test(pid_t pid, unsigned limit_s, char *text, size_t room)
{
    int64_t end = e2e_now_us() + limit_s * 1000000LL;
    int status = 0;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        /* A process of the test gave up: the others are not waited for. */
        if (atomic_load(&e2e_report->state) != E2E_RUNNING && end > e2e_now_us() + 300000)
            end = e2e_now_us() + 300000;
        if (interrupted)
            return "interrupted";
        if (e2e_now_us() > end) {
            snprintf(text, room, "not finished within %u s", limit_s);
            return text;
        }
        e2e_nap_us(2000);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return NULL;
    if (WIFSIGNALED(status))
        snprintf(text, room, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, room, "ended with status %d", WEXITSTATUS(status));
    return text;
}

/* Programs are freed after a grace period of the kernel's, so this waits; the namespaces are made anew if it fails. */
static const char *
await_clean(void)
{
    int64_t end = e2e_now_us() + 5000000;
    const char *what;

    while ((what = e2e_leftover_find()) && e2e_now_us() < end && !interrupted)
        e2e_nap_us(50000);
    return what;
}

static void
rebuild(void)
{
    e2e_topology_clear();
    if (system("rm -rf /run/windivert") != 0 || e2e_topology_build() < 0)
        exit(1);
}

static void
run_test(const struct e2e_test *t)
{
    const char *why, *left;
    char text[128];
    int state;
    pid_t pid;

    e2e_leftover_mark();
    memset(e2e_report, 0, sizeof(*e2e_report));
    pid = start_test(t);
    why = await_test(pid, t->limit_s ? t->limit_s : DEFAULT_LIMIT_S, text, sizeof(text));
    end_group(pid);
    if (why)
        e2e_report->killed = 1;
    left = await_clean();
    state = atomic_load(&e2e_report->state);
    if (state != E2E_RUNNING)
        why = e2e_report->reason;
    if (state == E2E_SKIPPED) {
        skipped++;
        print_result("SKIP", t->name, why);
    } else if (why || left) {
        failed++;
        print_result("FAIL", t->name, why ? why : left);
        if (why && left)
            printf("     and afterwards %s\n", left);
    } else {
        passed++;
        print_result("PASS", t->name, NULL);
    }
    if (why || left)
        rebuild();
}

static bool
selected(const struct e2e_test *t, char *const *names)
{
    if (!*names)
        return true;
    for (; *names; names++) {
        size_t len = strlen(*names);

        if (len && (*names)[len - 1] == '*' ? !strncmp(t->name, *names, len - 1) : !strcmp(t->name, *names))
            return true;
    }
    return false;
}

/* Calls fn for every selected test; returns how many there were. */
static unsigned
for_each(char *const *names, void (*fn)(const struct e2e_test *))
{
    unsigned n = 0;

    for (size_t i = 0; i < sizeof(tables) / sizeof(*tables) && !interrupted; i++) {
        for (const struct e2e_test *t = tables[i]; t->name && !interrupted; t++) {
            if (!selected(t, names))
                continue;
            n++;
            fn(t);
        }
    }
    return n;
}

static void
list_test(const struct e2e_test *t)
{
    printf("%s\n", t->name);
}

static void
skip_test(const struct e2e_test *t)
{
    skipped++;
    print_result("SKIP", t->name, "needs root (network namespaces)");
}

/* Programs of another runner at the same time would look like ours left behind. */
static void
lock_machine(void)
{
    int fd = open("/tmp/.opendivert-e2e.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
        return;
    fprintf(stderr, "e2e: waiting for another run on this machine\n");
    if (flock(fd, LOCK_EX) < 0)
        perror("e2e: lock");
}

static void
prepare(void)
{
    struct sigaction sa = {.sa_handler = on_signal};

    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    e2e_isolate();
    e2e_report = e2e_shared(sizeof(*e2e_report));
    if (e2e_topology_build() < 0)
        exit(1);
}

int
main(int argc, char **argv)
{
    unsigned n;

    if (argc > 1 && !strcmp(argv[1], "-l"))
        return for_each(argv + 2, list_test) ? 0 : 1;
    (void)argc;
    if (geteuid() != 0) {
        n = for_each(argv + 1, skip_test);
    } else {
        lock_machine();
        prepare();
        n = for_each(argv + 1, run_test);
        e2e_topology_clear();
    }
    printf("e2e: %u passed, %u failed, %u skipped\n", passed, failed, skipped);
    if (!n)
        fprintf(stderr, "e2e: no test of that name\n");
    return failed || interrupted || !n ? 1 : 0;
}
