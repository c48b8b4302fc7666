/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which refusals are one failure. The kernel asks again within one system call: byte by byte after word by word
 * (copy_user_generic), for the rest after what fitted (generic_perform_write), alone what was not the first page of a
 * range (process_vm_rw_single_vec). The program met one failure: a call that returned EFAULT, or less than it was to.
 *
 * A refusal is another failure than the task's last one
 *  - where its page differs, or anything with which the task entered the kernel: a register, or the numbers of read and
 *    write system calls so far, which the kernel raises at the end of each (inc_syscr, fs/read_write.c); else,
 *  - outside of these system calls, where it ends at a place at which one of the same failure has ended before. A place
 *    is an instruction that faulted, or a way to pin. After a refusal, a system call goes on elsewhere or returns. But
 *    MADV_POPULATE_* asks for the page again in the same way once it has those of the mapping that are before it. Each
 *    call begins with the first of these, which is seen (madvise_populate, mm/madvise.c).
 */

struct fault {
	struct vm_area_struct *vma;
	u64 address;
	u64 pgoff;
	u64 start_ns; /* of the call, 0 for a fault that is none */
	u64 latency_ns;
	u64 handler;
	u64 entry; /* entry_of(), 0 for a fault of the program's own */
	u64 place; /* where it ended, 0: not known yet */
	u32 kind;
	u32 flags;
	u32 vm_fault;
	u32 source;
	u32 record;
};

#define PLACES 4

/* The last refusal of a task, which is to end in a signal or in an error. */
struct refused {
	u64 time_ns;
	u64 address;
	u64 told; /* 0: counted only */
	u64 user; /* 1: a signal is to follow */
	u64 entry;
	u64 begun_again; /* 1: pages from another address on were to be pinned since */
	u64 places[PLACES];
};
BPF_TABLE("lru_hash", u64, struct refused, refusals, 4096);

/* A call that was refused since. The place where it ends will tell whether it is another failure. */
struct kept_call {
	u64 entry;
	u64 start_ns;
	u64 latency_ns;
	u32 kind;
	u32 flags;
	u32 vm_fault;
};
BPF_TABLE("lru_hash", u64, struct kept_call, kept_calls, 4096);

#define ENOSYS 38
#define USER_CS 0x33
#define SYS_MADVISE 28
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23

/*
 * Whether the task is in a read or write system call of 64-bit programs: arch/x86/entry/syscalls/syscall_64.tbl. `ax`
 * holds -ENOSYS until a system call has returned: workers of io_uring have copies of registers, and another value.
 */
static __always_inline int in_numbered_call(struct pt_regs *registers)
{
#ifdef HAS_IO_COUNTS
	if (READ(registers, ax) != -ENOSYS || READ(registers, cs) != USER_CS)
		return 0;
	switch (READ(registers, orig_ax)) {
	case 0:	  /* read */
	case 1:	  /* write */
	case 17:  /* pread64 */
	case 18:  /* pwrite64 */
	case 19:  /* readv */
	case 20:  /* writev */
	case 295: /* preadv */
	case 296: /* pwritev */
	case 327: /* preadv2 */
	case 328: /* pwritev2 */
		return 1;
	}
#endif
	return 0;
}

/*
 * Whether the task is in madvise(MADV_POPULATE_*) of pages before this one, in the same mapping: up to 6.8, the kernel
 * begins with each mapping anew.
 */
static __always_inline int populates_from_before(struct pt_regs *registers, struct fault *fault)
{
	u64 advice = READ(registers, dx), page = fault->address >> 12;

	if (READ(registers, ax) != -ENOSYS || READ(registers, cs) != USER_CS)
		return 0;
	if (READ(registers, orig_ax) != SYS_MADVISE)
		return 0;
	if ((u32)advice != MADV_POPULATE_READ && (u32)advice != MADV_POPULATE_WRITE)
		return 0;
	return READ(registers, di) >> 12 < page && READ(fault->vma, vm_start) >> 12 < page;
}

