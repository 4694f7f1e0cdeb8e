/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* A file of `key=value` lines: the one format of cards, machine, state and configuration. */
#ifndef MAP_H
#define MAP_H

#include <stdbool.h>
#include <stddef.h>

struct pair {
    char *key;
    char *value;
};

struct map {
    struct pair *pairs;
    size_t count;
};

bool map_load(struct map *map, const char *path); /* replaces the content; false: no such file */
bool map_save(const struct map *map, const char *path); /* by rename: a reader never sees a half */
void map_clear(struct map *map);
const char *map_get(const struct map *map, const char *key);
void map_set(struct map *map, const char *key, const char *value);
void map_drop(struct map *map, const char *prefix);

#endif
