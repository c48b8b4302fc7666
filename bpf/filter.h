/* SPDX-License-Identifier: GPL-2.0 */
/* What to trace. Values of one kind are alternatives; every kind that was given must be met. */

#define CGROUP_DEPTH 32

/* A number, or a text of up to 15 bytes as two numbers. */
struct want {
	u64 kind;
	u64 value[2];
};
BPF_TABLE("hash", struct want, u8, wanted, 1024);

static __always_inline int is_wanted(u64 kind, u64 low, u64 high)
{
	struct want key = {.kind = kind, .value = {low, high}};

	return wanted.lookup(&key) != NULL;
}

/* In one of the wanted cgroups, or below it. (5.10 has no helper for ancestors' ids in tracing programs.) */
static __always_inline int cgroup_wanted(struct task_struct *task)
{
	struct css_set *css_set = READ(task, cgroups);
	struct cgroup *cgroup = READ(css_set, dfl_cgrp);
	struct kernfs_node *node;
	int level;

#pragma nounroll
	for (level = 0; level < CGROUP_DEPTH && cgroup; level++) {
		node = READ(cgroup, kn);
		if (is_wanted(WANT_CGROUP, READ(node, id), 0))
			return 1;
		cgroup = READ(READ(cgroup, self.parent), cgroup);
	}
	return 0;
}

static __always_inline int task_wanted(void)
{
	u64 kinds = config(WANT_TASK), comm[2] = {};

	if (kinds & (1 << WANT_PID) && !is_wanted(WANT_PID, bpf_get_current_pid_tgid() >> 32, 0))
		return 0;
	if (kinds & (1 << WANT_COMM)) {
		bpf_get_current_comm(comm, sizeof(comm));
		if (!is_wanted(WANT_COMM, comm[0], comm[1]))
			return 0;
	}
	return !(kinds & (1 << WANT_CGROUP)) || cgroup_wanted((void *)bpf_get_current_task());
}

static __always_inline int call_wanted(u64 handler, u32 dev, struct super_block *sb)
{
	u64 kinds = config(WANT_CALL), name[2] = {};

	if (kinds & (1 << WANT_HANDLER) && !is_wanted(WANT_HANDLER, handler, 0))
		return 0;
	if (kinds & (1 << WANT_DEV) && !is_wanted(WANT_DEV, dev, 0))
		return 0;
	if (kinds & (1 << WANT_FS)) {
		bpf_probe_read_kernel_str(name, sizeof(name), READ(READ(sb, s_type), name));
		return is_wanted(WANT_FS, name[0], name[1]);
	}
	return 1;
}
