/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which filesystem a device number stands for. The kernel gives a number to another filesystem as soon as one has
 * ended; each end begins a new generation of the number (filesystem.c). A call or a refusal is in a mapping, which
 * holds the superblock: its generation does not change meanwhile.
 */

static __always_inline u32 generation_of(u32 dev)
{
	struct number *number = numbers.lookup(&dev);

	return number ? number->generation & GENERATIONS : 0;
}

/* The same of a call that began at start_ns and may be over. */
static __always_inline u32 generation_at(u32 dev, u64 start_ns)
{
	struct number *number = numbers.lookup(&dev);

	return number ? (number->generation - (start_ns < number->ended_ns)) & GENERATIONS : 0;
}

static __always_inline void remember_fstype(u32 dev, u32 generation, struct super_block *sb)
{
	struct fstype_key key = {.dev = dev, .generation = generation};
	struct fstype fstype = {};

	if (fstypes.lookup(&key))
		return;
	bpf_probe_read_kernel_str(fstype.name, sizeof(fstype.name), READ(READ(sb, s_type), name));
	if (fstypes.update(&key, &fstype))
		lose(FILESYSTEMS_FULL);
	else
		changed(FILESYSTEMS_CHANGED);
}
