/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Power limits and draw, in milliwatts. */
#include "clocks.h"
#include "driver.h"

API nvmlReturn_t nvmlDeviceGetPowerManagementMode(nvmlDevice_t device, uint *out)
{
    return read_number(__func__, device, "power_management", out);
}

API nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, uint *out)
{
    return read_number(__func__, device, "power_default_mw", out);
}

API nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, uint *lowest, uint *highest)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, lowest && highest, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "power_min_mw"), NVML_ERROR_NOT_SUPPORTED)) {
        *lowest = (uint)gpu_number(call.gpu, "power_min_mw", 0);
        *highest = (uint)gpu_number(call.gpu, "power_max_mw", 0);
    }
    return end(&call);
}

static nvmlReturn_t limit(const char *name, nvmlDevice_t device, uint *out, uint (*value)(const struct gpu *))
{
    struct call call = begin_gpu(name, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "power_default_mw"), NVML_ERROR_NOT_SUPPORTED))
        *out = value(call.gpu);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, uint *out)
{
    return limit(__func__, device, out, requested_power);
}

API nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, uint *out)
{
    return limit(__func__, device, out, enforced_power);
}

API nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "idle_power_mw"), NVML_ERROR_NOT_SUPPORTED))
        *out = power_draw(call.gpu);
    return end(&call);
}

static void set_limit(struct call *call, uint milliwatts)
{
    if (need(call, gpu_number(call->gpu, "power_settable", 1), NVML_ERROR_NOT_SUPPORTED) && need_root(call) &&
        need(call, milliwatts >= (uint)gpu_number(call->gpu, "power_min_mw", 0) &&
             milliwatts <= (uint)gpu_number(call->gpu, "power_max_mw", 0), NVML_ERROR_INVALID_ARGUMENT))
        gpu_set(call->gpu, VOLATILE, "power_limit_mw", milliwatts);
}

API nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, uint milliwatts)
{
    struct call call = begin_gpu(__func__, device);
    note(&call, "%u", milliwatts);
    set_limit(&call, milliwatts);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device, struct power_value *value)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, value != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, value->version == STRUCT_VERSION(struct power_value, 2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH) &&
        need(&call, value->scope <= 3, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, value->scope == 0, NVML_ERROR_NOT_SUPPORTED)) {
        note(&call, "%u", value->milliwatts);
        set_limit(&call, value->milliwatts);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, "idle_power_mw"), NVML_ERROR_NOT_SUPPORTED))
        *out = (unsigned long long)gpu_number(call.gpu, "energy_mj", 0);
    return end(&call);
}
