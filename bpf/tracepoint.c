/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What tracepoints count where no function can be hooked: the write-protect faults that the processor reported, and
 * the pauses of tasks that dirtied pages faster than they are written back.
 */

/* Page fault error code: a present page, written. */
#define PF_WRITE_PROTECT 0x3

/* A line of eight for each CPU. */
BPF_TABLE("array", u32, u64, counts, 8);

static __always_inline void add(u32 what)
{
	u32 index = bpf_get_smp_processor_id() * 8 + what;
	u64 *n = counts.lookup(&index);

	if (n)
		(*n)++;
}

static __always_inline void write_protect(u64 *ctx, u32 what)
{
	/* Every fault of the host comes here; most end here. */
	if ((ctx[2] & PF_WRITE_PROTECT) != PF_WRITE_PROTECT)
		return;
	if (config(WANT_CALL) || (config(WANT_TASK) && !task_wanted()))
		return;
	add(what);
}

/* raw tracepoints page_fault_user, page_fault_kernel: address, regs, error_code */
int faulted_user(u64 *ctx)
{
	write_protect(ctx, COUNT_FAULTS_USER);
	return 0;
}

int faulted_kernel(u64 *ctx)
{
	write_protect(ctx, COUNT_FAULTS_KERNEL);
	return 0;
}

/* raw tracepoint signal_generate: sig, info, task, group, result. What a task's own fault caused, or raise(3). */
int signalled(u64 *ctx)
{
	if ((u32)ctx[0] != SIGBUS_NUMBER || ctx[2] != bpf_get_current_task())
		return 0;
	if (!config(WANT_CALL) && (!config(WANT_TASK) || task_wanted()))
		add(COUNT_SIGBUS);
	return 0;
}

/* By the name of the device's writeback, as /sys/class/bdi has it. */
struct bdi_name {
	char name[64];
};
struct throttled {
	u64 pauses;
	u64 jiffies;
	u64 pages; /* that were dirtied since the pause before */
};
BPF_TABLE("hash", struct bdi_name, struct throttled, throttled, 1024);

/* raw tracepoint balance_dirty_pages: wb, ..., dirtied, period, pause, start_time */
int throttling(u64 *ctx)
{
	struct bdi_writeback *writeback = (void *)ctx[0];
	struct backing_dev_info *bdi;
	struct throttled fresh = {}, *found;
	struct bdi_name name = {};
	u64 pages = 0;
	s64 pause = 0;

	if (config(WANT_CALL) || (config(WANT_TASK) && !task_wanted()))
		return 0;
	if (config(ARGUMENTS) == 8) {
		ARGUMENT_AT(ctx, 4, pages);
		ARGUMENT_AT(ctx, 6, pause);
	} else if (config(ARGUMENTS) == 12) {
		ARGUMENT_AT(ctx, 8, pages);
		ARGUMENT_AT(ctx, 10, pause);
	}
	/* Without a pause it goes on at once: the tracepoint tells of those, too. */
	if (pause <= 0)
		return 0;
	bdi = READ(writeback, bdi);
	bpf_probe_read_kernel_str(name.name, sizeof(name.name), bdi->dev_name);
	found = throttled.lookup_or_try_init(&name, &fresh);
	if (!found) {
		add(COUNT_THROTTLED_FULL);
		return 0;
	}
	lock_xadd(&found->pauses, 1);
	lock_xadd(&found->jiffies, pause);
	lock_xadd(&found->pages, pages);
	return 0;
}
