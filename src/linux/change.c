/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What can be changed of an open handle: its filter, the flows it skips, its parameters; and its figures. */
#include "engine_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/packet.h"
#include "linux/nfqueue.h"
#include "linux/ring.h"

#define UNREAD_RINGS_MAX 4 /* of a sniffing handle whose size was changed */

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
        return wd_handle_install_sniff(to->handle, to->filter, to->ring, to->err);
    if (to->handle->flags & WINDIVERT_FLAG_DROP)
        return wd_handle_install_drop(to->handle, to->filter, to->err);
    return wd_handle_install_divert(to->handle, to->filter, to->err);
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
    if (handle->exact && !wd_handle_set_exact(handle, wd_filter_prog(former->filter->filter))) {
        wd_handle_set_exact(handle, NULL);
        wd_compiled_free(former->filter);
        free(former);
        return;
    }
    wd_handle_wait_for_packets();
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
    limits = wd_handle_limits(handle);
    wd_queue_set_limits(handle->queue, &limits);
    if (handle->sniff)
        wd_handle_limit_sniff(handle);
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
    wd_handle_wait_for_packets();
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
    error = wd_handle_install_divert(handle, handle->filter->filter, err);
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

    if (!wd_handle_diverts(handle))
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
