/* SPDX-License-Identifier: GPL-2.0 */
/* A file of the size that is asked for, and a mapping of it: what every workload begins with. */
#include <err.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096UL

static int open_file(const char *path, size_t size)
{
	int fd = open(path, O_RDWR | O_CREAT, 0644);
	struct stat found;

	/* A quota may forbid even to set the size that a file has. */
	if (fd < 0 || fstat(fd, &found) || (found.st_size != (off_t)size && ftruncate(fd, size)))
		err(1, "%s", path);
	return fd;
}

static volatile char *map(int fd, size_t size, int flags)
{
	void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (address == MAP_FAILED)
		err(1, "mmap");
	return address;
}
