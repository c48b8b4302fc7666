/* SPDX-License-Identifier: GPL-2.0 */
/* What a series' kind says of a call: what came of it, how its fault came, and who wrote. */

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

/*
 * do_page_mkwrite gives the handler flags of its own, and then the fault's back. Who sees those of the handler, in the
 * handler or for a file in use as swap (where the core returns at once), does not know the initiator.
 *
 * get_user_pages() is not interruptible, for a task's own memory (O_DIRECT, MADV_POPULATE_WRITE, /proc/self/mem) as for
 * another's: only the mm tells these apart.
 */
static __always_inline u32 initiator_of(u32 flags, struct vm_area_struct *vma)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (flags & FAULT_FLAG_MKWRITE)
		return UNKNOWN;
	return flags & FAULT_FLAG_INTERRUPTIBLE || READ(vma, vm_mm) == READ(task, mm) ? KERNEL : REMOTE;
}

static __always_inline u32 kind_of(struct vm_fault *vmf)
{
	u32 kind = KIND_VALID, flags = GET(vmf, flags);

	/* The core sets ->pte before it calls the handler for a page that is mapped read-only, and only then. */
	STEP(GET(vmf, pte), kind |= KIND_WRITE_PROTECT);
	STEP(!(flags & FAULT_FLAG_USER), kind |= KIND_INITIATOR(initiator_of(flags, GET(vmf, vma))));
	return kind;
}
