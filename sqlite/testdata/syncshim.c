/* A library for LD_PRELOAD that watches the fsyncs of write-ahead logs.
 *
 * SYNC_COUNT  file of 8 bytes: a counter of the fsyncs of files named *-wal
 *             that have succeeded
 * SYNC_FAIL   path: while such a file exists, they fail with EIO
 * SYNC_DELAY  microseconds that each of them takes in addition
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t *counter;

__attribute__((constructor)) static void setup(void) {
	const char *path = getenv("SYNC_COUNT");
	if (path == NULL) return;
	int fd = open(path, O_RDWR);
	if (fd < 0) return;
	void *p = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED) counter = p;
}

static int is_wal(int fd) {
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	return n > 4 && memcmp(path + n - 4, "-wal", 4) == 0;
}

static int watched(int fd, int (*real)(int)) {
	if (!is_wal(fd)) return real(fd);
	const char *fail = getenv("SYNC_FAIL");
	if (fail != NULL && access(fail, F_OK) == 0) {
		errno = EIO;
		return -1;
	}
	const char *delay = getenv("SYNC_DELAY");
	if (delay != NULL) usleep(atoi(delay));
	int rc = real(fd);
	if (rc == 0 && counter != NULL) __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
	return rc;
}

int fsync(int fd) {
	static int (*real)(int);
	if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
	return watched(fd, real);
}

int fdatasync(int fd) {
	static int (*real)(int);
	if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	return watched(fd, real);
}
