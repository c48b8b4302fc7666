// SPDX-License-Identifier: GPL-2.0
/* Stores to pages that are mapped read-only, when it is told to, and says how long each store took: what a wait is. */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* waiter FILE PAGES: for each line "FIRST NUMBER" of input, stores to these pages and prints the time taken in ns. */
int main(int argc, char **argv)
{
	long pages = argc == 3 ? atol(argv[2]) : 0, first, number;
	volatile char *m;
	long long start;
	char sum = 0;
	int fd;

	if (!pages)
		errx(2, "usage: waiter FILE PAGES");
	fd = open(argv[1], O_RDWR | O_CREAT, 0644);
	if (fd < 0)
		err(1, "%s", argv[1]);
	for (long i = 0; i < pages; i++)
		if (pwrite(fd, "x", 1, i * PAGE) != 1)
			err(1, "pwrite");
	if (fsync(fd))
		err(1, "fsync");
	m = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		err(1, "mmap");
	for (long i = 0; i < pages; i++)
		sum += m[i * PAGE];
	printf("mapped\n");
	fflush(stdout);
	while (scanf("%ld %ld", &first, &number) == 2) {
		start = now();
		for (long i = first; i < first + number; i++)
			m[i * PAGE] = 2;
		printf("%lld\n", now() - start);
		fflush(stdout);
	}
	return 0;
}
