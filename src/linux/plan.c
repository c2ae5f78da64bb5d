/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "plan.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <unistd.h>

#include "bpf/load.h"
#include "linux/inbound.h"

#define LOOPBACK_IFINDEX 1                /* in every network namespace */
#define NO_IFINDEX 0                      /* of no interface */
#define OTHER_IFINDEX (UINT64_C(1) << 32) /* stands for all that have no rule of their own: no test can name it */

struct planner {
    const struct wd_filter *filter;
    const struct wd_plan_opts *opts;
    struct wd_plan *plan;
    struct wd_arena *arena;
    struct wd_error *err;
    uint32_t ifs[WD_RULE_IFS_MAX]; /* interfaces that have a rule of their own at LOCAL_OUT */
    unsigned int if_count;
    bool ifs_decided; /* and with these every test on ifIdx is decided */
};

/* ---- What the filter reads ---------------------------------------------- */

static bool
reads(const struct wd_prog *prog, enum wd_field field)
{
    for (uint32_t i = 0; i < prog->count; i++)
        if (prog->tests[i].field == field)
            return true;
    return false;
}

static void
add_if(struct planner *planner, uint64_t index)
{
    if (index == NO_IFINDEX || index == LOOPBACK_IFINDEX || index > UINT32_MAX)
        return;
    for (unsigned int i = 0; i < planner->if_count; i++)
        if (planner->ifs[i] == index)
            return;
    if (planner->if_count == WD_RULE_IFS_MAX)
        planner->ifs_decided = false;
    else
        planner->ifs[planner->if_count++] = (uint32_t)index;
}

/* Every interface that the filter compares ifIdx with; only == and != are decided by naming them. */
static void
collect_tested_ifs(struct planner *planner, const struct wd_prog *prog)
{
    for (uint32_t i = 0; i < prog->count; i++) {
        const struct wd_test *test = &prog->tests[i];

        if (test->field != WD_F_IFIDX)
            continue;
        if (test->op != WD_OP_EQ && test->op != WD_OP_NE)
            planner->ifs_decided = false;
        add_if(planner, test->lo);
    }
}

/* A sniffed packet's record cannot tell the outgoing interface unless the rule does. */
static void
collect_present_ifs(struct planner *planner)
{
    struct if_nameindex *list = if_nameindex();

    for (const struct if_nameindex *nif = list; nif && nif->if_index; nif++)
        if (planner->if_count < WD_RULE_IFS_MAX)
            add_if(planner, nif->if_index);
    if (list)
        if_freenameindex(list);
}

/* ---- One class ---------------------------------------------------------- */

static void
know(struct wd_known *known, enum wd_field field, uint64_t value)
{
    known->state[field] = WD_KNOWN;
    known->value[field] = value;
}

static struct wd_known
known_at(const struct planner *planner, const struct wd_rule *rule)
{
    struct wd_known known = {0};
    bool outbound = rule->hook == WD_HOOK_LOCAL_OUT;

    know(&known, WD_F_EVENT, WINDIVERT_EVENT_NETWORK_PACKET);
    know(&known, WD_F_SUBIFIDX, 0);
    know(&known, WD_F_OUTBOUND, outbound);
    know(&known, WD_F_INBOUND, !outbound);
    if (rule->dev != WD_RULE_ANY_DEV)
        know(&known, WD_F_LOOPBACK, rule->dev == WD_RULE_LOOPBACK_DEV);
    if (outbound && rule->dev == WD_RULE_LOOPBACK_DEV)
        know(&known, WD_F_IFIDX, LOOPBACK_IFINDEX);
    else if (outbound && (rule->oif || planner->ifs_decided))
        know(&known, WD_F_IFIDX, rule->oif ? rule->oif : OTHER_IFINDEX);
    else if (outbound)
        known.state[WD_F_IFIDX] = WD_UNDECIDED;
    if (planner->opts->action == WD_RULE_QUEUE) { /* decided by the library, with the Timestamp that it reports */
        known.state[WD_F_TIMESTAMP] = WD_UNDECIDED;
        known.state[WD_F_RANDOM8] = WD_UNDECIDED;
        known.state[WD_F_RANDOM16] = WD_UNDECIDED;
        known.state[WD_F_RANDOM32] = WD_UNDECIDED;
    }
    return known;
}

