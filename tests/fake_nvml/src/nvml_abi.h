/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* The part of the NVML binary interface that this library speaks: numbers and structure layouts.
 * Enumerations travel as unsigned int, a device handle is an opaque pointer. */
#ifndef NVML_ABI_H
#define NVML_ABI_H

#include <stddef.h>

#define API __attribute__((visibility("default")))

typedef unsigned int uint;
typedef uint nvmlReturn_t;
typedef void *nvmlDevice_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_RESET_REQUIRED = 16,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_IN_USE = 19,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
};

enum { CLOCK_GRAPHICS, CLOCK_SM, CLOCK_MEM, CLOCK_VIDEO, CLOCK_COUNT };

#define CLOCK_LIMIT_TDP 0xffffff01u
#define CLOCK_LIMIT_UNLIMITED 0xffffff02u

/* A versioned structure says its size in the low bits and its revision in the top byte. */
#define STRUCT_VERSION(type, revision) ((uint)sizeof(type) | ((uint)(revision) << 24))

struct pci_info {
    char legacy_bus_id[16];
    uint domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

struct pci_info_v2 {
    char bus_id[16];
    uint domain, bus, device, device_id, subsystem_id, reserved[4];
};

struct pci_info_ext {
    uint version, domain, bus, device, device_id, subsystem_id, base_class, sub_class;
    char bus_id[32];
};

struct memory { unsigned long long total, free, used; };
struct memory_v2 { uint version; unsigned long long total, reserved, free, used; };
struct bar1_memory { unsigned long long total, free, used; };
struct utilization { uint gpu, memory; };

struct process_v1 { uint pid; unsigned long long memory; };
struct process_v2 { uint pid; unsigned long long memory; uint gpu_instance, compute_instance; };

struct temperature { uint version, sensor; int celsius; };
struct margin_temperature { uint version; int margin; };
struct fan_rpm { uint version, fan, rpm; };

struct thermal_settings {
    uint count;
    struct { uint controller; int lowest, highest, current; uint target; } sensor[3];
};

struct power_value { uint version; unsigned char scope; uint milliwatts; };
struct clock_offset { uint version, type, pstate; int offset, lowest, highest; };
struct power_mizer { uint current, mode, supported; };
struct perf_text { uint version; char text[2048]; };
struct branch_info { uint version; char branch[80]; };

struct uuid_query {
    uint version, type;
    union { char text[41]; unsigned char bytes[16]; } value;
};

union field_number {
    double real;
    uint u;
    unsigned long long ull;
    int i;
};

struct field_value {
    uint id, scope;
    long long timestamp, latency;
    uint type;
    nvmlReturn_t rc;
    union field_number value;
};

#endif
