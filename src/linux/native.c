/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * For each IP version, what is known of the packets that come to each test is
 * united over all ways to it: the transports they can have and the least and
 * greatest value of some header fields.  What is known at the end of the ways
 * to "accept" becomes compares.
 *
 * Compares stand at fixed offsets, so they are right for IPv4 without options
 * and for IPv6 with the transport header right behind; a prefix of its own
 * leads all other packets to the program.
 */
#include "native.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/tree.h"

typedef unsigned __int128 number;

enum transport {
    T_OTHER = 1, /* none of these, or cut off */
    T_TCP = 2,
    T_UDP = 4,
    T_ICMP = 8,
    T_PORTS = T_TCP | T_UDP,
    T_ALL = 15
};

enum key { KEY_SRC, KEY_DST, KEY_SPORT, KEY_DPORT, KEY_TTL, KEYS };

struct interval {
    number min, max;
};

/* What holds for a packet that came here; the ports of one that has ports. */
struct facts {
    uint8_t transports; /* 0: no packet comes here */
    struct interval key[KEYS];
};

struct native {
    const struct wd_prog *prog;
    struct facts *at; /* of each test, WD_ACCEPT, WD_REJECT */
    bool v6, outbound;
};

#define IPV4_MAPPED ((number)0xFFFF << 32) /* addresses of IPv4 as the language compares them */

static struct interval
key_range(enum key key, bool v6)
{
    if (key == KEY_TTL)
        return (struct interval){0, UINT8_MAX};
    if (key == KEY_SPORT || key == KEY_DPORT)
        return (struct interval){0, UINT16_MAX};
    return v6 ? (struct interval){0, ~(number)0} : (struct interval){IPV4_MAPPED, IPV4_MAPPED + UINT32_MAX};
}

/* ---- Tests -------------------------------------------------------------- */

/* The transports with the header a field is in; all: it is in none, or the field is always there. */
static uint8_t
transports_with(const struct native *n, uint8_t field)
{
    switch (wd_fields[field].src) {
    case WD_SRC_IP4:
        return n->v6 ? 0 : T_ALL;
    case WD_SRC_IP6:
        return n->v6 ? T_ALL : 0;
    case WD_SRC_ICMP:
        return n->v6 ? 0 : T_ICMP;
    case WD_SRC_ICMP6:
        return n->v6 ? T_ICMP : 0;
    case WD_SRC_TCP:
    case WD_SRC_TCPDATA:
        return T_TCP;
    case WD_SRC_UDP:
    case WD_SRC_UDPDATA:
        return T_UDP;
    default:
        return T_ALL;
    }
}

/* The transports with which a flag is 1; false: the field is no such flag. */
static bool
transports_of_flag(const struct native *n, uint8_t field, uint8_t *ret_transports)
{
    switch (field) {
    case WD_F_IP:
        *ret_transports = n->v6 ? 0 : T_ALL;
        return true;
    case WD_F_IPV6:
        *ret_transports = n->v6 ? T_ALL : 0;
        return true;
    case WD_F_ICMP:
        *ret_transports = n->v6 ? 0 : T_ICMP;
        return true;
    case WD_F_ICMPV6:
        *ret_transports = n->v6 ? T_ICMP : 0;
        return true;
    case WD_F_TCP:
        *ret_transports = T_TCP;
        return true;
    case WD_F_UDP:
        *ret_transports = T_UDP;
        return true;
    default:
        return false;
    }
}

