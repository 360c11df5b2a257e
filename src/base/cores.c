/* How many cores: see cores.h. */
#include "sdlora/cores.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 2048 };

/* Processors in the affinity mask, which has as many bits as the kernel was built for. */
static int in_affinity(void)
{
#ifdef __linux__
    for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        const size_t bytes = CPU_ALLOC_SIZE((size_t)cpus);
        const int n = set && !sched_getaffinity(0, bytes, set) ? CPU_COUNT_S(bytes, set) : 0;
        if (set)
            CPU_FREE(set);
        if (n > 0)
            return n;
    }
#endif
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* The first `n` numbers of a file; false: it has fewer, or isn't there. "max" is no number. */
static int read_numbers(long long *out, int n, const char *dir, const char *name)
{
    char path[PATH_BYTES];
    FILE *f = snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path ? fopen(path, "re") : NULL;
    int got = 0;

    while (f && got < n && fscanf(f, "%lld", &out[got]) == 1)
        got++;
    if (f)
        fclose(f);
    return got == n;
}

/* Of this one group; 0: no limit */
static int quota_at(const char *dir)
{
    long long v[2]; /* time, in each period of that length */

    if (!read_numbers(v, 2, dir, "cpu.max") &&
        !(read_numbers(v, 1, dir, "cpu.cfs_quota_us") && read_numbers(v + 1, 1, dir, "cpu.cfs_period_us")))
        return 0;
    if (v[0] <= 0 || v[1] <= 0 || v[0] / v[1] >= INT_MAX)
        return 0;
    return (int)((v[0] + v[1] - 1) / v[1]);
}

static int less(int a, int b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

/* Of the group and of those above it, up to `root`. A container may see the path of its group but not the group, whose
 * directory is its root then. */
static int quota_along(const char *root, const char *group)
{
    char dir[PATH_BYTES];
    int most = 0;

    if (snprintf(dir, sizeof dir, "%s%s", root, group) >= (int)sizeof dir)
        return 0;
    for (;;) {
        most = less(most, quota_at(dir));
        if (strlen(dir) <= strlen(root))
            return most;
        *strrchr(dir, '/') = '\0';
    }
}

/* Is "cpu" among these, "cpu,cpuacct"? */
static int names_cpu(const char *controllers)
{
    for (; *controllers; controllers += strspn(controllers, ",")) {
        const size_t len = strcspn(controllers, ",");
        if (len == 3 && !strncmp(controllers, "cpu", 3))
            return 1;
        controllers += len;
    }
    return 0;
}

/* A line is "number:controllers:path"; version 2 has number 0 and no controllers. */
int cores_of_quota(const char *membership, const char *mount)
{
    char line[PATH_BYTES], root[PATH_BYTES + 8];
    FILE *f = fopen(membership, "re");
    int most = 0;

    while (f && fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group || group[1] != '/')
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        if (*++controllers && !names_cpu(controllers))
            continue;
        snprintf(root, sizeof root, "%s%s", mount, *controllers ? "/cpu" : "");
        most = less(most, quota_along(root, group));
    }
    if (f)
        fclose(f);
    return most;
}

int cores_allowed(void)
{
    const int most = less(in_affinity(), cores_of_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
    return most > 0 ? most : 1;
}
