/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The Linux engine behind src/api/engine.h: puts the parts together into a handle. */
#include "api/engine.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf/load.h"
#include "linux/exact.h"
#include "linux/flow.h"
#include "linux/inject.h"
#include "linux/janitor.h"
#include "linux/plan.h"
#include "linux/queue.h"
#include "linux/registry.h"
#include "linux/ruleset.h"
#include "linux/sniff.h"
#include "linux/tier.h"

#define MS 10000           /* of 100 ns */
#define UNREAD_RINGS_MAX 4 /* of a sniffing handle whose size was changed */

struct wd_handle {
    WINDIVERT_LAYER layer;
    int16_t priority;
    uint64_t flags;
    struct wd_compiled *filter;

    struct wd_ruleset *rules;
    struct wd_places places;
    struct wd_inject inject;
    struct wd_queue *queue; /* diverted packets, and all sending */
    struct wd_sniff *sniff; /* SNIFF */
    int counters_fd;
    uint64_t *counters; /* mapped */
    struct wd_flows flows;
    struct wd_entry entry;
    bool watched; /* by the janitor */

    pthread_mutex_t lock; /* parameters, shutdown */
    uint32_t queue_length, queue_size, queue_time_ms, hold_time_ms;
    bool shut_recv, installed;
    bool segments;        /* what comes in aggregates is delivered packet by packet */
    bool linked;          /* installed by links, not rules */
    struct wd_error note; /* what the program should know of the handle */
    bool exact;

    /* DROP with a filter that the kernel cannot decide: a thread of ours receives and drops. */
    pthread_t dropper;
    bool dropping;
};

/* ---- Rights -------------------------------------------------------------- */

static bool
has_capability(unsigned int capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &header, data) < 0)
        return false;
    return data[capability / 32].effective & (1u << capability % 32);
}

static int
check_rights(struct wd_error *err)
{
    const char *missing = NULL;

    if (!has_capability(CAP_NET_ADMIN))
        missing = "CAP_NET_ADMIN";
    else if (!has_capability(CAP_NET_RAW))
        missing = "CAP_NET_RAW";
    else if (!has_capability(CAP_BPF) && !has_capability(CAP_SYS_ADMIN))
        missing = "CAP_BPF";
    if (!missing)
        return 0;
    return wd_error_set(err, -EACCES, "run as root, or give the program CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF",
                        "open: no permission: %s is missing", missing);
}

/* ---- Opening -------------------------------------------------------------- */

static bool
is_divert(const struct wd_handle *handle)
{
    return !(handle->flags & (WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_DROP | WINDIVERT_FLAG_SEND_ONLY));
}

static struct wd_queue_limits
limits_of(const struct wd_handle *handle)
{
    uint32_t hold_ms = handle->hold_time_ms < handle->queue_time_ms ? handle->hold_time_ms : handle->queue_time_ms;

    return (struct wd_queue_limits){
        .length = handle->queue_length,
        .size = handle->queue_size,
        .time = (int64_t)handle->queue_time_ms * MS,
        .hold_time = (int64_t)hold_ms * MS,
    };
}

static int
open_counters(struct wd_handle *handle, struct wd_error *err)
{
    const uint32_t size = WD_COUNTERS * sizeof(uint64_t);
    int error = wd_bpf_map(BPF_MAP_TYPE_ARRAY, "wd_counters", sizeof(uint32_t), size, 1, BPF_F_MMAPABLE,
                           &handle->counters_fd, err);
    void *map;

    if (error)
        return error;
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, handle->counters_fd, 0);
    if (map == MAP_FAILED)
        return wd_error_set(err, -errno, NULL, "map the counters: %s", strerror(errno));
    handle->counters = map;
    return 0;
}

static int
open_queue(struct wd_handle *handle, bool bound, struct wd_error *err)
{
    struct wd_queue_limits limits = limits_of(handle);
    int error = wd_queue_new(&limits, bound, &handle->queue, err);

    if (error)
        return error;
    handle->queue->inject = &handle->inject;
    handle->queue->forward = handle->layer == WINDIVERT_LAYER_NETWORK_FORWARD;
    handle->queue->recv_only = handle->flags & (WINDIVERT_FLAG_RECV_ONLY | WINDIVERT_FLAG_DROP);
    if (getrandom(&handle->queue->tag, sizeof(handle->queue->tag), 0) < 0)
        return wd_error_set(err, -errno, NULL, "open: no random numbers: %s", strerror(errno));
    handle->queue->tag |= 1; /* its low half is not 0 */
    return 0;
}

