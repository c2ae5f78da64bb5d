/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* IP addresses and their texts. */
#ifndef WD_CORE_ADDR_H
#define WD_CORE_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WD_ADDR4_TEXT 16 /* bytes of the longest text, with its NUL */
#define WD_ADDR6_TEXT 40

/*
 * text: len bytes, no NUL needed; all of them must be the address.  Numbers
 * are in host order; word 0 of an IPv6 address is its least significant.
 * False: no such address; the output is then untouched.
 *
 * IPv4: four decimal parts of one to three digits, 0..255, leading zeros
 * allowed.  IPv6: groups of one to four hexadecimal digits, "::" once for one
 * group of zeros or more, the last two groups may be an IPv4 text; no scope.
 */
bool wd_addr_parse4(const char *text, size_t len, uint32_t *ret_addr);
bool wd_addr_parse6(const char *text, size_t len, uint32_t ret_words[4]);

/*
 * Writes text and NUL, returns the length without it.  IPv6: lower case, the
 * leftmost of the longest runs of zero groups, be it a single one, as "::";
 * never a dotted end.
 */
size_t wd_addr_format4(uint32_t addr, char ret_text[WD_ADDR4_TEXT]);
size_t wd_addr_format6(const uint32_t words[4], char ret_text[WD_ADDR6_TEXT]);

#endif
