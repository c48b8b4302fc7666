/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who froze a filesystem, and who thawed it: freeze_super() and thaw_super() (fs/super.c), which ioctl(2) and the
 * kernel's own users (device mapper, suspend) call alike. A freeze counts from its beginning: writers wait from there.
 */

struct freeze {
	u64 since_ns; /* 0: nobody saw it begin */
	u64 by;
	u64 thawed_ns; /* 0: it lasts */
	u64 thawed_by;
	char comm[16];
	char thawed_comm[16];
};
BPF_TABLE("lru_hash", struct fstype_key, struct freeze, freezes, 1024);

/* Tasks in one of the two functions that are to change something, by what they freeze or thaw. */
BPF_TABLE("hash", u64, u64, freezing, 1024);

static __always_inline struct fstype_key number_of(struct super_block *sb)
{
	struct fstype_key key = {.dev = READ(sb, s_dev)};

	key.generation = generation_of(key.dev);
	return key;
}

/* Returns the superblock that the task's function was called for, NULL if it was not to change anything. */
static __always_inline struct super_block *take_frozen(void)
{
	u64 task = bpf_get_current_task(), sb, *found = freezing.lookup(&task);

	if (!found)
		return NULL;
	sb = *found;
	freezing.delete(&task);
	return (void *)sb;
}

int freeze_entry(context_t *ctx)
{
	u64 task = bpf_get_current_task(), sb = (u64)FIRST_ARGUMENT(ctx);
	struct freeze freeze = {};
	struct fstype_key key;

	/* Of a filesystem that is frozen, who came first is told. */
	if (READ((struct super_block *)sb, s_writers.frozen))
		return 0;
	key = number_of((void *)sb);
	freeze.since_ns = bpf_ktime_get_ns();
	freeze.by = bpf_get_current_pid_tgid();
	bpf_get_current_comm(freeze.comm, sizeof(freeze.comm));
	freezes.update(&key, &freeze);
	freezing.update(&task, &sb);
	return 0;
}

int freeze_return(context_t *ctx)
{
	struct super_block *sb = take_frozen();
	struct fstype_key key;

	if (!sb || READ(sb, s_writers.frozen))
		return 0;
	key = number_of(sb);
	freezes.delete(&key); /* it was refused */
	return 0;
}

int thaw_entry(context_t *ctx)
{
	u64 task = bpf_get_current_task(), sb = (u64)FIRST_ARGUMENT(ctx);

	if (READ((struct super_block *)sb, s_writers.frozen))
		freezing.update(&task, &sb);
	return 0;
}

int thaw_return(context_t *ctx)
{
	struct super_block *sb = take_frozen();
	struct freeze unseen = {}, *freeze;
	struct fstype_key key;

	/* Another one's freeze may hold on (6.6). */
	if (!sb || READ(sb, s_writers.frozen))
		return 0;
	key = number_of(sb);
	freeze = freezes.lookup_or_try_init(&key, &unseen);
	if (!freeze)
		return 0;
	freeze->thawed_by = bpf_get_current_pid_tgid();
	bpf_get_current_comm(freeze->thawed_comm, sizeof(freeze->thawed_comm));
	freeze->thawed_ns = bpf_ktime_get_ns();
	return 0;
}
