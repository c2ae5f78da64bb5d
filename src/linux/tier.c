/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "tier.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define VARIABLE "WINDIVERT_TIER"

struct version {
    unsigned int major, minor;
};

/* False: there is no tier, or it is malformed. */
static bool
read_tier(const char *text, struct version *ret_version)
{
    char rest;

    return text && sscanf(text, "%3u.%3u%c", &ret_version->major, &ret_version->minor, &rest) == 2;
}

bool
wd_tier_has(enum wd_feature feature)
{
    static const struct version since[] = {
        [WD_FEATURE_NETFILTER_LINK] = {6, 4},
        [WD_FEATURE_TCX] = {6, 6},
        [WD_FEATURE_MAY_GOTO] = {6, 9},
    };
    struct version tier;

    if (!read_tier(secure_getenv(VARIABLE), &tier))
        return true;
    return tier.major > since[feature].major ||
           (tier.major == since[feature].major && tier.minor >= since[feature].minor);
}

int
wd_tier_check(struct wd_error *err)
{
    const char *text = secure_getenv(VARIABLE);
    struct version tier;

    if (!text || !*text || read_tier(text, &tier))
        return 0;
    return wd_error_set(err, -EINVAL, "unset it, or give a version of Linux such as 6.1",
                        "open: " VARIABLE " is '%.32s'", text);
}
