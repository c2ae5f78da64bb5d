/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "bytes.h"
#include "hash.h"
#include "step.h"

#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMP6 58

struct wide {
    uint64_t hi, lo;
};

/* What one evaluation works on. */
struct subject {
    const struct wd_packet *packet; /* NULL at the event layers */
    const WINDIVERT_ADDRESS *addr;
    uint64_t random; /* 0: not computed yet; bits 56..63 are set where it is */
};

static struct wide
load_wide(const uint8_t *p)
{
    return (struct wide){(uint64_t)wd_load_be32(p) << 32 | wd_load_be32(p + 4),
                         (uint64_t)wd_load_be32(p + 8) << 32 | wd_load_be32(p + 12)};
}

static struct wide
wide_words(const UINT32 words[4])
{
    return (struct wide){(uint64_t)words[3] << 32 | words[2], (uint64_t)words[1] << 32 | words[0]};
}

/* IPv4 as ::ffff:a.b.c.d */
static struct wide
packet_address(const struct wd_packet *packet, bool source)
{
    if (packet->version == 4)
        return (struct wide){0, 0xFFFF00000000 | wd_load_be32(packet->data + (source ? 12 : 16))};
    return load_wide(packet->data + (source ? 8 : 24));
}

/* The local end of a packet is its source on the way out. */
static struct wide
local_address(const struct subject *s)
{
    return s->packet ? packet_address(s->packet, s->addr->Outbound) : wide_words(s->addr->Flow.LocalAddr);
}

static struct wide
remote_address(const struct subject *s)
{
    return s->packet ? packet_address(s->packet, !s->addr->Outbound) : wide_words(s->addr->Flow.RemoteAddr);
}

/* ICMP has no ports: its type stands for the source port, 0 for the other. */
static uint16_t
packet_port(const struct wd_packet *packet, bool source)
{
    const uint8_t *header = packet->data + packet->l4_off;

    switch (packet->l4) {
    case WD_L4_TCP:
    case WD_L4_UDP:
        return wd_load_be16(header + (source ? 0 : 2));
    case WD_L4_ICMP:
    case WD_L4_ICMP6:
        return source ? header[0] : 0;
    default:
        return 0;
    }
}

static uint64_t
subject_random(struct subject *s)
{
    if (!s->random)
        s->random = wd_hash_packet(s->packet, (uint64_t)s->addr->Timestamp) | 0xFF00000000000000;
    return s->random;
}

static bool
has_transport(const struct subject *s, uint8_t l4, uint8_t protocol)
{
    return s->packet ? s->packet->l4 == l4 : s->addr->Flow.Protocol == protocol;
}

static bool
is_ipv6(const struct subject *s)
{
    return s->packet ? s->packet->version == 6 : s->addr->IPv6;
}

/* A field that is always present. */
static uint64_t
load_meta(struct subject *s, uint8_t field)
{
    const WINDIVERT_ADDRESS *addr = s->addr;
    const struct wd_packet *packet = s->packet;

    switch (field) {
    case WD_F_TRUE:
        return 1;
    case WD_F_TIMESTAMP:
        return (uint64_t)addr->Timestamp;
    case WD_F_EVENT:
        return addr->Event;
    case WD_F_IP:
        return !is_ipv6(s);
    case WD_F_IPV6:
        return is_ipv6(s);
    case WD_F_ICMP:
        return has_transport(s, WD_L4_ICMP, PROTOCOL_ICMP) && !is_ipv6(s);
    case WD_F_ICMPV6:
        return has_transport(s, WD_L4_ICMP6, PROTOCOL_ICMP6) && is_ipv6(s);
    case WD_F_TCP:
        return has_transport(s, WD_L4_TCP, PROTOCOL_TCP);
    case WD_F_UDP:
        return has_transport(s, WD_L4_UDP, PROTOCOL_UDP);
    case WD_F_INBOUND:
        return !addr->Outbound;
    case WD_F_OUTBOUND:
        return addr->Outbound;
    case WD_F_LOOPBACK:
        return addr->Loopback;
    case WD_F_PROTOCOL:
        return packet ? packet->protocol : addr->Flow.Protocol;
    case WD_F_LOCALPORT:
        return packet ? packet_port(packet, addr->Outbound) : addr->Flow.LocalPort;
    case WD_F_REMOTEPORT:
        return packet ? packet_port(packet, !addr->Outbound) : addr->Flow.RemotePort;
    case WD_F_IFIDX:
        return addr->Network.IfIdx;
    case WD_F_SUBIFIDX:
        return addr->Network.SubIfIdx;
    case WD_F_IMPOSTOR:
        return addr->Impostor;
    case WD_F_FRAGMENT:
        return packet->fragment;
    case WD_F_LENGTH:
        return packet->buf_len;
    case WD_F_RANDOM8:
        return subject_random(s) >> 48 & UINT8_MAX;
    case WD_F_RANDOM16:
        return subject_random(s) >> 32 & UINT16_MAX;
    case WD_F_RANDOM32:
        return subject_random(s) & UINT32_MAX;
    case WD_F_ENDPOINTID:
        return addr->Flow.EndpointId;
    case WD_F_PARENTENDPOINTID:
        return addr->Flow.ParentEndpointId;
    case WD_F_PROCESSID:
        return addr->Layer == WINDIVERT_LAYER_REFLECT ? addr->Reflect.ProcessId : addr->Flow.ProcessId;
    case WD_F_LAYER:
        return addr->Reflect.Layer;
    case WD_F_PRIORITY:
        return (uint64_t)(int64_t)addr->Reflect.Priority;
    default: /* zero, false */
        return 0;
    }
}

