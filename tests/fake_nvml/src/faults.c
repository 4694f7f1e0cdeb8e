/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* Faults on demand. Each line of the file `faults` is one rule; README.md has the grammar. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#define MAX_RULES 64

/* Matches let pass so far, per rule: a count of this process, as the number of a call is. */
static long seen[MAX_RULES];

/* Rules that were written anew count from the start. */
static void forget_old_rules(FILE *file)
{
    static struct timespec written;
    struct stat now;
    if (fstat(fileno(file), &now) == 0 && memcmp(&now.st_mtim, &written, sizeof written) != 0) {
        written = now.st_mtim;
        memset(seen, 0, sizeof seen);
    }
}

struct rule {
    char function[128];
    long call, after, times, gpu, rc, sleep_ms;
    char action[16];
};

static struct rule parse(char *line)
{
    struct rule rule = {.call = -1, .times = -1, .gpu = -1, .rc = -1};
    char *rest = NULL;
    for (char *word = strtok_r(line, " \t\n", &rest); word; word = strtok_r(NULL, " \t\n", &rest)) {
        char *value = strchr(word, '=');
        if (!value)
            continue;
        *value++ = '\0';
        long number = strtol(value, NULL, 0);
        if (strcmp(word, "fn") == 0)
            snprintf(rule.function, sizeof rule.function, "%s", value);
        else if (strcmp(word, "action") == 0)
            snprintf(rule.action, sizeof rule.action, "%s", value);
        else if (strcmp(word, "call") == 0)
            rule.call = number;
        else if (strcmp(word, "after") == 0)
            rule.after = number;
        else if (strcmp(word, "times") == 0)
            rule.times = number;
        else if (strcmp(word, "gpu") == 0)
            rule.gpu = number;
        else if (strcmp(word, "rc") == 0)
            rule.rc = number;
        else if (strcmp(word, "sleep_ms") == 0)
            rule.sleep_ms = number;
    }
    return rule;
}

/* A name that ends in * stands for all functions that begin so. */
static bool same_function(const char *pattern, const char *name)
{
    size_t length = strlen(pattern);
    if (length && pattern[length - 1] == '*')
        return strncmp(pattern, name, length - 1) == 0;
    return length == 0 || strcmp(pattern, name) == 0;
}

static bool matches(const struct rule *rule, const struct call *call)
{
    if (!same_function(rule->function, call->name))
        return false;
    if (rule->gpu >= 0 && (!call->gpu || call->gpu->index != (uint)rule->gpu))
        return false;
    return rule->call < 0 || (uint)rule->call == driver.calls;
}

/* `times` counts over all processes, so it lives in the state. */
static bool spend(const struct rule *rule, int number)
{
    char key[32], text[32];
    snprintf(key, sizeof key, "fault.%d.fired", number);
    const char *fired = map_get(&driver.state, key);
    long count = fired ? strtol(fired, NULL, 10) : 0;
    if (rule->times >= 0 && count >= rule->times)
        return false;
    snprintf(text, sizeof text, "%ld", count + 1);
    map_set(&driver.state, key, text);
    driver.state_changed = true;
    return true;
}

static void strike(const struct rule *rule, struct call *call)
{
    if (rule->sleep_ms > 0)
        usleep((useconds_t)rule->sleep_ms * 1000);
    if (strcmp(rule->action, "kill") == 0) {
        map_save(&driver.state, path_of("state")); /* the rule remembers that it has fired */
        raise(SIGKILL);
    }
    if (strcmp(rule->action, "kill-after") == 0)
        call->kill_after = true;
    if (strcmp(rule->action, "lost") == 0 && call->gpu)
        gpu_set(call->gpu, RESIDENT, "lost", 1);
    if (rule->rc >= 0) {
        call->rc = (nvmlReturn_t)rule->rc;
        call->pretend = true;
    }
}

void apply_faults(struct call *call)
{
    char line[512];
    int number = 0;
    FILE *file = fopen(path_of("faults"), "re");
    if (file)
        forget_old_rules(file);
    while (file && number < MAX_RULES && fgets(line, sizeof line, file)) {
        struct rule rule = parse(line);
        number++;
        if (line[0] == '#' || line[0] == '\n' || !matches(&rule, call))
            continue;
        if (seen[number - 1]++ < rule.after)
            continue;
        if (!spend(&rule, number))
            continue;
        strike(&rule, call);
        break;
    }
    if (file)
        fclose(file);
}
