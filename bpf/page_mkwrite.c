/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One call of a page_mkwrite handler, from do_page_mkwrite's entry to the moment when its outcome is known:
 *
 *   entry    take the task's slot, note the time
 *   return   refused or to be retried: count it, done. Agreed: keep latency and series in the slot
 *   dirty    fault_dirty_shared_page runs only after the PTE was made writable: count it as writable
 *   entry    of the next call: the slot still waits for its PTE, so another thread had changed it: raced
 *
 * Without the third hook (TELL_RACED is 0) a call that agreed counts as writable at its return.
 * The slot belongs to the task while it is in the call: nobody else writes to it.
 */

/* Fibonacci hashing: addresses of one slab differ by multiples of a size. */
static __always_inline u64 slot_index(u64 task)
{
	return (task * 0x9e3779b97f4a7c15ULL) >> (64 - SLOT_BITS);
}

static __always_inline struct slot *first_slot(u64 task)
{
	struct slot *slots = global(SLOTS_MAP);

	return &slots[slot_index(task)];
}

static __always_inline struct slot *slot_of(u64 task)
{
	struct slot *slot = first_slot(task);
	u64 key;

	if (slot->task == task)
		return slot;
	key = task; /* only here does it have to be in memory */
	return crowded.lookup(&key);
}

static __always_inline void release(struct slot *slot, int writable)
{
	forget_waits(slot);
	if (slot->crowded) {
		u64 task = slot->task;

		if (writable)
			keep_series(&slot->series, task);
		crowded.delete(&task);
		changed(CROWDED_LEFT);
	} else {
		slot->task = 0;
	}
}

static __always_inline int is_slow(u64 ns)
{
	return config(SLOWER_NS) && ns >= config(SLOWER_NS);
}

static __always_inline void settle_raced(struct slot *slot)
{
	struct series series = slot->series;

	series.kind |= KIND_OUTCOME(RACED) | KIND_GENERATION(generation_at(series.dev, slot->start_ns));
	count_shared(&series, slot->latency_ns);
	slot->series.kind = series.kind;
	if (is_slow(slot->latency_ns))
		report_raced(slot);
	forget_waits(slot);
}

static __always_inline void enter_crowded(u64 task, struct vm_fault *vmf, u64 now)
{
	struct slot mine = {}, *old = crowded.lookup(&task);

	if (old) {
		if (old->series.kind) {
			settle_raced(old);
		} else {
			lose(UNMATCHED_ENTRY);
			forget_waits(old);
		}
	}
	mine.task = task;
	mine.start_ns = now;
#if !defined(FENTRY) || defined(WAITS)
	mine.vmf = (u64)vmf;
#endif
	mine.crowded = 1;
	begin_waits(&mine, task);
	if (!old)
		changed(CROWDED_ENTERED);
	if (crowded.update(&task, &mine)) {
		changed(CROWDED_LEFT);
		lose(INFLIGHT_FULL);
	}
}

/* The slot is not free. Returns 1 if it may be taken all the same. */
static __always_inline int take_over(struct slot *slot, u64 task, u64 now)
{
	/* Negative where the slot's task has returned since `now`. */
	long settled = now - slot->start_ns - slot->latency_ns;

	if (config(TELL_RACED) && slot->series.kind && (slot->task == task || settled > RACED_AFTER_NS)) {
		settle_raced(slot);
		return 1;
	}
	if (slot->task != task)
		return 0;
	lose(UNMATCHED_ENTRY);
	forget_waits(slot);
	return 1;
}

static __always_inline void enter(struct vm_fault *vmf)
{
	u64 task = bpf_get_current_task(), now;
	struct slot *slot;

	if (config(WANT_TASK) && !task_wanted())
		return;
	slot = first_slot(task);
	now = bpf_ktime_get_ns();
	if (slot->task && !take_over(slot, task, now)) {
		enter_crowded(task, vmf, now);
		return;
	}
	slot->task = task;
	slot->start_ns = now;
	slot->series.kind = 0;
	begin_waits(slot, task);
#if !defined(FENTRY) || defined(WAITS) /* for those who ask what is in flight */
	slot->vmf = (u64)vmf;
#endif
}

/* Which event a counted call deserves, besides its count. */
static __always_inline u32 reason_of(u64 ns, u64 created)
{
	u32 reason = is_slow(ns) ? SLOW : 0;

	if (created && config(NAME_SERIES))
		reason |= NAMED;
	return reason;
}

