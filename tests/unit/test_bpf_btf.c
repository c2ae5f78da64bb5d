/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* BTF: a small one made here, damaged ones, and the running kernel's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/btf.h>

#include "bpf/btf.h"

#define ROOM 4096

/* ---- A small one -------------------------------------------------------- */

struct builder {
    uint8_t types[ROOM];
    char strings[ROOM];
    uint32_t types_len, strings_len, count;
};

static uint32_t
put_string(struct builder *b, const char *text)
{
    uint32_t at = b->strings_len;

    if (!text)
        return 0;
    memcpy(b->strings + at, text, strlen(text) + 1);
    b->strings_len += (uint32_t)strlen(text) + 1;
    return at;
}

static void
put_bytes(struct builder *b, const void *data, size_t len)
{
    memcpy(b->types + b->types_len, data, len);
    b->types_len += (uint32_t)len;
}

static uint32_t
put_type(struct builder *b, const char *name, uint32_t kind, uint32_t vlen, uint32_t size_or_type)
{
    struct btf_type type = {put_string(b, name), kind << 24 | vlen, {size_or_type}};

    put_bytes(b, &type, sizeof(type));
    return ++b->count;
}

static void
put_member(struct builder *b, const char *name, uint32_t type, uint32_t bits)
{
    struct btf_member member = {put_string(b, name), type, bits};

    put_bytes(b, &member, sizeof(member));
}

static uint32_t
put_int(struct builder *b, const char *name)
{
    uint32_t bits = 32, id = put_type(b, name, BTF_KIND_INT, 0, 4);

    put_bytes(b, &bits, sizeof(bits));
    return id;
}

/* Like the kernel's: members in structures and unions without names, typedefs and qualifiers between. */
static size_t
build(uint8_t *out, bool with_function)
{
    static struct builder b;
    struct btf_header header = {.magic = 0xEB9F, .version = 1, .hdr_len = sizeof(header)};
    uint32_t u32, headers, box, alias, common, atomic;

    b = (struct builder){.strings_len = 1};
    u32 = put_int(&b, "u32");
    headers = put_type(&b, NULL, BTF_KIND_STRUCT, 3, 16);
    put_member(&b, "priority", u32, 32);
    put_member(&b, "hash", u32, 64);
    put_member(&b, "tc_index", u32, 96);
    box = put_type(&b, NULL, BTF_KIND_UNION, 2, 16);
    put_member(&b, NULL, headers, 0);
    put_member(&b, "headers", headers, 0);
    alias = put_type(&b, "box_t", BTF_KIND_TYPEDEF, 0, box);
    alias = put_type(&b, NULL, BTF_KIND_CONST, 0, alias);
    put_type(&b, "sk_buff", BTF_KIND_STRUCT, 4, 200);
    put_member(&b, "sk", u32, 24 * 8);
    put_member(&b, "_skb_refdst", u32, 88 * 8);
    put_member(&b, "len", u32, 112 * 8);
    put_member(&b, NULL, alias, 128 * 8);
    atomic = put_type(&b, NULL, BTF_KIND_STRUCT, 1, 8);
    put_member(&b, "counter", u32, 0);
    common = put_type(&b, "sock_common", BTF_KIND_STRUCT, 2, 136);
    put_member(&b, "skc_hash", u32, 0);
    put_member(&b, "skc_cookie", atomic, 96 * 8);
    put_type(&b, "sock", BTF_KIND_STRUCT, 1, 700);
    put_member(&b, "__sk_common", common, 8 * 8);
    put_type(&b, "net_device", BTF_KIND_STRUCT | 0x80, 2, 2000); /* kind flag: sizes of bit fields in the offsets */
    put_member(&b, "ifindex", u32, 216 * 8);
    put_member(&b, "type", u32, 0x10000000 | 592 * 8);
    put_type(&b, "nf_hook_state", BTF_KIND_STRUCT, 2, 64);
    put_member(&b, "in", u32, 8 * 8);
    put_member(&b, "out", u32, 16 * 8);
    put_type(&b, "dst_entry", BTF_KIND_STRUCT, 1, 128);
    put_member(&b, "dev", u32, 16 * 8);
    put_type(&b, "bpf_dynptr_from_skb", BTF_KIND_FUNC, 0, u32);
    if (with_function)
        put_type(&b, "bpf_rdonly_cast", BTF_KIND_FUNC, 0, u32);
    header.type_len = header.str_off = b.types_len;
    header.str_len = b.strings_len;
    memcpy(out, &header, sizeof(header));
    memcpy(out + sizeof(header), b.types, b.types_len);
    memcpy(out + sizeof(header) + b.types_len, b.strings, b.strings_len);
    return sizeof(header) + b.types_len + b.strings_len;
}

static void
test_small(void **state)
{
    const struct wd_kernel expected = {
        .skb_len = 112,
        .skb_priority = 132,
        .skb_hash = 136,
        .skb_tc_index = 140,
        .skb_sk = 24,
        .skb_dst = 88,
        .dst_dev = 16,
        .sk_cookie = 104,
        .dev_ifindex = 216,
        .dev_type = 592,
        .state_in = 8,
        .state_out = 16,
        .skb_type = 6,
        .state_type = 11,
        .dst_type = 12,
        .dev_type_id = 10,
        .dynptr_from_skb = 13,
        .rdonly_cast = 14,
    };
    uint8_t btf[3 * ROOM];
    struct wd_kernel kernel;
    size_t size = build(btf, true);

    (void)state;
    assert_int_equal(wd_kernel_parse(btf, size, &kernel), 0);
    assert_memory_equal(&kernel, &expected, sizeof(kernel));
    size = build(btf, false);
    assert_int_equal(wd_kernel_parse(btf, size, &kernel), -ENOENT);
}

/* Cut off anywhere, and with any byte changed, it is refused or read; never beyond its end. */
static void
test_damaged(void **state)
{
    uint8_t btf[3 * ROOM];
    size_t size = build(btf, true);
    struct wd_kernel kernel;

    (void)state;
    for (size_t len = 0; len < size; len++) {
        uint8_t *copy = malloc(len ? len : 1);

        assert_non_null(copy);
        memcpy(copy, btf, len);
        assert_true(wd_kernel_parse(copy, len, &kernel) < 0);
        free(copy);
    }
    for (size_t at = 0; at < size; at++)
        for (unsigned int value = 0; value < 256; value += 15) {
            uint8_t *copy = malloc(size);

            assert_non_null(copy);
            memcpy(copy, btf, size);
            copy[at] = (uint8_t)value;
            wd_kernel_parse(copy, size, &kernel);
            free(copy);
        }
}

/* ---- The running kernel's ------------------------------------------------ */

static void
test_running(void **state)
{
    const struct wd_kernel *kernel = wd_kernel();
    FILE *f = fopen("/sys/kernel/btf/vmlinux", "r");

    (void)state;
    if (!f) {
        print_message("this kernel has no BTF\n");
        assert_null(kernel);
        skip();
    }
    fclose(f);
    if (!kernel)
        skip(); /* before Linux 6.4 */
    assert_ptr_equal(kernel, wd_kernel());
    assert_true(kernel->skb_len && kernel->skb_priority && kernel->skb_hash && kernel->skb_tc_index);
    assert_true(kernel->skb_sk && kernel->sk_cookie && kernel->dev_ifindex && kernel->dev_type);
    assert_int_equal(kernel->state_out - kernel->state_in, 8);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_running),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
