/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "filter_law.h"

#include <stdlib.h>
#include <string.h>

#include "core/optimise.h"

/* One filter in all its forms. */
struct forms {
    struct wd_filter *filter, *from_text, *from_object;
    struct wd_prog *unfolded, *specialised, *specialised_plain, *again, *unfolded_optimised, by_hand;
    char *text, *object;
};

enum { PROGRAMS = 10 };

bool
law_program_valid(const struct wd_prog *prog)
{
    if (prog->start >= prog->count && prog->start < WD_REJECT)
        return false;
    for (uint32_t i = 0; i < prog->count; i++) {
        const struct wd_test *test = &prog->tests[i];

        if (test->yes <= i || (test->yes >= prog->count && test->yes < WD_REJECT) || test->no <= i ||
            (test->no >= prog->count && test->no < WD_REJECT))
            return false;
    }
    return true;
}

typedef int write_function(const struct wd_filter *filter, char *buffer, size_t size, size_t *ret_needed);

/* The text a filter writes, where one byte less is refused and leaves the buffer alone. */
static char *
written(struct wd_arena *arena, const struct wd_filter *filter, write_function *function)
{
    size_t needed = 0, again = 0;
    char *buffer;

    if (function(filter, NULL, 0, &needed) == 0 || !needed)
        return NULL;
    buffer = wd_arena_alloc(arena, 1, needed);
    if (!buffer || function(filter, buffer, needed - 1, NULL) == 0 || buffer[0])
        return NULL;
    if (function(filter, buffer, needed, &again) < 0 || again != needed || strlen(buffer) + 1 != needed)
        return NULL;
    return buffer;
}

static bool
writes(struct wd_arena *arena, const struct wd_filter *filter, write_function *function, const char *expected)
{
    char *text = written(arena, filter, function);

    return text && strcmp(text, expected) == 0;
}

static const char *
check_refused(const char *text, const struct wd_filter_error *error)
{
    if (error->code == WD_FILTER_OK || error->code >= WD_FILTER_CODE_COUNT)
        return "refused without an error";
    return error->pos > strlen(text) ? "the error is beyond the text" : NULL;
}

/* Text and object are normal forms: compiled, they give themselves and each other. */
static const char *
check_forms(struct wd_arena *arena, struct forms *forms, WINDIVERT_LAYER layer)
{
    struct wd_filter_error error;

    forms->text = written(arena, forms->filter, wd_filter_format);
    forms->object = written(arena, forms->filter, wd_filter_object);
    if (!forms->text || !forms->object)
        return "text or object is not written as promised";
    if (wd_filter_compile(arena, forms->text, layer, &forms->from_text, &error) < 0)
        return "the canonical text does not compile";
    if (wd_filter_compile(arena, forms->object, layer, &forms->from_object, &error) < 0)
        return "the object does not compile";
    if (!writes(arena, forms->from_text, wd_filter_format, forms->text))
        return "the canonical text is not canonical";
    if (!writes(arena, forms->from_text, wd_filter_object, forms->object))
        return "the canonical text has another object";
    if (!writes(arena, forms->from_object, wd_filter_object, forms->object))
        return "the object has another object";
    if (!writes(arena, forms->from_object, wd_filter_format, forms->text))
        return "the object has another text";
    return NULL;
}

static const char *
check_equal(const struct forms *forms, const struct law_subject *subject, bool *ret_outcome)
{
    const struct {
        const char *name;
        const struct wd_prog *prog;
    } forms_of[PROGRAMS] = {
        {NULL, wd_filter_prog_plain(forms->filter)},
        {"optimised", wd_filter_prog(forms->filter)},
        {"unfolded", forms->unfolded},
        {"unfolded, optimised", forms->unfolded_optimised},
        {"optimised twice", forms->again},
        {"from the text", wd_filter_prog(forms->from_text)},
        {"from the object", wd_filter_prog(forms->from_object)},
        {"specialised", forms->specialised},
        {"specialised, not optimised", forms->specialised_plain},
        {"without steps", &forms->by_hand},
    };
    bool outcome = wd_prog_eval(forms_of[0].prog, subject->packet, subject->addr);

    for (int i = 1; i < PROGRAMS; i++) {
        if (!law_program_valid(forms_of[i].prog))
            return "a jump goes astray";
        if (wd_prog_eval(forms_of[i].prog, subject->packet, subject->addr) != outcome)
            return forms_of[i].name;
    }
    *ret_outcome = outcome;
    return NULL;
}

/* The fields a specialised program knows: all that are 0 or 1 and always there, and the interface. */
static uint64_t
flag_value(const struct law_subject *subject, enum wd_field field, WINDIVERT_LAYER layer)
{
    struct wd_test test = {.field = (uint8_t)field, .op = WD_OP_NE, .yes = WD_ACCEPT, .no = WD_REJECT};
    struct wd_prog prog = {.layer = layer, .count = 1, .tests = &test};

    return wd_prog_eval(&prog, subject->packet, subject->addr);
}