static int
install_plan(struct wd_handle *handle, const struct wd_plan *plan, struct wd_error *err)
{
    int prog_fd[WD_HOOKS] = {-1, -1, -1, -1};

    if (plan->reassemble)
        wd_ruleset_reassemble(handle->rules, &handle->note);
    for (const struct wd_plan_class *class = plan->classes; class; class = class->next)
        if (class->linked)
            prog_fd[class->hook] = class->prog_fd;
    return wd_ruleset_install(handle->rules, handle->priority, plan->rule, plan->count, prog_fd, &handle->places,
                              err);
}

/* What is evaluated in the library; nothing ever reaches that of a handle that drops in the kernel. */
static const struct wd_prog *
set_exact(struct wd_handle *handle, const struct wd_prog *prog)
{
    return handle->sniff ? wd_sniff_set_exact(handle->sniff, prog) : wd_queue_set_exact(handle->queue, prog);
}

/* What is to be in force. */
struct job {
    const struct wd_filter *filter;
    enum wd_rule_action action;
    const struct wd_ring *ring; /* SNIFF */
    bool links, keep_links;
};

static int
plan_job(struct wd_handle *handle, const struct job *job, struct wd_plan *ret_plan, struct wd_error *err)
{
    const struct wd_tails *tails = job->action == WD_RULE_QUEUE ? handle->queue->tails : NULL;
    struct wd_plan_opts opts = {
        .mode = job->action == WD_RULE_NONE ? WD_GEN_SNIFF : WD_GEN_MATCH,
        .action = job->action,
        .priority = handle->priority,
        .queue = handle->queue->nfq.num,
        .split = handle->queue->nfq.split,
        .counters_fd = handle->counters_fd,
        .ring_fd = job->ring ? job->ring->fd
                   : tails   ? tails->ring->fd
                             : -1,
        .flows_fd = handle->flows.fd,
        .flow_limit = handle->flows.limit     ? handle->flows.limit
                      : handle->flows.fd >= 0 ? WD_FLOW_LIMIT_MAX
                                              : 0,
        .flow_counts = handle->flows.limit,
        .links = job->links,
        .keep_links = job->keep_links,
        .routes = job->ring && !job->links,
        .segments = handle->segments,
        .fragments = handle->flags & WINDIVERT_FLAG_FRAGMENTS,
    };
    int error = wd_plan(job->filter, &opts, ret_plan, err);

    if (error == -EOPNOTSUPP && opts.routes) {
        opts.routes = false;
        error = wd_plan(job->filter, &opts, ret_plan, err);
    }
    return error;
}

/*
 * Filter, action -> programs, and rules or links.  Where the new programs or
 * those of a filter in force are coarser than it, that filter is evaluated for all
 * that comes, until the change is over (exact.h).  On an error nothing has changed.
 */
static int
plan_and_install(struct wd_handle *handle, const struct job *job, struct wd_error *err)
{
    const struct wd_prog *was;
    struct wd_plan plan;
    int error = plan_job(handle, job, &plan, err);

    if (error)
        return error;
    if (job->action == WD_RULE_DROP && !plan.exact) {
        wd_plan_free(&plan);
        return -EAGAIN;
    }
    if (!plan.exact && handle->flows.limit) {
        wd_plan_free(&plan);
        return wd_error_set(err, -EOPNOTSUPP, "use another filter, or no FLOW_PACKETS",
                            "packets of flows cannot be counted: the kernel cannot decide the filter");
    }
    was = set_exact(handle, wd_filter_prog(handle->filter->filter));
    if (!was && plan.exact)
        set_exact(handle, NULL);
    handle->note = plan.refusal;
    error = install_plan(handle, &plan, err);
    if (error) {
        set_exact(handle, was);
    } else {
        handle->exact = plan.exact;
        handle->installed = true;
        handle->linked |= job->links;
    }
    wd_plan_free(&plan);
    return error;
}

/* By links, or where these cannot be had by rules; a sniffing handle keeps to what it has, or it would see packets twice. */
static int
install_in_kernel(struct wd_handle *handle, struct job *job, struct wd_error *err)
{
    bool stay = handle->sniff && handle->installed;
    int error = -EOPNOTSUPP;

    job->links = !stay || handle->linked;
    job->keep_links = stay;
    if (job->links)
        error = plan_and_install(handle, job, err);
    if (!error || error == -ENOMEM || (stay && handle->linked))
        return error;
    job->links = false;
    return plan_and_install(handle, job, err);
}

