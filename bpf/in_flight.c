/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The calls that have not returned yet, read while they last: the kernel runs this program for each task (an iterator,
 * kernel/bpf/task_iter.c), and what it writes is read from a file. What it finds may be over a moment later.
 */

struct bpf_iter_meta {
	void *seq;
};

/* More than handle_mm_fault has, which every call is below: its neighbours wait in faults, too. */
#define FAULT_BYTES 16384
#define FRAMES 64

/*
 * Whether a task is in no fault any more. Its stack says so if it ends where the task entered the kernel: that of a
 * task on a CPU is empty, and that of one in a function with a return probe is cut off there (5.10).
 */
static __always_inline int has_left(struct task_struct *task, u64 *frames)
{
	long (*get_task_stack)(void *task, void *frames, u32 bytes, u64 flags) = (void *)141;
	long bytes = get_task_stack(task, frames, FRAMES * sizeof(*frames), 0);
	u64 last = 0;

	for (int i = 0; i < FRAMES; i++) {
		if (i * (long)sizeof(*frames) >= bytes)
			return last - config(ENTRY_CODE) < config(ENTRY_BYTES);
		last = frames[i];
		if (last - config(FAULT_CODE) < FAULT_BYTES)
			return 0;
	}
	return 0;
}

int in_flight(u64 *ctx)
{
	long (*seq_write)(void *seq, const void *data, u32 bytes) = (void *)127;
	struct bpf_iter_meta *meta = (struct bpf_iter_meta *)ctx[0];
	struct task_struct *task = (struct task_struct *)ctx[1];
	u32 where = AT_READ, depth;
	struct vm_area_struct *vma;
	struct vm_fault *vmf;
	struct waiting *w;
	struct inode *inode;
	struct file *file;
	struct event *e;
	struct slot *slot;
	u64 key, id;

	e = scratch.lookup(&where);
	if (!e || !task)
		return 0;
	/* Through memory, a pointer becomes a number that can be calculated with. */
	*(volatile u64 *)&e->id = (u64)task;
	key = *(volatile u64 *)&e->id;
	slot = slot_of(key);
	if (!slot || slot->series.kind)
		return 0;
	e->time_ns = bpf_ktime_get_ns();
	e->latency_ns = e->time_ns - slot->start_ns;
	if (e->latency_ns >= OLD_NS && has_left(task, (u64 *)e->path))
		return 0;
	task = (void *)key;
	id = READ(task, tgid);
	e->id = id << 32 | READ(task, pid);
	e->cgroup = 0;
	e->uid = 0;
	e->vm_fault = 0;
	bpf_probe_read_kernel_str(e->comm, sizeof(e->comm), &task->comm);
	vmf = (void *)slot->vmf;
	vma = READ(vmf, vma);
	file = READ(vma, vm_file);
	inode = READ(file, f_inode);
	e->series.handler = (u64)READ(READ(vma, vm_ops), page_mkwrite);
	e->series.who = 0;
	e->series.dev = READ(READ(inode, i_sb), s_dev);
	e->series.kind =
		KIND_VALID | (READ(vmf, pte) ? KIND_WRITE_PROTECT : 0) | KIND_GENERATION(generation_of(e->series.dev));
	e->inode = READ(inode, i_ino);
	e->pgoff = READ(vmf, pgoff);
	e->address = READ(vmf, address);
	bpf_probe_read_kernel_str(e->fstype, sizeof(e->fstype), READ(READ(READ(inode, i_sb), s_type), name));
	e->path_bytes = write_path(e->path, file, &e->deleted, &e->cut);
	e->reason = 0;
	__builtin_memset(e->waits, 0, sizeof(e->waits));
	w = slot->waited ? waiting.lookup(&key) : NULL;
	if (w) {
		__builtin_memcpy(e->waits, w->ns, sizeof(e->waits));
		depth = w->depth - 1;
		if (depth < LEVELS) {
			bounded(depth, LEVELS - 1);
			e->reason = WAITS_NOW | w->levels[depth].reason;
		}
	}
	/* Over meanwhile: the fault's memory may be something else's. */
	if (slot->task != key || slot->series.kind)
		return 0;
	seq_write(meta->seq, e, offsetof(struct event, path) + (e->path_bytes & (PATH_BYTES - 1)));
	return 0;
}