static __always_inline u64 mixed(u64 hash, u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

/* What the current task entered the kernel for and met at this address, as a number. */
static __always_inline u64 entry_of(u64 address)
{
	u64 hash = mixed(bpf_get_current_pid_tgid(), address >> 12);
	u64 *registers = (void *)entry_registers();
	u64 value;

#pragma nounroll
	for (int i = 0; i < sizeof(struct pt_regs) / sizeof(value); i++) {
		bpf_probe_read_kernel(&value, sizeof(value), registers + i);
		hash = mixed(hash, value);
	}
#ifdef HAS_IO_COUNTS
	{
		struct task_struct *task = (void *)bpf_get_current_task();
		struct task_io_accounting *io = (void *)&task->ioac;

		hash = mixed(hash, READ(io, syscr));
		hash = mixed(hash, READ(io, syscw));
	}
#endif
	return hash;
}

/*
 * Pages from this address on were to be pinned, but `refused` was not, or the first was not at once (0). Where a call
 * of page_mkwrite has told of `refused`, and not ended yet, this is its end.
 */
static __always_inline void note_beginning(u64 address, u64 refused)
{
	u64 task = bpf_get_current_task();
	struct refused *last = refusals.lookup(&task);

	if (!last || last->address >> 12 == address >> 12)
		return;
	if (last->places[0] || last->address >> 12 != refused >> 12)
		last->begun_again = 1;
}

/* Whether one of the failure's refusals has ended at this place; if not, one has now. */
static __always_inline int ended_at(struct refused *failure, u64 place)
{
#pragma unroll
	for (int i = 0; i < PLACES; i++) {
		if (failure->places[i] == place)
			return 1;
		if (!failure->places[i]) {
			failure->places[i] = place;
			return 0;
		}
	}
	return 1;
}

/*
 * Whether a call that was refused to a system call is of the failure that was told of last, or may be: then it is kept
 * with it until the place is known where it ends. (Where none ever was, the functions that tell are not hooked.)
 */
static __always_inline int kept_with_last(struct fault *fault)
{
	u64 task = bpf_get_current_task();
	struct refused *last = refusals.lookup(&task);
	struct kept_call call = {};

	fault->entry = entry_of(fault->address);
	if (!last || last->user || last->entry != fault->entry)
		return 0;
	if (!last->places[0] && !in_numbered_call(entry_registers()))
		return 0;
	call.entry = fault->entry;
	call.start_ns = fault->start_ns;
	call.latency_ns = fault->latency_ns;
	call.kind = fault->kind;
	call.flags = fault->flags;
	call.vm_fault = fault->vm_fault;
	kept_calls.update(&task, &call);
	return 1;
}

/*
 * Whether a refusal that ended at fault->place is of the failure that was told of last. If not, and a call was kept
 * that it is the end of, the fault becomes that call's.
 */
static __always_inline int of_last_failure(struct fault *fault)
{
	u64 task = bpf_get_current_task();
	struct pt_regs *registers = entry_registers();
	struct refused *last = refusals.lookup(&task);
	struct kept_call *call;
	int ended, another;

	fault->entry = entry_of(fault->address);
	if (!last || last->user || last->entry != fault->entry)
		return 0;
	ended = !!last->places[0];
	another = ended_at(last, fault->place);
	if (ended && populates_from_before(registers, fault))
		another = last->begun_again;
	if (!another || in_numbered_call(registers)) {
		kept_calls.delete(&task);
		inner_errors.delete(&task);
		return 1;
	}
	call = kept_calls.lookup(&task);
	if (!call || call->entry != fault->entry)
		return 0;
	fault->start_ns = call->start_ns;
	fault->latency_ns = call->latency_ns;
	fault->kind = call->kind;
	fault->flags = call->flags;
	fault->vm_fault = call->vm_fault;
	kept_calls.delete(&task);
	return 0;
}
