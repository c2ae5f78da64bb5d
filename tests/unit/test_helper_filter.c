/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* CompileFilter, EvalFilter and FormatFilter as a program calls them: the vectors, and everything that fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "filter_corpus.h"
#include "windivert_ext.h"

#define OBJECT_MAX 65536

static struct corpus *corpus;
static char object[OBJECT_MAX], form[OBJECT_MAX];

static int
load(void **state)
{
    (void)state;
    corpus = corpus_load();
    return 0;
}

static int
unload(void **state)
{
    (void)state;
    corpus_free(corpus);
    return 0;
}

/* ---- the vectors ---------------------------------------------------------- */

static void
test_every_filter_compiles_or_says_why(void **state)
{
    unsigned accepted = 0, refused = 0;

    (void)state;
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        const struct corpus_filter *filter = &corpus->filters[i];
        BOOL expected, ok;
        const char *why = NULL;
        UINT pos = 4711;

        if (!filter->text) /* no such id */
            continue;
        expected = strcmp(filter->verdict, "ok") == 0;
        SetLastError(0);
        ok = WinDivertHelperCompileFilter(filter->text, filter->layer, NULL, 0, &why, &pos);
        if (ok != expected || strcmp(why, expected ? "No error" : filter->verdict) != 0 || pos != filter->pos)
            fail_msg("'%s': %s at %u, not %s at %u", filter->text, why, pos, filter->verdict, filter->pos);
        assert_int_equal(GetLastError(), expected ? 0 : ERROR_INVALID_PARAMETER);
        ok ? accepted++ : refused++;
    }
    print_message("%u filters accepted, %u refused\n", accepted, refused);
    assert_int_equal(accepted + refused, 1498);
}

static void
check_outcome(const struct corpus_filter *filter, const char *text, char expected, const void *packet, size_t len,
              const WINDIVERT_ADDRESS *addr)
{
    BOOL match;

    SetLastError(4711);
    match = WinDivertHelperEvalFilter(text, packet, (UINT)len, addr);
    if (match != expected - '0')
        fail_msg("'%s' as '%s': %d, not %c", filter->text, text, match, expected);
    assert_int_equal(GetLastError(), match ? 4711 : 0);
}

/* One digit per evaluation; see the README of the vectors.  How many there were. */
static unsigned
check_matches(const struct corpus_filter *filter, const char *text)
{
    const char *digit = filter->matches;

    if (filter->layer > WINDIVERT_LAYER_NETWORK_FORWARD) {
        for (size_t i = 0; i < corpus->event_count[filter->layer]; i++)
            check_outcome(filter, text, *digit++, NULL, 0, &corpus->events[filter->layer][i]);
    } else {
        for (size_t i = 0; i < corpus->packet_count; i++)
            for (int a = 0; a < CORPUS_ADDRESSES; a++)
                check_outcome(filter, text, *digit++, corpus->packets[i].data, corpus->packets[i].len,
                              &corpus->packets[i].addr[filter->layer][a]);
    }
    assert_int_equal(*digit, 0);
    return (unsigned)(digit - filter->matches);
}

/* As text, as object and in normal form. */
static void
test_every_match(void **state)
{
    unsigned filters = 0, evaluations = 0;

    (void)state;
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        const struct corpus_filter *filter = &corpus->filters[i];

        if (!filter->matches)
            continue;
        assert_true(WinDivertHelperCompileFilter(filter->text, filter->layer, object, sizeof(object), NULL, NULL));
        assert_true(WinDivertHelperFormatFilter(filter->text, filter->layer, form, sizeof(form)));
        evaluations += check_matches(filter, filter->text);
        evaluations += check_matches(filter, object);
        evaluations += check_matches(filter, form);
        filters++;
    }
    print_message("%u filters, %u evaluations compared\n", filters, evaluations);
    assert_int_equal(filters, 938);
}

/* The normal form is its own, of the object too, and an object compiles to itself. */
static void
test_normal_form(void **state)
{
    static char again[OBJECT_MAX];
    unsigned compared = 0;

    (void)state;
    for (size_t i = 0; i < CORPUS_FILTERS; i++) {
        const struct corpus_filter *filter = &corpus->filters[i];

        if (!filter->text || strcmp(filter->verdict, "ok") != 0)
            continue;
        assert_true(WinDivertHelperFormatFilter(filter->text, filter->layer, form, sizeof(form)));
        assert_true(WinDivertHelperFormatFilter(form, filter->layer, again, sizeof(again)));
        assert_string_equal(again, form);
        assert_true(WinDivertHelperCompileFilter(filter->text, filter->layer, object, sizeof(object), NULL, NULL));
        assert_true(WinDivertHelperFormatFilter(object, filter->layer, again, sizeof(again)));
        assert_string_equal(again, form);
        assert_true(WinDivertHelperCompileFilter(form, filter->layer, again, sizeof(again), NULL, NULL));
        assert_string_equal(again, object);
        assert_true(WinDivertHelperCompileFilter(object, filter->layer, again, sizeof(again), NULL, NULL));
        assert_string_equal(again, object);
        compared++;
    }
    print_message("%u normal forms compared\n", compared);
    assert_int_equal(compared, 1234);
}

