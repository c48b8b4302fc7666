/* SPDX-License-Identifier: GPL-2.0 */
/* The path of a file, as the current task sees it. */

#define PATH_BYTES 4096
#define PATH_DEPTH 96
#define NAME_BYTES 256

#define FMODE_BACKING 0x1000000

/* The path by which the file was opened: a file of an overlay has that of its upper or lower file besides. */
static __always_inline struct path opened_path(struct file *file)
{
#ifdef HAS_BACKING_FILE
	if (READ(file, f_mode) & FMODE_BACKING)
		return READ((struct backing_file *)file, user_path);
#endif
	return READ(file, f_path);
}

/*
 * Walks from the file's dentry to the task's root, over mount points. Names are read without the rename lock: a
 * concurrent rename can mix old and new components, as it can in /proc/PID/maps.
 */
static __always_inline u32 write_path(char *to, struct file *file, u32 *deleted, u32 *cut)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fs_struct *fs = READ(task, fs);
	struct path root = READ(fs, root);
	struct path at = opened_path(file);
	struct dentry *dentry = at.dentry, *parent;
	struct vfsmount *vfsmount = at.mnt;
	struct mount *mount, *above;
	u32 used = 0;
	int i, n;

	*deleted = READ(dentry, d_hash.pprev) == NULL && READ(dentry, d_parent) != dentry;
	*cut = 1;
	/* A memfd, System V segment or anonymous huge page is in no directory: its dentry is its own parent. */
	if (READ(dentry, d_parent) == dentry && dentry != READ(vfsmount, mnt_root)) {
		*deleted = 1;
		*cut = 0;
		n = bpf_probe_read_kernel_str(to, NAME_BYTES, READ(dentry, d_name.name));
		return n > 0 ? n : 0;
	}
#pragma nounroll
	for (i = 0; i < PATH_DEPTH; i++) {
		/* Makes every way through the loop look alike to the verifier. */
		bounded(used, PATH_BYTES - 1);
		if (dentry == root.dentry && vfsmount == root.mnt) {
			*cut = 0;
			break;
		}
		parent = READ(dentry, d_parent);
		if (dentry == READ(vfsmount, mnt_root) || parent == dentry) {
			mount = (void *)vfsmount - offsetof(struct mount, mnt);
			above = READ(mount, mnt_parent);
			if (above == mount) {
				*cut = 0;
				break;
			}
			dentry = READ(mount, mnt_mountpoint);
			vfsmount = &above->mnt;
			continue;
		}
		n = bpf_probe_read_kernel_str(&to[used], NAME_BYTES, READ(dentry, d_name.name));
		if (n <= 0 || used + n >= PATH_BYTES)
			break;
		used += n;
		dentry = parent;
	}
	return used;
}

#ifdef FAILURES
/* As write_path(), from the root of the filesystem: which of its mounts the file was written by is not known. */
static __always_inline u32 write_alias(char *to, struct inode *inode, u32 *deleted, u32 *cut)
{
	struct dentry *dentry = (void *)READ(inode, i_dentry), *parent;
	u32 used = 0;
	int i, n;

	*deleted = 0;
	*cut = 1;
	if (!dentry)
		return 0;
	dentry = (void *)dentry - offsetof(struct dentry, DENTRY_ALIAS);
	*deleted = READ(dentry, d_hash.pprev) == NULL;
#pragma nounroll
	for (i = 0; i < PATH_DEPTH; i++) {
		bounded(used, PATH_BYTES - 1);
		parent = READ(dentry, d_parent);
		if (parent == dentry) {
			*cut = 0;
			break;
		}
		n = bpf_probe_read_kernel_str(&to[used], NAME_BYTES, READ(dentry, d_name.name));
		if (n <= 0 || used + n >= PATH_BYTES)
			break;
		used += n;
		dentry = parent;
	}
	return used;
}
#endif
