/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls of page_mkwrite without faults, at rates that a machine's faults do not reach: a system call that the kernel
 * does not have, by its number, runs what all three hooks of page_mkwrite.c run, on structures made up here. The
 * number says which of DEVICES the call is for, and how it ends.
 */
enum how { HOW_WRITABLE, HOW_RACED, HOW_RETRY, HOW_REFUSED, HOWS };

struct fake {
	struct vm_fault vmf;
	struct vm_area_struct vma;
	struct vm_operations_struct ops;
	struct file file;
	struct inode inode;
	struct super_block sb;
	struct file_system_type type;
	char name[16];
};
BPF_TABLE("array", u32, struct fake, fakes, DEVICES);

static __always_inline void make_up(struct fake *fake, u32 device)
{
	__builtin_memcpy(fake->name, "synthetic", 10);
	fake->type.name = fake->name;
	fake->sb.s_type = &fake->type;
	fake->sb.s_dev = FIRST_DEVICE + device;
	fake->inode.i_sb = &fake->sb;
	fake->file.f_inode = &fake->inode;
	fake->ops.page_mkwrite = (void *)HANDLER;
	fake->vma.vm_ops = &fake->ops;
	fake->vma.vm_file = &fake->file;
	fake->vmf.flags = FAULT_FLAG_USER;
	barrier();
	/* Another CPU takes a fault that has this as whole. */
	fake->vmf.vma = &fake->vma;
}

static __always_inline u32 vm_fault_of(u32 how)
{
	if (how == HOW_RETRY)
		return 0;
	return how == HOW_REFUSED ? VM_FAULT_SIGBUS : VM_FAULT_LOCKED;
}

/* What page_mkwrite_return does. */
static __always_inline void returned_as(u32 how)
{
	u64 task = bpf_get_current_task(), now = bpf_ktime_get_ns();
	struct slot *slot = slot_of(task);
	u64 ns;

	if (!slot) {
		unmatched();
		return;
	}
	ns = now - slot->start_ns;
	asm volatile("" : "+r"(ns));
	leave(typed(slot->vmf, vm_fault), vm_fault_of(how), slot, ns);
}

/* raw tracepoint sys_enter: regs, number */
int synthetic(u64 *ctx)
{
	u64 number = ctx[1] - FIRST_NUMBER;
	u32 device = number / HOWS, how = number % HOWS;
	struct fake *fake;

	if (number >= DEVICES * HOWS)
		return 0;
	fake = fakes.lookup(&device);
	if (!fake)
		return 0;
	if (!fake->vmf.vma)
		make_up(fake, device);
	enter(&fake->vmf);
	returned_as(how);
	if (how == HOW_WRITABLE)
		dirtied(&fake->vmf);
	return 0;
}
