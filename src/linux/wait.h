/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Waiting until a moment, and the descriptor by which a program waits for packets itself. */
#ifndef WD_LINUX_WAIT_H
#define WD_LINUX_WAIT_H

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

int64_t wd_now(void); /* CLOCK_MONOTONIC in 100 ns: what Timestamp holds */

/* A deadline is in units of wd_now(); 0: for ever. */
bool wd_wait_passed(int64_t deadline);
void wd_wait_cond_init(pthread_cond_t *cond);
/* Until signalled, at the latest until the deadline. */
void wd_wait_cond(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline);
/* Until a descriptor has an event, at the latest until the deadline. */
void wd_wait_poll(struct pollfd *fds, nfds_t count, int64_t deadline);

/*
 * An epoll descriptor over those that the kernel makes readable, and an eventfd
 * that we keep readable while there is something to receive that they do not
 * show.  {-1, -1}: nobody has asked for one; all but open then do nothing.
 * One thread at a time.
 */
struct wd_pollable {
    int epoll_fd, event_fd;
    bool shown;
};
#define WD_POLLABLE_NONE ((struct wd_pollable){.epoll_fd = -1, .event_fd = -1})

int wd_pollable_open(struct wd_pollable *pollable, struct wd_error *err);
int wd_pollable_add(struct wd_pollable *pollable, int fd, struct wd_error *err);
void wd_pollable_remove(struct wd_pollable *pollable, int fd);
void wd_pollable_show(struct wd_pollable *pollable, bool readable);
void wd_pollable_close(struct wd_pollable *pollable); /* in a forked child, too */

#endif
