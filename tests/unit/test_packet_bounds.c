/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The helper functions on packets that are cut, lie about their lengths or are
 * random; checksums at their edges; what is missing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/cksum.h"
#include "packet_law.h"
#include "vectors.h"
#include "windivert.h"

#define PACKETS 120
#define ROUNDS 400 /* mutations of each packet */

static uint32_t random_state = 0x9E3779B9;

/* xorshift32: the same numbers in every run. */
static uint32_t
next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

/* Whether the bytes are a packet; fails where the law does not hold. */
static bool
check(const uint8_t *bytes, size_t len)
{
    bool packet;
    const char *wrong = packet_law(bytes, len, &packet);

    if (wrong)
        fail_msg("%s", wrong);
    return packet;
}

static bool
header_is_right(const uint8_t *packet)
{
    return packet_law_sum(0, packet, (packet[0] & 15u) * 4) == 0xFFFF;
}

/* ---- the inputs ---------------------------------------------------------------- */

static void
test_cut(void **state)
{
    unsigned whole = 0, refused = 0;

    (void)state;
    for (unsigned id = 0; id < PACKETS; id++) {
        size_t len;
        uint8_t *packet = vectors_packet(id, &len);

        assert_non_null(packet);
        for (size_t cut = 0; cut <= len; cut++)
            check(packet, cut) ? whole++ : refused++;
        free(packet);
    }
    print_message("%u cut packets parsed, %u refused\n", whole, refused);
    assert_true(whole > 1000 && refused > 1000);
}

/* Changes up to four bytes, mostly of the headers, sometimes to a value that matters; sometimes cuts or appends. */
static size_t
mutate(uint8_t *packet, size_t len, size_t room)
{
    static const uint8_t values[] = {0, 1, 2, 5, 6, 17, 20, 40, 43, 44, 51, 58, 60, 127, 128, 135, 254, 255};

    for (unsigned i = next_random() % 4 + 1; i > 0 && len > 0; i--) {
        size_t at = next_random() % (next_random() % 4 ? (len < 64 ? len : 64) : len);

        packet[at] = next_random() % 2 ? (uint8_t)next_random() : values[next_random() % sizeof(values)];
    }
    if (next_random() % 4 == 0)
        len = next_random() % (room + 1);
    return len;
}

static void
test_mutated(void **state)
{
    unsigned count = 0, whole = 0;

    (void)state;
    for (unsigned id = 0; id < PACKETS; id++) {
        uint8_t bytes[512];
        size_t len;
        uint8_t *packet = vectors_packet(id, &len);

        assert_true(packet && len <= 256);
        for (int round = 0; round < ROUNDS; round++, count++) {
            for (size_t i = len; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t)next_random();
            memcpy(bytes, packet, len);
            whole += check(bytes, mutate(bytes, len, sizeof(bytes)));
        }
        free(packet);
    }
    print_message("%u mutated packets, %u of them parsed\n", count, whole);
    assert_true(whole > count / 4);
}

/* The longest there are: 65,535 bytes IPv4, 40 + 65,535 IPv6, with and without bytes behind. */
static void
test_longest(void **state)
{
    size_t room = 40 + 65535 + 100;
    uint8_t *bytes = calloc(1, room);

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 60; i < room; i++)
        bytes[i] = (uint8_t)next_random();
    memcpy(bytes, "\x45\0\xFF\xFF\0\0\0\0\x40\x11\0\0\x0A\0\0\1\x0A\0\0\2\0\1\0\2\xFF\xEB\0\0", 28);
    assert_true(check(bytes, 65535));
    assert_true(check(bytes, room));
    assert_true(check(bytes, 65534));
    memset(bytes, 0, 48);
    memcpy(bytes, "\x60\0\0\0\xFF\xFF\x11\x40", 8);
    assert_true(check(bytes, 40 + 65535));
    assert_true(check(bytes, room));
    assert_true(check(bytes, 40 + 65534));
    free(bytes);
}

/* 8,191 extension headers of 8 bytes, the most that fit; the walk comes to an end and finds what is behind. */
static void
test_many_extensions(void **state)
{
    size_t len = 40 + 65528;
    uint8_t *bytes = calloc(1, len), protocol;
    PWINDIVERT_UDPHDR udp;

    (void)state;
    assert_non_null(bytes);
    memcpy(bytes, "\x60\0\0\0\xFF\xF8\0\x40", 8);
    for (size_t at = 40; at + 8 < len; at += 8)
        bytes[at] = at + 16 < len ? 60 : 17;
    assert_true(WinDivertHelperParsePacket(bytes, (UINT)len, NULL, NULL, &protocol, NULL, NULL, NULL, &udp, NULL,
                                           NULL, NULL, NULL));
    assert_int_equal(protocol, 17);
    assert_ptr_equal(udp, bytes + len - 8);
    assert_true(check(bytes, len));
    free(bytes);
}

