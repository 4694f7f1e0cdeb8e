/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* The rest of nvml.h. A real library exports these names too and answers Not Supported on a card
 * or a host that lacks the feature; a missing name would look like an old driver. Arguments behind
 * the first are never touched, so one signature serves for all. */
#include "driver.h"

static nvmlReturn_t unsupported(struct call call)
{
    need(&call, false, NVML_ERROR_NOT_SUPPORTED);
    return end(&call);
}

#define GPU_FUNCTION(name)                                                        \
    API nvmlReturn_t name(nvmlDevice_t device)                                    \
    {                                                                             \
        return unsupported(begin_gpu(#name, device));                             \
    }
#define OTHER_FUNCTION(name)                                                      \
    API nvmlReturn_t name(void)                                                   \
    {                                                                             \
        return unsupported(begin(#name));                                         \
    }

#include "unsupported.def"
