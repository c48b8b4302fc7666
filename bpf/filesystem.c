/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The end of a filesystem. generic_shutdown_super() (fs/super.c) runs for each superblock, once nobody holds it any
 * more and before its device number is free.
 */

/*
 * Takes what was counted of the number out of reach of the calls of its next filesystem. No call of this one is left
 * that could count meanwhile, on any CPU.
 */
static __always_inline void end_cells(u32 dev)
{
	u64 cells = config(CPUS) * (config(FRONT_MASK) + 1);
	struct cell *cell = global(FRONT_MAP);

#pragma nounroll
	for (u64 i = 0; i < cells; i++, cell++) {
		/* The only branch: the verifier follows up to 8,192 in a row. A cell that is free has no device. */
		if (cell->series.dev == dev)
			cell->series.kind |= KIND_ENDED;
	}
}

static __always_inline void begin_generation(u32 dev)
{
	struct number fresh = {}, *number = numbers.lookup_or_try_init(&dev, &fresh);
	struct want key = {.kind = WANT_DEV, .value = {dev, 0}};

	if (!number) {
		lose(FILESYSTEMS_FULL);
		return;
	}
	number->ended_ns = bpf_ktime_get_ns();
	number->generation++;
	end_cells(dev);
	changed(FILESYSTEMS_CHANGED);
	/* A block device stays what was chosen; an anonymous number was no more than its filesystem's. */
	if (config(WANT_CALL) & (1 << WANT_DEV) && !(dev >> 20))
		wanted.delete(&key);
}

/* generic_shutdown_super(sb) */
int filesystem_ended(context_t *ctx)
{
	struct super_block *sb = (void *)FIRST_ARGUMENT(ctx);
	u32 dev = READ(sb, s_dev);

	if (dev)
		begin_generation(dev);
	return 0;
}
