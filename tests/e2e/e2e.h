/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * End-to-end tests of the NETWORK layer through the public interface alone.
 *
 * One process (the runner) makes itself a network and a mount namespace,
 * builds the topology in it and forks one process per test:
 *
 *     namespace a (va: 10.77.0.1, fd77::1) --- veth --- namespace b (vb: 10.77.0.2, fd77::2)
 *
 * A test starts in namespace a.  Sockets of the other namespace are made by
 * stepping into it and back, so most tests need one process and a thread that
 * passes packets.  What a test waits for is a condition, polled with a limit.
 */
#ifndef E2E_H
#define E2E_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "windivert.h"
#include "windivert_ext.h"

struct e2e_test {
    const char *name;
    void (*run)(void);
    unsigned limit_s; /* 0: the default */
};

/* One table per topic, ended by a NULL name. */
extern const struct e2e_test e2e_ground_tests[];
extern const struct e2e_test e2e_divert_tests[];
extern const struct e2e_test e2e_change_tests[];
extern const struct e2e_test e2e_drop_tests[];
extern const struct e2e_test e2e_sniff_tests[];
extern const struct e2e_test e2e_loopback_tests[];
extern const struct e2e_test e2e_batch_tests[];
extern const struct e2e_test e2e_shutdown_tests[];
extern const struct e2e_test e2e_priority_tests[];
extern const struct e2e_test e2e_hold_tests[];
extern const struct e2e_test e2e_death_tests[];
extern const struct e2e_test e2e_error_tests[];
extern const struct e2e_test e2e_filter_tests[];
extern const struct e2e_test e2e_inject_tests[];
extern const struct e2e_test e2e_send_tests[];
extern const struct e2e_test e2e_checksum_tests[];
extern const struct e2e_test e2e_coexist_tests[];
extern const struct e2e_test e2e_engine_tests[];
extern const struct e2e_test e2e_forward_tests[];
extern const struct e2e_test e2e_redirect_tests[];
extern const struct e2e_test e2e_fault_tests[];
extern const struct e2e_test e2e_fragment_tests[];
extern const struct e2e_test e2e_machine_tests[];
extern const struct e2e_test e2e_netns_tests[];
extern const struct e2e_test e2e_rules_tests[];
extern const struct e2e_test e2e_beside_tests[];
extern const struct e2e_test e2e_segments_tests[];
extern const struct e2e_test e2e_shift_tests[];
extern const struct e2e_test e2e_soak_tests[];
extern const struct e2e_test e2e_account_tests[];
extern const struct e2e_test e2e_icmp_tests[];
extern const struct e2e_test e2e_tags_tests[];
extern const struct e2e_test e2e_refuse_tests[];
extern const struct e2e_test e2e_sums_tests[];
extern const struct e2e_test e2e_arrival_tests[];
extern const struct e2e_test e2e_pieces_tests[];
extern const struct e2e_test e2e_swap_tests[];
extern const struct e2e_test e2e_flow_tests[];
extern const struct e2e_test e2e_waiting_tests[];

#define E2E_A4 "10.77.0.1"
#define E2E_B4 "10.77.0.2"
#define E2E_C4 "10.78.0.2" /* behind b, which is a router */
#define E2E_C6 "fd78::2"
#define E2E_A6 "fd77::1"
#define E2E_B6 "fd77::2"
#define E2E_W_INDEX 7700 /* of wa, one end of a link that is added by tests */
#define E2E_W_A4 "10.90.0.1"
#define E2E_W_B4 "10.90.0.2"
#define E2E_W_A6 "fd90::1"
#define E2E_W_B6 "fd90::2"
#define E2E_PACKET_MAX WINDIVERT_MTU_MAX

/* ---- outcome (report.c) ---------------------------------------------- */

enum e2e_state { E2E_RUNNING, E2E_FAILED, E2E_SKIPPED };

struct e2e_report {
    _Atomic int state;  /* the first process to leave RUNNING writes the reason */
    _Atomic int killed; /* a process was killed: its registered handles may stay until somebody looks */
    char reason[1200];
};
extern struct e2e_report *e2e_report; /* shared by all processes of a test */

