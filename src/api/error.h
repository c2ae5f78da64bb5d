/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * How a call of the programming interface fails: the Win32 code, the text and
 * the remedy of the calling thread, set in one place each.
 */
#ifndef WD_API_ERROR_H
#define WD_API_ERROR_H

#include "core/error.h"
#include "windivert.h"

/*
 * Sets code, text and remedy (NULL: none) of the calling thread and returns
 * FALSE, so that a failure is one line:
 *     return wd_api_fail(ERROR_INVALID_PARAMETER, NULL, "flags is 0x%x, not 0", flags);
 */
BOOL wd_api_fail(DWORD code, const char *remedy, const char *format, ...) __attribute__((format(printf, 3, 4)));

/*
 * The same from what the engine answered: error is a negative errno, err the
 * text that came with it.  Where err is NULL or its text empty, the text is
 * that of the error code.
 */
BOOL wd_api_fail_errno(int error, const struct wd_error *err);

/*
 * What a call that succeeded has to say all the same: text and remedy of the
 * calling thread, with the code NO_ERROR.
 */
void wd_api_note(const struct wd_error *err);
/* The result of a call of the engine: fails, or notes what there is to be known. */
BOOL wd_api_result(int error, const struct wd_error *err);

/* Fails with a code alone; the text is that of the code. */
BOOL wd_api_fail_code(DWORD code);

/* The Win32 code of a negative errno: the table of engine.h; 31 for all it does not name. */
DWORD wd_api_code(int error);

#endif
