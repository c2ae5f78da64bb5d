/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "janitor.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "linux/ruleset.h"

#define MS 10000              /* of 100 ns */
#define TICK (50 * MS)        /* between two visits of a busy queue */
#define SLACK (2 * MS)        /* deadlines nearer to each other than this are served together */
#define IDLE_AFTER (500 * MS) /* of quiet: then wait for the descriptor again */

/*
 * A queue is armed (its descriptor is in the epoll set, one-shot: the first
 * packet wakes us) or busy (visited every TICK and at its own deadlines).
 */
struct ward {
    struct ward *next;
    struct wd_queue *queue;
    bool busy;
    int64_t due;        /* busy: next visit */
    int64_t last_event; /* last time something was held or readable */
};

static struct {
    pthread_mutex_t life; /* held while the thread is started or ended */
    pthread_mutex_t lock; /* guards the rest; held during visits, so that removal waits for them */
    pthread_t thread;
    bool running;
    int epoll_fd, wake_fd;
    struct ward *wards;
    const struct wd_ruleset *home; /* of a ward: whose network namespace the thread is in, and keeps; NULL: of none */
    const struct wd_ruleset *move_to; /* where it is to go; NULL: it stays */
} janitor = {
    .life = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .epoll_fd = -1,
    .wake_fd = -1,
};

static void
arm(struct ward *ward)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = ward};

    if (!wd_queue_unwatch(ward->queue, janitor.wake_fd))
        return;
    ward->busy = false;
    epoll_ctl(janitor.epoll_fd, EPOLL_CTL_MOD, ward->queue->nfq.fd, &event);
}

static void
visit(struct ward *ward, int64_t now)
{
    int64_t interval = TICK;
    int64_t deadline = wd_queue_tick(ward->queue, now, &interval);

    if (deadline != INT64_MAX)
        ward->last_event = now;
    if (now - ward->last_event > IDLE_AFTER)
        arm(ward);
    ward->due = now + interval;
    if (deadline < ward->due)
        ward->due = deadline > now + SLACK ? deadline : now + SLACK;
}

/* Visits what is due; returns how long to sleep, milliseconds, -1 for ever. */
static int
visit_due(void)
{
    int64_t now = wd_now(), next = INT64_MAX;

    for (struct ward *ward = janitor.wards; ward; ward = ward->next) {
        if (ward->busy && ward->due <= now)
            visit(ward, now);
        if (ward->busy && ward->due < next)
            next = ward->due;
    }
    if (next == INT64_MAX)
        return -1;
    now = wd_now();
    return next <= now ? 0 : (int)((next - now + MS - 1) / MS);
}

/* A ward whose descriptor became readable; or, from the eventfd, those of which something is held now. */
static void
wake_wards(struct ward *event_ward)
{
    uint64_t count;

    if (!event_ward && read(janitor.wake_fd, &count, sizeof(count)) < 0)
        return;
    for (struct ward *ward = janitor.wards; ward; ward = ward->next) {
        if (ward->busy || (event_ward ? ward != event_ward : !wd_queue_wants_watch(ward->queue)))
            continue; /* event_ward may have been removed meanwhile */
        ward->busy = true;
        ward->last_event = wd_now();
        ward->due = ward->last_event + SLACK;
    }
}

static void
move(void)
{
    if (!janitor.move_to)
        return;
    janitor.home = wd_ruleset_enter(janitor.move_to) == 0 ? janitor.move_to : NULL;
    janitor.move_to = NULL;
}

static void *
run(void *unused)
{
    struct epoll_event events[16];
    int timeout = -1;

    (void)unused;
    for (;;) {
        int got = epoll_wait(janitor.epoll_fd, events, 16, timeout);

        pthread_mutex_lock(&janitor.lock);
        if (!janitor.running) {
            pthread_mutex_unlock(&janitor.lock);
            return NULL;
        }
        move();
        for (int i = 0; i < got; i++)
            wake_wards(events[i].data.ptr);
        timeout = visit_due();
        pthread_mutex_unlock(&janitor.lock);
    }
}

static void
close_fds(void)
{
    if (janitor.epoll_fd >= 0)
        close(janitor.epoll_fd);
    if (janitor.wake_fd >= 0)
        close(janitor.wake_fd);
    janitor.epoll_fd = janitor.wake_fd = -1;
}

