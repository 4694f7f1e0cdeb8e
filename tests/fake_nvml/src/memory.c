/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Memory, BAR1, utilization and the processes on a GPU. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

#define MIB (1024ull * 1024)

struct process {
    uint pid, mib;
    char kind; /* C compute, G graphics */
};

/* processes=1234:C:5000,1300:G:200 is pid, kind, MiB. */
static uint processes(const struct gpu *gpu, struct process *out, uint room)
{
    const char *text = gpu_text(gpu, "processes");
    uint found = 0;
    while (text && found < room &&
           sscanf(text, "%u:%c:%u", &out[found].pid, &out[found].kind, &out[found].mib) == 3) {
        found++;
        text = strchr(text, ',');
        text = text ? text + 1 : NULL;
    }
    return found;
}

static struct memory_v2 memory_now(const struct gpu *gpu)
{
    struct process list[32];
    struct memory_v2 now = {.version = STRUCT_VERSION(struct memory_v2, 2)};
    uint count = processes(gpu, list, 32);
    now.total = (unsigned long long)gpu_number(gpu, "memory_mib", 0) * MIB;
    now.reserved = (unsigned long long)gpu_number(gpu, "memory_reserved_mib", 0) * MIB;
    now.used = (unsigned long long)gpu_number(gpu, "memory_used_mib", 1) * MIB;
    for (uint i = 0; i < count; i++)
        now.used += list[i].mib * MIB;
    now.free = now.total - now.reserved - now.used;
    return now;
}

/* The first form of the structure has no field for what the driver reserves: it counts as used. */
API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, struct memory *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT)) {
        struct memory_v2 now = memory_now(call.gpu);
        *out = (struct memory){now.total, now.free, now.used + now.reserved};
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, struct memory_v2 *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, out->version == STRUCT_VERSION(struct memory_v2, 2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH))
        *out = memory_now(call.gpu);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, struct bar1_memory *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "bar1_mib"), NVML_ERROR_NOT_SUPPORTED)) {
        out->total = (unsigned long long)gpu_number(call.gpu, "bar1_mib", 0) * MIB;
        out->used = (unsigned long long)gpu_number(call.gpu, "bar1_used_mib", 1) * MIB;
        out->free = out->total - out->used;
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, struct utilization *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT)) {
        bool busy = machine_number("load", 0) || gpu_number(call.gpu, "load", 0);
        *out = busy ? (struct utilization){97, 60} : (struct utilization){0, 0};
    }
    return end(&call);
}

static nvmlReturn_t engine_utilization(const char *name, nvmlDevice_t device, uint *percent, uint *period)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, percent && period, NVML_ERROR_INVALID_ARGUMENT)) {
        *percent = 0;
        *period = 167000;
    }
    return end(&call);
}

#define ENGINE(function)                                                          \
    API nvmlReturn_t function(nvmlDevice_t device, uint *percent, uint *period)   \
    {                                                                             \
        return engine_utilization(#function, device, percent, period);            \
    }

ENGINE(nvmlDeviceGetEncoderUtilization)
ENGINE(nvmlDeviceGetDecoderUtilization)
ENGINE(nvmlDeviceGetJpgUtilization)
ENGINE(nvmlDeviceGetOfaUtilization)

static void list_processes(struct call *call, char kind, bool instances, uint *count, void *out)
{
    struct process all[32];
    uint total = processes(call->gpu, all, 32), found = 0, room = *count;
    for (uint i = 0; i < total; i++)
        if (all[i].kind == kind)
            all[found++] = all[i];
    *count = found;
    if (!need(call, found == 0 || (out && room >= found), NVML_ERROR_INSUFFICIENT_SIZE))
        return;
    for (uint i = 0; i < found; i++) {
        if (instances)
            ((struct process_v2 *)out)[i] = (struct process_v2){all[i].pid, all[i].mib * MIB, ~0u, ~0u};
        else
            ((struct process_v1 *)out)[i] = (struct process_v1){all[i].pid, all[i].mib * MIB};
    }
}

static nvmlReturn_t running(const char *name, nvmlDevice_t device, char kind, bool instances, uint *count, void *out)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, count != NULL, NVML_ERROR_INVALID_ARGUMENT))
        list_processes(&call, kind, instances, count, out);
    return end(&call);
}

#define RUNNING(function, kind, instances)                                        \
    API nvmlReturn_t function(nvmlDevice_t device, uint *count, void *out)        \
    {                                                                             \
        return running(#function, device, kind, instances, count, out);           \
    }

RUNNING(nvmlDeviceGetComputeRunningProcesses, 'C', false)
RUNNING(nvmlDeviceGetComputeRunningProcesses_v2, 'C', true)
RUNNING(nvmlDeviceGetComputeRunningProcesses_v3, 'C', true)
RUNNING(nvmlDeviceGetGraphicsRunningProcesses, 'G', false)
RUNNING(nvmlDeviceGetGraphicsRunningProcesses_v2, 'G', true)
RUNNING(nvmlDeviceGetGraphicsRunningProcesses_v3, 'G', true)
RUNNING(nvmlDeviceGetMPSComputeRunningProcesses_v2, 'M', true)
RUNNING(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'M', true)
