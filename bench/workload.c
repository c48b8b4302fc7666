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
 *   refused FILE N         N stores to a page that there is no room for, each caught; prints what all took, in ns
 *   calls NUMBER DEVICES SECONDS T
 *                          T threads, each on a CPU of its own, make system calls that there are not: see synthetic.c.
 *                          Prints CPU time in ns, then how many of each number, from NUMBER on
 *   run COMMAND ...        runs it; prints its CPU time in us and its peak memory in KiB, waited-for children included
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
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

static void run_threads(void *(*function)(void *), long number)
{
	pthread_t thread[64];

	for (long i = 0; i < number; i++)
		if (pthread_create(&thread[i], NULL, function, (void *)i))
			errx(1, "pthread_create");
	for (long i = 0; i < number; i++)
		pthread_join(thread[i], NULL);
}

static void storm(const char *kind, const char *path, double seconds, long threads)
{
	storm_flags = strcmp(kind, "cow") ? MAP_SHARED : MAP_PRIVATE;
	storm_reads = strcmp(kind, "first-write");
	storm_fd = open_file(path, threads);
	storm_seconds = seconds;
	run_threads(storm_thread, threads);
	printf("%ld\n", storm_faults);
}

static sigjmp_buf back;

static void caught(int number)
{
	siglongjmp(back, number);
}

static void refused(const char *path, long n)
{
	struct sigaction action = {.sa_handler = caught, .sa_flags = SA_NODEFER};
	int fd = open(path, O_RDWR | O_CREAT, 0644);
	volatile long left = n;
	double start;
	area page;

	if (fd < 0 || ftruncate(fd, PAGE) || sigaction(SIGBUS, &action, NULL))
		err(1, "%s", path);
	page = map(fd, PAGE, MAP_SHARED);
	start = now();
	while (left-- > 0)
		if (!sigsetjmp(back, 0)) {
			*page = 1;
			errx(1, "%s: there was room", path);
		}
	printf("%.0f\n", (now() - start) * 1e9);
}

/* As in synthetic.c. One call in ENDS_OTHERWISE does not end writable. */
#define HOWS 4
#define ENDS_OTHERWISE 64
#define MOST_DEVICES 64

static long calls_number, calls_devices;
static atomic_long calls_made[MOST_DEVICES * HOWS];

static void call(long *made, long which)
{
	syscall(calls_number + which);
	made[which]++;
}

static void *calls_thread(void *number)
{
	long made[MOST_DEVICES * HOWS] = {}, n = 0;
	double end = now() + storm_seconds;
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET((long)number, &cpu);
	if (pthread_setaffinity_np(pthread_self(), sizeof(cpu), &cpu))
		errx(1, "no CPU %ld", (long)number);
	while (n % 4096 || now() < end) {
		long turn = n++ / ENDS_OTHERWISE, how = n % ENDS_OTHERWISE ? 0 : 1 + turn % (HOWS - 1);

		call(made, turn % calls_devices * HOWS + how);
	}
	/* That the one before was raced is known when the next begins. */
	call(made, 0);
	for (long i = 0; i < calls_devices * HOWS; i++)
		atomic_fetch_add(&calls_made[i], made[i]);
	return NULL;
}

static void calls(long number, long devices, double seconds, long threads)
{
	struct timespec cpu_time;

	calls_number = number;
	calls_devices = devices;
	storm_seconds = seconds;
	run_threads(calls_thread, threads);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu_time);
	printf("%ld\n", cpu_time.tv_sec * 1000000000 + cpu_time.tv_nsec);
	for (long i = 0; i < devices * HOWS; i++)
		printf("%ld\n", calls_made[i]);
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
	} else if (!strcmp(what, "refused") && argc == 4) {
		refused(argv[2], n);
		return 0;
	} else if (!strcmp(what, "calls") && argc == 6) {
		calls(strtol(argv[2], NULL, 0), atol(argv[3]), atof(argv[4]), n);
		return 0;
	} else
		errx(2, "usage: workload first-write|write-protect FILE N, files DIR K N, cow|anonymous N, "
			"storm KIND FILE SECONDS THREADS, refused FILE N, calls NUMBER DEVICES SECONDS THREADS, "
			"run COMMAND ...");
	print_ticks(n);
	return 0;
}
