// SPDX-License-Identifier: GPL-2.0
/* bpf/sleep.h around what a process does between two calls of prctl(2), which the kernel refuses. */
#include <uapi/linux/ptrace.h>

#define PRCTL 157 /* x86_64 */
#define BEGIN 0x6d6b7701
#define END 0x6d6b7702
#define SECTIONS 4096

struct section {
	struct sleep_mark mark;
	u64 began_ns;
	u64 passed_ns;
	u64 slept_ns;
};
BPF_TABLE("array", u32, struct section, sections, SECTIONS);

/* raw tracepoint sys_enter: registers, number of the system call */
int marked(u64 *ctx)
{
	struct pt_regs *registers = (void *)ctx[0];
	u32 what, number;
	struct section *section;

	if (ctx[1] != PRCTL)
		return 0;
	what = READ(registers, di);
	number = READ(registers, si);
	if (what != BEGIN && what != END)
		return 0;
	section = sections.lookup(&number);
	if (!section)
		return 0;
	if (what == BEGIN) {
		section->began_ns = bpf_ktime_get_ns();
		mark_sleep(&section->mark);
	} else {
		section->passed_ns = bpf_ktime_get_ns() - section->began_ns;
		section->slept_ns = slept_since(&section->mark, section->passed_ns);
	}
	return 0;
}
