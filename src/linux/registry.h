/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Who has handles open: one file per handle in a directory that only root may
 * write, locked (flock) as long as the handle lives.  A file whose lock is free
 * is what a killed process left; whoever looks next removes it.
 */
#ifndef WD_LINUX_REGISTRY_H
#define WD_LINUX_REGISTRY_H

#include <stdbool.h>

#include "api/engine.h"

#define WD_REGISTRY_DIR "/run/windivert"

struct wd_entry {
    int fd; /* locked; -1: the directory cannot be written, the handle is not listed */
    char name[48];
    int64_t time; /* of the open, 100 ns */
};

/* The directory, made where it is missing; refused unless it is ours and nobody else can write into it.  -errno. */
int wd_registry_open(bool create);

/* Never fails: a handle works without being listed. */
void wd_registry_add(const struct wd_open *open, struct wd_entry *ret_entry);
/* The same entry with another filter; where that cannot be written the entry stays as it is. */
void wd_registry_update(const struct wd_open *open, struct wd_entry *entry);
void wd_registry_remove(struct wd_entry *entry);
/* Is any handle open that the caller can see?  Removes what dead processes left. */
bool wd_registry_any(void);

#endif
