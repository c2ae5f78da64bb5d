/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* WinDivertOpen: what is refused, with which code, and what reaches the engine. */
#include "api_test.h"

#include <errno.h>
#include <stdlib.h>

static int
reset(void **state)
{
    (void)state;
    em_reset();
    return 0;
}

static void
assert_open_fails(const char *filter, WINDIVERT_LAYER layer, INT16 priority, UINT64 flags, DWORD code)
{
    unsigned opened = em_counts().opened;

    assert_fails(WinDivertOpen(filter, layer, priority, flags) != INVALID_HANDLE_VALUE, code);
    assert_int_equal(em_counts().opened, opened);
}

static void
assert_open_works(const char *filter, WINDIVERT_LAYER layer, INT16 priority, UINT64 flags)
{
    HANDLE handle;

    SetLastError(UNTOUCHED);
    handle = WinDivertOpen(filter, layer, priority, flags);
    assert_ptr_not_equal(handle, INVALID_HANDLE_VALUE);
    assert_int_equal(GetLastError(), UNTOUCHED);
    assert_int_equal(em_open(em_last())->layer, layer);
    assert_int_equal(em_open(em_last())->priority, priority);
    assert_int_equal(em_open(em_last())->flags, flags);
    assert_works(WinDivertClose(handle));
}

/* ---- flags --------------------------------------------------------------- */

/* The rule as the manual words it. */
static bool
allowed(WINDIVERT_LAYER layer, unsigned flags)
{
    bool sniff = flags & 1, drop = flags & 2, recv_only = flags & 4, send_only = flags & 8;

    if ((sniff && drop) || (recv_only && send_only))
        return false;
    switch (layer) {
    case WINDIVERT_LAYER_FLOW:
    case WINDIVERT_LAYER_REFLECT:
        return sniff && recv_only;
    case WINDIVERT_LAYER_SOCKET:
        return recv_only;
    default:
        return true;
    }
}

static void
test_every_flag_combination(void **state)
{
    unsigned works = 0, fails = 0;

    (void)state;
    for (int layer = 0; layer <= 4; layer++) {
        for (unsigned flags = 0; flags < 64; flags++) {
            if (allowed((WINDIVERT_LAYER)layer, flags))
                assert_open_works("true", (WINDIVERT_LAYER)layer, 0, flags), works++;
            else
                assert_open_fails("true", (WINDIVERT_LAYER)layer, 0, flags, 87), fails++;
        }
    }
    /* packet layers: 3 of SNIFF/DROP x 3 of RECV_ONLY/SEND_ONLY x 4 of the others; FLOW and REFLECT: those 4; SOCKET: 3 x 4 */
    assert_int_equal(works, 2 * 36 + 4 + 12 + 4);
    assert_int_equal(works + fails, 5 * 64);
}

static void
test_unknown_flags(void **state)
{
    (void)state;
    for (unsigned bit = 6; bit < 64; bit++) {
        assert_open_fails("true", WINDIVERT_LAYER_NETWORK, 0, (UINT64)1 << bit, 87);
        assert_open_fails("true", WINDIVERT_LAYER_NETWORK, 0, (UINT64)1 << bit | WINDIVERT_FLAG_SNIFF, 87);
    }
    assert_text("0x8000000000000000");
}

static void
test_flag_texts(void **state)
{
    (void)state;
    assert_open_fails("true", WINDIVERT_LAYER_NETWORK, 0, 3, 87);
    assert_text("WINDIVERT_FLAG_SNIFF and WINDIVERT_FLAG_DROP");
    assert_open_fails("true", WINDIVERT_LAYER_NETWORK, 0, 12, 87);
    assert_text("WINDIVERT_FLAG_RECV_ONLY and WINDIVERT_FLAG_SEND_ONLY");
    assert_open_fails("true", WINDIVERT_LAYER_FLOW, 0, 1, 87);
    assert_text("FLOW needs WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY");
    assert_open_fails("true", WINDIVERT_LAYER_SOCKET, 0, 1, 87);
    assert_text("SOCKET needs WINDIVERT_FLAG_RECV_ONLY");
    assert_open_fails("true", WINDIVERT_LAYER_REFLECT, 0, 4, 87);
    assert_text("REFLECT needs WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY");
}

/* ---- layer and priority -------------------------------------------------- */

static void
test_layers(void **state)
{
    static const int bad[] = {-1, 5, 6, 255, 256, INT32_MAX, INT32_MIN};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        for (unsigned flags = 0; flags < 64; flags++)
            assert_open_fails("true", (WINDIVERT_LAYER)bad[i], 0, flags, 87);
    assert_text("layer");
}