/* ---- failures ------------------------------------------------------------------ */

/* The call failed with that code; for the next one the code is cleared. */
static void
assert_failed(BOOL ok, DWORD code)
{
    assert_false(ok);
    assert_int_equal(GetLastError(), code);
    SetLastError(0);
}

static void
test_compile_failures(void **state)
{
    const WINDIVERT_LAYER no_layers[] = {(WINDIVERT_LAYER)-1, (WINDIVERT_LAYER)5, (WINDIVERT_LAYER)255};
    const char *why = NULL;
    UINT pos = 4711;

    (void)state;
    SetLastError(0);
    assert_failed(WinDivertHelperCompileFilter(NULL, WINDIVERT_LAYER_NETWORK, NULL, 0, &why, &pos),
                  ERROR_INVALID_PARAMETER);
    assert_string_equal(why, "Filter expression parse error");
    assert_int_equal(pos, 0);
    for (size_t i = 0; i < sizeof(no_layers) / sizeof(no_layers[0]); i++) {
        why = NULL;
        assert_failed(WinDivertHelperCompileFilter("true", no_layers[i], NULL, 0, &why, &pos),
                      ERROR_INVALID_PARAMETER);
        assert_non_null(why);
    }
    assert_failed(WinDivertHelperCompileFilter("tcp and", WINDIVERT_LAYER_NETWORK, NULL, 0, NULL, NULL),
                  ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperCompileFilter("tcp and", WINDIVERT_LAYER_NETWORK, NULL, 0, &why, NULL),
                  ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperCompileFilter("tcp and", WINDIVERT_LAYER_NETWORK, NULL, 0, NULL, &pos),
                  ERROR_INVALID_PARAMETER);
    assert_int_equal(pos, 7);
    assert_true(WinDivertHelperCompileFilter("tcp", WINDIVERT_LAYER_NETWORK, NULL, 4711, NULL, NULL));
}

/* Every length up to the one needed: nothing is written where it is too short, and not a byte too many where not. */
static void
test_short_buffers(void **state)
{
    const char *filter = "tcp.DstPort == 80 and ipv6.SrcAddr != fe80::1 or not udp";
    size_t object_len, form_len;
    const char *why;
    UINT pos;

    (void)state;
    assert_true(WinDivertHelperCompileFilter(filter, WINDIVERT_LAYER_NETWORK, object, sizeof(object), NULL, NULL));
    assert_true(WinDivertHelperFormatFilter(filter, WINDIVERT_LAYER_NETWORK, form, sizeof(form)));
    object_len = strlen(object) + 1;
    form_len = strlen(form) + 1;
    for (size_t len = 0; len <= object_len || len <= form_len; len++) {
        char *block = malloc(len ? len : 1);

        assert_non_null(block);
        memset(block, 'x', len ? len : 1);
        SetLastError(0);
        if (len < object_len) {
            assert_failed(WinDivertHelperCompileFilter(filter, WINDIVERT_LAYER_NETWORK, block, (UINT)len, &why, &pos),
                          ERROR_INSUFFICIENT_BUFFER);
            assert_string_equal(why, "Filter object buffer is too short");
            assert_int_equal(pos, 0);
        }
        if (len < form_len)
            assert_failed(WinDivertHelperFormatFilter(filter, WINDIVERT_LAYER_NETWORK, block, (UINT)len),
                          ERROR_INSUFFICIENT_BUFFER);
        if (len < object_len && len < form_len)
            for (size_t i = 0; i < len; i++)
                assert_int_equal(block[i], 'x');
        if (len == object_len) {
            assert_true(WinDivertHelperCompileFilter(filter, WINDIVERT_LAYER_NETWORK, block, (UINT)len, NULL, NULL));
            assert_string_equal(block, object);
        }
        if (len == form_len) {
            assert_true(WinDivertHelperFormatFilter(filter, WINDIVERT_LAYER_NETWORK, block, (UINT)len));
            assert_string_equal(block, form);
        }
        free(block);
    }
}

