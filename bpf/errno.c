/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The errno that a handler folds into VM_FAULT_SIGBUS, taken at the return of the functions below it that allocate,
 * reserve or fail. One program serves them all; INNER says which it is attached to.
 */

static __always_inline void returned_errno(u64 value)
{
	u64 task = bpf_get_current_task(), upper = value >> 32;
	struct inner_error mine = {.inner = config(INNER)}, *last;
	struct pt_regs *registers;
	struct slot *call;
	int error = (int)value;

	/* An int leaves the upper half empty, an ERR_PTR fills it; an address does neither. */
	if (error >= 0 || error < -4095 || (upper && upper != 0xffffffff))
		return;
	/* The handler that agreed has returned: what comes now is no part of its call. */
	call = slot_of(task);
	if (call && call->series.kind)
		call = NULL;
	if (call)
		mine.start_ns = call->start_ns;
	mine.error = -error;
	registers = entry_registers();
	mine.ip = READ(registers, ip);
	mine.syscall = READ(registers, orig_ax);
	last = inner_errors.lookup(&task);
	/* The innermost function of a call has it first, its callers pass it on. */
	if (last && call && last->start_ns == mine.start_ns && last->error == mine.error)
		return;
	inner_errors.update(&task, &mine);
}

#ifdef FENTRY
int inner_return(context_t *ctx)
{
	returned_errno(returned(ctx));
	return 0;
}
#endif

/* For functions of modules whose types are not known to the kernel. */
int inner_probe(struct pt_regs *ctx)
{
	returned_errno(ctx->ax);
	return 0;
}

/*
 * xfs_mountfs(mp): what was shut down at this address is another filesystem, that was unmounted. Not at its end: an xfs
 * may be shut down while it is being unmounted, and one whose mount fails has no superblock to end.
 */
int mounting(struct pt_regs *ctx)
{
	u64 filesystem = ctx->di;

	shut_down.delete(&filesystem);
	return 0;
}

static __always_inline void note_shut_down(u64 filesystem)
{
	u8 yes = 1;

	shut_down.update(&filesystem, &yes);
}

/* xfs_do_force_shutdown(mp, ...): from now on the filesystem refuses everything. */
int shutting_down(struct pt_regs *ctx)
{
	note_shut_down(ctx->di);
	return 0;
}

/* xlog_force_shutdown(log, ...): the same, after an error of the log. The mount is a log's first member. */
int log_shutting_down(struct pt_regs *ctx)
{
	u64 filesystem = 0;

	if (!bpf_probe_read_kernel(&filesystem, sizeof(filesystem), (void *)ctx->di))
		note_shut_down(filesystem);
	return 0;
}
