/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Native prefixes: what they are for some filters, and that no packet a filter matches fails them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "filter_random.h"
#include "linux/native.h"

#define FILTERS 6000
#define PACKETS 60

static struct corpus *corpus;

static struct wd_prog *
compile(struct wd_arena *arena, const char *text, bool outbound)
{
    struct wd_filter_error error;
    struct wd_known known = {0};
    struct wd_filter *filter;
    struct wd_prog *prog;
    bool exact;

    known.state[WD_F_OUTBOUND] = WD_KNOWN;
    known.value[WD_F_OUTBOUND] = outbound;
    if (wd_filter_compile(arena, text, WINDIVERT_LAYER_NETWORK, &filter, &error) < 0)
        fail_msg("%s: %s", text, wd_filter_strerror(error.code));
    assert_int_equal(wd_filter_specialise(arena, filter, &known, &prog, &exact), 0);
    return prog;
}

/* ---- Golden ------------------------------------------------------------- */

#define UNUSUAL "@nh,0,8 != 0x45 @nh,48,8 != 0x6 @nh,48,8 != 0x11 @nh,48,8 != 0x3a"
#define V4 "@nh,0,8 & 0xf0 == 0x40"
#define V6 "@nh,0,8 & 0xf0 == 0x60"

struct golden {
    const char *filter;
    bool outbound;
    const char *prefix[WD_PREFIXES_MAX];
};

static const struct golden goldens[] = {
    {"true", true, {""}},
    {"false", true, {NULL}},
    {"inbound", true, {NULL}},
    {"length > 100", true, {""}},
    {"ip", true, {V4}},
    {"not ip", true, {V6}},
    {"ip or ipv6", true, {""}},
    {"tcp", true, {"@nh,0,8 == 0x45 @nh,72,8 == 0x6", V6 " @nh,48,8 == 0x6", UNUSUAL}},
    {"icmp", true, {"@nh,0,8 == 0x45 @nh,72,8 == 0x1", "@nh,0,8 != 0x45 " V4}},
    {"icmpv6",
     true,
     {V6 " @nh,48,8 == 0x3a", "@nh,0,8 != 0x45 " V6 " @nh,48,8 != 0x6 @nh,48,8 != 0x11 @nh,48,8 != 0x3a"}},
    {"icmp or icmpv6", true, {"@nh,0,8 == 0x45 @nh,72,8 == 0x1", V6 " @nh,48,8 == 0x3a", UNUSUAL}},
    {"tcp.DstPort == 443",
     true,
     {"@nh,0,8 == 0x45 @nh,72,8 == 0x6 @nh,176,16 == 0x1bb", V6 " @nh,48,8 == 0x6 @nh,336,16 == 0x1bb", UNUSUAL}},
    {"remotePort == 443", true, {"@nh,0,8 == 0x45 @nh,176,16 == 0x1bb", V6 " @nh,336,16 == 0x1bb", UNUSUAL}},
    {"remotePort == 443", false, {"@nh,0,8 == 0x45 @nh,160,16 == 0x1bb", V6 " @nh,320,16 == 0x1bb", UNUSUAL}},
    {"remotePort == 0", true, {""}}, /* of a packet without ports, too */
    {"udp.SrcPort >= 1024 and udp.SrcPort < 2048 and ip",
     true,
     {"@nh,0,8 == 0x45 @nh,72,8 == 0x11 @nh,160,16 >= 0x400 @nh,160,16 <= 0x7ff", "@nh,0,8 != 0x45 " V4}},
    {"tcp.DstPort == 80 or tcp.DstPort == 443 or udp.DstPort == 53",
     true,
     {"@nh,0,8 == 0x45 @nh,176,16 >= 0x35 @nh,176,16 <= 0x1bb", V6 " @nh,336,16 >= 0x35 @nh,336,16 <= 0x1bb",
      UNUSUAL}},
    {"tcp.DstPort == 80 or icmp",
     true,
     {V4, V6 " @nh,48,8 == 0x6 @nh,336,16 == 0x50",
      "@nh,0,8 != 0x45 " V6 " @nh,48,8 != 0x6 @nh,48,8 != 0x11 @nh,48,8 != 0x3a"}},
    {"ip.DstAddr == 10.0.0.1", true, {V4 " @nh,128,32 == 0xa000001"}},
    {"ip.SrcAddr >= 10.0.0.0 and ip.SrcAddr <= 10.255.255.255",
     true,
     {V4 " @nh,96,32 >= 0xa000000 @nh,96,32 <= 0xaffffff"}},
    {"remoteAddr == 10.0.0.1 and udp",
     true,
     {"@nh,0,8 == 0x45 @nh,72,8 == 0x11 @nh,128,32 == 0xa000001",
      V6 " @nh,48,8 == 0x11 @nh,192,128 == 0xffff0a000001", UNUSUAL}},
    {"localAddr == fd77::1", false, {V6 " @nh,192,128 == 0xfd770000000000000000000000000001"}},
    {"ip.TTL == 5 or ipv6.HopLimit < 3", true, {V4 " @nh,64,8 == 0x5", V6 " @nh,56,8 <= 0x2"}},
    {"not tcp.DstPort == 80", true, {"@nh,0,8 == 0x45 @nh,72,8 == 0x6", V6 " @nh,48,8 == 0x6", UNUSUAL}},
    {"not (tcp.DstPort == 80)", true, {""}},
    {"tcp.DstPort != 80", true, {"@nh,0,8 == 0x45 @nh,72,8 == 0x6", V6 " @nh,48,8 == 0x6", UNUSUAL}},
    {"(outbound ? tcp.DstPort == 80 : udp)",
     false,
     {"@nh,0,8 == 0x45 @nh,72,8 == 0x11", V6 " @nh,48,8 == 0x11", UNUSUAL}},
    {"tcp.Payload[0] == 1", true, {"@nh,0,8 == 0x45 @nh,72,8 == 0x6", V6 " @nh,48,8 == 0x6", UNUSUAL}},
};