static int
install_divert(struct wd_handle *handle, const struct wd_filter *filter, struct wd_error *err)
{
    const struct job job = {.filter = filter, .action = WD_RULE_QUEUE};

    return plan_and_install(handle, &job, err);
}

static int
install_sniff(struct wd_handle *handle, const struct wd_filter *filter, const struct wd_ring *ring,
              struct wd_error *err)
{
    struct job job = {.filter = filter, .action = WD_RULE_NONE, .ring = ring};

    return install_in_kernel(handle, &job, err);
}

/* The queue is bound: what else it needs to get packets. */
static int
ready_queue(struct wd_handle *handle, struct wd_error *err)
{
    int error = handle->queue->tails ? 0 : wd_tails_new(&handle->queue->tails, err);

    if (!error)
        error = wd_janitor_add(handle->queue, err);
    handle->watched = !error;
    return error;
}

static int
open_divert(struct wd_handle *handle, struct wd_error *err)
{
    int error = open_queue(handle, true, err);

    if (!error)
        error = ready_queue(handle, err);
    if (!error)
        error = install_divert(handle, handle->filter->filter, err);
    if (!error)
        wd_queue_set_shifts(handle->queue, wd_ruleset_shifts(handle->rules));
    return error;
}

static void
set_sniff_limits(struct wd_handle *handle)
{
    wd_sniff_set_limits(handle->sniff, handle->queue_length, (int64_t)handle->queue_time_ms * MS);
}

static int
open_sniff(struct wd_handle *handle, struct wd_error *err)
{
    int error = open_queue(handle, false, err);
    struct wd_ring *ring;

    if (!error)
        error = wd_ring_new(handle->queue_size, &ring, err);
    if (error)
        return error;
    error = wd_sniff_new(ring, handle->counters, &handle->sniff, err);
    if (error) {
        wd_ring_free(ring);
        return error;
    }
    set_sniff_limits(handle);
    return install_sniff(handle, handle->filter->filter, ring, err);
}

static void *
drop_all(void *arg)
{
    struct wd_handle *handle = arg;
    struct wd_recv io;

    do
        io = (struct wd_recv){.addr_count = WINDIVERT_BATCH_MAX};
    while (wd_queue_recv(handle->queue, &io) == 0);
    return NULL;
}

static int
start_dropper(struct wd_handle *handle, struct wd_error *err)
{
    sigset_t all, old;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&handle->dropper, NULL, drop_all, handle);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return wd_error_set(err, -error, "raise the limit of threads (ulimit -u)", "start a thread: %s",
                            strerror(error));
    handle->dropping = true;
    return 0;
}

/* Its queue gets packets, if it does not yet, and the thread drops them; both stay until the handle is closed. */
static int
drop_by_thread(struct wd_handle *handle, struct wd_error *err)
{
    int error = 0;

    if (handle->queue->nfq.fd < 0)
        error = wd_queue_bind(handle->queue, err);
    if (!error && !handle->watched)
        error = ready_queue(handle, err);
    if (!error && !handle->dropping)
        error = start_dropper(handle, err);
    return error;
}

/*
 * In the kernel where the filter can be decided there; else by a queue and a
 * thread of ours.  Packets that meet both for a moment are dropped if one of the two says so.
 */
static int
install_drop(struct wd_handle *handle, const struct wd_filter *filter, struct wd_error *err)
{
    struct job job = {.filter = filter, .action = WD_RULE_DROP};
    int error = install_in_kernel(handle, &job, err);

    if (error != -EAGAIN)
        return error;
    error = drop_by_thread(handle, err);
    if (!error)
        error = install_divert(handle, filter, err);
    if (!error)
        wd_queue_set_shifts(handle->queue, wd_ruleset_shifts(handle->rules));
    return error;
}

static int
open_drop(struct wd_handle *handle, struct wd_error *err)
{
    int error = open_queue(handle, false, err);

    return error ? error : install_drop(handle, handle->filter->filter, err);
}

static int
open_mode(struct wd_handle *handle, struct wd_error *err)
{
    if (handle->flags & WINDIVERT_FLAG_SEND_ONLY)
        return open_queue(handle, false, err);
    if (handle->flags & WINDIVERT_FLAG_SNIFF)
        return open_sniff(handle, err);
    if (handle->flags & WINDIVERT_FLAG_DROP)
        return open_drop(handle, err);
    return open_divert(handle, err);
}

