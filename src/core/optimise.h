/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* A cheaper program with the same outcome. */
#ifndef WD_CORE_OPTIMISE_H
#define WD_CORE_OPTIMISE_H

#include "prog.h"

/*
 * Rewrites a program, folded or not; for every packet and address the result
 * decides as prog does (docs/design/filter.md lists the rewrites and why each
 * is right).  It has at most WD_OPTIMISE_GROWTH * prog->count tests, depends on
 * nothing but prog, and has no steps.  It may share prog's tests.
 * -ENOMEM, or 0.
 */
#define WD_OPTIMISE_GROWTH 2
int wd_prog_optimise(struct wd_arena *arena, const struct wd_prog *prog, struct wd_prog **ret_prog);

#endif
