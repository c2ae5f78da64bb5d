/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Which packets begin a connection, and which answer one of those. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "linux/conntrack.h"

#define TCP 6
#define UDP 17
#define SYN 0x02
#define RST 0x04
#define ACK 0x10
#define LATER (INT64_C(1) << 40)

/* From host and port `from` to host and port `to`, over IPv4 or IPv6. */
static uint32_t
make(uint8_t *ip, bool v6, uint8_t protocol, uint8_t from, uint8_t to, uint8_t flags)
{
    uint32_t head = v6 ? 40 : 20, len = head + 20;

    memset(ip, 0, len);
    ip[0] = v6 ? 0x60 : 0x45;
    ip[v6 ? 5 : 3] = (uint8_t)(v6 ? len - 40 : len);
    ip[v6 ? 6 : 9] = protocol;
    ip[v6 ? 23 : 15] = from;
    ip[v6 ? 39 : 19] = to;
    ip[head + 1] = from;
    ip[head + 3] = to;
    if (protocol == UDP)
        ip[head + 5] = 20;
    ip[head + 12] = protocol == TCP ? 0x50 : 0;
    ip[head + 13] = flags;
    return len;
}

static uint32_t
make_error(uint8_t *ip, bool v6, uint8_t type, const uint8_t *quoted, uint32_t len)
{
    uint32_t head = v6 ? 40 : 20, total = head + 8 + len;

    memset(ip, 0, head + 8);
    ip[0] = v6 ? 0x60 : 0x45;
    ip[v6 ? 5 : 3] = (uint8_t)(v6 ? total - 40 : total);
    ip[v6 ? 6 : 9] = v6 ? 58 : 1;
    ip[head] = type;
    memcpy(ip + head + 8, quoted, len);
    return total;
}

static void
note(struct wd_beginnings **table, const uint8_t *ip, uint32_t len)
{
    struct wd_packet packet;

    assert_true(wd_packet_parse(ip, len, &packet));
    wd_beginnings_note(table, &packet);
}

static bool
answers(struct wd_beginnings *table, const uint8_t *ip, uint32_t len, int64_t now, struct wd_tuple *ret_tuple)
{
    struct wd_packet packet;

    assert_true(wd_packet_parse(ip, len, &packet));
    return wd_beginnings_answered(table, &packet, now, ret_tuple);
}

static void
check_tuple(const struct wd_tuple *tuple, bool v6, uint8_t protocol, uint8_t from, uint8_t to)
{
    assert_int_equal(tuple->version, v6 ? 6 : 4);
    assert_int_equal(tuple->protocol, protocol);
    assert_int_equal(tuple->from[v6 ? 15 : 3], from);
    assert_int_equal(tuple->to[v6 ? 15 : 3], to);
    assert_int_equal(tuple->from_port[1], from);
    assert_int_equal(tuple->to_port[1], to);
}

/* Flags of the answer, and whether it is one. */
static const struct row {
    uint8_t flags;
    bool answer;
} rows[] = {{RST, true}, {RST | ACK, true}, {SYN | ACK, true}, {ACK, false}, {SYN, false}, {0, false}};

static void
tcp(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2 * sizeof(rows) / sizeof(*rows); i++) {
        const struct row *row = &rows[i / 2];
        struct wd_beginnings *table = NULL;
        struct wd_tuple tuple;
        uint8_t ip[128];
        bool v6 = i % 2;

        note(&table, ip, make(ip, v6, TCP, 1, 2, SYN));
        assert_non_null(table);
        assert_false(answers(table, ip, make(ip, v6, TCP, 1, 2, row->flags), LATER, &tuple)); /* not reversed */
        assert_false(answers(table, ip, make(ip, v6, TCP, 2, 3, row->flags), LATER, &tuple));
        assert_false(answers(table, ip, make(ip, !v6, TCP, 2, 1, row->flags), LATER, &tuple));
        assert_int_equal(answers(table, ip, make(ip, v6, TCP, 2, 1, row->flags), LATER, &tuple), row->answer);
        if (row->answer)
            check_tuple(&tuple, v6, TCP, 1, 2);
        free(table);
    }
}

/* A packet of a connection that was let pass begins none. */
static void
not_a_beginning(void **state)
{
    static const uint8_t flags[] = {ACK, SYN | ACK, RST, 0, SYN | RST};
    struct wd_beginnings *table = NULL;
    uint8_t ip[128];

    (void)state;
    for (unsigned i = 0; i < sizeof(flags); i++)
        note(&table, ip, make(ip, false, TCP, 1, 2, flags[i]));
    note(&table, ip, make(ip, false, 132, 1, 2, 0));
    assert_null(table);
}

static void
no_table(void **state)
{
    struct wd_tuple tuple;
    uint8_t ip[128];

    (void)state;
    assert_false(answers(NULL, ip, make(ip, false, UDP, 2, 1, 0), LATER, &tuple));
}

/* Conntrack is told once in a while, however often it is answered or begun. */
static void
again(void **state)
{
    struct wd_beginnings *table = NULL;
    struct wd_tuple tuple;
    uint8_t ip[128];

    (void)state;
    note(&table, ip, make(ip, true, UDP, 1, 2, 0));
    assert_true(answers(table, ip, make(ip, true, UDP, 2, 1, 0), LATER, &tuple));
    check_tuple(&tuple, true, UDP, 1, 2);
    note(&table, ip, make(ip, true, UDP, 1, 2, 0));
    assert_false(answers(table, ip, make(ip, true, UDP, 2, 1, 0), LATER + WD_BEGINNINGS_AGAIN - 1, &tuple));
    assert_true(answers(table, ip, make(ip, true, UDP, 2, 1, 0), LATER + WD_BEGINNINGS_AGAIN, &tuple));
    free(table);
}

static void
quoted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t protocol = i & 2 ? TCP : UDP, ip[128], error[256];
        struct wd_beginnings *table = NULL;
        struct wd_tuple tuple;
        bool v6 = i & 1;
        uint32_t len = make(ip, v6, protocol, 1, 2, SYN);

        note(&table, ip, len);
        assert_false(answers(table, error, make_error(error, v6, v6 ? 128 : 8, ip, len), LATER, &tuple)); /* echo */
        assert_false(answers(table, error, make_error(error, v6, v6 ? 1 : 3, ip, 12), LATER, &tuple));    /* cut */
        assert_true(answers(table, error, make_error(error, v6, v6 ? 1 : 3, ip, len), LATER, &tuple));
        check_tuple(&tuple, v6, protocol, 1, 2);
        free(table);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tcp),   cmocka_unit_test(not_a_beginning), cmocka_unit_test(no_table),
        cmocka_unit_test(again), cmocka_unit_test(quoted),
    };

    return cmocka_run_group_tests_name("conntrack", tests, NULL, NULL);
}
