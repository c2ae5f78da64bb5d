/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "bpf_law.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bpf/load.h"

struct law_done law_done;

void
law_broken(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    law_failed();
}

static bool
form_fits(const struct law_setting *setting)
{
    switch (setting->opts.form) {
    case WD_GEN_NO_AGGREGATES:
        return !setting->segment;
    case WD_GEN_WHOLE_AGGREGATES:
        return setting->segment && setting->segment <= WD_GEN_SEGMENT_MAX;
    case WD_GEN_WHOLE:
        return setting->segment <= WD_GEN_SEGMENT_MAX;
    case WD_GEN_LONG_AGGREGATES:
        return setting->segment > WD_GEN_SEGMENT_MAX;
    default:
        return true;
    }
}

bool
law_seen(const struct law_setting *setting)
{
    return form_fits(setting) && setting->tag != LAW_TAG_OWN && setting->tag != LAW_TAG_BELOW &&
           !(setting->tag == LAW_TAG_FRAGMENT && setting->opts.single);
}

/* ---- Packets ------------------------------------------------------------ */

static uint8_t
pick(struct rng *rng, const uint8_t *from, uint32_t count)
{
    return from[rng_below(rng, count)];
}

/* Puts an extension header behind the IPv6 header: of every kind, its length mostly as it should be. */
static void
insert_extension(struct rng *rng, struct law_packet *packet)
{
    static const uint8_t kinds[] = {0, 43, 44, 44, 44, 51, 60, 135, 59, 6};
    static const uint8_t offsets[] = {0, 0, 0, 0, 1, 0xFF}, flags[] = {0, 1, 6, 7, 8, 9, 0xF8};
    uint8_t kind = pick(rng, kinds, sizeof(kinds)), units = (uint8_t)rng_below(rng, 3), *ext = packet->bytes + 40;
    size_t len = kind == 44 ? 8 : kind == 51 ? (units + 2u) * 4 : (units + 1u) * 8;
    uint32_t total;

    if (packet->len < 40 || packet->bytes[0] >> 4 != 6 || packet->len + len > LAW_PACKET_MAX)
        return;
    memmove(ext + len, ext, packet->len - 40);
    for (size_t i = 0; i < len; i++)
        ext[i] = (uint8_t)rng_next(rng);
    ext[0] = packet->bytes[6];
    ext[1] = rng_below(rng, 8) ? units : (uint8_t)rng_next(rng);
    ext[2] = pick(rng, offsets, sizeof(offsets));
    ext[3] = pick(rng, flags, sizeof(flags));
    packet->bytes[6] = kind;
    packet->len += len;
    total = (uint32_t)(packet->bytes[4] << 8 | packet->bytes[5]) + (uint32_t)len;
    packet->bytes[4] = (uint8_t)(total >> 8);
    packet->bytes[5] = (uint8_t)total;
}

/* The lengths in the IP header, near what they were. */
static void
change_lengths(struct rng *rng, struct law_packet *packet)
{
    static const uint8_t words[] = {0, 4, 5, 5, 6, 10, 15};
    uint8_t *total = packet->bytes + (packet->bytes[0] >> 4 == 6 ? 4 : 2);

    if (packet->len < 20)
        return;
    total[1] = (uint8_t)(total[1] + rng_below(rng, 41) - 20);
    if (rng_below(rng, 4) == 0)
        total[0] = (uint8_t)rng_below(rng, 2);
    if (packet->bytes[0] >> 4 == 4 && rng_below(rng, 3) == 0)
        packet->bytes[0] = 0x40 | pick(rng, words, sizeof(words));
}

