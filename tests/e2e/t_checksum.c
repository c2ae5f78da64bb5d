/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The *Checksum flags of received packets: 1 only where the delivered bytes are right. */
#include "e2e.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 5001

struct tally {
    _Atomic unsigned packets, claimed; /* claimed: the transport flag was 1 */
};

static bool
check_flags(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr)
{
    struct tally *t = p->arg;
    struct e2e_view v;

    CHECK(e2e_view(packet, *len, &v), "no packet");
    if (!v.v6)
        CHECK(!addr->IPChecksum || e2e_ip_sum_right(packet, &v), "IPChecksum is 1, the sum is wrong");
    CHECK(!addr->TCPChecksum || v.proto == IPPROTO_TCP, "TCPChecksum is 1 on protocol %u", v.proto);
    CHECK(!addr->UDPChecksum || v.proto == IPPROTO_UDP, "UDPChecksum is 1 on protocol %u", v.proto);
    t->packets++;
    if (!addr->TCPChecksum && !addr->UDPChecksum)
        return true;
    t->claimed++;
    CHECK(e2e_transport_sum_right(packet, &v), "the flag is 1, the sum is wrong (%u bytes, protocol %u)", *len,
          v.proto);
    return true;
}

/* Whether all packets of one MTU must be marked as right: where they crossed the link with real sums. */
enum claim { ANY, ALL };

static void
udp_flags(const char *ns, const char *ip, bool offload, enum claim claim)
{
    struct e2e_pump pump = {.count = 500, .size = e2e_size_unfragmented};
    struct tally t = {0};
    struct e2e_passer p = {.batch = 1, .edit = check_flags, .arg = &t};

    e2e_tx_checksum("a", "va", offload);
    pump.rx = e2e_udp_receiver("b", ip, PORT);
    pump.tx = e2e_udp_sender("a", ip, PORT, 0);
    e2e_enter(ns);
    p.handle = e2e_open("udp", 0, 0);
    e2e_pass_start(&p);
    e2e_udp_pump(&pump);
    e2e_pass_stop(&p);
    e2e_tx_checksum("a", "va", true);
    CHECK(t.packets == 500, "%u packets", t.packets);
    CHECK(claim == ANY || t.claimed == 500, "%u of 500 marked as right", t.claimed);
}

static void
checksum_udp_out(void)
{
    udp_flags("a", E2E_B4, true, ANY);
    udp_flags("a", E2E_B6, true, ANY);
}

static void
checksum_udp_in_offloaded(void)
{
    udp_flags("b", E2E_B4, true, ANY);
    udp_flags("b", E2E_B6, true, ANY);
}

static void
checksum_udp_in_real(void)
{
    udp_flags("b", E2E_B4, false, ALL);
    udp_flags("b", E2E_B6, false, ALL);
}

static void
tcp_flags(const char *ns, const char *ip, bool offload)
{
    struct e2e_tcp tcp = {"a", "b", ip, PORT, 8, 256 << 10, 0};
    struct tally t = {0};
    struct e2e_passer p = {.batch = 8, .edit = check_flags, .arg = &t};

    e2e_tx_checksum("a", "va", offload);
    e2e_tx_checksum("b", "vb", offload);
    e2e_enter(ns);
    p.handle = e2e_open("tcp", 0, 0);
    e2e_pass_start(&p);
    e2e_tcp_run(&tcp);
    e2e_pass_stop(&p);
    e2e_tx_checksum("a", "va", true);
    e2e_tx_checksum("b", "vb", true);
    CHECK(t.packets > 48, "%u packets", t.packets);
}

static void
checksum_tcp(void)
{
    tcp_flags("a", E2E_B4, true);
    tcp_flags("b", E2E_B4, true);
    tcp_flags("a", E2E_B6, true);
}

static void
checksum_tcp_without_offload(void)
{
    tcp_flags("a", E2E_B4, false);
    tcp_flags("b", E2E_B4, false);
    tcp_flags("b", E2E_B6, false);
}

