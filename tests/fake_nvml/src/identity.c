/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Finding a GPU, and what it is. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

#define TEXT(function, key)                                                       \
    API nvmlReturn_t function(nvmlDevice_t device, char *out, uint size)          \
    {                                                                             \
        return read_text(#function, device, key, out, size);                      \
    }

#define NUMBER(function, key)                                                     \
    API nvmlReturn_t function(nvmlDevice_t device, uint *out)                     \
    {                                                                             \
        return read_number(#function, device, key, out);                          \
    }

TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
TEXT(nvmlDeviceGetBoardPartNumber, "board_part")
TEXT(nvmlDeviceGetInforomImageVersion, "inforom_image")
NUMBER(nvmlDeviceGetArchitecture, "architecture")
NUMBER(nvmlDeviceGetBrand, "brand")
NUMBER(nvmlDeviceGetBoardId, "board_id")
NUMBER(nvmlDeviceGetMultiGpuBoard, "multi_gpu_board")
NUMBER(nvmlDeviceGetNumGpuCores, "cores")
NUMBER(nvmlDeviceGetMemoryBusWidth, "memory_bus_bits")
NUMBER(nvmlDeviceGetIrqNum, "irq")
NUMBER(nvmlDeviceGetNumaNodeId, "numa_node")
NUMBER(nvmlDeviceGetBusType, "bus_type")
NUMBER(nvmlDeviceGetModuleId, "module_id")
NUMBER(nvmlDeviceGetDisplayMode, "display_mode")
NUMBER(nvmlDeviceGetDisplayActive, "display_active")
NUMBER(nvmlDeviceGetVirtualizationMode, "virtualization_mode")
NUMBER(nvmlDeviceGetPowerSource, "power_source")

static nvmlReturn_t own_index(const char *name, nvmlDevice_t device, uint *out)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *out = call.gpu->index;
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, uint *out) { return own_index(__func__, device, out); }
API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, uint *out) { return own_index(__func__, device, out); }

API nvmlReturn_t nvmlDeviceGetInforomVersion(nvmlDevice_t device, uint object, char *out, uint size)
{
    static const char *const keys[] = {"inforom_oem", "inforom_ecc", "inforom_power"};
    struct call call = begin_gpu(__func__, device);
    if (need(&call, object < 3, NVML_ERROR_INVALID_ARGUMENT))
        put_text(&call, out, size, gpu_text(call.gpu, keys[object]));
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, major && minor, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "compute_capability"), NVML_ERROR_NOT_SUPPORTED))
        sscanf(gpu_text(call.gpu, "compute_capability"), "%d.%d", major, minor);
    return end(&call);
}

static nvmlReturn_t count(const char *name, uint *out)
{
    struct call call = begin(name);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *out = gpu_count();
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetCount(uint *out) { return count(__func__, out); }
API nvmlReturn_t nvmlDeviceGetCount_v2(uint *out) { return count(__func__, out); }

/* Handing out a handle is where a GPU that fell off the bus is first noticed. */
static void give_handle(struct call *call, struct gpu *gpu, nvmlDevice_t *out)
{
    if (need(call, gpu != NULL, NVML_ERROR_NOT_FOUND) &&
        need(call, !gpu_number(gpu, "lost", 0), NVML_ERROR_GPU_IS_LOST))
        *out = handle_of(gpu);
}

static nvmlReturn_t by_index(const char *name, uint index, nvmlDevice_t *out)
{
    struct call call = begin(name);
    note(&call, "%u", index);
    if (need(&call, out && index < gpu_count(), NVML_ERROR_INVALID_ARGUMENT))
        give_handle(&call, gpu_at(index), out);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex(uint index, nvmlDevice_t *out) { return by_index(__func__, index, out); }
API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(uint index, nvmlDevice_t *out) { return by_index(__func__, index, out); }

static struct gpu *with(const char *key, const char *text)
{
    for (uint i = 0; i < gpu_count(); i++) {
        const char *own = gpu_text(gpu_at(i), key);
        if (own && strcmp(own, text) == 0)
            return gpu_at(i);
    }
    return NULL;
}

static nvmlReturn_t by_text(const char *name, const char *key, const char *text, nvmlDevice_t *out)
{
    struct call call = begin(name);
    if (need(&call, text && out, NVML_ERROR_INVALID_ARGUMENT))
        give_handle(&call, with(key, text), out);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out)
{
    return by_text(__func__, "uuid", uuid, out);
}

API nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *out)
{
    return by_text(__func__, "serial", serial, out);
}

API nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const struct uuid_query *query, nvmlDevice_t *out)
{
    struct call call = begin(__func__);
    if (need(&call, query && out, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, query->version == STRUCT_VERSION(struct uuid_query, 1), NVML_ERROR_ARGUMENT_VERSION_MISMATCH) &&
        need(&call, query->type == 1, NVML_ERROR_INVALID_ARGUMENT)) /* the text form */
        give_handle(&call, with("uuid", query->value.text), out);
    return end(&call);
}

struct address { uint domain, bus, device, function; };

