/* SPDX-License-Identifier: GPL-2.0 */
/* Counting a call under its series. */

/* A process: its pid, and above it when it began (in 65.5 us), for a pid is used again. execve(2) changes neither. */
static __always_inline u64 process_of(struct task_struct *task)
{
	struct task_struct *leader = READ(task, group_leader);

	return READ(leader, start_boottime) >> 16 << 32 | (u32)READ(task, tgid);
}

/* The label that --by asks for, of the current task and the file. */
static __always_inline u64 who_of(u64 inode)
{
	if (config(BY) == BY_PROCESS)
		return process_of((void *)bpf_get_current_task());
	if (config(BY) == BY_CGROUP)
		return bpf_get_current_cgroup_id();
	return config(BY) == BY_FILE ? inode : 0;
}

/* The superblock of the file that a fault is in. */
static __always_inline struct super_block *superblock_of(struct vm_fault *vmf)
{
	return READ(READ(READ(READ(vmf, vma), vm_file), f_inode), i_sb);
}

/*
 * Counts a call in `others`, where any CPU and any program may write; the series has its generation. Returns 1 for a
 * series not seen before.
 */
static __always_inline u64 count_shared(struct series *series, u64 ns)
{
	struct cell *cell = others.lookup(series);
	u64 created = 0;

	if (!cell) {
		/* -EEXIST: another CPU was faster; the lookup finds its cell. */
		created = !others.insert(series, global(BLANK_MAP));
		cell = others.lookup(series);
		if (!cell) {
			lose(SERIES_FULL);
			return 0;
		}
		cell->series = *series;
	}
	lock_xadd(&cell->buckets[bucket_of(ns)], 1);
	lock_xadd(&cell->sum_ns, ns);
	/* Two CPUs may race here: the reader never reports less than the top bucket's bound. */
	if (ns > cell->max_ns)
		cell->max_ns = ns;
	changed(OTHERS_COUNTED);
	return created;
}

/* Device, and kind in the upper half. */
static __always_inline u64 stream_of(struct series *series)
{
	return *(u64 *)&series->dev;
}

/* This CPU's front cell for a series, the first or the next; NULL if there is no such CPU. */
static __always_inline struct cell *front_cell(struct series *series, u64 next)
{
	u64 cpu = bpf_get_smp_processor_id(), cpus = config(CPUS), stream = stream_of(series);
	/* A device has one handler, or few. */
	u64 index = stream + (stream >> 29) + next;
	struct cell *cells = global(FRONT_MAP);

	if (cpu >= cpus)
		return NULL;
	if (config(EXTRAS))
		index += series->who;
	/* Opaque, or the compiler would calculate ahead of the check, where the verifier does not know the bounds yet.
	 */
	asm volatile("" : "+r"(index), "+r"(cpu));
	return &cells[(index & config(FRONT_MASK)) * cpus + cpu];
}

enum counted { KNOWN, CREATED, TAKEN };

/* Counts in a front cell that is free or holds the series. */
static __always_inline u32 count_in(struct cell *cell, struct series *series, u64 ns)
{
	if (stream_of(&cell->series) == stream_of(series) && cell->series.handler == series->handler &&
	    (!config(EXTRAS) || cell->series.who == series->who)) {
		cell->buckets[bucket_of(ns)]++;
		cell->sum_ns += ns;
		if (ns > cell->max_ns)
			cell->max_ns = ns;
		return KNOWN;
	}
	barrier(); /* or the kind would be taken from what was compared, on the common way */
	if (cell->series.kind)
		return TAKEN;
	cell->buckets[bucket_of(ns)] = 1;
	cell->sum_ns = ns;
	cell->max_ns = ns;
	cell->series.handler = series->handler;
	cell->series.who = series->who;
	cell->series.dev = series->dev;
	cell->generation = generation_of(series->dev);
	barrier();
	/* The reader takes a cell with a kind as whole. */
	cell->series.kind = series->kind;
	return CREATED;
}

static __always_inline u64 count_elsewhere(struct series *series, u64 ns)
{
	series->kind |= KIND_GENERATION(generation_of(series->dev));
	return count_shared(series, ns);
}

/* Counts a call that ended writable. Returns 1 for a series not seen before on this CPU. */
static __always_inline u64 count_writable(struct series *series, u64 ns)
{
	struct cell *cell = front_cell(series, 0);
	u32 found;

	if (!cell)
		return count_elsewhere(series, ns);
	found = count_in(cell, series, ns);
	if (found == KNOWN)
		return 0;
	if (found == CREATED)
		return 1;
	cell = front_cell(series, 1);
	found = cell ? count_in(cell, series, ns) : TAKEN;
	return found == TAKEN ? count_elsewhere(series, ns) : found == CREATED;
}
