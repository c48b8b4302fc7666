/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Settings that the front end writes into the loaded instructions, so that one compiled object serves every choice.
 * They and all other numbers that it shares with the programs (enum setting, outcome, loss ...) come from
 * tracer/probes/abi.py, whose C definitions stand before this file in what is compiled.
 * Each is a 64-bit immediate with a mark in its upper half; the verifier then sees a constant and drops what it
 * switches off.
 */
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
#define global(n)                                                                                                      \
	({                                                                                                             \
		void *_address;                                                                                        \
		asm volatile("%0 = %1 ll" : "=r"(_address) : "i"(GLOBAL_MARK | (n)));                                  \
		_address;                                                                                              \
	})
