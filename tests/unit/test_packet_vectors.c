/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The helper functions against every row of tests/vectors that is about packets and addresses. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/ttl.h"
#include "vectors.h"
#include "windivert.h"

/* Packets of packets.tsv, by id. */
#define PACKETS_MAX 1024
static struct {
    uint8_t *bytes;
    size_t len;
} packets[PACKETS_MAX];
static unsigned packet_count;

static int
load_packets(void **state)
{
    struct vectors rows;

    (void)state;
    vectors_open(&rows, "packets.tsv");
    for (; vectors_next(&rows); packet_count++) {
        unsigned id = (unsigned)strtoul(rows.field[0], NULL, 10);

        if (id != packet_count || id >= PACKETS_MAX || rows.count != 2)
            return -1;
        packets[id].bytes = vectors_bytes(rows.field[1], &packets[id].len);
    }
    return 0;
}

static int
free_packets(void **state)
{
    (void)state;
    for (unsigned i = 0; i < packet_count; i++)
        free(packets[i].bytes);
    return 0;
}

static unsigned
packet_id(const struct vectors *rows)
{
    unsigned long id = strtoul(rows->field[0], NULL, 10);

    assert_true(id < packet_count);
    return (unsigned)id;
}

/* A copy that may be changed, of exactly the packet's size. */
static uint8_t *
copy_of(unsigned id)
{
    uint8_t *copy = malloc(packets[id].len ? packets[id].len : 1);

    assert_non_null(copy);
    memcpy(copy, packets[id].bytes, packets[id].len);
    return copy;
}

static void
assert_packet(const struct vectors *rows, const char *hex, const uint8_t *packet, size_t len)
{
    size_t expected_len;
    uint8_t *expected = vectors_bytes(hex, &expected_len);

    if (expected_len != len || memcmp(expected, packet, len) != 0)
        fail_msg("row %u: another packet than %s", rows->row, hex);
    free(expected);
}

/* ---- parse.tsv ------------------------------------------------------------- */

static long
offset(const uint8_t *packet, const void *pointer)
{
    return pointer ? (long)((const uint8_t *)pointer - packet) : -1;
}

/* What a row of parse.tsv says, as text. */
static void
describe(const uint8_t *packet, size_t len, char *text, size_t size)
{
    PWINDIVERT_IPHDR ip;
    PWINDIVERT_IPV6HDR ipv6;
    PWINDIVERT_ICMPHDR icmp;
    PWINDIVERT_ICMPV6HDR icmpv6;
    PWINDIVERT_TCPHDR tcp;
    PWINDIVERT_UDPHDR udp;
    UINT data_len, next_len;
    PVOID data, next;
    UINT8 protocol;

    if (!WinDivertHelperParsePacket(packet, (UINT)len, &ip, &ipv6, &protocol, &icmp, &icmpv6, &tcp, &udp, &data,
                                    &data_len, &next, &next_len)) {
        assert_int_equal(GetLastError(), ERROR_INVALID_PARAMETER);
        snprintf(text, size, "-");
        return;
    }
    snprintf(text, size, "%ld %ld %u %ld %ld %ld %ld %ld %u %ld %u", offset(packet, ip), offset(packet, ipv6),
             protocol, offset(packet, icmp), offset(packet, icmpv6), offset(packet, tcp), offset(packet, udp),
             offset(packet, data), data_len, offset(packet, next), next_len);
}

static void
test_parse(void **state)
{
    struct vectors rows;
    unsigned compared = 0;

    (void)state;
    vectors_open(&rows, "parse.tsv");
    while (vectors_next(&rows)) {
        unsigned id = packet_id(&rows);
        char expected[256] = "", actual[256];

        for (int i = 1; i < rows.count; i++) {
            strcat(expected, i > 1 ? " " : "");
            strcat(expected, rows.field[i]);
        }
        describe(packets[id].bytes, packets[id].len, actual, sizeof(actual));
        if (strcmp(expected, actual) != 0)
            fail_msg("packet %u: %s, not %s", id, actual, expected);
        compared++;
    }
    print_message("%u packets parsed\n", compared);
    assert_int_equal(compared, packet_count);
}

