/* SPDX-License-Identifier: GPL-2.0 */
/*
 * GET() reads a kernel field on the hot path: a plain load where the verifier knows the pointer's type (fentry, or
 * typed() in kprobe programs from 6.2), else a probe read. READ() is always a probe read. Neither can fault the
 * kernel; both give 0 for a bad address.
 */
#define READ(p, field)                                                                                                 \
	({                                                                                                             \
		typeof((p)->field) _value;                                                                             \
		bpf_probe_read_kernel(&_value, sizeof(_value), &(p)->field);                                           \
		_value;                                                                                                \
	})

#if defined(FENTRY) || defined(KFUNC_bpf_rdonly_cast)
#define GET(p, field) ((p)->field)
#define LOAD(p) (*(p))
#else
#define LOAD(p)                                                                                                        \
	({                                                                                                             \
		typeof(*(p)) _value;                                                                                   \
		bpf_probe_read_kernel(&_value, sizeof(_value), p);                                                     \
		_value;                                                                                                \
	})
#define GET(p, field) READ(p, field)
#endif

/*
 * Masks a number that is known to fit, in a way that the compiler cannot remove as superfluous: the verifier may have
 * lost sight of the bound.
 */
#define bounded(n, mask)                                                                                               \
	({                                                                                                             \
		asm volatile("" : "+r"(n));                                                                            \
		(n) &= (mask);                                                                                         \
	})

/* The verifier wants to see a constant; the compiler would compute one offset for several branches. */
#define ARGUMENT_AT(ctx, n, value) asm volatile("%0 = *(u64 *)(%1 + 8 * " #n ")" : "=r"(value) : "r"(ctx))

#define unlikely(condition) __builtin_expect(condition, 0)

/* A branch that stays one: the compiler would make a selection of it, at twice the instructions. */
#define STEP(condition, step)                                                                                          \
	if (condition) {                                                                                               \
		step;                                                                                                  \
		asm volatile("");                                                                                      \
	}

/* include/linux/mm_types.h: the same values from 5.10 to 7.x. Bit 0x8 means WRITE up to 6.1 and nothing after. */
#define VM_FAULT_OOM 0x1
#define VM_FAULT_SIGBUS 0x2
#define VM_FAULT_WRITE 0x8
#define VM_FAULT_HWPOISON 0x30 /* and its _LARGE sister */
#define VM_FAULT_NOPAGE 0x100
#define VM_FAULT_LOCKED 0x200
#define VM_FAULT_RETRY 0x400
#define VM_FAULT_COMPLETED 0x4000
#define VM_FAULT_ERROR 0x873

#define FAULT_FLAG_MKWRITE 0x2
#define FAULT_FLAG_USER 0x40
#define FAULT_FLAG_INTERRUPTIBLE 0x200

#define VM_SHARED 0x8

#define PTE_RW 0x2
#define PTE_PFN 0x000ffffffffff000ULL

#define SIGBUS_NUMBER 7
