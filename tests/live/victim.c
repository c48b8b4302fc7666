// SPDX-License-Identifier: GPL-2.0
/* Programs that are refused a page, one for each way to be refused and to take it. They print what they saw. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "mapped.h"

static void say(volatile char *address)
{
	printf("%d %#lx\n", getpid(), (unsigned long)address);
	fflush(stdout);
}

/* A store into a file of `size` bytes at `offset`. */
static void store(const char *path, size_t size, size_t offset)
{
	volatile char *m = map(open_file(path, size), size, MAP_SHARED);

	say(m + offset);
	/* Until told to go on: the filesystem may be broken only now. */
	getchar();
	m[offset] = 1;
}

/* A store to one page after the other, until one is refused. */
static void stores(const char *path, size_t size, size_t step)
{
	volatile char *m = map(open_file(path, size), size, MAP_SHARED);

	for (size_t at = 0; at < size; at += step) {
		say(m + at);
		m[at] = 1;
	}
}

/* A store to a page that is mapped already, since it was read. */
static void rewrite(const char *path, size_t size, size_t offset)
{
	volatile char *m = map(open_file(path, size), size, MAP_SHARED);
	char byte = m[offset];

	say(m + offset);
	getchar();
	m[offset] = byte + 1;
}

static __thread sigjmp_buf back;

static void caught(int number)
{
	siglongjmp(back, number);
}

static void catch_it(void)
{
	struct sigaction action = {.sa_handler = caught, .sa_flags = SA_NODEFER};

	sigaction(SIGBUS, &action, NULL);
}

/* Goes on after each SIGBUS, as a JVM does. */
static void catching(const char *path, size_t size, size_t offset, long n)
{
	volatile char *m = map(open_file(path, size), size, MAP_SHARED);
	volatile long left = n;

	catch_it();
	say(m + offset);
	while (left-- > 0)
		if (!sigsetjmp(back, 1))
			m[offset] = 1;
}

/* The signal is blocked, or ignored: that does not save it. */
static void masked(const char *path, size_t size, size_t offset, int ignored)
{
	sigset_t bus;

	catch_it();
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	if (ignored)
		signal(SIGBUS, SIG_IGN);
	else
		sigprocmask(SIG_BLOCK, &bus, NULL);
	store(path, size, offset);
}

static volatile char *shared;

/* Refused the next page while the signal for the one before it is handled. */
static void caught_once_more(int number)
{
	sigjmp_buf before;

	memcpy(before, back, sizeof(back));
	catch_it();
	if (!sigsetjmp(back, 1))
		shared[PAGE] = 1;
	siglongjmp(before, number);
}

static void nested(const char *path, size_t size, size_t offset)
{
	struct sigaction action = {.sa_handler = caught_once_more, .sa_flags = SA_NODEFER};

	shared = map(open_file(path, size), size, MAP_SHARED) + offset;
	sigaction(SIGBUS, &action, NULL);
	say(shared);
	if (!sigsetjmp(back, 1))
		shared[0] = 1;
}

static pthread_barrier_t barrier;

static void *refused_thread(void *number)
{
	pthread_barrier_wait(&barrier);
	if (!sigsetjmp(back, 1))
		shared[(long)number * PAGE] = 1;
	return NULL;
}

