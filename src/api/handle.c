/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "handle.h"

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "event.h"
#include "pending.h"

/*
 * A HANDLE:
 *
 *     | generation (50 bits; 18 where pointers have 32) | slot (12 bits) | 0 0 |
 *
 * The generation of a slot only ever grows, by one with each opening and by a
 * random leap in a forked child, and starts at a random point in each process:
 * a stale value never equals a newer one, and one of another process only by
 * accident (2^-48; 2^-38 between children of one process).  A slot whose generations are used up stays unused.
 * Slot 0 does not exist, so no value is NULL; the low bits keep every value
 * different from INVALID_HANDLE_VALUE.
 */
#define SLOT_SHIFT 2
#define SLOT_BITS 12
#define SLOTS ((uintptr_t)1 << SLOT_BITS)
#define GENERATION_SHIFT (SLOT_SHIFT + SLOT_BITS)
#define GENERATION_MAX (UINTPTR_MAX >> GENERATION_SHIFT)

/*
 * state: bit 31: open; below it: how many threads are inside.  Entering adds
 * one, looks whether the slot is open with the value asked for, and takes the
 * one away again where it is not.  value, engine, layer and flags are written
 * before the open bit is set and stay until it is clear and nobody is inside,
 * so whoever has counted himself in and seen the bit may read them.  used and
 * opens belong to table.lock.  A cache line each: handles do not slow each
 * other down.
 */
#define OPEN 0x80000000u
struct wd_slot {
    alignas(64) _Atomic uint32_t state;
    WINDIVERT_LAYER layer;
    uintptr_t value;
    struct wd_handle *engine;
    UINT64 flags;
    uintptr_t opens;
    struct wd_pending *_Atomic pending;
    bool used; /* from before the engine opens to after it has destroyed */
};

static struct wd_slot slots[SLOTS];

static struct {
    pthread_mutex_t lock;
    pthread_cond_t idle;  /* holds has become 0 */
    pthread_cond_t left;  /* the last call has left a closed slot */
    unsigned holds;       /* wd_handle_hold_fork without its release */
    uintptr_t generation; /* of a slot never opened */
    uintptr_t top;        /* highest slot ever used */
} table = {.lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER, .left = PTHREAD_COND_INITIALIZER};

static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static int prepare_error;

/* Not a secret: it only makes values of two processes differ. */
static uintptr_t
random_below(uintptr_t limit)
{
    uintptr_t value = 0;
    struct timespec now;

    if (getrandom(&value, sizeof(value), GRND_NONBLOCK) != sizeof(value)) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        value = (uintptr_t)now.tv_nsec * 2654435761u + (uintptr_t)getpid();
    }
    return value % limit;
}

/* ---- fork -------------------------------------------------------------- */

/* Waits until no engine handle is half-way; the locks are kept until after the fork. */
static void
before_fork(void)
{
    pthread_mutex_lock(&table.lock);
    while (table.holds)
        pthread_cond_wait(&table.idle, &table.lock);
    for (uintptr_t i = 1; i <= table.top; i++)
        if (slots[i].pending)
            wd_pending_hold(slots[i].pending);
    wd_event_hold_fork();
}

static void
after_fork_parent(void)
{
    wd_event_release_fork();
    for (uintptr_t i = 1; i <= table.top; i++)
        if (slots[i].pending)
            wd_pending_release(slots[i].pending);
    pthread_mutex_unlock(&table.lock);
}

/*
 * Only the forking thread exists here, so nobody is inside any call, whatever
 * the counters said.  Handles that another thread of the parent was closing
 * still have an engine and are forgotten with the rest.  The conditions are
 * made anew, as they may remember waiters that are not here.
 */
static void
after_fork_child(void)
{
    for (uintptr_t i = 1; i <= table.top; i++) {
        if (slots[i].pending)
            wd_pending_forget(slots[i].pending);
        if (slots[i].used)
            wd_engine_forget(slots[i].engine);
        slots[i].pending = NULL;
        slots[i].used = false;
        slots[i].engine = NULL;
        atomic_store_explicit(&slots[i].state, 0, memory_order_relaxed);
    }
    table.generation += 1 + random_below(GENERATION_MAX >> 12);
    pthread_cond_init(&table.idle, NULL);
    pthread_cond_init(&table.left, NULL);
    wd_event_forget();
    pthread_mutex_unlock(&table.lock);
}