static struct wd_handle *
handle_new(const struct wd_open *open)
{
    struct wd_handle *handle = calloc(1, sizeof(*handle));

    if (!handle)
        return NULL;
    handle->layer = open->layer;
    handle->priority = open->priority;
    handle->flags = open->flags;
    handle->queue_length = WINDIVERT_PARAM_QUEUE_LENGTH_DEFAULT;
    handle->queue_size = WINDIVERT_PARAM_QUEUE_SIZE_DEFAULT;
    handle->queue_time_ms = WINDIVERT_PARAM_QUEUE_TIME_DEFAULT;
    handle->hold_time_ms = WINDIVERT_EXT_PARAM_HOLD_TIME_DEFAULT;
    handle->counters_fd = -1;
    handle->flows.fd = -1;
    handle->inject.fd4 = handle->inject.fd6 = handle->inject.fd_in = handle->inject.fd_run = handle->inject.fd_ct =
        -1;
    handle->entry.fd = -1;
    pthread_mutex_init(&handle->lock, NULL);
    return handle;
}

/* Not for a handle that neither sends nor has packets that may have to be injected again. */
static int
open_inject(struct wd_handle *handle, struct wd_error *err)
{
    if ((handle->flags & WINDIVERT_FLAG_RECV_ONLY) && (handle->flags & WINDIVERT_FLAG_SNIFF))
        return 0;
    return wd_inject_open(&handle->inject, handle->priority, handle->rules, err);
}

static int
open_parts(struct wd_handle *handle, const struct wd_open *open, struct wd_error *err)
{
    int error = wd_compiled_new(open->object, open->layer, &handle->filter, err);

    if (!error)
        error = wd_ruleset_get(&handle->rules, err);
    if (!error)
        error = open_inject(handle, err);
    if (!error)
        error = open_counters(handle, err);
    if (!error)
        error = open_mode(handle, err);
    if (!error)
        wd_registry_add(open, &handle->entry);
    return error;
}

int
wd_engine_open(const struct wd_open *open, struct wd_handle **ret_handle, struct wd_error *err)
{
    struct wd_handle *handle;
    int error;

    if (open->layer != WINDIVERT_LAYER_NETWORK && open->layer != WINDIVERT_LAYER_NETWORK_FORWARD)
        return wd_error_set(err, -EOPNOTSUPP, "use WINDIVERT_LAYER_NETWORK or WINDIVERT_LAYER_NETWORK_FORWARD",
                            "open: this version has the layers of packets only");
    if ((open->flags & WINDIVERT_FLAG_NO_INSTALL) && !wd_registry_any())
        return wd_error_set(err, -ENOENT, "open without WINDIVERT_FLAG_NO_INSTALL",
                            "open: NO_INSTALL was asked for and no handle is open");
    error = check_rights(err);
    if (!error)
        error = wd_tier_check(err);
    if (error)
        return error;
    handle = handle_new(open);
    if (!handle)
        return wd_error_set(err, -ENOMEM, NULL, "open: out of memory");
    error = open_parts(handle, open, err);
    if (error) {
        wd_engine_abort(handle);
        wd_engine_destroy(handle);
        return error;
    }
    if (err)
        *err = handle->note;
    *ret_handle = handle;
    return 0;
}

/* ---- Receiving and sending ------------------------------------------------ */

int
wd_engine_recv(struct wd_handle *handle, struct wd_recv *io, struct wd_error *err)
{
    int error;

    if (handle->sniff)
        error = wd_sniff_recv(handle->sniff, io);
    else if (is_divert(handle))
        error = wd_queue_recv(handle->queue, io);
    else
        return wd_error_set(err, -EINVAL, NULL, "receive: the handle only sends or drops");
    switch (error) {
    case -EMSGSIZE:
        return wd_error_set(err, error, "give a buffer of WINDIVERT_MTU_MAX bytes",
                            "receive: the packet is larger than the buffer");
    case -ENODATA:
        return wd_error_set(err, error, NULL, "receive: the handle was shut down and its queue is empty");
    case -ETIMEDOUT:
        return wd_error_set(err, error, NULL, "receive: nothing came in time");
    case -ECANCELED:
        return wd_error_set(err, error, NULL, "receive: the handle was closed");
    default:
        return error;
    }
}

int
wd_engine_get_fd(struct wd_handle *handle, int *ret_fd, struct wd_error *err)
{
    return handle->sniff ? wd_sniff_get_fd(handle->sniff, ret_fd, err) : wd_queue_get_fd(handle->queue, ret_fd, err);
}

