/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What a handle would put into the kernel, as text. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/engine.h"
#include "bpf/dump.h"
#include "linux/plan.h"

struct explainer {
    FILE *out;
    const struct wd_open *open;
    const struct wd_plan *plan;
    bool programs;
};

static const char *const hook_names[WD_HOOKS] = {
    [WD_HOOK_LOCAL_OUT] = "LOCAL_OUT",
    [WD_HOOK_LOCAL_IN] = "LOCAL_IN",
    [WD_HOOK_FORWARD] = "FORWARD",
    [WD_HOOK_PRE_ROUTING] = "PRE_ROUTING",
};

static bool
has_flag(const struct explainer *e, uint64_t flag)
{
    return e->open->flags & flag;
}

static void
put_program(const struct explainer *e, const struct wd_plan_class *class)
{
    const struct wd_code *code = &class->code;

    if (code->count == 0) {
        fputs("    goes on\n", e->out);
        return;
    }
    fprintf(e->out, "    program of %zu instructions%s: %s\n", code->count,
            class->coarse ? " in place of one that the kernel refuses" : "",
            has_flag(e, WINDIVERT_FLAG_SNIFF)  ? "what matches is copied to the ring"
            : has_flag(e, WINDIVERT_FLAG_DROP) ? "what matches is dropped"
            : class->split                     ? "if a segment may match, the aggregate is taken apart"
                                               : "what matches goes to the queue");
    for (size_t at = 0; e->programs && at < code->count;) {
        char line[WD_DUMP_LINE];
        size_t taken = wd_dump_insn(code->insns, code->count, at, line, sizeof(line));

        fprintf(e->out, "    %5zu: %s\n", at, line);
        at += taken;
    }
}

static void
put_devices(const struct explainer *e, const struct wd_rule *rule)
{
    const char *what = rule->hook == WD_HOOK_LOCAL_OUT ? "outgoing device" : "incoming device";

    if (rule->dev == WD_RULE_ANY_DEV)
        return;
    fprintf(e->out, "  %s: ", what);
    if (rule->dev == WD_RULE_LOOPBACK_DEV)
        fputs("loopback", e->out);
    else if (rule->oif)
        fprintf(e->out, "number %" PRIu32, rule->oif);
    else
        fputs("not loopback", e->out);
    for (unsigned int i = 0; i < rule->not_oif_count; i++)
        fprintf(e->out, ", not number %" PRIu32, rule->not_oif[i]);
    fputc('\n', e->out);
}

static void
put_class(const struct explainer *e, const struct wd_plan_class *class)
{
    const struct wd_rule *rule = e->plan->rule + class->first_rule;
    char text[WD_PREFIX_TEXT];

    if (class->rule_count)
        put_devices(e, rule);
    if (class->rule_count && rule->min_length)
        fprintf(e->out, "    if meta length >= %" PRIu32 "\n", rule->min_length);
    if (class->rule_count && rule->fragments)
        fprintf(e->out, "    if a fragment of IPv%d for this machine, which gets meta priority 0x%x:\n",
                rule->fragments == WD_RULE_FRAGMENTS4 ? 4 : 6, WD_TAG_FRAGMENT);
    for (size_t i = 0; i < class->rule_count; i++) {
        wd_native_format(rule[i].prefix, text, sizeof(text));
        if (*text)
            fprintf(e->out, "    if %s\n", text);
    }
    put_program(e, class);
}

static void
put_hook(const struct explainer *e, enum wd_hook hook)
{
    bool any = false;

    for (const struct wd_plan_class *class = e->plan->classes; class; class = class->next) {
        if (class->hook != hook || (!class->linked && !class->rule_count))
            continue;
        if (!any)
            fprintf(e->out, "%s: %s, priority %" PRId32 "\n", hook_names[hook],
                    class->linked ? "netfilter links for IPv4 and IPv6" : "nftables chain",
                    wd_hook_priority(e->open->priority));
        any = true;
        put_class(e, class);
    }
    if (!any)
        fprintf(e->out, "%s: nothing\n", hook_names[hook]);
}

