/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* How a card clocks itself: the model that makes a lock visible although no getter shows it. */
#ifndef CLOCKS_H
#define CLOCKS_H

#include "driver.h"

#define MAX_RUNGS 16

/* Memory clocks of the card, highest first; returns how many. */
uint memory_rungs(const struct gpu *gpu, uint *out);
/* Graphics clocks that go with a memory clock, highest first; 0: no such rung. With out == NULL
 * only the number. */
uint graphics_ladder(const struct gpu *gpu, uint memory, uint *out);
uint graphics_top(const struct gpu *gpu);
uint graphics_bottom(const struct gpu *gpu);

struct now {
    uint graphics, memory, video, pstate;
    unsigned long long reasons; /* why the clocks are not higher */
};
struct now clocks_now(const struct gpu *gpu);

uint requested_power(const struct gpu *gpu);
uint enforced_power(const struct gpu *gpu);
uint power_draw(const struct gpu *gpu);

#endif
