/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Writes that were accepted and are lost at writeback. The kernel records an error of writeback in the file's address
 * space (__filemap_set_wb_err, mm/filemap.c), and tells it to who asks (file_check_and_advance_wb_err). Who wrote is
 * not known there: the current task is a kworker, a FUSE daemon, or any task that an interrupt came to. Nothing runs
 * here where nothing is lost.
 */

#define BDEVFS_MAGIC 0x62646576
#define TMPFS_MAGIC 0x01021994
#define ERRSEQ_ERRNO 0xfff /* of an errseq_t; above are the mark that it was seen, and a counter (lib/errseq.c) */
#define ENOMEM 12
#define FSERR_BUFFERED_WRITE 1 /* include/linux/fserror.h */
#define CLOSE 3		       /* the system call; struct file lives until it returns */

/* Files that were seen mapped for writing: what was stored there may be lost when nobody has them mapped any more. */
BPF_TABLE("lru_hash", struct file_key, u8, mapped_files, 16384);

/* Of a file that lost writes: when, and who was told of it first. */
struct file_loss {
	u64 first_ns;
	u64 last_ns;
	u64 events;
	u64 told; /* how often somebody was */
	u64 told_ns;
	u64 told_last_ns;
	u64 by;
	u64 ranges; /* where a hook tells which bytes: how often, how many, and where the first and the last lie */
	u64 bytes;
	u64 from;
	u64 to;
	u64 object;	  /* the inode, while the error is in it */
	u64 forgotten_ns; /* since when it is not there, if nobody was told (bpf/forgotten.c) */
	u32 error;	  /* that they were told */
	u32 syscall;
	char comm[16];
};
BPF_TABLE("lru_hash", struct file_key, struct file_loss, file_losses, 4096);

/* Returns 0 for what is no file of a filesystem: block devices, metadata. */
static __always_inline int key_of(struct file_key *key, struct inode *inode)
{
	struct super_block *sb = READ(inode, i_sb);

	if (!sb || READ(sb, s_magic) == BDEVFS_MAGIC || (READ(inode, i_mode) & S_IFMT) != S_IFREG)
		return 0;
	key->inode = READ(inode, i_ino);
	key->dev = READ(sb, s_dev);
	note_superblock(key->dev, sb);
	key->generation = generation_of(key->dev);
	return 1;
}

/* Whether a file may have been written to through a mapping; i_mmap_writable counts those that may write. */
static __always_inline int is_mapped(struct file_key *key, struct address_space *mapping)
{
	u8 yes = 1;

	if ((int)READ(mapping, i_mmap_writable) > 0) {
		mapped_files.update(key, &yes);
		return 1;
	}
	return mapped_files.lookup(key) != NULL;
}

/* How often any program was told of any of them; then how often an error was forgotten that nobody was told of. */
#define FORGOTTEN 1
BPF_TABLE("array", u32, u64, tellings, 2);

static __always_inline struct file_loss *loss_of(struct file_key *key, u64 now)
{
	struct file_loss fresh = {.first_ns = now}, *loss = file_losses.lookup_or_try_init(key, &fresh);

	if (!loss)
		lose(SERIES_FULL);
	return loss;
}

static __always_inline void note_loss(struct file_key *key, u64 now, struct inode *inode)
{
	struct file_loss *loss = loss_of(key, now);

	if (!loss)
		return;
	lock_xadd(&loss->events, 1);
	loss->last_ns = now;
	if (inode)
		loss->object = (u64)inode;
	changed(FILE_LOSSES_COUNTED);
}

static __always_inline void lose_writes(struct inode *inode, struct address_space *mapping, u32 error, u32 facts)
{
	u64 now = bpf_ktime_get_ns(), seen, began_ns;
	struct super_block *sb = READ(inode, i_sb);
	struct burst_key burst = {};
	struct file_key key = {};
	struct failure *f;

	if (!key_of(&key, inode))
		return;
	if (config(WANT_CALL) && !call_wanted(0, key.dev, sb))
		return;
	if (!is_mapped(&key, mapping))
		facts |= FACT_UNMAPPED;
	burst.inode = key.inode;
	burst.cause.source = WRITEBACK;
	burst.cause.dev = key.dev;
	burst.cause.generation = key.generation;
	burst.cause.facts = facts;
	burst.cause.error = error;
	burst.cause.who = config(BY) == BY_FILE ? key.inode : 0;
	remember_fstype(key.dev, key.generation, sb);
	note_loss(&key, now, facts & FACT_UNRECORDED ? NULL : inode);
	if (!count_burst(&burst, now, &seen, &began_ns) || (facts & FACT_UNMAPPED && !config(UNMAPPED_TOO)))
		return;
	/* An interrupt may end I/O, and come here, while a task is here on the same CPU: no record is shared. */
	f = failures.ringbuf_reserve(sizeof(*f));
	if (!f) {
		lose(EVENTS_FULL);
		return;
	}
	__builtin_memset(f, 0, offsetof(struct failure, command));
	f->time_ns = now;
	f->seen = seen;
	f->burst_ns = began_ns;
	f->cause = burst.cause;
	f->kind = KIND_INITIATOR(UNKNOWN);
	f->flags = FAULT_FLAG_WRITE;
	f->syscall = -1;
	fill_file(f, inode, sb);
	f->path_bytes = write_alias(f->path, inode, &f->deleted, &f->cut);
	failures.ringbuf_submit(f, 0);
}

