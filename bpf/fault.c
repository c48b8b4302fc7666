/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Faults that are refused outside of page_mkwrite: by ->fault (tmpfs, the end of the file, a read error), or by
 * hugetlb. Nothing is hooked that a fault runs through when it succeeds. A refusal ends in one of three places instead,
 * none of which is met without an error: a SIGBUS, the fixup of a system call's access to user memory, or an error of
 * get_user_pages(). Which file it was follows from the address, whose mapping is still there.
 *
 * A page_mkwrite that refused has told of itself by then, and left its address in `refusals`; or it waits there for the
 * place where it ends (refused.h).
 */

/* The processor's error code: arch/x86/include/asm/trap_pf.h. */
#define PF_PROTECTION 0x1
#define PF_WRITE 0x2
#define PF_KEY 0x20
#define TRAP_PAGE_FAULT 14
/* Codes of SIGBUS: a page that is broken was needed, or is only known to be. */
#define BUS_MCEERR_AR 4
#define BUS_MCEERR_AO 5
#define SIGKILL_BIT 0x100
#define PF_DUMPCORE 0x200

#define VM_WRITE 0x2
#define VM_ACCESS 0x7
#define VM_PFNMAP 0x400
#define VM_IO 0x4000
#define VM_HUGETLB 0x00400000

#define EFAULT 14
#define EHWPOISON 133

static __always_inline void refuse_wanted(struct fault *fault)
{
	struct super_block *sb = READ(READ(READ(fault->vma, vm_file), f_inode), i_sb);

	if (config(WANT_TASK) && !task_wanted())
		return;
	if (config(WANT_CALL) && !call_wanted(fault->handler, READ(sb, s_dev), sb))
		return;
	if (!(fault->flags & FAULT_FLAG_USER))
		fault->kind |= KIND_INITIATOR(initiator_of(fault->flags, fault->vma));
	refuse(fault);
}

/* Whether a page_mkwrite that this task was in has told of it; signal_generated() is still to see it. */
static __always_inline int told_before(u64 address)
{
	u64 task = bpf_get_current_task();
	struct refused *last = refusals.lookup(&task);

	return last && last->user && last->address >> 12 == address >> 12;
}

static __always_inline u64 pages_of(struct vm_area_struct *vma)
{
	return (READ(READ(READ(vma, vm_file), f_inode), i_size) + 4095) >> 12;
}

/* Where the address is mapped. Returns 0 where no file is, or where it may not be accessed like this. */
static __always_inline int find_place(struct fault *fault, struct mm_struct *mm, u64 address)
{
	struct vm_area_struct *vma = mapping_at(mm, address);

	if (!has_address(vma, address) || !READ(vma, vm_file))
		return 0;
	fault->vma = vma;
	fault->address = address;
	fault->pgoff = READ(vma, vm_pgoff) + ((address - READ(vma, vm_start)) >> 12);
	return READ(vma, vm_flags) & (fault->flags & FAULT_FLAG_WRITE ? VM_WRITE : VM_ACCESS);
}

/* Whether page_mkwrite may have been asked: for a write to a file's page that lies in the page cache. */
static __always_inline int has_handler(struct fault *fault)
{
	struct inode *inode = READ(READ(fault->vma, vm_file), f_inode);

	return READ(READ(fault->vma, vm_ops), page_mkwrite) && READ(fault->vma, vm_flags) & VM_SHARED &&
	       fault->flags & FAULT_FLAG_WRITE && fault->pgoff < pages_of(fault->vma) &&
	       !(READ(inode, i_flags) & S_DAX);
}

/* Who refused. Where calls are hooked they have told, but for one whose return was missed, or that was kept. */
static __always_inline void find_source(struct fault *fault)
{
	struct vm_operations_struct *operations = READ(fault->vma, vm_ops);
#ifdef TRACEPOINT
	int asked = 1, kept = 0;
#else
	struct slot *call = slot_of(bpf_get_current_task());
	int asked = call && !call->series.kind, kept = fault->start_ns != 0;
#endif

	if (READ(fault->vma, vm_flags) & VM_HUGETLB) {
		fault->source = HUGETLB;
	} else if (kept || (asked && has_handler(fault))) {
		fault->source = PAGE_MKWRITE;
		fault->handler = (u64)READ(operations, page_mkwrite);
	} else {
		fault->source = FAULT;
		fault->handler = (u64)READ(operations, fault);
	}
}

