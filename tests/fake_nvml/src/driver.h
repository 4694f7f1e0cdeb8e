/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* The stand-in for the kernel driver: one machine, its GPUs and what is set on them.
 *
 * Every NVML function is one call:  begin -> need... -> read or set -> end.  Between begin and end
 * the machine is locked against all other processes; end saves what changed and returns the code.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <stdbool.h>

#include "map.h"
#include "nvml_abi.h"

#define MAX_GPUS 16

/* What a value survives. The letter is its prefix in the state file. */
#define VOLATILE 'v' /* lost when the driver lets go of an idle GPU, and at driver reload */
#define RESIDENT 'd' /* lost at driver reload */
#define INFOROM 'p'  /* kept on the board */

struct gpu {
    uint index;
    struct map card;
};

struct call {
    const char *name;
    nvmlReturn_t rc;
    bool pretend; /* a fault asked for a code without the work behind it */
    bool kill_after;
    struct gpu *gpu;
    char arguments[128];
};

/* calls */
struct call begin(const char *name);                             /* a call that names no GPU */
struct call begin_gpu(const char *name, nvmlDevice_t device);    /* a call on a GPU */
void note(struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool need(struct call *call, bool condition, nvmlReturn_t otherwise);
bool ok(struct call *call); /* nothing is wrong so far */
bool need_root(struct call *call);
nvmlReturn_t end(struct call *call);

/* library life */
nvmlReturn_t driver_open(const char *name);
nvmlReturn_t driver_close(const char *name);

/* the machine */
const char *machine_text(const char *key);
long machine_number(const char *key, long otherwise);
uint gpu_count(void);
struct gpu *gpu_at(uint index);
nvmlDevice_t handle_of(const struct gpu *gpu);

/* values of a GPU: what was set, else what the machine file says, else what the card file says.
 * "N/A" and absent are the same: NULL. */
const char *gpu_text(const struct gpu *gpu, const char *key);
long gpu_number(const struct gpu *gpu, const char *key, long otherwise);
bool gpu_has(const struct gpu *gpu, const char *key);
bool gpu_busy(const struct gpu *gpu);
void gpu_set(const struct gpu *gpu, char lifetime, const char *key, long value);
void gpu_drop(const struct gpu *gpu, char lifetime, const char *prefix); /* all keys that begin so */

/* the usual shapes of a getter */
nvmlReturn_t read_number(const char *name, nvmlDevice_t device, const char *key, uint *out);
nvmlReturn_t read_text(const char *name, nvmlDevice_t device, const char *key, char *out, uint size);
bool put_text(struct call *call, char *out, uint size, const char *text);

#endif
