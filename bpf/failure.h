/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Refused faults and SIGBUS: a count of each cause, and an event each. An object that only counts calls has none of
 * this; with it, a call that succeeds is not changed by an instruction.
 */

#define COMMAND_BYTES 512
#define ATTR_SIZE 0x8

#include <uapi/linux/ptrace.h>

#define THREAD_SIZE 16384

/* The registers with which the current task entered the kernel; orig_ax is the system call's number, or -1. */
static __always_inline struct pt_regs *entry_registers(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	void *(*current_btf)(void) = (void *)158;
	struct pt_regs *(*registers_of)(void *) = (void *)175;

	if (config(TASK_REGS))
		return registers_of(current_btf());
	return READ(task, stack) + THREAD_SIZE - sizeof(struct pt_regs);
}

/* Not the credentials that a task has taken meanwhile, as those of who mounted an overlay that it reads. */
static __always_inline u32 user_of(struct task_struct *task)
{
	return READ(READ(task, real_cred), uid);
}

/* struct pid's numbers, one for each namespace from the host's inwards (include/linux/pid.h). */
struct upid {
	u64 nr; /* and a hole */
	u64 ns;
};

static __always_inline u32 namespace_pid(struct task_struct *task)
{
	struct task_struct *leader = READ(task, group_leader);
	struct pid *pid = READ(leader, thread_pid);
	struct upid *numbers = (void *)&pid->numbers;
	u32 level = READ(pid, level);

	return READ(&numbers[level], nr);
}

static __always_inline void fill_process(char *name, struct task_struct *task)
{
	struct task_struct *leader = READ(task, group_leader);

	bpf_probe_read_kernel_str(name, 16, &leader->comm);
}

#define SIGACTION_BYTES 32

/* Failures of one cause are counted together, whether they are told of one by one or not. */
struct cause {
	u64 who; /* as in struct series */
	u32 dev; /* 0 for a signal */
	u32 generation;
	u32 error; /* that an inner function returned, or a signal's code */
	u16 source;
	u16 facts; /* what was known when it arose (FACT_*), from which its class follows */
};
BPF_TABLE("hash", struct cause, u64, causes, 4096);

struct failure {
	u64 time_ns; /* CLOCK_MONOTONIC; names a refusal, too */
	u64 latency_ns;
	u64 id; /* of the task that wrote, or that the signal goes to */
	u64 process;
	u64 namespace_pid; /* of its process, in the innermost pid namespace that it is in */
	u64 cgroup;
	u64 refusal; /* of a signal: the refusal that caused it */
	u64 inode;
	u64 pgoff;
	u64 address;
	u64 size; /* of the file, then */
	u64 blocks;
	u64 handler;
	u64 ip;
	u64 ip_offset; /* in the file that it is mapped from, whose name is the path of a signal */
	u64 seen;      /* failures of this process, file and cause so far, those that were not told of included */
	u64 burst_ns;  /* when they began to be counted */
	u64 truncated_ns;
	u64 truncated_to;
	u64 truncated_from;
	u64 truncated_by;
	u64 action; /* SIG_DFL, SIG_IGN or the handler */
	u64 sender;
	struct cause cause;
	u32 kind;  /* as in struct series */
	u32 inner; /* the function that returned the error, 0: none seen */
	u32 vm_fault;
	u32 flags; /* of the fault */
	u32 uid;
	u32 syscall; /* or -1 */
	u32 result;  /* of the signal */
	u32 blocked;
	u32 sender_uid;
	u32 parent; /* process */
	u32 deleted;
	u32 cut;
	u32 path_bytes;
	u32 page_bits; /* of hugetlb's pages */
	char comm[16];
	char process_comm[16]; /* the name of its first thread */
	char fstype[16];
	char truncated_comm[16];
	char sender_comm[16];
	u32 command_bytes;
	char command[COMMAND_BYTES]; /* line, its arguments ended by NULs */
	char path[PATH_BYTES + NAME_BYTES];
};

BPF_RINGBUF_OUTPUT(failures, 256);

/* What the task does with a SIGBUS, by now: for its own fault the kernel sets the default just before it sends one. */
static __always_inline void fill_action(struct failure *f, struct task_struct *task)
{
	struct sighand_struct *sighand = READ(task, sighand);

	bpf_probe_read_kernel(&f->action, sizeof(f->action), &sighand->action[(SIGBUS_NUMBER - 1) * SIGACTION_BYTES]);
	f->blocked = READ(task, blocked) >> (SIGBUS_NUMBER - 1) & 1;
}

/*
 * One for each program: that never runs on a CPU while it is preempted there, which a preemptible kernel does to fentry
 * programs, but another may.
 */
enum record { OF_CALL, OF_REFUSED_SIGNAL, OF_ACCESS, OF_PINNING, OF_FIXUP, OF_SIGNAL, RECORDS };
BPF_TABLE("percpu_array", u32, struct failure, failing, RECORDS);