/* ---- checksums -------------------------------------------------------------------- */

static void
test_sum_of_any_length(void **state)
{
    unsigned compared = 0;

    (void)state;
    for (size_t len = 0; len <= 300; len++)
        for (size_t shift = 0; shift < 9; shift++, compared++) {
            uint8_t *block = malloc(len + shift ? len + shift : 1);
            uint16_t sum;
            uint8_t bytes[2];

            assert_non_null(block);
            for (size_t i = 0; i < len + shift; i++)
                block[i] = shift == 8 ? 0xFF : (uint8_t)next_random();
            sum = wd_cksum_fold(wd_cksum_add(0, block + shift, len));
            memcpy(bytes, &sum, sizeof(sum));
            assert_int_equal(bytes[0] << 8 | bytes[1], packet_law_sum(0, block + shift, len));
            free(block);
        }
    print_message("%u sums compared\n", compared);
}

static const uint8_t udp4[] = {0x45, 0,  0, 29, 0, 0, 0, 0, 9, 17, 0, 0, 10, 0, 0,
                               1,    10, 0, 0,  2, 0, 1, 0, 2, 0,  9, 0, 0,  7};

static void
test_udp_without_checksum(void **state)
{
    uint8_t packet[sizeof(udp4)];
    struct wd_packet core;
    struct wd_sums sums;

    (void)state;
    memcpy(packet, udp4, sizeof(udp4));
    assert_true(wd_cksum_fill(packet, sizeof(packet), 0));
    assert_int_equal(packet[26] | packet[27], 0);
    assert_true(header_is_right(packet));
    assert_true(wd_packet_parse(packet, sizeof(packet), &core));
    wd_cksum_verify(&core, true, &sums);
    assert_true(sums.ip && sums.udp && !sums.tcp);
    wd_cksum_verify(&core, false, &sums);
    assert_true(sums.ip && !sums.udp);
    assert_true(WinDivertHelperCalcChecksums(packet, sizeof(packet), NULL, 0));
    assert_int_not_equal(packet[26] | packet[27], 0);
    packet[28] ^= 1;
    wd_cksum_verify(&core, true, &sums);
    assert_true(sums.ip && !sums.udp);
    packet[8] ^= 1;
    assert_false(wd_cksum_verify_ip(&core));
}

/* RFC 8200 8.1: IPv6 has no UDP without a checksum. */
static void
test_udp_without_checksum_over_ipv6(void **state)
{
    uint8_t packet[48] = {0x60, 0, 0, 0, 0, 8, 17, 64, [44] = 0, 8};
    struct wd_packet core;
    struct wd_sums sums;

    (void)state;
    assert_true(wd_packet_parse(packet, sizeof(packet), &core));
    assert_int_equal(core.l4, WD_L4_UDP);
    wd_cksum_verify(&core, true, &sums);
    assert_true(!sums.ip && !sums.udp && !sums.tcp);
    assert_true(wd_cksum_fill(packet, sizeof(packet), 0));
    assert_int_not_equal(packet[46] | packet[47], 0);
    wd_cksum_verify(&core, true, &sums);
    assert_true(!sums.ip && sums.udp && !sums.tcp);
}

/* Where the sum comes out as 0, which means "none" in UDP, 0xFFFF is stored. */
static void
test_udp_sum_of_zero(void **state)
{
    uint8_t packet[sizeof(udp4)];
    uint16_t sum;

    (void)state;
    memcpy(packet, udp4, sizeof(udp4));
    assert_true(WinDivertHelperCalcChecksums(packet, sizeof(packet), NULL, 0));
    sum = (uint16_t)(packet[26] << 8 | packet[27]);
    /* the source port takes up what is missing to 0xFFFF */
    sum = (uint16_t)packet_law_sum(sum, (const uint8_t[]){0, 1}, 2);
    packet[20] = (uint8_t)(sum >> 8);
    packet[21] = (uint8_t)sum;
    assert_true(WinDivertHelperCalcChecksums(packet, sizeof(packet), NULL, 0));
    assert_int_equal(packet[26], 0xFF);
    assert_int_equal(packet[27], 0xFF);
}

