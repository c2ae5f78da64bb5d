/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* TCP packets of all sizes in segments, put together again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "core/cksum.h"
#include "linux/segment.h"

#define MAX 65535
#define SEQ 0xFFFFFF00u /* wraps */
#define ID 0xFFFE

struct whole {
    uint8_t data[MAX];
    uint32_t got, count, mtu, total;
    uint8_t flags;
    bool v6;
};

static uint32_t
be16(const uint8_t *p)
{
    return (uint32_t)(p[0] << 8 | p[1]);
}

static uint32_t
be32(const uint8_t *p)
{
    return be16(p) << 16 | be16(p + 2);
}

static int
take(void *ctx, const struct wd_packet *segment)
{
    const uint8_t *ip = segment->data, *tcp = ip + segment->l4_off;
    uint32_t len = segment->ip_len - segment->data_off;
    struct whole *whole = ctx;
    bool last = whole->got + len == whole->total;
    struct wd_sums sums = {0};

    assert_true(segment->ip_len <= whole->mtu && segment->l4 == WD_L4_TCP && !segment->truncated);
    assert_true(last || segment->ip_len == whole->mtu);
    assert_int_equal(be32(tcp + 4), SEQ + whole->got);
    assert_int_equal(tcp[13],
                     whole->flags & (whole->got ? 0x7F : 0xFF) & (last ? 0xFF : 0xF6)); /* CWR first; PSH, FIN last */
    assert_int_equal(be32(tcp + 20), 0x0101080A);                                       /* options stay */
    if (!whole->v6)
        assert_int_equal(be16(ip + 4), (ID + whole->count) & 0xFFFF);
    wd_cksum_verify(segment, true, &sums);
    assert_true(sums.tcp && (whole->v6 || sums.ip));
    memcpy(whole->data + whole->got, ip + segment->data_off, len);
    whole->got += len;
    whole->count++;
    return 0;
}

static uint32_t
make(uint8_t *packet, bool v6, uint32_t payload, uint8_t flags)
{
    uint32_t ip_len = v6 ? 40 : 20, len = ip_len + 24 + payload;
    uint8_t *tcp = packet + ip_len;

    memset(packet, 0, ip_len + 24);
    packet[0] = v6 ? 0x60 : 0x45;
    if (v6) {
        packet[4] = (uint8_t)((len - 40) >> 8);
        packet[5] = (uint8_t)(len - 40);
        packet[6] = 6;
    } else {
        packet[2] = (uint8_t)(len >> 8);
        packet[3] = (uint8_t)len;
        packet[4] = ID >> 8;
        packet[5] = ID & 0xFF;
        packet[6] = 0x40; /* DF */
        packet[9] = 6;
    }
    for (int i = 0; i < 4; i++)
        tcp[4 + i] = (uint8_t)(SEQ >> (24 - 8 * i));
    tcp[12] = 6 << 4;
    tcp[13] = flags;
    memcpy(tcp + 20, "\1\1\x08\x0A", 4);
    for (uint32_t i = 0; i < payload; i++)
        tcp[24 + i] = (uint8_t)(i * 7 + (i >> 8));
    return len;
}

static void
test_together(void **state)
{
    static const uint32_t mtus[] = {69, 576, 1280, 1500, 9000, 65535};
    static uint8_t bytes[MAX];
    static struct whole whole;

    (void)state;
    for (unsigned int round = 0; round < 4; round++)
        for (uint32_t payload = 1; payload < 65400; payload = payload * 3 / 2 + 1)
            for (size_t m = 0; m < sizeof(mtus) / sizeof(mtus[0]); m++) {
                bool v6 = round & 1;
                uint8_t flags = round & 2 ? 0xFF : 0x18;
                uint32_t len = make(bytes, v6, payload, flags);
                struct wd_packet packet;

                assert_true(wd_packet_parse(bytes, len, &packet));
                whole = (struct whole){.mtu = mtus[m], .total = payload, .flags = flags, .v6 = v6};
                assert_int_equal(wd_segment(&packet, mtus[m], take, &whole), 0);
                assert_int_equal(whole.got, payload);
                assert_memory_equal(whole.data, bytes + packet.data_off, payload);
            }
}

static int
stop(void *ctx, const struct wd_packet *segment)
{
    int *calls = ctx;

    (void)segment;
    return ++*calls == 3 ? -ENOBUFS : 0;
}

static void
test_refused(void **state)
{
    static uint8_t bytes[MAX];
    uint32_t len = make(bytes, false, 1000, 0x10);
    struct wd_packet packet;
    int calls = 0;

    (void)state;
    assert_true(wd_packet_parse(bytes, len, &packet));
    assert_int_equal(wd_segment(&packet, 44, stop, &calls), -EMSGSIZE);
    assert_int_equal(wd_segment(&packet, 100, stop, &calls), -ENOBUFS);
    assert_int_equal(calls, 3);
    bytes[9] = 17;
    assert_true(wd_packet_parse(bytes, len, &packet));
    assert_int_equal(wd_segment(&packet, 100, stop, &calls), -EMSGSIZE);
    bytes[9] = 6;
    bytes[6] = 0x20; /* a first fragment */
    assert_true(wd_packet_parse(bytes, len, &packet));
    assert_int_equal(wd_segment(&packet, 100, stop, &calls), -EMSGSIZE);
    len = make(bytes, false, 0, 0x10);
    assert_true(wd_packet_parse(bytes, len, &packet));
    assert_int_equal(wd_segment(&packet, 100, stop, &calls), -EMSGSIZE);
    assert_int_equal(calls, 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