static void
put_decision(const struct explainer *e)
{
    const char *comma = " ";

    if (e->plan->exact) {
        fputs("decided in the kernel\n", e->out);
        return;
    }
    fputs("decided in the kernel as far as it can be, then by the library:", e->out);
    for (int field = 0; field < WD_FIELD_COUNT; field++) {
        if (!e->plan->undecided[field])
            continue;
        fprintf(e->out, "%s%s", comma, wd_fields[field].name);
        comma = ", ";
    }
    fputc('\n', e->out);
}

static void
put_plan(const struct explainer *e)
{
    put_decision(e);
    if (e->open->layer == WINDIVERT_LAYER_NETWORK_FORWARD) {
        put_hook(e, WD_HOOK_FORWARD);
    } else {
        put_hook(e, WD_HOOK_LOCAL_OUT);
        if (has_flag(e, WINDIVERT_FLAG_FRAGMENTS))
            put_hook(e, WD_HOOK_PRE_ROUTING);
        put_hook(e, WD_HOOK_LOCAL_IN);
    }
}

/* As the engine does it: links if they can be had, a queue where a filter that drops cannot be decided. */
static int
make_plan(const struct wd_open *open, const struct wd_filter *filter, struct wd_plan *ret_plan, struct wd_error *err)
{
    bool sniff = open->flags & WINDIVERT_FLAG_SNIFF, drop = open->flags & WINDIVERT_FLAG_DROP;
    struct wd_plan_opts opts = {
        .mode = sniff ? WD_GEN_SNIFF : WD_GEN_MATCH,
        .action = sniff  ? WD_RULE_NONE
                  : drop ? WD_RULE_DROP
                         : WD_RULE_QUEUE,
        .priority = open->priority,
        .counters_fd = 0,
        .ring_fd = 0,
        .links = sniff || drop,
        .fragments = open->flags & WINDIVERT_FLAG_FRAGMENTS,
        .dry = true,
    };
    int error = wd_plan(filter, &opts, ret_plan, err);

    if (error == -EOPNOTSUPP && opts.links) {
        opts.links = false;
        opts.routes = sniff;
        error = wd_plan(filter, &opts, ret_plan, err);
    }
    if (!error && drop && !ret_plan->exact) {
        wd_plan_free(ret_plan);
        opts.action = WD_RULE_QUEUE;
        opts.links = false;
        error = wd_plan(filter, &opts, ret_plan, err);
    }
    return error;
}

static int
explain(struct explainer *e, const struct wd_filter *filter, struct wd_error *err)
{
    struct wd_plan plan;
    int error;

    if (has_flag(e, WINDIVERT_FLAG_SEND_ONLY)) {
        fputs("nothing in the path of packets: the handle only sends\n", e->out);
        return 0;
    }
    error = make_plan(e->open, filter, &plan, err);
    if (error)
        return error;
    e->plan = &plan;
    put_plan(e);
    wd_plan_free(&plan);
    return 0;
}

int
wd_engine_explain(const struct wd_open *open, bool programs, char **ret_text, struct wd_error *err)
{
    struct explainer e = {.open = open, .programs = programs};
    struct wd_filter_error bad;
    struct wd_filter *filter;
    struct wd_arena arena;
    char *text = NULL;
    size_t size = 0;
    int error;

    if (open->layer != WINDIVERT_LAYER_NETWORK && open->layer != WINDIVERT_LAYER_NETWORK_FORWARD)
        return wd_error_set(err, -EOPNOTSUPP, NULL, "explain: only filters of packets become programs");
    wd_arena_init(&arena, NULL);
    error = wd_filter_compile(&arena, open->object, open->layer, &filter, &bad);
    if (error)
        wd_error_set(err, error, NULL, "explain: %s", wd_filter_strerror(bad.code));
    e.out = error ? NULL : open_memstream(&text, &size);
    if (!error && !e.out)
        error = wd_error_set(err, -ENOMEM, NULL, "explain: out of memory");
    if (!error)
        error = explain(&e, filter, err);
    if (e.out && (fclose(e.out) != 0 || !text) && !error)
        error = wd_error_set(err, -ENOMEM, NULL, "explain: out of memory");
    wd_arena_free(&arena);
    if (error) {
        free(text);
        return error;
    }
    *ret_text = text;
    return 0;
}
