/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* windivertctl explain: a filter in its normal form and what a handle puts into the kernel for it, or what is wrong with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "commands.h"
#include "support.h"
#include "windivert_ext.h"

#define TEXT_MAX (1U << 27)

static const char *const layers[] = {
    [WINDIVERT_LAYER_NETWORK] = "network", [WINDIVERT_LAYER_NETWORK_FORWARD] = "network_forward",
    [WINDIVERT_LAYER_FLOW] = "flow",       [WINDIVERT_LAYER_SOCKET] = "socket",
    [WINDIVERT_LAYER_REFLECT] = "reflect",
};

#define LAYER_COUNT (sizeof(layers) / sizeof(layers[0]))

static bool
parse_layer(const char *text, WINDIVERT_LAYER *ret_layer)
{
    for (size_t i = 0; i < LAYER_COUNT; i++)
        if (!strcasecmp(text, layers[i]) || (i == WINDIVERT_LAYER_NETWORK_FORWARD && !strcasecmp(text, "forward"))) {
            *ret_layer = (WINDIVERT_LAYER)i;
            return true;
        }
    complain(text, "no such layer; there are network, forward, flow, socket, reflect");
    return false;
}

struct arguments {
    const char *filter;
    WINDIVERT_LAYER layer;
    long priority;
    UINT64 flags, options;
};

/* One option and what belongs to it, from argv[*i] on; false: explained. */
static bool
parse_option(int argc, char **argv, int *i, struct arguments *args)
{
    static const struct {
        const char *option;
        UINT64 flag;
    } flags[] = {
        {"--sniff", WINDIVERT_FLAG_SNIFF},
        {"--drop", WINDIVERT_FLAG_DROP},
        {"--fragments", WINDIVERT_FLAG_FRAGMENTS},
    };
    const char *option = argv[*i];

    if (!strcmp(option, "-v")) {
        args->options |= WINDIVERT_EXT_EXPLAIN_PROGRAMS;
        return true;
    }
    for (size_t f = 0; f < sizeof(flags) / sizeof(flags[0]); f++) {
        if (!strcmp(option, flags[f].option)) {
            args->flags |= flags[f].flag;
            return true;
        }
    }
    if (strcmp(option, "--layer") && strcmp(option, "--priority")) {
        complain(option, "no such option; there are --layer, --priority, --sniff, --drop, --fragments, -v");
        return false;
    }
    if (*i + 1 == argc) {
        complain(option, "which one?");
        return false;
    }
    ++*i;
    if (!strcmp(option, "--layer"))
        return parse_layer(argv[*i], &args->layer);
    return parse_number("priority", argv[*i], WINDIVERT_PRIORITY_LOWEST, WINDIVERT_PRIORITY_HIGHEST, &args->priority);
}

/* FILTER and options in any order. */
static bool
parse_args(int argc, char **argv, struct arguments *args)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') {
            if (!parse_option(argc, argv, &i, args))
                return false;
        } else if (args->filter) {
            complain(argv[i], "one filter only; quote it");
            return false;
        } else {
            args->filter = argv[i];
        }
    }
    if (!args->filter)
        complain("explain", "which filter?");
    return args->filter != NULL;
}

static BOOL
get_normal_form(const struct arguments *args, char *text, UINT size)
{
    return WinDivertHelperFormatFilter(args->filter, args->layer, text, size);
}

static BOOL
get_explanation(const struct arguments *args, char *text, UINT size)
{
    return WinDivertExtExplainFilter(args->filter, args->layer, (INT16)args->priority, args->flags, args->options,
                                     text, size, NULL);
}

/* What get writes, to be freed; NULL: it could not be had, the last error says why. */
static char *
get_text(BOOL (*get)(const struct arguments *args, char *text, UINT size), const struct arguments *args)
{
    for (UINT size = 4096; size <= TEXT_MAX; size *= 2) {
        char *text = malloc(size);

        if (!text) {
            SetLastError(ERROR_NOT_ENOUGH_MEMORY);
            return NULL;
        }
        if (get(args, text, size))
            return text;
        free(text);
        if (GetLastError() != ERROR_INSUFFICIENT_BUFFER)
            break;
    }
    return NULL;
}

static bool
print_text(char *text)
{
    if (!text) {
        complain_last_error();
        return false;
    }
    fputs(text, stdout);
    free(text);
    return true;
}

int
explain_main(int argc, char **argv)
{
    struct arguments args = {.layer = WINDIVERT_LAYER_NETWORK};

    if (!parse_args(argc, argv, &args) || !filter_is_good(args.filter, args.layer))
        return 1;
    printf("layer   %s\nfilter  ", layers[args.layer]);
    if (!print_text(get_text(get_normal_form, &args)))
        return 1;
    putchar('\n');
    if (args.layer > WINDIVERT_LAYER_NETWORK_FORWARD) /* events: no program, the filter is all there is to say */
        return 0;
    putchar('\n');
    return !print_text(get_text(get_explanation, &args));
}
