/* BCC asks whether the kernel is older than 4.8. Our programs never test versions: features are detected. */
#ifndef MKWRITE_VERSION_H
#define MKWRITE_VERSION_H
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
#endif
