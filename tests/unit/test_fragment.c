/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Fragments of random packets, put together again by the rules of RFC 791 and RFC 8200. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "linux/fragment.h"

#define MAX 65535

struct whole {
    uint8_t data[MAX + 64]; /* payload put together */
    uint32_t end;           /* where the last fragment ends; 0: it has not come */
    uint32_t got, mtu, id, count;
    uint8_t next; /* IPv6: next header of the fragment headers */
    int fail_at;
};

static uint32_t
be16(const uint8_t *p)
{
    return (uint32_t)(p[0] << 8 | p[1]);
}

static void
place(struct whole *whole, uint32_t offset, const uint8_t *data, uint32_t len, bool more)
{
    assert_true(offset + len <= MAX);
    assert_true(!more || len % 8 == 0);
    assert_int_equal(offset, whole->got); /* in order, no gap */
    memcpy(whole->data + offset, data, len);
    whole->got += len;
    if (!more)
        whole->end = offset + len;
}

static int
take4(void *ctx, const struct wd_packet *fragment)
{
    const uint8_t *ip = fragment->data;
    struct whole *whole = ctx;
    uint32_t head = (ip[0] & 15u) * 4;

    assert_true(fragment->ip_len <= whole->mtu);
    assert_int_equal(be16(ip + 2), fragment->ip_len);
    assert_int_equal(be16(ip + 4), whole->id);
    assert_int_equal(ip[9], 17);
    if (head > 20) /* a copied option (131) in all, another (7) in the first alone */
        assert_true(ip[20] == 131 && ip[24] == (whole->count ? 1 : 7));
    place(whole, (be16(ip + 6) & 0x1FFF) * 8, ip + head, fragment->ip_len - head, be16(ip + 6) & 0x2000);
    whole->count++;
    return whole->fail_at && (int)whole->count == whole->fail_at ? -ENOBUFS : 0;
}

static int
take6(void *ctx, const struct wd_packet *fragment)
{
    const uint8_t *ip = fragment->data;
    struct whole *whole = ctx;
    uint32_t at = 40;

    assert_true(fragment->ip_len <= whole->mtu);
    assert_int_equal(be16(ip + 4) + 40, fragment->ip_len);
    if (ip[6] == 0) { /* hop-by-hop comes before */
        assert_int_equal(ip[40], 44);
        at = 48;
    } else {
        assert_int_equal(ip[6], 44);
    }
    assert_int_equal(ip[at], 17);
    assert_int_equal(be16(ip + at + 4) << 16 | be16(ip + at + 6), whole->id);
    place(whole, be16(ip + at + 2) & 0xFFF8, ip + at + 8, fragment->ip_len - at - 8, ip[at + 3] & 1);
    whole->count++;
    return 0;
}

static uint8_t buffer[MAX + 64];

/* options: 8 bytes of them; IPv6: a hop-by-hop header */
static uint32_t
make(int version, bool options, uint32_t len, struct wd_packet *ret_packet)
{
    uint32_t head = (version == 4 ? 20 : 40) + (options ? 8 : 0);

    for (uint32_t i = 0; i < len; i++)
        buffer[i] = (uint8_t)rand();
    memset(buffer, 0, head);
    if (version == 4) {
        const uint8_t option[8] = {131, 4, 4, 0, 7, 4, 4, 0};

        buffer[0] = (uint8_t)(0x40 | head / 4);
        buffer[2] = (uint8_t)(len >> 8);
        buffer[3] = (uint8_t)len;
        buffer[9] = 17;
        memcpy(buffer + 20, option, options ? 8 : 0);
    } else {
        buffer[0] = 0x60;
        buffer[4] = (uint8_t)((len - 40) >> 8);
        buffer[5] = (uint8_t)(len - 40);
        buffer[6] = options ? 0 : 17;
        buffer[40] = options ? 17 : buffer[40];
        buffer[41] = options ? 0 : buffer[41];
    }
    assert_true(wd_packet_parse(buffer, len, ret_packet));
    return head;
}

static void
check_version(int version)
{
    static struct whole whole;
    struct wd_packet packet;

    for (int i = 0; i < 2000; i++) {
        bool options = rand() & 1;
        uint32_t len = 100 + (uint32_t)rand() % 65000, head = make(version, options, len, &packet);

        memset(&whole, 0, sizeof(whole));
        whole.mtu = 100 + (uint32_t)rand() % 9000;
        whole.id = 0x4321;
        assert_int_equal(wd_fragment(&packet, whole.mtu, 0x4321, version == 4 ? take4 : take6, &whole), 0);
        assert_int_equal(whole.end, len - head);
        assert_int_equal(whole.got, len - head);
        assert_memory_equal(whole.data, buffer + head, len - head);
    }
}

static void
test_ipv4(void **state)
{
    (void)state;
    check_version(4);
}

static void
test_ipv6(void **state)
{
    (void)state;
    check_version(6);
}

/* A fragment that is too large is split again: offsets go on from its own, the last keeps "more fragments". */
static int
last_offset(void *ctx, const struct wd_packet *fragment)
{
    *(uint32_t *)ctx = be16(fragment->data + 6);
    return 0;
}

static void
test_fragment_of_fragment(void **state)
{
    struct wd_packet packet;
    uint32_t field = 0;

    (void)state;
    make(4, false, 20 + 4000, &packet);
    buffer[4] = 1; /* its own id */
    buffer[6] = 0x20;
    buffer[7] = 100; /* offset 800, more follow */
    assert_true(wd_packet_parse(buffer, 4020, &packet));
    assert_int_equal(wd_fragment(&packet, 1500, 7, last_offset, &field), 0);
    assert_int_equal(field, 0x2000 | (100 + 2960 / 8));
}

static void
test_refused(void **state)
{
    static struct whole whole = {.mtu = 1500, .id = 7};
    struct wd_packet packet;

    (void)state;
    make(4, false, 3000, &packet);
    buffer[6] = 0x40; /* DF */
    assert_int_equal(wd_fragment(&packet, 1500, 7, take4, &whole), -EMSGSIZE);
    buffer[6] = 0x1F; /* offset 8185 * 8: the pieces' offsets would run into the flags */
    buffer[7] = 0xF9;
    assert_int_equal(wd_fragment(&packet, 1500, 7, take4, &whole), -EMSGSIZE);
    buffer[6] = buffer[7] = 0;
    assert_int_equal(wd_fragment(&packet, 27, 7, take4, &whole), -EMSGSIZE);
    assert_int_equal(whole.count, 0);
    whole.fail_at = 2;
    assert_int_equal(wd_fragment(&packet, 1500, 7, take4, &whole), -ENOBUFS);
    assert_int_equal(whole.count, 2);
    make(6, false, 3000, &packet);
    packet.fragment = true;
    assert_int_equal(wd_fragment(&packet, 1500, 7, take6, &whole), -EMSGSIZE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ipv4),
        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_fragment_of_fragment),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
