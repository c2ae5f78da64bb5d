/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What the benchmarks share: timing in turn, and the lines that tests/bench/run reads. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BENCH_VARIANTS_MAX 12
#define BENCH_SKIPPED 77 /* exit status: nothing could be measured; the last line says why */

struct bench_variant {
    const char *name;
    void (*run)(void *arg, unsigned n); /* does it n times */
    void *arg;
    void (*prepare)(void *arg); /* not timed, before each round; NULL: nothing to do */
};

extern volatile uint64_t bench_sink; /* results go here, so that they are not optimised away */

/* --quick: one short round, to see that the benchmark works. */
void bench_init(int argc, char **argv);
bool bench_quick(void);
/* From now on time passes, not only that of the calling thread on a CPU: where interrupts do part of the work. */
void bench_use_wall_clock(void);

/*
 * Measures the variants in turn, in slices of less than a millisecond, and
 * prints for each round the nanoseconds of each, the median of its slices:
 * what disturbs a few slices disturbs nothing.
 */
void bench_compare(const char *name, const struct bench_variant *variant, size_t count);
/* The same, but the first variant is what the others cost anyway: it is subtracted, not printed. */
void bench_compare_over(const char *name, const struct bench_variant *variant, size_t count);

/* The rounds' ratio to variant `of` shall be at most this, in the median; of "ns": the nanoseconds. */
void bench_goal(const char *name, const char *variant, double at_most, const char *of);

_Noreturn void bench_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