static void
choose_knowledge(const struct law_subject *subject, WINDIVERT_LAYER layer, uint64_t choice, bool undecided,
                 struct wd_known *ret_known)
{
    memset(ret_known, 0, sizeof(*ret_known));
    for (int field = 0; field < WD_FIELD_COUNT; field++) {
        const struct wd_field_info *info = &wd_fields[field];
        bool chosen = choice >> (field % 61) & 1, blurred = choice >> ((field + 7) % 59) & 1;

        if (!(info->layers & 1 << layer))
            continue;
        if (undecided && blurred) {
            ret_known->state[field] = WD_UNDECIDED;
        } else if (chosen && info->src == WD_SRC_META && info->kind == WD_KIND_FLAG) {
            ret_known->state[field] = WD_KNOWN;
            ret_known->value[field] = flag_value(subject, (enum wd_field)field, layer);
        } else if (chosen && field == WD_F_IFIDX) {
            ret_known->state[field] = WD_KNOWN;
            ret_known->value[field] = subject->addr->Network.IfIdx;
        }
    }
}

static const char *
check_specialised(struct wd_arena *arena, const struct wd_filter *filter, const struct law_subject *subject,
                  bool outcome, uint64_t choice)
{
    WINDIVERT_LAYER layer = wd_filter_prog(filter)->layer;

    for (int undecided = 0; undecided < 2; undecided++) {
        struct wd_known known;
        struct wd_prog *prog, *plain;
        bool exact = false, exact_plain = false, may;

        choose_knowledge(subject, layer, choice, undecided, &known);
        if (wd_filter_specialise(arena, filter, &known, &prog, &exact) < 0)
            return "cannot be specialised";
        if (wd_filter_specialise_plain(arena, filter, &known, &plain, &exact_plain) < 0 || exact != exact_plain)
            return "cannot be specialised without being optimised";
        may = wd_prog_eval(prog, subject->packet, subject->addr);
        if (wd_prog_eval(plain, subject->packet, subject->addr) != may)
            return "specialised, optimised";
        if (!law_program_valid(prog))
            return "a jump goes astray after specialisation";
        if (!undecided && !exact)
            return "not exact, though nothing is undecided";
        if (exact ? may != outcome : outcome && !may)
            return undecided ? "specialised with undecided fields" : "specialised with known fields";
    }
    return NULL;
}

static const char *
check_accepted(struct wd_arena *arena, struct forms *forms, WINDIVERT_LAYER layer, const struct law_subject *subjects,
               size_t count, uint64_t choice, const char *text)
{
    const struct wd_known nothing = {0};
    const char *broken = check_forms(arena, forms, layer);
    bool exact = false, outcome = false;

    if (broken)
        return broken;
    if (wd_filter_prog_unfolded(arena, text, layer, &forms->unfolded) < 0)
        return "does not compile unfolded";
    if (wd_filter_specialise(arena, forms->filter, &nothing, &forms->specialised, &exact) < 0 || !exact)
        return "specialised with nothing known, it is not exact";
    if (wd_filter_specialise_plain(arena, forms->filter, &nothing, &forms->specialised_plain, &exact) < 0)
        return "not specialised without being optimised";
    if (wd_prog_optimise(arena, wd_filter_prog(forms->filter), &forms->again) < 0 ||
        wd_prog_optimise(arena, forms->unfolded, &forms->unfolded_optimised) < 0)
        return "not optimised";
    if (wd_filter_prog(forms->filter)->count > WD_OPTIMISE_GROWTH * wd_filter_prog_plain(forms->filter)->count)
        return "the optimised program is too large";
    forms->by_hand = *wd_filter_prog(forms->filter);
    forms->by_hand.steps = NULL;
    for (size_t i = 0; i < count && !broken; i++) {
        broken = check_equal(forms, &subjects[i], &outcome);
        if (!broken && i % 8 == 0)
            broken = check_specialised(arena, forms->filter, &subjects[i], outcome, choice * (i + 1));
    }
    return broken;
}

const char *
law_check(const char *text, WINDIVERT_LAYER layer, const struct law_subject *subjects, size_t count, uint64_t choice,
          struct law_counts *counts)
{
    struct wd_filter_error error = {WD_FILTER_OK, 0};
    struct forms forms = {0};
    struct wd_arena arena;
    const char *broken;

    wd_arena_init(&arena, NULL);
    if (wd_filter_compile(&arena, text, layer, &forms.filter, &error) < 0) {
        counts->refused++;
        broken = check_refused(text, &error);
    } else {
        counts->accepted++;
        counts->evaluations += count;
        broken = check_accepted(&arena, &forms, layer, subjects, count, choice, text);
    }
    wd_arena_free(&arena);
    return broken;
}
