/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOG_SIZE (1 << 20)
#define ETHERNET_LEN 14
#define EXPERIMENTAL_TYPE 0x88B5 /* IEEE 802: for local experiments */
#define JCOND 0xE0               /* not in older headers, ... */
#define ATTACH_NETFILTER 45      /* ... enum bpf_attach_type: BPF_NETFILTER */
#define LOG_SHOWN 360            /* bytes of the end of the log that go into an error text */

static int
sys_bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
    long ret;

    do
        ret = syscall(SYS_bpf, cmd, attr, sizeof(*attr));
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : (int)ret;
}

static void
put_name(char *dest, const char *name)
{
    strncpy(dest, name, BPF_OBJ_NAME_LEN - 1);
}

static int
try_load(union bpf_attr *attr)
{
    int fd, tries = 5; /* the verifier answers EAGAIN when a signal is pending */

    do
        fd = sys_bpf(BPF_PROG_LOAD, attr);
    while (fd == -EAGAIN && --tries);
    return fd;
}

/* Loads once more, with the verifier's log, to say why. */
static int
explain(union bpf_attr *attr, int error, struct wd_error *err)
{
    char *log = calloc(1, LOG_SIZE);
    size_t len;
    int fd;

    if (!log)
        return wd_error_set(err, error, NULL, "load a filter program: %s", strerror(-error));
    attr->log_level = 1;
    attr->log_buf = (uintptr_t)log;
    attr->log_size = LOG_SIZE;
    fd = try_load(attr);
    if (fd >= 0)
        close(fd);
    len = strlen(log);
    wd_error_set(err, error, "please report this with the filter",
                 "the kernel's verifier refuses the program: %s: %s", strerror(-error),
                 log + (len > LOG_SHOWN ? len - LOG_SHOWN : 0));
    free(log);
    return error;
}

int
wd_bpf_load(enum bpf_prog_type type, const struct bpf_insn *insns, size_t count, const char *name, int *ret_fd,
            struct wd_error *err)
{
    union bpf_attr attr = {0};
    int fd;

    attr.prog_type = type;
    attr.insns = (uintptr_t)insns;
    attr.insn_cnt = (uint32_t)count;
    attr.license = (uintptr_t) "GPL";
    if (type == WD_BPF_PROG_TYPE_NETFILTER)
        attr.expected_attach_type = ATTACH_NETFILTER;
    put_name(attr.prog_name, name);
    fd = try_load(&attr);
    if (fd == -EPERM)
        return wd_error_set(err, fd, "run as root or with CAP_BPF and CAP_NET_ADMIN", "load a filter program: %s",
                            strerror(-fd));
    if (fd < 0)
        return explain(&attr, fd, err);
    *ret_fd = fd;
    return 0;
}

int
wd_bpf_map(enum bpf_map_type type, const char *name, uint32_t key_size, uint32_t value_size, uint32_t entries,
           uint32_t flags, int *ret_fd, struct wd_error *err)
{
    union bpf_attr attr = {0};
    int fd;

    attr.map_type = type;
    attr.key_size = key_size;
    attr.value_size = value_size;
    attr.max_entries = entries;
    attr.map_flags = flags;
    put_name(attr.map_name, name);
    fd = sys_bpf(BPF_MAP_CREATE, &attr);
    if (fd < 0)
        return wd_error_set(err, fd, fd == -EPERM ? "run as root or with CAP_BPF" : NULL, "create a BPF map: %s",
                            strerror(-fd));
    *ret_fd = fd;
    return 0;
}

int
wd_bpf_link_netfilter(int prog_fd, uint32_t pf, uint32_t hooknum, int32_t priority, int *ret_fd, struct wd_error *err)
{
    /* As union bpf_attr has it for links; older headers lack the last four. */
    struct {
        uint32_t prog_fd, target_fd, attach_type, flags;
        uint32_t pf, hooknum;
        int32_t priority;
        uint32_t hook_flags;
    } create = {(uint32_t)prog_fd, 0, ATTACH_NETFILTER, 0, pf, hooknum, priority, 0};
    union bpf_attr attr = {0};
    int fd;

    memcpy(&attr, &create, sizeof(create));
    fd = sys_bpf(BPF_LINK_CREATE, &attr);
    if (fd < 0)
        return wd_error_set(err, fd, fd == -EPERM ? "run as root or with CAP_NET_ADMIN and CAP_BPF" : NULL,
                            "attach a program to a netfilter hook: %s", strerror(-fd));
    *ret_fd = fd;
    return 0;
}

