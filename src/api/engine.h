/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * The seam between the programming interface and what does the work: the API
 * validates and translates, the engine diverts.  The Linux engine implements
 * these functions in src/linux; unit tests link an in-memory one instead.
 *
 * All functions return 0 or a negative errno and may fill *err (may be NULL)
 * with a text for people.  Arguments are already validated: flags and layer
 * fit together, buffers are not NULL where they may not be, counts are in
 * range.  Any number of threads may be in recv, send, set and get of one
 * handle; shutdown wakes them; destroy is called once, when nobody is inside.
 * No fork falls into open, get_fd, shutdown, set_param, abort or destroy: whatever
 * descriptors a handle has, it has them before or after those.
 *
 *   errno        meaning here                                  Win32 code
 *   EACCES/EPERM lacks privilege                               5
 *   ENOENT       NO_INSTALL and no handle is open              1060
 *   EINVAL       malformed packet, value out of range          87
 *   EOPNOTSUPP   not possible on this system                   50
 *   EMSGSIZE     recv: the packet was larger than the buffer   122
 *   ENODATA      recv: shut down and drained                   232
 *   ESHUTDOWN    shut down for what the call wants             232
 *   ETIMEDOUT    recv: nothing came before the deadline        258
 *   ECANCELED    the handle was closed under the call          995
 *   ENETUNREACH  no route                                      1231
 *   EHOSTUNREACH impostor's hop limit reached zero             1232
 *   ENOMEM       no memory                                     8
 *   ENOBUFS, EMFILE, ENFILE, ENOSPC  no resources              1450
 *   anything else: the kernel refused                          31
 */
#ifndef WD_API_ENGINE_H
#define WD_API_ENGINE_H

#include <stdbool.h>

#include "core/error.h"
#include "windivert.h"
#include "windivert_ext.h"

struct wd_handle;

struct wd_open {
    const char
        *object; /* the compiled filter as an object string (wd_filter_object); the engine compiles its own copy */
    WINDIVERT_LAYER layer;
    INT16 priority;
    UINT64 flags;
};

/*
 * One receive or one send: packets packed without gaps in buf, one address
 * each.  recv: buf_len and addr_count are the room there is (buf and addr may
 * be NULL: then nothing of that kind is stored, and buf_len is 0; a packet
 * without a buf is taken and not too large); ret_len and ret_count are 0 before
 * and say on return what was used.  recv blocks until there is at least one
 * packet; it never splits one.  A first packet larger than buf_len: -EMSGSIZE
 * with the first buf_len bytes, its address, and len = buf_len, count = 1: the
 * packet counts as received.
 */
struct wd_recv {
    uint8_t *buf;
    uint32_t buf_len;
    WINDIVERT_ADDRESS *addr;
    uint32_t addr_count; /* 1..255 */
    int64_t deadline;    /* CLOCK_MONOTONIC, 100 ns; 0: none; in the past: does not block */
    uint32_t ret_len;
    uint32_t ret_count;
};

/*
 * send: addr_count packets in buf.  Stops at the first refused packet; ret_len
 * and ret_count say how much was sent; the result is an error only where not
 * one was.
 */
struct wd_send {
    const uint8_t *buf;
    uint32_t buf_len;
    const WINDIVERT_ADDRESS *addr;
    uint32_t addr_count; /* 1..255 */
    uint32_t ret_len;
    uint32_t ret_count;
};

/* Open may succeed with a text in *err: what the program should know of the handle (else *err is left empty). */
int wd_engine_open(const struct wd_open *open, struct wd_handle **ret_handle, struct wd_error *err);
int wd_engine_recv(struct wd_handle *handle, struct wd_recv *io, struct wd_error *err);
/*
 * A descriptor, the same with each call, the handle's, of a handle that
 * receives: readable (level-triggered) while recv would not block, for packets
 * that then prove not to match once too often.  It is made by the first call,
 * which falls into no fork either.
 */
int wd_engine_get_fd(struct wd_handle *handle, int *ret_fd, struct wd_error *err);
int wd_engine_send(struct wd_handle *handle, struct wd_send *io, struct wd_error *err);
int wd_engine_shutdown(struct wd_handle *handle, WINDIVERT_SHUTDOWN how, struct wd_error *err);
int wd_engine_set_param(struct wd_handle *handle, WINDIVERT_PARAM param, UINT64 value, struct wd_error *err);
int wd_engine_get_param(struct wd_handle *handle, WINDIVERT_PARAM param, UINT64 *ret_value, struct wd_error *err);
int wd_engine_set_ext_param(struct wd_handle *handle, WINDIVERT_EXT_PARAM param, UINT64 value, struct wd_error *err);
int wd_engine_get_ext_param(struct wd_handle *handle, WINDIVERT_EXT_PARAM param, UINT64 *ret_value,
                            struct wd_error *err);
/*
 * Another filter (an object, as that of open) from now on, or on an error the
 * same.  ESHUTDOWN: shut down for receiving.  May succeed with a text, as open.
 */
int wd_engine_set_filter(struct wd_handle *handle, const char *object, struct wd_error *err);
/* The rest of the packet's flow does not match; EINVAL: no packet, or one that belongs to no flow. */
int wd_engine_skip_flow(struct wd_handle *handle, const uint8_t *packet, uint32_t len, struct wd_error *err);
void wd_engine_get_stats(struct wd_handle *handle, WINDIVERT_EXT_STATS *ret_stats);

/*
 * What such a handle would put into the kernel, as text for people, malloc'ed;
 * with the instructions of the programs where asked for.  Opens nothing.
 * -EOPNOTSUPP at the layers that have no programs.
 */
int wd_engine_explain(const struct wd_open *open, bool programs, char **ret_text, struct wd_error *err);

/*
 * Close is two steps: abort makes the handle take no more packets and wakes
 * every blocked call with -ECANCELED; destroy, called when the last call has
 * left, lets queued packets go on, and frees everything.
 */
void wd_engine_abort(struct wd_handle *handle);
void wd_engine_destroy(struct wd_handle *handle);

/*
 * In a forked child: forget the handle; close its descriptors without touching
 * what the parent shares (the parent's handle goes on).  Async-signal-safe.
 */
void wd_engine_forget(struct wd_handle *handle);

#endif
