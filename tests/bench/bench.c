/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 11
#define SLICES 31       /* of a variant in a round */
#define SLICES_OVER 151 /* for a difference, which is small beside what it is the difference of */
#define SLICE_NS 400000 /* less than the scheduler gives at once */
#define QUICK_NS 20000
#define LONG_NS 300000000 /* what takes this long once is measured once */

volatile uint64_t bench_sink;
static bool quick;
static clockid_t clock_id = CLOCK_THREAD_CPUTIME_ID;

void
bench_init(int argc, char **argv)
{
    quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    if (argc > 2 || (argc == 2 && !quick))
        bench_fail("usage: %s [--quick]", argv[0]);
}

void
bench_use_wall_clock(void)
{
    clock_id = CLOCK_MONOTONIC;
}

bool
bench_quick(void)
{
    return quick;
}

void
bench_fail(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(clock_id, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t
time_run(const struct bench_variant *variant, unsigned n)
{
    uint64_t start = now_ns();

    variant->run(variant->arg, n);
    return now_ns() - start;
}

struct measured {
    const struct bench_variant *variant;
    unsigned n; /* runs of a slice */
    unsigned slices, rounds;
    double ns[SLICES_OVER];
};

static void
prepare(const struct bench_variant *variant)
{
    if (variant->prepare)
        variant->prepare(variant->arg);
}

static void
calibrate(const struct bench_variant *variant, unsigned slices, struct measured *m)
{
    uint64_t slice = quick ? QUICK_NS : SLICE_NS * SLICES / slices, took;

    *m = (struct measured){.variant = variant, .n = 1, .slices = 1, .rounds = 1};
    prepare(variant);
    took = time_run(variant, 1);
    if (took > LONG_NS)
        return;
    while ((took = time_run(variant, m->n)) < slice / 2 && m->n < 1u << 28)
        m->n *= 2;
    if (took > slice && m->n > 1)
        m->n /= 2;
    if (!quick) {
        m->rounds = ROUNDS;
        m->slices = took > LONG_NS / ROUNDS / slices ? 1 : slices;
    }
}

static int
compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double
median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), compare_doubles);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void
measure_round(struct measured *m, size_t count, unsigned round)
{
    for (size_t v = 0; v < count; v++)
        prepare(m[v].variant);
    for (unsigned s = 0; s < SLICES_OVER; s++)
        for (size_t v = 0; v < count; v++)
            if (s < m[v].slices && round < m[v].rounds)
                m[v].ns[s] = (double)time_run(m[v].variant, m[v].n) / m[v].n;
}

static void
compare(const char *name, const struct bench_variant *variant, size_t count, bool over)
{
    static struct measured m[BENCH_VARIANTS_MAX];

    if (count > BENCH_VARIANTS_MAX)
        bench_fail("%s: too many variants", name);
    for (size_t v = 0; v < count; v++)
        calibrate(&variant[v], over ? SLICES_OVER : SLICES, &m[v]);
    for (unsigned round = 0; round < (quick ? 1 : ROUNDS); round++) {
        double base;

        measure_round(m, count, round);
        base = over ? median(m[0].ns, m[0].slices) : 0;
        for (size_t v = over; v < count; v++)
            if (round < m[v].rounds)
                printf("%s\t%s\tns\t%.3f\n", name, variant[v].name, median(m[v].ns, m[v].slices) - base);
    }
    fflush(stdout);
}

void
bench_compare(const char *name, const struct bench_variant *variant, size_t count)
{
    compare(name, variant, count, false);
}

void
bench_compare_over(const char *name, const struct bench_variant *variant, size_t count)
{
    compare(name, variant, count, true);
}

void
bench_goal(const char *name, const char *variant, double at_most, const char *of)
{
    printf("GOAL\t%s\t%s\t%g\t%s\n", name, variant, at_most, of);
}
