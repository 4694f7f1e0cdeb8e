/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Clock lists, locks, application clocks, offsets, power mizer. */
#include "clocks.h"

#include <stdio.h>

static void give_list(struct call *call, const uint *values, uint found, uint *count, uint *out)
{
    uint room = *count;
    *count = found;
    if (!need(call, out && room >= found, NVML_ERROR_INSUFFICIENT_SIZE))
        return;
    for (uint i = 0; i < found; i++)
        out[i] = values[i];
}

API nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, uint *count, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    uint rungs[MAX_RUNGS], found = call.gpu ? memory_rungs(call.gpu, rungs) : 0;
    if (need(&call, count != NULL, NVML_ERROR_INVALID_ARGUMENT) && need(&call, found, NVML_ERROR_NOT_SUPPORTED))
        give_list(&call, rungs, found, count, out);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, uint memory, uint *count, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    uint found = call.gpu ? graphics_ladder(call.gpu, memory, NULL) : 0;
    if (need(&call, count != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "memory_clocks"), NVML_ERROR_NOT_SUPPORTED) &&
        need(&call, found, NVML_ERROR_NOT_FOUND)) {
        uint ladder[found];
        graphics_ladder(call.gpu, memory, ladder);
        give_list(&call, ladder, found, count, out);
    }
    return end(&call);
}

static uint select_clock(uint type, uint graphics, uint memory, uint video)
{
    return type == CLOCK_MEM ? memory : type == CLOCK_VIDEO ? video : graphics;
}

static void current_clock(struct call *call, uint type, uint *out)
{
    if (need(call, out && type < CLOCK_COUNT, NVML_ERROR_INVALID_ARGUMENT)) {
        struct now now = clocks_now(call->gpu);
        *out = select_clock(type, now.graphics, now.memory, now.video);
    }
}

API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, uint type, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    current_clock(&call, type, out);
    return end(&call);
}

static uint memory_top(const struct gpu *gpu)
{
    uint rungs[MAX_RUNGS];
    return memory_rungs(gpu, rungs) ? rungs[0] : 0;
}

API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, uint type, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out && type < CLOCK_COUNT, NVML_ERROR_INVALID_ARGUMENT))
        *out = select_clock(type, graphics_top(call.gpu), memory_top(call.gpu), graphics_top(call.gpu) * 9 / 10);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetMaxCustomerBoostClock(nvmlDevice_t device, uint type, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out && type < CLOCK_COUNT, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "boost_max_mhz") && type <= CLOCK_SM, NVML_ERROR_NOT_SUPPORTED))
        *out = (uint)gpu_number(call.gpu, "boost_max_mhz", 0);
    return end(&call);
}

/* --- locks: no function of NVML reads them back ------------------------------------------- */

static void lock_clocks(struct call *call, const char *which, uint lowest, uint highest, uint ceiling)
{
    char key[48];
    if (!need(call, lowest <= highest && highest && highest <= ceiling, NVML_ERROR_INVALID_ARGUMENT))
        return;
    snprintf(key, sizeof key, "%s_lock_min", which);
    gpu_set(call->gpu, VOLATILE, key, lowest);
    snprintf(key, sizeof key, "%s_lock_max", which);
    gpu_set(call->gpu, VOLATILE, key, highest);
}

static bool symbolic(uint clock) { return clock == CLOCK_LIMIT_TDP || clock == CLOCK_LIMIT_UNLIMITED; }

/* Symbolic limits come in pairs; TDP means the clock the card holds at its default power. */
static void lock_symbolic(struct call *call, uint lowest, uint highest)
{
    uint tdp = (uint)gpu_number(call->gpu, "load_graphics_mhz", 0), top = graphics_top(call->gpu);
    if (!need(call, symbolic(lowest) && symbolic(highest), NVML_ERROR_INVALID_ARGUMENT))
        return;
    if (lowest == CLOCK_LIMIT_UNLIMITED && highest == CLOCK_LIMIT_UNLIMITED)
        gpu_drop(call->gpu, VOLATILE, "graphics_lock_");
    else
        lock_clocks(call, "graphics", lowest == CLOCK_LIMIT_TDP ? tdp : graphics_bottom(call->gpu),
                    highest == CLOCK_LIMIT_TDP ? tdp : top, top);
}

API nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, uint lowest, uint highest)
{
    struct call call = begin_gpu(__func__, device);
    note(&call, "%u %u", lowest, highest);
    if (need(&call, gpu_number(call.gpu, "graphics_lockable", 1), NVML_ERROR_NOT_SUPPORTED) && need_root(&call)) {
        if (symbolic(lowest) || symbolic(highest))
            lock_symbolic(&call, lowest, highest);
        else
            lock_clocks(&call, "graphics", lowest, highest, graphics_top(call.gpu));
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceSetMemoryLockedClocks(nvmlDevice_t device, uint lowest, uint highest)
{
    struct call call = begin_gpu(__func__, device);
    note(&call, "%u %u", lowest, highest);
    if (need(&call, gpu_number(call.gpu, "memory_lockable", 1), NVML_ERROR_NOT_SUPPORTED) && need_root(&call))
        lock_clocks(&call, "memory", lowest, highest,
                    (uint)gpu_number(call.gpu, "memory_lock_ceiling_mhz", memory_top(call.gpu)));
    return end(&call);
}

static nvmlReturn_t unlock(const char *name, nvmlDevice_t device, const char *lockable, const char *lock)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, gpu_number(call.gpu, lockable, 1), NVML_ERROR_NOT_SUPPORTED) && need_root(&call))
        gpu_drop(call.gpu, VOLATILE, lock);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device)
{
    return unlock(__func__, device, "graphics_lockable", "graphics_lock_");
}

API nvmlReturn_t nvmlDeviceResetMemoryLockedClocks(nvmlDevice_t device)
{
    return unlock(__func__, device, "memory_lockable", "memory_lock_");
}

/* --- application clocks: data centre cards only ------------------------------------------- */

static void application_clock(struct call *call, uint type, bool preset, uint *out)
{
    if (!need(call, out && type < CLOCK_COUNT, NVML_ERROR_INVALID_ARGUMENT) ||
        !need(call, gpu_has(call->gpu, "app_default_graphics_mhz") && type != CLOCK_VIDEO, NVML_ERROR_NOT_SUPPORTED))
        return;
    long graphics = gpu_number(call->gpu, "app_default_graphics_mhz", 0);
    long memory = gpu_number(call->gpu, "app_default_memory_mhz", 0);
    if (!preset) {
        graphics = gpu_number(call->gpu, "app_graphics_mhz", graphics);
        memory = gpu_number(call->gpu, "app_memory_mhz", memory);
    }
    *out = select_clock(type, (uint)graphics, (uint)memory, 0);
}

API nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t device, uint type, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    application_clock(&call, type, false, out);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetDefaultApplicationsClock(nvmlDevice_t device, uint type, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    application_clock(&call, type, true, out);
    return end(&call);
}

static bool on_ladder(const struct gpu *gpu, uint memory, uint graphics)
{
    uint count = graphics_ladder(gpu, memory, NULL), ladder[count + 1];
    graphics_ladder(gpu, memory, ladder);
    for (uint i = 0; i < count; i++)
        if (ladder[i] == graphics)
            return true;
    return false;
}

API nvmlReturn_t nvmlDeviceSetApplicationsClocks(nvmlDevice_t device, uint memory, uint graphics)
{
    struct call call = begin_gpu(__func__, device);
    note(&call, "%u %u", memory, graphics);
    if (need(&call, gpu_has(call.gpu, "app_default_graphics_mhz"), NVML_ERROR_NOT_SUPPORTED) && need_root(&call) &&
        need(&call, on_ladder(call.gpu, memory, graphics), NVML_ERROR_INVALID_ARGUMENT)) {
        gpu_set(call.gpu, VOLATILE, "app_graphics_mhz", graphics);
        gpu_set(call.gpu, VOLATILE, "app_memory_mhz", memory);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceResetApplicationsClocks(nvmlDevice_t device)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, gpu_has(call.gpu, "app_default_graphics_mhz"), NVML_ERROR_NOT_SUPPORTED) && need_root(&call)) {
        gpu_drop(call.gpu, VOLATILE, "app_graphics_mhz");
        gpu_drop(call.gpu, VOLATILE, "app_memory_mhz");
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, uint type, uint id, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, id <= 3, NVML_ERROR_INVALID_ARGUMENT)) {
        if (id == 0)
            current_clock(&call, type, out);
        else if (need(&call, id != 3, NVML_ERROR_NOT_SUPPORTED))
            application_clock(&call, type, id == 2, out);
    }
    return end(&call);
}

