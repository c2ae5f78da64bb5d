/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include <stddef.h>

#include "btf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btf.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define VMLINUX "/sys/kernel/btf/vmlinux"
#define NESTING_MAX 8 /* structures in structures */
#define CHAIN_MAX 16  /* typedefs of typedefs */
#define MAGIC 0xEB9F

struct btf {
    const uint8_t *types; /* one behind the other */
    uint32_t types_len;
    const char *strings;
    uint32_t strings_len;
    uint32_t *offset; /* of each type, by its number; 0 is void */
    uint32_t count;
};

/* ---- Types -------------------------------------------------------------- */

static const struct btf_type *
type_at(const struct btf *btf, uint32_t id)
{
    return id && id < btf->count ? (const void *)(btf->types + btf->offset[id]) : NULL;
}

static const char *
name_of(const struct btf *btf, uint32_t off)
{
    return off < btf->strings_len ? btf->strings + off : "";
}

/* Bytes that follow a struct btf_type; SIZE_MAX: a kind that is not known. */
static size_t
more_of(const struct btf_type *type)
{
    size_t count = BTF_INFO_VLEN(type->info);

    switch (BTF_INFO_KIND(type->info)) {
    case BTF_KIND_PTR:
    case BTF_KIND_FWD:
    case BTF_KIND_TYPEDEF:
    case BTF_KIND_VOLATILE:
    case BTF_KIND_CONST:
    case BTF_KIND_RESTRICT:
    case BTF_KIND_FUNC:
    case BTF_KIND_FLOAT:
    case BTF_KIND_TYPE_TAG:
        return 0;
    case BTF_KIND_INT:
        return sizeof(uint32_t);
    case BTF_KIND_ARRAY:
        return sizeof(struct btf_array);
    case BTF_KIND_STRUCT:
    case BTF_KIND_UNION:
        return count * sizeof(struct btf_member);
    case BTF_KIND_ENUM:
        return count * sizeof(struct btf_enum);
    case BTF_KIND_FUNC_PROTO:
        return count * sizeof(struct btf_param);
    case BTF_KIND_VAR:
        return sizeof(struct btf_var);
    case BTF_KIND_DATASEC:
        return count * sizeof(struct btf_var_secinfo);
    case BTF_KIND_DECL_TAG:
        return sizeof(struct btf_decl_tag);
    case BTF_KIND_ENUM64:
        return count * sizeof(struct btf_enum64);
    default:
        return SIZE_MAX;
    }
}

static int
index_types(struct btf *btf)
{
    uint32_t at = 0, room = 0;

    btf->count = 1;
    while (at < btf->types_len) {
        const struct btf_type *type = (const void *)(btf->types + at);
        uint32_t left = btf->types_len - at;
        size_t more;

        if (btf->count >= room) {
            uint32_t *offset = realloc(btf->offset, (room = room ? 2 * room : 65536) * sizeof(*offset));

            if (!offset)
                return -ENOMEM;
            btf->offset = offset;
        }
        if (left < sizeof(*type) || (more = more_of(type)) > left - sizeof(*type))
            return -EINVAL;
        btf->offset[btf->count++] = at;
        at += (uint32_t)(sizeof(*type) + more);
    }
    return 0;
}

/* What is behind typedefs and qualifiers, if it has members. */
static const struct btf_type *
struct_of(const struct btf *btf, uint32_t id)
{
    const struct btf_type *type = type_at(btf, id);

    for (int i = 0; type && i < CHAIN_MAX; i++) {
        switch (BTF_INFO_KIND(type->info)) {
        case BTF_KIND_STRUCT:
        case BTF_KIND_UNION:
            return type;
        case BTF_KIND_TYPEDEF:
        case BTF_KIND_CONST:
        case BTF_KIND_VOLATILE:
        case BTF_KIND_TYPE_TAG:
            type = type_at(btf, type->type);
            break;
        default:
            return NULL;
        }
    }
    return NULL;
}

/* Offset in bits of a member, those of members without names included; false: none of that name. */
static bool
find_member(const struct btf *btf, const struct btf_type *type, const char *name, int depth, uint32_t *ret_bits,
            uint32_t *ret_type)
{
    const struct btf_member *member = (const void *)(type + 1);
    bool bitfields = BTF_INFO_KFLAG(type->info);

    for (uint32_t i = 0; i < BTF_INFO_VLEN(type->info); i++, member++) {
        uint32_t bits = bitfields ? BTF_MEMBER_BIT_OFFSET(member->offset) : member->offset, inner;
        const struct btf_type *nested;

        if (member->name_off) {
            if (strcmp(name_of(btf, member->name_off), name) != 0)
                continue;
            *ret_bits = bits;
            *ret_type = member->type;
            return true;
        }
        nested = depth ? struct_of(btf, member->type) : NULL;
        if (nested && find_member(btf, nested, name, depth - 1, &inner, ret_type)) {
            *ret_bits = bits + inner;
            return true;
        }
    }
    return false;
}

/* ---- What we ask for ----------------------------------------------------- */

struct question {
    const char *type;
    const char *path[3]; /* member of a member ..., NULL where it ends */
    size_t answer;       /* in struct wd_kernel */
};

#define ANSWER(member) offsetof(struct wd_kernel, member)

