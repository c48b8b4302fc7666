// SPDX-License-Identifier: GPL-2.0
/*
 * System calls that are refused a page: accesses PATH OFFSET N GOOD WAY BEFORE [WAY BEFORE ...]. The page of the file
 * PATH that begins at OFFSET is refused, BEFORE bytes in front of it are not. For each pair, a process of its own makes
 * N equal calls that access both in that WAY, and prints the pair, its pid, how many of the calls returned EFAULT, and
 * how many less than they were to. GOOD is a file of no trouble.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
/* More bytes than are copied with one instruction, fewer than a page has; whole sectors. */
#define LENGTH 1024UL
#define HUGE_PAGE (2UL << 20)

/* <linux/mman.h> of old has neither. */
#define POPULATE_READ 22
#define POPULATE_WRITE 23

static char *at;      /* the memory to access, */
static size_t length; /* and how much of it */
static char *page;    /* the page that is refused */
static char buffer[2 * HUGE_PAGE] __attribute__((aligned(4096)));
static int source, direct, sink, sockets[2], pipes[2];
static struct io_uring_sqe *sqe;
static struct io_uring_cqe *cqes;
static unsigned *sq_tail, *cq_head, *cq_mask;
static int ring;

static struct iovec *vector(void *start)
{
	static struct iovec one;

	one = (struct iovec){start, length};
	return &one;
}

static struct msghdr *message(void)
{
	static struct msghdr one;

	one = (struct msghdr){.msg_iov = vector(at), .msg_iovlen = 1};
	return &one;
}

static ssize_t between(long call, void *local, void *remote)
{
	struct iovec mine = *vector(local);

	return syscall(call, getpid(), &mine, 1, vector(remote), 1, 0);
}

static ssize_t populate(int advice)
{
	char *start = (char *)((unsigned long)at & -PAGE);

	return madvise(start, page + PAGE - start, advice) ? -1 : (ssize_t)length;
}

static void make_ring(void)
{
	struct io_uring_params p = {};
	char *sq, *cq;

	ring = syscall(SYS_io_uring_setup, 1, &p);
	if (ring < 0)
		err(1, "io_uring_setup");
	sq = mmap(NULL, p.sq_off.array + 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*cqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		  IORING_OFF_CQ_RING);
	sqe = mmap(NULL, sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	*(unsigned *)(sq + p.sq_off.array) = 0;
	sq_tail = (void *)(sq + p.sq_off.tail);
	cq_head = (void *)(cq + p.cq_off.head);
	cq_mask = (void *)(cq + p.cq_off.ring_mask);
	cqes = (void *)(cq + p.cq_off.cqes);
}

static ssize_t queue(int opcode, int fd, int flags)
{
	ssize_t result;

	*sqe = (struct io_uring_sqe){
		.opcode = opcode,
		.fd = fd,
		.addr = (unsigned long)at,
		.len = length,
		.msg_flags = flags,
	};
	++*sq_tail;
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		err(1, "io_uring_enter");
	result = cqes[(*cq_head)++ & *cq_mask].res;
	if (result < 0)
		errno = -result;
	return result < 0 ? -1 : result;
}

/*
 * sendfile and splice have nothing but an offset in memory: all, or nothing. Where populate_apart is, a mapping begins
 * with the page that is refused.
 */
#define WAYS(WAY)                                                                                                      \
	WAY(read, read(source, at, length))                                                                            \
	WAY(pread, pread(source, at, length, 0))                                                                       \
	WAY(readv, readv(source, vector(at), 1))                                                                       \
	WAY(preadv, preadv(source, vector(at), 1, 0))                                                                  \
	WAY(direct, pread(direct, at, length, 0))                                                                      \
	WAY(recv, recv(sockets[0], at, length, MSG_DONTWAIT))                                                          \
	WAY(recvmsg, recvmsg(sockets[0], message(), MSG_DONTWAIT))                                                     \
	WAY(write, write(sink, at, length))                                                                            \
	WAY(pwrite, pwrite(sink, at, length, 0))                                                                       \
	WAY(writev, writev(sink, vector(at), 1))                                                                       \
	WAY(pwritev, pwritev(sink, vector(at), 1, 0))                                                                  \
	WAY(write_socket, write(sockets[0], at, length))                                                               \
	WAY(writev_socket, writev(sockets[0], vector(at), 1))                                                          \
	WAY(send, send(sockets[0], at, length, MSG_DONTWAIT))                                                          \
	WAY(sendmsg, sendmsg(sockets[0], message(), MSG_DONTWAIT))                                                     \
	WAY(sendfile, sendfile(sockets[0], source, (off_t *)page, length))                                             \
	WAY(splice, splice(source, (off_t *)page, pipes[1], NULL, length, 0))                                          \
	WAY(vmsplice, vmsplice(pipes[1], vector(at), 1, SPLICE_F_NONBLOCK))                                            \
	WAY(vm_readv_to, between(SYS_process_vm_readv, at, buffer))                                                    \
	WAY(vm_readv_from, between(SYS_process_vm_readv, buffer, at))                                                  \
	WAY(vm_writev_to, between(SYS_process_vm_writev, buffer, at))                                                  \
	WAY(vm_writev_from, between(SYS_process_vm_writev, at, buffer))                                                \
	WAY(populate_read, populate(POPULATE_READ))                                                                    \
	WAY(populate_write, populate(POPULATE_WRITE))                                                                  \
	WAY(populate_apart, populate(POPULATE_WRITE))                                                                  \
	WAY(uring_read, queue(IORING_OP_READ, source, 0))                                                              \
	WAY(uring_write, queue(IORING_OP_WRITE, sink, 0))                                                              \
	WAY(uring_recv, queue(IORING_OP_RECV, sockets[0], MSG_DONTWAIT))                                               \
	WAY(uring_send, queue(IORING_OP_SEND, sockets[0], MSG_DONTWAIT))

#define FUNCTION(name, call)                                                                                           \
	static ssize_t by_##name(void)                                                                                 \
	{                                                                                                              \
		return call;                                                                                           \
	}
WAYS(FUNCTION)

#define ENTRY(name, call) {#name, by_##name},
static const struct way {
	const char *name;
	ssize_t (*access)(void);
} ways[] = {WAYS(ENTRY)};

static void open_all(const char *good)
{
	source = open(good, O_RDONLY);
	direct = open(good, O_RDONLY | O_DIRECT);
	sink = open(good, O_WRONLY);
	if (source < 0 || direct < 0 || sink < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) || pipe(pipes))
		err(1, "%s", good);
	fcntl(pipes[0], F_SETFL, O_NONBLOCK);
	make_ring();
}

