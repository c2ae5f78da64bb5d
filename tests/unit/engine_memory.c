/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "engine_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define SENT_MAX 1024
#define ALIVE 0x616c6976u

struct packet {
    struct packet *next;
    WINDIVERT_ADDRESS addr;
    uint32_t len;
    uint8_t data[];
};

struct wd_handle {
    uint32_t alive;
    struct wd_open open;
    char *object;
    int descriptor;
    int pollable; /* an eventfd; -1: nobody has asked for it */
    bool shown;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct packet *first, **last;
    unsigned inside, blocked;
    bool recv_down, send_down, aborted;
    UINT64 params[WINDIVERT_PARAM_QUEUE_SIZE + 1];
    UINT64 ext_params[WINDIVERT_EXT_PARAM_FLOW_PACKETS + 1];
    WINDIVERT_EXT_STATS stats;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t sent_one;
    struct wd_handle *last;
    struct {
        int error;
        const char *text, *remedy;
    } fail[EM_CALLS];
    unsigned refuse_first;
    int refuse_error;
    struct packet *sent[SENT_MAX];
    unsigned sent_count;
} em = {.lock = PTHREAD_MUTEX_INITIALIZER, .sent_one = PTHREAD_COND_INITIALIZER};

static atomic_uint opened, aborted, destroyed, forgotten, calls;

static void
demand(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "engine_memory: %s\n", what);
    abort();
}

/* ---- control ------------------------------------------------------------ */

void
em_fail(enum em_call call, int error, const char *text, const char *remedy)
{
    pthread_mutex_lock(&em.lock);
    em.fail[call].error = error;
    em.fail[call].text = text;
    em.fail[call].remedy = remedy;
    pthread_mutex_unlock(&em.lock);
}

void
em_refuse_from(unsigned first, int error)
{
    pthread_mutex_lock(&em.lock);
    em.refuse_first = first;
    em.refuse_error = error;
    pthread_mutex_unlock(&em.lock);
}

struct wd_handle *
em_last(void)
{
    struct wd_handle *handle;

    pthread_mutex_lock(&em.lock);
    handle = em.last;
    pthread_mutex_unlock(&em.lock);
    return handle;
}

const struct wd_open *
em_open(const struct wd_handle *handle)
{
    return &handle->open;
}

int
em_descriptor(const struct wd_handle *handle)
{
    return handle->descriptor;
}

static struct packet *
make_packet(const void *data, uint32_t len, const WINDIVERT_ADDRESS *addr)
{
    struct packet *packet = calloc(1, sizeof(*packet) + len);

    demand(packet, "no memory");
    packet->addr = *addr;
    packet->len = len;
    if (len)
        memcpy(packet->data, data, len);
    return packet;
}

/* The descriptor, under the lock. */
static void
show(struct wd_handle *handle)
{
    bool readable = handle->first || handle->recv_down || handle->aborted;
    uint64_t count = 1;

    if (handle->pollable < 0 || readable == handle->shown)
        return;
    demand((readable ? write(handle->pollable, &count, sizeof(count))
                     : read(handle->pollable, &count, sizeof(count))) == sizeof(count),
           "the descriptor does not work");
    handle->shown = readable;
}

void
em_put(struct wd_handle *handle, const void *data, uint32_t len, const WINDIVERT_ADDRESS *addr)
{
    struct packet *packet = make_packet(data, len, addr);

    pthread_mutex_lock(&handle->lock);
    *handle->last = packet;
    handle->last = &packet->next;
    show(handle);
    pthread_cond_broadcast(&handle->changed);
    pthread_mutex_unlock(&handle->lock);
}

unsigned
em_queued(struct wd_handle *handle)
{
    unsigned count = 0;

    pthread_mutex_lock(&handle->lock);
    for (const struct packet *packet = handle->first; packet; packet = packet->next)
        count++;
    pthread_mutex_unlock(&handle->lock);
    return count;
}

