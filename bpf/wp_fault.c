/* SPDX-License-Identifier: GPL-2.0 */
/*
 * do_wp_page's outcomes. It runs on every copy-on-write of the host, so all is done at its return, from the vm_fault,
 * which is still alive in the caller's frame. The PTE is read without its lock: a statistic, not a proof.
 */

static __always_inline u32 wp_outcome_of(struct vm_fault *vmf, u32 vm_fault)
{
	u64 before, after, *pte;

	if (vm_fault & (VM_FAULT_ERROR | VM_FAULT_COMPLETED | VM_FAULT_RETRY)) {
		if (vm_fault & VM_FAULT_ERROR)
			return WP_FAILED;
		/* The VMA may be gone with the lock that was dropped. Shared success, new and old (5.10). */
		return vm_fault & (VM_FAULT_COMPLETED | VM_FAULT_WRITE) ? WP_SHARED : WP_UNCHANGED;
	}
	if (GET(GET(vmf, vma), vm_flags) & VM_SHARED)
		return WP_SHARED;
	pte = GET(vmf, pte);
	if (!pte)
		return WP_UNCHANGED;
	before = GET(vmf, orig_pte);
	after = LOAD(pte);
	if ((before ^ after) & PTE_PFN)
		return WP_COPIED;
	return after & PTE_RW ? WP_REUSED : WP_UNCHANGED;
}

static __always_inline void wp_left(struct vm_fault *vmf, u32 vm_fault)
{
	u64 cpu = bpf_get_smp_processor_id(), outcome = wp_outcome_of(vmf, vm_fault);
	struct wp_counts *rows = global(WP_COUNTS_MAP);

	if (cpu < config(CPUS))
		rows[cpu].n[bounded(outcome, 7)]++;
}

#ifdef FENTRY
int wp_page_return(context_t *ctx)
{
	if (!config(WANT_TASK) || task_wanted())
		wp_left(entry_vmf(ctx), wp_page_returned(ctx));
	return 0;
}
#else
/*
 * The function sleeps, and its return does not see the argument: that is found by the task, as in page_mkwrite.c. A
 * task that finds its slot taken is in `wp_crowded`. One whose return was missed takes its slot again, with its next
 * entry; until then others with that slot are crowded.
 */
struct wp_slot {
	u64 task; /* 0: free */
	u64 vmf;
};
BPF_TABLE("array", u32, struct wp_slot, wp_slots, 1 << SLOT_BITS);
BPF_TABLE("hash", u64, u64, wp_crowded, 16384);

static __always_inline struct wp_slot *wp_slot_of(u64 task)
{
	u32 index = slot_index(task);

	return wp_slots.lookup(&index);
}

int wp_page_entry(context_t *ctx)
{
	u64 vmf = ctx->di, task = bpf_get_current_task();
	struct wp_slot *slot;

	if (config(WANT_TASK) && !task_wanted())
		return 0;
	slot = wp_slot_of(task);
	if (!slot) /* for the verifier */
		return 0;
	if (!slot->task || slot->task == task) {
		slot->task = task;
		slot->vmf = vmf;
	} else if (wp_crowded.update(&task, &vmf)) {
		lose(INFLIGHT_FULL);
	}
	return 0;
}

int wp_page_return(context_t *ctx)
{
	u64 task = bpf_get_current_task(), *crowded;
	struct wp_slot *slot = wp_slot_of(task);

	if (slot && slot->task == task) {
		wp_left(return_vmf(ctx, slot->vmf), wp_page_returned(ctx));
		slot->task = 0;
		return 0;
	}
	crowded = wp_crowded.lookup(&task);
	if (!crowded) {
		unmatched(END_OF_WP_FAULT);
		return 0;
	}
	wp_left(return_vmf(ctx, *crowded), wp_page_returned(ctx));
	wp_crowded.delete(&task);
	return 0;
}
#endif
