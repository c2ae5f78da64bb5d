/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The law of the generated programs: under BPF_PROG_TEST_RUN they decide as
 * wd_prog_eval.  Settings, packets and programs to try it with, all chosen by a
 * struct rng.
 */
#ifndef BPF_LAW_H
#define BPF_LAW_H

#include "bpf/gen.h"
#include "core/filter.h"
#include "filter_corpus.h"
#include "filter_random.h"

#define LAW_IFINDEX 1    /* the device of a test packet is lo */
#define LAW_LEN_MAX 3400 /* the kernel takes no more than fits into a page with its own data */
#define LAW_PACKET_MAX 4096
#define LAW_PROGRAM_TESTS 24

struct law_packet {
    uint8_t bytes[LAW_PACKET_MAX];
    size_t len;
};

/*
 * What the packets carry: no tag, or that of a handle above ours, of our level, of one below; some priority; or that
 * of what came in fragments.
 */
enum law_tag { LAW_UNTAGGED, LAW_TAG_ABOVE, LAW_TAG_OWN, LAW_TAG_BELOW, LAW_NO_TAG, LAW_TAG_FRAGMENT };
#define LAW_TAGS 6

/* How a program is generated, and the address that goes with it. */
struct law_setting {
    struct wd_gen_opts opts;
    enum law_tag tag;
    uint16_t segment; /* the packets are aggregates of segments of so many bytes; 0: none */
};

extern struct law_done {
    unsigned long filters, programs, runs, matches;
} law_done;

/* Says what was broken and calls law_failed, which the program has and which does not return. */
void law_broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void law_failed(void) __attribute__((noreturn));
void law_print_bytes(const uint8_t *bytes, size_t len);

/* A packet of the vectors: extended, with other lengths, with bytes behind it, cut off, with bytes changed. */
void law_vary(struct rng *rng, const struct corpus *corpus, struct law_packet *ret);
/* UDP of so many bytes (at least 20), which are 0 to 2 or 255; the packet ends there or before. */
size_t law_small_packet(struct rng *rng, uint8_t *bytes, size_t len);

struct law_setting law_random_setting(struct rng *rng, const struct corpus *corpus, enum wd_hook hook);
/* The address of a packet that the program gets to see. */
WINDIVERT_ADDRESS law_address(const struct law_setting *setting, const struct wd_packet *packet);
/* Not one that a handle of our level or below injected. */
bool law_seen(const struct law_setting *setting);
/* What the engine knows when it specialises. */
struct wd_known law_known(const struct law_setting *setting);

/* Generates and loads; text says what in messages. */
int law_load(const struct wd_prog *prog, const struct law_setting *setting, const char *text);
bool law_run(int fd, const struct law_setting *setting, const uint8_t *bytes, size_t len);
/* The loaded program decides as prog does; packet: NULL where the bytes are none. */
void law_compare(int fd, const struct law_setting *setting, const struct wd_prog *prog, const char *text,
                 const uint8_t *bytes, size_t len, const struct wd_packet *packet);

/* A value that the field has in some packet, or one on an edge. */
uint64_t law_sample_value(struct rng *rng, const struct corpus *corpus, const struct wd_field_info *info,
                          int32_t index);
struct wd_test law_random_test(struct rng *rng, const struct corpus *corpus, uint8_t field);
/* Every way to go on that jumps forward; few fields, so that they meet again.  prog->tests: LAW_PROGRAM_TESTS. */
void law_random_program(struct rng *rng, const struct corpus *corpus, WINDIVERT_LAYER layer, struct wd_prog *prog);
/* The same of elements of arrays, near each other, of small values. */
void law_random_elements(struct rng *rng, const struct corpus *corpus, struct wd_prog *prog);

/* The ring as a reader sees it: what the kernel has written, and the records. */
struct law_ring {
    int fd, counters_fd;
    size_t size, page;
    unsigned long *consumer;
    uint8_t *producer;
    uint64_t *counters;
};

void law_ring_open(struct law_ring *ring, size_t size);
void law_ring_close(struct law_ring *ring);
/* The next record, NULL: none. */
const struct wd_record *law_ring_next(struct law_ring *ring);

#endif
