/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The law of the generated programs on filters and packets that the input
 * chooses:
 *
 *   byte 0          byte 1      byte 2            then
 *   kind of filter  knowledge   choices of the    choices of the filter,
 *   | hook | ring   of packets  filter, times 4   of the setting, of each packet
 *
 * A choice is a byte or a few (filter_random.h); those behind the end of the
 * input follow from it, too.  One program is loaded for each form of the filter
 * and run on at least PACKETS packets; values that tests ask for are written
 * into some of them.
 *
 * Needs CAP_BPF: without it exit 77.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/load.h"
#include "bpf_law.h"
#include "core/optimise.h"
#include "filter_law.h"

#define PACKETS 16
#define PACKETS_MAX 32
#define CHAIN_TESTS 40
#define RING_SIZE 65536
#define FORMS 5

enum kind { TEXT, CHAIN, PROGRAM, ELEMENTS, KINDS };

/* What the first bytes say. */
struct plan {
    enum kind kind;
    enum wd_hook hook;
    bool sniff;
    uint8_t knowledge; /* which of the facts specialisation is told; KNOW_x */
};

enum { KNOW_FAMILY = 1, KNOW_IPV6 = 2, KNOW_INTERFACE = 4, KNOW_DIRECTION = 8, UNDECIDED_TIME = 16, ALL_FORMS = 64 };

/* A form of the filter, loaded, and the program it has to decide as. */
struct form {
    const char *name;
    const struct wd_prog *prog, *meant;
    bool specialised; /* right only for packets of the family known */
    int fd;
};

struct subject {
    struct law_packet packet;
    struct wd_packet parsed;
    bool valid;
};

static struct corpus *corpus;
static struct law_ring ring;
static unsigned long refused, records;
static struct subject subjects[PACKETS_MAX];
static size_t subject_count;

void
law_failed(void)
{
    abort();
}

static void
report(void)
{
    fprintf(stderr,
            "bpf: %lu filters and programs, %lu texts refused, %lu programs loaded, %lu runs compared, "
            "%lu matches, %lu records\n",
            law_done.filters, refused, law_done.programs, law_done.runs, law_done.matches, records);
}

/* Once: what every input needs. */
static void
begin(void)
{
    const struct wd_prog always = {.start = WD_ACCEPT};
    const struct wd_gen_opts opts = {.counters_fd = -1, .ring_fd = -1};
    struct wd_error error = {0};
    struct wd_code code;
    int fd;

    if (wd_gen(&always, &opts, &code, &error) < 0 ||
        wd_bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, code.insns, code.count, "wd_probe", &fd, &error) < 0) {
        printf("SKIP: nothing compared: %s\n", error.text);
        exit(77);
    }
    close(fd);
    wd_code_free(&code);
    corpus = corpus_load();
    law_ring_open(&ring, RING_SIZE);
    ring.counters[WD_COUNT_LIMIT] = UINT64_MAX / 2;
    atexit(report);
}

/* ---- Filters ------------------------------------------------------------ */

static void
put_test(struct random_filter *filter, const struct wd_test *test)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    const struct wd_field_info *info = &wd_fields[test->field];

    random_put(filter, "%s", info->name);
    if (info->kind == WD_KIND_ARRAY)
        random_put(filter, test->index < 0 ? "[-%db]" : "[%db]", abs(test->index));
    random_put(filter, " %s %s0x", ops[test->op], test->neg ? "-" : "");
    if (test->hi)
        random_put(filter, "%llx%016llx", (unsigned long long)test->hi, (unsigned long long)test->lo);
    else
        random_put(filter, "%llx", (unsigned long long)test->lo);
}

static uint8_t
random_field(struct rng *rng, WINDIVERT_LAYER layer)
{
    uint8_t field;

    do
        field = (uint8_t)rng_below(rng, WD_FIELD_COUNT);
    while (!(wd_fields[field].layers & 1 << layer));
    return field;
}

