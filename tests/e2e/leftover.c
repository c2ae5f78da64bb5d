/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What a test may not leave behind: rules, queues, bpf programs, registered handles. */
#include "e2e.h"

#include <dirent.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAMS_MAX 4096

static uint32_t known[PROGRAMS_MAX];
static unsigned known_count;
static char found[480];

static long
bpf(int cmd, union bpf_attr *attr)
{
    return syscall(__NR_bpf, cmd, attr, sizeof(*attr));
}

static bool
next_program(uint32_t *id)
{
    union bpf_attr attr = {.start_id = *id};

    if (bpf(BPF_PROG_GET_NEXT_ID, &attr) < 0)
        return false;
    *id = attr.next_id;
    return true;
}

static bool
program_name(uint32_t id, char ret_name[BPF_OBJ_NAME_LEN])
{
    union bpf_attr attr = {.prog_id = id};
    struct bpf_prog_info info = {0};
    int fd = (int)bpf(BPF_PROG_GET_FD_BY_ID, &attr);
    long err;

    if (fd < 0)
        return false;
    attr = (union bpf_attr){.info = {(uint32_t)fd, sizeof(info), (uintptr_t)&info}};
    err = bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
    close(fd);
    if (err < 0)
        return false;
    memcpy(ret_name, info.name, BPF_OBJ_NAME_LEN);
    return true;
}

static bool
is_known(uint32_t id)
{
    for (unsigned i = 0; i < known_count; i++) {
        if (known[i] == id)
            return true;
    }
    return false;
}

void
e2e_leftover_mark(void)
{
    uint32_t id = 0;

    known_count = 0;
    while (known_count < PROGRAMS_MAX && next_program(&id))
        known[known_count++] = id;
}

/* Reads one /proc/PID/fdinfo/N: is it this program, or a link of it? */
static bool
fdinfo_names(const char *path, uint32_t id)
{
    char line[128];
    unsigned seen = 0;
    FILE *f = fopen(path, "r");

    while (f && seen != id && fgets(line, sizeof(line), f))
        sscanf(line, "prog_id: %u", &seen);
    if (f)
        fclose(f);
    return seen == id;
}

static bool
process_holds(const char *pid, uint32_t id)
{
    char dir[300], path[600];
    bool holds = false;
    struct dirent *e;
    DIR *d;

    snprintf(dir, sizeof(dir), "/proc/%s/fdinfo", pid);
    d = opendir(dir);
    while (d && !holds && (e = readdir(d))) {
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        holds = e->d_name[0] != '.' && fdinfo_names(path, id);
    }
    if (d)
        closedir(d);
    return holds;
}

/* The processes of a test are all gone: a program that anybody holds is somebody else's. */
static bool
held_by_others(uint32_t id)
{
    bool held = false;
    struct dirent *e;
    DIR *d = opendir("/proc");

    while (d && !held && (e = readdir(d)))
        held = e->d_name[0] >= '0' && e->d_name[0] <= '9' && process_holds(e->d_name, id);
    if (d)
        closedir(d);
    return held;
}

static const char *
find_program(void)
{
    char name[BPF_OBJ_NAME_LEN];
    uint32_t id = 0;

    for (unsigned n = 0; n < PROGRAMS_MAX && next_program(&id); n++) {
        if (is_known(id) || !program_name(id, name) || strncmp(name, "wd", 2) != 0 || held_by_others(id))
            continue;
        snprintf(found, sizeof(found), "bpf program %u (%.15s) is left", id, name);
        return found;
    }
    return NULL;
}

/* First line of a command's output in a namespace, NULL where it prints nothing. */
static const char *
first_line(const char *ns, const char *command, const char *what)
{
    char line[160] = "", full[200];
    FILE *f;

    snprintf(full, sizeof(full), "ip netns exec %s %s", ns, command);
    f = popen(full, "r");
    if (!f || !fgets(line, sizeof(line), f))
        line[0] = 0;
    if (f)
        pclose(f);
    if (!line[0])
        return NULL;
    line[strcspn(line, "\n")] = 0;
    snprintf(found, sizeof(found), "%s is left in namespace %s: %s", what, ns, line);
    return found;
}

/* Handles are files in subdirectories or in the directory itself; hidden names are the library's own state. */
static const char *
find_registered(const char *path, unsigned depth)
{
    DIR *d = opendir(path);
    const char *what = NULL;
    struct dirent *e;
    char sub[300];

    while (d && !what && (e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
        if (e->d_type == DT_DIR && depth) {
            what = find_registered(sub, depth - 1);
            continue;
        }
        snprintf(found, sizeof(found), "%s is left", sub);
        what = found;
    }
    if (d)
        closedir(d);
    return what;
}

/*
 * A file of a killed process cannot go by itself: the next program that asks
 * for handles removes it, and is told that there are none.
 */
static void
look_for_handles(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        HANDLE h = WinDivertOpen("false", WINDIVERT_LAYER_NETWORK, 0, WINDIVERT_FLAG_NO_INSTALL);

        _exit(h == INVALID_HANDLE_VALUE && GetLastError() == ERROR_SERVICE_DOES_NOT_EXIST ? 0 : 1);
    }
    waitpid(pid, NULL, 0);
}

const char *
e2e_leftover_find(void)
{
    const char *what = NULL;

    for (const char *const *ns = (const char *const[]){"a", "b", NULL}; *ns && !what; ns++) {
        what = first_line(*ns, "cat /proc/net/netfilter/nfnetlink_queue", "a queue");
        if (!what)
            what = first_line(*ns, "nft list ruleset", "a ruleset");
    }
    if (!what && e2e_report->killed)
        look_for_handles();
    if (!what)
        what = find_registered("/run/windivert", 2);
    return what ? what : find_program();
}

unsigned
e2e_queue_count(const char *ns)
{
    char *out = e2e_shell(ns, "cat /proc/net/netfilter/nfnetlink_queue");
    unsigned n = 0;

    for (char *at = out; *at; at++)
        n += *at == '\n';
    free(out);
    return n;
}

unsigned
e2e_table_count(const char *ns)
{
    char *out = e2e_shell(ns, "nft list tables");
    unsigned n = 0;

    for (char *at = out; *at; at++)
        n += *at == '\n';
    free(out);
    return n;
}
