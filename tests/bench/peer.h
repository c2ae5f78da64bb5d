/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What filters are compared with: libpcap's, for packets that begin with the IP header.  (Its header and the
 * kernel's have a struct bpf_insn each, so that no file can include both.) */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer;

/* Ends the program where libpcap refuses. */
struct peer *peer_compile(const char *text);
void peer_free(struct peer *peer);
unsigned peer_count(const struct peer *peer); /* instructions */
bool peer_match(const struct peer *peer, const uint8_t *packet, size_t len);
/* SO_ATTACH_FILTER; 0 or -errno. */
int peer_attach(const struct peer *peer, int fd);

#endif