/* Many tests of one field or two, near each other, in groups: what is searched by halves, implied, contradicted. */
static void
put_chain(struct rng *rng, WINDIVERT_LAYER layer, struct random_filter *filter)
{
    uint8_t fields[2] = {random_field(rng, layer), random_field(rng, layer)};
    struct wd_test base = law_random_test(rng, corpus, fields[0]);
    uint32_t count = 1 + rng_below(rng, CHAIN_TESTS), spread = 1 + rng_below(rng, 64), depth = 0;
    uint8_t op = (uint8_t)rng_below(rng, 6);
    bool or = rng_below(rng, 2);

    for (uint32_t i = 0; i < count; i++) {
        struct wd_test test = base;
        uint32_t other = rng_below(rng, 8);

        if (other == 0)
            test = law_random_test(rng, corpus, fields[1]);
        else if (rng_below(rng, 8) == 0)
            test.hi += rng_below(rng, 3);
        if (other)
            test.lo += rng_below(rng, spread);
        test.op = rng_below(rng, 4) ? op : (uint8_t)rng_below(rng, 6);
        if (rng_below(rng, 12) == 0)
            random_put(filter, "not ");
        if (rng_below(rng, 8) == 0 && depth < 8 && ++depth)
            random_put(filter, "(");
        put_test(filter, &test);
        if (depth && rng_below(rng, 4) == 0 && depth--)
            random_put(filter, ")");
        if (i + 1 < count)
            random_put(filter, (rng_below(rng, 8) != 0) == or ? " or " : " and ");
    }
    while (depth--)
        random_put(filter, ")");
}

static WINDIVERT_LAYER
layer_of(enum wd_hook hook)
{
    return hook == WD_HOOK_FORWARD ? WINDIVERT_LAYER_NETWORK_FORWARD : WINDIVERT_LAYER_NETWORK;
}

/* ---- Packets ------------------------------------------------------------ */

/* Where the field is in the packet: -1 where it is not bytes of it. */
static int64_t
place_of(struct rng *rng, const struct wd_test *test, const struct wd_packet *packet, uint32_t *ret_width)
{
    const struct wd_field_info *info = &wd_fields[test->field];
    bool payload = info->src == WD_SRC_TCPDATA || info->src == WD_SRC_UDPDATA;
    bool ip = info->src == WD_SRC_IP4 || info->src == WD_SRC_IP6 || info->src == WD_SRC_PACKET;
    int64_t base = ip ? 0 : payload ? packet->data_off : packet->l4_off;
    uint32_t source = rng_below(rng, 2);

    *ret_width = info->width;
    if (test->field == WD_F_LOCALPORT || test->field == WD_F_REMOTEPORT)
        return *ret_width = 2, base + 2 * source;
    if (test->field == WD_F_LOCALADDR || test->field == WD_F_REMOTEADDR) {
        *ret_width = packet->version == 6 ? 16 : 4;
        return packet->version == 6 ? 8 + 16 * source : 12 + 4 * source;
    }
    if (!info->width || info->src == WD_SRC_META)
        return -1;
    if (info->kind != WD_KIND_ARRAY)
        return base + info->off;
    if (test->index >= 0)
        return base + test->index;
    return (payload ? packet->ip_len : packet->buf_len) + (int64_t)test->index;
}

/* Makes the test hold, or nearly so: its value, or one beside it, is put where the field is. */
static void
fulfil(struct rng *rng, const struct wd_test *test, struct subject *subject)
{
    const struct wd_field_info *info = &wd_fields[test->field];
    uint32_t width, step = rng_below(rng, 4);
    int64_t at = place_of(rng, test, &subject->parsed, &width);
    uint64_t hi = test->hi, lo = test->lo + (step == 1) - (step == 2), mask;

    if (at < 0 || at + width > (int64_t)subject->packet.len)
        return;
    mask =
        width > 4 || info->kind >= WD_KIND_ADDR4 || info->src == WD_SRC_META ? UINT64_MAX : info->max << info->shift;
    lo = width > 4 ? lo : lo << info->shift;
    for (uint32_t i = 0; i < width; i++) {
        uint8_t *byte = &subject->packet.bytes[at + width - 1 - i];
        uint8_t bits = (uint8_t)(mask >> (i < 8 ? 8 * i : 0));
        uint8_t value = (uint8_t)(i < 8 ? lo >> 8 * i : hi >> 8 * (i - 8));

        *byte = (uint8_t)((*byte & ~bits) | (value & bits));
    }
}

/* Another header behind the IP header, as far as that says. */
static void
change_protocol(struct rng *rng, struct law_packet *packet)
{
    static const uint8_t protocols[] = {0, 1, 6, 17, 43, 44, 50, 51, 58, 59, 60, 135};

    if (packet->len >= 20)
        packet->bytes[packet->bytes[0] >> 4 == 6 ? 6 : 9] = protocols[rng_below(rng, sizeof(protocols))];
}

