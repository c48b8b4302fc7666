/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Faults that are refused outside of page_mkwrite: by ->fault (__do_fault: tmpfs, the end of the file, a read error),
 * or by hugetlb. Their common callers only see a VM_FAULT code.
 */

#ifdef FENTRY
#define arguments_of(ctx) (ctx)
#define forget_arguments()
#else
/* A return probe sees no arguments: its entry keeps them. Keyed by task: a task is in one fault at a time. */
struct arguments {
	u64 at[4];
};
BPF_TABLE("hash", u64, struct arguments, arguments, 16384);

int fault_entry(context_t *ctx)
{
	struct arguments mine = {.at = {ctx->di, ctx->si, ctx->dx, ctx->cx}};
	u64 task = bpf_get_current_task();

	if (arguments.update(&task, &mine))
		lose(INFLIGHT_FULL);
	return 0;
}

static __always_inline u64 *arguments_of(context_t *ctx)
{
	u64 task = bpf_get_current_task();

	return (u64 *)arguments.lookup(&task);
}

static __always_inline void forget_arguments(void)
{
	u64 task = bpf_get_current_task();

	arguments.delete(&task);
}
#endif

static __always_inline void refuse_wanted(struct fault *fault)
{
	struct super_block *sb = READ(READ(READ(fault->vma, vm_file), f_inode), i_sb);

	if (config(WANT_TASK) && !task_wanted())
		return;
	if (config(WANT_CALL) && !call_wanted(fault->handler, READ(sb, s_dev), sb))
		return;
	if (!(fault->flags & FAULT_FLAG_USER))
		fault->kind = KIND_INITIATOR(initiator_of(fault->flags));
	refuse(fault);
}

/* __do_fault(vmf) */
int fault_return(context_t *ctx)
{
	u64 *arguments = arguments_of(ctx);
	struct fault fault = {.source = FAULT};
	struct vm_fault *vmf;

	fault.vm_fault = returned(ctx);
	if (arguments && fault.vm_fault & VM_FAULT_REFUSED) {
		vmf = (void *)arguments[0];
		fault.vma = READ(vmf, vma);
		fault.address = READ(vmf, address);
		fault.pgoff = READ(vmf, pgoff);
		fault.flags = READ(vmf, flags);
		fault.handler = (u64)READ(READ(fault.vma, vm_ops), fault);
		refuse_wanted(&fault);
	}
	forget_arguments();
	return 0;
}

/* hugetlb_fault(mm, vma, address, flags) */
int hugetlb_return(context_t *ctx)
{
	u64 *arguments = arguments_of(ctx);
	struct fault fault = {.source = HUGETLB};

	fault.vm_fault = returned(ctx);
	if (arguments && fault.vm_fault & VM_FAULT_REFUSED) {
		fault.vma = (void *)arguments[1];
		fault.address = arguments[2];
		fault.flags = arguments[3];
		fault.pgoff = READ(fault.vma, vm_pgoff) + ((fault.address - READ(fault.vma, vm_start)) >> 12);
		refuse_wanted(&fault);
	}
	forget_arguments();
	return 0;
}
