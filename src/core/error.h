/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* An error for people: what failed and why, and what to do about it. */
#ifndef WD_CORE_ERROR_H
#define WD_CORE_ERROR_H

struct wd_error {
    char text[512];
    char remedy[256];
};

/*
 * Fills *error (may be NULL) and returns code, so that a failure is one line:
 *     return wd_error_set(err, -EPERM, "run as root", "bind to queue %u: %s", n, strerror(e));
 * remedy: static text, NULL for none.
 */
int wd_error_set(struct wd_error *error, int code, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
