/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "linux/queue.h"

int
wd_registry_open(bool create)
{
    struct stat st;
    int fd;

    if (create && mkdir(WD_REGISTRY_DIR, 0755) < 0 && errno != EEXIST)
        return -errno;
    fd = open(WD_REGISTRY_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0 || st.st_uid != 0 || (st.st_mode & 022)) {
        close(fd);
        return -EPERM;
    }
    return fd;
}

/* Lines "key value"; the filter object comes last. */
static int
write_entry(int fd, const struct wd_open *open, int64_t time)
{
    int len =
        dprintf(fd, "windivert 1\npid %d\nlayer %d\npriority %d\nflags %" PRIu64 "\ntime %" PRId64 "\nfilter %s\n",
                getpid(), (int)open->layer, open->priority, (uint64_t)open->flags, time, open->object);

    return len < 0 ? -errno : 0;
}

/* A locked file by the entry's name, whatever was there; its descriptor, or -errno. */
static int
place_entry(int dir, const struct wd_open *open, const struct wd_entry *entry)
{
    char temporary[sizeof(entry->name) + 8];
    int fd, error;

    snprintf(temporary, sizeof(temporary), ".%s", entry->name);
    fd = openat(dir, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    error = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : write_entry(fd, open, entry->time);
    if (!error && renameat(dir, temporary, dir, entry->name) < 0)
        error = -errno;
    if (error) {
        unlinkat(dir, temporary, 0);
        close(fd);
        return error;
    }
    return fd;
}

void
wd_registry_add(const struct wd_open *open, struct wd_entry *ret_entry)
{
    static atomic_uint count;
    int dir = wd_registry_open(true), fd = -1;
    uint32_t salt;

    ret_entry->fd = -1;
    if (dir < 0)
        return;
    /* The pid alone may be that of a process in another pid namespace, too. */
    if (getrandom(&salt, sizeof(salt), 0) == sizeof(salt)) {
        snprintf(ret_entry->name, sizeof(ret_entry->name), "%d-%u-%08" PRIx32, getpid(), atomic_fetch_add(&count, 1),
                 salt);
        ret_entry->time = wd_now();
        fd = place_entry(dir, open, ret_entry);
    }
    if (fd >= 0)
        ret_entry->fd = fd;
    close(dir);
}

void
wd_registry_update(const struct wd_open *open, struct wd_entry *entry)
{
    int dir, fd;

    if (entry->fd < 0)
        return;
    dir = wd_registry_open(false);
    if (dir < 0)
        return;
    fd = place_entry(dir, open, entry);
    close(dir);
    if (fd < 0)
        return;
    close(entry->fd);
    entry->fd = fd;
}

void
wd_registry_remove(struct wd_entry *entry)
{
    int dir;

    if (entry->fd < 0)
        return;
    dir = wd_registry_open(false);
    if (dir >= 0) {
        unlinkat(dir, entry->name, 0);
        close(dir);
    }
    close(entry->fd);
    entry->fd = -1;
}

/* Is the file's owner alive?  If not it is removed. */
static bool
entry_alive(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    bool alive;

    if (fd < 0)
        return false;
    alive = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    if (!alive)
        unlinkat(dir, name, 0);
    close(fd);
    return alive;
}

bool
wd_registry_any(void)
{
    int fd = wd_registry_open(false);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    bool any = false;

    if (!dir) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.' && entry_alive(fd, entry->d_name))
            any = true;
    closedir(dir);
    return any;
}
