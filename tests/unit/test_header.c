/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The bits of the public structures, the header macros, byte order, address texts that fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "windivert.h"

/* Static assertions see whole fields; the place of a bit-field shows in the bytes. */
#define ASSERT_BYTE(type, field, value, at, byte)                                                                    \
    do {                                                                                                             \
        type object;                                                                                                 \
                                                                                                                     \
        memset(&object, 0, sizeof(object));                                                                          \
        object.field = (value);                                                                                      \
        assert_bytes((const uint8_t *)&object, sizeof(object), at, byte);                                            \
    } while (0)

static void
assert_bytes(const uint8_t *bytes, size_t len, size_t at, uint8_t value)
{
    for (size_t i = 0; i < len; i++)
        assert_int_equal(bytes[i], i == at ? value : 0);
}

static void
test_address_bits(void **state)
{
    (void)state;
    ASSERT_BYTE(WINDIVERT_ADDRESS, Layer, 0xFF, 8, 0xFF);
    ASSERT_BYTE(WINDIVERT_ADDRESS, Event, 0xFF, 9, 0xFF);
    ASSERT_BYTE(WINDIVERT_ADDRESS, Sniffed, 1, 10, 0x01);
    ASSERT_BYTE(WINDIVERT_ADDRESS, Outbound, 1, 10, 0x02);
    ASSERT_BYTE(WINDIVERT_ADDRESS, Loopback, 1, 10, 0x04);
    ASSERT_BYTE(WINDIVERT_ADDRESS, Impostor, 1, 10, 0x08);
    ASSERT_BYTE(WINDIVERT_ADDRESS, IPv6, 1, 10, 0x10);
    ASSERT_BYTE(WINDIVERT_ADDRESS, IPChecksum, 1, 10, 0x20);
    ASSERT_BYTE(WINDIVERT_ADDRESS, TCPChecksum, 1, 10, 0x40);
    ASSERT_BYTE(WINDIVERT_ADDRESS, UDPChecksum, 1, 10, 0x80);
    ASSERT_BYTE(WINDIVERT_ADDRESS, Reserved1, 0xFF, 11, 0xFF);
}

static void
test_header_bits(void **state)
{
    (void)state;
    ASSERT_BYTE(WINDIVERT_IPHDR, Version, 4, 0, 0x40);
    ASSERT_BYTE(WINDIVERT_IPHDR, HdrLength, 5, 0, 0x05);
    ASSERT_BYTE(WINDIVERT_IPV6HDR, Version, 6, 0, 0x60);
    ASSERT_BYTE(WINDIVERT_IPV6HDR, TrafficClass0, 0xA, 0, 0x0A);
    ASSERT_BYTE(WINDIVERT_IPV6HDR, TrafficClass1, 0xB, 1, 0xB0);
    ASSERT_BYTE(WINDIVERT_IPV6HDR, FlowLabel0, 0xC, 1, 0x0C);
    ASSERT_BYTE(WINDIVERT_TCPHDR, HdrLength, 5, 12, 0x50);
    ASSERT_BYTE(WINDIVERT_TCPHDR, Reserved1, 0xF, 12, 0x0F);
    ASSERT_BYTE(WINDIVERT_TCPHDR, Fin, 1, 13, 0x01);
    ASSERT_BYTE(WINDIVERT_TCPHDR, Syn, 1, 13, 0x02);
    ASSERT_BYTE(WINDIVERT_TCPHDR, Rst, 1, 13, 0x04);
    ASSERT_BYTE(WINDIVERT_TCPHDR, Psh, 1, 13, 0x08);
    ASSERT_BYTE(WINDIVERT_TCPHDR, Ack, 1, 13, 0x10);
    ASSERT_BYTE(WINDIVERT_TCPHDR, Urg, 1, 13, 0x20);
    ASSERT_BYTE(WINDIVERT_TCPHDR, Reserved2, 3, 13, 0xC0);
}

