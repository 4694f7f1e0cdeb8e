/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* nvmlDeviceGetFieldValues: values by number, each with its own return code. */
#include <time.h>

#include "clocks.h"
#include "driver.h"

enum { TYPE_UINT = 1, TYPE_ULL = 3, TYPE_INT = 5 };

struct field {
    uint id;
    const char *key; /* of the card or state; NULL: computed */
    uint (*value)(const struct gpu *);
    uint type;
};

static const struct field fields[] = {
    {1, "ecc_current", NULL, TYPE_UINT},
    {2, "ecc_pending", NULL, TYPE_UINT},
    {83, "energy_mj", NULL, TYPE_ULL},
    {94, "pcie_replays", NULL, TYPE_UINT},
    {95, "pcie_replays", NULL, TYPE_UINT},
    {185, "idle_power_mw", power_draw, TYPE_UINT},
    {186, "idle_power_mw", power_draw, TYPE_UINT},
    {187, "power_min_mw", NULL, TYPE_UINT},
    {188, "power_max_mw", NULL, TYPE_UINT},
    {189, "power_default_mw", NULL, TYPE_UINT},
    {190, "power_default_mw", enforced_power, TYPE_UINT},
    {192, "power_default_mw", requested_power, TYPE_UINT},
    {193, "tlimit_shutdown", NULL, TYPE_INT},
    {194, "tlimit_slowdown", NULL, TYPE_INT},
    {195, "tlimit_memory_max", NULL, TYPE_INT},
    {196, "tlimit_gpu_max", NULL, TYPE_INT},
};

static const struct field *find(uint id)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].id == id)
            return &fields[i];
    return NULL;
}

static void fill(const struct gpu *gpu, struct field_value *out)
{
    const struct field *field = find(out->id);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->timestamp = now.tv_sec * 1000000ll + now.tv_nsec / 1000;
    out->latency = 0;
    /* A scope other than 0 asks for the power of the memory or the module, which no card here has. */
    out->rc = field && out->scope == 0 && gpu_has(gpu, field->key) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
    if (out->rc != NVML_SUCCESS)
        return;
    long value = field->value ? (long)field->value(gpu) : gpu_number(gpu, field->key, 0);
    out->type = field->type;
    out->value.ull = 0;
    if (field->type == TYPE_ULL)
        out->value.ull = (unsigned long long)value;
    else if (field->type == TYPE_INT)
        out->value.i = (int)value;
    else
        out->value.u = (uint)value;
}

API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, struct field_value *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out && count > 0, NVML_ERROR_INVALID_ARGUMENT))
        for (int i = 0; i < count; i++)
            fill(call.gpu, &out[i]);
    return end(&call);
}
