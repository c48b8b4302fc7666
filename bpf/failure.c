/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who refused a fault: the page_mkwrite handler (do_page_mkwrite), ->fault (__do_fault: tmpfs, the end of the file, a
 * read error), or hugetlb. Their common callers only see a VM_FAULT code.
 */

#define S_SWAPFILE 0x100
#define VM_FAULT_REFUSED (VM_FAULT_SIGBUS | VM_FAULT_HWPOISON)

/* The command line from the task's own memory: it may be dead before anybody can ask /proc. */
static __always_inline void fill_command(struct failure *f)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct mm_struct *mm = READ(task, mm);
	u64 start = READ(mm, arg_start);
	u64 bytes = READ(mm, arg_end) - start;

	if (bytes > COMMAND_BYTES - 1)
		bytes = COMMAND_BYTES - 1;
	bounded(bytes, COMMAND_BYTES - 1);
	f->command_bytes = bpf_probe_read_user(f->command, bytes, (void *)start) ? 0 : bytes;
}

static __always_inline void fill_file(struct failure *f, struct file *file)
{
	struct inode *inode = READ(file, f_inode);
	struct super_block *sb = READ(inode, i_sb);

	f->inode = READ(inode, i_ino);
	f->size = READ(inode, i_size);
	f->blocks = READ(inode, i_blocks);
	f->inode_flags = READ(inode, i_flags);
	f->superblock_flags = READ(sb, s_flags);
	f->dev = READ(sb, s_dev);
	bpf_probe_read_kernel_str(f->fstype, sizeof(f->fstype), READ(READ(sb, s_type), name));
}

static __always_inline void fill_truncation(struct failure *f)
{
	struct file_key key = {.inode = f->inode, .dev = f->dev};
	struct truncation *last = truncations.lookup(&key);

	f->truncated_ns = 0;
	if (!last)
		return;
	f->truncated_ns = last->time_ns;
	f->truncated_to = last->to;
	f->truncated_by = last->by;
	__builtin_memcpy(f->truncated_comm, last->comm, sizeof(last->comm));
}

/* The errno, if one was returned within this call or fault, and how the task came here. */
static __always_inline void fill_error(struct failure *f, u64 task, u64 start_ns)
{
	struct inner_error *inner = inner_errors.lookup(&task);
	struct pt_regs *registers = entry_registers();
	u64 syscall = READ(registers, orig_ax);

	f->ip = READ(registers, ip);
	f->syscall = f->flags & FAULT_FLAG_USER ? -1 : syscall;
	f->inner = f->error = 0;
	if (inner && inner->start_ns == start_ns && inner->ip == f->ip && inner->syscall == syscall) {
		f->inner = inner->inner;
		f->error = inner->error;
		inner_errors.delete(&task);
	}
}

struct fault {
	struct vm_area_struct *vma;
	u64 address;
	u64 pgoff;
	u64 start_ns;
	u64 latency_ns;
	u64 handler;
	u32 flags;
	u32 write_protect;
	u32 vm_fault;
	u32 source;
};

static __always_inline void refuse(struct fault *fault)
{
	u64 task = bpf_get_current_task();
	struct file *file = READ(fault->vma, vm_file);
	struct inode *inode = READ(file, f_inode);
	struct super_block *sb = READ(inode, i_sb);
	u32 where = fault->source;
	struct failure *f = scratch.lookup(&where);
	struct refused refused = {};

	if (!f || (config(WANT_TASK) && !task_wanted()))
		return;
	if (config(WANT_CALL) && !call_wanted(fault->handler, READ(sb, s_dev), sb))
		return;
	f->time_ns = bpf_ktime_get_ns();
	f->latency_ns = fault->latency_ns;
	f->id = bpf_get_current_pid_tgid();
	f->cgroup = bpf_get_current_cgroup_id();
	f->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(f->comm, sizeof(f->comm));
	f->source = fault->source;
	f->refusal = 0;
	f->pgoff = fault->pgoff;
	f->address = fault->address;
	f->handler = fault->handler;
	f->vm_fault = fault->vm_fault;
	f->flags = fault->flags;
	f->write_protect = fault->write_protect;
	fill_file(f, file);
	fill_error(f, task, fault->start_ns);
	/* For a file in use as swap, do_page_mkwrite returns without giving the fault its own flags back. */
	if (f->inode_flags & S_SWAPFILE && f->syscall == (u32)-1)
		f->flags |= FAULT_FLAG_USER;

	refused.time_ns = f->time_ns;
	refused.address = fault->address;
	refused.told = worth_telling(f);
	if (f->flags & FAULT_FLAG_USER && fault->vm_fault & VM_FAULT_REFUSED)
		refusals.update(&task, &refused);
	if (!refused.told)
		return;
	fill_command(f);
	fill_truncation(f);
	f->path_bytes = write_path(f->path, file, &f->deleted, &f->cut);
	send(f);
}

