/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * New packets into the inbound path of an interface, as if they had just
 * arrived there (tcpdump, rp_filter, conntrack and sockets see that interface).
 *
 *   AF_PACKET socket, bound to lo --> lo's egress --> our tcx program --> bpf_redirect(target, ingress)
 *
 * The program knows our packets by a priority that needs privilege to set, and
 * finds the target in the mark, which it wipes.  It leaves the tags by which
 * every process knows injected packets: skb->hash = magic and skb->tc_index =
 * level of the handle's priority.  The link that attaches the program dies with
 * the process.  NFQUEUE tells neither tag, but the sender's hardware address:
 * ours says that a packet was injected.
 *
 * Where there is no tcx a program that does the same, bpf_clone_redirect(target,
 * ingress), is run by BPF_PROG_TEST_RUN for each packet: a system call without a
 * queue, for at most WD_INBOUND_RUN_MAX bytes, without privilege over lo.
 */
#ifndef WD_LINUX_INBOUND_H
#define WD_LINUX_INBOUND_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/packet.h"

/* The same for all processes of this boot; never 0. */
uint32_t wd_inbound_magic(void);

/* The hardware address that injected packets come from: locally administered, with the magic in it. */
#define WD_INBOUND_MAC_LEN 6
void wd_inbound_mac(uint8_t mac[WD_INBOUND_MAC_LEN]);

/* Attaches the program to lo of the calling thread's network namespace (Linux 6.6).  The descriptor is its life. */
int wd_inbound_attach(int *ret_link_fd, struct wd_error *err);

/* A socket whose packets take that way, with the tag of a handle of this priority. */
int wd_inbound_socket(int16_t priority, int *ret_fd, struct wd_error *err);

/*
 * Sends packet->ip_len bytes.  -ENODEV there is no such interface, -ENETDOWN
 * it is down, -ENOLINK the loopback device is, -EAGAIN there is no room in the
 * socket's buffer.
 */
int wd_inbound_send(int fd, const struct wd_packet *packet, uint32_t ifindex);

/* The other way: a program for wd_inbound_run.  It is attached nowhere. */
int wd_inbound_load(int *ret_prog_fd, struct wd_error *err);

#define WD_INBOUND_RUN_MAX 3400 /* bytes of IP: the frame has to fit into a page with the kernel's own data */

/*
 * Sends packet->ip_len bytes in the calling thread's network namespace, of
 * which fd is any socket; sum: with the IPv4 header's checksum filled in.  -ENODEV, -ENETDOWN as above; -EMSGSIZE too long.
 */
int wd_inbound_run(int prog_fd, int fd, int16_t priority, const struct wd_packet *packet, bool sum, uint32_t ifindex);

#endif
