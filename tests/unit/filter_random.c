/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "filter_random.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t
tape_byte(struct rng *rng)
{
    if (!rng->tape_left)
        return 0;
    rng->tape_left--;
    return *rng->tape++;
}

uint64_t
rng_next(struct rng *rng) /* splitmix64 */
{
    uint64_t z = rng->state += 0x9E3779B97F4A7C15;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    z ^= z >> 31;
    return rng->tape_left ? (z & ~UINT64_C(0xFF)) | tape_byte(rng) : z;
}

/* One byte of the tape is enough for most choices; a choice is its value, so that a change of one bit is a small one. */
uint32_t
rng_below(struct rng *rng, uint32_t limit)
{
    if (rng->tape_left && limit) {
        uint32_t value = tape_byte(rng);

        for (uint32_t rest = (limit - 1) >> 8; rest; rest >>= 8)
            value = value << 8 | tape_byte(rng);
        return value % limit;
    }
    return (uint32_t)((rng_next(rng) >> 32) * limit >> 32);
}

static const char *
pick(struct rng *rng, const char *const *words, size_t count)
{
    return words[rng_below(rng, (uint32_t)count)];
}

#define PICK(rng, ...)                                                                                               \
    pick(rng, (const char *const[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))

void
random_put(struct random_filter *filter, const char *format, ...)
{
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(filter->text + filter->len, sizeof(filter->text) - filter->len, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof(filter->text) - filter->len)
        abort();
    filter->len += (size_t)len;
}

static void
put_space(struct rng *rng, struct random_filter *filter)
{
    random_put(filter, "%s", PICK(rng, "", "", " ", " ", "  ", "\t", "\n", " \r\v\f"));
}

/* A value that a packet of the corpus has in a header field, so that "==" is true at times. */
static uint64_t
sample_value(struct rng *rng, const struct wd_field_info *info, const struct corpus *corpus)
{
    const struct corpus_packet *packet = &corpus->packets[rng_below(rng, (uint32_t)corpus->packet_count)];
    size_t at = info->off;
    uint64_t value = 0;

    if (info->src > WD_SRC_IP6 && packet->valid)
        at += packet->packet.l4_off;
    if (!info->width || info->width > 4 || at + info->width > packet->len)
        return rng_below(rng, 256);
    for (size_t i = 0; i < info->width; i++)
        value = value << 8 | packet->data[at + i];
    value = value >> info->shift;
    return info->kind == WD_KIND_ADDR4 ? value | 0xFFFF00000000 : value & info->max;
}

static void
put_address(struct rng *rng, struct random_filter *filter)
{
    if (rng_below(rng, 3) == 0)
        random_put(filter, "%u.%u.%u.%u", rng_below(rng, 256), rng_below(rng, 256), rng_below(rng, 256),
                   rng_below(rng, 256));
    else
        random_put(filter, "%s",
                   PICK(rng, "::", "::1", "10.0.0.1", "127.0.0.1", "8.8.8.8", "fd77::1", "fd77::2", "::ffff:10.0.0.1",
                        "0.0.0.0", "255.255.255.255", "FF02::1:2", "1:2:3:4:5:6:7:8", "fe80::1:0:0:2",
                        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "0xFFFF0A000001", "0xffff00000000",
                        "0x10000000000000000", "0xfffeffffffff", "0x1000000000000"));
}

static void
put_plain(struct rng *rng, struct random_filter *filter, uint64_t value)
{
    random_put(filter, rng_below(rng, 3) ? "%llu" : "0x%llx", (unsigned long long)value);
}

static void
put_value(struct rng *rng, struct random_filter *filter, const struct wd_field_info *info,
          const struct corpus *corpus)
{
    static const int steps[] = {-2, -1, 0, 0, 1, 2};
    int step = steps[rng_below(rng, 6)];
    bool address = info->kind == WD_KIND_ADDR || info->kind == WD_KIND_ADDR4;

    if (rng_below(rng, 12) == 0)
        random_put(filter, "-%s", PICK(rng, "", " "));
    switch (rng_below(rng, 8)) {
    case 0:
        random_put(filter, "%s", PICK(rng, "TRUE", "FALSE", "TCP", "UDP", "ICMP", "ICMPV6", "0x", "0", "1", "00001"));
        break;
    case 1:
        put_plain(rng, filter, info->umin + (uint64_t)(int64_t)step);
        break;
    case 2:
        put_plain(rng, filter, info->max + (uint64_t)(int64_t)step);
        break;
    case 3:
        random_put(filter, "%s",
                   PICK(rng, "30000", "30001", "9223372036854775807", "9223372036854775808", "18446744073709551615",
                        "18446744073709551616", "340282366920938463463374607431768211455", "65536", "4294967296",
                        "70000"));
        break;
    default:
        if (address && rng_below(rng, 2))
            put_address(rng, filter);
        else
            put_plain(rng, filter, sample_value(rng, info, corpus));
        break;
    }
}

static void
put_prefix(struct rng *rng, struct random_filter *filter)
{
    if (rng_below(rng, 2))
        random_put(filter, "%s/%u", PICK(rng, "10.0.0.1", "127.0.0.1", "8.8.8.8", "0.0.0.0"), rng_below(rng, 33));
    else
        random_put(filter, "%s/%u", PICK(rng, "::", "fd77::1", "::ffff:10.0.0.1", "fe80::1:0:0:2"),
                   rng_below(rng, 129));
}

/* From a value that packets have, or from the least, so many on. */
static void
put_range(struct rng *rng, struct random_filter *filter, const struct wd_field_info *info,
          const struct corpus *corpus)
{
    uint64_t from = rng_below(rng, 3) ? sample_value(rng, info, corpus) : info->umin;

    if (info->kind == WD_KIND_INT) {
        from = rng_below(rng, 60);
        random_put(filter, "-%llu..", (unsigned long long)from);
    } else {
        put_plain(rng, filter, from);
        random_put(filter, "%s", PICK(rng, "..", " .. "));
    }
    put_plain(rng, filter, from + (rng_below(rng, 4) ? rng_below(rng, 40) : info->max / 2));
}

static void
put_element(struct rng *rng, struct random_filter *filter, const struct wd_field_info *info,
            const struct corpus *corpus)
{
    bool address = info->kind == WD_KIND_ADDR || info->kind == WD_KIND_ADDR4;

    switch (rng_below(rng, 3)) {
    case 0:
        put_value(rng, filter, info, corpus);
        break;
    case 1:
        if (address) {
            put_prefix(rng, filter);
            break;
        } /* fall through */
    default:
        put_range(rng, filter, info, corpus);
        break;
    }
}

/* Beyond the original. */
static void
put_in(struct rng *rng, struct random_filter *filter, const struct wd_field_info *info, const struct corpus *corpus)
{
    random_put(filter, "%s", PICK(rng, " in ", " not in ", " ! in "));
    if (rng_below(rng, 3) == 0) {
        put_element(rng, filter, info, corpus);
        return;
    }
    random_put(filter, "{");
    for (uint32_t left = rng_below(rng, 6);; left--) {
        put_space(rng, filter);
        put_element(rng, filter, info, corpus);
        if (!left)
            break;
        put_space(rng, filter);
        random_put(filter, ",");
    }
    random_put(filter, "}");
}

/* An index that the language accepts; most of them lie in a packet. */
static void
put_index(struct rng *rng, struct random_filter *filter, uint8_t width)
{
    uint32_t reach = rng_below(rng, 8) ? 96 : 65535 - width;
    uint32_t offset = rng_below(rng, reach + 1);
    bool end = rng_below(rng, 3) == 0, bytes = rng_below(rng, 2);

    if (end && offset < width)
        offset = width;
    if (!bytes)
        offset /= width;
    random_put(filter, "[%s%s", end ? "-" : "", rng_below(rng, 6) ? "" : " ");
    random_put(filter, rng_below(rng, 5) ? "%u" : bytes ? "%u " : "0x%x", offset);
    random_put(filter, "%s]", bytes ? "b" : "");
}

static enum wd_field
random_field(struct rng *rng, WINDIVERT_LAYER layer)
{
    for (;;) {
        uint32_t field = rng_below(rng, WD_FIELD_COUNT);

        if (wd_fields[field].layers & 1 << layer)
            return (enum wd_field)field;
    }
}

static int
new_node(struct random_filter *filter, int kind)
{
    filter->nodes[filter->count].kind = kind;
    return filter->count++;
}

static int
put_leaf(struct rng *rng, WINDIVERT_LAYER layer, const struct corpus *corpus, struct random_filter *filter)
{
    const struct wd_field_info *info = &wd_fields[random_field(rng, layer)];
    int leaf = new_node(filter, RANDOM_LEAF);

    filter->nodes[leaf].begin = (uint32_t)filter->len;
    while (rng_below(rng, 4) == 0)
        random_put(filter, "%s", PICK(rng, "not ", "!", "! "));
    random_put(filter, "%s", info->name);
    if (info->kind == WD_KIND_ARRAY)
        put_index(rng, filter, info->width);
    if (rng_below(rng, 4)) {
        put_space(rng, filter);
        random_put(filter, "%s", PICK(rng, "==", "=", "!=", "<", "<=", ">", ">="));
        put_space(rng, filter);
        put_value(rng, filter, info, corpus);
    } else if (rng_below(rng, 2)) {
        put_in(rng, filter, info, corpus);
    }
    filter->nodes[leaf].end = (uint32_t)filter->len;
    return leaf;
}

struct generator {
    struct rng *rng;
    WINDIVERT_LAYER layer;
    const struct corpus *corpus;
    struct random_filter *filter;
    int budget; /* leaves still allowed */
};

static int put_or(struct generator *gen, int depth);

static int
put_group(struct generator *gen, int depth)
{
    struct random_filter *filter = gen->filter;
    int cond = -1, negation = -1, node;

    if (rng_below(gen->rng, 3) == 0) {
        random_put(filter, "%s", PICK(gen->rng, "not", "!", "! ", "not !!", "!not not "));
        negation = new_node(filter, RANDOM_NOT);
    }
    random_put(filter, "(");
    put_space(gen->rng, filter);
    node = put_or(gen, depth + 1);
    if (rng_below(gen->rng, 3) == 0) {
        cond = new_node(filter, RANDOM_COND);
        filter->nodes[cond].kid[0] = node;
        random_put(filter, "%s", PICK(gen->rng, "?", " ? "));
        filter->nodes[cond].kid[1] = put_or(gen, depth + 1);
        random_put(filter, "%s", PICK(gen->rng, " :", ": ", " : "));
        filter->nodes[cond].kid[2] = put_or(gen, depth + 1);
        node = cond;
    }
    put_space(gen->rng, filter);
    random_put(filter, ")");
    if (negation < 0)
        return node;
    filter->nodes[negation].kid[0] = node;
    return negation;
}

static int
put_arg(struct generator *gen, int depth)
{
    gen->budget--;
    if (depth < 6 && gen->budget > 0 && rng_below(gen->rng, 3) == 0)
        return put_group(gen, depth);
    return put_leaf(gen->rng, gen->layer, gen->corpus, gen->filter);
}

typedef int put_function(struct generator *gen, int depth);

static int
put_list(struct generator *gen, int depth, int kind, put_function *element, const char *word, const char *sign)
{
    int left = element(gen, depth);

    while (gen->budget > 0 && rng_below(gen->rng, 3) == 0) {
        int node = new_node(gen->filter, kind);

        random_put(gen->filter, rng_below(gen->rng, 2) ? " %s " : "%s", rng_below(gen->rng, 2) ? word : sign);
        gen->filter->nodes[node].kid[0] = left;
        gen->filter->nodes[node].kid[1] = element(gen, depth);
        left = node;
    }
    return left;
}

static int
put_and(struct generator *gen, int depth)
{
    return put_list(gen, depth, RANDOM_AND, put_arg, " and ", "&&");
}

static int
put_or(struct generator *gen, int depth)
{
    return put_list(gen, depth, RANDOM_OR, put_and, " or ", "||");
}

void
random_filter(struct rng *rng, WINDIVERT_LAYER layer, const struct corpus *corpus, struct random_filter *ret_filter)
{
    struct generator gen = {rng, layer, corpus, ret_filter, 1 + (int)rng_below(rng, 16)};

    ret_filter->len = 0;
    ret_filter->count = 0;
    ret_filter->root = put_or(&gen, 0);
}

bool
random_packet(struct rng *rng, const struct corpus *corpus, uint8_t **ret_buffer, struct wd_packet *ret_packet)
{
    const struct corpus_packet *from = &corpus->packets[rng_below(rng, (uint32_t)corpus->packet_count)];
    size_t len = rng_below(rng, 6) ? from->len : rng_below(rng, (uint32_t)from->len + 1);
    uint8_t *buffer = malloc(len ? len : 1);

    if (!buffer)
        abort();
    memcpy(buffer, from->data, len);
    for (uint32_t changes = rng_below(rng, 4); len && changes; changes--) {
        uint32_t at = rng_below(rng, (uint32_t)(rng_below(rng, 2) && len > 48 ? 48 : len));

        buffer[at] = rng_below(rng, 2) ? (uint8_t)rng_next(rng) : buffer[at] ^ (uint8_t)(1 << rng_below(rng, 8));
    }
    if (!wd_packet_parse(buffer, len, ret_packet)) {
        free(buffer);
        return false;
    }
    *ret_buffer = buffer;
    return true;
}

static void
random_flow(struct rng *rng, WINDIVERT_ADDRESS *addr)
{
    static const uint8_t protocols[] = {6, 17, 1, 58, 0, 132, 255};
    WINDIVERT_DATA_FLOW *flow = &addr->Flow;

    flow->EndpointId = rng_below(rng, 4) ? rng_below(rng, 200) : rng_next(rng);
    flow->ParentEndpointId = rng_below(rng, 8);
    flow->ProcessId = rng_below(rng, 2) ? 1234 : (uint32_t)rng_next(rng);
    for (int i = 0; i < 4; i++) {
        flow->LocalAddr[i] = (uint32_t)rng_next(rng);
        flow->RemoteAddr[i] = rng_below(rng, 2);
    }
    if (!addr->IPv6) {
        flow->LocalAddr[1] = flow->RemoteAddr[1] = 0xFFFF;
        flow->LocalAddr[2] = flow->LocalAddr[3] = flow->RemoteAddr[2] = flow->RemoteAddr[3] = 0;
        flow->LocalAddr[0] = rng_below(rng, 2) ? 0x0A000001 : 0x7F000001;
    }
    flow->LocalPort = (uint16_t)rng_below(rng, 100);
    flow->RemotePort = (uint16_t)(rng_below(rng, 2) ? 443 : rng_next(rng));
    flow->Protocol = protocols[rng_below(rng, sizeof(protocols))];
}

void
random_address(struct rng *rng, WINDIVERT_LAYER layer, WINDIVERT_ADDRESS *ret_addr)
{
    static const uint8_t first[] = {0, 0, 1, 3, 8}, events[] = {1, 1, 2, 5, 2};
    uint64_t bits = rng_next(rng);

    memset(ret_addr, 0, sizeof(*ret_addr));
    ret_addr->Timestamp = bits & 1 ? (INT64)rng_next(rng) : (INT64)rng_below(rng, 100) - 50;
    ret_addr->Layer = (UINT32)layer & 0xFF;
    ret_addr->Event = (uint8_t)(first[layer] + rng_below(rng, events[layer]));
    ret_addr->Outbound = bits >> 1 & 1;
    ret_addr->Loopback = bits >> 2 & 1;
    ret_addr->Impostor = bits >> 3 & 1;
    ret_addr->IPv6 = bits >> 4 & 1;
    if (layer <= WINDIVERT_LAYER_NETWORK_FORWARD) {
        ret_addr->Network.IfIdx = (uint32_t)(bits >> 8 & 7);
        ret_addr->Network.SubIfIdx = (uint32_t)(bits >> 11 & 1);
    } else if (layer < WINDIVERT_LAYER_REFLECT) {
        random_flow(rng, ret_addr);
    } else {
        ret_addr->Reflect.Layer = (WINDIVERT_LAYER)rng_below(rng, 5);
        ret_addr->Reflect.ProcessId = rng_below(rng, 5000);
        ret_addr->Reflect.Priority = (INT16)((int)rng_below(rng, 60001) - 30000);
    }
}