/* Sends a UDP packet made by hand, with the given checksum field. */
static void
send_raw(int raw, uint16_t sum_be)
{
    uint8_t packet[128];
    unsigned len = e2e_make_udp(packet, E2E_A4, 4000, E2E_B4, PORT, "some text", 9);
    struct sockaddr_storage to;
    socklen_t to_len = e2e_sockaddr(E2E_B4, 0, &to);

    memcpy(packet + 26, &sum_be, 2);
    CHECK(sendto(raw, packet, len, 0, (struct sockaddr *)&to, to_len) == (ssize_t)len, "raw send: %s",
          strerror(errno));
}

/* A wrong sum that came over the link: flag 0; returned as it is the kernel drops it as it would have. */
static void
checksum_wrong_in(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    int raw = e2e_socket("a", AF_INET, SOCK_RAW, IPPROTO_RAW);
    uint8_t packet[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr;
    HANDLE h;
    UINT len;

    e2e_enter("b");
    h = e2e_open("inbound and udp.DstPort == 5001", 0, 0);
    send_raw(raw, 0x1234);
    len = e2e_recv_packet(h, packet, &addr);
    CHECK(!addr.UDPChecksum && addr.IPChecksum, "UDPChecksum %u, IPChecksum %u", addr.UDPChecksum, addr.IPChecksum);
    e2e_send_packet(h, packet, len, &addr);
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

/* A UDP sum of 0 says that there is none; it stays so. */
static void
checksum_udp_zero(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    int raw = e2e_socket("a", AF_INET, SOCK_RAW, IPPROTO_RAW);
    uint8_t packet[E2E_PACKET_MAX], buf[64];
    WINDIVERT_ADDRESS addr;
    HANDLE h;
    UINT len;

    e2e_enter("b");
    h = e2e_open("inbound and udp.DstPort == 5001", 0, 0);
    send_raw(raw, 0);
    len = e2e_recv_packet(h, packet, &addr);
    CHECK(packet[26] == 0 && packet[27] == 0, "the sum was filled in");
    packet[28] = 'S';
    e2e_send_packet(h, packet, len, &addr);
    CHECK(e2e_receive(rx, buf, sizeof(buf), 2000) == 9 && !memcmp(buf, "Some text", 9), "it did not arrive");
    CHECK_API(WinDivertClose(h));
    e2e_marker(tx, rx);
}

/* A flag of 1 on Send: the bytes go as they are, wrong sums too. */
static void
checksum_sent_as_is(void)
{
    int rx = e2e_udp_receiver("b", E2E_B4, PORT), tx = e2e_udp_sender("a", E2E_B4, PORT, 0);
    uint8_t packet[E2E_PACKET_MAX], seen[E2E_PACKET_MAX];
    WINDIVERT_ADDRESS addr = e2e_new_outbound(false), got;
    HANDLE h = e2e_open("false", 0, 0), watch;
    UINT len = e2e_make_udp(packet, E2E_A4, 4000, E2E_B4, PORT, "some text", 9);

    e2e_enter("b");
    watch = e2e_open("inbound and udp.DstPort == 5001", 0, WINDIVERT_FLAG_SNIFF);
    packet[26] = 0x12;
    packet[27] = 0x34;
    addr.UDPChecksum = 1;
    e2e_send_packet(h, packet, len, &addr);
    e2e_recv_packet(watch, seen, &got);
    CHECK(seen[26] == 0x12 && seen[27] == 0x34, "the sum was changed to %02x%02x", seen[26], seen[27]);
    addr.UDPChecksum = 0;
    e2e_send_packet(h, packet, len, &addr);
    CHECK(e2e_receive(rx, seen, sizeof(seen), 2000) == 9, "with the flag clear it did not arrive");
    CHECK_API(WinDivertClose(h));
    CHECK_API(WinDivertClose(watch));
    e2e_marker(tx, rx);
}

const struct e2e_test e2e_checksum_tests[] = {
    {"checksum_udp_out", checksum_udp_out, 0},
    {"checksum_udp_in_offloaded", checksum_udp_in_offloaded, 0},
    {"checksum_udp_in_real", checksum_udp_in_real, 0},
    {"checksum_tcp", checksum_tcp, 0},
    {"checksum_tcp_without_offload", checksum_tcp_without_offload, 0},
    {"checksum_wrong_in", checksum_wrong_in, 0},
    {"checksum_udp_zero", checksum_udp_zero, 0},
    {"checksum_sent_as_is", checksum_sent_as_is, 0},
    {NULL, NULL, 0},
};
