/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "pending.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "event.h"

#define ADDRESS_SIZE ((UINT)sizeof(WINDIVERT_ADDRESS))
#define AT_ONCE 1 /* a deadline that has passed */

struct request {
    struct request *next;
    struct wd_recv io;
    UINT *addr_len;
    OVERLAPPED *overlapped; /* NULL: a thread waits, on whose stack this is */
    bool done;
    int error;
    struct wd_error err;
};

struct wd_pending {
    pthread_mutex_t lock;
    pthread_cond_t served; /* a request of a thread that waits */
    struct request *first, **last;
    struct wd_handle *engine;
    int engine_fd, wake_fd;
    bool watching; /* the thread waits for the engine, too */
    bool ending;
    pthread_t thread;
};

/* ---- the line ------------------------------------------------------------ */

static void
append(struct wd_pending *pending, struct request *request)
{
    request->next = NULL;
    *pending->last = request;
    pending->last = &request->next;
}

static void
unlink_at(struct wd_pending *pending, struct request **link)
{
    struct request *request = *link;

    *link = request->next;
    if (pending->last == &request->next)
        pending->last = link;
}

/* Taken out of the line: an overlapped one is freed. */
static void
finish(struct wd_pending *pending, struct request *request, int error)
{
    bool delivers = !error || error == -EMSGSIZE;

    request->error = error;
    if (!request->overlapped) {
        request->done = true;
        pthread_cond_broadcast(&pending->served);
        return;
    }
    if (delivers && request->addr_len)
        *request->addr_len = request->io.ret_count * ADDRESS_SIZE;
    wd_overlapped_end(request->overlapped, error ? wd_api_code(error) : NO_ERROR, delivers ? request->io.ret_len : 0);
    free(request);
}

/* Serves the line with what there is. */
static void
serve(struct wd_pending *pending)
{
    while (pending->first) {
        struct request *request = pending->first;
        struct wd_recv io = request->io;
        int error;

        io.deadline = AT_ONCE;
        error = wd_engine_recv(pending->engine, &io, &request->err);
        if (error == -ETIMEDOUT)
            return;
        request->io = io;
        unlink_at(pending, &pending->first);
        finish(pending, request, error);
    }
}

static void
wake(struct wd_pending *pending)
{
    const uint64_t one = 1;

    if (write(pending->wake_fd, &one, sizeof(one)) < 0) {
        /* Cannot fail below 2^64 - 1 writes. */
    }
}

/* Adds and serves; what is not served the thread has to wait for. */
static void
enqueue(struct wd_pending *pending, struct request *request)
{
    append(pending, request);
    serve(pending);
    if (pending->first && !pending->watching)
        wake(pending);
}

/* ---- the thread ----------------------------------------------------------- */

static void *
run(void *arg)
{
    struct wd_pending *pending = arg;
    uint64_t wakes;

    pthread_mutex_lock(&pending->lock);
    while (!pending->ending) {
        struct pollfd fds[] = {{.fd = pending->wake_fd, .events = POLLIN},
                               {.fd = pending->engine_fd, .events = POLLIN}};

        serve(pending);
        pending->watching = pending->first != NULL;
        pthread_mutex_unlock(&pending->lock);
        poll(fds, pending->watching ? 2 : 1, -1);
        pthread_mutex_lock(&pending->lock);
        if (read(pending->wake_fd, &wakes, sizeof(wakes)) < 0) {
            /* The engine woke us. */
        }
    }
    pthread_mutex_unlock(&pending->lock);
    return NULL;
}

/* The program's signal handlers must not run on our thread. */
static int
start_thread(struct wd_pending *pending)
{
    sigset_t all, old;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&pending->thread, NULL, run, pending);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -error;
}

static void
destroy(struct wd_pending *pending)
{
    if (pending->wake_fd >= 0)
        close(pending->wake_fd);
    pthread_cond_destroy(&pending->served);
    pthread_mutex_destroy(&pending->lock);
    free(pending);
}