void
law_vary(struct rng *rng, const struct corpus *corpus, struct law_packet *ret)
{
    const struct corpus_packet *from = &corpus->packets[rng_below(rng, (uint32_t)corpus->packet_count)];

    ret->len = from->len < LAW_LEN_MAX - 400 ? from->len : LAW_LEN_MAX - 400;
    memcpy(ret->bytes, from->data, ret->len);
    while (rng_below(rng, 3) == 0)
        insert_extension(rng, ret);
    if (rng_below(rng, 3) == 0)
        change_lengths(rng, ret);
    if (rng_below(rng, 4) == 0)
        for (uint32_t more = rng_below(rng, 12); more && ret->len < LAW_PACKET_MAX; more--)
            ret->bytes[ret->len++] = (uint8_t)rng_next(rng);
    if (ret->len && rng_below(rng, 4) == 0)
        ret->len = rng_below(rng, (uint32_t)(rng_below(rng, 2) && ret->len > 80 ? 80 : ret->len)) + 1;
    while (ret->len && rng_below(rng, 3) == 0)
        ret->bytes[rng_below(rng, (uint32_t)(ret->len > 80 ? 80 : ret->len))] ^= (uint8_t)(1 << rng_below(rng, 8));
}

/* ---- One program -------------------------------------------------------- */

struct law_setting
law_random_setting(struct rng *rng, const struct corpus *corpus, enum wd_hook hook)
{
    static const uint16_t segments[] = {0, 1, 1448, WD_GEN_SEGMENT_MAX, WD_GEN_SEGMENT_MAX + 1, UINT16_MAX};
    static const uint64_t times[] = {1, 99, 100, 12345, 100000, 1000000000000, UINT64_MAX / 2};
    const struct corpus_packet *sample = &corpus->packets[rng_below(rng, (uint32_t)corpus->packet_count)];
    const WINDIVERT_ADDRESS *addr = &sample->addr[0][rng_below(rng, CORPUS_ADDRESSES)];
    uint64_t time = times[rng_below(rng, sizeof(times) / sizeof(times[0]))];

    if (rng_below(rng, 2) && addr->Timestamp > 0 && addr->Timestamp < INT64_MAX / 100)
        time = (uint64_t)addr->Timestamp * 100 + rng_below(rng, 100);
    return (struct law_setting){
        .opts =
            {
                .hook = hook,
                .mode = WD_GEN_MATCH,
                .priority = (int16_t)((int)rng_below(rng, 101) - 50),
                .loopback = rng_below(rng, 2),
                .loopback_known = true,
                .oif = addr->Network.IfIdx ? addr->Network.IfIdx : 3,
                .counters_fd = -1,
                .ring_fd = -1,
                .bounded = rng_below(rng, 4) == 0,
                .single = rng_below(rng, 4) == 0,
                .form = rng_below(rng, 4) ? WD_GEN_ANY_FORM : rng_below(rng, WD_GEN_LONG_AGGREGATES + 1),
                .large = rng_below(rng, 3) == 0,
                .fixed_time_ns = time,
            },
        .tag = rng_below(rng, 4)   ? LAW_UNTAGGED
               : rng_below(rng, 4) ? LAW_TAG_ABOVE
                                   : LAW_TAG_FRAGMENT,
        .segment = rng_below(rng, 2) ? 0 : segments[rng_below(rng, sizeof(segments) / sizeof(segments[0]))],
    };
}

WINDIVERT_ADDRESS
law_address(const struct law_setting *setting, const struct wd_packet *packet)
{
    bool outbound = setting->opts.hook == WD_HOOK_LOCAL_OUT;
    WINDIVERT_ADDRESS addr = {
        .Timestamp = (INT64)(setting->opts.fixed_time_ns / 100),
        .Layer = setting->opts.hook == WD_HOOK_FORWARD ? WINDIVERT_LAYER_NETWORK_FORWARD : WINDIVERT_LAYER_NETWORK,
        .Event = WINDIVERT_EVENT_NETWORK_PACKET,
        .Outbound = outbound,
        .Loopback = setting->opts.loopback,
        .Impostor = setting->tag == LAW_TAG_ABOVE,
        .IPv6 = packet->version == 6,
        .Network.IfIdx = outbound ? setting->opts.oif : LAW_IFINDEX,
    };

    return addr;
}