static enum key
key_of(const struct native *n, uint8_t field)
{
    switch (field) {
    case WD_F_IP_SRCADDR:
    case WD_F_IPV6_SRCADDR:
        return KEY_SRC;
    case WD_F_IP_DSTADDR:
    case WD_F_IPV6_DSTADDR:
        return KEY_DST;
    case WD_F_LOCALADDR:
        return n->outbound ? KEY_SRC : KEY_DST;
    case WD_F_REMOTEADDR:
        return n->outbound ? KEY_DST : KEY_SRC;
    case WD_F_TCP_SRCPORT:
    case WD_F_UDP_SRCPORT:
        return KEY_SPORT;
    case WD_F_TCP_DSTPORT:
    case WD_F_UDP_DSTPORT:
        return KEY_DPORT;
    case WD_F_LOCALPORT:
        return n->outbound ? KEY_SPORT : KEY_DPORT;
    case WD_F_REMOTEPORT:
        return n->outbound ? KEY_DPORT : KEY_SPORT;
    case WD_F_IP_TTL:
    case WD_F_IPV6_HOPLIMIT:
        return KEY_TTL;
    default:
        return KEYS;
    }
}

/* Narrows to the values for which the operator holds; false: there are none. */
static bool
narrow(struct interval *in, uint8_t op, number value)
{
    switch (op) {
    case WD_OP_EQ:
        if (value < in->min || value > in->max)
            return false;
        in->min = in->max = value;
        return true;
    case WD_OP_NE:
        if (in->min == in->max)
            return in->min != value;
        in->min += in->min == value;
        in->max -= in->max == value;
        return true;
    case WD_OP_LT:
    case WD_OP_LE:
        if (value < in->min || (op == WD_OP_LT && value == in->min))
            return false;
        if (value <= in->max)
            in->max = value - (op == WD_OP_LT);
        return true;
    default:
        if (value > in->max || (op == WD_OP_GT && value == in->max))
            return false;
        if (value >= in->min)
            in->min = value + (op == WD_OP_GT);
        return true;
    }
}

/* localPort and remotePort are the type of an ICMP packet where it is the source's, else 0 without ports. */
static uint8_t
transports_with_port(uint8_t transports, enum key key, uint8_t op, number value)
{
    struct interval none = {0, 0}, type = {0, key == KEY_SPORT ? UINT8_MAX : 0};

    if (!narrow(&none, op, value))
        transports &= (uint8_t)~T_OTHER;
    if (!narrow(&type, op, value))
        transports &= (uint8_t)~T_ICMP;
    return transports;
}

/* The facts behind a test that had this outcome; false: no packet comes there. */
static bool
follow(const struct native *n, const struct wd_test *test, bool yes, struct facts *facts)
{
    uint8_t with = transports_with(n, test->field), of_flag;
    uint8_t op = yes ? test->op : wd_op_invert(test->op);
    number value = (number)test->hi << 64 | test->lo;
    enum key key = key_of(n, test->field);
    bool there = !(facts->transports & ~with); /* else "no" says nothing */

    if (yes)
        facts->transports &= with;
    if (transports_of_flag(n, test->field, &of_flag)) {
        if (!wd_op_holds(op, test->neg || value < 1 ? 1 : value > 1 ? -1 : 0))
            facts->transports &= (uint8_t)~of_flag;
        if (!wd_op_holds(op, test->neg ? 1 : value > 0 ? -1 : 0))
            facts->transports &= of_flag;
    } else if (key != KEYS && !test->neg && (yes || there)) {
        if (test->field == WD_F_LOCALPORT || test->field == WD_F_REMOTEPORT)
            facts->transports = transports_with_port(facts->transports, key, op, value);
        if (!narrow(&facts->key[key], op, value)) {
            /* No packet with such a header; the interval of ports says nothing of the others. */
            facts->transports &= key == KEY_SPORT || key == KEY_DPORT ? (uint8_t)~T_PORTS : 0;
            facts->key[key] = key_range(key, n->v6);
        }
    }
    return facts->transports;
}

static void
unite(struct facts *facts, const struct facts *with)
{
    if (!facts->transports) {
        *facts = *with;
        return;
    }
    facts->transports |= with->transports;
    for (int key = 0; key < KEYS; key++) {
        struct interval *in = &facts->key[key];

        if (with->key[key].min < in->min)
            in->min = with->key[key].min;
        if (with->key[key].max > in->max)
            in->max = with->key[key].max;
    }
}

