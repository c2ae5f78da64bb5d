/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Runs a benchmark in the namespaces of the end-to-end tests (e2e.h). */
#ifndef BENCH_WORLD_H
#define BENCH_WORLD_H

/*
 * Makes the namespaces, runs fn in a process of its own, clears away.  The
 * exit status of the program; without root BENCH_SKIPPED, and a line that says
 * so.
 */
int world_run(const char *name, void (*fn)(void));

#endif
