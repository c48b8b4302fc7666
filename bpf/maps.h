/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs keep. User space learns the layout of these structures from BCC, so it stands here only. Sizes
 * that depend on the host or on an option (a row a CPU, --max-series) are set when the maps are created: a map that
 * is used through global() is one value in the end, of as many of the structures named here as needed.
 */

/*
 * One stream of calls. `kind` packs path (of DAX: the function of vm_ops), initiator, outcome and generation: which of
 * the filesystems that have had the number (filesystem.h), left out in slots and front cells. It is never 0.
 */
struct series {
	u64 handler; /* address of vm_ops->page_mkwrite, or of what a DAX fault came by */
	u64 who;     /* tgid, inode or cgroup id with --by, else 0 */
	u32 dev;     /* super_block.s_dev */
	u32 kind;
};

struct cell {
	struct series series;
	u64 generation; /* of a front cell's series, written when it is taken */
	u64 sum_ns;
	u64 max_ns;
	u64 buckets[BUCKETS];
};

/*
 * Calls that ended writable, nearly all of them: direct-mapped rows of a cell for each CPU. Only one program writes
 * here and it never nests on a CPU (the kernel's recursion guard, and no fault in interrupts), so plain adds are exact.
 */
BPF_F_TABLE("array", u32, struct cell, front, 1, BPF_F_MMAPABLE);

/* Every other series, and those that find their front cell taken; shared by all CPUs, atomic adds. */
BPF_TABLE("hash", struct series, struct cell, others, 1024);

/* All zeros: a new cell is too large for the BPF stack. */
BPF_TABLE("array", u32, struct cell, blank, 1);

/*
 * The call that a task is in, found by the address of its task_struct: cheaper to ask for than the thread id, and as
 * good while the call lasts. A slot that another task holds sends the newcomer to `crowded`.
 */
struct slot {
	u64 task; /* 0: free */
	u64 start_ns;
	u64 vmf;
	u64 latency_ns;
	struct series series; /* kind != 0: the handler agreed, and the PTE is still to be made writable */
	u64 vma;	      /* of the last call that returned */
	u64 inode;
	u64 pgoff;
	u64 address;
	u64 crowded; /* this slot is in `crowded` */
	/* Only kept where waits are told apart (wait.h). */
	u64 owner; /* the task that took the slot last, free or not */
	struct sleep_mark mark;
	u64 waited; /* 1: the task has an entry in `waiting` */
};
BPF_F_TABLE("array", u32, struct slot, slots, 1, BPF_F_MMAPABLE);
BPF_TABLE("hash", u64, struct slot, crowded, 4096);

/* do_wp_page's outcomes, a row for each CPU. */
struct wp_counts {
	u64 n[8];
};
BPF_F_TABLE("array", u32, struct wp_counts, wp_counts, 1, BPF_F_MMAPABLE);

/* File system types, so that a name is known after umount and across mount namespaces. */
struct fstype_key {
	u32 dev;
	u32 generation;
};
struct fstype {
	char name[16];
};
BPF_TABLE("hash", struct fstype_key, struct fstype, fstypes, 4096);

/* A device number, and what had it; see filesystem.h. */
struct number {
	u64 ended_ns;	/* when the last one ended */
	u64 superblock; /* what tells the present one from the last, where nothing says when one ends */
	u64 generation; /* how many have ended */
};
BPF_TABLE("hash", u32, struct number, numbers, 16384);

struct losses {
	u64 n[LOSSES];
	u64 since_ns; /* begun.h; from user space */
};
BPF_F_TABLE("array", u32, struct losses, lost, 1, BPF_F_MMAPABLE);

/*
 * How often the hash maps changed. User space asks bpf(2) for what they hold only when these say that it is worth it:
 * the kernel runs no kprobe program on a CPU where a task is inside of that call, preempted or not.
 */
struct changes {
	u64 n[CHANGES];
};
BPF_F_TABLE("array", u32, struct changes, changes, 1, BPF_F_MMAPABLE);

static __always_inline void changed(u32 what)
{
	struct changes *changes = global(CHANGES_MAP);

	lock_xadd(&changes->n[what], 1);
}

static __always_inline void lose(u32 kind)
{
	struct losses *losses = global(LOST_MAP);

	lock_xadd(&losses->n[kind], 1);
}
