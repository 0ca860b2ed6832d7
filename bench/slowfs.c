/*
 * slowfs makes a fast disk slow: preloaded into a process (LD_PRELOAD), it adds
 * SLOWFS_US microseconds to every fsync and fdatasync. Network volumes take a
 * millisecond and more.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static void delay(void)
{
	const char *value = getenv("SLOWFS_US");
	long us = value ? strtol(value, NULL, 10) : 0;
	struct timespec left = { us / 1000000, us % 1000000 * 1000 };

	while (us > 0 && nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

static int slow(const char *name, int fd)
{
	int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

	if (next == NULL) {
		errno = ENOSYS;
		return -1;
	}
	delay();
	return next(fd);
}

int fsync(int fd)
{
	return slow("fsync", fd);
}

int fdatasync(int fd)
{
	return slow("fdatasync", fd);
}