static void
choose_packet(struct rng *rng, const struct wd_prog *prog, struct subject *ret)
{
    if (rng_below(rng, 8) == 0)
        ret->packet.len = law_small_packet(rng, ret->packet.bytes, 20 + rng_below(rng, 150));
    else
        law_vary(rng, corpus, &ret->packet);
    if (rng_below(rng, 8) == 0)
        change_protocol(rng, &ret->packet);
    for (int i = 0; i < 3 && prog->count && rng_below(rng, 2); i++)
        if (wd_packet_parse(ret->packet.bytes, ret->packet.len, &ret->parsed))
            fulfil(rng, &prog->tests[rng_below(rng, prog->count)], ret);
    if (ret->packet.len > LAW_LEN_MAX)
        ret->packet.len = LAW_LEN_MAX;
    ret->valid = wd_packet_parse(ret->packet.bytes, ret->packet.len, &ret->parsed);
}

static void
choose_packets(struct rng *rng, const struct wd_prog *prog)
{
    subject_count = 0;
    while (subject_count < PACKETS || (rng->tape_left && subject_count < PACKETS_MAX)) {
        choose_packet(rng, prog, &subjects[subject_count]);
        subject_count += subjects[subject_count].packet.len > 0;
    }
}

/* ---- Settings and knowledge --------------------------------------------- */

static struct law_setting
choose_setting(struct rng *rng, const struct plan *plan)
{
    struct law_setting setting = law_random_setting(rng, corpus, plan->hook);

    if (rng_below(rng, 2))
        setting.tag = (enum law_tag)rng_below(rng, LAW_TAGS);
    if (rng_below(rng, 8) == 0)
        setting.opts.priority = rng_below(rng, 2) ? 30000 : -30000;
    if (setting.tag == LAW_TAG_ABOVE && setting.opts.priority == 30000)
        setting.opts.priority = 29999;
    if (setting.tag == LAW_TAG_BELOW && setting.opts.priority == -30000)
        setting.opts.priority = -29999;
    setting.opts.big = rng_below(rng, 4) == 0;
    if (plan->sniff) {
        setting.opts.mode = WD_GEN_SNIFF;
        setting.opts.ring_fd = ring.fd;
        setting.opts.counters_fd = ring.counters_fd;
    }
    return setting;
}

static void
know(struct wd_known *known, enum wd_field field, uint64_t value)
{
    known->state[field] = WD_KNOWN;
    known->value[field] = value;
}

static struct wd_known
choose_knowledge(const struct plan *plan, const struct law_setting *setting)
{
    static const uint8_t late[] = {WD_F_TIMESTAMP, WD_F_RANDOM8, WD_F_RANDOM16, WD_F_RANDOM32};
    struct wd_known known = law_known(setting);

    if (!(plan->knowledge & KNOW_INTERFACE))
        known.state[WD_F_IFIDX] = WD_UNKNOWN;
    if (!(plan->knowledge & KNOW_DIRECTION))
        known.state[WD_F_INBOUND] = known.state[WD_F_OUTBOUND] = WD_UNKNOWN;
    if (plan->knowledge & KNOW_FAMILY) {
        know(&known, WD_F_IP, !(plan->knowledge & KNOW_IPV6));
        know(&known, WD_F_IPV6, (plan->knowledge & KNOW_IPV6) != 0);
    }
    for (size_t i = 0; i < sizeof(late) && (plan->knowledge & UNDECIDED_TIME); i++)
        known.state[late[i]] = WD_UNDECIDED;
    return known;
}

static bool
known_of_packet(const struct plan *plan, const struct subject *subject)
{
    int version = plan->knowledge & KNOW_IPV6 ? 6 : 4;

    return !(plan->knowledge & KNOW_FAMILY) || (subject->valid && subject->parsed.version == version);
}

/* ---- Comparing ---------------------------------------------------------- */

