/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Where the machine is described, and what a GPU's values are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

const char *path_of(const char *file)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", driver.directory, file);
    return path;
}

/* The environment comes first. A module run by Ansible does not get it, hence the file beside
 * the library. */
bool find_directory(void)
{
    const char *directory = getenv("FAKE_NVML_STATE");
    struct map configuration = {0};
    if (!directory || !*directory) {
        Dl_info library;
        char path[4096];
        if (!dladdr((void *)find_directory, &library) || !library.dli_fname)
            return false;
        const char *slash = strrchr(library.dli_fname, '/');
        int length = slash ? (int)(slash - library.dli_fname) : 1;
        snprintf(path, sizeof path, "%.*s/fake_nvml.conf", length, slash ? library.dli_fname : ".");
        map_load(&configuration, path);
        directory = map_get(&configuration, "state");
    }
    if (directory)
        snprintf(driver.directory, sizeof driver.directory, "%s", directory);
    map_clear(&configuration);
    return driver.directory[0] != '\0';
}

const char *machine_text(const char *key)
{
    return map_get(&driver.machine, key);
}

static long to_number(const char *text, long otherwise)
{
    return text ? strtol(text, NULL, 0) : otherwise;
}

long machine_number(const char *key, long otherwise)
{
    return to_number(machine_text(key), otherwise);
}

static const char *machine_gpu_text(uint index, const char *key)
{
    char name[96];
    snprintf(name, sizeof name, "%u.%s", index, key);
    return map_get(&driver.machine, name);
}

void load_gpus(void)
{
    for (uint i = 0; i < driver.gpu_count; i++)
        map_clear(&driver.gpus[i].card);
    driver.gpu_count = 0;
    for (uint i = 0; i < MAX_GPUS; i++) {
        struct gpu *gpu = &driver.gpus[i];
        const char *card = machine_gpu_text(i, "card");
        char file[256];
        if (!card)
            break;
        snprintf(file, sizeof file, "cards/%s.card", card);
        map_load(&gpu->card, path_of(file));
        gpu->index = i;
        driver.gpu_count++;
    }
}

uint gpu_count(void)
{
    return driver.gpu_count;
}

struct gpu *gpu_at(uint index)
{
    return index < driver.gpu_count ? &driver.gpus[index] : NULL;
}

nvmlDevice_t handle_of(const struct gpu *gpu)
{
    return (nvmlDevice_t)gpu;
}

static void state_key(const struct gpu *gpu, char lifetime, const char *key, char *out, size_t size)
{
    const char *uuid = machine_gpu_text(gpu->index, "uuid");
    snprintf(out, size, "%c.%s.%s", lifetime, uuid ? uuid : "?", key);
}

const char *gpu_text(const struct gpu *gpu, const char *key)
{
    static const char lifetimes[] = {VOLATILE, RESIDENT, INFOROM};
    const char *value = NULL;
    char name[192];
    for (size_t i = 0; !value && i < sizeof lifetimes; i++) {
        state_key(gpu, lifetimes[i], key, name, sizeof name);
        value = map_get(&driver.state, name);
    }
    if (!value)
        value = machine_gpu_text(gpu->index, key);
    if (!value)
        value = map_get(&gpu->card, key);
    return value && strcmp(value, "N/A") != 0 ? value : NULL;
}

bool gpu_has(const struct gpu *gpu, const char *key)
{
    return gpu_text(gpu, key) != NULL;
}

long gpu_number(const struct gpu *gpu, const char *key, long otherwise)
{
    return to_number(gpu_text(gpu, key), otherwise);
}

/* Somebody computes on it: the driver keeps it initialised whatever the persistence mode is. */
bool gpu_busy(const struct gpu *gpu)
{
    return machine_number("load", 0) || gpu_number(gpu, "load", 0) || gpu_has(gpu, "processes");
}

void gpu_set(const struct gpu *gpu, char lifetime, const char *key, long value)
{
    char name[192], text[32];
    state_key(gpu, lifetime, key, name, sizeof name);
    snprintf(text, sizeof text, "%ld", value);
    map_set(&driver.state, name, text);
    driver.state_changed = true;
}

void gpu_drop(const struct gpu *gpu, char lifetime, const char *prefix)
{
    char name[192];
    state_key(gpu, lifetime, prefix, name, sizeof name);
    map_drop(&driver.state, name);
    driver.state_changed = true;
}
