/* SPDX-License-Identifier: GPL-2.0 */
/* Every SIGBUS: to whom, from whom, and which refusal it belongs to. And who made files shorter. */

/* As filter.h's task_wanted(), for a task that is not the current one. */
static __always_inline int victim_wanted(struct task_struct *task, struct failure *f)
{
	u64 kinds = config(WANT_TASK), comm[2] = {};

	if (!config(SIGNALS))
		return 0;
	if (kinds & (1 << WANT_PID) && !is_wanted(WANT_PID, f->id >> 32, 0))
		return 0;
	if (kinds & (1 << WANT_COMM)) {
		bpf_probe_read_kernel_str(comm, sizeof(comm), &task->comm);
		if (!is_wanted(WANT_COMM, comm[0], comm[1]))
			return 0;
	}
	return !(kinds & (1 << WANT_CGROUP)) || cgroup_wanted(task);
}

/* Where the current task's instruction is from: the name of the file, and the offset in it. */
static __always_inline void fill_instruction(struct failure *f)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct vm_area_struct *vma;
	struct dentry *dentry;
	int n;

	f->ip = READ(entry_registers(), ip);
	vma = mapping_at(READ(task, mm), f->ip);
	if (!has_address(vma, f->ip) || !READ(vma, vm_file))
		return;
	f->ip_offset = f->ip - READ(vma, vm_start) + (READ(vma, vm_pgoff) << 12);
	dentry = READ(READ(vma, vm_file), f_path.dentry);
	n = bpf_probe_read_kernel_str(f->path, NAME_BYTES, READ(dentry, d_name.name));
	f->path_bytes = n > 0 ? n : 0;
}

/* Of the kernel's own codes one more than there are; of those that processes send (negative), one that is none. */
#define CODE_OTHER (BUS_MCEERR_AO + 1)
#define SI_KERNEL 0x80
#define SI_QUEUE (-1)
#define SI_TKILL (-6)
#define CODE_SENT (-64)

/* A signal's code, where it is known. Processes make up any (rt_sigqueueinfo(2)), and each would be another cause. */
static __always_inline int known_code(int code)
{
	if (code < 0)
		return code == SI_QUEUE || code == SI_TKILL ? code : CODE_SENT;
	return code <= BUS_MCEERR_AO || code == SI_KERNEL ? code : CODE_OTHER;
}

/*
 * When a process last met a SIGBUS of the kernel's, or lost a child to one. A handler that has written its dump raises
 * the signal again, and so does a parent, once its child has dumped core: within AGAIN_NS.
 */
BPF_TABLE("lru_hash", u64, u64, met, 4096);

/* Whether a SIGBUS repeats one, being sent by the process itself. What it may be repeated by is remembered. */
static __always_inline int is_again(struct failure *f, struct task_struct *task, int code)
{
	u64 process = f->process, now = f->time_ns, *last;
	int again = 0;

	if (code <= 0) {
		last = bpf_get_current_pid_tgid() >> 32 == f->id >> 32 ? met.lookup(&process) : NULL;
		again = last && now - *last <= AGAIN_NS;
	}
	/* Processes make up others of the kernel's codes. */
	if (again || (code > 0 && code != CODE_OTHER)) {
		met.update(&process, &now);
		process = process_of(READ(task, real_parent));
		if (!f->action)
			met.update(&process, &now);
	}
	return again;
}