int
wd_engine_send(struct wd_handle *handle, struct wd_send *io, struct wd_error *err)
{
    return wd_queue_send(handle->queue, io, err);
}

/* ---- Shutting down and closing -------------------------------------------- */

/* Waits until every packet that was on its way through our rules has arrived in the queue (synchronize_rcu). */
static void
wait_for_packets_in_flight(void)
{
    syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

static void
uninstall(struct wd_handle *handle)
{
    if (!handle->installed)
        return;
    wd_ruleset_remove(handle->rules, &handle->places);
    handle->installed = false;
    wait_for_packets_in_flight();
}

int
wd_engine_shutdown(struct wd_handle *handle, WINDIVERT_SHUTDOWN how, struct wd_error *err)
{
    (void)err;
    pthread_mutex_lock(&handle->lock);
    if ((how & WINDIVERT_SHUTDOWN_RECV) && !handle->shut_recv) {
        handle->shut_recv = true;
        uninstall(handle);
        if (handle->sniff)
            wd_sniff_shut(handle->sniff);
        wd_queue_shut_recv(handle->queue);
    }
    if (how & WINDIVERT_SHUTDOWN_SEND)
        wd_queue_shut_send(handle->queue);
    pthread_mutex_unlock(&handle->lock);
    return 0;
}

void
wd_engine_abort(struct wd_handle *handle)
{
    pthread_mutex_lock(&handle->lock);
    uninstall(handle);
    if (handle->sniff)
        wd_sniff_abort(handle->sniff);
    if (handle->queue)
        wd_queue_abort(handle->queue);
    pthread_mutex_unlock(&handle->lock);
}

void
wd_engine_destroy(struct wd_handle *handle)
{
    if (handle->dropping)
        pthread_join(handle->dropper, NULL);
    if (handle->watched)
        wd_janitor_remove(handle->queue);
    if (handle->queue)
        wd_queue_drain(handle->queue);
    wd_queue_free(handle->queue);
    wd_sniff_free(handle->sniff);
    if (handle->counters)
        munmap(handle->counters, WD_COUNTERS * sizeof(uint64_t));
    if (handle->counters_fd >= 0)
        close(handle->counters_fd);
    wd_flows_close(&handle->flows);
    wd_inject_close(&handle->inject);
    wd_registry_remove(&handle->entry);
    wd_ruleset_put(handle->rules);
    wd_compiled_free(handle->filter);
    pthread_mutex_destroy(&handle->lock);
    free(handle);
}

void
wd_engine_forget(struct wd_handle *handle)
{
    wd_ruleset_forget_all();
    wd_janitor_forget();
    if (handle->queue)
        wd_queue_close_fds(handle->queue);
    if (handle->sniff)
        wd_sniff_close_fds(handle->sniff);
    if (handle->counters_fd >= 0)
        close(handle->counters_fd);
    wd_flows_close(&handle->flows);
    wd_inject_close(&handle->inject);
    if (handle->entry.fd >= 0)
        close(handle->entry.fd);
}

/* ---- Another filter ------------------------------------------------------- */

struct reinstall {
    struct wd_handle *handle;
    const struct wd_filter *filter;
    const struct wd_ring *ring;
    struct wd_error *err;
};

static int
reinstall(void *arg)
{
    const struct reinstall *to = arg;

    if (to->handle->sniff)
        return install_sniff(to->handle, to->filter, to->ring, to->err);
    if (to->handle->flags & WINDIVERT_FLAG_DROP)
        return install_drop(to->handle, to->filter, to->err);
    return install_divert(to->handle, to->filter, to->err);
}

/* Under the lock, in the handle's network namespace.  ring: for sniffed packets, NULL: the one that is written to. */
static int
install_filter(struct wd_handle *handle, const struct wd_filter *filter, const struct wd_ring *ring,
               struct wd_error *err)
{
    struct reinstall to = {.handle = handle, .filter = filter, .ring = ring, .err = err};

    if (handle->sniff && !ring)
        to.ring = wd_sniff_last_ring(handle->sniff);
    return wd_ruleset_inside(handle->rules, reinstall, &to);
}

static int
check_installed(const struct wd_handle *handle, struct wd_error *err)
{
    if (handle->installed)
        return 0;
    if (handle->flags & WINDIVERT_FLAG_SEND_ONLY)
        return wd_error_set(err, -EOPNOTSUPP, NULL, "the handle only sends: no packet matches");
    return wd_error_set(err, handle->shut_recv ? -ESHUTDOWN : -ECANCELED, NULL, "the handle was shut down");
}

/* The former filter is evaluated for what it, or the new one, let through until now; then it is freed. */
static void
retire(struct wd_handle *handle, struct wd_former *former)
{
    if (handle->exact && !set_exact(handle, wd_filter_prog(former->filter->filter))) {
        set_exact(handle, NULL);
        wd_compiled_free(former->filter);
        free(former);
        return;
    }
    wait_for_packets_in_flight();
    if (handle->sniff)
        wd_sniff_swap(handle->sniff, former);
    else
        wd_queue_swap(handle->queue, former);
}

static int
swap_filter(struct wd_handle *handle, const char *object, struct wd_compiled *filter, struct wd_former *former,
            struct wd_error *err)
{
    const struct wd_open open = {
        .object = object, .layer = handle->layer, .priority = handle->priority, .flags = handle->flags};
    int error;

    error = check_installed(handle, err);
    if (!error)
        error = install_filter(handle, filter->filter, NULL, err);
    if (error)
        return error;
    *former =
        (struct wd_former){.filter = handle->filter, .then = handle->exact ? NULL : wd_filter_prog(filter->filter)};
    handle->filter = filter;
    retire(handle, former);
    wd_registry_update(&open, &handle->entry);
    if (err)
        *err = handle->note;
    return 0;
}

int
wd_engine_set_filter(struct wd_handle *handle, const char *object, struct wd_error *err)
{
    struct wd_former *former = calloc(1, sizeof(*former));
    struct wd_compiled *filter = NULL;
    int error = 0;

    if (!former)
        error = wd_error_set(err, -ENOMEM, NULL, "set the filter: out of memory");
    if (!error)
        error = wd_compiled_new(object, handle->layer, &filter, err);
    if (!error) {
        pthread_mutex_lock(&handle->lock);
        error = swap_filter(handle, object, filter, former, err);
        pthread_mutex_unlock(&handle->lock);
    }
    if (error) {
        wd_compiled_free(filter);
        free(former);
    }
    return error;
}

/* ---- Flows ---------------------------------------------------------------- */

/* Under the lock.  The same filter, by programs that look for flows, and count them where there is a limit. */
static int
install_flows(struct wd_handle *handle, struct wd_error *err)
{
    bool had = handle->flows.fd >= 0;
    int error = wd_flows_need(&handle->flows, err);

    if (!error)
        error = install_filter(handle, handle->filter->filter, NULL, err);
    if (error && !had)
        wd_flows_close(&handle->flows);
    return error;
}

static int
change_flow_packets(struct wd_handle *handle, uint32_t limit, struct wd_error *err)
{
    uint32_t was = handle->flows.limit;
    int error = check_installed(handle, err);

    if (error || limit == was)
        return error;
    handle->flows.limit = limit;
    error = install_flows(handle, err);
    if (error)
        handle->flows.limit = was;
    return error;
}

static int
skip_flow(struct wd_handle *handle, const struct wd_flow *flow, struct wd_error *err)
{
    int error = check_installed(handle, err);

    if (!error && handle->flows.fd < 0)
        error = install_flows(handle, err);
    return error ? error : wd_flows_skip(&handle->flows, flow, err);
}

static int
set_flow_packets(struct wd_handle *handle, uint32_t limit, struct wd_error *err)
{
    int error;

    pthread_mutex_lock(&handle->lock);
    error = change_flow_packets(handle, limit, err);
    pthread_mutex_unlock(&handle->lock);
    return error;
}

int
wd_engine_skip_flow(struct wd_handle *handle, const uint8_t *packet, uint32_t len, struct wd_error *err)
{
    struct wd_flow flow;
    int error = wd_flow_key(packet, len, &flow, err);

    if (error)
        return error;
    pthread_mutex_lock(&handle->lock);
    error = skip_flow(handle, &flow, err);
    pthread_mutex_unlock(&handle->lock);
    return error;
}

static uint64_t
get_put(struct wd_handle *handle)
{
    uint64_t put;

    pthread_mutex_lock(&handle->lock);
    put = handle->flows.put;
    pthread_mutex_unlock(&handle->lock);
    return put;
}

/* ---- Parameters and figures ----------------------------------------------- */

struct range {
    uint64_t min, max;
};

static const struct range ranges[] = {
    [WINDIVERT_PARAM_QUEUE_LENGTH] = {WINDIVERT_PARAM_QUEUE_LENGTH_MIN, WINDIVERT_PARAM_QUEUE_LENGTH_MAX},
    [WINDIVERT_PARAM_QUEUE_TIME] = {WINDIVERT_PARAM_QUEUE_TIME_MIN, WINDIVERT_PARAM_QUEUE_TIME_MAX},
    [WINDIVERT_PARAM_QUEUE_SIZE] = {WINDIVERT_PARAM_QUEUE_SIZE_MIN, WINDIVERT_PARAM_QUEUE_SIZE_MAX},
};

static uint32_t *
param_of(struct wd_handle *handle, WINDIVERT_PARAM param)
{
    switch (param) {
    case WINDIVERT_PARAM_QUEUE_LENGTH:
        return &handle->queue_length;
    case WINDIVERT_PARAM_QUEUE_TIME:
        return &handle->queue_time_ms;
    case WINDIVERT_PARAM_QUEUE_SIZE:
        return &handle->queue_size;
    default:
        return NULL;
    }
}

static void
set_limit(struct wd_handle *handle, uint32_t *limit, uint64_t value)
{
    struct wd_queue_limits limits;

    *limit = (uint32_t)value;
    limits = limits_of(handle);
    wd_queue_set_limits(handle->queue, &limits);
    if (handle->sniff)
        set_sniff_limits(handle);
}

/* Another ring, with programs and rules of its own; then nobody writes to the old one any more. */
static int
resize_ring(struct wd_handle *handle, uint32_t size, struct wd_error *err)
{
    struct wd_ring *ring;
    int error;

    if (!handle->installed || wd_ring_size(size) == wd_ring_size(handle->queue_size))
        return 0;
    if (wd_sniff_rings(handle->sniff) > UNREAD_RINGS_MAX)
        return wd_error_set(err, -ENOSPC, "receive what was sniffed before",
                            "set the queue size: packets of %d former sizes are still unread", UNREAD_RINGS_MAX);
    error = wd_ring_new(size, &ring, err);
    if (error)
        return error;
    error = install_filter(handle, handle->filter->filter, ring, err);
    if (error) {
        wd_ring_free(ring);
        return error;
    }
    wait_for_packets_in_flight();
    wd_sniff_add_ring(handle->sniff, ring);
    return 0;
}

static int
set_limit_locked(struct wd_handle *handle, uint32_t *limit, uint64_t value, struct wd_error *err)
{
    int error = 0;

    pthread_mutex_lock(&handle->lock);
    if (handle->sniff && limit == &handle->queue_size)
        error = resize_ring(handle, (uint32_t)value, err);
    if (!error)
        set_limit(handle, limit, value);
    pthread_mutex_unlock(&handle->lock);
    return error;
}

static uint64_t
get_limit(struct wd_handle *handle, const uint32_t *limit)
{
    uint64_t value;

    pthread_mutex_lock(&handle->lock);
    value = *limit;
    pthread_mutex_unlock(&handle->lock);
    return value;
}

int
wd_engine_set_param(struct wd_handle *handle, WINDIVERT_PARAM param, UINT64 value, struct wd_error *err)
{
    uint32_t *limit = param_of(handle, param);

    if (!limit || value < ranges[param].min || value > ranges[param].max)
        return wd_error_set(err, -EINVAL, NULL, "set parameter %d: unknown, read-only or out of range", (int)param);
    return set_limit_locked(handle, limit, value, err);
}

int
wd_engine_get_param(struct wd_handle *handle, WINDIVERT_PARAM param, UINT64 *ret_value, struct wd_error *err)
{
    const uint32_t *limit = param_of(handle, param);

    if (param == WINDIVERT_PARAM_VERSION_MAJOR || param == WINDIVERT_PARAM_VERSION_MINOR)
        *ret_value = 2;
    else if (limit)
        *ret_value = get_limit(handle, limit);
    else
        return wd_error_set(err, -EINVAL, NULL, "get parameter %d: unknown", (int)param);
    return 0;
}

/* In the meantime aggregates come whole, and are filtered as such. */
static int
change_segments(struct wd_handle *handle, bool segments, struct wd_error *err)
{
    int error = 0;

    if (handle->segments == segments || !handle->installed)
        goto out;
    if (!segments)
        error = wd_nfq_set_segments(&handle->queue->nfq, false, err);
    if (error)
        return error;
    handle->segments = segments;
    error = install_divert(handle, handle->filter->filter, err);
    if (!error && segments)
        error = wd_nfq_set_segments(&handle->queue->nfq, true, err);
    if (error) {
        handle->segments = !segments;
        return error;
    }
out:
    handle->segments = segments;
    return 0;
}

static int
set_flag(struct wd_handle *handle, WINDIVERT_EXT_PARAM param, bool on, struct wd_error *err)
{
    int error;

    if (!is_divert(handle))
        return wd_error_set(err, -EOPNOTSUPP, "use it with a handle that diverts",
                            "set parameter: the handle does not hold packets");
    pthread_mutex_lock(&handle->lock);
    error = param == WINDIVERT_EXT_PARAM_SEGMENTS ? change_segments(handle, on, err)
                                                  : wd_queue_set_fail_open(handle->queue, on, err);
    pthread_mutex_unlock(&handle->lock);
    return error;
}

int
wd_engine_set_ext_param(struct wd_handle *handle, WINDIVERT_EXT_PARAM param, UINT64 value, struct wd_error *err)
{
    if ((param == WINDIVERT_EXT_PARAM_SEGMENTS || param == WINDIVERT_EXT_PARAM_FAIL_OPEN) && value <= 1)
        return set_flag(handle, param, value, err);
    if (param == WINDIVERT_EXT_PARAM_FLOW_PACKETS && value <= WINDIVERT_EXT_PARAM_FLOW_PACKETS_MAX)
        return set_flow_packets(handle, (uint32_t)value, err);
    if (param != WINDIVERT_EXT_PARAM_HOLD_TIME || value < WINDIVERT_EXT_PARAM_HOLD_TIME_MIN ||
        value > get_limit(handle, &handle->queue_time_ms))
        return wd_error_set(err, -EINVAL, NULL, "set extension parameter %d: unknown or out of range", (int)param);
    return set_limit_locked(handle, &handle->hold_time_ms, value, err);
}

static bool
get_flag(struct wd_handle *handle, const bool *flag)
{
    bool value;

    pthread_mutex_lock(&handle->lock);
    value = *flag;
    pthread_mutex_unlock(&handle->lock);
    return value;
}

int
wd_engine_get_ext_param(struct wd_handle *handle, WINDIVERT_EXT_PARAM param, UINT64 *ret_value, struct wd_error *err)
{
    if (param == WINDIVERT_EXT_PARAM_SEGMENTS)
        *ret_value = get_flag(handle, &handle->segments);
    else if (param == WINDIVERT_EXT_PARAM_FAIL_OPEN)
        *ret_value = get_flag(handle, &handle->queue->fail_open);
    else if (param == WINDIVERT_EXT_PARAM_FLOW_PACKETS)
        *ret_value = get_limit(handle, &handle->flows.limit);
    else if (param == WINDIVERT_EXT_PARAM_HOLD_TIME)
        *ret_value = get_limit(handle, &handle->hold_time_ms);
    else
        return wd_error_set(err, -EINVAL, NULL, "get extension parameter %d: unknown", (int)param);
    return 0;
}

/* What our thread received, or was too late or too many for it, matched a filter that drops. */
static void
count_as_dropped(WINDIVERT_EXT_STATS *stats)
{
    stats->DropFilter = stats->Matched - stats->Queued;
    stats->Matched = stats->DropFilter;
    stats->Delivered = stats->NotReturned = stats->Queued = 0;
    stats->DropLength = stats->DropSize = stats->DropTime = stats->DropBuffer = 0;
}

void
wd_engine_get_stats(struct wd_handle *handle, WINDIVERT_EXT_STATS *ret_stats)
{
    uint64_t *matched = &handle->counters[WD_COUNT_MATCHED];
    WINDIVERT_EXT_STATS sniffed;

    wd_queue_get_stats(handle->queue, matched, ret_stats);
    if (handle->sniff) {
        wd_sniff_get_stats(handle->sniff, &sniffed);
        sniffed.Injected = ret_stats->Injected;
        *ret_stats = sniffed;
    } else if (handle->dropping) {
        count_as_dropped(ret_stats);
    }
    if (handle->flags & WINDIVERT_FLAG_DROP) {
        ret_stats->DropFilter += __atomic_load_n(&handle->counters[WD_COUNT_DROPPED], __ATOMIC_RELAXED);
        ret_stats->Matched = ret_stats->DropFilter;
    }
    ret_stats->SkippedPackets = __atomic_load_n(&handle->counters[WD_COUNT_SKIPPED], __ATOMIC_RELAXED);
    ret_stats->SkippedFlows = __atomic_load_n(&handle->counters[WD_COUNT_FLOWS], __ATOMIC_RELAXED);
    ret_stats->SkippedFlows += get_put(handle);
    ret_stats->Size = sizeof(*ret_stats);
}