/* FragOff0 with all bits but those of a setter set, and the reverse: the setter touches its own bits only. */
static void
test_ip_macros(void **state)
{
    WINDIVERT_IPHDR hdr;
    uint8_t *bytes = (uint8_t *)&hdr + offsetof(WINDIVERT_IPHDR, FragOff0);

    (void)state;
    memset(&hdr, 0, sizeof(hdr));
    WINDIVERT_IPHDR_SET_FRAGOFF(&hdr, WinDivertHelperHtons(0x1234));
    assert_int_equal(bytes[0] << 8 | bytes[1], 0x1234);
    assert_int_equal(WINDIVERT_IPHDR_GET_FRAGOFF(&hdr), WinDivertHelperHtons(0x1234));
    WINDIVERT_IPHDR_SET_MF(&hdr, 1);
    assert_int_equal(bytes[0] << 8 | bytes[1], 0x3234);
    WINDIVERT_IPHDR_SET_DF(&hdr, 1);
    assert_int_equal(bytes[0] << 8 | bytes[1], 0x7234);
    WINDIVERT_IPHDR_SET_RESERVED(&hdr, 1);
    assert_int_equal(bytes[0] << 8 | bytes[1], 0xF234);
    assert_int_equal(WINDIVERT_IPHDR_GET_MF(&hdr) + WINDIVERT_IPHDR_GET_DF(&hdr) + WINDIVERT_IPHDR_GET_RESERVED(&hdr),
                     3);
    WINDIVERT_IPHDR_SET_FRAGOFF(&hdr, 0);
    assert_int_equal(bytes[0] << 8 | bytes[1], 0xE000);
    WINDIVERT_IPHDR_SET_MF(&hdr, 0);
    assert_int_equal(bytes[0] << 8 | bytes[1], 0xC000);
    WINDIVERT_IPHDR_SET_DF(&hdr, 0);
    assert_int_equal(bytes[0] << 8 | bytes[1], 0x8000);
    assert_int_equal(WINDIVERT_IPHDR_GET_MF(&hdr) + WINDIVERT_IPHDR_GET_DF(&hdr), 0);
    WINDIVERT_IPHDR_SET_RESERVED(&hdr, 0);
    assert_int_equal(WINDIVERT_IPHDR_GET_RESERVED(&hdr), 0);
    WINDIVERT_IPHDR_SET_FRAGOFF(&hdr, 0xFFFF);
    assert_int_equal(bytes[0] << 8 | bytes[1], 0x1FFF);
}

static void
test_ipv6_macros(void **state)
{
    WINDIVERT_IPV6HDR hdr;
    const uint8_t *bytes = (const uint8_t *)&hdr;

    (void)state;
    memset(&hdr, 0, sizeof(hdr));
    hdr.Version = 6;
    WINDIVERT_IPV6HDR_SET_TRAFFICCLASS(&hdr, 0xAB);
    assert_int_equal(WINDIVERT_IPV6HDR_GET_TRAFFICCLASS(&hdr), 0xAB);
    WINDIVERT_IPV6HDR_SET_FLOWLABEL(&hdr, 0x14523);
    assert_memory_equal(bytes, "\x6A\xB1\x23\x45", 4);
    assert_int_equal(WINDIVERT_IPV6HDR_GET_FLOWLABEL(&hdr), 0x14523);
    WINDIVERT_IPV6HDR_SET_TRAFFICCLASS(&hdr, 0);
    assert_memory_equal(bytes, "\x60\x01\x23\x45", 4);
    WINDIVERT_IPV6HDR_SET_FLOWLABEL(&hdr, 0);
    assert_memory_equal(bytes, "\x60\0\0\0", 4);
}

static void
test_byte_order(void **state)
{
    const uint8_t bytes[] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF};
    UINT16 x16;
    UINT32 x32;
    UINT64 x64;

    (void)state;
    memcpy(&x16, bytes, sizeof(x16));
    memcpy(&x32, bytes, sizeof(x32));
    memcpy(&x64, bytes, sizeof(x64));
    assert_int_equal(WinDivertHelperNtohs(x16), 0x0123);
    assert_int_equal(WinDivertHelperNtohl(x32), 0x01234567);
    assert_true(WinDivertHelperNtohll(x64) == UINT64_C(0x0123456789ABCDEF));
    assert_int_equal(WinDivertHelperHtons(0x0123), x16);
    assert_int_equal(WinDivertHelperHtonl(0x01234567), x32);
    assert_true(WinDivertHelperHtonll(UINT64_C(0x0123456789ABCDEF)) == x64);
}