/* The record of the packet is in the ring, and no other. */
static void
check_record(const struct law_setting *setting, const struct subject *subject, bool expected, const char *text)
{
    const struct wd_record *record = law_ring_next(&ring);
    WINDIVERT_ADDRESS addr;

    if ((record != NULL) != expected)
        law_broken("hook %d, tag %d: evaluator %d, in the ring %d\n%s", (int)setting->opts.hook, (int)setting->tag,
                   expected, record != NULL, text);
    if (!record)
        return;
    records++;
    addr = law_address(setting, &subject->parsed);
    if (record->ktime_ns != setting->opts.fixed_time_ns || record->len != subject->packet.len ||
        record->cap_len != subject->packet.len || record->ifindex != addr.Network.IfIdx ||
        record->hook != setting->opts.hook || record->impostor != addr.Impostor ||
        record->loopback != addr.Loopback || !record->cookie)
        law_broken("record of %zu bytes: time %llu, %u of %u bytes, interface %u, hook %u, %u, %u, socket %llu\n%s",
                   subject->packet.len, (unsigned long long)record->ktime_ns, record->cap_len, record->len,
                   record->ifindex, record->hook, record->impostor, record->loopback,
                   (unsigned long long)record->cookie, text);
    if (memcmp(record + 1, subject->packet.bytes, subject->packet.len) != 0)
        law_broken("the packet in the ring is another\n%s", text);
    if (law_ring_next(&ring))
        law_broken("two records\n%s", text);
}

static void
compare_sniffed(const struct form *form, const struct law_setting *setting, const struct subject *subject,
                const char *text)
{
    WINDIVERT_ADDRESS addr = law_address(setting, &subject->parsed);
    bool expected = subject->valid && law_seen(setting) && wd_prog_eval(form->meant, &subject->parsed, &addr);
    bool value = law_run(form->fd, setting, subject->packet.bytes, subject->packet.len);

    if (value)
        law_broken("a sniffing program returns a match\n%s", text);
    check_record(setting, subject, expected, text);
    law_done.matches += expected;
}

static void
compare(const struct form *form, const struct plan *plan, const struct law_setting *setting, const char *text)
{
    for (size_t i = 0; i < subject_count; i++) {
        const struct subject *subject = &subjects[i];

        if (form->specialised && !known_of_packet(plan, subject))
            continue;
        if (plan->sniff)
            compare_sniffed(form, setting, subject, text);
        else
            law_compare(form->fd, setting, form->meant, text, subject->packet.bytes, subject->packet.len,
                        subject->valid ? &subject->parsed : NULL);
    }
}

static void
check_forms(struct form *forms, int count, const struct plan *plan, const struct law_setting *setting,
            const char *text)
{
    static char name[RANDOM_TEXT + 64];

    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%s: %s", forms[i].name, text);
        forms[i].fd = law_load(forms[i].prog, setting, name);
        compare(&forms[i], plan, setting, name);
        close(forms[i].fd);
    }
    law_done.filters++;
}

/* What holds without a kernel: all forms decide alike. */
static void
check_evaluators(const char *text, WINDIVERT_LAYER layer, const struct law_setting *setting, uint64_t choice)
{
    WINDIVERT_ADDRESS addresses[PACKETS_MAX];
    struct law_subject valid[PACKETS_MAX];
    struct law_counts counts = {0};
    const char *broken;
    size_t count = 0;

    for (size_t i = 0; i < subject_count; i++) {
        if (!subjects[i].valid)
            continue;
        addresses[count] = law_address(setting, &subjects[i].parsed);
        valid[count] = (struct law_subject){&subjects[i].parsed, &addresses[count]};
        count++;
    }
    broken = law_check(text, layer, valid, count, choice, &counts);
    if (broken)
        law_broken("%s\n%s", broken, text);
}

/* What is specialised with nothing undecided decides as the filter does; otherwise it holds where that holds. */
static void
check_specialised(const struct wd_prog *whole, const struct wd_prog *specialised, bool exact, const struct plan *plan,
                  const struct law_setting *setting, const char *text)
{
    for (size_t i = 0; i < subject_count; i++) {
        WINDIVERT_ADDRESS addr = law_address(setting, &subjects[i].parsed);
        bool outcome, may;

        if (!subjects[i].valid || !known_of_packet(plan, &subjects[i]))
            continue;
        outcome = wd_prog_eval(whole, &subjects[i].parsed, &addr);
        may = wd_prog_eval(specialised, &subjects[i].parsed, &addr);
        if (exact ? may != outcome : outcome && !may) {
            law_print_bytes(subjects[i].packet.bytes, subjects[i].packet.len);
            law_broken("specialised %d, unfolded %d\n%s", may, outcome, text);
        }
    }
}

