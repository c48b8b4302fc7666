/* SPDX-License-Identifier: GPL-2.0 */
/* What is sent to user space one by one: slow calls, and with --by the name behind a new series. */

struct event {
	u64 time_ns; /* CLOCK_MONOTONIC */
	u64 latency_ns;
	u64 id;
	u64 cgroup;
	u64 inode;
	u64 pgoff;
	u64 address;
	struct series series;
	u64 waits[WAIT_REASONS]; /* ns by reason */
	u32 uid;
	u32 vm_fault;
	u32 reason;
	u32 deleted;
	u32 path_bytes;
	u32 cut; /* the path has more components than PATH_DEPTH, or more bytes than PATH_BYTES */
	char comm[16];
	char fstype[16];
	char path[PATH_BYTES + NAME_BYTES]; /* components, the last one first, each ended by a NUL */
};

BPF_RINGBUF_OUTPUT(events, 256);

/* A program never nests on a CPU, so each has a scratch event of its own there. */
enum scratch { AT_RETURN, AT_DIRTY, AT_ENTRY, AT_READ, AT_DAX, AT_THROTTLED, SCRATCHES };
BPF_TABLE("percpu_array", u32, struct event, scratch, SCRATCHES);

static __always_inline void send(struct event *e)
{
	u32 size = e->path_bytes;

	bounded(size, PATH_BYTES - 1);
	size += offsetof(struct event, path);
	if (events.ringbuf_output(e, size, 0))
		lose(EVENTS_FULL);
}

static __always_inline void fill_task(struct event *e)
{
	e->time_ns = bpf_ktime_get_ns();
	e->id = bpf_get_current_pid_tgid();
	e->cgroup = bpf_get_current_cgroup_id();
	e->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

static __always_inline void fill_waits(struct event *e, u64 task)
{
#ifdef WAITS
	struct waiting *w = waiting.lookup(&task);

	if (w)
		__builtin_memcpy(e->waits, w->ns, sizeof(e->waits));
	else
		__builtin_memset(e->waits, 0, sizeof(e->waits));
#endif
}

static __always_inline void report(u32 where, u32 reason, struct vm_fault *vmf, struct series *series, u64 latency_ns,
				   u32 vm_fault)
{
	struct event *e = scratch.lookup(&where);
	struct vm_area_struct *vma;
	struct inode *inode;
	struct file *file;

	if (!e)
		return;
	fill_task(e);
	fill_waits(e, bpf_get_current_task());
	e->latency_ns = latency_ns;
	e->series = *series;
	e->series.kind |= KIND_GENERATION(generation_of(series->dev));
	e->vm_fault = vm_fault;
	e->reason = reason;
	e->pgoff = READ(vmf, pgoff);
	e->address = READ(vmf, address);
	vma = READ(vmf, vma);
	file = READ(vma, vm_file);
	inode = READ(file, f_inode);
	e->inode = READ(inode, i_ino);
	bpf_probe_read_kernel_str(e->fstype, sizeof(e->fstype), READ(READ(READ(inode, i_sb), s_type), name));
	e->path_bytes = write_path(e->path, file, &e->deleted, &e->cut);
	send(e);
}

/* A slow call that turned out to have raced: its fault is over, so only what the slot kept is known. */
static __always_inline void report_raced(struct slot *slot)
{
	u32 where = AT_ENTRY;
	struct event *e = scratch.lookup(&where);

	if (!e)
		return;
	fill_task(e);
	fill_waits(e, slot->task);
	e->latency_ns = slot->latency_ns;
	e->series = slot->series;
	e->vm_fault = VM_FAULT_LOCKED;
	e->reason = SLOW;
	e->pgoff = slot->pgoff;
	e->address = slot->address;
	e->inode = slot->inode;
	e->fstype[0] = 0;
	e->deleted = 0;
	e->path_bytes = 0;
	e->cut = 0;
	send(e);
}
