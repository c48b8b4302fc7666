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

/* A slot left waiting for this long is a raced call of a task that has not come back. */
#define RACED_AFTER_NS 100000000ULL

static __always_inline struct slot *slot_of(u64 id)
{
	u32 index = (u32)id & (SLOTS - 1);
	struct slot *slot = slots.lookup(&index);

	if (slot && slot->id == id)
		return slot;
	return crowded.lookup(&id);
}

static __always_inline void release(struct slot *slot, u64 id)
{
	if (slot->crowded)
		crowded.delete(&id);
	else
		slot->id = 0;
}

static __always_inline void settle_raced(struct slot *slot)
{
	struct series series = slot->series;

	series.kind |= KIND_OUTCOME(RACED);
	count_shared(&series, slot->latency_ns);
	slot->series.kind = series.kind;
	if (slot->latency_ns >= config(SLOWER_NS))
		report_raced(slot);
}

static __always_inline void enter_crowded(u64 id, struct vm_fault *vmf, u32 flags, u64 now)
{
	struct slot mine = {}, *old = crowded.lookup(&id);

	if (old) {
		if (old->series.kind)
			settle_raced(old);
		else
			lose(UNMATCHED_ENTRY);
	}
	mine.id = id;
	mine.start_ns = now;
	mine.vmf = (u64)vmf;
	mine.flags = flags;
	mine.crowded = 1;
	if (crowded.update(&id, &mine))
		lose(INFLIGHT_FULL);
}

static __always_inline int enter(struct vm_fault *vmf)
{
	u64 id = bpf_get_current_pid_tgid(), now;
	u32 index = (u32)id & (SLOTS - 1);
	struct slot *slot;

	if (!task_wanted(id))
		return 0;
	slot = slots.lookup(&index);
	if (!slot)
		return 0;
	now = bpf_ktime_get_ns();
	if (slot->id) {
		if (slot->series.kind && (slot->id == id || now - slot->start_ns - slot->latency_ns > RACED_AFTER_NS)) {
			settle_raced(slot);
		} else if (slot->id == id) {
			lose(UNMATCHED_ENTRY);
		} else {
			enter_crowded(id, vmf, GET(vmf, flags), now);
			return 0;
		}
	}
	slot->id = id;
	slot->start_ns = now;
	slot->series.kind = 0;
	slot->flags = GET(vmf, flags);
#ifndef FENTRY
	slot->vmf = (u64)vmf;
#endif
	return 0;
}

static __always_inline u32 outcome_of(u32 vm_fault)
{
	if (vm_fault & VM_FAULT_OOM)
		return OOM;
	if (vm_fault & VM_FAULT_HWPOISON)
		return HWPOISON;
	if (vm_fault & VM_FAULT_SIGBUS)
		return SIGBUS;
	if (vm_fault & VM_FAULT_ERROR)
		return OTHER;
	if (vm_fault & VM_FAULT_NOPAGE)
		return NOPAGE;
	/* 0: the page was truncated meanwhile, the fault is taken again. */
	return vm_fault & VM_FAULT_LOCKED ? WRITABLE : RETRY;
}

static __always_inline u32 kind_of(struct vm_fault *vmf, u32 flags)
{
	u32 kind = KIND_VALID;

	/* The core sets ->pte before it calls the handler for a page that is mapped read-only, and only then. */
	if (GET(vmf, pte))
		kind |= KIND_WRITE_PROTECT;
	/* A handler sees other flags: do_page_mkwrite has overwritten them. */
	if (config(HANDLER_HOOKS))
		kind |= KIND_INITIATOR(UNKNOWN);
	else if (!(flags & FAULT_FLAG_USER))
		kind |= KIND_INITIATOR(flags & FAULT_FLAG_INTERRUPTIBLE ? KERNEL : REMOTE);
	return kind;
}

/* Which event a counted call deserves, besides its count. */
static __always_inline u32 reason_of(u32 outcome, u64 ns, int created)
{
	u32 reason = outcome >= SIGBUS ? FAILED : 0;

	if (ns >= config(SLOWER_NS))
		reason |= SLOW;
	if (created && config(NAME_SERIES))
		reason |= NAMED;
	return reason;
}

static __always_inline void count_agreed(u64 id, struct series *series, u64 ns, struct vm_fault *vmf, u32 where)
{
	int created = count_writable(series, ns);
	u32 reason = reason_of(WRITABLE, ns, created);

	if (created)
		remember_fstype(series->dev, vmf);
	if (reason)
		report(where, reason, id, vmf, series, ns, VM_FAULT_LOCKED);
}