static void
fuzz_text(struct rng *rng, const struct plan *plan, const char *text, struct rng *packets)
{
    WINDIVERT_LAYER layer = layer_of(plan->hook);
    struct wd_prog *unfolded, *specialised, *specialised_plain;
    struct law_setting setting;
    struct wd_filter_error error;
    struct wd_filter *filter;
    struct wd_known known;
    struct wd_arena arena;
    bool exact;

    wd_arena_init(&arena, NULL);
    if (wd_filter_compile(&arena, text, layer, &filter, &error) < 0) {
        refused++;
        goto out;
    }
    setting = choose_setting(packets, plan);
    known = choose_knowledge(plan, &setting);
    if (wd_filter_prog_unfolded(&arena, text, layer, &unfolded) < 0 ||
        wd_filter_specialise(&arena, filter, &known, &specialised, &exact) < 0 ||
        wd_filter_specialise_plain(&arena, filter, &known, &specialised_plain, &exact) < 0)
        law_broken("not unfolded or specialised\n%s", text);
    choose_packets(packets, unfolded);
    check_evaluators(text, layer, &setting, rng_next(rng));
    check_specialised(unfolded, specialised, exact, plan, &setting, text);
    check_forms((struct form[FORMS]){{"optimised", wd_filter_prog(filter), unfolded, false, -1},
                                     {"specialised", specialised, specialised_plain, true, -1},
                                     {"specialised, plain", specialised_plain, specialised_plain, true, -1},
                                     {"plain", wd_filter_prog_plain(filter), unfolded, false, -1},
                                     {"unfolded", unfolded, unfolded, false, -1}},
                plan->knowledge & ALL_FORMS ? FORMS : 2, plan, &setting, text);
out:
    wd_arena_free(&arena);
}

/* A program put together by hand: as it is, and optimised. */
static void
fuzz_program(struct rng *rng, const struct plan *plan, struct rng *packets)
{
    struct wd_test tests[LAW_PROGRAM_TESTS];
    struct wd_prog prog = {.tests = tests}, *optimised;
    struct law_setting setting;
    struct wd_arena arena;

    memset(tests, 0, sizeof(tests));
    if (plan->kind == ELEMENTS)
        law_random_elements(rng, corpus, &prog);
    else
        law_random_program(rng, corpus, layer_of(plan->hook), &prog);
    if (rng_below(rng, 16) == 0)
        prog.start = rng_below(rng, prog.count);
    setting = choose_setting(packets, plan);
    choose_packets(packets, &prog);
    wd_arena_init(&arena, NULL);
    if (wd_prog_optimise(&arena, &prog, &optimised) < 0)
        law_broken("not optimised");
    check_forms((struct form[]){{"by hand", &prog, &prog, false, -1}, {"optimised", optimised, &prog, false, -1}}, 2,
                plan, &setting, "a program without a text");
    wd_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct random_filter filter;
    struct rng choices = {.state = size}, packets = {.state = size + 1};
    struct plan plan;
    size_t len;

    if (!corpus)
        begin();
    if (size < 3)
        return 0;
    plan.kind = (enum kind)((data[0] & 7) < 3 ? TEXT : (data[0] & 7) < 6 ? CHAIN : (data[0] & 7) - 6 + PROGRAM);
    plan.hook = (enum wd_hook)((data[0] >> 3 & 7) % WD_HOOKS);
    plan.sniff = data[0] >> 6 == 3;
    plan.knowledge = data[1];
    len = 4u * data[2] < size - 3 ? 4u * data[2] : size - 3;
    choices.tape = data + 3;
    choices.tape_left = len;
    packets.tape = data + 3 + len;
    packets.tape_left = size - 3 - len;
    for (size_t i = 0; i < size; i++)
        choices.state = (choices.state ^ data[i]) * 0x100000001B3, packets.state += choices.state;

    filter.len = 0;
    if (plan.kind == TEXT)
        random_filter(&choices, layer_of(plan.hook), corpus, &filter);
    else if (plan.kind == CHAIN)
        put_chain(&choices, layer_of(plan.hook), &filter);
    if (plan.kind <= CHAIN)
        fuzz_text(&choices, &plan, filter.text, &packets);
    else
        fuzz_program(&choices, &plan, &packets);
    return 0;
}
