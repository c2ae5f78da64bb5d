/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "windivert_ext.h"

#define SHOWN 72 /* columns of a filter shown around an error */

const char *tool_name = "?";

void
complain(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", tool_name, what, why);
}

void
complain_last_error(void)
{
    const char *remedy = WinDivertExtGetLastErrorRemedy();

    fprintf(stderr, "%s: %s (error %u)\n", tool_name, WinDivertExtGetLastErrorText(), (unsigned int)GetLastError());
    if (remedy[0])
        fprintf(stderr, "%s: what to do: %s\n", tool_name, remedy);
}

/* One line of the filter around the byte at pos, control characters as blanks, a caret below that byte. */
static void
show_place(const char *filter, size_t pos)
{
    size_t len = strlen(filter), start = pos > SHOWN / 2 ? pos - SHOWN / 2 : 0, column = 0;
    size_t end = len - start > SHOWN ? start + SHOWN : len;

    fprintf(stderr, "  %s", start ? "..." : "");
    for (size_t i = start; i < end; i++) {
        unsigned char c = (unsigned char)filter[i];

        fputc(c < ' ' || c == 0x7F ? ' ' : c, stderr);
        if (i < pos && (c & 0xC0) != 0x80) /* the later bytes of a UTF-8 character take no column */
            column++;
    }
    fprintf(stderr, "%s\n  %s%*s^\n", end < len ? "..." : "", start ? "   " : "", (int)column, "");
}

bool
filter_is_good(const char *filter, WINDIVERT_LAYER layer)
{
    const char *why = NULL;
    UINT pos = 0;

    if (WinDivertHelperCompileFilter(filter, layer, NULL, 0, &why, &pos))
        return true;
    complain("filter", why ? why : "not valid");
    show_place(filter, pos);
    return false;
}

bool
parse_number(const char *what, const char *text, long min, long max, long *ret_number)
{
    char *end, why[128];
    long number;

    errno = 0;
    number = strtol(text, &end, 10);
    if (errno || end == text || *end || number < min || number > max) {
        snprintf(why, sizeof(why), "'%.32s' is not a number from %ld to %ld", text, min, max);
        complain(what, why);
        return false;
    }
    *ret_number = number;
    return true;
}

HANDLE
open_network(const char *filter, INT16 priority, UINT64 flags)
{
    HANDLE handle;

    if (!filter_is_good(filter, WINDIVERT_LAYER_NETWORK))
        return INVALID_HANDLE_VALUE;
    handle = WinDivertOpen(filter, WINDIVERT_LAYER_NETWORK, priority, flags);
    if (handle == INVALID_HANDLE_VALUE)
        complain_last_error();
    else
        fprintf(stderr, "%s: ready, Ctrl-C ends it\n", tool_name);
    return handle;
}

static void
stop_signals(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    sigaddset(ret_set, SIGINT);
    sigaddset(ret_set, SIGTERM);
    sigaddset(ret_set, SIGHUP);
}

static void *
wait_for_signal(void *handle)
{
    sigset_t set;
    int number;

    stop_signals(&set);
    sigwait(&set, &number);
    WinDivertShutdown(handle, WINDIVERT_SHUTDOWN_RECV);
    sigwait(&set, &number);
    _exit(128 + number);
}

bool
stop_on_signal(HANDLE handle)
{
    pthread_t thread;
    sigset_t set;
    int err;

    stop_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* inherited by all threads: the signal waits for the one below */
    err = pthread_create(&thread, NULL, wait_for_signal, handle);
    if (err) {
        complain("thread", strerror(err));
        return false;
    }
    pthread_detach(thread);
    return true;
}
