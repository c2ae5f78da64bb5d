/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "world.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../e2e/e2e.h"
#include "bench.h"

int
world_run(const char *name, void (*fn)(void))
{
    int state = 1;
    pid_t pid;

    if (geteuid() != 0) {
        printf("SKIP %s: needs root (network namespaces)\n", name);
        return BENCH_SKIPPED;
    }
    e2e_isolate();
    e2e_report = e2e_shared(sizeof(*e2e_report));
    if (e2e_topology_build() < 0)
        return 1;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        fn();
        fflush(stdout);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &state, 0) < 0)
        perror(name);
    e2e_topology_clear();
    if (e2e_report->reason[0])
        fprintf(stderr, "bench_%s: %s\n", name, e2e_report->reason);
    return pid < 0 || e2e_report->reason[0] || state != 0;
}
