/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* windivertctl: looks into OpenDivert.  One table drives dispatch and help. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "support.h"

static int version_main(int argc, char **argv);

static const struct command {
    const char *name, *args, *what;
    int (*main)(int argc, char **argv);
} commands[] = {
    {"explain", "FILTER [--layer LAYER] [--priority N] [--sniff | --drop] [--fragments] [-v]",
     "checks a filter, shows its normal form and what would be installed for it; -v: with the programs",
     explain_main},
    {"version", "", "prints the version", version_main},
};

#define COUNT (sizeof(commands) / sizeof(commands[0]))

static int
version_main(int argc, char **argv)
{
    if (argc > 1) {
        complain(argv[0], "takes no arguments");
        return 1;
    }
    printf("windivertctl %s (WinDivert 2.2 interface)\n", OPENDIVERT_VERSION);
    return 0;
}

static void
usage(FILE *to)
{
    fprintf(to, "usage: windivertctl COMMAND ...\n");
    for (size_t i = 0; i < COUNT; i++)
        fprintf(to, "  %s %s\n      %s\n", commands[i].name, commands[i].args, commands[i].what);
}

int
main(int argc, char **argv)
{
    tool_name = "windivertctl";
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))) {
        usage(stdout);
        return 0;
    }
    for (size_t i = 0; argc > 1 && i < COUNT; i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].main(argc - 1, argv + 1);
    if (argc > 1)
        complain(argv[1], "no such command");
    usage(stderr);
    return 1;
}