void
em_wait_blocked(struct wd_handle *handle, unsigned threads)
{
    pthread_mutex_lock(&handle->lock);
    while (handle->blocked < threads)
        pthread_cond_wait(&handle->changed, &handle->lock);
    pthread_mutex_unlock(&handle->lock);
}

bool
em_sent(unsigned index, void *data, uint32_t *ret_len, WINDIVERT_ADDRESS *ret_addr)
{
    bool found;

    pthread_mutex_lock(&em.lock);
    found = index < em.sent_count;
    if (found) {
        memcpy(data, em.sent[index]->data, em.sent[index]->len);
        *ret_len = em.sent[index]->len;
        *ret_addr = em.sent[index]->addr;
    }
    pthread_mutex_unlock(&em.lock);
    return found;
}

unsigned
em_sent_count(void)
{
    unsigned count;

    pthread_mutex_lock(&em.lock);
    count = em.sent_count;
    pthread_mutex_unlock(&em.lock);
    return count;
}

void
em_wait_sent(unsigned count)
{
    pthread_mutex_lock(&em.lock);
    while (em.sent_count < count)
        pthread_cond_wait(&em.sent_one, &em.lock);
    pthread_mutex_unlock(&em.lock);
}

struct em_counts
em_counts(void)
{
    return (struct em_counts){opened, aborted, destroyed, forgotten, calls};
}

void
em_reset(void)
{
    pthread_mutex_lock(&em.lock);
    for (unsigned i = 0; i < em.sent_count; i++)
        free(em.sent[i]);
    em.sent_count = 0;
    memset(em.fail, 0, sizeof(em.fail));
    em.refuse_error = 0;
    em.last = NULL;
    pthread_mutex_unlock(&em.lock);
    opened = aborted = destroyed = forgotten = calls = 0;
}

/* The failure asked for, or 0. */
static int
injected(enum em_call call, struct wd_error *err)
{
    int error;

    calls++;
    pthread_mutex_lock(&em.lock);
    error = em.fail[call].error;
    if (error && em.fail[call].text)
        wd_error_set(err, error, em.fail[call].remedy, "%s", em.fail[call].text);
    pthread_mutex_unlock(&em.lock);
    return error;
}

/* ---- calls that do not wait ---------------------------------------------- */

static void
enter(struct wd_handle *handle)
{
    demand(handle && handle->alive == ALIVE, "call of a handle that is not alive");
    pthread_mutex_lock(&handle->lock);
    handle->inside++;
}

static int
leave(struct wd_handle *handle, int ret)
{
    handle->inside--;
    show(handle);
    pthread_mutex_unlock(&handle->lock);
    return ret;
}

static const char *note;

void
em_note(const char *text)
{
    note = text;
}

int
wd_engine_open(const struct wd_open *open, struct wd_handle **ret_handle, struct wd_error *err)
{
    int error = injected(EM_OPEN, err);
    pthread_condattr_t attr;
    struct wd_handle *handle;

    if (error)
        return error;
    handle = calloc(1, sizeof(*handle));
    demand(handle, "no memory");
    handle->alive = ALIVE;
    handle->open = *open;
    handle->open.object = handle->object = strdup(open->object);
    handle->pollable = -1;
    handle->descriptor = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    pthread_mutex_init(&handle->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&handle->changed, &attr);
    pthread_condattr_destroy(&attr);
    handle->last = &handle->first;
    handle->params[WINDIVERT_PARAM_QUEUE_LENGTH] = WINDIVERT_PARAM_QUEUE_LENGTH_DEFAULT;
    handle->params[WINDIVERT_PARAM_QUEUE_TIME] = WINDIVERT_PARAM_QUEUE_TIME_DEFAULT;
    handle->params[WINDIVERT_PARAM_QUEUE_SIZE] = WINDIVERT_PARAM_QUEUE_SIZE_DEFAULT;
    handle->ext_params[WINDIVERT_EXT_PARAM_HOLD_TIME] = WINDIVERT_EXT_PARAM_HOLD_TIME_DEFAULT;
    opened++;
    pthread_mutex_lock(&em.lock);
    em.last = handle;
    pthread_mutex_unlock(&em.lock);
    if (note)
        wd_error_set(err, 0, "do that", "%s", note);
    *ret_handle = handle;
    return 0;
}

