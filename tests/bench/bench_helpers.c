/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The helpers that run for every packet: the checksum against the loop over
 * pairs of bytes that RFC 1071 shows, the hash and a whole CalcChecksums
 * against parsing.  Goal: the checksum of 1,400 bytes at least 4 times as fast.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/cksum.h"
#include "windivert.h"

#define ROUNDS 11
#define ROUND_NS 10000000 /* a measurement takes about this long */
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint8_t packet[65535];
static volatile uint64_t sink; /* keeps results from being optimised away */

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

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

struct variant {
    const char *name;
    uint64_t (*run)(uint32_t len);
};

static const struct variant sums[] = {{"byte pairs", run_byte_pairs}, {"wd_cksum_add", run_checksum}};
static const struct variant helpers[] = {
    {"ParsePacket", run_parse}, {"HashPacket", run_hash}, {"CalcChecksums", run_calc}};

/* ---- measuring ------------------------------------------------------------------ */

static uint64_t
time_calls(const struct variant *variant, uint32_t len, unsigned calls)
{
    uint64_t start = now_ns();

    for (unsigned i = 0; i < calls; i++)
        sink += variant->run(len);
    return now_ns() - start;
}

/* As many calls as take about ROUND_NS. */
static unsigned
calibrate(const struct variant *variant, uint32_t len)
{
    unsigned calls = 16;

    while (time_calls(variant, len, calls) < ROUND_NS / 2 && calls < 1u << 28)
        calls *= 2;
    return calls;
}

static void
measure(const char *name, const struct variant *variants, size_t count, uint32_t len)
{
    unsigned calls[4];

    for (size_t v = 0; v < count; v++)
        calls[v] = calibrate(&variants[v], len);
    for (int round = 0; round < ROUNDS; round++)
        for (size_t v = 0; v < count; v++)
            printf("%s %u B\t%s\tns\t%.3f\n", name, len, variants[v].name,
                   (double)time_calls(&variants[v], len, calls[v]) / calls[v]);
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
main(void)
{
    const uint32_t lengths[] = {64, 1400, 65535};

    for (size_t i = 0; i < COUNT(lengths); i++) {
        make_packet(lengths[i]);
        if (run_byte_pairs(lengths[i]) != WinDivertHelperNtohs((UINT16)run_checksum(lengths[i]))) {
            fprintf(stderr, "bench_helpers: the two sums differ\n");
            return 1;
        }
        measure("checksum", sums, COUNT(sums), lengths[i]);
    }
    make_packet(1400);
    measure("TCP packet", helpers, COUNT(helpers), 1400);
    return 0;
}
