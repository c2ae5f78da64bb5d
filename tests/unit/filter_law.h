/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* What must hold for every filter that compiles, whatever the packet. */
#ifndef FILTER_LAW_H
#define FILTER_LAW_H

#include "core/filter.h"

/* What a filter is evaluated on; packet is NULL at the event layers. */
struct law_subject {
    const struct wd_packet *packet;
    const WINDIVERT_ADDRESS *addr;
};

struct law_counts {
    unsigned long accepted, refused, evaluations;
};

/*
 * Compiles text and checks:
 *   refused: a known error, its position within the text;
 *   accepted: canonical text and object compile to the same object and text;
 *   unfolded = folded = from the text = from the object = specialised with
 *   nothing known = evaluated without prepared steps, on every subject, each
 *   also optimised;
 *   specialised with some fields known as the subject has them: the same;
 *   with some undecided: holds where the filter holds, equal where exact.
 * choice: bits that pick the known and the undecided fields.
 * NULL, or which law is broken.  Subjects must be as FILTER-LANGUAGE's ranges
 * say: what lies outside them is not a value of the field.
 */
const char *law_check(const char *text, WINDIVERT_LAYER layer, const struct law_subject *subjects, size_t count,
                      uint64_t choice, struct law_counts *counts);

/* Every jump goes forward to a test or to an end. */
bool law_program_valid(const struct wd_prog *prog);

#endif