int
wd_engine_shutdown(struct wd_handle *handle, WINDIVERT_SHUTDOWN how, struct wd_error *err)
{
    int error = injected(EM_SHUTDOWN, err);

    enter(handle);
    demand(how >= WINDIVERT_SHUTDOWN_RECV && how <= WINDIVERT_SHUTDOWN_MAX, "shutdown: how is out of range");
    if (!error) {
        handle->recv_down |= (how & WINDIVERT_SHUTDOWN_RECV) != 0;
        handle->send_down |= (how & WINDIVERT_SHUTDOWN_SEND) != 0;
        pthread_cond_broadcast(&handle->changed);
    }
    return leave(handle, error);
}

int
wd_engine_set_param(struct wd_handle *handle, WINDIVERT_PARAM param, UINT64 value, struct wd_error *err)
{
    int error = injected(EM_SET, err);

    enter(handle);
    demand(param <= WINDIVERT_PARAM_QUEUE_SIZE, "set_param: not settable");
    if (!error)
        handle->params[param] = value;
    return leave(handle, error);
}

int
wd_engine_get_param(struct wd_handle *handle, WINDIVERT_PARAM param, UINT64 *ret_value, struct wd_error *err)
{
    int error = injected(EM_GET, err);

    enter(handle);
    demand(param <= WINDIVERT_PARAM_QUEUE_SIZE, "get_param: unknown");
    *ret_value = error ? 0xdeadbeef : handle->params[param];
    return leave(handle, error);
}

int
wd_engine_set_ext_param(struct wd_handle *handle, WINDIVERT_EXT_PARAM param, UINT64 value, struct wd_error *err)
{
    int error = injected(EM_SET_EXT, err);

    enter(handle);
    demand(param <= WINDIVERT_EXT_PARAM_FLOW_PACKETS, "set_ext_param: unknown");
    if (!error && param == WINDIVERT_EXT_PARAM_HOLD_TIME && value > handle->params[WINDIVERT_PARAM_QUEUE_TIME])
        error = wd_error_set(err, -EINVAL, NULL, "the hold time is above the queue time");
    if (!error)
        handle->ext_params[param] = value;
    return leave(handle, error);
}

int
wd_engine_set_filter(struct wd_handle *handle, const char *object, struct wd_error *err)
{
    int error = injected(EM_SET_FILTER, err);

    enter(handle);
    if (!error) {
        free(handle->object);
        handle->open.object = handle->object = strdup(object);
        if (note)
            wd_error_set(err, 0, "do that", "%s", note);
    }
    return leave(handle, error);
}

int
wd_engine_skip_flow(struct wd_handle *handle, const uint8_t *packet, uint32_t len, struct wd_error *err)
{
    int error = injected(EM_SKIP_FLOW, err);

    enter(handle);
    if (!error && (len < 20 || packet[0] >> 4 != 4))
        error = wd_error_set(err, -EINVAL, NULL, "no packet");
    if (!error)
        handle->stats.SkippedFlows++;
    return leave(handle, error);
}

int
wd_engine_get_ext_param(struct wd_handle *handle, WINDIVERT_EXT_PARAM param, UINT64 *ret_value, struct wd_error *err)
{
    int error = injected(EM_GET_EXT, err);

    enter(handle);
    demand(param <= WINDIVERT_EXT_PARAM_FLOW_PACKETS, "get_ext_param: unknown");
    *ret_value = error ? 0xdeadbeef : handle->ext_params[param];
    return leave(handle, error);
}