/* All that a call is to find, or is to find room for. */
static void prepare(void)
{
	lseek(source, 0, SEEK_SET);
	lseek(sink, 0, SEEK_SET);
	while (recv(sockets[0], buffer, sizeof(buffer), MSG_DONTWAIT) > 0 ||
	       recv(sockets[1], buffer, sizeof(buffer), MSG_DONTWAIT) > 0 || read(pipes[0], buffer, sizeof(buffer)) > 0)
		;
	if (send(sockets[1], buffer, length, 0) != (ssize_t)length)
		err(1, "send");
}

/* Make the calls in a process of their own, which is done when this returns. */
static void apart(const struct way *way, int fd, const char *good, size_t offset, size_t before, int n)
{
	int efault = 0, less = 0, status;
	pid_t child = fork();

	if (child < 0)
		err(1, "fork");
	if (child) {
		if (waitpid(child, &status, 0) < 0 || status)
			errx(1, "%s: wait status %#x", way->name, status);
		return;
	}
	open_all(good);
	page = mmap(NULL, 2 * offset, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (page == MAP_FAILED || madvise(page, 2 * offset, MADV_RANDOM))
		err(1, "mmap");
	page += offset;
	if (way->access == by_populate_apart && madvise(page, offset, MADV_NORMAL))
		err(1, "madvise");
	at = page - before;
	length = before + LENGTH;
	for (int i = 0; i < n; i++) {
		ssize_t result;

		prepare();
		result = way->access();
		if (result < 0 && errno != EFAULT)
			err(1, "%s", way->name);
		efault += result < 0;
		less += result >= 0 && result < (ssize_t)length;
	}
	printf("%s %zu %d %d %d\n", way->name, before, getpid(), efault, less);
	exit(0);
}

static const struct way *named(const char *name)
{
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		if (!strcmp(ways[i].name, name))
			return &ways[i];
	errx(2, "%s?", name);
}

int main(int argc, char **argv)
{
	int fd;

	if (argc < 7 || argc % 2 == 0)
		errx(2, "usage: accesses PATH OFFSET N GOOD WAY BEFORE [WAY BEFORE ...]");
	fd = open(argv[1], O_RDWR);
	if (fd < 0)
		err(1, "%s", argv[1]);
	for (char **one = argv + 5; *one; one += 2)
		apart(named(one[0]), fd, argv[4], strtoul(argv[2], NULL, 0), strtoul(one[1], NULL, 0), atoi(argv[3]));
	return 0;
}
