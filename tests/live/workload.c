// SPDX-License-Identifier: GPL-2.0
/*
 * Faults of exactly known number. Each sub-command touches N regions STRIDE bytes apart, so that no large folio covers
 * two: one fault a region, one call of page_mkwrite a fault.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "mapped.h"

#define STRIDE (256UL << 10)

static void first_write(const char *path, long n)
{
	volatile char *m = map(open_file(path, n * STRIDE), n * STRIDE, MAP_SHARED);

	for (long i = 0; i < n; i++)
		m[i * STRIDE] = 1;
}

/* The file's pages are written back, so that a new mapping maps them read-only. */
static volatile char *map_clean(const char *path, long n, size_t stride)
{
	int fd = open_file(path, n * stride);
	volatile char *m;
	char sum = 0;

	for (long i = 0; i < n; i++)
		if (pwrite(fd, "x", 1, i * stride) != 1)
			err(1, "pwrite");
	if (fsync(fd))
		err(1, "fsync");
	m = map(fd, n * stride, MAP_SHARED);
	for (long i = 0; i < n; i++)
		sum += m[i * stride];
	return m;
}

static void write_after_read(const char *path, long n)
{
	volatile char *m = map_clean(path, n, STRIDE);

	for (long i = 0; i < n; i++)
		m[i * STRIDE] = 2;
}

/* Says that a step is reached, and waits for leave to go on. What the stack needs is mapped then. */
static void step(void)
{
	char byte = '.';

	if (write(STDOUT_FILENO, &byte, 1) != 1 || read(STDIN_FILENO, &byte, 1) != 1)
		_exit(1);
}

static void touch(volatile char *m, long n, char value)
{
	for (long i = 0; i < n; i++)
		m[i * PAGE] = value;
}

/* A child copies n pages, then the parent, alone again, reuses them. Both on one CPU: pages on their way to the LRU
 * of another CPU have one owner more. */
static void cow(long n)
{
	volatile char *m = map(-1, n * PAGE, MAP_PRIVATE | MAP_ANONYMOUS);
	int parent_ran[2];
	cpu_set_t first;
	char c = 0;

	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first))
		err(1, "sched_setaffinity");
	madvise((void *)m, n * PAGE, MADV_NOHUGEPAGE);
	touch(m, n, 1);
	if (pipe(parent_ran))
		err(1, "pipe");
	if (!fork()) {
		/* The parent copies its stack when it first goes on: not between two steps. */
		if (read(parent_ran[0], &c, 1) != 1)
			err(1, "read");
		step();
		touch(m, n, 2);
		step();
		_exit(0);
	}
	if (write(parent_ran[1], &c, 1) != 1)
		err(1, "write");
	wait(NULL);
	step();
	touch(m, n, 3);
	step();
}

static volatile char *blocked_pages, *pages_of_memory;
static long n_blocked_pages;
static pthread_barrier_t unblocked;

static void *blocked_thread(void *number)
{
	pthread_barrier_wait(&unblocked);
	blocked_pages[(long)number % n_blocked_pages * PAGE] = 2;
	pages_of_memory[(long)number * PAGE] = 2;
	return NULL;
}

/*
 * Threads store to read-only pages, thread i to page i modulo n, once they are let go: on a frozen filesystem. Then
 * each stores to shared memory, for which no filesystem is asked.
 */
static void blocked(const char *path, long n, long threads)
{
	pthread_t *thread = calloc(threads, sizeof(*thread));
	pthread_attr_t small;

	blocked_pages = map_clean(path, n, PAGE);
	n_blocked_pages = n;
	pages_of_memory = map(-1, threads * PAGE, MAP_SHARED | MAP_ANONYMOUS);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 32 << 10);
	pthread_barrier_init(&unblocked, NULL, threads + 1);
	/* Before 6.4 a fault that waits holds mmap_lock: then no more threads could be made. */
	for (long i = 0; i < threads; i++)
		if (pthread_create(&thread[i], &small, blocked_thread, (void *)i))
			errx(1, "pthread_create");
	step();
	pthread_barrier_wait(&unblocked);
	for (long i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
}

static volatile char *raced;
static long raced_pages;
static atomic_long arrived;

static void *race_thread(void *unused)
{
	for (long i = 0; i < raced_pages; i++) {
		atomic_fetch_add(&arrived, 1);
		while (atomic_load(&arrived) < 2 * (i + 1))
			;
		raced[i * PAGE] = 2;
	}
	return unused;
}

/* Two threads store to each of n read-only pages at the same moment. */
static void race(const char *path, long n)
{
	pthread_t other;

	raced = map_clean(path, n, PAGE);
	raced_pages = n;
	if (pthread_create(&other, NULL, race_thread, NULL))
		errx(1, "pthread_create");
	race_thread(NULL);
	pthread_join(other, NULL);
}

