/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Settings that the front end writes into the loaded instructions, so that one compiled object serves every choice.
 * Each is a 64-bit immediate with a mark in its upper half; the verifier then sees a constant and drops what it
 * switches off.
 */
#define CONFIG_MARK 0x6d6b777200000000ULL /* "mkwr" */

#define TELL_RACED 0	/* 1: fault_dirty_shared_page is hooked */
#define RETURN_ARG 1	/* how many parameters do_page_mkwrite has: fexit finds the return value behind them */
#define HANDLER_HOOKS 2 /* 1: the handlers are hooked, not do_page_mkwrite */
#define SLOWER_NS 3	/* calls at least that slow are sent as events */
#define BY 4		/* enum by */
#define NAME_SERIES 5	/* 1: send an event with the name behind each new series */
#define WANT_TASK 6	/* bits of 1 << enum want_kind: filters on the task ... */
#define WANT_CALL 7	/* ... and on the call */
#define CPUS 8		/* possible CPUs */
#define FRONT_BITS 9	/* 2^n front cells a CPU */
#define SLOT_BITS 10	/* 2^n slots */

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
enum global { SLOTS_MAP, FRONT_MAP, WP_COUNTS_MAP, LOST_MAP, BLANK_MAP };

#define global(n)                                                                                                      \
	({                                                                                                             \
		void *_address;                                                                                        \
		asm volatile("%0 = %1 ll" : "=r"(_address) : "i"(GLOBAL_MARK | (n)));                                  \
		_address;                                                                                              \
	})
