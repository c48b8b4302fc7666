/* The kernel's fixed-width types, as far as BCC's helpers.h and our programs name them. */
#ifndef MKWRITE_TYPES_H
#define MKWRITE_TYPES_H

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;

typedef __s8 s8;
typedef __u8 u8;
typedef __s16 s16;
typedef __u16 u16;
typedef __s32 s32;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;

typedef __u16 __le16, __be16, __sum16;
typedef __u32 __le32, __be32, __wsum;
typedef __u64 __le64, __be64, __aligned_u64;

typedef unsigned long size_t;
typedef unsigned long uintptr_t;
typedef long ssize_t;
typedef long long loff_t;
typedef int pid_t;
typedef unsigned int gfp_t;
typedef _Bool bool;

#define NULL ((void *)0)
#define __always_inline inline __attribute__((always_inline))
#define offsetof(type, member) __builtin_offsetof(type, member)
#define barrier() asm volatile("" ::: "memory")
#define true 1
#define false 0

#endif
