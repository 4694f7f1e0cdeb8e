/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
#include "clocks.h"

#include <stdio.h>
#include <stdlib.h>

enum { REASON_IDLE = 0x1, REASON_CLOCKS_SETTING = 0x2, REASON_POWER_CAP = 0x4 };

uint memory_rungs(const struct gpu *gpu, uint *out)
{
    const char *text = gpu_text(gpu, "memory_clocks");
    uint count = 0;
    while (text && *text && count < MAX_RUNGS) {
        char *next;
        out[count] = (uint)strtoul(text, &next, 10);
        if (next == text)
            break;
        count++;
        text = next;
    }
    return count;
}

struct range {
    uint lowest, highest;
    double step;
};

/* A card file says 180-3090/7.5: the points are 180, 187, 195, 202 ... 3090. A rung may have its
 * own range. */
static bool graphics_range(const struct gpu *gpu, uint memory, struct range *out)
{
    char key[48];
    snprintf(key, sizeof key, "graphics_clocks_%u", memory);
    const char *text = gpu_text(gpu, key);
    if (!text)
        text = gpu_text(gpu, "graphics_clocks");
    return text && sscanf(text, "%u-%u/%lf", &out->lowest, &out->highest, &out->step) == 3;
}

static bool is_rung(const struct gpu *gpu, uint memory)
{
    uint rungs[MAX_RUNGS], count = memory_rungs(gpu, rungs);
    for (uint i = 0; i < count; i++)
        if (rungs[i] == memory)
            return true;
    return false;
}

static uint steps_below(const struct range *range, uint clock)
{
    return (uint)((clock - range->lowest) / range->step + 1e-6);
}

static uint point(const struct range *range, uint step)
{
    return range->lowest + (uint)(step * range->step + 1e-6);
}

uint graphics_ladder(const struct gpu *gpu, uint memory, uint *out)
{
    struct range range;
    if (!is_rung(gpu, memory) || !graphics_range(gpu, memory, &range))
        return 0;
    uint count = steps_below(&range, range.highest) + 1;
    for (uint i = 0; out && i < count; i++)
        out[i] = point(&range, count - 1 - i);
    return count;
}

static struct range top_range(const struct gpu *gpu)
{
    uint rungs[MAX_RUNGS];
    struct range range = {0, 0, 1};
    if (memory_rungs(gpu, rungs))
        graphics_range(gpu, rungs[0], &range);
    return range;
}

uint graphics_top(const struct gpu *gpu) { return top_range(gpu).highest; }
uint graphics_bottom(const struct gpu *gpu) { return top_range(gpu).lowest; }

static uint clamp(uint value, uint lowest, uint highest)
{
    if (value < lowest)
        value = lowest;
    return value > highest ? highest : value;
}

static uint round_down(const struct gpu *gpu, uint clock)
{
    struct range range = top_range(gpu);
    return clock <= range.lowest ? range.lowest : point(&range, steps_below(&range, clock));
}

static uint round_up(const struct gpu *gpu, uint clock)
{
    struct range range = top_range(gpu);
    uint below = round_down(gpu, clock), above = point(&range, steps_below(&range, below) + 1);
    return below >= clock || above > range.highest ? below : above;
}

/* The highest rung that is not above the clock, else the lowest. */
static uint memory_round_down(const struct gpu *gpu, uint clock)
{
    uint rungs[MAX_RUNGS], count = memory_rungs(gpu, rungs);
    for (uint i = 0; i < count; i++)
        if (rungs[i] <= clock)
            return rungs[i];
    return count ? rungs[count - 1] : clock;
}

/* The lowest rung on which the graphics clock can run. */
static uint memory_for(const struct gpu *gpu, uint graphics, uint at_least)
{
    uint rungs[MAX_RUNGS], count = memory_rungs(gpu, rungs);
    struct range range;
    for (uint i = count; i-- > 0;)
        if (rungs[i] >= at_least && graphics_range(gpu, rungs[i], &range) && range.highest >= graphics)
            return rungs[i];
    return count ? rungs[0] : at_least;
}

uint requested_power(const struct gpu *gpu)
{
    return (uint)gpu_number(gpu, "power_limit_mw", gpu_number(gpu, "power_default_mw", 0));
}

/* A laptop shares its budget with the processor: the firmware may enforce less than was asked. */
uint enforced_power(const struct gpu *gpu)
{
    uint requested = requested_power(gpu);
    uint ceiling = (uint)gpu_number(gpu, "power_enforced_max_mw", requested);
    return requested < ceiling ? requested : ceiling;
}

static bool loaded(const struct gpu *gpu)
{
    return machine_number("load", 0) || gpu_number(gpu, "load", 0);
}

uint power_draw(const struct gpu *gpu)
{
    if (!loaded(gpu))
        return (uint)gpu_number(gpu, "idle_power_mw", 0);
    uint wanted = (uint)gpu_number(gpu, "load_power_mw", 0), limit = enforced_power(gpu);
    return wanted < limit ? wanted : limit;
}

static bool locked(const struct gpu *gpu, const char *which, uint *lowest, uint *highest)
{
    char key[48];
    snprintf(key, sizeof key, "%s_lock_min", which);
    *lowest = (uint)gpu_number(gpu, key, 0);
    snprintf(key, sizeof key, "%s_lock_max", which);
    *highest = (uint)gpu_number(gpu, key, 0xffffffff);
    return gpu_has(gpu, key);
}

struct now clocks_now(const struct gpu *gpu)
{
    bool busy = loaded(gpu), maximum = gpu_number(gpu, "power_mizer", 0) == 1;
    struct now now = {.reasons = busy ? 0 : (unsigned long long)gpu_number(gpu, "idle_reasons", REASON_IDLE)};
    uint lowest, highest;

    now.graphics = (uint)gpu_number(gpu, busy || maximum ? "load_graphics_mhz" : "idle_graphics_mhz", 0);
    now.memory = (uint)gpu_number(gpu, busy || maximum ? "load_memory_mhz" : "idle_memory_mhz", 0);
    if (busy) {
        uint application = (uint)gpu_number(gpu, "app_graphics_mhz", 0);
        if (application && application < now.graphics) {
            now.graphics = application;
            now.reasons |= REASON_CLOCKS_SETTING;
        }
    }
    if (locked(gpu, "graphics", &lowest, &highest)) {
        uint wanted = now.graphics;
        now.graphics = round_down(gpu, clamp(wanted, round_up(gpu, lowest), highest));
        if (busy && now.graphics < wanted)
            now.reasons |= REASON_CLOCKS_SETTING;
    }
    /* The power cap wins over a lock. Clocks fall in proportion, which is enough for a test. */
    uint wanted_power = (uint)gpu_number(gpu, "load_power_mw", 0), limit = enforced_power(gpu);
    if (busy && limit < wanted_power) {
        uint load = (uint)gpu_number(gpu, "load_graphics_mhz", 0);
        uint affordable = round_down(gpu, (uint)((unsigned long long)load * limit / wanted_power));
        if (affordable < now.graphics) {
            now.graphics = affordable;
            now.reasons |= REASON_POWER_CAP;
        }
    }
    now.memory = memory_for(gpu, now.graphics, now.memory);
    if (locked(gpu, "memory", &lowest, &highest))
        now.memory = memory_round_down(gpu, clamp(now.memory, lowest, highest));
    now.video = now.graphics * 9 / 10;
    now.pstate = (uint)gpu_number(gpu, busy || maximum ? "load_pstate" : "idle_pstate", 8);
    now.reasons |= (unsigned long long)gpu_number(gpu, "extra_reasons", 0);
    return now;
}
