/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Write faults of DAX mappings, which have no page to be asked for: ->fault, ->huge_fault or ->pfn_mkwrite end in
 * dax_iomap_fault (fs/dax.c). It maps the storage itself, so VM_FAULT_NOPAGE is success here; with MAP_SYNC it leaves
 * that to dax_finish_sync_fault, once the blocks are on the medium. Nothing of this runs where no file is DAX.
 */

#define FAULT_FLAG_WRITE 0x1
#define VM_FAULT_FALLBACK 0x800
#define VM_FAULT_NEEDDSYNC 0x2000

struct dax_call {
	u64 start_ns;
	u64 vmf;
	u64 handler;
	u64 kind;
};
BPF_TABLE("hash", u64, struct dax_call, dax_calls, 4096);

#ifdef FENTRY
#define dax_order(ctx) ((u32)(ctx)[1])
#define dax_returned(ctx) ((u32)(ctx)[ARGUMENTS_dax_iomap_fault])
#define dax_synced(ctx) ((u32)(ctx)[ARGUMENTS_dax_finish_sync_fault])
#else
#define dax_order(ctx) ((u32)(ctx)->si)
#define dax_returned(ctx) ((u32)(ctx)->ax)
#define dax_synced(ctx) ((u32)(ctx)->ax)
#endif

/* dax_iomap_fault(vmf, order, ...); to 6.1 an enum comes second, which is 0 for a single page, too. */
int dax_entry(context_t *ctx)
{
	struct vm_fault *vmf = entry_vmf(ctx);
	struct vm_area_struct *vma = GET(vmf, vma);
	u64 task = bpf_get_current_task();
	u32 flags = GET(vmf, flags);
	struct dax_call call = {.vmf = (u64)vmf};

	/* Reading, or a page that is copied for a private mapping. */
	if (!(flags & FAULT_FLAG_WRITE) || !(GET(vma, vm_flags) & VM_SHARED))
		return 0;
	if (config(WANT_TASK) && !task_wanted())
		return 0;
	if (dax_order(ctx)) {
		call.handler = (u64)GET(GET(vma, vm_ops), huge_fault);
		call.kind = KIND_VALID | KIND_DAX_HUGE_FAULT;
	} else if (flags & FAULT_FLAG_MKWRITE) {
		call.handler = (u64)GET(GET(vma, vm_ops), pfn_mkwrite);
		call.kind = KIND_VALID | KIND_PFN_MKWRITE;
	} else {
		call.handler = (u64)GET(GET(vma, vm_ops), fault);
		call.kind = KIND_VALID | KIND_DAX_FAULT;
	}
	/* The core adds FAULT_FLAG_MKWRITE for pfn_mkwrite, and leaves the others. */
	if (!(flags & FAULT_FLAG_USER))
		call.kind |= KIND_INITIATOR(initiator_of(flags & ~FAULT_FLAG_MKWRITE, vma));
	call.start_ns = bpf_ktime_get_ns();
	if (dax_calls.lookup(&task))
		lose(UNMATCHED_ENTRY);
	if (dax_calls.update(&task, &call))
		lose(INFLIGHT_FULL);
	return 0;
}

static __always_inline u32 dax_outcome_of(u32 vm_fault)
{
	if (vm_fault & VM_FAULT_ERROR)
		return outcome_of(vm_fault);
	return vm_fault & (VM_FAULT_NOPAGE | VM_FAULT_NEEDDSYNC) ? WRITABLE : RETRY;
}

static __always_inline void count_dax(struct dax_call *call, u32 vm_fault)
{
	u64 ns = bpf_ktime_get_ns() - call->start_ns;
	struct vm_fault *vmf = (void *)call->vmf;
	struct series series = {.handler = call->handler};
	struct inode *inode = READ(READ(READ(vmf, vma), vm_file), f_inode);
	struct super_block *sb = READ(inode, i_sb);
	u32 generation, reason;

	series.dev = READ(sb, s_dev);
	generation = generation_of(series.dev);
	series.kind = call->kind | KIND_OUTCOME(dax_outcome_of(vm_fault)) | KIND_GENERATION(generation);
	if (config(EXTRAS)) {
		series.who = who_of(READ(inode, i_ino));
		if (config(WANT_CALL) && !call_wanted(series.handler, series.dev, sb))
			return;
	}
	remember_fstype(series.dev, generation, sb);
	reason = reason_of(ns, count_shared(&series, ns));
	if (reason)
		report(AT_DAX, reason, vmf, &series, ns, vm_fault);
}

int dax_return(context_t *ctx)
{
	u64 task = bpf_get_current_task();
	struct dax_call *call = dax_calls.lookup(&task);
	u32 vm_fault = dax_returned(ctx);

	if (!call || (config(DAX_SYNC) && vm_fault & VM_FAULT_NEEDDSYNC))
		return 0;
	/* A huge page does not do here: the same fault is taken again for a single one. */
	if (!(vm_fault & VM_FAULT_FALLBACK))
		count_dax(call, vm_fault);
	dax_calls.delete(&task);
	return 0;
}

int dax_sync_return(context_t *ctx)
{
	u64 task = bpf_get_current_task();
	struct dax_call *call = dax_calls.lookup(&task);

	if (!call)
		return 0;
	count_dax(call, dax_synced(ctx));
	dax_calls.delete(&task);
	return 0;
}