void
wd_engine_get_stats(struct wd_handle *handle, WINDIVERT_EXT_STATS *ret_stats)
{
    enter(handle);
    *ret_stats = handle->stats;
    leave(handle, 0);
}

int
wd_engine_explain(const struct wd_open *open, bool programs, char **ret_text, struct wd_error *err)
{
    if (open->layer > WINDIVERT_LAYER_NETWORK_FORWARD)
        return wd_error_set(err, -EOPNOTSUPP, NULL, "no programs");
    *ret_text = strdup(programs ? "explained, with programs" : "explained");
    return *ret_text ? 0 : -ENOMEM;
}

/* ---- receive ------------------------------------------------------------- */

static bool
is_over(int64_t deadline)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return deadline && deadline <= (int64_t)now.tv_sec * 10000000 + now.tv_nsec / 100;
}

/* False: the deadline has passed. */
static bool
wait_for_packet(struct wd_handle *handle, int64_t deadline)
{
    const struct timespec end = {.tv_sec = deadline / 10000000, .tv_nsec = deadline % 10000000 * 100};
    bool late = false;

    handle->blocked++;
    pthread_cond_broadcast(&handle->changed); /* for em_wait_blocked */
    while (!handle->first && !handle->recv_down && !handle->aborted && !(late = is_over(deadline))) {
        if (deadline)
            pthread_cond_timedwait(&handle->changed, &handle->lock, &end);
        else
            pthread_cond_wait(&handle->changed, &handle->lock);
    }
    handle->blocked--;
    return !late;
}

static void
store(struct wd_recv *io, const struct packet *packet, uint32_t len)
{
    if (io->buf && len)
        memcpy(io->buf + io->ret_len, packet->data, len);
    if (io->addr)
        io->addr[io->ret_count] = packet->addr;
    io->ret_len += io->buf ? len : 0;
    io->ret_count++;
}

static void
pop(struct wd_handle *handle)
{
    struct packet *packet = handle->first;

    handle->first = packet->next;
    if (!handle->first)
        handle->last = &handle->first;
    free(packet);
    handle->stats.Delivered++;
}

static int
take_packets(struct wd_handle *handle, struct wd_recv *io)
{
    io->ret_len = io->ret_count = 0;
    if (io->buf && handle->first->len > io->buf_len) {
        store(io, handle->first, io->buf_len);
        pop(handle);
        return -EMSGSIZE;
    }
    while (handle->first && io->ret_count < io->addr_count &&
           (!io->buf || handle->first->len <= io->buf_len - io->ret_len)) {
        store(io, handle->first, handle->first->len);
        pop(handle);
    }
    return 0;
}

int
wd_engine_recv(struct wd_handle *handle, struct wd_recv *io, struct wd_error *err)
{
    int ret = injected(EM_RECV, err);

    demand(io->buf || io->buf_len == 0, "recv: a length without a buffer");
    demand(io->addr_count >= 1 && io->addr_count <= WINDIVERT_BATCH_MAX, "recv: bad count");
    io->ret_len = io->ret_count = 0xdead;
    enter(handle);
    demand(!(handle->open.flags & (WINDIVERT_FLAG_DROP | WINDIVERT_FLAG_SEND_ONLY)), "recv: not with these flags");
    if (!ret && !wait_for_packet(handle, io->deadline))
        ret = -ETIMEDOUT;
    if (!ret && handle->aborted)
        ret = -ECANCELED;
    if (!ret)
        ret = handle->first ? take_packets(handle, io) : -ENODATA;
    return leave(handle, ret);
}

int
wd_engine_get_fd(struct wd_handle *handle, int *ret_fd, struct wd_error *err)
{
    int error = injected(EM_GET_FD, err);

    enter(handle);
    if (!error && handle->pollable < 0)
        handle->pollable = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    *ret_fd = error ? -77 : handle->pollable;
    return leave(handle, error);
}