static void
test_golden(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(goldens) / sizeof(goldens[0]); i++) {
        const struct golden *golden = &goldens[i];
        struct wd_prefix prefix[WD_PREFIXES_MAX];
        char text[WD_PREFIX_TEXT];
        struct wd_arena arena;
        unsigned int count;

        wd_arena_init(&arena, NULL);
        assert_int_equal(wd_native_prefixes(&arena, compile(&arena, golden->filter, golden->outbound),
                                            golden->outbound, prefix, &count),
                         0);
        for (unsigned int p = 0; p < count; p++) {
            wd_native_format(&prefix[p], text, sizeof(text));
            if (!golden->prefix[p] || strcmp(golden->prefix[p], text) != 0)
                fail_msg("%s: prefix %u is '%s', not '%s'", golden->filter, p, text,
                         golden->prefix[p] ? golden->prefix[p] : "none");
        }
        if (count < WD_PREFIXES_MAX && golden->prefix[count])
            fail_msg("%s: only %u prefixes", golden->filter, count);
        wd_arena_free(&arena);
    }
}

/* ---- The law ------------------------------------------------------------ */

static bool
compare_holds(const struct wd_compare *compare, const uint8_t *packet, size_t len)
{
    uint8_t byte;
    int diff;

    if ((size_t)compare->offset + compare->len > len)
        return false;
    byte = packet[compare->offset] & compare->mask;
    diff = memcmp(compare->mask ? &byte : packet + compare->offset, compare->value, compare->len);
    switch (compare->op) {
    case WD_COMPARE_EQ:
        return diff == 0;
    case WD_COMPARE_NE:
        return diff != 0;
    case WD_COMPARE_GE:
        return diff >= 0;
    default:
        return diff <= 0;
    }
}

static bool
passes(const struct wd_prefix *prefix, unsigned int count, const uint8_t *packet, size_t len)
{
    for (unsigned int p = 0; p < count; p++) {
        bool all = true;

        for (unsigned int i = 0; i < prefix[p].count && all; i++)
            all = compare_holds(&prefix[p].compare[i], packet, len);
        if (all)
            return true;
    }
    return false;
}

#define ROOM 4200

