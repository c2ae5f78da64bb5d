/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The subcommands of windivertctl, one file each.  argv[0] is the subcommand's name; the result is the exit status. */
#ifndef TOOLS_COMMANDS_H
#define TOOLS_COMMANDS_H

int explain_main(int argc, char **argv);

#endif
