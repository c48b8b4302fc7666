/* SPDX-License-Identifier: GPL-2.0 */
/* A fault that was refused: who met it, where, and what the file and the filesystem were like. */

#define SB_RDONLY 0x1
#define S_IMMUTABLE 0x8
#define S_SWAPFILE 0x100
#define S_DAX 0x2000
#define S_IFMT 0170000
#define S_IFREG 0100000
#define FAULT_FLAG_WRITE 0x1
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

/* Another type may have what it keeps of a filesystem where an xfs had it. */
static __always_inline int is_xfs(struct super_block *sb)
{
	u32 name = 0;

	bpf_probe_read_kernel(&name, sizeof(name), READ(READ(sb, s_type), name));
	return name == ('x' | 'f' << 8 | 's' << 16);
}

static __always_inline u32 facts_of(struct fault *fault, struct inode *inode, struct super_block *sb)
{
	u32 facts = 0, flags = READ(inode, i_flags);
	u64 filesystem = (u64)READ(sb, s_fs_info);

	/* A block device's node has no size. */
	if (fault->source != PAGE_MKWRITE && (READ(inode, i_mode) & S_IFMT) == S_IFREG &&
	    fault->pgoff << 12 >= READ(inode, i_size))
		facts |= FACT_BEYOND_END;
	if (fault->vm_fault & VM_FAULT_HWPOISON)
		facts |= FACT_POISONED;
	if (fault->vm_fault & VM_FAULT_OOM)
		facts |= FACT_NO_MEMORY;
	if (READ(sb, s_flags) & SB_RDONLY)
		facts |= FACT_READ_ONLY;
	if (flags & S_IMMUTABLE)
		facts |= FACT_IMMUTABLE;
	if (flags & S_SWAPFILE)
		facts |= FACT_SWAPFILE;
	/* Without a page cache, ->fault is what allocates. */
	if (flags & S_DAX && fault->flags & FAULT_FLAG_WRITE)
		facts |= FACT_DAX_WRITE;
	if (is_xfs(sb) && shut_down.lookup(&filesystem))
		facts |= FACT_SHUT_DOWN;
	return facts;
}

#ifdef TRACEPOINT
/*
 * Nobody says when a filesystem ends. The next one's superblock is at another address, or else it has another backing
 * device (FUSE, NFS, btrfs: ids are not used again), another UUID (on a disk) or another root (tmpfs: its i_generation
 * is random).
 */
static __always_inline void note_superblock(u32 dev, struct super_block *sb)
{
	struct inode *root = READ(READ(sb, s_root), d_inode);
	u64 superblock = ((u64)sb ^ READ(READ(sb, s_bdi), id) << 48) + READ(root, i_generation), uuid = 0;
	struct number fresh = {}, *number;

	bpf_probe_read_kernel(&uuid, sizeof(uuid), &sb->s_uuid);
	superblock ^= uuid;
	fresh.superblock = superblock;
	number = numbers.lookup_or_try_init(&dev, &fresh);

	if (!number) {
		lose(FILESYSTEMS_FULL);
	} else if (number->superblock != superblock) {
		number->superblock = superblock;
		lock_xadd(&number->generation, 1);
		changed(FILESYSTEMS_CHANGED);
	}
}
#else
static __always_inline void note_superblock(u32 dev, struct super_block *sb)
{
}
#endif

static __always_inline void fill_file(struct failure *f, struct inode *inode, struct super_block *sb)
{
	f->inode = READ(inode, i_ino);
	f->size = READ(inode, i_size);
	f->blocks = READ(inode, i_blocks);
	f->page_bits = READ(sb, s_blocksize_bits);
	bpf_probe_read_kernel_str(f->fstype, sizeof(f->fstype), READ(READ(sb, s_type), name));
	/* The counts name their filesystem, too. */
	remember_fstype(f->cause.dev, f->cause.generation, sb);
}

static __always_inline void fill_truncation(struct failure *f)
{
	struct file_key key = {.inode = f->inode, .dev = f->cause.dev, .generation = f->cause.generation};
	struct truncation *last = truncations.lookup(&key);

	f->truncated_ns = 0;
	if (!last)
		return;
	f->truncated_ns = last->time_ns;
	f->truncated_to = last->to;
	f->truncated_from = last->from;
	f->truncated_by = last->by;
	__builtin_memcpy(f->truncated_comm, last->comm, sizeof(last->comm));
}

/* The last errno that was returned within this call (0: the fault) since the task entered the kernel, or NULL. */
static __always_inline struct inner_error *error_within(u64 task, u64 start_ns, struct pt_regs *registers)
{
	struct inner_error *inner = inner_errors.lookup(&task);

	if (!inner || inner->start_ns != start_ns || inner->ip != READ(registers, ip) ||
	    inner->syscall != READ(registers, orig_ax))
		return NULL;
	return inner;
}

