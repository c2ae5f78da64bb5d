/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * How often hooks of ours were put in front of others, counted for all
 * processes and each network namespace.  The kernel goes on with a packet that comes
 * out of an NFQUEUE by the position of its hook, which they move.
 */
#ifndef WD_LINUX_SHIFT_H
#define WD_LINUX_SHIFT_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * The counter of a namespace; some share one.  It is added to before and after
 * a hook is registered.  Where the directory of handles cannot be used it
 * counts this process's alone.
 */
_Atomic uint32_t *wd_shift_counter(ino_t netns);

#endif
