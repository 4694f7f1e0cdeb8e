/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* nvmlInit, nvmlShutdown, versions, error texts. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

API nvmlReturn_t nvmlInit(void) { return driver_open(__func__); }
API nvmlReturn_t nvmlInit_v2(void) { return driver_open(__func__); }
API nvmlReturn_t nvmlInitWithFlags(uint flags)
{
    (void)flags;
    return driver_open(__func__);
}
API nvmlReturn_t nvmlShutdown(void) { return driver_close(__func__); }

API const char *nvmlErrorString(nvmlReturn_t code)
{
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions",
        "Already Initialized", "Not Found", "Insufficient Size", "Insufficient External Power",
        "Driver Not Loaded", "Timeout", "Interrupt Request Issue", "NVML Shared Library Not Found",
        "Function Not Found", "Corrupted infoROM", "GPU is lost", "GPU requires reset",
        "GPU access blocked by the operating system", "Driver/library version mismatch",
        "In use by another client", "Insufficient Memory", "No data", "vGPU ECC not supported",
        "Insufficient resources", "Frequency not supported", "Argument version mismatch",
        "Deprecated", "Not ready", "GPU not found", "Invalid state",
    };
    return code < sizeof texts / sizeof *texts ? texts[code] : "Unknown Error";
}

static nvmlReturn_t machine_string(const char *name, const char *key, char *out, uint size)
{
    struct call call = begin(name);
    put_text(&call, out, size, machine_text(key));
    return end(&call);
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, uint size)
{
    return machine_string(__func__, "driver_version", version, size);
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, uint size)
{
    return machine_string(__func__, "nvml_version", version, size);
}

static nvmlReturn_t cuda_version(const char *name, int *version)
{
    struct call call = begin(name);
    if (need(&call, version != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *version = (int)machine_number("cuda_version", 0);
    return end(&call);
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return cuda_version(__func__, version); }
API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { return cuda_version(__func__, version); }

API nvmlReturn_t nvmlSystemGetDriverBranch(struct branch_info *info, uint size)
{
    struct call call = begin(__func__);
    uint major = 0;
    if (need(&call, info && size, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, info->version == STRUCT_VERSION(struct branch_info, 1),
             NVML_ERROR_ARGUMENT_VERSION_MISMATCH) &&
        need(&call, machine_text("driver_version") &&
             sscanf(machine_text("driver_version"), "%u", &major) == 1, NVML_ERROR_UNKNOWN))
        snprintf(info->branch, sizeof info->branch, "r%u_00", major);
    return end(&call);
}

API nvmlReturn_t nvmlSystemGetProcessName(uint pid, char *name, uint size)
{
    struct call call = begin(__func__);
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%u/comm", pid);
    FILE *file = fopen(path, "re");
    if (file && !fgets(text, sizeof text, file))
        text[0] = '\0';
    if (file)
        fclose(file);
    text[strcspn(text, "\n")] = '\0';
    if (need(&call, text[0] != '\0', NVML_ERROR_NOT_FOUND))
        put_text(&call, name, size, text);
    return end(&call);
}