static void
test_priorities(void **state)
{
    (void)state;
    for (int priority = INT16_MIN; priority <= INT16_MAX; priority++) {
        if (priority >= -30000 && priority <= 30000 && priority % 1000)
            continue; /* not each of those that work */
        if (priority >= -30000 && priority <= 30000)
            assert_open_works("true", WINDIVERT_LAYER_NETWORK, (INT16)priority, 0);
        else
            assert_open_fails("true", WINDIVERT_LAYER_NETWORK, (INT16)priority, 0, 87);
    }
    assert_text("priority 32767 is not in -30000..30000");
}

/* ---- filters ------------------------------------------------------------- */

static void
test_filters(void **state)
{
    static const struct {
        const char *filter;
        int layer;
    } good[] = {
        {"true", 0},
        {"false", 0},
        {"outbound and tcp.DstPort == 80", 0},
        {"udp.PayloadLength > 0", 1},
        {"processId == 1 and remotePort == 80", 2},
        {"event == BIND", 3},
        {"priority < 0", 4},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++)
        assert_open_works(good[i].filter, (WINDIVERT_LAYER)good[i].layer, 0, good[i].layer < 2 ? 0 : 5);
}

static void
test_bad_filters(void **state)
{
    static const struct {
        const char *filter;
        int layer;
        const char *text; /* position and a part of the message */
    } bad[] = {
        {"", 0, "filter, byte 0: "},
        {"tru", 0, "filter, byte 0: Filter expression contains a bad token: tru"},
        {"tcp and frobnicate == 1", 0, "filter, byte 8: Filter expression contains a bad token: frobnicate == 1"},
        {"tcp and", 0, "filter, byte 7: "},
        {"tcp and", 0, "(its end)"},
        {"true and processId == 4", 0, "filter, byte 9: Filter expression contains a bad token for layer: processId"},
        {"tcp", 4, "filter, byte 0: Filter expression contains a bad token for layer"},
        {"true\n\x01\xff", 0, "??"},
        {"true or aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0, "aaa..."},
        {"tcp.DstPort in {80, foo}", 0, "filter, byte 20: Filter expression contains a bad token: foo}"},
        {"remoteAddr in 10.0.0.0/33", 0, "filter, byte 23: Filter expression parse error: 33"},
        {"tcp.DstPort in {80} and", 0, "filter, byte 23: Filter expression parse error: (its end)"},
        {"@", 0, "bject"},
        {"@WinDiv_0000", 0, "bject"},
    };

    (void)state;
    assert_open_fails(NULL, WINDIVERT_LAYER_NETWORK, 0, 0, 87);
    assert_text("filter is NULL");
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_open_fails(bad[i].filter, (WINDIVERT_LAYER)bad[i].layer, 0, bad[i].layer < 2 ? 0 : 5, 87);
        assert_text(bad[i].text);
    }
}

/* Opens and gives what the engine got as its filter. */
static char *
object_of(const char *filter, WINDIVERT_LAYER layer)
{
    HANDLE handle = WinDivertOpen(filter, layer, 0, 0);
    char *object;

    assert_ptr_not_equal(handle, INVALID_HANDLE_VALUE);
    object = strdup(em_open(em_last())->object);
    assert_works(WinDivertClose(handle));
    return object;
}

static void
test_object(void **state)
{
    char *one = object_of("outbound and (tcp.DstPort == 80 or ip.DstAddr == 10.0.0.1)", WINDIVERT_LAYER_NETWORK);
    char *two = object_of(one, WINDIVERT_LAYER_NETWORK);
    char *other = object_of("inbound", WINDIVERT_LAYER_NETWORK);

    (void)state;
    assert_int_equal(one[0], '@');
    assert_string_equal(one, two);
    assert_string_not_equal(one, other);
    one[strlen(one) / 2] = '!';
    assert_open_fails(one, WINDIVERT_LAYER_NETWORK, 0, 0, 87);
    two[strlen(two) / 2] = '\0';
    assert_open_fails(two, WINDIVERT_LAYER_NETWORK, 0, 0, 87);
    free(one);
    free(two);
    free(other);
}

/* Layer, priority and flags are looked at before the filter. */
static void
test_order(void **state)
{
    (void)state;
    assert_open_fails("bad bad", WINDIVERT_LAYER_NETWORK, 0, 3, 87);
    assert_text("WINDIVERT_FLAG_DROP");
    assert_open_fails("bad bad", WINDIVERT_LAYER_NETWORK, 30001, 3, 87);
    assert_text("priority");
    assert_open_fails("bad bad", (WINDIVERT_LAYER)9, 30001, 3, 87);
    assert_text("layer");
}

/* ---- what the engine answers ---------------------------------------------- */

