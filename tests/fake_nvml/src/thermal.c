/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Temperature, thresholds and fans. */
#include "clocks.h"
#include "driver.h"

enum { THRESHOLD_ACOUSTIC_CURRENT = 5, THRESHOLD_COUNT = 8 };

static const char *const thresholds[THRESHOLD_COUNT] = {
    "temp_shutdown", "temp_slowdown", "temp_memory_max", "temp_gpu_max",
    "temp_target_min", "temp_target", "temp_target_max", "temp_gps",
};

static int celsius(const struct gpu *gpu)
{
    bool busy = machine_number("load", 0) || gpu_number(gpu, "load", 0);
    return (int)gpu_number(gpu, busy ? "temp_load" : "temp_idle", 30);
}

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, uint sensor, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out && sensor == 0, NVML_ERROR_INVALID_ARGUMENT))
        *out = (uint)celsius(call.gpu);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, struct temperature *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, out->version == STRUCT_VERSION(struct temperature, 1), NVML_ERROR_ARGUMENT_VERSION_MISMATCH) &&
        need(&call, out->sensor == 0, NVML_ERROR_INVALID_ARGUMENT))
        out->celsius = celsius(call.gpu);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, uint type, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out && type < THRESHOLD_COUNT, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, thresholds[type]), NVML_ERROR_NOT_SUPPORTED))
        *out = (uint)gpu_number(call.gpu, thresholds[type], 0);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceSetTemperatureThreshold(nvmlDevice_t device, uint type, int *value)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, value && type < THRESHOLD_COUNT, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, type == THRESHOLD_ACOUSTIC_CURRENT && gpu_has(call.gpu, "temp_target"), NVML_ERROR_NOT_SUPPORTED) &&
        need_root(&call)) {
        note(&call, "%u %d", type, *value);
        if (need(&call, *value >= gpu_number(call.gpu, "temp_target_min", 0) &&
                 *value <= gpu_number(call.gpu, "temp_target_max", 0), NVML_ERROR_INVALID_ARGUMENT))
            gpu_set(call.gpu, VOLATILE, "temp_target", *value);
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, struct margin_temperature *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, out->version == STRUCT_VERSION(struct margin_temperature, 1),
             NVML_ERROR_ARGUMENT_VERSION_MISMATCH) &&
        need(&call, gpu_has(call.gpu, "temp_margin_from"), NVML_ERROR_NOT_SUPPORTED))
        out->margin = (int)gpu_number(call.gpu, "temp_margin_from", 0) - celsius(call.gpu);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetThermalSettings(nvmlDevice_t device, uint sensor, struct thermal_settings *out)
{
    struct call call = begin_gpu(__func__, device);
    (void)sensor;
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT)) {
        *out = (struct thermal_settings){.count = 1};
        out->sensor[0].controller = 1;
        out->sensor[0].highest = 127;
        out->sensor[0].current = celsius(call.gpu);
        out->sensor[0].target = 1;
    }
    return end(&call);
}

/* --- fans ----------------------------------------------------------------------------------- */

static uint fan_count(const struct gpu *gpu) { return (uint)gpu_number(gpu, "fans", 0); }

static bool has_fan(struct call *call, uint fan)
{
    return need(call, fan_count(call->gpu) > 0, NVML_ERROR_NOT_SUPPORTED) &&
           need(call, fan < fan_count(call->gpu), NVML_ERROR_INVALID_ARGUMENT);
}

API nvmlReturn_t nvmlDeviceGetNumFans(nvmlDevice_t device, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *out = fan_count(call.gpu);
    return end(&call);
}

static void give_speed(struct call *call, uint fan, uint *out)
{
    char key[] = "fan_speed_A";
    key[sizeof key - 2] = (char)('A' + fan % 26);
    if (need(call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) && has_fan(call, fan))
        *out = (uint)gpu_number(call->gpu, key, gpu_number(call->gpu, "fan_percent", 0));
}

API nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t device, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    give_speed(&call, 0, out);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, uint fan, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    give_speed(&call, fan, out);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetTargetFanSpeed(nvmlDevice_t device, uint fan, uint *out)
{
    struct call call = begin_gpu(__func__, device);
    give_speed(&call, fan, out);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetFanSpeedRPM(nvmlDevice_t device, struct fan_rpm *info)
{
    struct call call = begin_gpu(__func__, device);
    uint percent = 0;
    if (need(&call, info != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, info->version == STRUCT_VERSION(struct fan_rpm, 1), NVML_ERROR_ARGUMENT_VERSION_MISMATCH)) {
        give_speed(&call, info->fan, &percent);
        if (ok(&call))
            info->rpm = percent * 30;
    }
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetMinMaxFanSpeed(nvmlDevice_t device, uint *lowest, uint *highest)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, lowest && highest, NVML_ERROR_INVALID_ARGUMENT) && has_fan(&call, 0)) {
        *lowest = (uint)gpu_number(call.gpu, "fan_percent_min", 30);
        *highest = 100;
    }
    return end(&call);
}

static char *fan_key(char *key, uint fan)
{
    key[10] = (char)('A' + fan % 26);
    return key;
}

API nvmlReturn_t nvmlDeviceGetFanControlPolicy_v2(nvmlDevice_t device, uint fan, uint *policy)
{
    struct call call = begin_gpu(__func__, device);
    char key[] = "fan_speed_A";
    if (need(&call, policy != NULL, NVML_ERROR_INVALID_ARGUMENT) && has_fan(&call, fan))
        *policy = gpu_has(call.gpu, fan_key(key, fan)); /* a set speed is the manual policy, 1 */
    return end(&call);
}

API nvmlReturn_t nvmlDeviceSetFanSpeed_v2(nvmlDevice_t device, uint fan, uint percent)
{
    struct call call = begin_gpu(__func__, device);
    char key[] = "fan_speed_A";
    note(&call, "%u %u", fan, percent);
    if (has_fan(&call, fan) && need_root(&call) &&
        need(&call, percent >= (uint)gpu_number(call.gpu, "fan_percent_min", 30) && percent <= 100,
             NVML_ERROR_INVALID_ARGUMENT))
        gpu_set(call.gpu, VOLATILE, fan_key(key, fan), percent);
    return end(&call);
}

static void automatic(struct call *call, uint fan)
{
    char key[] = "fan_speed_A";
    if (has_fan(call, fan) && need_root(call))
        gpu_drop(call->gpu, VOLATILE, fan_key(key, fan));
}

API nvmlReturn_t nvmlDeviceSetDefaultFanSpeed_v2(nvmlDevice_t device, uint fan)
{
    struct call call = begin_gpu(__func__, device);
    note(&call, "%u", fan);
    automatic(&call, fan);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceSetFanControlPolicy(nvmlDevice_t device, uint fan, uint policy)
{
    struct call call = begin_gpu(__func__, device);
    char key[] = "fan_speed_A";
    note(&call, "%u %u", fan, policy);
    if (need(&call, policy <= 1, NVML_ERROR_INVALID_ARGUMENT)) {
        if (policy == 0)
            automatic(&call, fan);
        else if (has_fan(&call, fan) && need_root(&call))
            gpu_set(call.gpu, VOLATILE, fan_key(key, fan), gpu_number(call.gpu, "fan_percent", 30));
    }
    return end(&call);
}