static void
test_format_failures(void **state)
{
    char text[16] = "unchanged";

    (void)state;
    SetLastError(0);
    assert_failed(WinDivertHelperFormatFilter(NULL, WINDIVERT_LAYER_NETWORK, text, sizeof(text)),
                  ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperFormatFilter("true", WINDIVERT_LAYER_NETWORK, NULL, 16), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperFormatFilter("true", (WINDIVERT_LAYER)5, text, sizeof(text)),
                  ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperFormatFilter("tcp and", WINDIVERT_LAYER_NETWORK, text, sizeof(text)),
                  ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperFormatFilter("processId == 1", WINDIVERT_LAYER_REFLECT, text, 4),
                  ERROR_INSUFFICIENT_BUFFER);
    assert_string_equal(text, "unchanged");
}

static void
test_eval_failures(void **state)
{
    static const uint8_t packet[20] = {0x45, 0, 0, 20};
    WINDIVERT_ADDRESS addr = {0};

    (void)state;
    SetLastError(0);
    assert_true(WinDivertHelperEvalFilter("true", packet, sizeof(packet), &addr));
    assert_failed(WinDivertHelperEvalFilter(NULL, packet, sizeof(packet), &addr), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperEvalFilter("true", NULL, sizeof(packet), &addr), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperEvalFilter("true", packet, sizeof(packet), NULL), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperEvalFilter("tcp and", packet, sizeof(packet), &addr), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperEvalFilter("layer == FLOW", packet, sizeof(packet), &addr), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperEvalFilter("@", packet, sizeof(packet), &addr), ERROR_INVALID_PARAMETER);
    /* no packet: a clean "no" */
    SetLastError(4711);
    assert_failed(WinDivertHelperEvalFilter("true", packet, 19, &addr), 0);
    addr.Layer = WINDIVERT_LAYER_FLOW;
    assert_true(WinDivertHelperEvalFilter("true", NULL, 0, &addr));
    addr.Layer = 5;
    assert_failed(WinDivertHelperEvalFilter("true", packet, sizeof(packet), &addr), ERROR_INVALID_PARAMETER);
}

/* ---- memory ------------------------------------------------------------------- */

/* Allocations that succeed before one fails; below 0: none fails.  The linker sends malloc here (--wrap). */
static long allocations_left = -1;
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *
__wrap_malloc(size_t size)
{
    if (allocations_left == 0)
        return NULL;
    if (allocations_left > 0)
        allocations_left--;
    return __real_malloc(size);
}

/* The same for EvalFilter, which keeps what it has compiled, but not what it failed to. */
static bool
eval_runs_out_of_memory(const char *filter, long n)
{
    static const uint8_t packet[20] = {0x45, 0, 0, 20};
    WINDIVERT_ADDRESS addr = {0};
    DWORD code;

    SetLastError(4711);
    allocations_left = n;
    assert_false(WinDivertHelperEvalFilter(filter, packet, sizeof(packet), &addr));
    code = GetLastError();
    allocations_left = -1;
    assert_true(code == NO_ERROR || code == ERROR_NOT_ENOUGH_MEMORY);
    return code != NO_ERROR;
}

/* Runs the two calls with allocation number n failing; whether one did. */
static bool
runs_out_of_memory(const char *filter, long n)
{
    const char *why = NULL;
    BOOL compiled, formatted;
    DWORD codes[2];
    UINT pos = 4711;

    strcpy(object, "unchanged");
    strcpy(form, "unchanged");
    SetLastError(0);
    allocations_left = n;
    compiled = WinDivertHelperCompileFilter(filter, WINDIVERT_LAYER_NETWORK, object, sizeof(object), &why, &pos);
    codes[0] = GetLastError();
    allocations_left = n;
    formatted = WinDivertHelperFormatFilter(filter, WINDIVERT_LAYER_NETWORK, form, sizeof(form));
    codes[1] = GetLastError();
    allocations_left = -1;
    if (compiled) {
        assert_true(formatted);
        return false;
    }
    assert_string_equal(why, "Out of memory");
    for (int i = 0; i < 2; i++)
        assert_int_equal(codes[i], ERROR_NOT_ENOUGH_MEMORY);
    assert_false(formatted);
    assert_string_equal(object, "unchanged");
    assert_string_equal(form, "unchanged");
    return true;
}

static void
test_out_of_memory(void **state)
{
    char filter[8192] = "tcp.DstPort == 1";
    long n = 0;

    (void)state;
    for (size_t len = strlen(filter); len + 32 < sizeof(filter); len = strlen(filter))
        snprintf(filter + len, sizeof(filter) - len, " or tcp.DstPort == %zu", len);
    while (runs_out_of_memory(filter, n)) {
        n++;
        assert_true(n < 10000);
    }
    print_message("%ld allocations, each failed once\n", n);
    assert_true(n > 2);
    for (n = 0; eval_runs_out_of_memory(filter, n); n++)
        assert_true(n < 10000);
    assert_true(n > 2);
    assert_false(eval_runs_out_of_memory(filter, 0)); /* kept: nothing is allocated any more */
}