static void
test_transport_not_all_there(void **state)
{
    uint8_t packet[sizeof(udp4)];
    WINDIVERT_ADDRESS addr = {0};

    (void)state;
    memcpy(packet, udp4, sizeof(udp4));
    packet[6] = 0x20; /* more fragments follow */
    assert_false(WinDivertHelperCalcChecksums(packet, sizeof(packet), &addr, 0));
    assert_int_equal(GetLastError(), ERROR_INVALID_PARAMETER);
    assert_true(header_is_right(packet));
    assert_true(addr.IPChecksum && !addr.UDPChecksum);
    assert_int_equal(packet[26] | packet[27], 0);
    assert_true(WinDivertHelperCalcChecksums(packet, sizeof(packet), &addr, WINDIVERT_HELPER_NO_UDP_CHECKSUM));

    memcpy(packet, udp4, sizeof(udp4));
    packet[3] = 30; /* one byte more than there is */
    memset(&addr, 0, sizeof(addr));
    assert_false(WinDivertHelperCalcChecksums(packet, sizeof(packet), &addr, 0));
    assert_true(header_is_right(packet));
    assert_true(addr.IPChecksum && !addr.UDPChecksum);
    assert_true(WinDivertHelperCalcChecksums(packet, sizeof(packet), &addr, WINDIVERT_HELPER_NO_UDP_CHECKSUM));
}

/* A part that is excluded keeps its field and its bit, set or clear. */
static void
test_excluded_bits_stay(void **state)
{
    uint8_t packet[sizeof(udp4)];
    WINDIVERT_ADDRESS addr = {0};

    (void)state;
    memcpy(packet, udp4, sizeof(udp4));
    addr.IPChecksum = addr.TCPChecksum = 1;
    assert_true(WinDivertHelperCalcChecksums(packet, sizeof(packet), &addr, WINDIVERT_HELPER_NO_IP_CHECKSUM));
    assert_true(addr.IPChecksum && addr.TCPChecksum && addr.UDPChecksum);
    assert_int_equal(packet[10] | packet[11], 0);
}

/* ---- what is behind a packet, and pointers that are missing ------------------------- */

static void
test_batch_or_whole(void **state)
{
    uint8_t two[2 * sizeof(udp4)];
    UINT data_len = 0, next_len = 0;
    PVOID data = NULL, next = NULL;

    (void)state;
    memcpy(two, udp4, sizeof(udp4));
    memcpy(two + sizeof(udp4), udp4, sizeof(udp4));
    assert_true(WinDivertHelperParsePacket(two, sizeof(two), NULL, NULL, NULL, NULL, NULL, NULL, NULL, &data,
                                           &data_len, &next, NULL));
    assert_int_equal(data_len, 1);
    assert_ptr_equal(next, two + sizeof(udp4));
    assert_true(WinDivertHelperParsePacket(two, sizeof(two), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                                           &data_len, NULL, &next_len));
    assert_int_equal(data_len, 1);
    assert_int_equal(next_len, sizeof(udp4));
    assert_true(WinDivertHelperParsePacket(two, sizeof(two), NULL, NULL, NULL, NULL, NULL, NULL, NULL, &data,
                                           &data_len, NULL, NULL));
    assert_int_equal(data_len, 1 + sizeof(udp4));
    assert_ptr_equal(data, two + 28);
    assert_true(WinDivertHelperParsePacket(two, sizeof(two), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                                           NULL, NULL));
}

static void
test_null_packet(void **state)
{
    (void)state;
    SetLastError(0);
    assert_false(
        WinDivertHelperParsePacket(NULL, 60, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL));
    assert_int_equal(GetLastError(), ERROR_INVALID_PARAMETER);
    SetLastError(0);
    assert_int_equal(WinDivertHelperHashPacket(NULL, 60, 1), 0);
    assert_int_equal(GetLastError(), ERROR_INVALID_PARAMETER);
    SetLastError(0);
    assert_false(WinDivertHelperCalcChecksums(NULL, 60, NULL, 0));
    assert_int_equal(GetLastError(), ERROR_INVALID_PARAMETER);
    SetLastError(0);
    assert_false(WinDivertHelperDecrementTTL(NULL, 60));
    assert_int_equal(GetLastError(), ERROR_INVALID_PARAMETER);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_many_extensions),
        cmocka_unit_test(test_sum_of_any_length),
        cmocka_unit_test(test_udp_without_checksum),
        cmocka_unit_test(test_udp_without_checksum_over_ipv6),
        cmocka_unit_test(test_udp_sum_of_zero),
        cmocka_unit_test(test_transport_not_all_there),
        cmocka_unit_test(test_excluded_bits_stay),
        cmocka_unit_test(test_batch_or_whole),
        cmocka_unit_test(test_null_packet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