#ifndef TRACEPOINT
/* Where exactly a file lost bytes. The kernel records the error right after that, or has. */
static __always_inline void note_range(struct inode *inode, u64 from, u64 bytes)
{
	struct file_key key = {};
	struct file_loss *loss;

	if (!key_of(&key, inode))
		return;
	if (config(WANT_CALL) && !call_wanted(0, key.dev, READ(inode, i_sb)))
		return;
	loss = loss_of(&key, bpf_ktime_get_ns());
	if (!loss)
		return;
	if (!loss->bytes || from < loss->from)
		loss->from = from;
	if (from + bytes > loss->to)
		loss->to = from + bytes;
	lock_xadd(&loss->ranges, 1);
	lock_xadd(&loss->bytes, bytes);
	changed(FILE_LOSSES_COUNTED);
}

/* raw tracepoints nfs_write_error, nfs_comp_error, nfs_commit_error: inode, request, error (fs/nfs/write.c). */
int request_failed(u64 *ctx)
{
	u64 index = 0, offset = 0, bytes = 0;

	bpf_probe_read_kernel(&index, 8, (void *)ctx[1] + config(REQUEST_INDEX));
	bpf_probe_read_kernel(&offset, 4, (void *)ctx[1] + config(REQUEST_OFFSET));
	bpf_probe_read_kernel(&bytes, 4, (void *)ctx[1] + config(REQUEST_BYTES));
	note_range((void *)ctx[0], (index << 12) + offset, bytes);
	return 0;
}

/* fserror_report(sb, inode, type, pos, len, error, gfp), fs/fserror.c: of iomap's filesystems, from 7.0 on. */
int range_failed(struct pt_regs *ctx)
{
	if (ctx->dx == FSERR_BUFFERED_WRITE)
		note_range((void *)ctx->si, ctx->cx, ctx->r8);
	return 0;
}
#endif

/*
 * raw tracepoint filemap_set_wb_err: mapping, errseq. The latter is what was there before, if that was another
 * (errseq_set, lib/errseq.c): 0 at a file's first error. What is there now has this error.
 */
int writeback_failed(u64 *ctx)
{
	struct address_space *mapping = (void *)ctx[0];

	lose_writes(READ(mapping, host), mapping, READ(mapping, wb_err) & ERRSEQ_ERRNO, 0);
	return 0;
}

/*
 * raw tracepoint ext4_writepages_result: inode, wbc, result, pages. Blocks that were promised could not be allocated:
 * ext4 drops the pages then, and records no error (mpage_map_and_submit_extent, fs/ext4/inode.c). Short of memory, it
 * tries again.
 */
int allocation_failed(u64 *ctx)
{
	struct inode *inode = (void *)ctx[0];
	int result = ctx[2];

	if (result < 0 && result != -ENOMEM)
		lose_writes(inode, READ(inode, i_mapping), -result, FACT_UNRECORDED);
	return 0;
}

/* The current task is told of an error. */
static __always_inline void note_told(struct file *file, u32 error)
{
	struct file_key key = {};
	struct file_loss *loss;
	u32 first = 0;
	u64 *number;

	if (!key_of(&key, READ(READ(file, f_mapping), host)))
		return;
	loss = file_losses.lookup(&key);
	if (!loss)
		return;
	loss->told_last_ns = bpf_ktime_get_ns();
	if (!loss->told_ns) {
		loss->told_ns = loss->told_last_ns;
		loss->by = bpf_get_current_pid_tgid();
		loss->error = error;
		loss->syscall = READ(entry_registers(), orig_ax);
		bpf_get_current_comm(loss->comm, sizeof(loss->comm));
	}
	lock_xadd(&loss->told, 1);
	number = tellings.lookup(&first);
	if (number)
		lock_xadd(number, 1);
	changed(FILE_LOSSES_COUNTED);
}

/* raw tracepoint file_check_and_advance_wb_err: file, errseq before. Runs in the task that is told, if one is. */
int writeback_told(u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	u32 now = READ(file, f_wb_err);

	if (now != (u32)ctx[1] && now & ERRSEQ_ERRNO)
		note_told(file, now & ERRSEQ_ERRNO);
	return 0;
}

#ifndef TRACEPOINT
/* By task: the file that it closes. */
BPF_TABLE("lru_hash", u64, u64, closings, 1024);

/*
 * file_operations.flush(file, id) of the filesystems whose close(2) tells. What exit, dup2 and close_range run it for,
 * too, drop what it returns.
 */
int closing(struct pt_regs *ctx)
{
	u64 task = bpf_get_current_task(), file = ctx->di;

	if (READ(entry_registers(), orig_ax) == CLOSE)
		closings.update(&task, &file);
	return 0;
}

/* Its return. */
int closed(struct pt_regs *ctx)
{
	u64 task = bpf_get_current_task(), *file = closings.lookup(&task);
	int result = ctx->ax;

	if (!file)
		return 0;
	if (result < 0)
		note_told((void *)*file, -result);
	closings.delete(&task);
	return 0;
}

/*
 * vma_set_page_prot(vma): at the end of mmap(2) and mprotect(2). Remembers files that are mapped for writing: what is
 * stored there may be lost after the mapping is gone. No page of a tmpfs is written back.
 */
int mapping_made(context_t *ctx)
{
	struct vm_area_struct *vma = (void *)FIRST_ARGUMENT(ctx);
	u64 writable = VM_WRITE | VM_SHARED;
	struct file_key key = {};
	struct inode *inode;
	u8 yes = 1;

	if ((READ(vma, vm_flags) & writable) != writable || !READ(vma, vm_file))
		return 0;
	inode = READ(READ(READ(vma, vm_file), f_mapping), host);
	if (READ(READ(inode, i_sb), s_magic) != TMPFS_MAGIC && key_of(&key, inode))
		mapped_files.update(&key, &yes);
	return 0;
}
#endif
