/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The Linux engine behind src/api/engine.h: puts the parts together into a handle. */
#include "engine_impl.h"

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

bool
wd_handle_diverts(const struct wd_handle *handle)
{
    return !(handle->flags & (WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_DROP | WINDIVERT_FLAG_SEND_ONLY));
}

struct wd_queue_limits
wd_handle_limits(const struct wd_handle *handle)
{
    uint32_t hold_ms = handle->hold_time_ms < handle->queue_time_ms ? handle->hold_time_ms : handle->queue_time_ms;

    return (struct wd_queue_limits){
        .length = handle->queue_length,
        .size = handle->queue_size,
        .time = (int64_t)handle->queue_time_ms * WD_MS,
        .hold_time = (int64_t)hold_ms * WD_MS,
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
    struct wd_queue_limits limits = wd_handle_limits(handle);
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
const struct wd_prog *
wd_handle_set_exact(struct wd_handle *handle, const struct wd_prog *prog)
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
    was = wd_handle_set_exact(handle, wd_filter_prog(handle->filter->filter));
    if (!was && plan.exact)
        wd_handle_set_exact(handle, NULL);
    handle->note = plan.refusal;
    error = install_plan(handle, &plan, err);
    if (error) {
        wd_handle_set_exact(handle, was);
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

int
wd_handle_install_divert(struct wd_handle *handle, const struct wd_filter *filter, struct wd_error *err)
{
    const struct job job = {.filter = filter, .action = WD_RULE_QUEUE};

    return plan_and_install(handle, &job, err);
}

int
wd_handle_install_sniff(struct wd_handle *handle, const struct wd_filter *filter, const struct wd_ring *ring,
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
        error = wd_handle_install_divert(handle, handle->filter->filter, err);
    if (!error)
        wd_queue_set_shifts(handle->queue, wd_ruleset_shifts(handle->rules));
    return error;
}

void
wd_handle_limit_sniff(struct wd_handle *handle)
{
    wd_sniff_set_limits(handle->sniff, handle->queue_length, (int64_t)handle->queue_time_ms * WD_MS);
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
    wd_handle_limit_sniff(handle);
    return wd_handle_install_sniff(handle, handle->filter->filter, ring, err);
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
int
wd_handle_install_drop(struct wd_handle *handle, const struct wd_filter *filter, struct wd_error *err)
{
    struct job job = {.filter = filter, .action = WD_RULE_DROP};
    int error = install_in_kernel(handle, &job, err);

    if (error != -EAGAIN)
        return error;
    error = drop_by_thread(handle, err);
    if (!error)
        error = wd_handle_install_divert(handle, filter, err);
    if (!error)
        wd_queue_set_shifts(handle->queue, wd_ruleset_shifts(handle->rules));
    return error;
}

static int
open_drop(struct wd_handle *handle, struct wd_error *err)
{
    int error = open_queue(handle, false, err);

    return error ? error : wd_handle_install_drop(handle, handle->filter->filter, err);
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
    else if (wd_handle_diverts(handle))
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
void
wd_handle_wait_for_packets(void)
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
    wd_handle_wait_for_packets();
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
