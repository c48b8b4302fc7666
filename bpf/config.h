/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Settings that the front end writes into the loaded instructions, so that one compiled object serves every choice.
 * Each is a 64-bit immediate with a mark in its upper half; the verifier then sees a constant and drops what it
 * switches off.
 */
#define CONFIG_MARK 0x6d6b777200000000ULL /* "mkwr" */

#define TELL_RACED 0	/* 1: fault_dirty_shared_page is hooked */
#define CPUS 1		/* possible CPUs */
#define FRONT_MASK 2	/* front cells a CPU, a power of two, less one */
#define SLOWER_NS 3	/* calls at least that slow are sent as events; 0: none */
#define WANT_TASK 4	/* bits of 1 << enum want_kind: filters on the task ... */
#define EXTRAS 5	/* 1: one of the following is not 0 */
#define WANT_CALL 6	/* ... and on the call */
#define BY 7		/* enum by */
#define NAME_SERIES 8	/* 1: send an event with the name behind each new series */
#define HANDLER_HOOKS 9 /* 1: the handlers are hooked, not do_page_mkwrite */

enum by { BY_NOTHING, BY_PROCESS, BY_FILE, BY_CGROUP };

#define config(n)                                                                                                      \
	({                                                                                                             \
		u64 _setting;                                                                                          \
		asm volatile("%0 = %1 ll" : "=r"(_setting) : "i"(CONFIG_MARK | (n)));                                  \
		_setting;                                                                                              \
	})

/*
 * The address of an array map's only value, as libbpf does for global variables: the front end makes a map reference
 * of the immediate. Saves a lookup, and the test of its result.
 */
#define GLOBAL_MARK 0x6d6b776700000000ULL /* "mkwg" */
enum global { SLOTS_MAP, FRONT_MAP, WP_COUNTS_MAP, LOST_MAP, BLANK_MAP, CHANGES_MAP };

#define global(n)                                                                                                      \
	({                                                                                                             \
		void *_address;                                                                                        \
		asm volatile("%0 = %1 ll" : "=r"(_address) : "i"(GLOBAL_MARK | (n)));                                  \
		_address;                                                                                              \
	})
