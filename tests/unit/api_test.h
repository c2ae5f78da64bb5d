/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What the tests of the programming interface share.  Include first. */
#ifndef WD_API_TEST_H
#define WD_API_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_memory.h"
#include "windivert.h"
#include "windivert_ext.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ADDRESS_SIZE ((UINT)sizeof(WINDIVERT_ADDRESS))
#define UNTOUCHED 4711 /* a code that no call gives */

/* call is FALSE, with this code and a text that says something. */
#define assert_fails(call, code)                                                                                     \
    do {                                                                                                             \
        SetLastError(UNTOUCHED);                                                                                     \
        assert_int_equal((call), FALSE);                                                                             \
        assert_int_equal(GetLastError(), (code));                                                                    \
        assert_true(WinDivertExtGetLastErrorText()[0] != '\0');                                                      \
    } while (0)

/* call is TRUE and leaves the last error alone. */
#define assert_works(call)                                                                                           \
    do {                                                                                                             \
        SetLastError(UNTOUCHED);                                                                                     \
        assert_int_equal((call), TRUE);                                                                              \
        assert_int_equal(GetLastError(), UNTOUCHED);                                                                 \
    } while (0)

static inline HANDLE
open_handle(WINDIVERT_LAYER layer, UINT64 flags)
{
    HANDLE handle = WinDivertOpen("true", layer, 0, flags);

    assert_ptr_not_equal(handle, INVALID_HANDLE_VALUE);
    assert_non_null(handle);
    return handle;
}

/* What the last error says contains this. */
static inline void
assert_text(const char *part)
{
    if (!strstr(WinDivertExtGetLastErrorText(), part))
        fail_msg("\"%s\" is not in \"%s\"", part, WinDivertExtGetLastErrorText());
}

/* An IPv4 packet of this length, >= 20, its other bytes from seed; checksums play no part here. */
static inline void
make_ipv4(uint8_t *packet, uint32_t len, uint8_t seed)
{
    for (uint32_t i = 0; i < len; i++)
        packet[i] = (uint8_t)(seed + i);
    packet[0] = 0x45;
    packet[2] = (uint8_t)(len >> 8);
    packet[3] = (uint8_t)len;
}

#endif
