/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* The field table as enum and array; see field.def. */
#ifndef WD_CORE_FIELD_H
#define WD_CORE_FIELD_H

#include <stdint.h>

enum wd_field {
#define FIELD(id, name, layers, kind, min, max, src, off, width, shift) WD_F_##id,
#include "field.def"
#undef FIELD
    WD_FIELD_COUNT
};

enum wd_kind { WD_KIND_FLAG, WD_KIND_UINT, WD_KIND_INT, WD_KIND_ADDR4, WD_KIND_ADDR, WD_KIND_ARRAY };

enum wd_src {
    WD_SRC_META, /* no bytes of the packet, or computed from all of it; always present */
    WD_SRC_IP4,
    WD_SRC_IP6,
    WD_SRC_ICMP,
    WD_SRC_ICMP6,
    WD_SRC_TCP,
    WD_SRC_UDP,
    WD_SRC_PACKET,
    WD_SRC_TCPDATA,
    WD_SRC_UDPDATA
};

struct wd_field_info {
    const char *name;
    uint8_t layers; /* bit 1 << WINDIVERT_LAYER_x */
    uint8_t kind;   /* enum wd_kind */
    uint8_t src;    /* enum wd_src */
    uint8_t off, width, shift;
    int64_t min;   /* INT only; otherwise see umin */
    uint64_t umin; /* UINT, FLAG, ADDR4, ARRAY */
    uint64_t max;  /* INT: as int64_t; ADDR: meaningless, 2^128-1 */
};

extern const struct wd_field_info wd_fields[WD_FIELD_COUNT];

#endif
