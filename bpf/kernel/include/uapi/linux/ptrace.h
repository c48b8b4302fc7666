/* The registers that a kprobe program is given (x86_64, arch/x86/include/asm/ptrace.h). */
#ifndef MKWRITE_PTRACE_H
#define MKWRITE_PTRACE_H
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;
	unsigned long r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
	unsigned long ip, cs, flags, sp, ss;
};
#endif
