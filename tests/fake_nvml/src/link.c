/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* The PCIe link. It is slow and healthy when the GPU is idle. */
#include "driver.h"

static uint number(const struct gpu *gpu, const char *key) { return (uint)gpu_number(gpu, key, 0); }

/* What both the card and its slot can do. */
static uint generation_max(const struct gpu *gpu)
{
    uint card = number(gpu, "pcie_gen_card"), slot = (uint)gpu_number(gpu, "pcie_gen_slot", card);
    return slot < card ? slot : card;
}

static uint generation_now(const struct gpu *gpu)
{
    bool busy = machine_number("load", 0) || gpu_number(gpu, "load", 0);
    uint highest = generation_max(gpu), idle = (uint)gpu_number(gpu, "pcie_gen_idle", 1);
    return !busy && idle < highest ? idle : highest;
}

static uint width_now(const struct gpu *gpu)
{
    return (uint)gpu_number(gpu, "pcie_width", number(gpu, "pcie_width_max"));
}

/* Megabits per second of one lane; the header counts megatransfers. */
static uint speed_of(uint generation)
{
    static const uint speeds[] = {0, 2500, 5000, 8000, 16000, 32000, 64000};
    return generation < sizeof speeds / sizeof *speeds ? speeds[generation] : 0;
}

static uint speed_now(const struct gpu *gpu) { return speed_of(generation_now(gpu)); }

/* nvmlPcieLinkMaxSpeed: 1 is 2500, 2 is 5000 ... */
static uint speed_max_code(const struct gpu *gpu) { return generation_max(gpu); }
static uint card_generation(const struct gpu *gpu) { return number(gpu, "pcie_gen_card"); }
static uint width_max(const struct gpu *gpu) { return number(gpu, "pcie_width_max"); }
static uint replays(const struct gpu *gpu) { return number(gpu, "pcie_replays"); }

static nvmlReturn_t link(const char *name, nvmlDevice_t device, uint *out, uint (*value)(const struct gpu *))
{
    struct call call = begin_gpu(name, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "pcie_gen_card"), NVML_ERROR_NOT_SUPPORTED))
        *out = value(call.gpu);
    return end(&call);
}

#define LINK(function, value)                                                     \
    API nvmlReturn_t function(nvmlDevice_t device, uint *out)                     \
    {                                                                             \
        return link(#function, device, out, value);                               \
    }

LINK(nvmlDeviceGetCurrPcieLinkGeneration, generation_now)
LINK(nvmlDeviceGetMaxPcieLinkGeneration, generation_max)
LINK(nvmlDeviceGetGpuMaxPcieLinkGeneration, card_generation)
LINK(nvmlDeviceGetCurrPcieLinkWidth, width_now)
LINK(nvmlDeviceGetMaxPcieLinkWidth, width_max)
LINK(nvmlDeviceGetPcieSpeed, speed_now)
LINK(nvmlDeviceGetPcieLinkMaxSpeed, speed_max_code)
LINK(nvmlDeviceGetPcieReplayCounter, replays)

API nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, uint counter, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out && counter <= 1, NVML_ERROR_INVALID_ARGUMENT))
        *out = 0;
    return end(&call);
}
