/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* One call at a time, across processes: lock, load, check, work, save, unlock. */
#define _GNU_SOURCE
#include "driver.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "internal.h"

struct driver driver = {.users = -1};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int lock = -1;

static bool lock_machine(void)
{
    pthread_mutex_lock(&mutex);
    if (!driver.directory[0] && !find_directory())
        return false;
    lock = open(path_of("lock"), O_RDONLY | O_CREAT | O_CLOEXEC, 0666);
    if (lock >= 0)
        flock(lock, LOCK_EX);
    map_load(&driver.state, path_of("state"));
    return map_load(&driver.machine, path_of("machine"));
}

static void unlock_machine(void)
{
    if (driver.state_changed)
        map_save(&driver.state, path_of("state"));
    driver.state_changed = false;
    if (lock >= 0)
        close(lock);
    lock = -1;
    pthread_mutex_unlock(&mutex);
}

struct call begin(const char *name)
{
    struct call call = {.name = name};
    if (!lock_machine())
        call.rc = driver.initialised ? NVML_ERROR_UNKNOWN : NVML_ERROR_UNINITIALIZED;
    driver.calls++;
    need(&call, driver.initialised > 0, NVML_ERROR_UNINITIALIZED);
    if (call.rc == NVML_SUCCESS)
        apply_faults(&call);
    return call;
}

static struct gpu *from_handle(nvmlDevice_t device)
{
    for (uint i = 0; i < driver.gpu_count; i++)
        if (handle_of(&driver.gpus[i]) == device)
            return &driver.gpus[i];
    return NULL;
}

struct call begin_gpu(const char *name, nvmlDevice_t device)
{
    struct call call = {.name = name};
    if (!lock_machine())
        call.rc = driver.initialised ? NVML_ERROR_UNKNOWN : NVML_ERROR_UNINITIALIZED;
    driver.calls++;
    need(&call, driver.initialised > 0, NVML_ERROR_UNINITIALIZED);
    call.gpu = from_handle(device);
    if (need(&call, call.gpu != NULL, NVML_ERROR_INVALID_ARGUMENT)) {
        apply_faults(&call);
        need(&call, !gpu_number(call.gpu, "lost", 0), NVML_ERROR_GPU_IS_LOST);
    }
    return call;
}

void note(struct call *call, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(call->arguments, sizeof call->arguments, format, arguments);
    va_end(arguments);
}

bool need(struct call *call, bool condition, nvmlReturn_t otherwise)
{
    if (call->rc != NVML_SUCCESS || call->pretend)
        return false;
    if (!condition)
        call->rc = otherwise;
    return condition;
}

bool ok(struct call *call)
{
    return need(call, true, NVML_SUCCESS);
}

bool need_root(struct call *call)
{
    return need(call, geteuid() == 0, NVML_ERROR_NO_PERMISSION);
}

/* The call log counts driver calls and shows what was asked for. It exists only when a test made
 * the file. */
static void trace(const struct call *call)
{
    char line[256];
    int file = driver.directory[0] ? open(path_of("trace"), O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    int length = snprintf(line, sizeof line, "%d %s %d %u%s%s\n", (int)getpid(), call->name,
                          call->gpu ? (int)call->gpu->index : -1, call->rc,
                          call->arguments[0] ? " " : "", call->arguments);
    ssize_t written = write(file, line, (size_t)length);
    (void)written; /* a log that cannot be written must not change what the driver does */
    close(file);
}

nvmlReturn_t end(struct call *call)
{
    trace(call);
    unlock_machine();
    if (call->kill_after)
        raise(SIGKILL);
    return call->rc;
}

/* Without persistence mode the driver deinitialises a GPU that has no client left, and what was
 * set on it is gone. */
static void release_idle_gpus(void)
{
    for (uint i = 0; i < driver.gpu_count; i++) {
        const struct gpu *gpu = &driver.gpus[i];
        if (!gpu_number(gpu, "persistence_mode", 0) && !gpu_busy(gpu))
            gpu_drop(gpu, VOLATILE, "");
    }
}

/* A client holds a shared lock on `users` from nvmlInit to nvmlShutdown. Whoever gets it
 * exclusively is alone: also after a client died without a shutdown. */
static bool alone(void)
{
    return driver.users >= 0 && flock(driver.users, LOCK_EX | LOCK_NB) == 0;
}

nvmlReturn_t driver_open(const char *name)
{
    struct call call = {.name = name};
    bool machine = lock_machine();
    driver.calls++;
    need(&call, machine, NVML_ERROR_DRIVER_NOT_LOADED);
    if (machine) {
        need(&call, machine_number("init_rc", 0) == 0, (nvmlReturn_t)machine_number("init_rc", 0));
        apply_faults(&call);
    }
    if (ok(&call) && driver.initialised++ == 0) {
        load_gpus();
        driver.users = open(path_of("users"), O_RDONLY | O_CREAT | O_CLOEXEC, 0666);
        if (alone())
            release_idle_gpus();
        if (driver.users >= 0)
            flock(driver.users, LOCK_SH);
    }
    return end(&call);
}

nvmlReturn_t driver_close(const char *name)
{
    struct call call = begin(name);
    if (ok(&call) && --driver.initialised == 0) {
        if (alone())
            release_idle_gpus();
        if (driver.users >= 0)
            close(driver.users);
        driver.users = -1;
    }
    return end(&call);
}

nvmlReturn_t read_number(const char *name, nvmlDevice_t device, const char *key, uint *out)
{
    struct call call = begin_gpu(name, device);
    if (need(&call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) &&
        need(&call, gpu_has(call.gpu, key), NVML_ERROR_NOT_SUPPORTED))
        *out = (uint)gpu_number(call.gpu, key, 0);
    return end(&call);
}

bool put_text(struct call *call, char *out, uint size, const char *text)
{
    if (!need(call, out != NULL, NVML_ERROR_INVALID_ARGUMENT) ||
        !need(call, text != NULL, NVML_ERROR_NOT_SUPPORTED) ||
        !need(call, strlen(text) < size, NVML_ERROR_INSUFFICIENT_SIZE))
        return false;
    strcpy(out, text);
    return true;
}

nvmlReturn_t read_text(const char *name, nvmlDevice_t device, const char *key, char *out, uint size)
{
    struct call call = begin_gpu(name, device);
    put_text(&call, out, size, call.gpu ? gpu_text(call.gpu, key) : NULL);
    return end(&call);
}
