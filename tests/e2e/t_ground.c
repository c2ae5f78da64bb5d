/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The ground the other tests stand on: the same traffic with no handle open. */
#include "e2e.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PORT 5001

static void
ground_sha256(void)
{
    static const uint8_t abc[4] = {0xba, 0x78, 0x16, 0xbf}, million[4] = {0xcd, 0xc7, 0x6e, 0x5c};
    struct e2e_sha256 sha;
    uint8_t digest[32];

    e2e_sha256_init(&sha);
    e2e_sha256_add(&sha, "abc", 3);
    e2e_sha256_end(&sha, digest);
    CHECK(!memcmp(digest, abc, 4), "SHA-256 of abc begins with %02x%02x", digest[0], digest[1]);
    e2e_sha256_init(&sha);
    for (unsigned i = 0; i < 100000; i++)
        e2e_sha256_add(&sha, "aaaaaaaaaa", 10);
    e2e_sha256_end(&sha, digest);
    CHECK(!memcmp(digest, million, 4), "SHA-256 of a million a begins with %02x%02x", digest[0], digest[1]);
}

static void
ground_namespaces(void)
{
    struct stat own, runner, a, b, first;
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)getppid());
    CHECK(stat("/proc/self/ns/net", &own) == 0 && stat(path, &runner) == 0, "own namespaces");
    CHECK(stat("/run/netns/a", &a) == 0 && stat("/run/netns/b", &b) == 0, "named namespaces");
    CHECK(own.st_ino == a.st_ino, "a test does not start in namespace a");
    CHECK(a.st_ino != b.st_ino && a.st_ino != runner.st_ino && b.st_ino != runner.st_ino, "they are not apart");
    /* Not everybody may look at process 1; the runner compared its own before and after as well. */
    if (stat("/proc/1/ns/net", &first) == 0)
        CHECK(first.st_ino != a.st_ino && first.st_ino != b.st_ino && first.st_ino != runner.st_ino,
              "in the root namespace");
}

static void
udp(const char *from, const char *to, const char *ip)
{
    struct e2e_pump pump = {.count = 2000, .size = e2e_size_mixed};

    pump.rx = e2e_udp_receiver(to, ip, PORT);
    pump.tx = e2e_udp_sender(from, ip, PORT, 0);
    e2e_udp_pump(&pump);
    e2e_marker(pump.tx, pump.rx);
    close(pump.tx);
    close(pump.rx);
}

static void
ground_udp(void)
{
    udp("a", "b", E2E_B4);
    udp("a", "b", E2E_B6);
    udp("b", "a", E2E_A4);
    udp("a", "a", "127.0.0.1");
    udp("a", "a", "::1");
    udp("a", "a", E2E_A4);
}

static void
ground_udp_ordered(void)
{
    struct e2e_pump pump = {.count = 5000, .size = e2e_size_unfragmented, .ordered = true};

    pump.rx = e2e_udp_receiver("b", E2E_B4, PORT);
    pump.tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    e2e_udp_pump(&pump);
    e2e_marker(pump.tx, pump.rx);
}

static void
ground_tcp(void)
{
    struct e2e_tcp tcp = {"a", "b", E2E_B4, PORT, 32, 256 << 10, 0};

    e2e_tcp_run(&tcp);
    tcp.server_ip = E2E_B6;
    e2e_tcp_run(&tcp);
}

const struct e2e_test e2e_ground_tests[] = {
    {"ground_sha256", ground_sha256, 0}, {"ground_namespaces", ground_namespaces, 0},
    {"ground_udp", ground_udp, 0},       {"ground_udp_ordered", ground_udp_ordered, 0},
    {"ground_tcp", ground_tcp, 0},       {NULL, NULL, 0},
};
