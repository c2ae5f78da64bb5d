/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "links.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/asm.h"
#include "bpf/load.h"
#include "linux/ruleset.h"

#define FAMILIES 2

struct wd_link {
    struct wd_link *next;
    enum wd_hook hook;
    int16_t priority;
    bool used;
    int map_fd, fd[FAMILIES];
    int prog_fd, former_fd; /* what is in the map, and what was before; -1: nothing */
};

static const uint32_t families[FAMILIES] = {NFPROTO_IPV4, NFPROTO_IPV6};

/* "jump to the program in the array; if there is none, accept" */
static int
load_root(int map_fd, int *ret_fd, struct wd_error *err)
{
    struct bpf_insn *insns;
    struct wd_asm a;
    size_t count;
    int error;

    wd_asm_init(&a);
    wd_asm_load_map(&a, 2, map_fd);
    wd_asm_mov_imm(&a, 3, 0);
    wd_asm_call(&a, BPF_FUNC_tail_call);
    wd_asm_mov_imm(&a, 0, NF_ACCEPT);
    wd_asm_exit(&a);
    error = wd_asm_finish(&a, &insns, &count);
    wd_asm_free(&a);
    if (error)
        return wd_error_set(err, error, NULL, "attach a program: %s", strerror(-error));
    error = wd_bpf_load(WD_BPF_PROG_TYPE_NETFILTER, insns, count, "wd_hook", ret_fd, err);
    free(insns);
    return error;
}

static void
close_programs(struct wd_link *link)
{
    if (link->prog_fd >= 0)
        close(link->prog_fd);
    if (link->former_fd >= 0)
        close(link->former_fd);
    link->prog_fd = link->former_fd = -1;
}

static void
close_all(struct wd_link *link)
{
    for (int i = 0; i < FAMILIES; i++) {
        if (link->fd[i] >= 0)
            close(link->fd[i]);
        link->fd[i] = -1;
    }
    if (link->map_fd >= 0)
        close(link->map_fd);
    link->map_fd = -1;
    close_programs(link);
}

static int
link_new(enum wd_hook hook, int16_t priority, struct wd_link **ret_link, struct wd_error *err)
{
    struct wd_link *link = calloc(1, sizeof(*link));
    int root = -1, error;

    if (!link)
        return wd_error_set(err, -ENOMEM, NULL, "attach a program: out of memory");
    *link = (struct wd_link){
        .hook = hook, .priority = priority, .map_fd = -1, .fd = {-1, -1}, .prog_fd = -1, .former_fd = -1};
    error = wd_bpf_map(BPF_MAP_TYPE_PROG_ARRAY, "wd_programs", sizeof(uint32_t), sizeof(uint32_t), 1, 0,
                       &link->map_fd, err);
    if (!error)
        error = load_root(link->map_fd, &root, err);
    for (int i = 0; i < FAMILIES && !error; i++)
        error = wd_bpf_link_netfilter(root, families[i], wd_hook_num(hook), wd_hook_priority(priority), &link->fd[i],
                                      err);
    if (root >= 0)
        close(root);
    if (error) {
        close_all(link);
        free(link);
        return error;
    }
    *ret_link = link;
    return 0;
}

int
wd_link_get(struct wd_link **links, enum wd_hook hook, int16_t priority, int prog_fd, _Atomic uint32_t *shifts,
            struct wd_link **ret_link, struct wd_error *err)
{
    struct wd_link *link = *links;
    int error;

    while (link && (link->used || link->hook != hook || link->priority != priority))
        link = link->next;
    if (!link) {
        ++*shifts;
        error = link_new(hook, priority, &link, err);
        ++*shifts;
        if (error)
            return error;
        link->next = *links;
        *links = link;
    }
    error = wd_link_replace(link, prog_fd, err);
    if (error)
        return error;
    link->used = true;
    *ret_link = link;
    return 0;
}

int
wd_link_replace(struct wd_link *link, int prog_fd, struct wd_error *err)
{
    int copy = fcntl(prog_fd, F_DUPFD_CLOEXEC, 3), error = copy < 0 ? -errno : 0;

    if (!error)
        error = wd_bpf_set_prog(link->map_fd, prog_fd);
    if (error) {
        if (copy >= 0)
            close(copy);
        return wd_error_set(err, error, NULL, "attach a program: %s", strerror(-error));
    }
    if (link->former_fd >= 0)
        close(link->former_fd);
    link->former_fd = link->prog_fd;
    link->prog_fd = copy;
    return 0;
}

void
wd_link_undo(struct wd_link *link)
{
    int keep = link->prog_fd;

    if (wd_bpf_set_prog(link->map_fd, link->former_fd) < 0)
        return;
    link->prog_fd = link->former_fd;
    link->former_fd = keep;
}

void
wd_link_put(struct wd_link *link)
{
    if (wd_bpf_set_prog(link->map_fd, -1) == 0) {
        close_programs(link);
        link->used = false;
    } else {
        close_all(link); /* cannot be emptied, so it goes, whatever that does to queues */
    }
}

void
wd_links_free(struct wd_link **links)
{
    while (*links) {
        struct wd_link *next = (*links)->next;

        close_all(*links);
        free(*links);
        *links = next;
    }
}

void
wd_links_close_fds(struct wd_link *links)
{
    for (; links; links = links->next)
        close_all(links);
}