static const struct question questions[] = {
    {"sk_buff", {"len"}, ANSWER(skb_len)},
    {"sk_buff", {"priority"}, ANSWER(skb_priority)},
    {"sk_buff", {"hash"}, ANSWER(skb_hash)},
    {"sk_buff", {"tc_index"}, ANSWER(skb_tc_index)},
    {"sk_buff", {"sk"}, ANSWER(skb_sk)},
    {"sk_buff", {"_skb_refdst"}, ANSWER(skb_dst)},
    {"dst_entry", {"dev"}, ANSWER(dst_dev)},
    {"sock", {"__sk_common", "skc_cookie"}, ANSWER(sk_cookie)},
    {"net_device", {"ifindex"}, ANSWER(dev_ifindex)},
    {"net_device", {"type"}, ANSWER(dev_type)},
    {"nf_hook_state", {"in"}, ANSWER(state_in)},
    {"nf_hook_state", {"out"}, ANSWER(state_out)},
};

#define QUESTIONS (sizeof(questions) / sizeof(questions[0]))

static bool
answer(const struct btf *btf, const struct question *question, const struct btf_type *type, uint16_t *ret_offset)
{
    uint32_t bits = 0, step, next = 0;

    for (int i = 0; i < 3 && question->path[i]; i++) {
        if (i)
            type = struct_of(btf, next);
        if (!type || !find_member(btf, type, question->path[i], NESTING_MAX, &step, &next))
            return false;
        bits += step;
    }
    if (bits % 8 || bits / 8 > INT16_MAX)
        return false;
    *ret_offset = (uint16_t)(bits / 8);
    return true;
}

struct named {
    uint32_t kind;
    const char *name;
    size_t answer; /* the id, in struct wd_kernel */
};

static const struct named ids[] = {
    {BTF_KIND_STRUCT, "sk_buff", ANSWER(skb_type)},
    {BTF_KIND_STRUCT, "nf_hook_state", ANSWER(state_type)},
    {BTF_KIND_STRUCT, "dst_entry", ANSWER(dst_type)},
    {BTF_KIND_STRUCT, "net_device", ANSWER(dev_type_id)},
    {BTF_KIND_FUNC, "bpf_dynptr_from_skb", ANSWER(dynptr_from_skb)},
    {BTF_KIND_FUNC, "bpf_rdonly_cast", ANSWER(rdonly_cast)},
};

#define IDS (sizeof(ids) / sizeof(ids[0]))

static void *
place_of(struct wd_kernel *kernel, size_t answer)
{
    return (char *)kernel + answer;
}

/* All answers that the type of this number gives; the number of them. */
static unsigned int
ask_type(const struct btf *btf, uint32_t id, struct wd_kernel *kernel)
{
    const struct btf_type *type = type_at(btf, id);
    const char *name = name_of(btf, type->name_off);
    uint32_t kind = BTF_INFO_KIND(type->info);
    unsigned int answered = 0;

    if (kind != BTF_KIND_STRUCT && kind != BTF_KIND_FUNC)
        return 0;
    for (size_t i = 0; i < IDS; i++)
        if (kind == ids[i].kind && strcmp(name, ids[i].name) == 0) {
            *(uint32_t *)place_of(kernel, ids[i].answer) = id;
            answered++;
        }
    for (size_t i = 0; i < QUESTIONS && kind == BTF_KIND_STRUCT; i++)
        if (strcmp(name, questions[i].type) == 0)
            answered += answer(btf, &questions[i], type, place_of(kernel, questions[i].answer));
    return answered;
}

static int
ask(const struct btf *btf, struct wd_kernel *ret_kernel)
{
    const unsigned int all = QUESTIONS + IDS;
    unsigned int answered = 0;

    for (uint32_t id = 1; id < btf->count && answered < all; id++)
        answered += ask_type(btf, id, ret_kernel);
    return answered == all ? 0 : -ENOENT;
}

int
wd_kernel_parse(const void *data, size_t size, struct wd_kernel *ret_kernel)
{
    const struct btf_header *header = data;
    const uint8_t *body;
    struct wd_kernel kernel = {0};
    struct btf btf = {0};
    int error;

    if (size < sizeof(*header) || header->magic != MAGIC || header->hdr_len < sizeof(*header) ||
        header->hdr_len > size)
        return -EINVAL;
    body = (const uint8_t *)data + header->hdr_len;
    size -= header->hdr_len;
    if (header->type_off > size || header->type_len > size - header->type_off || header->str_off > size ||
        header->str_len > size - header->str_off || header->str_len == 0 || header->type_off % 4 ||
        header->hdr_len % 4 || body[header->str_off + header->str_len - 1])
        return -EINVAL;
    btf.types = body + header->type_off;
    btf.types_len = header->type_len;
    btf.strings = (const char *)body + header->str_off;
    btf.strings_len = header->str_len;
    error = index_types(&btf);
    if (!error)
        error = ask(&btf, &kernel);
    free(btf.offset);
    if (!error)
        *ret_kernel = kernel;
    return error;
}

/* ---- The running kernel's ------------------------------------------------ */

/* Mapped where the kernel lets us (Linux 6.16), else read. */
static int
with_file(int fd, size_t size, struct wd_kernel *ret_kernel)
{
    void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0), *copy;
    size_t have = 0;
    ssize_t got = 1;
    int error;

    if (map != MAP_FAILED) {
        error = wd_kernel_parse(map, size, ret_kernel);
        munmap(map, size);
        return error;
    }
    copy = malloc(size);
    while (copy && have < size && got > 0) {
        got = read(fd, (char *)copy + have, size - have);
        have += got > 0 ? (size_t)got : 0;
    }
    error = copy ? wd_kernel_parse(copy, have, ret_kernel) : -ENOMEM;
    free(copy);
    return error;
}

static struct wd_kernel running;
static bool is_known;

static void
read_running(void)
{
    int fd = open(VMLINUX, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return;
    is_known = fstat(fd, &st) == 0 && st.st_size > 0 && with_file(fd, (size_t)st.st_size, &running) == 0;
    close(fd);
}

const struct wd_kernel *
wd_kernel(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, read_running);
    return is_known ? &running : NULL;
}
