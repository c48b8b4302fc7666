/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kernel functions that programs may call. The generated header holds the BTF ids of those that this kernel has, as
 * KFUNC_*. To the compiler they are helpers of very high number; the front end makes kernel function calls of them.
 */

/* What a kprobe program knows only as a number becomes a pointer to a struct, whose fields are then plain loads. */
#ifdef KFUNC_bpf_rdonly_cast
static void *(*bpf_rdonly_cast)(u64 p, u32 btf_id) = (void *)(KFUNC_MARK | KFUNC_bpf_rdonly_cast);

#define typed(p, type) ((struct type *)bpf_rdonly_cast(p, TYPE_##type))
#else
#define typed(p, type) ((struct type *)(p))
#endif

/*
 * The current task as the verifier knows it, bpf_get_current_task_btf() (5.11): its fields are plain loads, and from
 * 6.2 on ones without a guard.
 */
#ifdef HELPER_bpf_get_current_task_btf
static struct task_struct *(*current_task)(void) = (void *)158;

#define TASK_FIELD(task, field) ((task)->field)
#else
#define current_task() ((struct task_struct *)bpf_get_current_task())
#define TASK_FIELD(task, field) READ(task, field)
#endif