/* ---- send ---------------------------------------------------------------- */

/* The length that the IP header at buf tells; 0: it is no packet, or longer than the buffer. */
static uint32_t
packet_len(const uint8_t *buf, uint32_t room)
{
    uint32_t len = 0;

    if (room >= 20 && buf[0] >> 4 == 4)
        len = (uint32_t)buf[2] << 8 | buf[3];
    else if (room >= 40 && buf[0] >> 4 == 6)
        len = 40 + ((uint32_t)buf[4] << 8 | buf[5]);
    return len >= 20 && len <= room ? len : 0;
}

static int
send_one(struct wd_handle *handle, const uint8_t *data, uint32_t room, const WINDIVERT_ADDRESS *addr, unsigned index,
         struct wd_error *err)
{
    uint32_t len = packet_len(data, room);
    int refused;

    if (!len)
        return wd_error_set(err, -EINVAL, NULL, "packet %u is malformed", index);
    pthread_mutex_lock(&em.lock);
    refused = em.refuse_error && index >= em.refuse_first ? em.refuse_error : 0;
    if (!refused) {
        demand(em.sent_count < SENT_MAX, "the test sends too much");
        em.sent[em.sent_count++] = make_packet(data, len, addr);
        pthread_cond_broadcast(&em.sent_one);
    }
    pthread_mutex_unlock(&em.lock);
    handle->stats.Injected += !refused;
    return refused ? refused : (int)len;
}

static int
send_all(struct wd_handle *handle, struct wd_send *io, struct wd_error *err)
{
    uint32_t len = 0, count;

    for (count = 0; count < io->addr_count; count++) {
        int ret = send_one(handle, io->buf + len, io->buf_len - len, &io->addr[count], count, err);

        if (ret < 0 && count == 0)
            return ret;
        if (ret < 0)
            break;
        len += (uint32_t)ret;
    }
    io->ret_len = len;
    io->ret_count = count;
    return 0;
}

int
wd_engine_send(struct wd_handle *handle, struct wd_send *io, struct wd_error *err)
{
    int ret = injected(EM_SEND, err);

    demand(io->buf && io->addr && io->buf_len, "send: nothing to send");
    demand(io->addr_count >= 1 && io->addr_count <= WINDIVERT_BATCH_MAX, "send: bad count");
    io->ret_len = io->ret_count = 0xdead;
    enter(handle);
    demand(!(handle->open.flags & WINDIVERT_FLAG_RECV_ONLY), "send: not with these flags");
    if (!ret && handle->aborted)
        ret = -ECANCELED;
    if (!ret && handle->send_down)
        ret = -ESHUTDOWN;
    if (!ret)
        ret = send_all(handle, io, err);
    return leave(handle, ret);
}

/* ---- the end ------------------------------------------------------------- */

void
wd_engine_abort(struct wd_handle *handle)
{
    enter(handle);
    demand(!handle->aborted, "aborted twice");
    handle->aborted = true;
    aborted++;
    pthread_cond_broadcast(&handle->changed);
    leave(handle, 0);
}

void
wd_engine_destroy(struct wd_handle *handle)
{
    enter(handle);
    demand(handle->aborted, "destroyed without abort");
    demand(handle->inside == 1, "destroyed with somebody inside");
    leave(handle, 0);
    while (handle->first)
        pop(handle);
    close(handle->descriptor);
    if (handle->pollable >= 0)
        close(handle->pollable);
    pthread_cond_destroy(&handle->changed);
    pthread_mutex_destroy(&handle->lock);
    free(handle->object);
    handle->alive = 0;
    free(handle);
    destroyed++;
}

void
wd_engine_forget(struct wd_handle *handle)
{
    demand(handle && handle->alive == ALIVE, "forgets a handle that is not alive");
    close(handle->descriptor);
    if (handle->pollable >= 0)
        close(handle->pollable);
    handle->alive = 0;
    forgotten++;
}