/*
 * Whether the program's own instruction faulted: also where the flags are those that a handler sees (initiator_of()),
 * and the task is in no system call.
 */
static __always_inline int by_program(u32 flags)
{
	if (flags & FAULT_FLAG_USER)
		return 1;
	return flags & FAULT_FLAG_MKWRITE && READ(entry_registers(), orig_ax) == -1UL;
}

/* The errno, and how the task came here. */
static __always_inline void fill_error(struct failure *f, u64 task, struct fault *fault)
{
	struct pt_regs *registers = entry_registers();
	struct inner_error *inner = error_within(task, fault->start_ns, registers);
	u64 syscall = READ(registers, orig_ax);

	f->ip = READ(registers, ip);
	if (by_program(f->flags)) {
		f->flags |= FAULT_FLAG_USER;
		f->kind &= ~KIND_INITIATOR(UNKNOWN);
	}
	f->syscall = f->flags & FAULT_FLAG_USER ? -1 : syscall;
	f->inner = f->cause.error = 0;
	if (inner) {
		f->inner = inner->inner;
		f->cause.error = inner->error;
		inner_errors.delete(&task);
	}
}

static __always_inline void refuse(struct fault *fault)
{
	u64 task = bpf_get_current_task();
	struct file *file = READ(fault->vma, vm_file);
	struct inode *inode = READ(file, f_inode);
	struct super_block *sb = READ(inode, i_sb);
	u32 source = fault->source, record = fault->record;
	struct failure *f = failing.lookup(&record);
	struct refused refused = {};

	if (!f)
		return;
	f->time_ns = bpf_ktime_get_ns();
	f->latency_ns = fault->latency_ns;
	f->id = bpf_get_current_pid_tgid();
	f->process = process_of((void *)task);
	f->namespace_pid = namespace_pid((void *)task);
	f->parent = READ(READ((struct task_struct *)task, real_parent), tgid);
	f->cgroup = bpf_get_current_cgroup_id();
	f->uid = user_of((void *)task);
	bpf_get_current_comm(f->comm, sizeof(f->comm));
	fill_process(f->process_comm, (void *)task);
	f->refusal = 0;
	f->pgoff = fault->pgoff;
	f->address = fault->address;
	f->handler = fault->handler;
	f->vm_fault = fault->vm_fault;
	f->flags = fault->flags;
	f->kind = fault->kind;
	f->cause.source = source;
	f->cause.dev = READ(sb, s_dev);
	note_superblock(f->cause.dev, sb);
	f->cause.generation = generation_of(f->cause.dev);
	f->cause.facts = facts_of(fault, inode, sb);
	fill_file(f, inode, sb);
	f->cause.who = who_of(f->inode);
	fill_error(f, task, fault);
#ifndef TRACEPOINT
	/* No signal whose code tells a broken page, and nothing that would have refused said so. */
	if (source != PAGE_MKWRITE && !(f->flags & FAULT_FLAG_USER) && !f->cause.error)
		f->cause.facts |= FACT_UNSEEN;
#endif

	refused.time_ns = f->time_ns;
	refused.address = fault->address;
	refused.told = count_failure(f);
	refused.user = !!(f->flags & FAULT_FLAG_USER);
	refused.entry = fault->entry;
	refused.places[0] = fault->place;
	/* Out of memory, no signal follows. */
	if (!refused.user || fault->vm_fault & VM_FAULT_REFUSED)
		refusals.update(&task, &refused);
	if (!refused.told)
		return;
	fill_command(f);
	fill_action(f, (void *)task);
	fill_truncation(f);
	f->path_bytes = write_path(f->path, file, &f->deleted, &f->cut);
	send_failure(f);
}

/* A page_mkwrite call, in `slot`, that is counted as `series`. */
static __always_inline void refuse_call(struct slot *slot, struct series *series, u64 ns, struct vm_fault *vmf,
					u32 vm_fault)
{
	struct fault fault = {
		.vma = READ(vmf, vma),
		.address = READ(vmf, address),
		.pgoff = READ(vmf, pgoff),
		.start_ns = slot->start_ns,
		.latency_ns = ns,
		.handler = series->handler,
		.kind = series->kind,
		.flags = READ(vmf, flags),
		.vm_fault = vm_fault,
		.source = PAGE_MKWRITE,
		.record = OF_CALL,
	};

	if (by_program(fault.flags) || !kept_with_last(&fault))
		refuse(&fault);
}