int
wd_pending_new(struct wd_handle *engine, struct wd_pending **ret_pending, struct wd_error *err)
{
    struct wd_pending *pending = calloc(1, sizeof(*pending));
    pthread_condattr_t attr;
    int error;

    if (!pending)
        return -ENOMEM;
    pthread_mutex_init(&pending->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pending->served, &attr);
    pthread_condattr_destroy(&attr);
    pending->engine = engine;
    pending->last = &pending->first;
    pending->watching = true; /* the thread looks before it waits */
    pending->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    error = pending->wake_fd < 0 ? -errno : wd_engine_get_fd(engine, &pending->engine_fd, err);
    if (!error)
        error = start_thread(pending);
    if (error == -EAGAIN)
        error = wd_error_set(err, -ENOSPC, "raise the limit of threads (ulimit -u)", "start a thread");
    if (error) {
        destroy(pending);
        return error;
    }
    *ret_pending = pending;
    return 0;
}

void
wd_pending_free(struct wd_pending *pending)
{
    if (!pending)
        return;
    pthread_mutex_lock(&pending->lock);
    pending->ending = true;
    wake(pending);
    pthread_mutex_unlock(&pending->lock);
    pthread_join(pending->thread, NULL);
    while (pending->first) {
        struct request *request = pending->first;

        unlink_at(pending, &pending->first);
        finish(pending, request, -ECANCELED);
    }
    destroy(pending);
}

/* ---- requests -------------------------------------------------------------- */

BOOL
wd_pending_add(struct wd_pending *pending, const struct wd_recv *io, UINT *addr_len, OVERLAPPED *overlapped)
{
    struct request *request = calloc(1, sizeof(*request));

    if (!request)
        return wd_api_fail_errno(-ENOMEM, NULL);
    if (!wd_overlapped_begin(overlapped)) {
        free(request);
        return FALSE;
    }
    *request = (struct request){.io = *io, .addr_len = addr_len, .overlapped = overlapped};
    pthread_mutex_lock(&pending->lock);
    enqueue(pending, request);
    pthread_mutex_unlock(&pending->lock);
    return TRUE;
}

static void
wait_served(struct wd_pending *pending, struct request *request, int64_t deadline)
{
    const struct timespec end = wd_event_timespec(deadline);
    int error = 0;

    while (!request->done && error != ETIMEDOUT)
        error = deadline ? pthread_cond_timedwait(&pending->served, &pending->lock, &end)
                         : pthread_cond_wait(&pending->served, &pending->lock);
}

static struct request **
find_link(struct wd_pending *pending, const struct request *request)
{
    struct request **link = &pending->first;

    while (*link != request)
        link = &(*link)->next;
    return link;
}

int
wd_pending_recv(struct wd_pending *pending, struct wd_recv *io, struct wd_error *err)
{
    struct request request = {.io = *io, .error = -ETIMEDOUT};

    pthread_mutex_lock(&pending->lock);
    enqueue(pending, &request);
    wait_served(pending, &request, io->deadline);
    if (!request.done)
        unlink_at(pending, find_link(pending, &request));
    pthread_mutex_unlock(&pending->lock);
    *io = request.io;
    *err = request.err;
    return request.error;
}

BOOL
wd_pending_cancel(struct wd_pending *pending, OVERLAPPED *overlapped)
{
    struct request **link;
    BOOL found = FALSE;

    pthread_mutex_lock(&pending->lock);
    for (link = &pending->first; *link;) {
        struct request *request = *link;

        if (!request->overlapped || (overlapped && request->overlapped != overlapped)) {
            link = &request->next;
            continue;
        }
        unlink_at(pending, link);
        finish(pending, request, -ECANCELED);
        found = TRUE;
    }
    pthread_mutex_unlock(&pending->lock);
    return found;
}

/* ---- fork ------------------------------------------------------------------- */

void
wd_pending_hold(struct wd_pending *pending)
{
    pthread_mutex_lock(&pending->lock);
}

void
wd_pending_release(struct wd_pending *pending)
{
    pthread_mutex_unlock(&pending->lock);
}

/* The memory stays with the child. */
void
wd_pending_forget(struct wd_pending *pending)
{
    close(pending->wake_fd);
    for (struct request *request = pending->first; request; request = request->next)
        if (request->overlapped)
            wd_overlapped_forget(request->overlapped);
}