/* raw tracepoint signal_generate: sig, info, task, group, result */
int signal_generated(u64 *ctx)
{
	u64 current_task = bpf_get_current_task(), info = ctx[1], values[2];
	struct task_struct *task = (void *)ctx[2];
	struct refused *refused = NULL;
	u32 record = OF_SIGNAL;
	struct failure *f;
	int code = 0;

	if ((u32)ctx[0] != SIGBUS_NUMBER)
		return 0;
	f = failing.lookup(&record);
	if (!f)
		return 0;
	f->address = f->sender = f->sender_uid = f->refusal = 0;
	if (info > 1) {
		struct kernel_siginfo *siginfo = (void *)info;

		code = known_code(READ(siginfo, si_code));
		bpf_probe_read_kernel(values, sizeof(values), &siginfo->_sifields);
		/* si_code is positive for the kernel's own. */
		if (code > 0)
			f->address = values[0];
	} else if (info) {
		code = SI_KERNEL;
	}
	f->time_ns = bpf_ktime_get_ns();
	f->id = (u64)READ(task, tgid) << 32 | (u32)READ(task, pid);
	f->cgroup = READ(READ(READ(READ(task, cgroups), dfl_cgrp), kn), id);
	f->inode = f->path_bytes = f->command_bytes = 0;
	f->cause.source = SIGNAL;
	f->cause.error = code;
	f->cause.dev = f->cause.generation = 0;
	f->process = process_of(task);
	fill_action(f, task);
	f->cause.facts = is_again(f, task, code) ? FACT_AGAIN : 0;
	f->cause.who = config(BY) == BY_PROCESS ? f->process : config(BY) == BY_CGROUP ? f->cgroup : 0;
	if ((u64)task == current_task)
		refused = refusals.lookup(&current_task);
	if (refused && refused->user && code > 0 && refused->address >> 12 == f->address >> 12) {
		int told = refused->told;

		f->refusal = refused->time_ns;
		refusals.delete(&current_task);
		if (!told)
			return 0;
	} else if (!victim_wanted(task, f) || !count_failure(f)) {
		return 0;
	}
	f->result = (u32)ctx[4];
	f->namespace_pid = namespace_pid(task);
	f->parent = READ(READ(task, real_parent), tgid);
	f->uid = user_of(task);
	bpf_probe_read_kernel_str(f->comm, sizeof(f->comm), &task->comm);
	fill_process(f->process_comm, task);
	f->sender = bpf_get_current_pid_tgid();
	f->sender_uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(f->sender_comm, sizeof(f->sender_comm));
	f->ip = 0;
	f->syscall = -1;
	if ((u64)task == current_task) {
		fill_command(f);
		fill_instruction(f);
	}
	send_failure(f);
	return 0;
}

/*
 * notify_change: truncate(2), ftruncate(2), O_TRUNC and an NFS client's, of any filesystem. For a file of an overlay,
 * it runs for the overlay's inode and for that of the filesystem below, which is the one that is mapped.
 */
int truncating(context_t *ctx)
{
	u64 task = bpf_get_current_task();
	struct truncation mine = {}, *last;
	struct cutting cutting = {};
	struct dentry *dentry;
	struct iattr *change;
	struct inode *inode;
	u64 to;

	if (config(DENTRY_ARG)) {
		ARGUMENT(ctx, 1, dentry);
		ARGUMENT(ctx, 2, change);
	} else {
		ARGUMENT(ctx, 0, dentry);
		ARGUMENT(ctx, 1, change);
	}
	if (!(READ(change, ia_valid) & ATTR_SIZE))
		return 0;
	to = READ(change, ia_size);
	inode = READ(dentry, d_inode);
	mine.from = READ(inode, i_size);
	if (to >= mine.from)
		return 0;
	cutting.inode = (u64)inode;
	cutting.key.inode = READ(inode, i_ino);
	cutting.key.dev = READ(READ(inode, i_sb), s_dev);
	cutting.key.generation = generation_of(cutting.key.dev);
	mine.time_ns = bpf_ktime_get_ns();
	mine.to = to;
	mine.by = bpf_get_current_pid_tgid();
	mine.process = process_of((void *)task);
	bpf_get_current_comm(mine.comm, sizeof(mine.comm));
	last = truncations.lookup(&cutting.key);
	if (last) {
		cutting.before = *last;
		/* Bit by bit, or again after it grew: what was cut off first is gone as well. */
		if (last->process == mine.process && last->from > mine.from)
			mine.from = last->from;
	}
	cuttings.update(&task, &cutting);
	/* At once: pages may be missed while blocks are still being freed. */
	truncations.update(&cutting.key, &mine);
	return 0;
}

/*
 * The return of notify_change: where the file was left as it was, nobody cut it. Of an overlay's file and the one below
 * it, whose calls are nested, only the latter's is found, which is the one that matters.
 */
int truncated(context_t *ctx)
{
	u64 task = bpf_get_current_task();
	struct cutting *mine = cuttings.lookup(&task);
	struct truncation *last;

	if (!mine)
		return 0;
	last = truncations.lookup(&mine->key);
	if ((int)returned(ctx) < 0 && last && READ((struct inode *)mine->inode, i_size) > last->to) {
		if (mine->before.time_ns)
			truncations.update(&mine->key, &mine->before);
		else
			truncations.delete(&mine->key);
	}
	cuttings.delete(&task);
	return 0;
}