static struct facts *
facts_at(const struct native *n, uint32_t target)
{
    return &n->at[target < WD_REJECT ? target : n->prog->count + (WD_ACCEPT - target)];
}

/* What holds for the packets of one version that the program matches. */
static struct facts
facts_of_matches(const struct native *n)
{
    const struct wd_prog *prog = n->prog;
    struct facts *first = facts_at(n, prog->start);

    memset(n->at, 0, (prog->count + 2) * sizeof(*n->at));
    first->transports = T_ALL;
    for (int key = 0; key < KEYS; key++)
        first->key[key] = key_range(key, n->v6);
    for (uint32_t i = 0; i < prog->count; i++) {
        const struct wd_test *test = &prog->tests[i];

        for (int yes = 0; yes < 2 && n->at[i].transports; yes++) {
            struct facts facts = n->at[i];

            if (follow(n, test, yes, &facts))
                unite(facts_at(n, yes ? test->yes : test->no), &facts);
        }
    }
    return *facts_at(n, WD_ACCEPT);
}

/* ---- Compares ----------------------------------------------------------- */

static struct wd_compare *
add(struct wd_prefix *prefix, uint8_t offset, uint8_t len, enum wd_compare_op op, number value)
{
    struct wd_compare *compare = &prefix->compare[prefix->count++];

    *compare = (struct wd_compare){.offset = offset, .len = len, .op = (uint8_t)op};
    for (unsigned int i = 0; i < len; i++)
        compare->value[len - 1 - i] = (uint8_t)(value >> 8 * i);
    return compare;
}

static void
add_version(struct wd_prefix *prefix, bool v6)
{
    add(prefix, 0, 1, WD_COMPARE_EQ, v6 ? 0x60 : 0x40)->mask = 0xF0;
}

static void
add_interval(struct wd_prefix *prefix, uint8_t offset, uint8_t len, const struct facts *facts, enum key key, bool v6)
{
    const struct interval *in = &facts->key[key], all = key_range(key, v6);

    if (in->min == in->max) {
        add(prefix, offset, len, WD_COMPARE_EQ, in->min);
        return;
    }
    if (in->min != all.min)
        add(prefix, offset, len, WD_COMPARE_GE, in->min);
    if (in->max != all.max)
        add(prefix, offset, len, WD_COMPARE_LE, in->max);
}

static bool
is_narrowed(const struct facts *facts, enum key key)
{
    const struct interval *in = &facts->key[key], all = key_range(key, false);

    return in->min != all.min || in->max != all.max;
}

static uint8_t
protocol_of(uint8_t transports, bool v6)
{
    switch (transports) {
    case T_TCP:
        return IPPROTO_TCP;
    case T_UDP:
        return IPPROTO_UDP;
    case T_ICMP:
        return v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
    default:
        return 0;
    }
}

/* Whether there are compares that are only right where the transport header is in its usual place. */
static bool
reads_transport(const struct facts *facts)
{
    if (protocol_of(facts->transports, false))
        return true;
    return facts->transports == T_PORTS && (is_narrowed(facts, KEY_SPORT) || is_narrowed(facts, KEY_DPORT));
}

static void
add_transport(struct wd_prefix *prefix, const struct facts *facts, bool v6)
{
    uint8_t protocol = protocol_of(facts->transports, v6), l4 = v6 ? 40 : 20;

    if (protocol)
        add(prefix, v6 ? 6 : 9, 1, WD_COMPARE_EQ, protocol);
    if (facts->transports & ~T_PORTS)
        return;
    add_interval(prefix, l4 + 2, 2, facts, KEY_DPORT, v6);
    add_interval(prefix, l4, 2, facts, KEY_SPORT, v6);
}

static void
add_header(struct wd_prefix *prefix, const struct facts *facts, bool v6)
{
    uint8_t address_len = v6 ? 16 : 4;

    add_interval(prefix, v6 ? 24 : 16, address_len, facts, KEY_DST, v6);
    add_interval(prefix, v6 ? 8 : 12, address_len, facts, KEY_SRC, v6);
    add_interval(prefix, v6 ? 7 : 8, 1, facts, KEY_TTL, v6);
}

