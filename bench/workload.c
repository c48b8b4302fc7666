// SPDX-License-Identifier: GPL-2.0
/*
 * Times N faults of one kind, each for itself, and prints what they took, sorted, in ticks of the time stamp counter.
 * Under QEMU's -icount a tick is one guest instruction.
 *
 *   first-write FILE N     a store to a page of the file that is not mapped: page_mkwrite from do_shared_fault
 *   write-protect FILE N   a store to a page that was read before: page_mkwrite from do_wp_page
 *   cow N                  a store to an anonymous page shared with a parent: do_wp_page copies
 *   anonymous N            the first store to an anonymous page: none of the functions that are traced
 *   files DIR K N          first-write faults, K files in turn
 *   storm KIND FILE SECONDS T
 *                          T threads take faults for so long; prints how many. KIND is first-write, write-protect, or
 *                          cow, here of a page of the file that is mapped privately
 *   run COMMAND ...        runs it; prints its CPU time in us and its peak memory in KiB, waited-for children included
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

/* No large folio covers two pages so far apart, and no read maps another one along. */
#define STRIDE (256UL << 10)
#define PAGE 4096UL

typedef volatile char *area;

static uint64_t *ticks;

static uint64_t timed_store(area page)
{
	unsigned int cpu;
	uint64_t start = __rdtscp(&cpu);

	*page = 1;
	return __rdtscp(&cpu) - start;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void print_ticks(long n)
{
	qsort(ticks, n, sizeof(*ticks), compare);
	for (long i = 0; i < n; i++)
		printf("%lu\n", ticks[i]);
}

static area map(int fd, size_t size, int flags)
{
	void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (address == MAP_FAILED)
		err(1, "mmap");
	madvise(address, size, MADV_NOHUGEPAGE);
	return address;
}

/* The file's pages are allocated and in the page cache, so that a fault waits for nothing. */
static int open_file(const char *path, long n)
{
	int fd = open(path, O_RDWR | O_CREAT, 0644);

	if (fd < 0)
		err(1, "%s", path);
	for (long i = 0; i < n; i++)
		if (pwrite(fd, "x", 1, i * STRIDE) != 1)
			err(1, "%s", path);
	/* A file of one page need not be clean, and a sync of each of many would take long. */
	if (n > 1 && fsync(fd))
		err(1, "%s", path);
	return fd;
}

/* Drops one page table entry, and leaves the page table: the next access faults. */
static void unmap(area page)
{
	if (madvise((void *)page, PAGE, MADV_DONTNEED))
		err(1, "madvise");
}

static void shared(const char *path, long n, int read_first)
{
	area m = map(open_file(path, n), n * STRIDE, MAP_SHARED);

	for (long i = 0; i < n; i++)
		m[i * STRIDE] = 1;
	for (long i = 0; i < n; i++) {
		unmap(m + i * STRIDE);
		if (read_first)
			(void)m[i * STRIDE];
		ticks[i] = timed_store(m + i * STRIDE);
	}
}

static void files(const char *directory, long number, long n)
{
	area *page = calloc(number, sizeof(*page));
	char path[4096];
	int fd;

	for (long i = 0; i < number; i++) {
		snprintf(path, sizeof(path), "%s/%ld", directory, i);
		fd = open_file(path, 1);
		page[i] = map(fd, PAGE, MAP_SHARED);
		close(fd);
		page[i][0] = 1;
	}
	for (long i = 0; i < n; i++) {
		unmap(page[i % number]);
		ticks[i] = timed_store(page[i % number]);
	}
}

static void cow(long n)
{
	area m = map(-1, n * PAGE, MAP_PRIVATE | MAP_ANONYMOUS);

	memset((void *)m, 1, n * PAGE);
	if (!fork()) {
		for (long i = 0; i < n; i++)
			ticks[i] = timed_store(m + i * PAGE);
		_exit(0);
	}
	wait(NULL);
}

static void anonymous(long n)
{
	area m = map(-1, n * PAGE, MAP_PRIVATE | MAP_ANONYMOUS);

	memset((void *)m, 1, n * PAGE);
	for (long i = 0; i < n; i++) {
		unmap(m + i * PAGE);
		ticks[i] = timed_store(m + i * PAGE);
	}
}

static int storm_fd, storm_flags, storm_reads;
static double storm_seconds;
static atomic_long storm_faults;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *storm_thread(void *number)
{
	area page = map(storm_fd, ((long)number + 1) * STRIDE, storm_flags) + (long)number * STRIDE;
	double end = now() + storm_seconds;
	long faults = 0;

	while (faults % 64 || now() < end) {
		if (storm_reads)
			(void)*page;
		*page = 1;
		unmap(page);
		faults++;
	}
	atomic_fetch_add(&storm_faults, faults);
	return NULL;
}

static void storm(const char *kind, const char *path, double seconds, long threads)
{
	pthread_t thread[64];

	storm_flags = strcmp(kind, "cow") ? MAP_SHARED : MAP_PRIVATE;
	storm_reads = strcmp(kind, "first-write");
	storm_fd = open_file(path, threads);
	storm_seconds = seconds;
	for (long i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, storm_thread, (void *)i))
			errx(1, "pthread_create");
	for (long i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	printf("%ld\n", storm_faults);
}

/* A process starts with the peak of the one that made it: this one is small. */
static int run(char **command)
{
	struct rusage usage;
	int status;
	pid_t child = fork();

	if (!child) {
		execvp(command[0], command);
		err(127, "%s", command[0]);
	}
	wait4(child, &status, 0, &usage);
	printf("%ld\n%ld\n",
	       (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec +
		       usage.ru_stime.tv_usec,
	       usage.ru_maxrss);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	long n = argc > 2 ? atol(argv[argc - 1]) : 0;

	if (!strcmp(what, "run"))
		return run(argv + 2);
	/* Shared with the child that makes the copies, and touched before anything is timed. */
	ticks = (void *)map(-1, (n + 1) * sizeof(*ticks), MAP_SHARED | MAP_ANONYMOUS);
	memset(ticks, 1, (n + 1) * sizeof(*ticks));
	if (!strcmp(what, "first-write") && argc == 4)
		shared(argv[2], n, 0);
	else if (!strcmp(what, "write-protect") && argc == 4)
		shared(argv[2], n, 1);
	else if (!strcmp(what, "files") && argc == 5)
		files(argv[2], atol(argv[3]), n);
	else if (!strcmp(what, "cow") && argc == 3)
		cow(n);
	else if (!strcmp(what, "anonymous") && argc == 3)
		anonymous(n);
	else if (!strcmp(what, "storm") && argc == 6) {
		storm(argv[2], argv[3], atof(argv[4]), n);
		return 0;
	} else
		errx(2, "usage: workload first-write|write-protect FILE N, files DIR K N, cow|anonymous N, "
			"storm KIND FILE SECONDS THREADS, run COMMAND ...");
	print_ticks(n);
	return 0;
}