/* Where an element of an array is; NULL: not in this packet. */
static const uint8_t *
find_element(const struct wd_packet *packet, const struct wd_step *step, uint32_t width)
{
    uint32_t begin = 0, end = packet->buf_len;
    int64_t at = step->off;

    if (step->need != WD_L4_NONE) {
        if (packet->l4 != step->need)
            return NULL;
        begin = packet->data_off;
        end = packet->ip_len;
    }
    at += at < 0 ? end : begin;
    return at >= begin && at + width <= end ? packet->data + at : NULL;
}

static bool
compare_wide(const struct wd_step *step, struct wide value)
{
    bool less = value.hi != step->base ? value.hi < step->base : value.lo < step->span;
    bool equal = value.hi == step->base && value.lo == step->span;

    switch (step->op) {
    case WD_OP_EQ:
        return equal;
    case WD_OP_NE:
        return !equal;
    case WD_OP_LT:
        return less;
    case WD_OP_LE:
        return less || equal;
    case WD_OP_GT:
        return !(less || equal);
    default:
        return !less;
    }
}

/* Whether the test holds: false too where the packet does not have the field. */
static inline bool
run_step(struct subject *s, const struct wd_step *step)
{
    const struct wd_packet *packet = s->packet;
    const uint8_t *element;
    uint64_t value;

    switch (step->load) {
    case WD_LOAD_IP8:
        if (packet->version != step->need)
            return false;
        value = packet->data[step->off] & step->mask;
        break;
    case WD_LOAD_IP16:
        if (packet->version != step->need)
            return false;
        value = wd_load_be16(packet->data + step->off) & step->mask;
        break;
    case WD_LOAD_IP32:
        if (packet->version != step->need)
            return false;
        value = wd_load_be32(packet->data + step->off) & step->mask;
        break;
    case WD_LOAD_IP128:
        return packet->version == step->need && compare_wide(step, load_wide(packet->data + step->off));
    case WD_LOAD_L4_8:
        if (packet->l4 != step->need)
            return false;
        value = packet->data[packet->l4_off + (uint32_t)step->off] & step->mask;
        break;
    case WD_LOAD_L4_16:
        if (packet->l4 != step->need)
            return false;
        value = wd_load_be16(packet->data + packet->l4_off + step->off);
        break;
    case WD_LOAD_L4_32:
        if (packet->l4 != step->need)
            return false;
        value = wd_load_be32(packet->data + packet->l4_off + step->off);
        break;
    case WD_LOAD_DATA_LEN:
        if (packet->l4 != step->need)
            return false;
        value = wd_packet_data_len(packet);
        break;
    case WD_LOAD_ARRAY8:
        if (!(element = find_element(packet, step, 1)))
            return false;
        value = element[0];
        break;
    case WD_LOAD_ARRAY16:
        if (!(element = find_element(packet, step, 2)))
            return false;
        value = wd_load_be16(element);
        break;
    case WD_LOAD_ARRAY32:
        if (!(element = find_element(packet, step, 4)))
            return false;
        value = wd_load_be32(element);
        break;
    case WD_LOAD_LOCAL:
        return compare_wide(step, local_address(s));
    case WD_LOAD_REMOTE:
        return compare_wide(step, remote_address(s));
    default:
        value = load_meta(s, step->load);
        break;
    }
    return (value - step->base <= step->span) != step->invert;
}

/* A program put together by hand: each test is prepared as it is met. */
static bool
eval_tests(const struct wd_prog *prog, struct subject *s)
{
    uint32_t at = prog->start;

    while (at < WD_REJECT) {
        const struct wd_test *test = &prog->tests[at];
        struct wd_step step;

        wd_step_prepare(&step, test);
        at = run_step(s, &step) ? test->yes : test->no;
    }
    return at == WD_ACCEPT;
}

bool
wd_prog_eval(const struct wd_prog *prog, const struct wd_packet *packet, const WINDIVERT_ADDRESS *addr)
{
    struct subject s = {.packet = packet, .addr = addr};
    const struct wd_step *steps = prog->steps;
    uint32_t at;

    if (prog->start >= WD_REJECT)
        return prog->start == WD_ACCEPT;
    if (!steps)
        return eval_tests(prog, &s);
    for (at = prog->start; at < WD_STEP_REJECT;)
        at = run_step(&s, &steps[at]) ? steps[at].yes : steps[at].no;
    return at == WD_STEP_ACCEPT;
}