/* ---- what EvalFilter keeps ------------------------------------------------------ */

#define EVAL_THREADS 4

/* More filters than are kept, told apart by their outcome. */
static void *
eval_many(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg, wrong = 0;
    WINDIVERT_ADDRESS addr = {0};
    uint8_t packet[21] = {0x45, 0, 0, 21};
    char filter[64];

    for (unsigned i = 0; i < 20000; i++) {
        unsigned want = (i * 7 + seed) % 20;

        packet[20] = (uint8_t)((i + seed) % 20);
        snprintf(filter, sizeof(filter), "packet[20] == %u", want);
        wrong += WinDivertHelperEvalFilter(filter, packet, sizeof(packet), &addr) != (packet[20] == want);
    }
    return (void *)(uintptr_t)wrong;
}

static void
test_eval_from_many_threads(void **state)
{
    pthread_t thread[EVAL_THREADS];
    void *wrong;

    (void)state;
    for (uintptr_t i = 0; i < EVAL_THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, eval_many, (void *)i), 0);
    for (unsigned i = 0; i < EVAL_THREADS; i++) {
        pthread_join(thread[i], &wrong);
        assert_null(wrong);
    }
}

/* The same text means another filter at another layer. */
static void
test_eval_keeps_layers_apart(void **state)
{
    static const uint8_t packet[20] = {0x45, 0, 0, 20};
    WINDIVERT_ADDRESS addr = {.Layer = WINDIVERT_LAYER_NETWORK, .Outbound = 1};

    (void)state;
    for (int i = 0; i < 2; i++) {
        addr.Layer = WINDIVERT_LAYER_NETWORK;
        assert_true(WinDivertHelperEvalFilter("outbound", packet, sizeof(packet), &addr));
        addr.Layer = WINDIVERT_LAYER_NETWORK_FORWARD;
        assert_failed(WinDivertHelperEvalFilter("outbound", packet, sizeof(packet), &addr), ERROR_INVALID_PARAMETER);
    }
}

/* The text of the error quotes the place. */
static void
test_error_text(void **state)
{
    (void)state;
    assert_false(WinDivertHelperFormatFilter("tcp and frob == 1", WINDIVERT_LAYER_NETWORK, form, sizeof(form)));
    assert_string_equal(WinDivertExtGetLastErrorText(),
                        "filter, byte 8: Filter expression contains a bad token: frob == 1");
    assert_false(WinDivertHelperFormatFilter("tcp and", WINDIVERT_LAYER_NETWORK, form, sizeof(form)));
    assert_string_equal(WinDivertExtGetLastErrorText(), "filter, byte 7: Filter expression parse error: (its end)");
}

/* An object of one layer is none of another, and a damaged one is none at all. */
static void
test_foreign_objects(void **state)
{
    unsigned refused = 0, accepted = 0;
    const char *why;
    char *copy;
    size_t len;

    (void)state;
    assert_true(WinDivertHelperCompileFilter("tcp.DstPort == 80 or udp.Payload32[-1] > 7", WINDIVERT_LAYER_NETWORK,
                                             object, sizeof(object), NULL, NULL));
    assert_false(WinDivertHelperCompileFilter(object, WINDIVERT_LAYER_REFLECT, NULL, 0, &why, NULL));
    assert_string_equal(why, "Filter object is invalid");
    len = strlen(object);
    for (size_t i = 1; i < len; i++)
        for (int c = 1; c < 256; c++) {
            copy = strdup(object);
            assert_non_null(copy);
            copy[i] = (char)c;
            if (WinDivertHelperFormatFilter(copy, WINDIVERT_LAYER_NETWORK, form, sizeof(form)))
                accepted++;
            else
                refused++;
            free(copy);
        }
    print_message("%u objects with one byte changed refused, %u are other filters\n", refused, accepted);
    assert_true(refused > 0);
    for (size_t cut = 1; cut < len; cut++) {
        copy = malloc(cut + 1);
        assert_non_null(copy);
        memcpy(copy, object, cut);
        copy[cut] = 0;
        assert_false(WinDivertHelperFormatFilter(copy, WINDIVERT_LAYER_NETWORK, form, sizeof(form)));
        free(copy);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_filter_compiles_or_says_why),
        cmocka_unit_test(test_every_match),
        cmocka_unit_test(test_normal_form),
        cmocka_unit_test(test_compile_failures),
        cmocka_unit_test(test_short_buffers),
        cmocka_unit_test(test_format_failures),
        cmocka_unit_test(test_eval_failures),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_eval_from_many_threads),
        cmocka_unit_test(test_eval_keeps_layers_apart),
        cmocka_unit_test(test_error_text),
        cmocka_unit_test(test_foreign_objects),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