/* --- performance state and what holds the clocks back ------------------------------------- */

static nvmlReturn_t pstate(const char *name, nvmlDevice_t device, uint *out)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *out = clocks_now(call.gpu).pstate;
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, uint *out) { return pstate(__func__, device, out); }
API nvmlReturn_t nvmlDeviceGetPowerState(nvmlDevice_t device, uint *out) { return pstate(__func__, device, out); }

static nvmlReturn_t reasons(const char *name, nvmlDevice_t device, bool current, unsigned long long *out)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *out = current ? clocks_now(call.gpu).reasons : 0x1ff;
    return end(&call);
}

#define REASONS(function, current)                                                \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned long long *out)       \
    {                                                                             \
        return reasons(#function, device, current, out);                          \
    }

REASONS(nvmlDeviceGetCurrentClocksEventReasons, true)
REASONS(nvmlDeviceGetCurrentClocksThrottleReasons, true)
REASONS(nvmlDeviceGetSupportedClocksEventReasons, false)
REASONS(nvmlDeviceGetSupportedClocksThrottleReasons, false)

API nvmlReturn_t nvmlDeviceGetAdaptiveClockInfoStatus(nvmlDevice_t device, uint *out)
{
    return read_number(__func__, device, "adaptive_clocking", out);
}

/* --- offsets and power mizer -------------------------------------------------------------- */

static bool offset_key(const struct clock_offset *info, char *key, size_t size)
{
    snprintf(key, size, "offset_%u_%u", info->type, info->pstate);
    return (info->type == CLOCK_GRAPHICS || info->type == CLOCK_MEM) && info->pstate <= 15;
}

static bool offset_ready(struct call *call, const struct clock_offset *info, char *key, size_t size)
{
    return need(call, info != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
           need(call, info->version == STRUCT_VERSION(struct clock_offset, 1), NVML_ERROR_ARGUMENT_VERSION_MISMATCH) &&
           need(call, offset_key(info, key, size), NVML_ERROR_INVALID_ARGUMENT) &&
           need(call, gpu_has(call->gpu, "offset_limit_mhz"), NVML_ERROR_NOT_SUPPORTED);
}

API nvmlReturn_t nvmlDeviceGetClockOffsets(nvmlDevice_t device, struct clock_offset *info)
{
    struct call call = begin_gpu(__func__, device);
    char key[48];
    if (offset_ready(&call, info, key, sizeof key)) {
        info->offset = (int)gpu_number(call.gpu, key, 0);
        info->highest = (int)gpu_number(call.gpu, "offset_limit_mhz", 0);
        info->lowest = -info->highest;
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceSetClockOffsets(nvmlDevice_t device, struct clock_offset *info)
{
    struct call call = begin_gpu(__func__, device);
    char key[48];
    if (offset_ready(&call, info, key, sizeof key) && need_root(&call)) {
        long limit = gpu_number(call.gpu, "offset_limit_mhz", 0);
        note(&call, "%u %u %d", info->type, info->pstate, info->offset);
        if (need(&call, info->offset >= -limit && info->offset <= limit, NVML_ERROR_INVALID_ARGUMENT))
            gpu_set(call.gpu, VOLATILE, key, info->offset);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetPowerMizerMode_v1(nvmlDevice_t device, struct power_mizer *info)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, info != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "power_mizer"), NVML_ERROR_NOT_SUPPORTED)) {
        info->current = (uint)gpu_number(call.gpu, "power_mizer", 0);
        info->supported = (uint)gpu_number(call.gpu, "power_mizer_modes", 0xf);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceSetPowerMizerMode_v1(nvmlDevice_t device, struct power_mizer *info)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, info != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "power_mizer"), NVML_ERROR_NOT_SUPPORTED) && need_root(&call)) {
        uint modes = (uint)gpu_number(call.gpu, "power_mizer_modes", 0xf);
        note(&call, "%u", info->mode);
        if (need(&call, info->mode < 4 && (modes & 1u << info->mode), NVML_ERROR_INVALID_ARGUMENT))
            gpu_set(call.gpu, VOLATILE, "power_mizer", info->mode);
    }
    return end(&call);
}
