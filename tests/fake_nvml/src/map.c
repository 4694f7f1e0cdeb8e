/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
#include "map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *copy(const char *text)
{
    char *result = strdup(text);
    if (!result)
        abort();
    return result;
}

void map_clear(struct map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        free(map->pairs[i].key);
        free(map->pairs[i].value);
    }
    free(map->pairs);
    map->pairs = NULL;
    map->count = 0;
}

static struct pair *find(const struct map *map, const char *key)
{
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->pairs[i].key, key) == 0)
            return &map->pairs[i];
    return NULL;
}

const char *map_get(const struct map *map, const char *key)
{
    const struct pair *pair = find(map, key);
    return pair ? pair->value : NULL;
}

void map_set(struct map *map, const char *key, const char *value)
{
    struct pair *pair = find(map, key);
    if (pair) {
        char *fresh = copy(value);
        free(pair->value);
        pair->value = fresh;
        return;
    }
    map->pairs = realloc(map->pairs, (map->count + 1) * sizeof(*map->pairs));
    if (!map->pairs)
        abort();
    map->pairs[map->count++] = (struct pair){copy(key), copy(value)};
}

void map_drop(struct map *map, const char *prefix)
{
    size_t kept = 0;
    for (size_t i = 0; i < map->count; i++) {
        if (strncmp(map->pairs[i].key, prefix, strlen(prefix)) == 0) {
            free(map->pairs[i].key);
            free(map->pairs[i].value);
        } else {
            map->pairs[kept++] = map->pairs[i];
        }
    }
    map->count = kept;
}

static char *trim(char *text)
{
    text += strspn(text, " \t");
    for (size_t end = strlen(text); end && strchr(" \t\r\n", text[end - 1]); end--)
        text[end - 1] = '\0';
    return text;
}

bool map_load(struct map *map, const char *path)
{
    char line[4096];
    FILE *file = fopen(path, "re");
    map_clear(map);
    if (!file)
        return false;
    while (fgets(line, sizeof line, file)) {
        char *key = trim(line), *value = strchr(key, '=');
        if (*key == '#' || !value)
            continue;
        *value++ = '\0';
        map_set(map, trim(key), trim(value));
    }
    fclose(file);
    return true;
}

bool map_save(const struct map *map, const char *path)
{
    char temporary[4096];
    snprintf(temporary, sizeof temporary, "%s.%d", path, (int)getpid());
    FILE *file = fopen(temporary, "we");
    if (!file)
        return false;
    for (size_t i = 0; i < map->count; i++)
        fprintf(file, "%s=%s\n", map->pairs[i].key, map->pairs[i].value);
    /* An unprivileged client closes the GPU as well, so it must be able to write the state. */
    fchmod(fileno(file), 0666);
    bool written = !ferror(file);
    if (fclose(file) != 0 || !written || rename(temporary, path) != 0) {
        unlink(temporary);
        return false;
    }
    return true;
}
