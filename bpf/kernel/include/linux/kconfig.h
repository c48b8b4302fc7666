/* BCC puts this file before everything else. Its helpers.h wants to know that the kernel has BPF. */
#ifndef MKWRITE_KCONFIG_H
#define MKWRITE_KCONFIG_H
#define CONFIG_BPF_SYSCALL 1
#endif
