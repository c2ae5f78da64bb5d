/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

int
wd_error_set(struct wd_error *error, int code, const char *remedy, const char *format, ...)
{
    va_list args;

    if (!error)
        return code;
    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    snprintf(error->remedy, sizeof(error->remedy), "%s", remedy ? remedy : "");
    return code;
}
