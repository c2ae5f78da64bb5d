/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The nftables side of the process in one network namespace: an `inet` table
 * that belongs to a netlink socket of ours (NFT_TABLE_F_OWNER, Linux 5.12), so
 * that it vanishes with the process, and a pool of base chains in it.
 *
 * Removing a base chain makes the kernel flush every NFQUEUE of the namespace,
 * other programs' too.  So a handle that closes gives its rules back and leaves
 * its chains in the pool for the next one; the table goes with the last handle
 * of the process in the namespace.
 */
#ifndef WD_LINUX_RULESET_H
#define WD_LINUX_RULESET_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/gen.h"
#include "core/error.h"
#include "linux/links.h"
#include "linux/rule.h"

struct wd_ruleset; /* of one network namespace; shared by the process's handles in it */
struct wd_chain;   /* a base chain in use by one handle */

/* The ruleset of the calling thread's network namespace, made where there is none yet; one reference. */
int wd_ruleset_get(struct wd_ruleset **ret_rules, struct wd_error *err);
/* NULL-safe.  The last reference removes the table. */
void wd_ruleset_put(struct wd_ruleset *rules);

/*
 * Runs fn in the ruleset's network namespace, which the calling thread may have
 * left since the open (then on a thread of its own, which needs CAP_SYS_ADMIN).
 * Returns what fn returns, or why it could not be run.
 */
int wd_ruleset_inside(struct wd_ruleset *rules, int (*fn)(void *arg), void *arg);

/* Moves the calling thread into its network namespace (needs CAP_SYS_ADMIN). */
int wd_ruleset_enter(const struct wd_ruleset *rules);

/*
 * Makes inbound injection possible there: attaches the program of inbound.h,
 * once (it waits for an RCU grace period, so only when it is needed).  Called
 * inside.  0, or why not.
 */
int wd_ruleset_enable_inbound(struct wd_ruleset *rules);

/*
 * From now on, until the last handle of the process in this namespace closes,
 * IPv6 fragments are put together before LOCAL_IN, as those of IPv4 always are.
 * (Turning it off would flush every NFQUEUE.)  An error is no reason not to go on.
 */
int wd_ruleset_reassemble(struct wd_ruleset *rules, struct wd_error *err);

/* How often a hook was put in front of others there (shift.h). */
const _Atomic uint32_t *wd_ruleset_shifts(const struct wd_ruleset *rules);

/* Where the packets of one handle are taken; all NULL: nowhere yet. */
struct wd_places {
    struct wd_chain *chain[WD_HOOKS];
    struct wd_link *link[WD_HOOKS];
};

/*
 * Replaces all rules of a handle, in one transaction: a packet meets the old
 * ones or the new ones; and its programs of type NETFILTER (links.h), one for
 * each hook, < 0: none, each hook's at once, one hook after the other.  Where a
 * handle goes from rules to links or back packets meet both for a moment.
 * Chains and links that are still missing come out of the pool or are made; on
 * an error nothing has changed.
 */
int wd_ruleset_install(struct wd_ruleset *rules, int16_t priority, const struct wd_rule *rule, size_t count,
                       const int prog_fd[WD_HOOKS], struct wd_places *places, struct wd_error *err);
/* Empties the places and gives them back to the pool.  Packets already past them are not waited for. */
void wd_ruleset_remove(struct wd_ruleset *rules, struct wd_places *places);

/* NF_INET_x, and the netfilter priority of a handle's priority: the same in all versions. */
uint32_t wd_hook_num(enum wd_hook hook);
int32_t wd_hook_priority(int16_t priority);

/* In a forked child: closes the descriptors of all rulesets.  Async-signal-safe. */
void wd_ruleset_forget_all(void);

#endif
