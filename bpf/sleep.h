/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How long the current task has slept since a mark was taken.
 *
 * When a task arrives on a CPU, the scheduler notes the time (sched_info.last_arrival), how long the task had been
 * ready to run by then (sched_info.run_delay; both kernel/sched/stats.h), and how long it had run
 * (se.prev_sum_exec_runtime, set_next_entity() in kernel/sched/fair.c). From one arrival to the next, what it neither
 * ran nor was ready it slept. The first two are in rq_clock, which all CPUs share. (exec_start would tell the same at
 * any moment, but it is clock_task, which each CPU has of its own, less its interrupts and its stolen time.)
 *
 * - Without a voluntary switch (nvcsw, __schedule()) it has not slept: exactly 0.
 * - The run time lacks interrupts and stolen time, where the kernel keeps them apart (CONFIG_IRQ_TIME_ACCOUNTING,
 *   CONFIG_PARAVIRT_TIME_ACCOUNTING): those that came while the task was on a CPU, from its arrival before the mark to
 *   its last departure, are told as sleep. Elsewhere the time is exact to the ns.
 * - Never more than the time that passed. So what is told as sleep and was none is at most as long as the task did
 *   not sleep since the mark.
 * - Ready is what the scheduler calls so: from 6.12 on also a sleeper that is moved to another CPU while its dequeue is
 *   delayed (sched_delayed, kernel/sched/fair.c). Less is told then than it slept.
 * - prev_sum_exec_runtime is the fair class's. Of real-time, deadline and sched_ext tasks that slept, and of one whose
 *   class, affinity or cgroup is changed while it runs, up to the whole time is told.
 */

struct sleep_mark {
	u64 clock;
	u64 switches;
};

static __always_inline u64 voluntary_switches(void)
{
	struct task_struct *task = current_task();

	return TASK_FIELD(task, nvcsw);
}

/* Goes on at arrivals only, by what the task had slept. */
static __always_inline u64 sleep_clock(void)
{
	struct task_struct *task = current_task();

	return TASK_FIELD(task, sched_info.last_arrival) - TASK_FIELD(task, sched_info.run_delay) -
	       TASK_FIELD(task, se.prev_sum_exec_runtime);
}

static __always_inline void mark_sleep(struct sleep_mark *mark)
{
	mark->clock = sleep_clock();
	mark->switches = voluntary_switches();
}

/* In ns, of the `passed` since the mark. */
static __always_inline u64 slept_since(struct sleep_mark *mark, u64 passed)
{
	s64 slept;

	if (voluntary_switches() == mark->switches)
		return 0;
	slept = sleep_clock() - mark->clock;
	if (slept < 0)
		return 0;
	return slept < (s64)passed ? slept : passed;
}
