/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "event.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "handle.h"

/* A HANDLE of an event: | generation | slot (12 bits) | 1 0 |; those of WinDivertOpen end in 0 0 (handle.c). */
#define KIND 2u
#define KIND_MASK 3u
#define SLOT_SHIFT 2
#define SLOT_BITS 12
#define SLOTS (1u << SLOT_BITS)
#define GENERATION_SHIFT (SLOT_SHIFT + SLOT_BITS)

#define PER_SECOND 10000000
#define PER_MS 10000
#define WIN32_STATUS ((ULONG_PTR)0xC0070000) /* the NTSTATUS of a Win32 code */
#define CODE_MASK 0xFFFFu

/* set is the truth; the descriptor, readable while it holds, is for those who wait. */
struct event {
    uintptr_t value; /* 0: free */
    int fd;
    bool manual, set;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t ended; /* an overlapped operation */
    unsigned waiters;
    uintptr_t generation;
    unsigned top;
    struct event slots[SLOTS];
} events = {.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};

static int64_t
now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * PER_SECOND + time.tv_nsec / 100;
}

int64_t
wd_event_deadline(DWORD milliseconds)
{
    if (milliseconds == INFINITE)
        return 0;
    return milliseconds ? now() + (int64_t)milliseconds * PER_MS : 1;
}

struct timespec
wd_event_timespec(int64_t time)
{
    return (struct timespec){.tv_sec = time / PER_SECOND, .tv_nsec = time % PER_SECOND * 100};
}

/* ---- events -------------------------------------------------------------- */

static struct event *
find(HANDLE handle)
{
    uintptr_t value = (uintptr_t)handle;
    struct event *event = &events.slots[value >> SLOT_SHIFT & (SLOTS - 1)];

    return (value & KIND_MASK) == KIND && event->value == value ? event : NULL;
}

static void
put(struct event *event, bool set)
{
    uint64_t count = 1;

    if (event->set == set)
        return;
    event->set = set;
    if (set ? write(event->fd, &count, sizeof(count)) < 0 : read(event->fd, &count, sizeof(count)) < 0) {
        /* Cannot fail: it is written once, and read only after that. */
    }
}

static BOOL
fail_event(void)
{
    return wd_api_fail(ERROR_INVALID_HANDLE, NULL,
                       "the handle is not an event: closed, from before a fork, or not ours");
}

static HANDLE
take_slot(int fd, bool manual)
{
    unsigned i = 1;

    while (i < SLOTS && events.slots[i].value)
        i++;
    if (i == SLOTS)
        return NULL;
    events.top = i > events.top ? i : events.top;
    events.slots[i] = (struct event){
        .value = ++events.generation << GENERATION_SHIFT | i << SLOT_SHIFT | KIND, .fd = fd, .manual = manual};
    return (HANDLE)events.slots[i].value;
}

HANDLE
CreateEventA(LPVOID attributes, BOOL manualReset, BOOL initialState, LPCSTR name)
{
    HANDLE handle = NULL;
    int fd;

    (void)attributes;
    if (name) {
        wd_api_fail(ERROR_NOT_SUPPORTED, "pass NULL", "an event with a name");
        return NULL;
    }
    if (!wd_handle_prepare())
        return NULL;
    pthread_mutex_lock(&events.lock); /* so that no child has the descriptor without knowing it */
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd >= 0)
        handle = take_slot(fd, manualReset);
    if (handle)
        put(find(handle), initialState);
    pthread_mutex_unlock(&events.lock);
    if (handle)
        return handle;
    if (fd >= 0)
        close(fd);
    wd_api_fail(ERROR_NO_SYSTEM_RESOURCES, "close events that are not needed, or raise the limit of open files",
                "no event can be made");
    return NULL;
}

static BOOL
change(HANDLE handle, bool set)
{
    struct event *event;

    pthread_mutex_lock(&events.lock);
    event = find(handle);
    if (event)
        put(event, set);
    pthread_mutex_unlock(&events.lock);
    return event ? TRUE : fail_event();
}

BOOL
SetEvent(HANDLE event)
{
    return change(event, true);
}

BOOL
ResetEvent(HANDLE event)
{
    return change(event, false);
}

BOOL
CloseHandle(HANDLE object)
{
    struct event *event;

    if (((uintptr_t)object & KIND_MASK) != KIND)
        return WinDivertClose(object);
    pthread_mutex_lock(&events.lock);
    event = find(object);
    if (event) {
        close(event->fd);
        event->value = 0;
    }
    pthread_mutex_unlock(&events.lock);
    return event ? TRUE : fail_event();
}

/* ---- waiting ------------------------------------------------------------- */

struct wait {
    DWORD count;
    bool all;
    struct event *event[MAXIMUM_WAIT_OBJECTS];
    struct pollfd unset[MAXIMUM_WAIT_OBJECTS];
    nfds_t unset_count;
};

/* Under the lock, which makes it all at once: takes one or all, if they are set; their number; -1: not yet. */
static int
take(struct wait *wait)
{
    int first = -1;

    wait->unset_count = 0;
    for (DWORD i = 0; i < wait->count; i++) {
        if (!wait->event[i]->set)
            wait->unset[wait->unset_count++] = (struct pollfd){.fd = wait->event[i]->fd, .events = POLLIN};
        else if (first < 0)
            first = (int)i;
    }
    if (first < 0 || (wait->all && wait->unset_count))
        return -1;
    for (DWORD i = 0; i < wait->count; i++)
        if ((wait->all || (int)i == first) && !wait->event[i]->manual)
            put(wait->event[i], false);
    return first;
}

