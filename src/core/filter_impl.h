/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#ifndef WD_CORE_FILTER_IMPL_H
#define WD_CORE_FILTER_IMPL_H

#include "tree.h"

struct wd_filter {
    WINDIVERT_LAYER layer;
    const struct wd_node *tree;  /* folded */
    const struct wd_prog *plain; /* the tree's tests in their order */
    const struct wd_prog *prog;
};

#endif
