// SPDX-License-Identifier: GPL-2.0
/* Stores to pages that are mapped read-only, when it is told to, and says how long that took: what a wait is. */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL

static long long now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* For how long this task has been ready to run, and was not let. Opened once: in a small cgroup that takes memory. */
static long long ready(void)
{
	static int fd = -1;
	char text[128];
	long long ns;
	ssize_t got;

	if (fd < 0)
		fd = open("/proc/thread-self/schedstat", O_RDONLY);
	got = pread(fd, text, sizeof(text) - 1, 0);
	if (got <= 0)
		err(1, "schedstat");
	text[got] = 0;
	if (sscanf(text, "%*d %lld", &ns) != 1)
		errx(1, "schedstat: %s", text);
	return ns;
}

/*
 * waiter FILE PAGES [locked]: for each line "FIRST NUMBER" of input, stores to these pages, and prints how long that
 * took and for how much of it this task was on the CPU or ready to run, in ns. A file that is long enough is taken as
 * it is.
 */
int main(int argc, char **argv)
{
	long pages = argc >= 3 ? atol(argv[2]) : 0, first, number;
	volatile char *m;
	long long start, took, busy, delayed;
	struct stat st;
	char sum = 0;
	int fd;

	if (!pages)
		errx(2, "usage: waiter FILE PAGES [locked]");
	fd = open(argv[1], O_RDWR | O_CREAT, 0644);
	if (fd < 0)
		err(1, "%s", argv[1]);
	if (fstat(fd, &st))
		err(1, "fstat");
	for (long i = 0; i < pages && st.st_size < (off_t)(pages * PAGE); i++)
		if (pwrite(fd, "x", 1, i * PAGE) != 1)
			err(1, "pwrite");
	if (fsync(fd))
		err(1, "fsync");
	m = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		err(1, "mmap");
	for (long i = 0; i < pages; i++)
		sum += m[i * PAGE];
	if (argc == 4 && mlockall(MCL_CURRENT))
		err(1, "mlockall");
	printf("mapped\n");
	fflush(stdout);
	while (scanf("%ld %ld", &first, &number) == 2) {
		delayed = ready();
		busy = now(CLOCK_THREAD_CPUTIME_ID);
		start = now(CLOCK_MONOTONIC);
		for (long i = first; i < first + number; i++)
			m[i * PAGE] = 2;
		took = now(CLOCK_MONOTONIC) - start;
		busy = now(CLOCK_THREAD_CPUTIME_ID) - busy;
		printf("%lld %lld %lld\n", took, busy, ready() - delayed);
		fflush(stdout);
	}
	return 0;
}
