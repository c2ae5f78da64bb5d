/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WINDIVERT_TIER=MAJOR.MINOR: the library does without what that version of Linux did not have. */
#ifndef WD_LINUX_TIER_H
#define WD_LINUX_TIER_H

#include <stdbool.h>

#include "core/error.h"

enum wd_feature {
    WD_FEATURE_NETFILTER_LINK, /* programs attached to netfilter hooks: Linux 6.4 */
    WD_FEATURE_TCX,            /* programs on devices by links: Linux 6.6 */
    WD_FEATURE_MAY_GOTO,       /* loops that the verifier does not count: Linux 6.9 */
};

/* Whether the tier (none: every one) has it; not whether the kernel does. */
bool wd_tier_has(enum wd_feature feature);
/* -EINVAL: the variable is set and no version. */
int wd_tier_check(struct wd_error *err);

#endif
