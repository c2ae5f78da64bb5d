/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "wait.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define PER_SECOND 10000000

int64_t
wd_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * PER_SECOND + now.tv_nsec / 100;
}

bool
wd_wait_passed(int64_t deadline)
{
    return deadline && deadline <= wd_now();
}

static struct timespec
timespec_of(int64_t time)
{
    return (struct timespec){.tv_sec = time / PER_SECOND, .tv_nsec = time % PER_SECOND * 100};
}

void
wd_wait_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

void
wd_wait_cond(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline)
{
    const struct timespec end = timespec_of(deadline);

    if (deadline)
        pthread_cond_timedwait(cond, lock, &end);
    else
        pthread_cond_wait(cond, lock);
}

void
wd_wait_poll(struct pollfd *fds, nfds_t count, int64_t deadline)
{
    int64_t left = deadline - wd_now();
    const struct timespec time = timespec_of(left > 0 ? left : 0);

    ppoll(fds, count, deadline ? &time : NULL, NULL);
}

int
wd_pollable_add(struct wd_pollable *pollable, int fd, struct wd_error *err)
{
    struct epoll_event event = {.events = EPOLLIN};

    if (pollable->epoll_fd < 0 || epoll_ctl(pollable->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    return wd_error_set(err, -errno, "raise the limit fs.epoll.max_user_watches", "watch a descriptor: %s",
                        strerror(errno));
}

int
wd_pollable_open(struct wd_pollable *pollable, struct wd_error *err)
{
    int error = 0;

    pollable->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (pollable->epoll_fd >= 0)
        pollable->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pollable->event_fd < 0)
        error = wd_error_set(err, -errno, "raise the limit of open files (ulimit -n)",
                             "make a descriptor to wait for packets: %s", strerror(errno));
    else
        error = wd_pollable_add(pollable, pollable->event_fd, err);
    if (error)
        wd_pollable_close(pollable);
    return error;
}

void
wd_pollable_remove(struct wd_pollable *pollable, int fd)
{
    if (pollable->epoll_fd >= 0)
        epoll_ctl(pollable->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void
wd_pollable_show(struct wd_pollable *pollable, bool readable)
{
    uint64_t count = 1;

    if (pollable->event_fd < 0 || pollable->shown == readable)
        return;
    if (readable ? write(pollable->event_fd, &count, sizeof(count)) < 0
                 : read(pollable->event_fd, &count, sizeof(count)) < 0) {
        /* Cannot fail: it is written once, and read only after that. */
    }
    pollable->shown = readable;
}

void
wd_pollable_close(struct wd_pollable *pollable)
{
    if (pollable->epoll_fd >= 0)
        close(pollable->epoll_fd);
    if (pollable->event_fd >= 0)
        close(pollable->event_fd);
    *pollable = WD_POLLABLE_NONE;
}
