/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "plan.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/btf.h"
#include "bpf/load.h"
#include "linux/inbound.h"
#include "linux/tier.h"

#define BIG (UINT16_MAX + 1)              /* bytes of aggregates that are no packets */
#define LOOPBACK_IFINDEX 1                /* in every network namespace */
#define PREFIXED_IFS_MAX 2                /* interfaces with rules of their own, up to which prefixes pay */
#define NO_IFINDEX 0                      /* of no interface */
#define OTHER_IFINDEX (UINT64_C(1) << 32) /* stands for all that have no rule of their own: no test can name it */

struct planner {
    const struct wd_filter *filter;
    const struct wd_plan_opts *opts;
    struct wd_plan *plan;
    struct wd_error *err;
    const struct wd_kernel *kernel; /* programs for links */
    const struct wd_kernel *route;  /* programs that find the outgoing interface in the route */
    uint32_t ifs[WD_RULE_IFS_MAX];  /* interfaces that have a rule of their own at LOCAL_OUT */
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

/* In these fields a segment is not like the aggregate. */
static void
know_aggregate(struct wd_known *known)
{
    static const enum wd_field fields[] = {
        WD_F_LENGTH,        WD_F_PACKET,        WD_F_PACKET16,      WD_F_PACKET32,     WD_F_IP_LENGTH,
        WD_F_IP_ID,         WD_F_IP_CHECKSUM,   WD_F_IPV6_LENGTH,   WD_F_IPV6_NEXTHDR, WD_F_TCP_SEQNUM,
        WD_F_TCP_PSH,       WD_F_TCP_FIN,       WD_F_TCP_CHECKSUM,  WD_F_TCP_PAYLOAD,  WD_F_TCP_PAYLOADLENGTH,
        WD_F_TCP_PAYLOAD16, WD_F_TCP_PAYLOAD32, WD_F_UDP_LENGTH,    WD_F_UDP_CHECKSUM, WD_F_UDP_PAYLOADLENGTH,
        WD_F_UDP_PAYLOAD,   WD_F_UDP_PAYLOAD16, WD_F_UDP_PAYLOAD32,
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        known->state[fields[i]] = WD_UNDECIDED;
}

/* Of programs for links; NULL: the program is for a rule. */
static const struct wd_kernel *
kernel_at(const struct planner *planner, enum wd_hook hook)
{
    return hook == WD_HOOK_PRE_ROUTING ? NULL : planner->kernel;
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
    else if (planner->kernel && rule->hook == WD_HOOK_LOCAL_IN)
        know(&known, WD_F_LOOPBACK, 0);
    else if (planner->kernel)
        ; /* the program sees them */
    else if (outbound && (rule->oif || planner->ifs_decided))
        know(&known, WD_F_IFIDX, rule->oif ? rule->oif : OTHER_IFINDEX);
    else if (outbound)
        known.state[WD_F_IFIDX] = WD_UNDECIDED;
    if (rule->min_length == BIG)
        know(&known, WD_F_TCP, 1); /* nothing else makes aggregates of that size */
    if (rule->min_length || rule->form == WD_GEN_WHOLE_AGGREGATES)
        know_aggregate(&known);
    if (planner->opts->fragments && !outbound)
        know(&known, WD_F_FRAGMENT, rule->fragments != WD_RULE_WHOLE);
    if (rule->fragments) {
        know(&known, WD_F_IP, rule->fragments == WD_RULE_FRAGMENTS4);
        know(&known, WD_F_IPV6, rule->fragments == WD_RULE_FRAGMENTS6);
    }
    if (planner->opts->action == WD_RULE_QUEUE) { /* decided by the library, with the Timestamp that it reports */
        known.state[WD_F_TIMESTAMP] = WD_UNDECIDED;
        known.state[WD_F_RANDOM8] = WD_UNDECIDED;
        known.state[WD_F_RANDOM16] = WD_UNDECIDED;
        known.state[WD_F_RANDOM32] = WD_UNDECIDED;
    }
    return known;
}

static int
generate(const struct planner *planner, const struct wd_prog *prog, const struct wd_rule *rule,
         struct wd_plan_class *class)
{
    const struct wd_plan_opts *opts = planner->opts;
    struct wd_gen_opts gen = {
        .hook = rule->hook,
        .mode = opts->mode,
        .counter = opts->action == WD_RULE_DROP ? WD_COUNT_DROPPED : WD_COUNT_MATCHED,
        .priority = opts->priority,
        .loopback_known = rule->dev != WD_RULE_ANY_DEV,
        .loopback = rule->dev == WD_RULE_LOOPBACK_DEV,
        .oif = rule->dev == WD_RULE_LOOPBACK_DEV ? LOOPBACK_IFINDEX : rule->oif,
        .inject_magic = wd_inbound_magic(),
        .counters_fd = rule->min_length ? -1 : opts->counters_fd, /* what is split is counted when it comes again */
        .ring_fd = rule->min_length ? -1 : opts->ring_fd,
        .bounded = !wd_bpf_can_loop() || !wd_tier_has(WD_FEATURE_MAY_GOTO),
        .kernel = kernel_at(planner, rule->hook),
        .route = rule->hook == WD_HOOK_LOCAL_OUT ? planner->route : NULL,
        .single = opts->fragments && rule->hook == WD_HOOK_LOCAL_IN,
        .form = rule->form,
        .flows_fd = opts->flows_fd,
        .flow_limit = opts->flow_limit,
        .flow_counts = opts->flow_counts && !rule->min_length, /* segments come again */
        .big = rule->min_length || rule->form != WD_GEN_ANY_FORM || opts->action != WD_RULE_QUEUE,
    };
    enum bpf_prog_type type = gen.kernel ? WD_BPF_PROG_TYPE_NETFILTER : BPF_PROG_TYPE_SOCKET_FILTER;
    int error = wd_gen(prog, &gen, &class->code, planner->err);

    if (error || opts->dry)
        return error;
    return wd_bpf_load(type, class->code.insns, class->code.count, "wd_filter", &class->prog_fd, planner->err);
}

/* Instead of a program that cannot be had: everything but what carries a tag. */
static int
generate_coarse(const struct planner *planner, const struct wd_rule *rule, struct wd_plan_class *class)
{
    const struct wd_prog all = {.layer = WINDIVERT_LAYER_NETWORK, .start = WD_ACCEPT};

    wd_code_free(&class->code);
    class->coarse = true;
    return generate(planner, &all, rule, class);
}

static struct wd_rule *
new_rule(struct wd_plan *plan, const struct wd_rule *like)
{
    if (plan->count == plan->room) {
        size_t room = plan->room ? 2 * plan->room : 8;
        struct wd_rule *more = realloc(plan->rule, room * sizeof(*more));

        if (!more)
            return NULL;
        plan->rule = more;
        plan->room = room;
    }
    plan->rule[plan->count] = *like;
    return &plan->rule[plan->count++];
}

/* The rules of a class: one for each prefix; a single one where there are many classes, as each costs every packet. */
static int
add_rules(struct planner *planner, const struct wd_prog *prog, const struct wd_rule *like,
          struct wd_plan_class *class)
{
    struct wd_plan *plan = planner->plan;
    struct wd_prefix *prefix = wd_arena_alloc(&plan->arena, WD_PREFIXES_MAX, sizeof(*prefix));
    bool prefixed = !like->min_length && !like->fragments && planner->if_count <= PREFIXED_IFS_MAX;
    unsigned int count = 1; /* one that says nothing */
    int error = 0;

    if (!prefix)
        return -ENOMEM;
    if (prefixed)
        error = wd_native_prefixes(&plan->arena, prog, like->hook == WD_HOOK_LOCAL_OUT, prefix, &count);
    for (unsigned int i = 0; i < count && !error; i++) {
        struct wd_rule *rule = new_rule(plan, like);

        if (!rule)
            return -ENOMEM;
        rule->prefix = &prefix[i];
        rule->prog_fd = class->prog_fd;
        class->rule_count++;
    }
    return error;
}

static struct wd_plan_class *
new_class(struct planner *planner, enum wd_hook hook, bool split)
{
    struct wd_plan *plan = planner->plan;
    struct wd_plan_class *class = wd_arena_alloc(&plan->arena, 1, sizeof(*class));

    if (!class)
        return NULL;
    class->prog_fd = -1;
    class->hook = hook;
    class->split = split;
    class->linked = kernel_at(planner, hook);
    class->first_rule = plan->count;
    *plan->last_class = class;
    plan->last_class = &class->next;
    return class;
}

/* What the kernel refuses of a program is decided here instead; what it does not grant, it will not grant then. */
static bool
is_refusal(int error)
{
    return error && error != -EPERM && error != -ENOMEM;
}

static void
note_undecided(struct planner *planner, const struct wd_known *known)
{
    const struct wd_prog *prog = wd_filter_prog_plain(planner->filter);

    for (uint32_t i = 0; i < prog->count; i++)
        planner->plan->undecided[prog->tests[i].field] |= known->state[prog->tests[i].field] == WD_UNDECIDED;
}

/* Does the filter read what differs between an aggregate and its segments? */
static bool
reads_of_segments(const struct planner *planner)
{
    const struct wd_prog *prog = wd_filter_prog_plain(planner->filter);
    struct wd_known known = {0};

    know_aggregate(&known);
    for (uint32_t i = 0; i < prog->count; i++)
        if (known.state[prog->tests[i].field] == WD_UNDECIDED)
            return true;
    return false;
}

static int
plan_class(struct planner *planner, const struct wd_rule *like)
{
    struct wd_known known = known_at(planner, like);
    struct wd_plan *plan = planner->plan;
    struct wd_plan_class *class;
    struct wd_prog *prog;
    bool exact;
    int error = wd_filter_specialise(&plan->arena, planner->filter, &known, &prog, &exact);

    if (!error && prog->start == WD_REJECT)
        return 0;
    class = error ? NULL : new_class(planner, like->hook, like->min_length);
    if (!class)
        return wd_error_set(planner->err, -ENOMEM, NULL, "specialise the filter: out of memory");
    error = generate(planner, prog, like, class);
    if (is_refusal(error) && ((class->linked && !planner->opts->keep_links) || planner->route))
        return -EOPNOTSUPP;
    if (is_refusal(error)) {
        if (planner->err)
            plan->refusal = *planner->err;
        error = generate_coarse(planner, like, class);
    }
    if (error)
        return error;
    if (!class->split) {
        plan->exact &= exact && !class->coarse;
        if (!exact)
            note_undecided(planner, &known);
    }
    if (class->linked)
        return 0;
    error = add_rules(planner, prog, like, class);
    return error ? wd_error_set(planner->err, error, NULL, "plan the rules: out of memory") : 0;
}

/* Aggregates of which a segment may match go to the queue that takes them apart; the segments come again. */
static int
plan_split(struct planner *planner, const struct wd_rule *like, uint32_t min_length, enum wd_gen_form form)
{
    struct wd_rule split = *like;

    split.min_length = min_length;
    split.form = form;
    split.queue = planner->opts->split;
    return plan_class(planner, &split);
}

/*
 * The queue itself takes aggregates apart, also those of more than 65,535
 * bytes.  Where the filter reads what differs between aggregate and segment there
 * is a program for them alone: it says whether some segment may match, and the
 * library which.  What would come cut from the queue is split first.
 */
static int
plan_segments(struct planner *planner, const struct wd_rule *like)
{
    bool differs = reads_of_segments(planner);
    struct wd_rule part = *like;
    int error;

    part.form = differs ? WD_GEN_NO_AGGREGATES : WD_GEN_WHOLE;
    error = plan_class(planner, &part);
    part.form = WD_GEN_WHOLE_AGGREGATES;
    if (!error && differs)
        error = plan_class(planner, &part);
    return error ? error : plan_split(planner, like, WD_GEN_SEGMENT_MAX + 1, WD_GEN_LONG_AGGREGATES);
}

/* Aggregates of more than 65,535 bytes are no packets to a program that diverts. */
static int
plan_both(struct planner *planner, const struct wd_rule *like)
{
    int error;

    if (planner->opts->segments)
        return plan_segments(planner, like);
    error = plan_class(planner, like);
    if (error || planner->opts->action != WD_RULE_QUEUE)
        return error;
    return plan_split(planner, like, BIG, WD_GEN_ANY_FORM);
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

static int
plan_dev(struct planner *planner, enum wd_hook hook, enum wd_rule_dev dev, uint32_t oif)
{
    struct wd_rule like = rule_at(planner, hook, dev);

    like.oif = oif;
    return plan_both(planner, &like);
}

/* Outgoing by none of the interfaces that have rules of their own. */
static int
plan_rest(struct planner *planner)
{
    struct wd_rule like = rule_at(planner, WD_HOOK_LOCAL_OUT, WD_RULE_OTHER_DEV);
    uint32_t *ifs = wd_arena_alloc(&planner->plan->arena, WD_RULE_IFS_MAX, sizeof(*ifs));

    if (!ifs)
        return wd_error_set(planner->err, -ENOMEM, NULL, "plan the rules: out of memory");
    memcpy(ifs, planner->ifs, sizeof(planner->ifs));
    like.not_oif = ifs;
    like.not_oif_count = planner->if_count;
    return plan_both(planner, &like);
}

/* Outbound: loopback, each interface that matters, the others; or all in one where it makes no difference. */
static int
plan_out(struct planner *planner, bool split)
{
    int error;

    if (!split)
        return plan_dev(planner, WD_HOOK_LOCAL_OUT, WD_RULE_ANY_DEV, 0);
    error = plan_dev(planner, WD_HOOK_LOCAL_OUT, WD_RULE_LOOPBACK_DEV, 0);
    for (unsigned int i = 0; !error && i < planner->if_count; i++)
        error = plan_dev(planner, WD_HOOK_LOCAL_OUT, WD_RULE_OTHER_DEV, planner->ifs[i]);
    return error ? error : plan_rest(planner);
}

/* Fragments that the filter does not match have the tag, too: the handle gets no packet that came in fragments. */
static int
plan_tag(struct planner *planner, const struct wd_rule *like)
{
    struct wd_plan_class *class = new_class(planner, like->hook, false);
    struct wd_rule *rule = class ? new_rule(planner->plan, like) : NULL;

    if (!rule)
        return wd_error_set(planner->err, -ENOMEM, NULL, "plan the rules: out of memory");
    rule->action = WD_RULE_NONE;
    class->rule_count = 1;
    return 0;
}

static int
plan_fragments(struct planner *planner, bool whole)
{
    struct wd_rule like = rule_at(planner, WD_HOOK_PRE_ROUTING, WD_RULE_OTHER_DEV);
    int error = 0;

    for (like.fragments = WD_RULE_FRAGMENTS4; like.fragments <= WD_RULE_FRAGMENTS6 && !error; like.fragments++) {
        struct wd_plan_class **last = planner->plan->last_class;

        error = plan_class(planner, &like);
        if (!error && whole && !*last)
            error = plan_tag(planner, &like);
    }
    return error;
}

/* May an IPv6 packet match that comes in? */
static int
wants_ip6(struct planner *planner, const struct wd_rule *like, bool *ret_wants)
{
    struct wd_known known = known_at(planner, like);
    struct wd_prog *prog;
    bool exact;
    int error;

    know(&known, WD_F_IP, 0);
    know(&known, WD_F_IPV6, 1);
    error = wd_filter_specialise(&planner->plan->arena, planner->filter, &known, &prog, &exact);
    if (error)
        return wd_error_set(planner->err, -ENOMEM, NULL, "specialise the filter: out of memory");
    *ret_wants = prog->start != WD_REJECT;
    return 0;
}

/* What came through the loopback device was seen outbound. */
static int
plan_in(struct planner *planner)
{
    struct wd_rule like =
        rule_at(planner, WD_HOOK_LOCAL_IN, planner->opts->links ? WD_RULE_ANY_DEV : WD_RULE_OTHER_DEV);
    struct wd_plan_class **last = planner->plan->last_class;
    int error = plan_both(planner, &like);

    if (error)
        return error;
    if (planner->opts->fragments)
        return plan_fragments(planner, *last);
    return wants_ip6(planner, &like, &planner->plan->reassemble);
}

static int
plan_network(struct planner *planner)
{
    const struct wd_prog *prog = wd_filter_prog_plain(planner->filter);
    bool sniff = planner->opts->mode == WD_GEN_SNIFF, links = planner->opts->links;
    int error;

    if (!links)
        collect_tested_ifs(planner, prog);
    if (!links && sniff && !planner->route)
        collect_present_ifs(planner);
    error = plan_out(planner, !links && (sniff || reads(prog, WD_F_LOOPBACK) || reads(prog, WD_F_IFIDX)));
    return error ? error : plan_in(planner);
}

int
wd_plan(const struct wd_filter *filter, const struct wd_plan_opts *opts, struct wd_plan *plan, struct wd_error *err)
{
    struct planner planner = {.filter = filter, .opts = opts, .plan = plan, .err = err, .ifs_decided = true};
    int error;

    if (opts->links && wd_tier_has(WD_FEATURE_NETFILTER_LINK))
        planner.kernel = wd_kernel();
    if (opts->links && !planner.kernel)
        return -EOPNOTSUPP;
    if (opts->routes && wd_tier_has(WD_FEATURE_NETFILTER_LINK))
        planner.route = wd_kernel();
    *plan = (struct wd_plan){.exact = true};
    plan->last_class = &plan->classes;
    wd_arena_init(&plan->arena, NULL);
    if (wd_filter_prog(filter)->layer == WINDIVERT_LAYER_NETWORK)
        error = plan_network(&planner);
    else
        error = plan_dev(&planner, WD_HOOK_FORWARD, WD_RULE_ANY_DEV, 0);
    if (error)
        wd_plan_free(plan);
    return error;
}

void
wd_plan_free(struct wd_plan *plan)
{
    for (struct wd_plan_class *class = plan->classes; class; class = class->next) {
        if (class->prog_fd >= 0)
            close(class->prog_fd);
        wd_code_free(&class->code);
    }
    free(plan->rule);
    wd_arena_free(&plan->arena);
}
