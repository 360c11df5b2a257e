/* Cores: how many this process may keep busy. */
#ifndef SDLORA_CORES_H
#define SDLORA_CORES_H

/* The processors it may run on (taskset, cpusets), or fewer where a control group gives it less time than that (the
 * quota of a container): 1 at least. */
int cores_allowed(void);

/* The cores' worth of time, begun ones counted whole, that the control groups of this process leave it; 0: as much as
 * it likes. Version 2 has "cpu.max" in a group's directory, version 1 "cpu.cfs_quota_us" and "cpu.cfs_period_us"; those
 * above a group bind it too (Linux, Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst).
 * membership: /proc/self/cgroup. mount: /sys/fs/cgroup. */
int cores_of_quota(const char *membership, const char *mount);

#endif
