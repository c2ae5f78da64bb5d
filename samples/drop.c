/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * drop: drops the packets that match a filter, in the kernel, until Ctrl-C.
 *
 *     drop FILTER
 */
#include <signal.h>
#include <stdio.h>

#include "support.h"
#include "windivert.h"

int
main(int argc, char **argv)
{
    sigset_t set;
    HANDLE handle;
    int number;

    tool_name = "drop";
    if (argc != 2) {
        fprintf(stderr, "usage: drop FILTER\n");
        return 1;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    handle = open_network(argv[1], 0, WINDIVERT_FLAG_DROP);
    if (handle == INVALID_HANDLE_VALUE)
        return 1;
    sigwait(&set, &number);
    WinDivertClose(handle);
    return 0;
}
