/* SPDX-License-Identifier: GPL-2.0 */
/* What a program is given: the traced function's arguments in fentry programs, the registers in kprobe programs. */

#ifdef FENTRY
typedef u64 context_t;

#define FIRST_ARGUMENT(ctx) ((ctx)[0])
#define entry_vmf(ctx) ((struct vm_fault *)(ctx)[0])
#define return_vmf(ctx, kept) entry_vmf(ctx)

/* The return value stands behind the arguments, whose number differs between kernels (header made from BTF). */
static __always_inline u32 page_mkwrite_returned(context_t *ctx)
{
	return ctx[ARGUMENTS_do_page_mkwrite];
}

static __always_inline u32 wp_page_returned(context_t *ctx)
{
	return ctx[1];
}
#else
#include <uapi/linux/ptrace.h>

typedef struct pt_regs context_t;

#define FIRST_ARGUMENT(ctx) ((ctx)->di)
#define entry_vmf(ctx) typed((ctx)->di, vm_fault)
/* A return probe sees no arguments: the entry program kept them. */
#define return_vmf(ctx, kept) typed(kept, vm_fault)

static __always_inline u32 page_mkwrite_returned(context_t *ctx)
{
	return ctx->ax;
}

static __always_inline u32 wp_page_returned(context_t *ctx)
{
	return ctx->ax;
}
#endif
