/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Which packets are questions, and which answer one of those. */
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
note(struct wd_questions **table, const uint8_t *ip, uint32_t len, bool tracked)
{
    struct wd_packet packet;

    assert_true(wd_packet_parse(ip, len, &packet));
    wd_questions_note(table, &packet, tracked);
}

static bool
answers(struct wd_questions *table, const uint8_t *ip, uint32_t len, int64_t now, struct wd_question *ret_question)
{
    struct wd_packet packet;

    assert_true(wd_packet_parse(ip, len, &packet));
    return wd_questions_answered(table, &packet, now, ret_question);
}

static void
check_question(const struct wd_question *question, bool v6, uint8_t protocol, uint8_t from, uint8_t to)
{
    assert_int_equal(question->version, v6 ? 6 : 4);
    assert_int_equal(question->protocol, protocol);
    assert_int_equal(question->from[v6 ? 15 : 3], from);
    assert_int_equal(question->to[v6 ? 15 : 3], to);
    assert_int_equal(question->from_port[1], from);
    assert_int_equal(question->to_port[1], to);
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
        struct wd_questions *table = NULL;
        struct wd_question question;
        uint8_t ip[128];
        bool v6 = i % 2;

        note(&table, ip, make(ip, v6, TCP, 1, 2, SYN), true);
        assert_non_null(table);
        assert_false(answers(table, ip, make(ip, v6, TCP, 1, 2, row->flags), LATER, &question)); /* not reversed */
        assert_false(answers(table, ip, make(ip, v6, TCP, 2, 3, row->flags), LATER, &question));
        assert_false(answers(table, ip, make(ip, !v6, TCP, 2, 1, row->flags), LATER, &question));
        assert_int_equal(answers(table, ip, make(ip, v6, TCP, 2, 1, row->flags), LATER, &question), row->answer);
        if (row->answer)
            check_question(&question, v6, TCP, 1, 2);
        if (row->answer)
            assert_true(question.begins);
        free(table);
    }
}

/* What conntrack has seen of a connection needs nothing, and what has no ports neither. */
static void
not_asked(void **state)
{
    static const uint8_t flags[] = {ACK, SYN | ACK, RST, 0, SYN | RST};
    struct wd_questions *table = NULL;
    uint8_t ip[128];

    (void)state;
    for (unsigned i = 0; i < sizeof(flags); i++)
        note(&table, ip, make(ip, false, TCP, 1, 2, flags[i]), true);
    note(&table, ip, make(ip, false, 132, 1, 2, 0), false);
    assert_null(table);
}

/* What it has not seen is answered by any TCP packet the other way. */
static void
amid(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2 * sizeof(rows) / sizeof(*rows); i++) {
        struct wd_questions *table = NULL;
        struct wd_question question;
        uint8_t ip[128];
        bool v6 = i % 2;

        note(&table, ip, make(ip, v6, TCP, 1, 2, SYN), false);
        note(&table, ip, make(ip, v6, TCP, 1, 2, ACK), false);
        assert_false(answers(table, ip, make(ip, v6, TCP, 1, 2, ACK), LATER, &question));
        assert_true(answers(table, ip, make(ip, v6, TCP, 2, 1, rows[i / 2].flags), LATER, &question));
        check_question(&question, v6, TCP, 1, 2);
        assert_false(question.begins);
        assert_false(answers(table, ip, make(ip, v6, TCP, 2, 1, ACK), LATER + 1, &question));
        free(table);
    }
}

static void
no_table(void **state)
{
    struct wd_question question;
    uint8_t ip[128];

    (void)state;
    assert_false(answers(NULL, ip, make(ip, false, UDP, 2, 1, 0), LATER, &question));
}

/* Conntrack is told once in a while, however often it is answered or begun. */
static void
again(void **state)
{
    struct wd_questions *table = NULL;
    struct wd_question question;
    uint8_t ip[128];

    (void)state;
    note(&table, ip, make(ip, true, UDP, 1, 2, 0), true);
    assert_true(answers(table, ip, make(ip, true, UDP, 2, 1, 0), LATER, &question));
    check_question(&question, true, UDP, 1, 2);
    note(&table, ip, make(ip, true, UDP, 1, 2, 0), true);
    assert_false(answers(table, ip, make(ip, true, UDP, 2, 1, 0), LATER + WD_QUESTIONS_AGAIN - 1, &question));
    assert_true(answers(table, ip, make(ip, true, UDP, 2, 1, 0), LATER + WD_QUESTIONS_AGAIN, &question));
    free(table);
}

static void
quoted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t protocol = i & 2 ? TCP : UDP, ip[128], error[256];
        struct wd_questions *table = NULL;
        struct wd_question question;
        bool v6 = i & 1;
        uint32_t len = make(ip, v6, protocol, 1, 2, SYN);

        note(&table, ip, len, false);
        assert_false(
            answers(table, error, make_error(error, v6, v6 ? 128 : 8, ip, len), LATER, &question));       /* echo */
        assert_false(answers(table, error, make_error(error, v6, v6 ? 1 : 3, ip, 12), LATER, &question)); /* cut */
        assert_true(answers(table, error, make_error(error, v6, v6 ? 1 : 3, ip, len), LATER, &question));
        check_question(&question, v6, protocol, 1, 2);
        free(table);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tcp),      cmocka_unit_test(not_asked), cmocka_unit_test(amid),
        cmocka_unit_test(no_table), cmocka_unit_test(again),     cmocka_unit_test(quoted),
    };

    return cmocka_run_group_tests_name("conntrack", tests, NULL, NULL);
}
