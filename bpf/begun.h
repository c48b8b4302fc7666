/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What began before it could be seen is no loss, though its end is. User space notes when every hook is on
 * (since_ns). A task is in one call, one run of do_wp_page and one throttled fault at a time: of each, one that is as
 * old as the hooks may end one without a beginning, and no more.
 */

enum end { END_OF_CALL, END_OF_WP_FAULT, END_OF_THROTTLED };

struct begun {
	u64 task;
	u64 what;
};
BPF_TABLE("hash", struct begun, u64, begun, 4096);

/* Counts an end whose beginning was not seen, unless that was before the hooks. */
static __always_inline void unmatched(u32 what)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct begun key = {.task = (u64)task, .what = what};
	struct losses *losses = global(LOST_MAP);
	u64 since = losses->since_ns, now = bpf_ktime_get_ns(), *before;

	if (!since || (config(WANT_TASK) && !task_wanted()))
		return;
	if (READ(task, start_time) < since) {
		before = begun.lookup(&key);
		/* Hooks may have come since, for a module. */
		if ((!before || *before < since) && !begun.update(&key, &now))
			return;
	}
	lose(UNMATCHED_RETURN);
}