int
wd_bpf_set_prog(int map_fd, int prog_fd)
{
    union bpf_attr attr = {0};
    uint32_t key = 0, value = (uint32_t)prog_fd;
    int error;

    attr.map_fd = (uint32_t)map_fd;
    attr.key = (uintptr_t)&key;
    if (prog_fd >= 0) {
        attr.value = (uintptr_t)&value;
        return sys_bpf(BPF_MAP_UPDATE_ELEM, &attr);
    }
    error = sys_bpf(BPF_MAP_DELETE_ELEM, &attr);
    return error == -ENOENT ? 0 : error;
}

int
wd_bpf_map_set(int map_fd, const void *key, const void *value, uint64_t flags)
{
    union bpf_attr attr = {0};

    attr.map_fd = (uint32_t)map_fd;
    attr.key = (uintptr_t)key;
    attr.value = (uintptr_t)value;
    attr.flags = flags;
    return sys_bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static bool
try_loop(void)
{
    const struct bpf_insn insns[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0},
        {.code = BPF_JMP | JCOND, .off = 1}, /* may_goto: out */
        {.code = BPF_JMP | BPF_JA, .off = -2},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attr = {0};
    int fd;

    attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    attr.insns = (uintptr_t)insns;
    attr.insn_cnt = sizeof(insns) / sizeof(insns[0]);
    attr.license = (uintptr_t) "GPL";
    put_name(attr.prog_name, "wd_probe");
    fd = try_load(&attr);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

bool
wd_bpf_can_loop(void)
{
    static _Atomic int answer; /* 0: not asked yet; then 1: no, 2: yes.  Asking twice does no harm. */

    if (!answer)
        answer = try_loop() ? 2 : 1;
    return answer == 2;
}

int
wd_bpf_run_frame(int prog_fd, const void *frame, size_t len, const void *ctx, size_t ctx_len, uint32_t *ret_value,
                 struct wd_error *err)
{
    union bpf_attr attr = {0};
    int error;

    attr.test.prog_fd = (uint32_t)prog_fd;
    attr.test.data_in = (uintptr_t)frame;
    attr.test.data_size_in = (uint32_t)len;
    attr.test.ctx_in = (uintptr_t)ctx;
    attr.test.ctx_size_in = (uint32_t)ctx_len;
    attr.test.repeat = 1;
    error = sys_bpf(BPF_PROG_TEST_RUN, &attr);
    if (error < 0)
        return wd_error_set(err, error, NULL, "test run: %s", strerror(-error));
    *ret_value = attr.test.retval;
    return 0;
}

int
wd_bpf_test_run(int prog_fd, const void *data, size_t len, const void *ctx, size_t ctx_len, uint32_t *ret_value,
                struct wd_error *err)
{
    uint8_t *frame = calloc(1, ETHERNET_LEN + len);
    int error;

    if (!frame)
        return wd_error_set(err, -ENOMEM, NULL, "test run: %s", strerror(ENOMEM));
    frame[ETHERNET_LEN - 2] = EXPERIMENTAL_TYPE >> 8; /* not IP: the kernel is not to look into it */
    frame[ETHERNET_LEN - 1] = EXPERIMENTAL_TYPE & 0xFF;
    if (len)
        memcpy(frame + ETHERNET_LEN, data, len);
    error = wd_bpf_run_frame(prog_fd, frame, ETHERNET_LEN + len, ctx, ctx_len, ret_value, err);
    free(frame);
    return error;
}

int
wd_bpf_test_run_netfilter(int prog_fd, uint32_t pf, uint32_t hooknum, const void *data, size_t len,
                          uint32_t *ret_value, struct wd_error *err)
{
    /* The beginning of struct nf_hook_state; the rest is 0. */
    struct {
        uint8_t hook, pf;
        uint8_t rest[62];
    } state = {.hook = (uint8_t)hooknum, .pf = (uint8_t)pf};
    union bpf_attr attr = {0};
    int error;

    attr.test.prog_fd = (uint32_t)prog_fd;
    attr.test.data_in = (uintptr_t)data;
    attr.test.data_size_in = (uint32_t)len;
    attr.test.ctx_in = (uintptr_t)&state;
    attr.test.ctx_size_in = 2;
    attr.test.repeat = 1;
    error = sys_bpf(BPF_PROG_TEST_RUN, &attr);
    if (error < 0)
        return wd_error_set(err, error, NULL, "test run: %s", strerror(-error));
    *ret_value = attr.test.retval;
    return 0;
}