static __always_inline void refuse_vmf(u32 source, struct vm_fault *vmf, u32 vm_fault, struct call *call, u64 now)
{
	struct fault fault = {
		.vma = READ(vmf, vma),
		.address = READ(vmf, address),
		.pgoff = READ(vmf, pgoff),
		.flags = READ(vmf, flags),
		.vm_fault = vm_fault,
		.source = source,
	};

	if (source == PAGE_MKWRITE) {
		fault.handler = (u64)READ(READ(fault.vma, vm_ops), page_mkwrite);
		fault.write_protect = READ(vmf, pte) != NULL;
	} else {
		fault.handler = (u64)READ(READ(fault.vma, vm_ops), fault);
	}
	if (call) {
		fault.start_ns = call->start_ns;
		fault.latency_ns = now - call->start_ns;
	}
	refuse(&fault);
}

int mkwrite_entry(context_t *ctx)
{
	struct call mine = {.task = bpf_get_current_task(), .vmf = argument(ctx, 0)};
	struct call *slot = first_slot(mine.task);

	mine.start_ns = bpf_ktime_get_ns();
	if (slot && (!slot->task || slot->task == mine.task)) {
		*slot = mine;
		return 0;
	}
	mine.crowded = 1;
	if (crowded.update(&mine.task, &mine))
		lose_failure(CALLS_FULL);
	return 0;
}

int mkwrite_return(context_t *ctx)
{
	u64 task = bpf_get_current_task(), now = bpf_ktime_get_ns();
	struct call *call = call_of(task);
	u32 vm_fault = returned(ctx);
	struct vm_fault *vmf;

#ifdef FENTRY
	vmf = (void *)argument(ctx, 0);
#else
	/* A return probe sees no arguments. */
	if (!call)
		return 0;
	vmf = (void *)call->vmf;
#endif
	if (vm_fault & VM_FAULT_ERROR)
		refuse_vmf(PAGE_MKWRITE, vmf, vm_fault, call, now);
	if (call && call->crowded)
		crowded.delete(&task);
	else if (call)
		call->task = 0;
	return 0;
}

static __always_inline void refuse_hugetlb(u64 vma, u64 address, u32 flags, u32 vm_fault)
{
	struct fault fault = {
		.vma = (void *)vma,
		.address = address,
		.flags = flags,
		.vm_fault = vm_fault,
		.source = HUGETLB,
	};

	fault.pgoff = READ(fault.vma, vm_pgoff) + ((address - READ(fault.vma, vm_start)) >> 12);
	refuse(&fault);
}

#ifdef FENTRY
int fault_return(context_t *ctx)
{
	u32 vm_fault = returned(ctx);

	if (vm_fault & VM_FAULT_REFUSED)
		refuse_vmf(FAULT, (void *)argument(ctx, 0), vm_fault, NULL, 0);
	return 0;
}

int hugetlb_return(context_t *ctx)
{
	u32 vm_fault = returned(ctx);

	if (vm_fault & VM_FAULT_REFUSED)
		refuse_hugetlb(argument(ctx, 1), argument(ctx, 2), argument(ctx, 3), vm_fault);
	return 0;
}
#else
/* Return probes see no arguments. Keyed by task: a task is in one fault at a time. */
struct entered {
	u64 vmf;
	u64 vma;
	u64 address;
	u64 flags;
};
BPF_TABLE("hash", u64, struct entered, entered, 16384);

static __always_inline void enter(struct entered *mine)
{
	u64 task = bpf_get_current_task();

	if (entered.update(&task, mine))
		lose_failure(CALLS_FULL);
}

int fault_entry(context_t *ctx)
{
	struct entered mine = {.vmf = ctx->di};

	enter(&mine);
	return 0;
}

int hugetlb_entry(context_t *ctx)
{
	struct entered mine = {.vma = ctx->si, .address = ctx->dx, .flags = ctx->cx};

	enter(&mine);
	return 0;
}

int fault_return(context_t *ctx)
{
	u64 task = bpf_get_current_task();
	struct entered *mine = entered.lookup(&task);
	u32 vm_fault = ctx->ax;

	if (!mine)
		return 0;
	if (vm_fault & VM_FAULT_REFUSED)
		refuse_vmf(FAULT, (void *)mine->vmf, vm_fault, NULL, 0);
	entered.delete(&task);
	return 0;
}

int hugetlb_return(context_t *ctx)
{
	u64 task = bpf_get_current_task();
	struct entered *mine = entered.lookup(&task);
	u32 vm_fault = ctx->ax;

	if (!mine)
		return 0;
	if (vm_fault & VM_FAULT_REFUSED)
		refuse_hugetlb(mine->vma, mine->address, mine->flags, vm_fault);
	entered.delete(&task);
	return 0;
}
#endif
