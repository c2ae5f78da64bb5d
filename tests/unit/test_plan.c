/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The plan where the kernel refuses programs: bpf(2) is replaced, no privilege is needed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "bpf/load.h"
#include "linux/plan.h"

/* What the replaced load does: the first `refused` programs get this error. */
static struct {
    int refused, error;
    int loads;
} kernel;

int __wrap_wd_bpf_load(enum bpf_prog_type type, const struct bpf_insn *insns, size_t count, const char *name,
                       int *ret_fd, struct wd_error *err);

int
__wrap_wd_bpf_load(enum bpf_prog_type type, const struct bpf_insn *insns, size_t count, const char *name, int *ret_fd,
                   struct wd_error *err)
{
    (void)type;
    (void)insns;
    (void)name;
    assert_true(count > 0);
    if (kernel.loads++ < kernel.refused)
        return wd_error_set(err, kernel.error, "report it", "the verifier says no to program %d", kernel.loads);
    *ret_fd = dup(STDERR_FILENO);
    return 0;
}

static int
plan_with(const char *text, bool fragments, struct wd_plan *ret_plan, struct wd_error *err)
{
    const struct wd_plan_opts opts = {
        .action = WD_RULE_QUEUE, .counters_fd = -1, .ring_fd = -1, .fragments = fragments};
    struct wd_filter_error bad;
    struct wd_filter *filter;
    struct wd_arena arena;
    int error;

    wd_arena_init(&arena, NULL);
    assert_int_equal(wd_filter_compile(&arena, text, WINDIVERT_LAYER_NETWORK, &filter, &bad), 0);
    kernel.loads = 0;
    error = wd_plan(filter, &opts, ret_plan, err);
    wd_arena_free(&arena);
    return error;
}

static int
plan(const char *text, struct wd_plan *ret_plan, struct wd_error *err)
{
    return plan_with(text, false, ret_plan, err);
}

static void
test_loads(void **state)
{
    struct wd_error err;
    struct wd_plan p;

    (void)state;
    kernel.refused = 0;
    assert_int_equal(plan("tcp", &p, &err), 0);
    assert_int_equal(kernel.loads, 4);
    assert_true(p.exact);
    assert_string_equal(p.refusal.text, "");
    assert_false(p.classes->split);
    assert_true(p.classes->next->split); /* aggregates over 65,535 bytes, behind it at the same hook */
    assert_int_equal(p.classes->next->hook, p.classes->hook);
    wd_plan_free(&p);
    assert_int_equal(plan("udp", &p, &err), 0);
    assert_int_equal(kernel.loads, 2); /* which only TCP makes */
    wd_plan_free(&p);
}

/* A program that lets everything through takes the place of the one that was refused; the library evaluates. */
static void
test_refused(void **state)
{
    static const int errors[] = {-EINVAL, -EACCES, -E2BIG};
    struct wd_error err;
    struct wd_plan p;

    (void)state;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        kernel.refused = 1;
        kernel.error = errors[i];
        assert_int_equal(plan("tcp", &p, &err), 0);
        assert_int_equal(kernel.loads, 5);
        assert_false(p.exact);
        assert_string_equal(p.refusal.text, "the verifier says no to program 1");
        assert_true(p.classes->coarse);
        assert_false(p.classes->next->coarse);
        assert_true(p.classes->prog_fd >= 0 && p.classes->next->prog_fd >= 0);
        assert_true(p.classes->rule_count > 1); /* the compares in front stay: they are true of every match */
        wd_plan_free(&p);
    }
}

/* Where not even that can be had there is no handle, and no descriptor is left. */
static void
test_refused_altogether(void **state)
{
    int before = dup(STDERR_FILENO), after;
    struct wd_error err;
    struct wd_plan p;

    (void)state;
    close(before);
    kernel.refused = 100;
    kernel.error = -EINVAL;
    assert_int_equal(plan("tcp", &p, &err), -EINVAL);
    assert_int_equal(kernel.loads, 2);
    kernel.error = -EPERM;
    assert_int_equal(plan("tcp", &p, &err), -EPERM);
    assert_int_equal(kernel.loads, 1); /* rights do not come by asking again */
    assert_string_equal(err.text, "the verifier says no to program 1");
    after = dup(STDERR_FILENO);
    assert_int_equal(after, before);
    close(after);
}

/* Nothing to install, nothing to load. */
static void
test_false(void **state)
{
    struct wd_error err;
    struct wd_plan p;

    (void)state;
    kernel.refused = 0;
    assert_int_equal(plan("inbound and outbound", &p, &err), 0);
    assert_int_equal(kernel.loads, 0);
    assert_int_equal(p.count, 0);
    wd_plan_free(&p);
    assert_int_equal(plan("outbound and udp", &p, &err), 0);
    assert_int_equal(kernel.loads, 1);
    wd_plan_free(&p);
}

static unsigned int
rules_at(const struct wd_plan *p, enum wd_hook hook)
{
    unsigned int count = 0;

    for (size_t i = 0; i < p->count; i++)
        count += p->rule[i].hook == hook;
    return count;
}

/* What comes in fragments is either taken singly or asked to be put together. */
static void
test_fragments(void **state)
{
    static const struct {
        const char *text;
        bool fragments, reassemble;
        int single, loads; /* rules at PRE_ROUTING; programs altogether */
    } cases[] = {
        {"udp", false, true, 0, 2},
        {"udp and ip", false, false, 0, 2},
        {"outbound and udp", false, false, 0, 1},
        {"udp", true, false, 2, 4},
        {"udp and ip", true, false, 2, 3},           /* fragments of IPv6 only get the tag */
        {"udp and not fragment", true, false, 2, 2}, /* all of them */
        {"udp and fragment", true, false, 2, 3},     /* nothing at LOCAL_IN; outbound there may be fragments */
        {"outbound and udp", true, false, 0, 1},
        {"false", true, false, 0, 0},
    };
    struct wd_error err;
    struct wd_plan p;

    (void)state;
    kernel.refused = 0;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(plan_with(cases[i].text, cases[i].fragments, &p, &err), 0);
        assert_int_equal(p.reassemble, cases[i].reassemble);
        assert_int_equal(rules_at(&p, WD_HOOK_PRE_ROUTING), cases[i].single);
        assert_int_equal(kernel.loads, cases[i].loads);
        assert_true(p.exact);
        wd_plan_free(&p);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loads), cmocka_unit_test(test_refused),   cmocka_unit_test(test_refused_altogether),
        cmocka_unit_test(test_false), cmocka_unit_test(test_fragments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
