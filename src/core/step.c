/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "step.h"

#include <errno.h>

#include "tree.h"

static uint8_t
load_of_width(uint8_t width, uint8_t load8)
{
    switch (width) {
    case 1:
        return load8;
    case 2:
        return load8 + 1;
    case 4:
        return load8 + 2;
    default:
        return load8 + 3;
    }
}

/* Where the value is and what must be there for it. */
static void
prepare_load(struct wd_step *step, const struct wd_field_info *info, const struct wd_test *test)
{
    static const uint8_t need[] = {
        [WD_SRC_IP4] = 4,
        [WD_SRC_IP6] = 6,
        [WD_SRC_ICMP] = WD_L4_ICMP,
        [WD_SRC_ICMP6] = WD_L4_ICMP6,
        [WD_SRC_TCP] = WD_L4_TCP,
        [WD_SRC_UDP] = WD_L4_UDP,
        [WD_SRC_PACKET] = WD_L4_NONE,
        [WD_SRC_TCPDATA] = WD_L4_TCP,
        [WD_SRC_UDPDATA] = WD_L4_UDP,
    };

    step->need = need[info->src];
    step->off = info->off;
    switch (info->src) {
    case WD_SRC_META:
        step->load = test->field == WD_F_LOCALADDR    ? WD_LOAD_LOCAL
                     : test->field == WD_F_REMOTEADDR ? WD_LOAD_REMOTE
                                                      : test->field;
        break;
    case WD_SRC_IP4:
    case WD_SRC_IP6:
        step->load = load_of_width(info->width, WD_LOAD_IP8);
        break;
    case WD_SRC_PACKET:
    case WD_SRC_TCPDATA:
    case WD_SRC_UDPDATA:
        step->load = info->kind == WD_KIND_ARRAY ? load_of_width(info->width, WD_LOAD_ARRAY8) : WD_LOAD_DATA_LEN;
        step->off = test->index;
        break;
    default:
        step->load = load_of_width(info->width, WD_LOAD_L4_8);
        break;
    }
}

static uint64_t
low_bits(const struct wd_number *number)
{
    return number->neg ? -number->lo : number->lo;
}

/* The interval "x op value" stands for, in a field whose least value is min; value lies in its range. */
static void
prepare_interval(struct wd_step *step, uint8_t op, uint64_t value, uint64_t min)
{
    step->invert = op == WD_OP_NE || op == WD_OP_GT || op == WD_OP_GE;
    switch (op) {
    case WD_OP_EQ:
    case WD_OP_NE:
        step->base = value;
        step->span = 0;
        break;
    case WD_OP_LT:
    case WD_OP_GE:
        step->base = min;
        step->span = value - 1 - min;
        break;
    default:
        step->base = min;
        step->span = value - min;
        break;
    }
}

static void
prepare_number(struct wd_step *step, const struct wd_field_info *info, const struct wd_test *test,
               enum wd_verdict verdict)
{
    const struct wd_number number = {test->neg, test->hi, test->lo};
    struct wd_number min, max;

    if (verdict != WD_DEPENDS) {
        step->base = 0;
        step->span = UINT64_MAX;
        step->invert = verdict == WD_NEVER;
        return;
    }
    wd_field_range(test->field, &min, &max);
    if (info->kind == WD_KIND_ADDR4) /* the 32 bits in the header are the rest of the number */
        prepare_interval(step, test->op, (uint32_t)number.lo, 0);
    else
        prepare_interval(step, test->op, low_bits(&number), low_bits(&min));
    step->base <<= info->shift;
    step->span <<= info->shift;
}

void
wd_step_prepare(struct wd_step *step, const struct wd_test *test)
{
    const struct wd_field_info *info = &wd_fields[test->field];
    const struct wd_number number = {test->neg, test->hi, test->lo};
    enum wd_verdict verdict = wd_range_decide(test->field, test->op, &number);

    *step = (struct wd_step){
        .mask = (uint32_t)info->max << info->shift,
        .yes = test->yes >= WD_REJECT ? (uint16_t)(test->yes - WD_ACCEPT + WD_STEP_ACCEPT) : (uint16_t)test->yes,
        .no = test->no >= WD_REJECT ? (uint16_t)(test->no - WD_ACCEPT + WD_STEP_ACCEPT) : (uint16_t)test->no,
    };
    prepare_load(step, info, test);
    if (info->kind != WD_KIND_ADDR) {
        prepare_number(step, info, test, verdict);
    } else if (verdict == WD_DEPENDS) {
        step->op = test->op;
        step->base = test->hi;
        step->span = test->lo;
    } else {
        step->op = verdict == WD_ALWAYS ? WD_OP_LE : WD_OP_GT;
        step->base = step->span = UINT64_MAX;
    }
}

int
wd_prog_prepare(struct wd_arena *arena, struct wd_prog *prog)
{
    struct wd_step *steps = wd_arena_alloc(arena, prog->count, sizeof(*steps));

    if (!steps)
        return -ENOMEM;
    for (uint32_t i = 0; i < prog->count; i++)
        wd_step_prepare(&steps[i], &prog->tests[i]);
    prog->steps = steps;
    return 0;
}