/* IPv4 options, or an IPv6 extension header, put in; lengths as they should be. */
static void
insert(struct rng *rng, uint8_t packet[ROOM], size_t *len)
{
    static const uint8_t kinds[] = {0, 43, 44, 51, 60, 135};
    size_t at = packet[0] >> 4 == 4 ? 20 : 40, more = packet[0] >> 4 == 4 ? 4 : 8, total;

    if (*len < at || *len + more > ROOM || (packet[0] >> 4 == 4 && (packet[0] & 15) >= 15))
        return;
    memmove(packet + at + more, packet + at, *len - at);
    memset(packet + at, 0, more);
    *len += more;
    if (at == 20) {
        packet[0]++;
        total = (size_t)(packet[2] << 8 | packet[3]) + more;
        packet[2] = (uint8_t)(total >> 8);
        packet[3] = (uint8_t)total;
    } else {
        packet[40] = packet[6];
        packet[6] = kinds[rng_below(rng, sizeof(kinds))];
        total = (size_t)(packet[4] << 8 | packet[5]) + more;
        packet[4] = (uint8_t)(total >> 8);
        packet[5] = (uint8_t)total;
    }
}

struct counts {
    unsigned long matches, stopped, prefixes;
};

static void
check_packet(struct rng *rng, const char *text, const struct wd_prog *prog, bool outbound,
             const struct wd_prefix *prefix, unsigned int count, struct counts *counts)
{
    WINDIVERT_ADDRESS addr;
    struct wd_packet packet;
    uint8_t copy[ROOM], *bytes;
    size_t len;

    random_address(rng, WINDIVERT_LAYER_NETWORK, &addr);
    addr.Outbound = outbound;
    if (!random_packet(rng, corpus, &bytes, &packet))
        return;
    len = packet.buf_len < ROOM ? packet.buf_len : ROOM;
    memcpy(copy, bytes, len);
    free(bytes);
    for (uint32_t i = rng_below(rng, 4); i > 1; i--)
        insert(rng, copy, &len);
    if (!wd_packet_parse(copy, len, &packet))
        return;
    if (wd_prog_eval(prog, &packet, &addr)) {
        counts->matches++;
        if (!passes(prefix, count, copy, len)) {
            for (size_t i = 0; i < len; i++)
                printf("%02x", copy[i]);
            fail_msg("\n%s: matches, and the prefix does not let it through", text);
        }
    } else if (!passes(prefix, count, copy, len)) {
        counts->stopped++;
    }
}

static void
check_filter(struct rng *rng, const char *text, struct counts *counts)
{
    bool outbound = rng_below(rng, 2);
    struct wd_prefix prefix[WD_PREFIXES_MAX];
    struct wd_arena arena;
    struct wd_prog *prog;
    unsigned int count;

    wd_arena_init(&arena, NULL);
    prog = compile(&arena, text, outbound);
    assert_int_equal(wd_native_prefixes(&arena, prog, outbound, prefix, &count), 0);
    counts->prefixes += count > 1 || (count == 1 && prefix[0].count);
    for (int i = 0; i < PACKETS; i++)
        check_packet(rng, text, prog, outbound, prefix, count, counts);
    wd_arena_free(&arena);
}

static void
test_law(void **state)
{
    static struct random_filter filter;
    struct rng rng = {.state = 20231123};
    struct counts counts = {0};

    (void)state;
    for (int i = 0; i < FILTERS; i++) {
        random_filter(&rng, WINDIVERT_LAYER_NETWORK, corpus, &filter);
        check_filter(&rng, filter.text, &counts);
    }
    for (int round = 0; round < 20; round++)
        for (size_t i = 0; i < sizeof(goldens) / sizeof(goldens[0]); i++)
            check_filter(&rng, goldens[i].filter, &counts);
    print_message("%lu matches let through, %lu others stopped, %lu filters with a prefix\n", counts.matches,
                  counts.stopped, counts.prefixes);
    assert_true(counts.matches > 10000 && counts.stopped > 10000);
}

static int
setup(void **state)
{
    (void)state;
    corpus = corpus_load();
    return corpus ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    corpus_free(corpus);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_law),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