int
law_load(const struct wd_prog *prog, const struct law_setting *setting, const char *text)
{
    struct wd_gen_opts opts = setting->opts;
    struct wd_error error = {0};
    struct wd_code code;
    int fd;

    opts.bounded |= !wd_bpf_can_loop();
    if (wd_gen(prog, &opts, &code, &error) < 0)
        law_broken("hook %d: %s\n%s", (int)setting->opts.hook, error.text, text);
    if (wd_bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, code.insns, code.count, "wd_law", &fd, &error) < 0)
        law_broken("hook %d: %s\n%s", (int)setting->opts.hook, error.text, text);
    wd_code_free(&code);
    law_done.programs++;
    return fd;
}

bool
law_run(int fd, const struct law_setting *setting, const uint8_t *bytes, size_t len)
{
    static const int steps[] = {[LAW_TAG_ABOVE] = 1, [LAW_TAG_OWN] = 0, [LAW_TAG_BELOW] = -1};
    struct __sk_buff ctx = {.gso_size = setting->segment};
    struct wd_error error;
    uint32_t value;

    if (setting->tag == LAW_NO_TAG)
        ctx.priority = 6;
    else if (setting->tag == LAW_TAG_FRAGMENT)
        ctx.priority = WD_TAG_FRAGMENT;
    else if (setting->tag != LAW_UNTAGGED)
        ctx.priority = WD_TAG_SO_PRIORITY | WD_TAG_LEVEL(setting->opts.priority + steps[setting->tag]) << 4;
    if (wd_bpf_test_run(fd, bytes, len, &ctx, sizeof(ctx), &value, &error) < 0)
        law_broken("%zu bytes: %s", len, error.text);
    law_done.runs++;
    law_done.matches += value != 0;
    return value != 0;
}

void
law_print_bytes(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        fprintf(stderr, "%02x", bytes[i]);
    fprintf(stderr, "\n");
}

void
law_compare(int fd, const struct law_setting *setting, const struct wd_prog *prog, const char *text,
            const uint8_t *bytes, size_t len, const struct wd_packet *packet)
{
    WINDIVERT_ADDRESS addr;
    bool expected = false, seen;

    if (len == 0 || len > LAW_LEN_MAX)
        return;
    if (packet) {
        addr = law_address(setting, packet);
        expected = law_seen(setting) && wd_prog_eval(prog, packet, &addr);
    }
    seen = law_run(fd, setting, bytes, len);
    if (seen == expected)
        return;
    law_print_bytes(bytes, len);
    law_broken("hook %d, tag %d, time %llu, out interface %u: evaluator %d, program %d\n%s", (int)setting->opts.hook,
               (int)setting->tag, (unsigned long long)setting->opts.fixed_time_ns, setting->opts.oif, expected, seen,
               text);
}

/* ---- Knowledge ---------------------------------------------------------- */

static void
know(struct wd_known *known, enum wd_field field, uint64_t value)
{
    known->state[field] = WD_KNOWN;
    known->value[field] = value;
}

struct wd_known
law_known(const struct law_setting *setting)
{
    struct wd_known known = {0};
    bool outbound = setting->opts.hook == WD_HOOK_LOCAL_OUT;

    know(&known, WD_F_OUTBOUND, outbound);
    know(&known, WD_F_INBOUND, !outbound);
    know(&known, WD_F_LOOPBACK, setting->opts.loopback);
    if (outbound)
        know(&known, WD_F_IFIDX, setting->opts.oif);
    return known;
}

/* ---- Programs no filter text leads to ----------------------------------- */