/* ---- hash.tsv, checksums.tsv, ttl.tsv ---------------------------------------- */

static void
test_hash(void **state)
{
    struct vectors rows;
    unsigned compared = 0;

    (void)state;
    vectors_open(&rows, "hash.tsv");
    while (vectors_next(&rows)) {
        unsigned id = packet_id(&rows);
        UINT64 seed = strtoull(rows.field[1], NULL, 10), expected = strtoull(rows.field[2], NULL, 16);
        UINT64 actual = WinDivertHelperHashPacket(packets[id].bytes, (UINT)packets[id].len, seed);

        if (actual != expected)
            fail_msg("row %u: %016" PRIx64 ", not %s", rows.row, actual, rows.field[2]);
        compared++;
    }
    print_message("%u hashes compared\n", compared);
    assert_int_equal(compared, 360);
}

/* The address of checksums.tsv: NETWORK, outbound, IPv6 as the packet. */
static WINDIVERT_ADDRESS
address_of(unsigned id)
{
    WINDIVERT_ADDRESS addr;

    memset(&addr, 0, sizeof(addr));
    addr.Outbound = 1;
    addr.IPv6 = packets[id].len > 0 && packets[id].bytes[0] >> 4 == 6;
    return addr;
}

static void
check_checksums(const struct vectors *rows, unsigned id)
{
    UINT64 flags = strtoull(rows->field[1], NULL, 10);
    WINDIVERT_ADDRESS addr = address_of(id);
    uint8_t *copy = copy_of(id), *bits;
    size_t bits_len;

    assert_int_equal(WinDivertHelperCalcChecksums(copy, (UINT)packets[id].len, &addr, flags), atoi(rows->field[2]));
    assert_packet(rows, rows->field[3], copy, packets[id].len);
    bits = vectors_bytes(rows->field[4], &bits_len);
    assert_int_equal(bits_len, 4);
    if (memcmp((uint8_t *)&addr + 8, bits, 4) != 0)
        fail_msg("row %u: other address bits than %s", rows->row, rows->field[4]);
    free(bits);
    free(copy);

    copy = copy_of(id);
    assert_int_equal(WinDivertHelperCalcChecksums(copy, (UINT)packets[id].len, NULL, flags), atoi(rows->field[2]));
    assert_packet(rows, rows->field[3], copy, packets[id].len);
    free(copy);
}

static void
test_checksums(void **state)
{
    struct vectors rows;
    unsigned compared = 0;

    (void)state;
    vectors_open(&rows, "checksums.tsv");
    for (; vectors_next(&rows); compared++)
        check_checksums(&rows, packet_id(&rows));
    print_message("%u checksum rows compared\n", compared);
    assert_int_equal(compared, 600);
}

static void
test_ttl(void **state)
{
    struct vectors rows;
    unsigned compared = 0;

    (void)state;
    vectors_open(&rows, "ttl.tsv");
    for (; vectors_next(&rows); compared++) {
        unsigned id = packet_id(&rows);
        uint8_t *copy = copy_of(id);

        assert_int_equal(WinDivertHelperDecrementTTL(copy, (UINT)packets[id].len), atoi(rows.field[1]));
        assert_packet(&rows, rows.field[2], copy, packets[id].len);
        free(copy);
    }
    print_message("%u TTL rows compared\n", compared);
    assert_int_equal(compared, packet_count);
}

/* One more undoes one less; a sum of 0 may come back as 0xFFFF. */
static void
test_ttl_back(void **state)
{
    unsigned compared = 0;

    (void)state;
    for (unsigned id = 0; id < packet_count; id++) {
        uint8_t *copy = copy_of(id);
        size_t len = packets[id].len;

        if (wd_ttl_decrement(copy, len)) {
            assert_true(wd_ttl_increment(copy, len));
            if (copy[0] >> 4 == 4 && copy[10] == 0xFF && copy[11] == 0xFF)
                memcpy(copy + 10, packets[id].bytes + 10, 2);
            assert_memory_equal(copy, packets[id].bytes, len);
            compared++;
        }
        free(copy);
    }
    assert_true(compared > 50);
}