static __always_inline void count_agreed(struct series *series, u64 ns, struct vm_fault *vmf, u32 where)
{
	u64 created = count_writable(series, ns);
	u32 reason;

	if (!created && !is_slow(ns))
		return;
	if (created)
		remember_fstype(series->dev, generation_of(series->dev), superblock_of(vmf));
	reason = reason_of(ns, created);
	if (reason)
		report(where, reason, vmf, series, ns, VM_FAULT_LOCKED);
}

/* The handler refused, or wants the fault to be taken again: the call is over. */
static __always_inline void count_ended(struct slot *slot, u32 kind, u64 ns, struct vm_fault *vmf, u32 vm_fault)
{
	struct series series = slot->series;
	u32 outcome = outcome_of(vm_fault), generation = generation_of(series.dev), reason;

	series.kind = kind | KIND_OUTCOME(outcome) | KIND_GENERATION(generation);
	remember_fstype(series.dev, generation, superblock_of(vmf));
	reason = reason_of(ns, count_shared(&series, ns));
#ifdef FAILURES
	/* Told of as what it is, and not as a slow call besides. */
	if (outcome >= SIGBUS) {
		refuse_call(slot, &series, ns, vmf, vm_fault);
		reason &= NAMED;
	}
#endif
	if (reason)
		report(AT_RETURN, reason, vmf, &series, ns, vm_fault);
}

/* What --by, filters on the call, and hooks on handlers change. Returns 0 for a call that is not wanted. */
static __always_inline int apply_extras(struct series *series, struct inode *inode, u32 *vm_fault)
{
	series->who = who_of(GET(inode, i_ino));
	/* A handler that agrees without locking the page leaves that to do_page_mkwrite. */
	if (config(HANDLER_HOOKS) && !(*vm_fault & (VM_FAULT_ERROR | VM_FAULT_NOPAGE)))
		*vm_fault |= VM_FAULT_LOCKED;
	return !config(WANT_CALL) || call_wanted(series->handler, series->dev, GET(inode, i_sb));
}

static __always_inline void leave(struct vm_fault *vmf, u32 vm_fault, struct slot *slot, u64 ns)
{
	struct vm_area_struct *vma = GET(vmf, vma);
	struct inode *inode = GET(GET(vma, vm_file), f_inode);
	struct series *series = &slot->series;
	u32 kind;

	slot->vma = (u64)vma; /* now: it would be kept on the stack */
	series->handler = (u64)GET(GET(vma, vm_ops), page_mkwrite);
	series->dev = GET(GET(inode, i_sb), s_dev);
	kind = kind_of(vmf);
	if (config(EXTRAS) && !apply_extras(series, inode, &vm_fault)) {
		slot->owner = 0;
		release(slot, 0);
		return;
	}
	end_waits(slot, ns);
	if (vm_fault != VM_FAULT_LOCKED &&
	    (vm_fault & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_LOCKED)) != VM_FAULT_LOCKED) {
		count_ended(slot, kind, ns, vmf, vm_fault);
		release(slot, 0);
		return;
	}
	if (!config(TELL_RACED)) {
		series->kind = kind;
		count_agreed(series, ns, vmf, AT_RETURN);
		release(slot, 0);
		return;
	}
	slot->latency_ns = ns;
	if (is_slow(ns)) {
		slot->inode = GET(inode, i_ino);
		slot->pgoff = GET(vmf, pgoff);
		slot->address = GET(vmf, address);
	}
	barrier(); /* with a kind, the slot may be taken over as soon as it is old enough */
	series->kind = kind;
}

static __always_inline void dirtied(struct vm_fault *vmf)
{
	u64 task = bpf_get_current_task();
	struct slot *slot = slot_of(task);

	/* Mappings without a handler come here too: of a task whose last call, in another one, has raced, perhaps. */
	if (!slot || !slot->series.kind || slot->vma != (u64)GET(vmf, vma))
		return;
	count_agreed(&slot->series, slot->latency_ns, vmf, AT_DIRTY);
	release(slot, 1);
}

int page_mkwrite_entry(context_t *ctx)
{
	enter(entry_vmf(ctx));
	return 0;
}

int page_mkwrite_return(context_t *ctx)
{
	u64 task = bpf_get_current_task(), now = bpf_ktime_get_ns();
	struct slot *slot = slot_of(task);
	u64 ns;

	if (!slot) {
		unmatched(END_OF_CALL);
		return 0;
	}
	ns = now - slot->start_ns;
	/* Now: the compiler would keep both times until the count, on the stack. */
	asm volatile("" : "+r"(ns));
	leave(return_vmf(ctx, slot->vmf), page_mkwrite_returned(ctx), slot, ns);
	return 0;
}

int page_mkwrite_dirty(context_t *ctx)
{
	dirtied(entry_vmf(ctx));
	return 0;
}
