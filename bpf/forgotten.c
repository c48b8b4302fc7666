/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whether anybody can still be told of what a file lost at writeback: the error is in the inode's address space, and
 * goes with it. Nothing is hooked for this: the front end runs the program (BPF_PROG_TEST_RUN) while files have lost
 * writes that nobody was told of.
 */

/* Whether an inode was evicted (evict(), fs/inode.c, takes it out of its superblock's list), or is another one now. */
static __always_inline int inode_has_left(struct inode *inode, struct file_key *key)
{
	struct super_block *sb = READ(inode, i_sb);
	u64 next = 0; /* in the list of its superblock: struct list_head begins with it */

	if (READ(inode, i_ino) != key->inode || !sb || READ(sb, s_dev) != key->dev)
		return 1;
	bpf_probe_read_kernel(&next, sizeof(next), &inode->i_sb_list);
	if (next == (u64)&inode->i_sb_list)
		return 1;
	return !(READ(READ(inode, i_mapping), wb_err) & ERRSEQ_ERRNO); /* read again: a new one (inode_init_always) */
}

/* context: inode number, device, generation. */
int look_for_inode(u64 *ctx)
{
	struct file_key key = {.inode = ctx[0], .dev = ctx[1], .generation = ctx[2]};
	struct file_loss *loss = file_losses.lookup(&key);
	u32 second = FORGOTTEN;
	u64 *number;

	if (!loss || !loss->object || (loss->told && loss->told_last_ns >= loss->last_ns))
		return 0;
	if (!inode_has_left((void *)loss->object, &key))
		return 0;
	loss->object = 0;
	loss->forgotten_ns = bpf_ktime_get_ns();
	number = tellings.lookup(&second);
	if (number)
		lock_xadd(number, 1);
	changed(FILE_LOSSES_COUNTED);
	return 0;
}