static void
test_address_byte_order(void **state)
{
    const uint8_t wire[16] = {0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xAB, 0xCD};
    const UINT host[4] = {0xABCD, 0, 0, 0x20010DB8};
    UINT words[4], back[4];

    (void)state;
    memcpy(words, wire, sizeof(words));
    WinDivertHelperNtohIPv6Address(words, back);
    assert_memory_equal(back, host, sizeof(host));
    WinDivertHelperHtonIPv6Address(back, back);
    assert_memory_equal(back, wire, sizeof(wire));
    WinDivertHelperNtohIpv6Address(back, back);
    assert_memory_equal(back, host, sizeof(host));
    WinDivertHelperHtonIpv6Address(host, back);
    assert_memory_equal(back, wire, sizeof(wire));

    SetLastError(0);
    WinDivertHelperNtohIPv6Address(NULL, back);
    WinDivertHelperHtonIPv6Address(words, NULL);
    assert_int_equal(GetLastError(), ERROR_INVALID_PARAMETER);
    assert_memory_equal(back, wire, sizeof(wire));
}

/* The call failed with that code; for the next one the code is cleared. */
static void
assert_failed(BOOL ok, DWORD code)
{
    assert_false(ok);
    assert_int_equal(GetLastError(), code);
    SetLastError(0);
}

static void
test_address_failures(void **state)
{
    UINT32 words[4] = {1, 2, 3, 4};
    const UINT32 before[4] = {1, 2, 3, 4};
    char text[41] = "unchanged";

    (void)state;
    SetLastError(0);
    assert_failed(WinDivertHelperParseIPv4Address(NULL, words), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv4Address("1.2.3.4", NULL), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv4Address("1.2.3.256", words), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv4Address("1.2.3.0004", words), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv4Address("", words), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv6Address(NULL, words), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv6Address("::1", NULL), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv6Address("1:2:3:4:5:6:7:8:9", words), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv6Address("1:2:3:4:5:6:7:8::", words), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv6Address("1:2:3:4:5:6:7:1.2.3.4", words), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperParseIPv6Address("::1.2.3.4:5", words), ERROR_INVALID_PARAMETER);
    assert_memory_equal(words, before, sizeof(words));

    assert_failed(WinDivertHelperFormatIPv4Address(0, NULL, 16), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperFormatIPv4Address(0, text, 7), ERROR_INSUFFICIENT_BUFFER);
    assert_failed(WinDivertHelperFormatIPv4Address(0, text, 0), ERROR_INSUFFICIENT_BUFFER);
    assert_failed(WinDivertHelperFormatIPv6Address(NULL, text, 40), ERROR_INVALID_PARAMETER);
    assert_failed(WinDivertHelperFormatIPv6Address(words, NULL, 40), ERROR_INVALID_PARAMETER);
    assert_string_equal(text, "unchanged");
    words[0] = words[1] = words[2] = words[3] = UINT32_MAX;
    assert_failed(WinDivertHelperFormatIPv6Address(words, text, 39), ERROR_INSUFFICIENT_BUFFER);
    assert_string_equal(text, "unchanged");
    assert_true(WinDivertHelperFormatIPv6Address(words, text, 40));
    assert_string_equal(text, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_true(WinDivertHelperFormatIPv4Address(UINT32_MAX, text, 16));
    assert_string_equal(text, "255.255.255.255");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address_bits),     cmocka_unit_test(test_header_bits),
        cmocka_unit_test(test_ip_macros),        cmocka_unit_test(test_ipv6_macros),
        cmocka_unit_test(test_byte_order),       cmocka_unit_test(test_address_byte_order),
        cmocka_unit_test(test_address_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
