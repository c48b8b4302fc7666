/* SPDX-License-Identifier: GPL-2.0 */
/* The hooks on functions that wait; each is loaded with the REASON that it stands for. */

/* The slot of the call that the current task is in, NULL if it is in none. */
static __always_inline struct slot *running(u64 task)
{
	struct slot *slot = slot_of(task);

	return slot && !slot->series.kind ? slot : NULL;
}

static __always_inline void pop(struct waiting *w, struct slot *slot, struct level *level, struct level *outer, u64 now)
{
	u64 ns = now - level->since_ns, reason = level->reason;
	u64 slept = slept_since(&level->mark, ns);

	/* What never slept did not wait, except for reclaim, which works for its caller. */
	if (!slept && reason != WAIT_RECLAIM)
		ns = level->nested_ns;
	else if (reason < WAIT_REASONS)
		w->ns[reason] += ns - level->nested_ns;
	if (outer) {
		outer->nested_ns += ns;
		return;
	}
	w->slept_ns += slept;
	w->switches += voluntary_switches() - level->mark.switches;
}

int wait_entry(context_t *ctx)
{
	u64 task = bpf_get_current_task();
	struct slot *slot = running(task);
	struct waiting *w;
	u64 depth;

	if (!slot)
		return 0;
	w = waits_of(slot, task);
	if (!w)
		return 0;
	depth = w->depth;
	if (depth < LEVELS) {
		struct level *level = &w->levels[depth];

		level->since_ns = bpf_ktime_get_ns();
		mark_sleep(&level->mark);
		level->nested_ns = 0;
		level->reason = config(REASON);
		w->depth = depth + 1;
	}
	return 0;
}

int wait_return(context_t *ctx)
{
	u64 task = bpf_get_current_task(), now = bpf_ktime_get_ns();
	struct slot *slot = running(task);
	struct waiting *w;
	u32 depth, at = LEVELS;

	if (!slot || !slot->waited)
		return 0;
	w = waiting.lookup(&task);
	if (!w)
		return 0;
	depth = w->depth;
	/* The innermost wait of this reason ends, and with it those below whose return was missed. */
#pragma unroll
	for (int i = 0; i < LEVELS; i++) {
		if (i < depth && w->levels[i].reason == config(REASON))
			at = i;
	}
	if (at == LEVELS)
		return 0;
#pragma unroll
	for (int i = LEVELS - 1; i >= 0; i--) {
		if (i < depth && i >= at)
			pop(w, slot, &w->levels[i], i ? &w->levels[i - 1] : NULL, now);
	}
	w->depth = at;
	return 0;
}

/* Whether a fault has called what runs now, after its handler had agreed. */
static __always_inline int in_fault(context_t *ctx)
{
	u64 frames[8] = {};

	if (bpf_get_stack(ctx, frames, sizeof(frames), 0) < 0)
		return 0;
#pragma unroll
	for (int i = 0; i < 8; i++) {
		if (frames[i] - config(DIRTY_CODE) < DIRTY_BYTES)
			return 1;
	}
	return 0;
}

/* The fault is under way: what its call's slot leads to is there still. */
static __always_inline void keep_fault(struct throttled *t, struct slot *slot)
{
	struct vm_fault *vmf = (void *)slot->vmf;

	if (!config(SLOWER_NS) || !config(TELL_RACED))
		return;
	t->file = (u64)READ(READ(vmf, vma), vm_file);
	t->latency_ns = slot->latency_ns;
	t->pgoff = READ(vmf, pgoff);
	t->address = READ(vmf, address);
	t->series = slot->series;
}

/*
 * A store that took long since it was throttled, after a call that need not have been slow: one that was has been told
 * of, and its latency is not told again.
 */
static __always_inline void report_throttled(struct throttled *t, u64 ns)
{
	u64 told = t->latency_ns >= config(SLOWER_NS);
	struct file *file = (void *)t->file;
	u32 where = AT_THROTTLED;
	struct inode *inode;
	struct event *e;

	if (!config(SLOWER_NS) || !file || (told ? ns : t->latency_ns + ns) < config(SLOWER_NS))
		return;
	e = scratch.lookup(&where);
	if (!e)
		return;
	fill_task(e);
	__builtin_memset(e->waits, 0, sizeof(e->waits));
	e->waits[WAIT_THROTTLE] = ns;
	e->latency_ns = told ? 0 : t->latency_ns;
	e->series = t->series;
	e->series.kind |= KIND_GENERATION(t->key.generation);
	e->vm_fault = VM_FAULT_LOCKED;
	e->reason = SLOW;
	e->pgoff = t->pgoff;
	e->address = t->address;
	inode = READ(file, f_inode);
	e->inode = READ(inode, i_ino);
	bpf_probe_read_kernel_str(e->fstype, sizeof(e->fstype), READ(READ(READ(inode, i_sb), s_type), name));
	e->path_bytes = write_path(e->path, file, &e->deleted, &e->cut);
	send(e);
}

/* The kernel makes tasks that dirty pages too fast sleep. The call is settled by then: the slot keeps its series. */
int throttle_entry(context_t *ctx)
{
	u64 task = bpf_get_current_task();
	struct slot *slot = first_slot(task);
	struct throttled t = {};
	struct wait_key *kept;

	if (!in_fault(ctx))
		return 0;
	if (slot->owner == task) {
		t.key.handler = slot->series.handler;
		t.key.dev = slot->series.dev;
		t.key.generation = generation_of(t.key.dev);
		t.key.reason = WAIT_THROTTLE;
		keep_fault(&t, slot);
	} else {
		kept = kept_series.lookup(&task);
		if (!kept) {
			if (!config(WANT_TASK) && !config(WANT_CALL))
				unmatched(END_OF_THROTTLED);
			return 0;
		}
		t.key = *kept;
		kept_series.delete(&task);
	}
	t.since_ns = bpf_ktime_get_ns();
	if (throttled.update(&task, &t))
		lose(INFLIGHT_FULL);
	return 0;
}

int throttle_return(context_t *ctx)
{
	u64 task = bpf_get_current_task(), now = bpf_ktime_get_ns();
	struct throttled *t = throttled.lookup(&task);
	struct wait_key key;

	if (!t)
		return 0;
	key = t->key;
	count_wait(&key, now - t->since_ns);
	report_throttled(t, now - t->since_ns);
	throttled.delete(&task);
	return 0;
}