/*
 * raw tracepoint signal_generate: sig, info, task, group, result. Runs before signal.c's program there, which finds the
 * refusal that it belongs to. The processor's error code is kept in the task (set_signal_archinfo,
 * arch/x86/mm/fault.c).
 */
int signal_refused(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[2];
	struct kernel_siginfo *siginfo = (void *)ctx[1];
	struct thread_struct *thread = (void *)&task->thread;
	struct fault fault = {.flags = FAULT_FLAG_USER, .vm_fault = VM_FAULT_SIGBUS, .record = OF_REFUSED_SIGNAL};
	u64 address, error;
	u32 code;

	if ((u32)ctx[0] != SIGBUS_NUMBER || ctx[1] <= 1 || (u64)task != bpf_get_current_task())
		return 0;
	code = READ(siginfo, si_code);
	if ((int)code <= 0 || code == BUS_MCEERR_AO)
		return 0;
	bpf_probe_read_kernel(&address, sizeof(address), &siginfo->_sifields);
	if (READ(thread, trap_nr) != TRAP_PAGE_FAULT || READ(thread, cr2) >> 12 != address >> 12)
		return 0;
	if (told_before(address))
		return 0;
	error = READ(thread, error_code);
	if (error & PF_WRITE)
		fault.flags |= FAULT_FLAG_WRITE;
	if (error & PF_PROTECTION)
		fault.kind = KIND_WRITE_PROTECT;
	if (code == BUS_MCEERR_AR)
		fault.vm_fault = VM_FAULT_HWPOISON;
	if (!find_place(&fault, READ(task, mm), address))
		return 0;
	find_source(&fault);
	refuse_wanted(&fault);
	return 0;
}

#ifndef TRACEPOINT
/*
 * Whether the current task may not fault. A probe read counts itself in what it reads: it disables page faults
 * meanwhile (copy_from_kernel_nofault, mm/maccess.c). A plain load of the same field does not.
 */
static __always_inline int faults_disabled(void)
{
#ifdef HELPER_bpf_get_current_task_btf
	return current_task()->pagefault_disabled > 0;
#else
	return READ((struct task_struct *)bpf_get_current_task(), pagefault_disabled) > 1;
#endif
}

/*
 * fixup_exception(regs, trap, error_code, address): the kernel's own access to memory failed. Where page faults are
 * disabled, nobody was asked; where the mapping allows the access, and the task is not being killed, who was asked has
 * refused (do_user_addr_fault, arch/x86/mm/fault.c).
 */
int access_refused(context_t *ctx)
{
	u64 trap = argument(ctx, 1), error = argument(ctx, 2), address = argument(ctx, 3);
	struct fault fault = {.flags = FAULT_FLAG_INTERRUPTIBLE, .vm_fault = VM_FAULT_SIGBUS, .record = OF_ACCESS};
	struct task_struct *task = (void *)bpf_get_current_task();
	struct sigpending *pending = (void *)&task->pending;
	struct pt_regs *registers = (void *)argument(ctx, 0);

	if ((u32)trap != TRAP_PAGE_FAULT || error & PF_KEY || faults_disabled())
		return 0;
	if (READ(pending, signal) & SIGKILL_BIT)
		return 0;
	if (error & PF_WRITE)
		fault.flags |= FAULT_FLAG_WRITE;
	fault.place = READ(registers, ip);
	if (!find_place(&fault, READ(task, mm), address) || of_last_failure(&fault))
		return 0;
	find_source(&fault);
	refuse_wanted(&fault);
	return 0;
}