static int
load(const struct planner *planner, const struct wd_prog *prog, const struct wd_rule *rule, int *ret_fd)
{
    const struct wd_plan_opts *opts = planner->opts;
    struct wd_gen_opts gen = {
        .hook = rule->hook,
        .mode = opts->mode,
        .priority = opts->priority,
        .loopback_known = rule->dev != WD_RULE_ANY_DEV,
        .loopback = rule->dev == WD_RULE_LOOPBACK_DEV,
        .oif = rule->dev == WD_RULE_LOOPBACK_DEV ? LOOPBACK_IFINDEX : rule->oif,
        .inject_magic = wd_inbound_magic(),
        .counters_fd = opts->counters_fd,
        .ring_fd = opts->ring_fd,
        .bounded = !wd_bpf_can_loop(),
    };
    struct wd_code code;
    int error = wd_gen(prog, &gen, &code, planner->err);

    if (error)
        return error;
    error = wd_bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, code.insns, code.count, "wd_filter", ret_fd, planner->err);
    wd_code_free(&code);
    return error;
}

/* Instead of a program that cannot be had: everything but what carries a tag. */
static int
load_coarse(const struct planner *planner, const struct wd_rule *rule, int *ret_fd)
{
    const struct wd_prog all = {.layer = WINDIVERT_LAYER_NETWORK, .start = WD_ACCEPT};

    return load(planner, &all, rule, ret_fd);
}

static int
plan_class(struct planner *planner, struct wd_rule rule)
{
    struct wd_known known = known_at(planner, &rule);
    struct wd_prog *prog;
    bool exact;
    int error = wd_filter_specialise(planner->arena, planner->filter, &known, &prog, &exact);

    if (error)
        return wd_error_set(planner->err, error, NULL, "specialise the filter: %s", strerror(-error));
    if (prog->start == WD_REJECT)
        return 0;
    error = load(planner, prog, &rule, &rule.prog_fd);
    if (error && error != -EPERM && error != -ENOMEM) {
        exact = false;
        error = load_coarse(planner, &rule, &rule.prog_fd);
    }
    if (error)
        return error;
    planner->plan->exact &= exact;
    planner->plan->rule[planner->plan->count++] = rule;
    return 0;
}

/* ---- The NETWORK layer -------------------------------------------------- */

static struct wd_rule
rule_at(const struct planner *planner, enum wd_hook hook, enum wd_rule_dev dev)
{
    return (struct wd_rule){
        .hook = hook,
        .dev = dev,
        .prog_fd = -1,
        .action = planner->opts->action,
        .queue = planner->opts->queue,
    };
}

/* Outbound: loopback, each interface that matters, the others; or all in one where it makes no difference. */
static int
plan_out(struct planner *planner, bool split)
{
    struct wd_rule rest = rule_at(planner, WD_HOOK_LOCAL_OUT, WD_RULE_OTHER_DEV);
    int error;

    if (!split)
        return plan_class(planner, rule_at(planner, WD_HOOK_LOCAL_OUT, WD_RULE_ANY_DEV));
    error = plan_class(planner, rule_at(planner, WD_HOOK_LOCAL_OUT, WD_RULE_LOOPBACK_DEV));
    for (unsigned int i = 0; !error && i < planner->if_count; i++) {
        struct wd_rule rule = rule_at(planner, WD_HOOK_LOCAL_OUT, WD_RULE_OTHER_DEV);

        rule.oif = planner->ifs[i];
        error = plan_class(planner, rule);
    }
    memcpy(rest.not_oif, planner->ifs, sizeof(rest.not_oif));
    rest.not_oif_count = planner->if_count;
    return error ? error : plan_class(planner, rest);
}

int
wd_plan_network(const struct wd_filter *filter, const struct wd_plan_opts *opts, struct wd_plan *ret_plan,
                struct wd_error *err)
{
    const struct wd_prog *prog = wd_filter_prog(filter);
    struct wd_plan plan = {.exact = true};
    struct wd_arena arena;
    struct planner planner = {
        .filter = filter,
        .opts = opts,
        .plan = &plan,
        .arena = &arena,
        .err = err,
        .ifs_decided = true,
    };
    bool sniff = opts->mode == WD_GEN_SNIFF;
    int error;

    wd_arena_init(&arena, NULL);
    collect_tested_ifs(&planner, prog);
    if (sniff)
        collect_present_ifs(&planner);
    error = plan_out(&planner, sniff || reads(prog, WD_F_LOOPBACK) || reads(prog, WD_F_IFIDX));
    /* What came through the loopback device was seen outbound. */
    if (!error)
        error = plan_class(&planner, rule_at(&planner, WD_HOOK_LOCAL_IN, WD_RULE_OTHER_DEV));
    wd_arena_free(&arena);
    if (error) {
        wd_plan_free(&plan);
        return error;
    }
    *ret_plan = plan;
    return 0;
}

void
wd_plan_free(struct wd_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->rule[i].prog_fd >= 0)
            close(plan->rule[i].prog_fd);
    plan->count = 0;
}