static void
test_ttl_at_the_end(void **state)
{
    uint8_t packet[20] = {0x45, [3] = 20, [8] = 255};

    (void)state;
    assert_false(wd_ttl_increment(packet, sizeof(packet)));
    assert_int_equal(packet[8], 255);
    assert_false(wd_ttl_increment(packet, 19));
}

/* ---- addresses.tsv, addrformat.tsv --------------------------------------------- */

/* The one row where we differ on purpose: docs/compat.md. */
#define ACCEPTED_HERE "1:2:3:4:5:6:1.2.3.4"

static void
check_address(const struct vectors *rows)
{
    char ipv4[16] = "-", ipv6[64] = "-";
    UINT32 number = 0, words[4] = {0};

    if (WinDivertHelperParseIPv4Address(rows->field[0], &number))
        snprintf(ipv4, sizeof(ipv4), "%08x", number);
    if (WinDivertHelperParseIPv6Address(rows->field[0], words))
        snprintf(ipv6, sizeof(ipv6), "%08x %08x %08x %08x", words[0], words[1], words[2], words[3]);
    assert_string_equal(ipv4, rows->field[1]);
    if (strcmp(rows->field[0], ACCEPTED_HERE) == 0) {
        assert_string_equal(rows->field[2], "-");
        assert_string_equal(ipv6, "01020304 00050006 00030004 00010002");
        return;
    }
    if (strcmp(ipv6, rows->field[2]) != 0)
        fail_msg("'%s': %s, not %s", rows->field[0], ipv6, rows->field[2]);
}

static void
test_addresses(void **state)
{
    struct vectors rows;
    unsigned compared = 0;

    (void)state;
    vectors_open(&rows, "addresses.tsv");
    for (; vectors_next(&rows); compared++)
        check_address(&rows);
    print_message("%u address texts compared, one of them different on purpose: %s\n", compared, ACCEPTED_HERE);
    assert_int_equal(compared, 30);
}

static void
check_format(const struct vectors *rows)
{
    UINT32 words[4], again[4], number = (UINT32)strtoul(rows->field[0], NULL, 16);
    char text[40];

    assert_true(WinDivertHelperFormatIPv4Address(number, text, (UINT)strlen(rows->field[1]) + 1));
    assert_string_equal(text, rows->field[1]);
    assert_true(WinDivertHelperParseIPv4Address(text, &again[0]));
    assert_int_equal(again[0], number);

    assert_int_equal(sscanf(rows->field[2], "%x %x %x %x", &words[0], &words[1], &words[2], &words[3]), 4);
    assert_true(WinDivertHelperFormatIPv6Address(words, text, (UINT)strlen(rows->field[3]) + 1));
    assert_string_equal(text, rows->field[3]);
    assert_true(WinDivertHelperParseIPv6Address(text, again));
    assert_memory_equal(again, words, sizeof(words));
}

static void
test_address_texts(void **state)
{
    struct vectors rows;
    unsigned compared = 0;

    (void)state;
    vectors_open(&rows, "addrformat.tsv");
    for (; vectors_next(&rows); compared++)
        check_format(&rows);
    print_message("%u pairs of addresses formatted\n", compared);
    assert_int_equal(compared, 40);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),     cmocka_unit_test(test_hash),          cmocka_unit_test(test_checksums),
        cmocka_unit_test(test_ttl),       cmocka_unit_test(test_ttl_back),      cmocka_unit_test(test_ttl_at_the_end),
        cmocka_unit_test(test_addresses), cmocka_unit_test(test_address_texts),
    };

    return cmocka_run_group_tests(tests, load_packets, free_packets);
}
