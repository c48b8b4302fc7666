/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where no function can be hooked: what a SIGBUS itself tells of the fault that caused it. The processor's error code
 * is kept in the task (set_signal_archinfo, arch/x86/mm/fault.c), and the victim's mappings are still whole. This runs
 * before signal.c's program on the same tracepoint, which finds the refusal as it finds those of the hooked functions.
 */

#define FAULT_FLAG_WRITE 0x1
#define PF_PROTECTION 0x1
#define PF_WRITE 0x2
#define TRAP_PAGE_FAULT 14
#define BUS_MCEERR_AO 5
#define VM_HUGETLB 0x00400000

#ifdef HAS_MAPLE_TREE
/* lib/maple_tree.c and include/linux/maple_tree.h: a node's pointer is aligned to 256, its type is in the low bits. */
#define NODE_MASK 255ULL
#define NODE_TYPE(entry) ((entry) >> 3 & 0xf)
#define IS_ROOT_NODE(entry) (((entry)&3) == 2 && (entry) > 4096)
#define MAPLE_LEAF_64 1
#define MAPLE_ARANGE_64 3
#define MAPLE_DEPTH 8

static __always_inline struct vm_area_struct *mapping_at(struct mm_struct *mm, u64 address)
{
	struct maple_tree *tree = (void *)&mm->mm_mt;
	u64 entry = (u64)READ(tree, ma_root), pivots[MAPLE_RANGE_PIVOTS], node;
	int depth, i, type, last;

	/* One mapping alone needs no node. */
	if (!IS_ROOT_NODE(entry))
		return (void *)entry;
#pragma nounroll
	for (depth = 0; depth < MAPLE_DEPTH; depth++) {
		node = entry & ~NODE_MASK;
		type = NODE_TYPE(entry);
		last = type == MAPLE_ARANGE_64 ? MAPLE_ARANGE_PIVOTS : MAPLE_RANGE_PIVOTS;
		if (bpf_probe_read_kernel(pivots, sizeof(pivots), (void *)node + MAPLE_PIVOTS))
			return NULL;
			/* A slot ends at its pivot; the last one in use may have none. */
#pragma unroll
		for (i = 0; i < MAPLE_RANGE_PIVOTS; i++)
			if (i >= last || pivots[i] >= address || (i && !pivots[i]))
				break;
		/* The slots follow the pivots. */
		if (bpf_probe_read_kernel(&entry, sizeof(entry), (void *)node + MAPLE_PIVOTS + 8 * (last + i)))
			return NULL;
		if (type == MAPLE_LEAF_64)
			return (void *)entry;
	}
	return NULL;
}
#else
/* A balanced tree of 65,530 mappings is no deeper than this. */
#define TREE_DEPTH 40

static __always_inline struct vm_area_struct *mapping_at(struct mm_struct *mm, u64 address)
{
	struct rb_root *root = (void *)&mm->mm_rb;
	struct rb_node *node = READ(root, rb_node);
	struct vm_area_struct *vma = NULL;
	int depth;

#pragma nounroll
	for (depth = 0; depth < TREE_DEPTH && node; depth++) {
		vma = (void *)node - offsetof(struct vm_area_struct, vm_rb);
		if (address < READ(vma, vm_start))
			node = READ(node, rb_left);
		else if (address >= READ(vma, vm_end))
			node = READ(node, rb_right);
		else
			break;
	}
	return vma;
}
#endif

/* Which of the kernel's functions refused is inferred: whichever it would have asked. */
static __always_inline void infer_source(struct fault *fault, struct file *file)
{
	struct vm_operations_struct *operations = READ(fault->vma, vm_ops);
	u64 pages = (READ(READ(file, f_inode), i_size) + 4095) >> 12, flags = READ(fault->vma, vm_flags);

	fault->handler = (u64)READ(operations, page_mkwrite);
	if (flags & VM_HUGETLB) {
		fault->source = HUGETLB;
		fault->handler = 0;
	} else if (fault->handler && flags & VM_SHARED && fault->flags & FAULT_FLAG_WRITE && fault->pgoff < pages) {
		fault->source = PAGE_MKWRITE;
	} else {
		fault->source = FAULT;
		fault->handler = (u64)READ(operations, fault);
	}
}

/* raw tracepoint signal_generate: sig, info, task, group, result */
int signal_refused(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[2];
	struct kernel_siginfo *siginfo = (void *)ctx[1];
	struct thread_struct *thread = (void *)&task->thread;
	struct fault fault = {.flags = FAULT_FLAG_USER, .vm_fault = VM_FAULT_SIGBUS};
	u64 address, error;
	struct file *file;
	u32 code;

	if ((u32)ctx[0] != SIGBUS_NUMBER || ctx[1] <= 1 || (u64)task != bpf_get_current_task())
		return 0;
	code = READ(siginfo, si_code);
	if ((int)code <= 0 || code == BUS_MCEERR_AO)
		return 0;
	bpf_probe_read_kernel(&address, sizeof(address), &siginfo->_sifields);
	if (READ(thread, trap_nr) != TRAP_PAGE_FAULT || READ(thread, cr2) >> 12 != address >> 12)
		return 0;
	fault.address = address;
	fault.vma = mapping_at(READ(task, mm), address);
	/* Others may change the tree meanwhile: only a mapping that has the address counts. */
	if (!fault.vma || READ(fault.vma, vm_start) > address || READ(fault.vma, vm_end) <= address)
		return 0;
	file = READ(fault.vma, vm_file);
	if (!file)
		return 0;
	error = READ(thread, error_code);
	if (error & PF_WRITE)
		fault.flags |= FAULT_FLAG_WRITE;
	if (code == BUS_MCEERR_AR)
		fault.vm_fault = VM_FAULT_HWPOISON;
	if (error & PF_PROTECTION)
		fault.kind = KIND_WRITE_PROTECT;
	fault.pgoff = READ(fault.vma, vm_pgoff) + ((address - READ(fault.vma, vm_start)) >> 12);
	infer_source(&fault, file);
	refuse_wanted(&fault);
	return 0;
}
