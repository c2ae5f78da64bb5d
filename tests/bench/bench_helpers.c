/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The helpers that run for every packet: the checksum against the loop over
 * pairs of bytes that RFC 1071 shows, the hash and a whole CalcChecksums
 * against parsing.  Goal: the checksum of 1,400 bytes at least 4 times as fast.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "core/cksum.h"
#include "windivert.h"

static uint8_t packet[65535];

/* ---- what is measured, each on len bytes of packet --------------------------- */

static uint64_t
run_byte_pairs(uint32_t len)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i + 1 < len; i += 2)
        sum += (uint32_t)packet[i] << 8 | packet[i + 1];
    if (len % 2)
        sum += (uint32_t)packet[len - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return sum;
}

static uint64_t
run_checksum(uint32_t len)
{
    return wd_cksum_fold(wd_cksum_add(0, packet, len));
}

static uint64_t
run_parse(uint32_t len)
{
    PWINDIVERT_TCPHDR tcp = NULL;
    UINT data_len = 0;

    WinDivertHelperParsePacket(packet, len, NULL, NULL, NULL, NULL, NULL, &tcp, NULL, NULL, &data_len, NULL, NULL);
    return data_len;
}

static uint64_t
run_hash(uint32_t len)
{
    return WinDivertHelperHashPacket(packet, len, 1);
}

static uint64_t
run_calc(uint32_t len)
{
    return (uint64_t)WinDivertHelperCalcChecksums(packet, len, NULL, 0);
}

/* One of them, as a variant. */
struct call {
    uint64_t (*run)(uint32_t len);
    uint32_t len;
};

static void
run_call(void *arg, unsigned n)
{
    const struct call *call = arg;

    for (unsigned i = 0; i < n; i++)
        bench_sink += call->run(call->len);
}

static void
compare_sums(uint32_t len)
{
    struct call pairs = {run_byte_pairs, len}, ours = {run_checksum, len};
    const struct bench_variant variants[] = {{"byte pairs", run_call, &pairs, NULL},
                                             {"wd_cksum_add", run_call, &ours, NULL}};
    char name[32];

    snprintf(name, sizeof(name), "checksum %u B", len);
    bench_compare(name, variants, BENCH_COUNT(variants));
    if (len == 1400)
        bench_goal(name, variants[1].name, 0.25, variants[0].name);
}

static void
compare_helpers(uint32_t len)
{
    struct call parse = {run_parse, len}, hash = {run_hash, len}, calc = {run_calc, len};
    const struct bench_variant variants[] = {{"ParsePacket", run_call, &parse, NULL},
                                             {"HashPacket", run_call, &hash, NULL},
                                             {"CalcChecksums", run_call, &calc, NULL}};

    bench_compare("TCP packet 1400 B", variants, BENCH_COUNT(variants));
}

/* An IPv4 packet of TCP over all of the buffer, its payload random. */
static void
make_packet(uint32_t len)
{
    srand(1);
    for (size_t i = 0; i < sizeof(packet); i++)
        packet[i] = (uint8_t)(rand() >> 7);
    memcpy(packet, "\x45\0\0\0\0\0\0\0\x40\x06", 10);
    packet[2] = (uint8_t)(len >> 8);
    packet[3] = (uint8_t)len;
    packet[32] = 0x50;
}

int
main(int argc, char **argv)
{
    const uint32_t lengths[] = {64, 1400, 65535};

    bench_init(argc, argv);
    for (size_t i = 0; i < BENCH_COUNT(lengths); i++) {
        make_packet(lengths[i]);
        if (run_byte_pairs(lengths[i]) != WinDivertHelperNtohs((UINT16)run_checksum(lengths[i])))
            bench_fail("bench_helpers: the two sums differ");
        compare_sums(lengths[i]);
    }
    make_packet(1400);
    compare_helpers(1400);
    return 0;
}
