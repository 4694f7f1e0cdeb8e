/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Persistence, compute mode, ECC, MIG, auto boost. */
#include "driver.h"

static nvmlReturn_t set_mode(const char *name, nvmlDevice_t device, const char *key, uint mode, bool valid)
{
    struct call call = begin_gpu(name, device);
    note(&call, "%u", mode);
    if (need(&call, valid, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, key), NVML_ERROR_NOT_SUPPORTED) && need_root(&call))
        gpu_set(call.gpu, VOLATILE, key, mode);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, uint *out)
{
    return read_number(__func__, device, "persistence_mode", out);
}

API nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t device, uint mode)
{
    return set_mode(__func__, device, "persistence_mode", mode, mode <= 1);
}

API nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, uint *out)
{
    return read_number(__func__, device, "compute_mode", out);
}

/* Mode 1, one thread, was removed from the interface. */
API nvmlReturn_t nvmlDeviceSetComputeMode(nvmlDevice_t device, uint mode)
{
    return set_mode(__func__, device, "compute_mode", mode, mode == 0 || mode == 2 || mode == 3);
}

/* --- ECC: on the board; the pending mode becomes the current one at the next driver load --- */

API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, uint *current, uint *pending)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, current && pending, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "ecc_current"), NVML_ERROR_NOT_SUPPORTED)) {
        *current = (uint)gpu_number(call.gpu, "ecc_current", 0);
        *pending = (uint)gpu_number(call.gpu, "ecc_pending", *current);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetDefaultEccMode(nvmlDevice_t device, uint *out)
{
    return read_number(__func__, device, "ecc_default", out);
}

API nvmlReturn_t nvmlDeviceSetEccMode(nvmlDevice_t device, uint mode)
{
    struct call call = begin_gpu(__func__, device);
    note(&call, "%u", mode);
    if (need(&call, mode <= 1, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "ecc_current"), NVML_ERROR_NOT_SUPPORTED) && need_root(&call))
        gpu_set(call.gpu, INFOROM, "ecc_pending", mode);
    return end(&call);
}

/* --- MIG ------------------------------------------------------------------------------------
 * Ampere keeps the mode on the board and needs a GPU reset to take it. Hopper and later take it at
 * once when the GPU is idle and forget it when the driver is unloaded. */

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, uint *current, uint *pending)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, current && pending, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "mig_current"), NVML_ERROR_NOT_SUPPORTED)) {
        *current = (uint)gpu_number(call.gpu, "mig_current", 0);
        *pending = (uint)gpu_number(call.gpu, "mig_pending", *current);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, uint mode, nvmlReturn_t *activation)
{
    struct call call = begin_gpu(__func__, device);
    note(&call, "%u", mode);
    if (need(&call, activation && mode <= 1, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "mig_current"), NVML_ERROR_NOT_SUPPORTED) && need_root(&call)) {
        bool reset = gpu_number(call.gpu, "mig_needs_reset", 0);
        bool same = gpu_number(call.gpu, "mig_current", 0) == (long)mode;
        char lifetime = reset ? INFOROM : RESIDENT;
        gpu_set(call.gpu, lifetime, "mig_pending", mode);
        *activation = same ? NVML_SUCCESS : gpu_busy(call.gpu) ? NVML_ERROR_IN_USE
                    : reset ? NVML_ERROR_RESET_REQUIRED : NVML_SUCCESS;
        if (*activation == NVML_SUCCESS)
            gpu_set(call.gpu, lifetime, "mig_current", mode);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, uint *out)
{
    return read_number(__func__, device, "mig_devices_max", out);
}

API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *out = 0; /* no MIG device is ever made here */
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, uint index, nvmlDevice_t *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out && index < (uint)gpu_number(call.gpu, "mig_devices_max", 0), NVML_ERROR_INVALID_ARGUMENT))
        need(&call, false, NVML_ERROR_NOT_FOUND);
    return end(&call);
}

/* --- auto boost: Kepler and Maxwell --------------------------------------------------------- */

API nvmlReturn_t nvmlDeviceGetAutoBoostedClocksEnabled(nvmlDevice_t device, uint *enabled, uint *preset)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, enabled && preset, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "auto_boost"), NVML_ERROR_NOT_SUPPORTED)) {
        *enabled = (uint)gpu_number(call.gpu, "auto_boost", 0);
        *preset = *enabled;
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceSetAutoBoostedClocksEnabled(nvmlDevice_t device, uint mode)
{
    return set_mode(__func__, device, "auto_boost", mode, mode <= 1);
}

API nvmlReturn_t nvmlDeviceSetDefaultAutoBoostedClocksEnabled(nvmlDevice_t device, uint mode, uint flags)
{
    (void)flags;
    return set_mode(__func__, device, "auto_boost", mode, mode <= 1);
}

API nvmlReturn_t nvmlDeviceGetAPIRestriction(nvmlDevice_t device, uint api, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out && api <= 1, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, api ? "auto_boost" : "app_default_graphics_mhz"), NVML_ERROR_NOT_SUPPORTED))
        *out = 1; /* both are for root alone */
    return end(&call);
}