/* 00000000:01:00.0, 0000:01:00.0 and 01:00.0 name the same place. */
static bool parse_address(const char *text, struct address *at)
{
    char rest;
    *at = (struct address){0};
    if (!text)
        return false;
    if (sscanf(text, "%x:%x:%x.%x%c", &at->domain, &at->bus, &at->device, &at->function, &rest) == 4)
        return true;
    at->domain = 0;
    return sscanf(text, "%x:%x.%x%c", &at->bus, &at->device, &at->function, &rest) == 3;
}

static nvmlReturn_t by_address(const char *name, const char *text, nvmlDevice_t *out)
{
    struct call call = begin(name);
    struct address wanted, own;
    if (need(&call, out && parse_address(text, &wanted), NVML_ERROR_INVALID_ARGUMENT)) {
        struct gpu *found = NULL;
        for (uint i = 0; i < gpu_count(); i++)
            if (parse_address(gpu_text(gpu_at(i), "bus_id"), &own) && memcmp(&own, &wanted, sizeof own) == 0)
                found = gpu_at(i);
        give_handle(&call, found, out);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *out)
{
    return by_address(__func__, bus_id, out);
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *out)
{
    return by_address(__func__, bus_id, out);
}

static uint device_id(const struct gpu *gpu) { return (uint)gpu_number(gpu, "pci_device_id", 0) << 16 | 0x10de; }
static uint subsystem_id(const struct gpu *gpu) { return (uint)gpu_number(gpu, "pci_subsystem_id", 0); }

static nvmlReturn_t pci_info(const char *name, nvmlDevice_t device, struct pci_info *out)
{
    struct call call = begin_gpu(name, device);
    struct address at = {0};
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, parse_address(gpu_text(call.gpu, "bus_id"), &at), NVML_ERROR_UNKNOWN)) {
        *out = (struct pci_info){.domain = at.domain, .bus = at.bus, .device = at.device,
                                 .device_id = device_id(call.gpu), .subsystem_id = subsystem_id(call.gpu)};
        snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.%X", at.domain, at.bus, at.device, at.function);
        snprintf(out->legacy_bus_id, sizeof out->legacy_bus_id, "%04X:%02X:%02X.%X", at.domain & 0xffff,
                 at.bus & 0xff, at.device & 0xff, at.function & 0xf);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, struct pci_info *out)
{
    return pci_info(__func__, device, out);
}

static nvmlReturn_t pci_info_old(const char *name, nvmlDevice_t device, struct pci_info_v2 *out)
{
    struct pci_info info;
    nvmlReturn_t rc = pci_info(name, device, out ? &info : NULL);
    if (rc == NVML_SUCCESS) {
        *out = (struct pci_info_v2){.domain = info.domain, .bus = info.bus, .device = info.device,
                                    .device_id = info.device_id, .subsystem_id = info.subsystem_id};
        memcpy(out->bus_id, info.legacy_bus_id, sizeof out->bus_id);
    }
    return rc;
}

API nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, struct pci_info_v2 *out)
{
    return pci_info_old(__func__, device, out);
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, struct pci_info_v2 *out)
{
    return pci_info_old(__func__, device, out);
}

API nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, struct pci_info_ext *out)
{
    struct call call = begin_gpu(__func__, device);
    struct address at = {0};
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, out->version == STRUCT_VERSION(struct pci_info_ext, 1), NVML_ERROR_ARGUMENT_VERSION_MISMATCH) &&
        need(&call, parse_address(gpu_text(call.gpu, "bus_id"), &at), NVML_ERROR_UNKNOWN)) {
        out->domain = at.domain;
        out->bus = at.bus;
        out->device = at.device;
        out->device_id = device_id(call.gpu);
        out->subsystem_id = subsystem_id(call.gpu);
        out->base_class = 3;
        out->sub_class = gpu_number(call.gpu, "pci_sub_class", 0);
        snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.%X", at.domain, at.bus, at.device, at.function);
    }
    return end(&call);
}

/* CPUs near the GPU, as a bit mask in machine words. */
static nvmlReturn_t mask(const char *name, nvmlDevice_t device, const char *key, uint words, unsigned long *out)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, out && words, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, key), NVML_ERROR_NOT_SUPPORTED)) {
        unsigned first, last;
        memset(out, 0, words * sizeof *out);
        int found = sscanf(gpu_text(call.gpu, key), "%u-%u", &first, &last);
        for (unsigned bit = first; found > 0 && bit <= (found == 2 ? last : first); bit++)
            if (need(&call, bit / (8 * sizeof *out) < words, NVML_ERROR_INSUFFICIENT_SIZE))
                out[bit / (8 * sizeof *out)] |= 1ul << bit % (8 * sizeof *out);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, uint words, unsigned long *out)
{
    return mask(__func__, device, "cpu_affinity", words, out);
}

API nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, uint words, unsigned long *out, uint scope)
{
    (void)scope;
    return mask(__func__, device, "cpu_affinity", words, out);
}

API nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, uint words, unsigned long *out, uint scope)
{
    (void)scope;
    return mask(__func__, device, "memory_affinity", words, out);
}

API nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t device, nvmlDevice_t other, int *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out && other, NVML_ERROR_INVALID_ARGUMENT))
        *out = other == device;
    return end(&call);
}