/*
 * The last errno that an inner function returned to a task. It belongs to the call that began at start_ns; outside of
 * calls (0), to what the task entered the kernel for: an instruction that faulted, or a system call.
 */
struct inner_error {
	u64 start_ns;
	u64 ip;
	u64 syscall;
	u32 inner;
	u32 error;
};
BPF_TABLE("lru_hash", u64, struct inner_error, inner_errors, 4096);

/* A process that is refused again and again is told of a few times, then every 100 ms; the rest is counted. */
#define BURST 16
#define BURST_NS 100000000ULL

struct burst_key {
	struct cause cause;
	u64 inode;
	u64 process;
};
struct burst {
	u64 seen;
	u64 told_ns;
	u64 began_ns; /* tells it from one before it that had to make room */
};
BPF_TABLE("lru_hash", struct burst_key, struct burst, bursts, 4096);

static __always_inline void count_cause(struct cause *cause)
{
	u64 none = 0, *n = causes.lookup_or_try_init(cause, &none);

	if (!n) {
		lose(SERIES_FULL);
		return;
	}
	lock_xadd(n, 1);
	changed(CAUSES_COUNTED);
}

/* Counts one more; how many of its kind there were, and since when. Returns whether to tell of it. */
static __always_inline int count_burst(struct burst_key *key, u64 now, u64 *seen, u64 *began_ns)
{
	struct burst fresh = {.began_ns = now}, *burst;

	count_cause(&key->cause);
	*seen = 1;
	*began_ns = now;
	burst = bursts.lookup_or_try_init(key, &fresh);
	if (!burst)
		return 1;
	lock_xadd(&burst->seen, 1);
	*seen = burst->seen;
	*began_ns = burst->began_ns;
	if (*seen > BURST && now - burst->told_ns < BURST_NS)
		return 0;
	burst->told_ns = now;
	return 1;
}

static __always_inline int count_failure(struct failure *f)
{
	struct burst_key key = {.cause = f->cause, .inode = f->inode, .process = f->process};

	return count_burst(&key, f->time_ns, &f->seen, &f->burst_ns);
}

/* The xfs that were seen to be shut down, by super_block.s_fs_info. */
BPF_TABLE("lru_hash", u64, u8, shut_down, 256);

/* The last time that each file was made shorter. */
struct file_key {
	u64 inode;
	u32 dev;
	u32 generation;
};
struct truncation {
	u64 time_ns;
	u64 to;
	u64 from;
	u64 by;
	u64 process;
	char comm[16];
};
BPF_TABLE("lru_hash", struct file_key, struct truncation, truncations, 4096);

/* By task: what it is about to cut, and what there was in `truncations` of that file. */
struct cutting {
	u64 inode;
	struct file_key key;
	struct truncation before;
};
BPF_TABLE("lru_hash", u64, struct cutting, cuttings, 1024);

static __always_inline void send_failure(struct failure *f)
{
	u32 size = f->path_bytes;

	bounded(size, PATH_BYTES - 1);
	size += offsetof(struct failure, path);
	if (failures.ringbuf_output(f, size, 0))
		lose(EVENTS_FULL);
}

#ifdef FENTRY
#define argument(ctx, n) ((ctx)[n])
#define ARGUMENT(ctx, n, value) ARGUMENT_AT(ctx, n, value)
/* Behind the arguments; the branches not taken are never verified. */
static __always_inline u64 returned(context_t *ctx)
{
	u64 value = 0;

	if (config(ARITY) == 1)
		ARGUMENT_AT(ctx, 1, value);
	else if (config(ARITY) == 2)
		ARGUMENT_AT(ctx, 2, value);
	else if (config(ARITY) == 3)
		ARGUMENT_AT(ctx, 3, value);
	else if (config(ARITY) == 4)
		ARGUMENT_AT(ctx, 4, value);
	else if (config(ARITY) == 5)
		ARGUMENT_AT(ctx, 5, value);
	else if (config(ARITY) == 6)
		ARGUMENT_AT(ctx, 6, value);
	else if (config(ARITY) == 7)
		ARGUMENT_AT(ctx, 7, value);
	else if (config(ARITY) == 8)
		ARGUMENT_AT(ctx, 8, value);
	else
		ARGUMENT_AT(ctx, 9, value);
	return value;
}
#else
#define ARGUMENT_OFFSET(n)                                                                                             \
	((n) == 0   ? offsetof(struct pt_regs, di)                                                                     \
	 : (n) == 1 ? offsetof(struct pt_regs, si)                                                                     \
		    : offsetof(struct pt_regs, dx))
#define ARGUMENT(ctx, n, value) asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value) : "r"(ctx), "i"(ARGUMENT_OFFSET(n)))
#define argument(ctx, n) ((n) == 0 ? (ctx)->di : (n) == 1 ? (ctx)->si : (n) == 2 ? (ctx)->dx : (ctx)->cx)
#define returned(ctx) ((ctx)->ax)
#endif
