/* SPDX-License-Identifier: GPL-2.0 */
/*
 * do_wp_page's outcomes. It runs on every copy-on-write of the host, so all is done at its return, from the vm_fault,
 * which is still alive in the caller's frame. The PTE is read without its lock: a statistic, not a proof.
 */

static __always_inline u32 wp_outcome_of(struct vm_fault *vmf, u32 vm_fault)
{
	u64 before, after = 0;
	void *pte;

	if (vm_fault & VM_FAULT_ERROR)
		return WP_FAILED;
	/* The VMA may be gone with the lock that these two say was dropped. Shared success, new and old (5.10). */
	if (vm_fault & VM_FAULT_COMPLETED)
		return WP_SHARED;
	if (vm_fault & VM_FAULT_RETRY)
		return vm_fault & VM_FAULT_WRITE ? WP_SHARED : WP_UNCHANGED;
	if (GET(GET(vmf, vma), vm_flags) & VM_SHARED)
		return WP_SHARED;
	pte = GET(vmf, pte);
	if (!pte)
		return WP_UNCHANGED;
	before = GET(vmf, orig_pte);
	bpf_probe_read_kernel(&after, sizeof(after), pte);
	if ((before ^ after) & PTE_PFN)
		return WP_COPIED;
	return after & PTE_RW ? WP_REUSED : WP_UNCHANGED;
}

static __always_inline int wp_left(struct vm_fault *vmf, u32 vm_fault)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct wp_counts *row = wp_counts.lookup(&cpu);

	if (row)
		row->n[wp_outcome_of(vmf, vm_fault) & 7]++;
	return 0;
}

#ifdef FENTRY
int wp_page_return(u64 *ctx)
{
	if (config(WANT_TASK) && !task_wanted(bpf_get_current_pid_tgid()))
		return 0;
	return wp_left((void *)ctx[0], (u32)ctx[1]);
}
#else
/* A kretprobe does not see the arguments. The function sleeps: keyed by task, as in page_mkwrite.c. */
BPF_TABLE("hash", u64, u64, wp_entered, 16384);

int wp_page_entry(struct pt_regs *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), vmf = ctx->di;

	if (task_wanted(id) && wp_entered.update(&id, &vmf))
		lose(INFLIGHT_FULL);
	return 0;
}

int wp_page_return(struct pt_regs *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), *vmf = wp_entered.lookup(&id);

	if (!vmf) {
		if (task_wanted(id))
			lose(UNMATCHED_RETURN);
		return 0;
	}
	wp_left((void *)*vmf, (u32)ctx->ax);
	wp_entered.delete(&id);
	return 0;
}
#endif