/* Ends the calling process; the first caller's reason is the test's. */
_Noreturn void e2e_fail_at(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void e2e_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define FAIL(...) e2e_fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(cond, ...)                                                                                             \
    do {                                                                                                             \
        if (!(cond))                                                                                                 \
            FAIL(__VA_ARGS__);                                                                                       \
    } while (0)
/* A call of the library that has to succeed. */
#define CHECK_API(call)                                                                                              \
    CHECK(call, "%s: error %u: %s", #call, (unsigned)GetLastError(), WinDivertExtGetLastErrorText())
/* A call of the library that has to fail with one code. */
#define CHECK_ERROR(call, code)                                                                                      \
    do {                                                                                                             \
        SetLastError(0);                                                                                             \
        CHECK(!(call), "%s succeeded, expected error %u", #call, (unsigned)(code));                                  \
        CHECK(GetLastError() == (code), "%s: error %u (%s), expected %u", #call, (unsigned)GetLastError(),           \
              WinDivertExtGetLastErrorText(), (unsigned)(code));                                                     \
    } while (0)
/* Polls until cond holds; fails after ms milliseconds. */
#define WAIT_UNTIL(cond, ms, ...)                                                                                    \
    do {                                                                                                             \
        int64_t wait_end_ = e2e_now_us() + (int64_t)(ms)*1000;                                                       \
        while (!(cond)) {                                                                                            \
            CHECK(e2e_now_us() < wait_end_, __VA_ARGS__);                                                            \
            e2e_nap_us(300);                                                                                         \
        }                                                                                                            \
    } while (0)

int64_t e2e_now_us(void);
void e2e_nap_us(unsigned us);
bool e2e_kernel_since(unsigned major, unsigned minor); /* or the tier */
void *e2e_shared(size_t size);                         /* zeroed memory that forked processes share */

/* ---- namespaces and processes (topo.c) --------------------------------- */

void e2e_isolate(void);       /* unshare -n -m, or end the process with a message */
int e2e_topology_build(void); /* 0, or -1 with a message on stderr */
void e2e_topology_clear(void);
void e2e_enter(const char *ns); /* moves the calling thread */
int e2e_ns_fd(const char *ns);  /* the namespace as an open descriptor */
int e2e_socket(const char *ns, int family, int type, int protocol);
unsigned e2e_ifindex(const char *ns, const char *ifname);
/* A process in a namespace that runs fn and ends; killed with its parent. */
pid_t e2e_spawn(const char *ns, void (*fn)(void *arg), void *arg);
void e2e_join(pid_t pid);  /* fails unless it ended with 0 */
void e2e_kill9(pid_t pid); /* kills and reaps it */
/*
 * Output of a shell command run in a namespace, to its first 64 KB; fails
 * unless it exits with 0.  Free it.  ns NULL: in that of the calling thread; only so
 * can it add and delete names of namespaces.
 */
char *e2e_shell(const char *ns, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A second way from a to b: wa, with index E2E_W_INDEX, and wb, with the addresses above. */
void e2e_add_link(void);
/* Brings up one end, named anew or in another namespace, as the first (wa) or the other. */
void e2e_configure_link(const char *ns, const char *ifname, bool first);
void e2e_set_table(const char *ns, const char *body); /* adds to table inet t; no single quotes */
/*
 * A packet socket that sees what comes and goes on an interface, from the
 * network header on; non-blocking.  e2e_captured: the next packet within ms
 * for which want says true, its length; 0: none.
 */
int e2e_capture(const char *ns, const char *ifname);
typedef bool (*e2e_want)(const uint8_t *packet, unsigned len, void *arg);
unsigned e2e_captured(int fd, uint8_t *buf, unsigned ms, e2e_want want, void *arg);
bool e2e_is_udp_to(const uint8_t *packet, unsigned len, void *port); /* uint16_t: to that port */
/* A counter of /proc/net/snmp ("Udp", "InCsumErrors"), snmp6 ("Udp6", ...) or netstat ("TcpExt", ...). */
uint64_t e2e_snmp(const char *ns, const char *group, const char *name);
void e2e_delete_table(const char *ns);
uint64_t e2e_nft_counter(const char *ns, const char *name); /* named counter of table inet t */
/* Checksums by the device on transmission, aggregates to the device or to the stack, aggregates on receipt. */
void e2e_offload(const char *ns, const char *ifname, bool tx, bool gso, bool gro);
void e2e_tx_checksum(const char *ns, const char *ifname, bool on); /* checksum and segmentation offload */

/* ---- leftovers (leftover.c) -------------------------------------------- */

void e2e_leftover_mark(void); /* remembers what bpf programs exist */
/* NULL when a and b hold no rules, no queue, no new program wd* and no registered handle; else what is left. */
const char *e2e_leftover_find(void);
unsigned e2e_queue_count(const char *ns); /* lines of nfnetlink_queue */
/* Tables in the ruleset of a namespace. */
unsigned e2e_table_count(const char *ns);

/* ---- traffic (udp.c, tcp.c, sha256.c) ----------------------------------- */

struct e2e_sha256 {
    uint32_t h[8];
    uint64_t total;
    uint8_t block[64];
};
void e2e_sha256_init(struct e2e_sha256 *s);
void e2e_sha256_add(struct e2e_sha256 *s, const void *data, size_t len);
void e2e_sha256_end(struct e2e_sha256 *s, uint8_t ret_digest[32]);

/* Pseudo-random bytes; the same for the same key. */
void e2e_fill(uint8_t *buf, size_t len, uint64_t key);
socklen_t e2e_sockaddr(const char *ip, uint16_t port, struct sockaddr_storage *ret_addr);
/* A non-blocking UDP receiver bound to ip:port, 32 MB of buffer. */
int e2e_udp_receiver(const char *ns, const char *ip, uint16_t port);
/* A UDP sender connected to ip:port, 32 MB of buffer; source port 0 means any. */
int e2e_udp_sender(const char *ns, const char *ip, uint16_t port, uint16_t source_port);
/* Keeps the calling thread on one CPU: what it sends over a veth stays in order. */
void e2e_stay_on_cpu(void);
/* Datagram i of a run: i in the first 4 bytes (as far as there is room), then bytes that follow from i. */
void e2e_datagram(uint8_t *buf, size_t len, uint32_t i);
/* Sends datagram i; false when the socket refused it. */
bool e2e_send(int fd, size_t len, uint32_t i);
/* Receives one datagram within ms; -1: none came. */
ssize_t e2e_receive(int fd, uint8_t *buf, size_t room, unsigned ms);
/* Empties the receiver; returns how many datagrams there were. */
unsigned e2e_drain(int fd);
/*
 * Ends a test of exact counts: sends a marker from `from`, which must be the
 * next and last datagram to arrive (call it when nothing diverts any more).
 */
void e2e_marker(int tx, int rx);

struct e2e_pump {
    int tx, rx;
    uint32_t count;
    uint32_t first;                    /* datagrams are numbered, and so differ, from here */
    uint32_t window;                   /* datagrams under way at most; 0: 64 */
    size_t (*size)(uint32_t i);        /* NULL: 64 bytes */
    size_t (*size_after)(size_t size); /* what arrives of a datagram; NULL: the same */
    bool ordered;                      /* every datagram must arrive in its turn */
    unsigned stall_ms;                 /* without progress: failure; 0: 5000 */
    int64_t max_send_us;               /* out: longest time in send() */
    int64_t max_gap_us;                /* out: longest time without an arrival */
};
/* Sends count datagrams and receives each of them exactly once with its content; fails otherwise. */
void e2e_udp_pump(struct e2e_pump *p);
/* n datagrams from one namespace to another, each of which arrives. */
void e2e_udp_exchange(const char *from, const char *to, const char *ip, uint16_t port, uint32_t n);
size_t e2e_size_64(uint32_t i);
size_t e2e_size_mixed(uint32_t i);        /* 0..65507, mostly small, the extremes among them */
size_t e2e_size_unfragmented(uint32_t i); /* 0..1400 */

int e2e_tcp_listener(const char *ns, const char *ip, uint16_t port);
/* A client whose SYN is under way. */
int e2e_connecting(const char *ns, const char *ip, uint16_t port);
/* Waits for the events, which bring this SO_ERROR; closes the socket. */
void e2e_expect_error(int fd, short events, unsigned ms, int want);
/* A connection from a client in ns. */
void e2e_tcp_pair(int listener, const char *ns, const char *ip, uint16_t port, int *ret_client, int *ret_server);

struct e2e_tcp {
    const char *client_ns, *server_ns, *server_ip;
    uint16_t port;
    unsigned streams;
    size_t bytes;       /* each way of each stream */
    uint8_t client_xor; /* what happens on the way to each byte the client sends */
};
/* Both ends send `bytes` bytes, both compare the SHA-256 of what arrived; fails on a difference. */
void e2e_tcp_run(const struct e2e_tcp *t);
/* The same where the client connects to another address, which something on the way makes the server's. */
void e2e_tcp_run_to(const struct e2e_tcp *t, const char *ip, uint16_t port);

/* ---- packets (pass.c, packet.c) ------------------------------------------- */

struct e2e_passer;
/*
 * What to do with one received packet: it may be changed in place within room
 * bytes, *len set; false: do not send it back.
 */
typedef bool (*e2e_edit)(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr);

struct e2e_passer {
    HANDLE handle;
    unsigned batch; /* 1: Recv and Send, else RecvEx and SendEx with so many */
    e2e_edit edit;  /* NULL: as they are */
    void *arg;
    bool pin; /* keep to one CPU: packets sent back stay in order */
    _Atomic uint64_t received, sent;
    _Atomic unsigned max_len;
    _Atomic unsigned end_error; /* why receiving ended */
    pthread_t thread;
};
#define E2E_EDIT_ROOM 4096 /* how much a packet may grow */

HANDLE e2e_open_at(WINDIVERT_LAYER layer, const char *filter, INT16 priority,
                   UINT64 flags);                                  /* fails the test when refused */
HANDLE e2e_open(const char *filter, INT16 priority, UINT64 flags); /* at NETWORK */
/* For edit: every byte of the payload inverted, the checksums left to the library. */
bool e2e_invert(struct e2e_passer *p, uint8_t *packet, UINT *len, WINDIVERT_ADDRESS *addr);
void e2e_pass_loop(struct e2e_passer *p);  /* in the calling thread, until receiving ends */
void e2e_pass_start(struct e2e_passer *p); /* in a thread */
void e2e_pass_stop(struct e2e_passer *p);  /* Shutdown(RECV), join, Close */
WINDIVERT_EXT_STATS e2e_stats(HANDLE handle);
/* What a failure's reason ends with. */
extern void (*e2e_tell_more)(char *buf, size_t size);
/* Recv that has to succeed and to give one whole packet (buf: E2E_PACKET_MAX or as large as it must be), soon. */
UINT e2e_recv_packet_at(const char *file, int line, HANDLE handle, uint8_t *buf, WINDIVERT_ADDRESS *addr);
#define e2e_recv_packet(handle, buf, addr) e2e_recv_packet_at(__FILE__, __LINE__, handle, buf, addr)
void e2e_send_packet(HANDLE handle, const uint8_t *buf, UINT len, const WINDIVERT_ADDRESS *addr);

/* The parts of a packet as the tests need them, found without the library. */
struct e2e_view {
    bool v6, fragment;
    uint8_t proto, ttl;
    unsigned transport, payload; /* offsets */
    unsigned end;                /* where the IP packet ends */
    uint16_t sport, dport;
};
bool e2e_view(const uint8_t *packet, unsigned len, struct e2e_view *ret_view);
bool e2e_ip_sum_right(const uint8_t *packet, const struct e2e_view *v);
bool e2e_transport_sum_right(const uint8_t *packet, const struct e2e_view *v);
/* Sets the lengths of a UDP packet for `payload` bytes; returns the packet's new length. */
unsigned e2e_udp_resize(uint8_t *packet, const struct e2e_view *v, unsigned payload);
/* The IP header of a packet with `len` bytes behind it, checksum 0; returns its length. */
unsigned e2e_make_ip(uint8_t *packet, const char *src, const char *dst, uint8_t proto, unsigned len);
/* A UDP packet with checksums 0; returns its length. */
unsigned e2e_make_udp(uint8_t *packet, const char *src, uint16_t sport, const char *dst, uint16_t dport,
                      const void *payload, unsigned len);
/* An ICMP or ICMPv6 message, checksums right; word: what follows the checksum. */
unsigned e2e_make_icmp(uint8_t *packet, const char *src, const char *dst, uint8_t type, uint8_t code, uint32_t word,
                       const void *body, unsigned len);
/* All checksums of a whole packet made right; of a fragment the IP header's. */
void e2e_fill_sums(uint8_t *packet);
/* Source and destination exchanged; the sums stay right. */
void e2e_swap_ends(uint8_t *packet);
/* Makes of a SYN the RST|ACK that refuses it; returns its length. */
unsigned e2e_make_reset(uint8_t *packet);
/* An address for a new outbound packet, checksum flags clear. */
WINDIVERT_ADDRESS e2e_new_outbound(bool v6);
/* For a new packet that comes in, or is to be forwarded, by an interface. */
WINDIVERT_ADDRESS e2e_new_inbound(bool v6, const char *ns, const char *ifname);

#endif