static void
add_family(struct wd_prefix *prefix, const struct facts *facts, bool v6)
{
    if (reads_transport(facts) && !v6)
        add(prefix, 0, 1, WD_COMPARE_EQ, 0x45);
    else
        add_version(prefix, v6);
    if (reads_transport(facts))
        add_transport(prefix, facts, v6);
    add_header(prefix, facts, v6);
}

/*
 * IPv4 with options, IPv6 with extension headers, of a family that
 * reads_transport.  Byte 6 of an IPv4 header is never one of these protocols
 * but in a fragment that is not the first, which has no transport header.
 */
static void
add_unusual(struct wd_prefix *prefix, const struct facts *v4, const struct facts *v6)
{
    add(prefix, 0, 1, WD_COMPARE_NE, 0x45);
    if (!reads_transport(v6))
        add_version(prefix, false);
    else if (!reads_transport(v4))
        add_version(prefix, true);
    if (!reads_transport(v6))
        return;
    add(prefix, 6, 1, WD_COMPARE_NE, IPPROTO_TCP);
    add(prefix, 6, 1, WD_COMPARE_NE, IPPROTO_UDP);
    add(prefix, 6, 1, WD_COMPARE_NE, IPPROTO_ICMPV6);
}

int
wd_native_prefixes(struct wd_arena *arena, const struct wd_prog *prog, bool outbound,
                   struct wd_prefix ret_prefix[WD_PREFIXES_MAX], unsigned int *ret_count)
{
    struct native n = {.prog = prog, .outbound = outbound};
    struct facts facts[2];
    unsigned int count = 0;

    n.at = wd_arena_alloc(arena, (size_t)prog->count + 2, sizeof(*n.at));
    if (!n.at)
        return -ENOMEM;
    memset(ret_prefix, 0, WD_PREFIXES_MAX * sizeof(*ret_prefix));
    for (int v6 = 0; v6 < 2; v6++) {
        n.v6 = v6;
        facts[v6] = facts_of_matches(&n);
        if (facts[v6].transports)
            add_family(&ret_prefix[count++], &facts[v6], v6);
    }
    if (count == 2 && ret_prefix[0].count == 1 && ret_prefix[1].count == 1) {
        ret_prefix[0].count = 0; /* only the versions: one or the other */
        count = 1;
    } else if (reads_transport(&facts[0]) || reads_transport(&facts[1])) {
        add_unusual(&ret_prefix[count++], &facts[0], &facts[1]);
    }
    *ret_count = count;
    return 0;
}

/* ---- Text --------------------------------------------------------------- */

struct text {
    char *at;
    size_t left;
};

__attribute__((format(printf, 2, 3))) static void
print(struct text *out, const char *format, ...)
{
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(out->at, out->left, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= out->left)
        len = out->left ? (int)out->left - 1 : 0;
    out->at += len;
    out->left -= (size_t)len;
}

static void
print_value(struct text *out, const struct wd_compare *compare)
{
    unsigned int i = 0;

    while (i + 1 < compare->len && !compare->value[i])
        i++;
    print(out, "0x%x", compare->value[i]);
    while (++i < compare->len)
        print(out, "%02x", compare->value[i]);
}

void
wd_native_format(const struct wd_prefix *prefix, char *buffer, size_t size)
{
    static const char *const ops[] = {"==", "!=", ">=", "<="};
    struct text out = {buffer, size};

    print(&out, "%s", "");
    for (unsigned int i = 0; i < prefix->count; i++) {
        const struct wd_compare *compare = &prefix->compare[i];

        print(&out, "%s@nh,%u,%u ", i ? " " : "", compare->offset * 8u, compare->len * 8u);
        if (compare->mask)
            print(&out, "& 0x%x ", compare->mask);
        print(&out, "%s ", ops[compare->op]);
        print_value(&out, compare);
    }
}
