/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What the range of a field says about a test on it. */
#include "tree.h"

/* As wd_number_compare, for the magnitudes. */
static int
compare_magnitude(const struct wd_number *a, const struct wd_number *b)
{
    if (a->hi != b->hi)
        return a->hi < b->hi ? -1 : 1;
    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

int
wd_number_compare(const struct wd_number *a, const struct wd_number *b)
{
    if (a->neg != b->neg)
        return a->neg ? -1 : 1;
    return a->neg ? compare_magnitude(b, a) : compare_magnitude(a, b);
}

bool
wd_op_holds(uint8_t op, int compared)
{
    switch (op) {
    case WD_OP_EQ:
        return compared == 0;
    case WD_OP_NE:
        return compared != 0;
    case WD_OP_LT:
        return compared < 0;
    case WD_OP_LE:
        return compared <= 0;
    case WD_OP_GT:
        return compared > 0;
    default:
        return compared >= 0;
    }
}

static struct wd_number
number_signed(int64_t value)
{
    return (struct wd_number){value < 0, 0, value < 0 ? -(uint64_t)value : (uint64_t)value};
}

void
wd_field_range(uint8_t field, struct wd_number *ret_min, struct wd_number *ret_max)
{
    const struct wd_field_info *info = &wd_fields[field];

    *ret_min = (struct wd_number){false, 0, info->umin};
    *ret_max = (struct wd_number){false, 0, info->max};
    if (info->kind == WD_KIND_ADDR) {
        *ret_max = (struct wd_number){false, UINT64_MAX, UINT64_MAX};
    } else if (info->kind == WD_KIND_INT) {
        *ret_min = number_signed(info->min);
        *ret_max = number_signed((int64_t)info->max);
    }
}

enum wd_verdict
wd_range_decide(uint8_t field, uint8_t op, const struct wd_number *value)
{
    struct wd_number min, max;
    int least, greatest; /* the field's against the value */
    bool below, above;

    wd_field_range(field, &min, &max);
    least = wd_number_compare(&min, value);
    greatest = wd_number_compare(&max, value);
    if (op == WD_OP_EQ || op == WD_OP_NE) {
        if (least > 0 || greatest < 0)
            return op == WD_OP_NE ? WD_ALWAYS : WD_NEVER;
        return least < greatest ? WD_DEPENDS : op == WD_OP_EQ ? WD_ALWAYS : WD_NEVER;
    }
    below = wd_op_holds(op, least);
    above = wd_op_holds(op, greatest);
    return below != above ? WD_DEPENDS : below ? WD_ALWAYS : WD_NEVER;
}

enum wd_field
wd_src_presence(uint8_t src)
{
    switch (src) {
    case WD_SRC_IP4:
        return WD_F_IP;
    case WD_SRC_IP6:
        return WD_F_IPV6;
    case WD_SRC_ICMP:
        return WD_F_ICMP;
    case WD_SRC_ICMP6:
        return WD_F_ICMPV6;
    case WD_SRC_TCP:
    case WD_SRC_TCPDATA:
        return WD_F_TCP;
    case WD_SRC_UDP:
    case WD_SRC_UDPDATA:
        return WD_F_UDP;
    default:
        return WD_FIELD_COUNT;
    }
}