static void
test_engine_refuses(void **state)
{
    static const struct {
        int error;
        DWORD code;
    } rows[] = {
        {EPERM, 5}, {EACCES, 5}, {ENOENT, 1060}, {EOPNOTSUPP, 50}, {ENOMEM, 8}, {EMFILE, 1450}, {EIO, 31},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        em_fail(EM_OPEN, -rows[i].error, NULL, NULL);
        assert_open_fails("true", WINDIVERT_LAYER_NETWORK, 0, 0, rows[i].code);
        em_fail(EM_OPEN, -rows[i].error, "because", "then");
        assert_open_fails("true", WINDIVERT_LAYER_NETWORK, 0, 0, rows[i].code);
        assert_string_equal(WinDivertExtGetLastErrorText(), "because");
        assert_string_equal(WinDivertExtGetLastErrorRemedy(), "then");
    }
    em_fail(EM_OPEN, 0, NULL, NULL);
    assert_open_works("true", WINDIVERT_LAYER_NETWORK, 0, 0);
}

/* A refused open takes no place: many more of them than there are places. */
static void
test_refused_opens_leave_nothing(void **state)
{
    (void)state;
    em_fail(EM_OPEN, -EPERM, NULL, NULL);
    for (unsigned i = 0; i < 10000; i++)
        assert_open_fails("true", WINDIVERT_LAYER_NETWORK, 0, 0, 5);
    em_fail(EM_OPEN, 0, NULL, NULL);
    assert_open_works("true", WINDIVERT_LAYER_NETWORK, 0, 0);
}

/* A handle that opens with something to say. */
static void
test_note(void **state)
{
    HANDLE handle;

    (void)state;
    em_note("refused, but it works");
    SetLastError(UNTOUCHED);
    handle = WinDivertOpen("true", WINDIVERT_LAYER_NETWORK, 0, 0);
    em_note(NULL);
    assert_ptr_not_equal(handle, INVALID_HANDLE_VALUE);
    assert_int_equal(GetLastError(), NO_ERROR);
    assert_string_equal(WinDivertExtGetLastErrorText(), "refused, but it works");
    assert_string_equal(WinDivertExtGetLastErrorRemedy(), "do that");
    assert_works(WinDivertClose(handle));
}

static void
assert_filter_fails(HANDLE handle, const char *filter, DWORD code, const char *text)
{
    assert_fails(WinDivertExtSetFilter(handle, filter), code);
    assert_text(text);
}

/* The object that the engine gets is the one that an open with the same text gives. */
static void
test_set_filter(void **state)
{
    HANDLE handle = open_handle(WINDIVERT_LAYER_NETWORK, 0), other;
    char *object;

    (void)state;
    assert_works(WinDivertExtSetFilter(handle, "tcp.DstPort == 80"));
    object = strdup(em_open(em_last())->object);
    assert_non_null(object);
    assert_filter_fails(handle, NULL, ERROR_INVALID_PARAMETER, "filter is NULL");
    assert_filter_fails(handle, "tcp.DstPort == ", ERROR_INVALID_PARAMETER, "filter, byte");
    assert_filter_fails(handle, "processId == 1", ERROR_INVALID_PARAMETER, "filter, byte 0");
    em_fail(EM_SET_FILTER, -ENOSPC, "no room", NULL);
    assert_filter_fails(handle, "udp", ERROR_NO_SYSTEM_RESOURCES, "no room");
    em_fail(EM_SET_FILTER, -ESHUTDOWN, NULL, NULL);
    assert_fails(WinDivertExtSetFilter(handle, "udp"), ERROR_NO_DATA);
    em_fail(EM_SET_FILTER, 0, NULL, NULL);
    assert_string_equal(em_open(em_last())->object, object);
    em_note("refused, but it works");
    SetLastError(UNTOUCHED);
    assert_int_equal(WinDivertExtSetFilter(handle, "udp"), TRUE);
    em_note(NULL);
    assert_int_equal(GetLastError(), NO_ERROR);
    assert_text("refused, but it works");
    assert_string_not_equal(em_open(em_last())->object, object);
    other = WinDivertOpen("tcp.DstPort == 80", WINDIVERT_LAYER_NETWORK, 0, 0);
    assert_string_equal(em_open(em_last())->object, object);
    free(object);
    assert_works(WinDivertClose(other));
    assert_works(WinDivertClose(handle));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_flag_combination, reset),
        cmocka_unit_test_setup(test_unknown_flags, reset),
        cmocka_unit_test_setup(test_flag_texts, reset),
        cmocka_unit_test_setup(test_layers, reset),
        cmocka_unit_test_setup(test_priorities, reset),
        cmocka_unit_test_setup(test_filters, reset),
        cmocka_unit_test_setup(test_bad_filters, reset),
        cmocka_unit_test_setup(test_object, reset),
        cmocka_unit_test_setup(test_order, reset),
        cmocka_unit_test_setup(test_engine_refuses, reset),
        cmocka_unit_test_setup(test_refused_opens_leave_nothing, reset),
        cmocka_unit_test_setup(test_note, reset),
        cmocka_unit_test_setup(test_set_filter, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
