/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The mapping that an address is in. Others may change the tree meanwhile, whose locks are not held: only a mapping
 * that has the address counts.
 */

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

static __always_inline int has_address(struct vm_area_struct *vma, u64 address)
{
	return vma && READ(vma, vm_start) <= address && address < READ(vma, vm_end);
}
