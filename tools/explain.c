/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* windivertctl explain: a filter in its normal form, or what is wrong with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "commands.h"
#include "support.h"
#include "windivert.h"

#define FILTER_TEXT_MAX (1U << 26)

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

/* FILTER and --layer LAYER in any order. */
static bool
parse_args(int argc, char **argv, const char **ret_filter, WINDIVERT_LAYER *ret_layer)
{
    const char *filter = NULL;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--layer")) {
            if (i + 1 == argc) {
                complain("--layer", "which one?");
                return false;
            }
            if (!parse_layer(argv[++i], ret_layer))
                return false;
        } else if (filter) {
            complain(argv[i], "one filter only; quote it");
            return false;
        } else {
            filter = argv[i];
        }
    }
    if (!filter)
        complain("explain", "which filter?");
    *ret_filter = filter;
    return filter != NULL;
}

/* The normal form, to be freed; NULL: it could not be had, which is explained. */
static char *
normal_form(const char *filter, WINDIVERT_LAYER layer)
{
    for (UINT size = 4096; size <= FILTER_TEXT_MAX; size *= 2) {
        char *text = malloc(size);

        if (!text) {
            complain("explain", "no memory");
            return NULL;
        }
        if (WinDivertHelperFormatFilter(filter, layer, text, size))
            return text;
        free(text);
        if (GetLastError() != ERROR_INSUFFICIENT_BUFFER)
            break;
    }
    complain_last_error();
    return NULL;
}

int
explain_main(int argc, char **argv)
{
    WINDIVERT_LAYER layer = WINDIVERT_LAYER_NETWORK;
    const char *filter;
    char *text;

    if (!parse_args(argc, argv, &filter, &layer) || !filter_is_good(filter, layer))
        return 1;
    text = normal_form(filter, layer);
    if (!text)
        return 1;
    printf("layer   %s\nfilter  %s\n", layers[layer], text);
    free(text);
    return 0;
}