/* -2 with the last error set: there is one that is no event. */
static int
look_up_and_take(struct wait *wait, const HANDLE *handles)
{
    int taken = 0;

    pthread_mutex_lock(&events.lock);
    for (DWORD i = 0; i < wait->count && taken == 0; i++) {
        wait->event[i] = find(handles[i]);
        if (!wait->event[i])
            taken = -2;
        for (DWORD j = 0; j < i && wait->all && taken == 0; j++)
            if (wait->event[i] == wait->event[j])
                taken = -3;
    }
    if (taken == 0)
        taken = take(wait);
    pthread_mutex_unlock(&events.lock);
    if (taken == -2)
        fail_event();
    if (taken == -3)
        wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "an event is there twice, and all are waited for");
    return taken;
}

DWORD
WaitForMultipleObjects(DWORD count, const HANDLE *handles, BOOL all, DWORD milliseconds)
{
    const int64_t deadline = wd_event_deadline(milliseconds);
    struct wait wait = {.count = count, .all = all};

    if (!handles || count == 0 || count > MAXIMUM_WAIT_OBJECTS) {
        wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "waits for %u events, not 1 to %d", count, MAXIMUM_WAIT_OBJECTS);
        return WAIT_FAILED;
    }
    for (;;) {
        int taken = look_up_and_take(&wait, handles);
        int64_t left = deadline - now();
        const struct timespec time = wd_event_timespec(left > 0 ? left : 0);

        if (taken < -1)
            return WAIT_FAILED;
        if (taken >= 0)
            return WAIT_OBJECT_0 + (all ? 0 : (DWORD)taken);
        if (deadline && left <= 0)
            return WAIT_TIMEOUT;
        ppoll(wait.unset, wait.unset_count, deadline ? &time : NULL, NULL);
    }
}

DWORD
WaitForSingleObject(HANDLE event, DWORD milliseconds)
{
    return WaitForMultipleObjects(1, &event, FALSE, milliseconds);
}

/* ---- overlapped operations ------------------------------------------------ */

/* The lowest bit of hEvent has a meaning on Windows (no completion packet). */
static HANDLE
event_of(const OVERLAPPED *overlapped)
{
    return (HANDLE)((uintptr_t)overlapped->hEvent & ~(uintptr_t)1);
}

BOOL
wd_overlapped_begin(OVERLAPPED *overlapped)
{
    HANDLE event = event_of(overlapped);

    if (event && !ResetEvent(event))
        return FALSE;
    overlapped->InternalHigh = 0;
    __atomic_store_n(&overlapped->Internal, (ULONG_PTR)STATUS_PENDING, __ATOMIC_RELEASE);
    return TRUE;
}

void
wd_overlapped_end(OVERLAPPED *overlapped, DWORD code, uint32_t bytes)
{
    struct event *event;

    pthread_mutex_lock(&events.lock);
    event = find(event_of(overlapped));
    overlapped->InternalHigh = bytes;
    __atomic_store_n(&overlapped->Internal, code ? WIN32_STATUS | code : 0, __ATOMIC_RELEASE);
    if (event)
        put(event, true);
    if (events.waiters)
        pthread_cond_broadcast(&events.ended);
    pthread_mutex_unlock(&events.lock);
}

/* Also takes an event that one wait takes: on Windows it is that which is waited for. */
static void
wait_until_ended(OVERLAPPED *overlapped)
{
    struct event *event;
    int cancel_state;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    pthread_mutex_lock(&events.lock);
    events.waiters++;
    while (!HasOverlappedIoCompleted(overlapped))
        pthread_cond_wait(&events.ended, &events.lock);
    events.waiters--;
    event = find(event_of(overlapped));
    if (event && !event->manual)
        put(event, false);
    pthread_mutex_unlock(&events.lock);
    pthread_setcancelstate(cancel_state, NULL);
}

BOOL
GetOverlappedResult(HANDLE handle, LPOVERLAPPED overlapped, LPDWORD bytes, BOOL wait)
{
    struct wd_use use;
    DWORD code;

    if (!overlapped || !bytes)
        return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "%s is NULL", overlapped ? "bytes" : "overlapped");
    if (!HasOverlappedIoCompleted(overlapped)) {
        bool open = wd_handle_enter(handle, &use);

        if (open)
            wd_handle_leave(&use); /* Close ends what is pending */
        if (!open && !HasOverlappedIoCompleted(overlapped))
            return FALSE;
        if (open && !wait && !HasOverlappedIoCompleted(overlapped))
            return wd_api_fail(ERROR_IO_INCOMPLETE, NULL, "the operation has not ended");
        wait_until_ended(overlapped);
    }
    code = (DWORD)__atomic_load_n(&overlapped->Internal, __ATOMIC_ACQUIRE) & CODE_MASK;
    *bytes = (DWORD)overlapped->InternalHigh;
    return code ? wd_api_fail_code(code) : TRUE;
}

/* ---- fork ----------------------------------------------------------------- */

void
wd_event_hold_fork(void)
{
    pthread_mutex_lock(&events.lock);
}

void
wd_event_release_fork(void)
{
    pthread_mutex_unlock(&events.lock);
}

/* The lock is held, by the thread that forked. */
void
wd_event_forget(void)
{
    for (unsigned i = 1; i <= events.top; i++) {
        if (events.slots[i].value)
            close(events.slots[i].fd);
        events.slots[i].value = 0;
    }
    events.waiters = 0;
    events.generation += SLOTS;
    pthread_cond_init(&events.ended, NULL);
    pthread_mutex_unlock(&events.lock);
}

void
wd_overlapped_forget(OVERLAPPED *overlapped)
{
    overlapped->Internal = WIN32_STATUS | ERROR_OPERATION_ABORTED;
}
