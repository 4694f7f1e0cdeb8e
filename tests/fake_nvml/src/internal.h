/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* What driver.c shares with the files beside it. Functions of NVML include driver.h alone. */
#ifndef INTERNAL_H
#define INTERNAL_H

#include "driver.h"

struct driver {
    char directory[3072];
    struct map machine;
    struct map state;
    bool state_changed;
    struct gpu gpus[MAX_GPUS];
    uint gpu_count;
    uint initialised; /* nvmlInit minus nvmlShutdown in this process */
    int users;        /* descriptor whose shared lock says: this process is a client */
    uint calls;       /* calls made by this process */
};

extern struct driver driver;

const char *path_of(const char *file); /* in the state directory; valid until the next call */
bool find_directory(void);
void load_gpus(void);

void apply_faults(struct call *call);

#endif