uint64_t
law_sample_value(struct rng *rng, const struct corpus *corpus, const struct wd_field_info *info, int32_t index)
{
    static const uint64_t edges[] = {0, 1, 6, 17, 80, 0xFFFFFFF2, 0xFFFFFFF5, 0xFFFFFFFF, UINT16_MAX, UINT8_MAX};
    const struct corpus_packet *row = &corpus->packets[rng_below(rng, (uint32_t)corpus->packet_count)];
    bool payload = info->src == WD_SRC_TCPDATA || info->src == WD_SRC_UDPDATA;
    bool ip = info->src == WD_SRC_IP4 || info->src == WD_SRC_IP6 || info->src == WD_SRC_PACKET;
    uint64_t value = 0, limit = info->kind == WD_KIND_ADDR ? UINT64_MAX : info->max;
    int64_t at;

    if (!row->valid || info->src == WD_SRC_META || !info->width || rng_below(rng, 8) == 0)
        return edges[rng_below(rng, sizeof(edges) / sizeof(edges[0]))] & limit;
    at = ip ? 0 : payload ? row->packet.data_off : row->packet.l4_off;
    at += info->kind == WD_KIND_ARRAY ? index : info->off;
    if (index < 0)
        at = (payload ? row->packet.ip_len : row->packet.buf_len) + (int64_t)index;
    for (int i = 0; i < info->width; i++)
        value = value << 8 | (at + i >= 0 && at + i < (int64_t)row->len ? row->data[at + i] : 0);
    value = value >> info->shift & (info->kind == WD_KIND_ADDR4 ? UINT32_MAX : limit);
    return info->kind == WD_KIND_ADDR4 ? value | info->umin : value;
}

struct wd_test
law_random_test(struct rng *rng, const struct corpus *corpus, uint8_t field)
{
    static const uint64_t halves[] = {0, 1, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX};
    static const int32_t indices[] = {0, 1, 2, 3, 4, 20, 256, 276, -4, -5, -6, -8, -20, -256};
    const struct wd_field_info *info = &wd_fields[field];
    struct wd_test test = {.field = field, .op = (uint8_t)rng_below(rng, 6)};

    if (info->kind == WD_KIND_ARRAY)
        test.index = rng_below(rng, 2) ? indices[rng_below(rng, sizeof(indices) / sizeof(indices[0]))]
                                       : (int32_t)rng_below(rng, 161) - 80;
    test.lo = law_sample_value(rng, corpus, info, test.index) + (rng_below(rng, 6) == 0);
    if (info->kind == WD_KIND_ADDR && rng_below(rng, 2))
        test.hi = rng_next(rng);
    if (info->kind == WD_KIND_ADDR && rng_below(rng, 4) == 0) { /* where a half overflows, or is nothing */
        test.hi = halves[rng_below(rng, 6)];
        test.lo = halves[rng_below(rng, 6)];
    }
    if (info->kind == WD_KIND_INT && rng_below(rng, 2))
        test.neg = test.lo != 0;
    return test;
}

void
law_random_program(struct rng *rng, const struct corpus *corpus, WINDIVERT_LAYER layer, struct wd_prog *prog)
{
    uint8_t fields[4];
    uint32_t targets;

    for (int i = 0; i < 4; i++)
        do
            fields[i] = (uint8_t)rng_below(rng, WD_FIELD_COUNT);
        while (!(wd_fields[fields[i]].layers & 1 << layer));
    prog->layer = layer;
    prog->count = 1 + rng_below(rng, LAW_PROGRAM_TESTS);
    for (uint32_t i = 0; i < prog->count; i++) {
        struct wd_test *test = &prog->tests[i];
        uint32_t *const way[] = {&test->yes, &test->no};

        *test = law_random_test(rng, corpus, fields[rng_below(rng, 4)]);
        targets = prog->count - i - 1;
        for (int k = 0; k < 2; k++) {
            uint32_t ahead = rng_below(rng, 3) ? rng_below(rng, 3) : rng_below(rng, targets + 2);

            *way[k] = ahead < targets ? i + 1 + ahead : rng_below(rng, 2) ? WD_ACCEPT : WD_REJECT;
        }
    }
}

