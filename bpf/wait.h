/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the call that a task is in has waited for. Functions that only run when there is something to wait for are
 * hooked (wait.c); each is known by a reason. Time in one belongs to its reason, less the time in others below it:
 * of nested waits the innermost counts.
 */

#ifdef WAITS /* time asleep is told apart by reason */

/* Bytes from fault_dirty_shared_page's address on in which a return address is taken as its. */
#define DIRTY_BYTES 1024

#define LEVELS 4

struct level {
	u64 since_ns;
	struct sleep_mark mark;
	u64 nested_ns; /* charged to waits below this one */
	u32 reason;
	u32 unused;
};

/* Made when the first wait of a call begins, deleted when the call is settled. */
struct waiting {
	u64 ns[WAIT_REASONS];
	u64 slept_ns; /* asleep within named waits */
	u64 switches; /* voluntary ones within them */
	u32 depth;
	u32 unused;
	struct level levels[LEVELS];
};
BPF_TABLE("hash", u64, struct waiting, waiting, 4096);

struct wait_key {
	u64 handler;
	u32 dev;
	u32 generation;
	u64 reason;
};
struct waited {
	u64 count; /* calls that waited for this */
	u64 ns;
	u64 max_ns;
};
BPF_TABLE("hash", struct wait_key, struct waited, waited, 4096);

/* The series of calls that were in `crowded` and ended writable: their slot is gone when their task is throttled. */
BPF_TABLE("lru_hash", u64, struct wait_key, kept_series, 4096);

static __always_inline void keep_series(struct series *series, u64 task)
{
	struct wait_key key = {.handler = series->handler,
			       .dev = series->dev,
			       .generation = generation_of(series->dev),
			       .reason = WAIT_THROTTLE};

	kept_series.update(&task, &key);
}

/* Tasks throttled in a fault whose handler has agreed before; and what a slow one is told with. */
struct throttled {
	struct wait_key key;
	u64 since_ns;
	u64 file; /* 0: not known. The fault holds it, or the mapping (fault_dirty_shared_page, mm/memory.c) */
	u64 latency_ns;
	u64 pgoff;
	u64 address;
	struct series series;
};
BPF_TABLE("hash", u64, struct throttled, throttled, 4096);

static __always_inline void begin_waits(struct slot *slot, u64 task)
{
	slot->owner = task;
	mark_sleep(&slot->mark);
	slot->waited = 0;
}

static __always_inline void forget_waits(struct slot *slot)
{
	u64 task;

	if (!slot->waited)
		return;
	task = slot->task;
	slot->waited = 0;
	waiting.delete(&task);
}

static __always_inline struct waiting *waits_of(struct slot *slot, u64 task)
{
	if (!slot->waited) {
		if (waiting.update(&task, global(BLANK_MAP))) {
			lose(INFLIGHT_FULL);
			return NULL;
		}
		slot->waited = 1;
	}
	return waiting.lookup(&task);
}

static __always_inline void count_wait(struct wait_key *key, u64 ns)
{
	struct waited fresh = {}, *total = waited.lookup(key);

	if (!total) {
		waited.insert(key, &fresh); /* -EEXIST: another CPU was faster */
		total = waited.lookup(key);
		if (!total) {
			lose(SERIES_FULL);
			return;
		}
	}
	lock_xadd(&total->count, 1);
	lock_xadd(&total->ns, ns);
	if (ns > total->max_ns)
		total->max_ns = ns;
	changed(WAITS_COUNTED);
}

/* What was slept outside of named waits, of a call that took `ns`: nothing if it never let another task run there. */
static __always_inline u64 unnamed(struct slot *slot, struct waiting *w, u64 slept, u64 ns)
{
	if (voluntary_switches() - slot->mark.switches == w->switches || slept <= w->slept_ns)
		return 0;
	slept -= w->slept_ns;
#pragma unroll
	for (int i = 0; i < WAIT_OTHER; i++)
		ns -= w->ns[i];
	return (s64)ns < (s64)slept ? (s64)ns < 0 ? 0 : ns : slept;
}

/* The call has returned after `ns`: count what it waited for. The slot knows its series. */
static __always_inline void end_waits(struct slot *slot, u64 ns)
{
	u64 slept = slept_since(&slot->mark, ns), task;
	struct wait_key key = {};
	struct waiting *w;

	if (!slot->waited && !slept)
		return;
	task = slot->task;
	w = waits_of(slot, task);
	if (!w)
		return;
	w->ns[WAIT_OTHER] = unnamed(slot, w, slept, ns);
	key.handler = slot->series.handler;
	key.dev = slot->series.dev;
	key.generation = generation_of(key.dev);
#pragma unroll
	for (int i = 0; i < WAIT_REASONS; i++) {
		key.reason = i;
		if (w->ns[i])
			count_wait(&key, w->ns[i]);
	}
}

#else

static __always_inline void keep_series(struct series *series, u64 task)
{
}

static __always_inline void begin_waits(struct slot *slot, u64 task)
{
}

static __always_inline void forget_waits(struct slot *slot)
{
}

static __always_inline void end_waits(struct slot *slot, u64 ns)
{
}

#endif /* WAITS */
