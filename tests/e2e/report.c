/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Outcome of a test, time, shared memory. */
#include "e2e.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void (*e2e_tell_more)(char *buf, size_t size);
struct e2e_report *e2e_report;

static _Noreturn void
finish(enum e2e_state state, const char *text)
{
    static _Atomic int taken_here;
    int running = E2E_RUNNING;

    /* One thread per process gets here; it ends the process, so the others only wait. */
    while (atomic_exchange(&taken_here, 1))
        pause();
    if (atomic_load(&e2e_report->state) == E2E_RUNNING) {
        if (!e2e_report->reason[0])
            snprintf(e2e_report->reason, sizeof(e2e_report->reason), "%s", text);
        atomic_compare_exchange_strong(&e2e_report->state, &running, (int)state);
    }
    _exit(1);
}

void
e2e_fail_at(const char *file, int line, const char *fmt, ...)
{
    char text[400], losses[600], full[1200];
    const char *base = strrchr(file, '/');
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    losses[0] = 0;
    if (e2e_tell_more)
        e2e_tell_more(losses, sizeof(losses));
    snprintf(full, sizeof(full), "%s:%d: %s%s", base ? base + 1 : file, line, text, losses);
    finish(E2E_FAILED, full);
}

void
e2e_skip(const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    finish(E2E_SKIPPED, text);
}

int64_t
e2e_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void
e2e_nap_us(unsigned us)
{
    struct timespec ts = {us / 1000000, (long)(us % 1000000) * 1000};

    nanosleep(&ts, NULL);
}

void *
e2e_shared(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        perror("e2e: mmap");
        exit(1);
    }
    return p;
}