static __always_inline int leave(struct vm_fault *vmf, u32 vm_fault, u64 id, struct slot *slot, u64 now)
{
	u64 ns = now - slot->start_ns;
	struct series series = {};
	struct vm_area_struct *vma;
	struct inode *inode;
	struct file *file;
	u32 outcome, reason;

	vma = GET(vmf, vma);
	series.handler = (u64)GET(GET(vma, vm_ops), page_mkwrite);
	file = GET(vma, vm_file);
	inode = GET(file, f_inode);
	series.dev = GET(GET(inode, i_sb), s_dev);
	series.kind = kind_of(vmf, slot->flags);
	if (config(BY) == BY_PROCESS)
		series.who = id >> 32;
	else if (config(BY) == BY_FILE)
		series.who = GET(inode, i_ino);
	else if (config(BY) == BY_CGROUP)
		series.who = bpf_get_current_cgroup_id();
	if (!call_wanted(&series, GET(inode, i_sb))) {
		release(slot, id);
		return 0;
	}
	/* A handler that agrees without locking the page leaves that to do_page_mkwrite. */
	if (config(HANDLER_HOOKS) && !(vm_fault & (VM_FAULT_ERROR | VM_FAULT_NOPAGE)))
		vm_fault |= VM_FAULT_LOCKED;
	if ((vm_fault & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_LOCKED)) == VM_FAULT_LOCKED) {
		if (!config(TELL_RACED)) {
			release(slot, id);
			count_agreed(id, &series, ns, vmf, AT_RETURN);
			return 0;
		}
		slot->latency_ns = ns;
		if (ns >= config(SLOWER_NS)) {
			slot->inode = GET(inode, i_ino);
			slot->pgoff = GET(vmf, pgoff);
			slot->address = GET(vmf, address);
		}
		slot->series.handler = series.handler;
		slot->series.who = series.who;
		slot->series.dev = series.dev;
		slot->series.kind = series.kind;
		return 0;
	}
	release(slot, id);
	outcome = outcome_of(vm_fault);
	series.kind |= KIND_OUTCOME(outcome);
	remember_fstype(series.dev, vmf);
	reason = reason_of(outcome, ns, count_shared(&series, ns));
	if (reason)
		report(AT_RETURN, reason, id, vmf, &series, ns, vm_fault);
	return 0;
}

static __always_inline int dirtied(struct vm_fault *vmf)
{
	u64 id = bpf_get_current_pid_tgid(), ns;
	struct slot *slot = slot_of(id);
	struct series series;

	/* Mappings without a handler come here too. */
	if (!slot || !slot->series.kind)
		return 0;
	series = slot->series;
	ns = slot->latency_ns;
	release(slot, id);
	count_agreed(id, &series, ns, vmf, AT_DIRTY);
	return 0;
}

#ifdef FENTRY
int page_mkwrite_entry(u64 *ctx)
{
	return enter((void *)ctx[0]);
}

int page_mkwrite_return(u64 *ctx)
{
	u64 now = bpf_ktime_get_ns(), id = bpf_get_current_pid_tgid();
	struct slot *slot = slot_of(id);

	if (!slot) {
		if (task_wanted(id))
			lose(UNMATCHED_RETURN);
		return 0;
	}
	/* The branch not taken is never verified: an index beyond the arguments would be refused. */
	return leave((void *)ctx[0], config(RETURN_ARG) == 1 ? (u32)ctx[1] : (u32)ctx[2], id, slot, now);
}

int page_mkwrite_dirty(u64 *ctx)
{
	return dirtied((void *)ctx[0]);
}
#else
#include <uapi/linux/ptrace.h>

int page_mkwrite_entry(struct pt_regs *ctx)
{
	return enter((void *)ctx->di);
}

int page_mkwrite_return(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns(), id = bpf_get_current_pid_tgid();
	struct slot *slot = slot_of(id);

	if (!slot) {
		if (task_wanted(id))
			lose(UNMATCHED_RETURN);
		return 0;
	}
	return leave((void *)slot->vmf, (u32)ctx->ax, id, slot, now);
}

int page_mkwrite_dirty(struct pt_regs *ctx)
{
	return dirtied((void *)ctx->di);
}
#endif