/* The program's signal handlers must not run on our thread. */
static int
start_thread(void)
{
    sigset_t all, old;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&janitor.thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -error;
}

static int
start(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    int error;

    janitor.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    janitor.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (janitor.epoll_fd < 0 || janitor.wake_fd < 0 ||
        epoll_ctl(janitor.epoll_fd, EPOLL_CTL_ADD, janitor.wake_fd, &event) < 0) {
        error = -errno;
    } else {
        janitor.running = true;
        error = start_thread();
    }
    if (error) {
        janitor.running = false;
        close_fds();
    }
    return error;
}

static const struct wd_ruleset *
rules_of(const struct wd_queue *queue)
{
    return queue->inject->rules;
}

static void
wake(void)
{
    const uint64_t one = 1;

    if (write(janitor.wake_fd, &one, sizeof(one)) < 0) {
        /* Cannot fail below 2^64 - 1 writes. */
    }
}

/*
 * A thread keeps its network namespace in being.  Ours was begun in that of
 * the first handle; where no ward is in it any more it goes to that of one.
 */
static void
leave(const struct wd_ruleset *rules)
{
    if (rules != janitor.home && rules != janitor.move_to)
        return;
    for (const struct ward *ward = janitor.wards; ward; ward = ward->next)
        if (rules_of(ward->queue) == rules)
            return;
    janitor.move_to = janitor.wards ? rules_of(janitor.wards->queue) : NULL;
    wake();
}

static int
watch(struct wd_queue *queue)
{
    struct ward *ward = calloc(1, sizeof(*ward));
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = ward};

    if (!ward)
        return -ENOMEM;
    ward->queue = queue;
    if (epoll_ctl(janitor.epoll_fd, EPOLL_CTL_ADD, queue->nfq.fd, &event) < 0) {
        int error = -errno;

        free(ward);
        return error;
    }
    wd_queue_unwatch(queue, janitor.wake_fd);
    ward->next = janitor.wards;
    janitor.wards = ward;
    return 0;
}

/* With `life` held and not `lock`: the thread ends where it has nothing to look after. */
static void
stop_if_idle(void)
{
    bool last;

    pthread_mutex_lock(&janitor.lock);
    last = janitor.running && !janitor.wards;
    if (last) {
        janitor.running = false;
        wake();
    }
    pthread_mutex_unlock(&janitor.lock);
    if (last) {
        pthread_join(janitor.thread, NULL);
        close_fds();
    }
}

int
wd_janitor_add(struct wd_queue *queue, struct wd_error *err)
{
    int error = 0;

    pthread_mutex_lock(&janitor.life);
    pthread_mutex_lock(&janitor.lock);
    if (!janitor.running) {
        janitor.home = rules_of(queue);
        janitor.move_to = NULL;
        error = start();
    }
    if (!error)
        error = watch(queue);
    pthread_mutex_unlock(&janitor.lock);
    if (error)
        stop_if_idle();
    pthread_mutex_unlock(&janitor.life);
    if (error)
        return wd_error_set(err, error, "raise the limits of open files and threads (ulimit -n, -u)",
                            "start the housekeeping thread: %s", strerror(-error));
    return 0;
}

static void
unwatch(struct wd_queue *queue)
{
    struct ward **link = &janitor.wards, *ward;

    while (*link && (*link)->queue != queue)
        link = &(*link)->next;
    ward = *link;
    if (!ward)
        return;
    *link = ward->next;
    epoll_ctl(janitor.epoll_fd, EPOLL_CTL_DEL, queue->nfq.fd, NULL);
    free(ward);
    leave(rules_of(queue));
}

void
wd_janitor_remove(struct wd_queue *queue)
{
    pthread_mutex_lock(&janitor.life);
    pthread_mutex_lock(&janitor.lock);
    unwatch(queue);
    pthread_mutex_unlock(&janitor.lock);
    stop_if_idle();
    pthread_mutex_unlock(&janitor.life);
}

void
wd_janitor_forget(void)
{
    close_fds();
    janitor.running = false;
    janitor.wards = NULL; /* their memory stays; the process is a copy */
    pthread_mutex_init(&janitor.lock, NULL);
    pthread_mutex_init(&janitor.life, NULL);
}