static void
prepare(void)
{
    table.generation = random_below(GENERATION_MAX >> 2);
    prepare_error = pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

BOOL
wd_handle_prepare(void)
{
    pthread_once(&prepared, prepare);
    return prepare_error ? wd_api_fail_errno(-prepare_error, NULL) : TRUE;
}

void
wd_handle_hold_fork(void)
{
    pthread_mutex_lock(&table.lock);
    table.holds++;
    pthread_mutex_unlock(&table.lock);
}

void
wd_handle_release_fork(void)
{
    pthread_mutex_lock(&table.lock);
    if (--table.holds == 0)
        pthread_cond_broadcast(&table.idle);
    pthread_mutex_unlock(&table.lock);
}

/* ---- slots ------------------------------------------------------------- */

/* The lowest free slot, taken; NULL: there is none. */
static struct wd_slot *
take_slot(void)
{
    struct wd_slot *slot = NULL;

    pthread_mutex_lock(&table.lock);
    for (uintptr_t i = 1; i < SLOTS && !slot; i++) {
        uintptr_t generation = table.generation + slots[i].opens;

        if (slots[i].used || generation > GENERATION_MAX)
            continue;
        slot = &slots[i];
        slot->used = true;
        slot->opens++;
        slot->value = generation << GENERATION_SHIFT | i << SLOT_SHIFT;
        table.top = i > table.top ? i : table.top;
    }
    pthread_mutex_unlock(&table.lock);
    return slot;
}

static void
free_slot(struct wd_slot *slot)
{
    pthread_mutex_lock(&table.lock);
    slot->engine = NULL;
    slot->used = false;
    pthread_mutex_unlock(&table.lock);
}

/* Takes the caller off the count; the last one to leave a closed slot wakes who closes it. */
static void
leave_slot(struct wd_slot *slot)
{
    if (atomic_fetch_sub_explicit(&slot->state, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_lock(&table.lock);
    pthread_cond_broadcast(&table.left);
    pthread_mutex_unlock(&table.lock);
}

static void
wait_until_left(struct wd_slot *slot)
{
    pthread_mutex_lock(&table.lock);
    while (atomic_load_explicit(&slot->state, memory_order_acquire))
        pthread_cond_wait(&table.left, &table.lock);
    pthread_mutex_unlock(&table.lock);
}

static BOOL
fail_handle(HANDLE handle)
{
    if (!handle)
        return wd_api_fail(ERROR_INVALID_HANDLE, NULL, "the handle is NULL");
    if (handle == INVALID_HANDLE_VALUE)
        return wd_api_fail(ERROR_INVALID_HANDLE, "look at what WinDivertOpen returned before using it",
                           "the handle is INVALID_HANDLE_VALUE");
    return wd_api_fail(ERROR_INVALID_HANDLE, NULL, "the handle is not open: closed, from before a fork, or not ours");
}

/* ---- open, enter, leave, close ----------------------------------------- */

/* Fork is held, so that a child sees the slot either unused or with its engine. */
static int
open_in_slot(struct wd_slot *slot, const struct wd_open *open, struct wd_error *err)
{
    int ret = wd_engine_open(open, &slot->engine, err);

    if (ret) {
        free_slot(slot);
        return ret;
    }
    slot->layer = open->layer;
    slot->flags = open->flags;
    return 0;
}

BOOL
wd_handle_open(const struct wd_open *open, HANDLE *ret_handle)
{
    struct wd_error err = {.text = "", .remedy = ""};
    struct wd_slot *slot;
    int ret;

    if (!wd_handle_prepare())
        return FALSE;
    wd_handle_hold_fork();
    slot = take_slot();
    ret = slot ? open_in_slot(slot, open, &err) : 0;
    if (slot && !ret) {
        *ret_handle = (HANDLE)slot->value;
        atomic_fetch_or_explicit(&slot->state, OPEN, memory_order_release);
    }
    wd_handle_release_fork();

    if (!slot)
        return wd_api_fail(ERROR_NO_SYSTEM_RESOURCES, "close handles that are not needed",
                           "the process has %u handles open, which is the limit", (unsigned)SLOTS - 1);
    return wd_api_result(ret, &err);
}

BOOL
wd_handle_enter(HANDLE handle, struct wd_use *ret_use)
{
    uintptr_t value = (uintptr_t)handle;
    struct wd_slot *slot = &slots[value >> SLOT_SHIFT & (SLOTS - 1)];
    uint32_t state;
    int cancel_state;

    if (slot == slots || handle == INVALID_HANDLE_VALUE)
        return fail_handle(handle);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    state = atomic_fetch_add_explicit(&slot->state, 1, memory_order_acquire);
    if (!(state & OPEN) || slot->value != value) {
        leave_slot(slot);
        pthread_setcancelstate(cancel_state, NULL);
        return fail_handle(handle);
    }
    *ret_use = (struct wd_use){slot->engine, slot->layer, slot->flags, slot, cancel_state};
    return TRUE;
}

void
wd_handle_leave(struct wd_use *use)
{
    leave_slot(use->slot);
    pthread_setcancelstate(use->cancel_state, NULL);
}

struct wd_pending *
wd_handle_pending(const struct wd_use *use)
{
    return atomic_load_explicit(&use->slot->pending, memory_order_acquire);
}

struct wd_pending *
wd_handle_make_pending(const struct wd_use *use)
{
    static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
    struct wd_error err = {.text = "", .remedy = ""};
    struct wd_pending *pending;
    int error = 0;

    wd_handle_hold_fork();
    pthread_mutex_lock(&making);
    pending = wd_handle_pending(use);
    if (!pending) {
        error = wd_pending_new(use->engine, &pending, &err);
        if (!error)
            atomic_store_explicit(&use->slot->pending, pending, memory_order_release);
    }
    pthread_mutex_unlock(&making);
    wd_handle_release_fork();
    if (error) {
        wd_api_fail_errno(error, &err);
        return NULL;
    }
    return pending;
}

/* Nobody is inside any more and nobody can come in. */
static void
destroy(struct wd_slot *slot)
{
    wd_handle_hold_fork();
    wd_pending_free(slot->pending);
    slot->pending = NULL;
    wd_engine_destroy(slot->engine);
    free_slot(slot);
    wd_handle_release_fork();
}

BOOL
wd_handle_close(HANDLE handle)
{
    struct wd_use use;

    if (!wd_handle_enter(handle, &use))
        return FALSE;
    if (!(atomic_fetch_and_explicit(&use.slot->state, ~OPEN, memory_order_acq_rel) & OPEN)) {
        wd_handle_leave(&use);
        return fail_handle(handle);
    }
    wd_handle_hold_fork();
    wd_engine_abort(use.engine);
    wd_handle_release_fork();
    leave_slot(use.slot);
    wait_until_left(use.slot);
    destroy(use.slot);
    pthread_setcancelstate(use.cancel_state, NULL);
    return TRUE;
}