void
law_random_elements(struct rng *rng, const struct corpus *corpus, struct wd_prog *prog)
{
    static const uint8_t fields[] = {WD_F_PACKET,      WD_F_PACKET16,      WD_F_PACKET32,      WD_F_UDP_PAYLOAD,
                                     WD_F_UDP_PAYLOAD, WD_F_UDP_PAYLOAD16, WD_F_UDP_PAYLOAD32, WD_F_UDP_PAYLOAD32};
    int32_t base = (int32_t)rng_below(rng, 3) * 30, spread = 1 + (int32_t)rng_below(rng, 90);

    law_random_program(rng, corpus, WINDIVERT_LAYER_NETWORK, prog);
    for (uint32_t i = 0; i < prog->count; i++) {
        struct wd_test *test = &prog->tests[i];
        int32_t width;

        test->field = fields[rng_below(rng, sizeof(fields))];
        width = wd_fields[test->field].width;
        test->index = base + (int32_t)rng_below(rng, (uint32_t)spread);
        if (rng_below(rng, 2))
            test->index = (rng_below(rng, 8) ? -width : -1) - test->index;
        test->hi = test->neg = 0;
        test->lo = rng_below(rng, 3) ? rng_below(rng, 3) : width == 4 ? UINT32_MAX : width == 2 ? 0x0101u : 1;
    }
}

size_t
law_small_packet(struct rng *rng, uint8_t *bytes, size_t len)
{
    size_t total = rng_below(rng, 3) ? len : len - rng_below(rng, (uint32_t)len - 19);
    uint8_t top = rng_below(rng, 2) ? 255 : 1;

    for (size_t i = 0; i < len; i++)
        bytes[i] = rng_below(rng, 3) ? (uint8_t)rng_below(rng, 2) : top;
    if (rng_below(rng, 3) == 0 && len >= 48) {
        memcpy(bytes, "\x60\0\0\0\0\0\x11\x40", 8);
        bytes[5] = (uint8_t)(total > 40 ? total - 40 : 0);
    } else {
        memcpy(bytes, "\x45\0\0\0\0\0\0\0\x40\x11", 10);
        bytes[3] = (uint8_t)total;
    }
    return len;
}

/* ---- The ring ----------------------------------------------------------- */

void
law_ring_open(struct law_ring *ring, size_t size)
{
    struct wd_error error;

    ring->size = size;
    ring->page = (size_t)sysconf(_SC_PAGESIZE);
    if (wd_bpf_map(BPF_MAP_TYPE_RINGBUF, "wd_ring", 0, 0, (uint32_t)size, 0, &ring->fd, &error) < 0 ||
        wd_bpf_map(BPF_MAP_TYPE_ARRAY, "wd_counters", 4, WD_COUNTERS * sizeof(uint64_t), 1, BPF_F_MMAPABLE,
                   &ring->counters_fd, &error) < 0)
        law_broken("no ring: %s", error.text);
    ring->consumer = mmap(NULL, ring->page, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
    ring->producer = mmap(NULL, ring->page + 2 * size, PROT_READ, MAP_SHARED, ring->fd, (off_t)ring->page);
    ring->counters = mmap(NULL, ring->page, PROT_READ | PROT_WRITE, MAP_SHARED, ring->counters_fd, 0);
    if (ring->consumer == MAP_FAILED || ring->producer == MAP_FAILED || ring->counters == MAP_FAILED)
        law_broken("the ring is not mapped");
}

void
law_ring_close(struct law_ring *ring)
{
    munmap(ring->consumer, ring->page);
    munmap(ring->producer, ring->page + 2 * ring->size);
    munmap(ring->counters, ring->page);
    close(ring->fd);
    close(ring->counters_fd);
}

const struct wd_record *
law_ring_next(struct law_ring *ring)
{
    const uint8_t *at = ring->producer + ring->page + (*ring->consumer & (ring->size - 1));
    uint32_t len;

    if (*ring->consumer >= *(unsigned long *)(void *)ring->producer)
        return NULL;
    memcpy(&len, at, sizeof(len));
    if (len & (BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT))
        law_broken("a record that is not written");
    *ring->consumer += (len + BPF_RINGBUF_HDR_SZ + 7) / 8 * 8;
    return (const void *)(at + BPF_RINGBUF_HDR_SZ);
}
