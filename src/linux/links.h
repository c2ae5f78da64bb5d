/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Places at netfilter hooks for programs of type NETFILTER (BPF links, Linux
 * 6.4), for handles that sniff or drop: cheaper than a chain with a rule.
 *
 * Detaching a program makes the kernel flush every NFQUEUE of the namespace, as
 * removing a base chain does.  So a place keeps its links until the process's
 * last handle in the namespace closes; handles come and go by an array of
 * programs with one entry, into which the attached program jumps.
 */
#ifndef WD_LINUX_LINKS_H
#define WD_LINUX_LINKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bpf/gen.h"
#include "core/error.h"

struct wd_link; /* one place: hook and priority, both IP versions */

/*
 * A free place of the pool *links, or a new one (in the calling thread's
 * network namespace, whose counter shifts is: shift.h), with the program in it.
 * The caller has the pool's lock.
 */
int wd_link_get(struct wd_link **links, enum wd_hook hook, int16_t priority, int prog_fd, _Atomic uint32_t *shifts,
                struct wd_link **ret_link, struct wd_error *err);
/* Another program instead: a packet meets the old one or the new one.  wd_link_undo: the old one again, if need be. */
int wd_link_replace(struct wd_link *link, int prog_fd, struct wd_error *err);
void wd_link_undo(struct wd_link *link);
/* Empties the place and gives it back.  Packets already in the program are not waited for. */
void wd_link_put(struct wd_link *link);

/* All places of a pool. */
void wd_links_free(struct wd_link **links);
void wd_links_close_fds(struct wd_link *links); /* in a forked child; async-signal-safe */

#endif
