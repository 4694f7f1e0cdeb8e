/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Functions that monitoring programs ask for and that hold no state here. */
#include <stdio.h>

#include "clocks.h"
#include "driver.h"

API nvmlReturn_t nvmlDeviceGetSupportedPerformanceStates(nvmlDevice_t device, uint *out, uint size)
{
    static const uint states[] = {0, 1, 2, 3, 5, 8};
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, size >= sizeof states, NVML_ERROR_INSUFFICIENT_SIZE))
        for (uint i = 0; i < size / sizeof *out; i++)
            out[i] = i < sizeof states / sizeof *states ? states[i] : 32; /* 32: no state */
    return end(&call);
}

/* P0 and P1 run the top memory rung, P8 the lowest, the others those between. */
API nvmlReturn_t nvmlDeviceGetMinMaxClockOfPState(nvmlDevice_t device, uint type, uint state, uint *lowest,
                                                  uint *highest)
{
    struct call call = begin_gpu(__func__, device);
    uint rungs[MAX_RUNGS], count = call.gpu ? memory_rungs(call.gpu, rungs) : 0;
    if (need(&call, lowest && highest && type < CLOCK_COUNT && state <= 15, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, count > 0, NVML_ERROR_NOT_SUPPORTED)) {
        uint rung = state == 8 ? count - 1 : state <= 1 ? 0 : state - 1;
        uint memory = rungs[rung < count ? rung : count - 1], points = graphics_ladder(call.gpu, memory, NULL);
        uint ladder[points + 1];
        graphics_ladder(call.gpu, memory, ladder);
        *lowest = type == CLOCK_MEM || !points ? memory : ladder[points - 1];
        *highest = type == CLOCK_MEM || !points ? memory : ladder[0];
    }
    return end(&call);
}

/* Whether these strings show a lock on a real card is unproven, so here they do not. */
API nvmlReturn_t nvmlDeviceGetCurrentClockFreqs(nvmlDevice_t device, struct perf_text *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, out->version == STRUCT_VERSION(struct perf_text, 1), NVML_ERROR_ARGUMENT_VERSION_MISMATCH)) {
        struct now now = clocks_now(call.gpu);
        snprintf(out->text, sizeof out->text, "perf=%u, nvclock=%u, nvclockmin=%u, nvclockmax=%u, memclock=%u",
                 now.pstate, now.graphics, graphics_bottom(call.gpu), graphics_top(call.gpu), now.memory);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *out)
{
    struct call call = begin_gpu(__func__, device);
    put_text(&call, out, 64, machine_text("driver_version"));
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetGspFirmwareMode(nvmlDevice_t device, uint *enabled, uint *preset)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, enabled && preset, NVML_ERROR_INVALID_ARGUMENT))
        *enabled = *preset = 1;
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device, nvmlDevice_t other, uint *level)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, level && other && other != device, NVML_ERROR_INVALID_ARGUMENT))
        *level = 30; /* below the same host bridge */
    return end(&call);
}

/* Video encoding and frame capture: no session. */
static nvmlReturn_t three_zeros(const char *name, nvmlDevice_t device, uint *a, uint *b, uint *c)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, a && b && c, NVML_ERROR_INVALID_ARGUMENT))
        *a = *b = *c = 0;
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetEncoderStats(nvmlDevice_t device, uint *sessions, uint *fps, uint *latency)
{
    return three_zeros(__func__, device, sessions, fps, latency);
}

API nvmlReturn_t nvmlDeviceGetFBCStats(nvmlDevice_t device, uint stats[3])
{
    return three_zeros(__func__, device, stats, stats ? stats + 1 : NULL, stats ? stats + 2 : NULL);
}

static nvmlReturn_t constant(const char *name, nvmlDevice_t device, const char *needs, uint value, uint *out)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, !needs || gpu_has(call.gpu, needs), NVML_ERROR_NOT_SUPPORTED))
        *out = value;
    return end(&call);
}

#define CONSTANT(function, needs, value)                                          \
    API nvmlReturn_t function(nvmlDevice_t device, uint *out)                     \
    {                                                                             \
        return constant(#function, device, needs, value, out);                    \
    }

CONSTANT(nvmlDeviceGetAccountingMode, NULL, 0)
CONSTANT(nvmlDeviceGetAccountingBufferSize, NULL, 4000)
CONSTANT(nvmlDeviceGetRetiredPagesPendingStatus, "retired_pages", 0)
CONSTANT(nvmlDeviceGetHostVgpuMode, "vgpu_host", 0)

/* Error counters of cards with ECC: nothing has gone wrong. */
static nvmlReturn_t no_errors(const char *name, nvmlDevice_t device, unsigned long long *out)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_number(call.gpu, "ecc_current", 0), NVML_ERROR_NOT_SUPPORTED))
        *out = 0;
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, uint type, uint counter, unsigned long long *out)
{
    (void)type;
    (void)counter;
    return no_errors(__func__, device, out);
}

API nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, uint type, uint counter, uint place,
                                                 unsigned long long *out)
{
    (void)type;
    (void)counter;
    (void)place;
    return no_errors(__func__, device, out);
}

API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, uint *corrected, uint *uncorrected, uint *pending,
                                           uint *failed)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, corrected && uncorrected && pending && failed, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "ecc_current"), NVML_ERROR_NOT_SUPPORTED))
        *corrected = *uncorrected = *pending = *failed = 0;
    return end(&call);
}

/* A machine without S-class units and without excluded GPUs answers with a count of none. */
static nvmlReturn_t none(const char *name, uint *out)
{
    struct call call = begin(name);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *out = 0;
    return end(&call);
}

API nvmlReturn_t nvmlUnitGetCount(uint *out) { return none(__func__, out); }
API nvmlReturn_t nvmlGetExcludedDeviceCount(uint *out) { return none(__func__, out); }
API nvmlReturn_t nvmlSystemGetHicVersion(uint *out, void *entries)
{
    (void)entries;
    return none(__func__, out);
}