/* Whether the page could not be had, rather than not be pinned: nothing else ends so, or its handler has said so. */
static __always_inline int page_refused(struct fault *fault, int error)
{
	if (error != -EFAULT || !READ(READ(fault->vma, vm_ops), page_mkwrite) || fault->pgoff >= pages_of(fault->vma))
		return 1;
	return error_within(bpf_get_current_task(), 0, entry_registers()) != NULL;
}

/* What ended at no instruction: a way to pin, which its flags tell, and whether pages before this one were pinned. */
#define PLACE_PINNED 0x100000000ULL
#define PLACE_SHORT 0x200000000ULL

/*
 * __get_user_pages(mm, start, pages, flags, ...) and fixup_user_fault(mm, address, flags, ...). The former returns an
 * error only for its first page, else the number of those before: the caller asks again for the rest, or gives up.
 * FOLL_WRITE and FAULT_FLAG_WRITE are the same bit. EFAULT has other reasons, too, as that a page may not be pinned for
 * long: only where the page or its handler could not be had it is told.
 */
static __always_inline void pinning_refused(u64 mm, u64 address, u64 pages, u64 flags, int result)
{
	struct fault fault = {.flags = flags & FAULT_FLAG_WRITE, .vm_fault = VM_FAULT_SIGBUS, .record = OF_PINNING};
	int is_short = config(FLAGS_ARG) != 2 && result >= 0 && result < pages;
	u64 task = bpf_get_current_task();

	if (!is_short && result != -EFAULT && result != -EHWPOISON)
		return;
	/* A core dump leaves out what it cannot have, page by page. */
	if (READ((struct task_struct *)task, flags) & PF_DUMPCORE)
		return;
	if (config(FLAGS_ARG) == 2)
		fault.record = OF_FIXUP;
	fault.place = PLACE_PINNED | (u32)flags;
	if (is_short) {
		fault.place |= PLACE_SHORT;
		note_beginning(address, result ? address + ((u64)result << 12) : 0);
		if (!result)
			return;
		address += (u64)result << 12;
	}
	if (!find_place(&fault, (void *)mm, address) || READ(fault.vma, vm_flags) & (VM_IO | VM_PFNMAP))
		return;
	if (of_last_failure(&fault))
		return;
	if (!fault.start_ns && (is_short || !page_refused(&fault, result)))
		return;
	if (result == -EHWPOISON)
		fault.vm_fault = VM_FAULT_HWPOISON;
	find_source(&fault);
	refuse_wanted(&fault);
}

#ifdef FENTRY
int pin_return(context_t *ctx)
{
	u64 mm = ctx[0], address = ctx[1], third = ctx[2], flags = third;

	/* Not the other one, too: a pointer to a number may not be loaded on 5.10. */
	if (config(FLAGS_ARG) != 2)
		ARGUMENT_AT(ctx, 3, flags);
	pinning_refused(mm, address, third, flags, returned(ctx));
	return 0;
}
#endif

/* A return probe sees no arguments: its entry keeps them. A task is in one of these functions at a time. */
struct pinning {
	u64 mm;
	u64 address;
	u64 pages;
	u64 flags;
};
BPF_TABLE("hash", u64, struct pinning, pinnings, 4096);

int pin_probe_entry(struct pt_regs *ctx)
{
	struct pinning mine = {.mm = ctx->di, .address = ctx->si};
	u64 task = bpf_get_current_task(), third = ctx->dx, fourth = ctx->cx;

	asm volatile("" : "+r"(third), "+r"(fourth));
	mine.pages = third;
	mine.flags = config(FLAGS_ARG) == 2 ? third : fourth;
	if (pinnings.update(&task, &mine))
		lose(INFLIGHT_FULL);
	return 0;
}

int pin_probe_return(struct pt_regs *ctx)
{
	u64 task = bpf_get_current_task();
	struct pinning *mine = pinnings.lookup(&task);

	if (!mine)
		return 0;
	pinning_refused(mine->mm, mine->address, mine->pages, mine->flags, ctx->ax);
	pinnings.delete(&task);
	return 0;
}
#endif /* TRACEPOINT */