/* read(2) stores into the mapping: the kernel writes for the process. */
static void read_into(const char *path, long n)
{
	volatile char *m = map(open_file(path, n * STRIDE), n * STRIDE, MAP_SHARED);
	int zero = open("/dev/zero", O_RDONLY);

	for (long i = 0; i < n; i++)
		if (read(zero, (char *)m + i * STRIDE, 1) != 1)
			err(1, "read");
}

/* The kernel stores into the process's own mapping by way of get_user_pages(). */
static void own_memory(const char *path, long n)
{
	volatile char *m = map(open_file(path, n * STRIDE), n * STRIDE, MAP_SHARED);
	int memory = open("/proc/self/mem", O_WRONLY);

	for (long i = 0; i < n; i++)
		if (pwrite(memory, "", 1, (off_t)(m + i * STRIDE)) != 1)
			err(1, "pwrite");
}

/* One process stores into the mapping of another. */
static void remote_write(const char *path, long n)
{
	volatile char *m = map(open_file(path, n * STRIDE), n * STRIDE, MAP_SHARED);
	pid_t child = fork();

	if (!child) {
		pause();
		_exit(0);
	}
	for (long i = 0; i < n; i++) {
		char byte = 1;
		struct iovec from = {&byte, 1}, to = {(char *)m + i * STRIDE, 1};

		if (process_vm_writev(child, &from, 1, &to, 1, 0) != 1)
			err(1, "process_vm_writev");
	}
	kill(child, SIGKILL);
	wait(NULL);
}

static int storm_fd;
static double storm_seconds;
static atomic_long storm_calls;
static atomic_int storm_over;

static void end_storm(int number)
{
	storm_over = number;
}

/* A dropped page table entry makes each store a first write again. */
static void *storm_thread(void *number)
{
	volatile char *m = map(storm_fd, ((long)number + 1) * STRIDE, MAP_SHARED) + (long)number * STRIDE;
	struct timespec start, now;
	long calls = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		m[0] = calls++;
		madvise((void *)m, PAGE, MADV_DONTNEED);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (!storm_over && now.tv_sec - start.tv_sec + (now.tv_nsec - start.tv_nsec) / 1e9 < storm_seconds);
	atomic_fetch_add(&storm_calls, calls);
	return NULL;
}

static void storm(const char *path, double seconds, long threads)
{
	pthread_t thread[64];

	storm_fd = open_file(path, threads * STRIDE);
	storm_seconds = seconds;
	signal(SIGTERM, end_storm);
	for (long i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, storm_thread, (void *)i))
			errx(1, "pthread_create");
	for (long i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	printf("%ld\n", storm_calls);
}

static volatile size_t dirtied;

static void tell_dirtied(int signal)
{
	(void)signal;
	dprintf(STDOUT_FILENO, "%zu refused\n", dirtied);
	_exit(0);
}

/* Map a whole file as another user, wait for a line, then write to every page until one is refused. */
static void dirty(const char *path, uid_t user)
{
	int fd = open(path, O_RDWR);
	struct stat status;
	volatile char *m;

	if (fd < 0 || fstat(fd, &status))
		err(1, "%s", path);
	m = map(fd, status.st_size, MAP_SHARED | MAP_NORESERVE);
	if (setuid(user))
		err(1, "setuid");
	signal(SIGBUS, tell_dirtied);
	dprintf(STDOUT_FILENO, "mapped\n");
	getchar();
	for (dirtied = 0; dirtied < (size_t)status.st_size; dirtied += PAGE)
		m[dirtied] = 1;
	dprintf(STDOUT_FILENO, "%zu written\n", dirtied);
	getchar();
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (!strcmp(what, "first-write"))
		first_write(argv[2], atol(argv[3]));
	else if (!strcmp(what, "write-after-read"))
		write_after_read(argv[2], atol(argv[3]));
	else if (!strcmp(what, "cow"))
		cow(atol(argv[2]));
	else if (!strcmp(what, "race"))
		race(argv[2], atol(argv[3]));
	else if (!strcmp(what, "blocked"))
		blocked(argv[2], atol(argv[3]), atol(argv[4]));
	else if (!strcmp(what, "read-into"))
		read_into(argv[2], atol(argv[3]));
	else if (!strcmp(what, "own-memory"))
		own_memory(argv[2], atol(argv[3]));
	else if (!strcmp(what, "remote-write"))
		remote_write(argv[2], atol(argv[3]));
	else if (!strcmp(what, "storm"))
		storm(argv[2], atof(argv[3]), atol(argv[4]));
	else if (!strcmp(what, "dirty"))
		dirty(argv[2], atol(argv[3]));
	else
		errx(2, "usage: workload PART ARGUMENT ...");
	return 0;
}