/* n threads, refused at once, a page each. */
static void threads(const char *path, long n)
{
	pthread_t thread[1000];
	pthread_attr_t small;

	shared = map(open_file(path, n * PAGE), n * PAGE, MAP_SHARED);
	catch_it();
	say(shared);
	pthread_barrier_init(&barrier, NULL, n);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	for (long i = 0; i < n; i++)
		if (pthread_create(&thread[i], &small, refused_thread, (void *)i))
			errx(1, "pthread_create");
	for (long i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
}

/* A read(2) that can fill a page and not the next; with O_DIRECT the kernel takes hold of the pages itself. */
static void read_from(const char *path, size_t size, size_t offset, const char *source, int flags)
{
	volatile char *m = map(open_file(path, size), size, MAP_SHARED);
	int fd = open(source, O_RDONLY | flags);
	ssize_t n;

	if (fd < 0)
		err(1, "%s", source);
	say(m + offset);
	n = read(fd, (char *)m + offset, 2 * PAGE);
	printf("%zd %d\n", n, n < 0 ? errno : 0);
}

/* A reader whose file is truncated by another process. */
static void shrunk(const char *path, size_t size, size_t to, size_t offset)
{
	int fd = open_file(path, size);
	volatile char *m = map(fd, size, MAP_SHARED);
	pid_t child = fork();

	if (!child)
		_exit(ftruncate(fd, to) != 0);
	wait(NULL);
	printf("%d\n", child);
	say(m + offset);
	exit(m[offset]);
}

static void load(const char *path, size_t length, size_t offset)
{
	volatile char *m = mmap(NULL, length, PROT_READ, MAP_SHARED, open(path, O_RDONLY), 0);

	if (m == MAP_FAILED)
		err(1, "%s", path);
	say(m + offset);
	exit(m[offset]);
}

/* More huge pages than there are, without a reservation. */
static void hugetlb(void)
{
	volatile char *m = map(-1, 2UL << 20, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE);

	say(m);
	m[12345] = 1;
}

static void poison(const char *path)
{
	volatile char *m = map(open_file(path, PAGE), PAGE, MAP_SHARED);

	m[0] = 1;
	say(m);
	if (madvise((void *)m, PAGE, MADV_HWPOISON))
		err(1, "MADV_HWPOISON");
	m[0] = 2;
}

/* Nobody but userfaultfd would give the page, and it was asked to send a signal instead. */
static void refused_by_uffd(void)
{
	volatile char *m = map(-1, PAGE, MAP_PRIVATE | MAP_ANONYMOUS);
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};
	struct uffdio_register all = {
		.range = {.start = (unsigned long)m, .len = PAGE},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &all))
		err(1, "userfaultfd");
	say(m + 5);
	m[5] = 1;
}

/* With the flag AC, an access must be aligned. */
static void misaligned(void)
{
	static char bytes[16] __attribute__((aligned(16)));

	say(bytes + 1);
	asm volatile("pushfq; orl $0x40000, (%%rsp); popfq; movl (%0), %%eax" ::"r"(bytes + 1) : "eax", "memory", "cc");
}

static void wait_for_it(const char *how)
{
	sigset_t bus;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	if (!strcmp(how, "ignore"))
		signal(SIGBUS, SIG_IGN);
	else if (!strcmp(how, "block"))
		sigprocmask(SIG_BLOCK, &bus, NULL);
	else if (!strcmp(how, "catch"))
		catch_it();
	if (sigsetjmp(back, 1))
		return;
	say(NULL);
	sleep(60);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "", *path = argc > 2 ? argv[2] : "";
	unsigned long n[4] = {};

	for (int i = 3; i < argc && i < 7; i++)
		n[i - 3] = strtoul(argv[i], NULL, 0);
	if (!strcmp(what, "store"))
		store(path, n[0], n[1]);
	else if (!strcmp(what, "stores"))
		stores(path, n[0], n[1]);
	else if (!strcmp(what, "rewrite"))
		rewrite(path, n[0], n[1]);
	else if (!strcmp(what, "catch"))
		catching(path, n[0], n[1], n[2]);
	else if (!strcmp(what, "masked"))
		masked(path, n[0], n[1], n[2]);
	else if (!strcmp(what, "nested"))
		nested(path, n[0], n[1]);
	else if (!strcmp(what, "read-from") && argc > 6)
		read_from(path, n[0], n[1], argv[5], n[3]);
	else if (!strcmp(what, "uffd"))
		refused_by_uffd();
	else if (!strcmp(what, "misaligned"))
		misaligned();
	else if (!strcmp(what, "threads"))
		threads(path, n[0]);
	else if (!strcmp(what, "shrunk"))
		shrunk(path, n[0], n[1], n[2]);
	else if (!strcmp(what, "load"))
		load(path, n[0], n[1]);
	else if (!strcmp(what, "hugetlb"))
		hugetlb();
	else if (!strcmp(what, "poison"))
		poison(path);
	else if (!strcmp(what, "wait"))
		wait_for_it(path);
	else
		errx(2, "usage: victim "
			"store|stores|rewrite|catch|masked|nested|threads|read-from|shrunk|load|"
			"hugetlb|poison|uffd|misaligned|wait ...");
	return 0;
}
