/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Event sets can be made, filled and waited for; no event ever comes. */
#include <unistd.h>

#include "driver.h"

static char event_set; /* its address is the one handle there is */

API nvmlReturn_t nvmlEventSetCreate(void **out)
{
    struct call call = begin(__func__);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *out = &event_set;
    return end(&call);
}

API nvmlReturn_t nvmlEventSetFree(void *set)
{
    struct call call = begin(__func__);
    need(&call, set == &event_set, NVML_ERROR_INVALID_ARGUMENT);
    return end(&call);
}

API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *out)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT))
        *out = 0x1c; /* performance state, critical Xid, clock */
    return end(&call);
}

API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, void *set)
{
    struct call call = begin_gpu(__func__, device);
    if (need(&call, set == &event_set, NVML_ERROR_INVALID_ARGUMENT))
        need(&call, (types & ~0x1cull) == 0, NVML_ERROR_NOT_SUPPORTED);
    return end(&call);
}

static nvmlReturn_t wait_for(const char *name, void *set, uint milliseconds)
{
    struct call call = begin(name);
    bool valid = need(&call, set == &event_set, NVML_ERROR_INVALID_ARGUMENT);
    need(&call, false, NVML_ERROR_TIMEOUT);
    nvmlReturn_t rc = end(&call); /* others go on while this one sleeps */
    if (valid)
        usleep((useconds_t)milliseconds * 1000);
    return rc;
}

API nvmlReturn_t nvmlEventSetWait(void *set, void *data, uint milliseconds)
{
    (void)data;
    return wait_for(__func__, set, milliseconds);
}

API nvmlReturn_t nvmlEventSetWait_v2(void *set, void *data, uint milliseconds)
{
    (void)data;
    return wait_for(__func__, set, milliseconds);
}
