/* Makes chosen calls of the C library fail, or tell another time, in every process that preloads it: a fault injector
 * around the real thing. What is to fail is read from a page of memory that is shared with the test, so that a fault
 * begins and ends while everything runs. See fault_injection.py, which knows the same layout. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FORK, THREAD, OPEN, READ, WRITE, FSYNC, ACCEPT, KINDS };

struct page {
    volatile int64_t clock;           /* seconds that the clock of the day is off */
    volatile int32_t failing[KINDS];  /* errno by kind of call; 0: it works */
    volatile int32_t spared[KINDS];   /* so many calls still work before it begins to fail */
    volatile int32_t count[KINDS];    /* how often it was made to fail */
    char place[512];                  /* for OPEN to FSYNC: files whose path has this in it */
};

static struct page nothing;
static struct page *page = &nothing;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULT_INJECTION");
    int descriptor = file ? syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0) : -1;
    if (descriptor < 0) return;
    void *mapped = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    syscall(SYS_close, descriptor);
    if (mapped != MAP_FAILED) page = mapped;
}

static int fails(int kind) {
    if (!page->failing[kind]) return 0;
    if (page->spared[kind] > 0 && __atomic_fetch_sub(&page->spared[kind], 1, __ATOMIC_SEQ_CST) > 0) return 0;
    __atomic_add_fetch(&page->count[kind], 1, __ATOMIC_SEQ_CST);
    errno = page->failing[kind];
    return 1;
}

static int path_fails(int kind, const char *path) {
    return page->failing[kind] && page->place[0] && path && strstr(path, page->place) && fails(kind);
}

static int descriptor_fails(int kind, int descriptor) {
    char name[40] = "/proc/self/fd/", path[4096], digits[12];
    int length = 0, place = 14;
    if (!page->failing[kind] || descriptor < 0) return 0;
    do digits[length++] = '0' + descriptor % 10; while (descriptor /= 10);
    while (length) name[place++] = digits[--length];
    name[place] = 0;
    ssize_t got = syscall(SYS_readlink, name, path, sizeof path - 1);
    if (got < 0) return 0;
    path[got] = 0;
    return path_fails(kind, path);
}

#define REAL(result, name, ...) ((result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

pid_t fork(void) { return fails(FORK) ? -1 : REAL(pid_t, fork, void)(); }
/* The real vfork cannot be called from a function that returns; fork does what it promises. */
pid_t vfork(void) { return fails(FORK) ? -1 : REAL(pid_t, fork, void)(); }

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    if (fails(THREAD)) return page->failing[THREAD];
    return REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)(
        thread, attributes, start, argument);
}

#define OPENING(name)                                                                    \
    int name(const char *path, int flags, ...) {                                         \
        va_list more;                                                                    \
        va_start(more, flags);                                                           \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;          \
        va_end(more);                                                                    \
        if (path_fails(OPEN, path)) return -1;                                           \
        return syscall(SYS_openat, AT_FDCWD, path, flags, mode);                         \
    }
OPENING(open)
OPENING(open64)

#define READING(name, number, parameters, ...)                                           \
    ssize_t name parameters {                                                            \
        return descriptor_fails(READ, fd) ? -1 : syscall(number, __VA_ARGS__);           \
    }
READING(read, SYS_read, (int fd, void *data, size_t size), fd, data, size)
READING(pread, SYS_pread64, (int fd, void *data, size_t size, off_t place), fd, data, size, place)
READING(pread64, SYS_pread64, (int fd, void *data, size_t size, off_t place), fd, data, size, place)

#define WRITING(name, number, parameters, ...)                                           \
    ssize_t name parameters {                                                            \
        return descriptor_fails(WRITE, fd) ? -1 : syscall(number, __VA_ARGS__);          \
    }
WRITING(write, SYS_write, (int fd, const void *data, size_t size), fd, data, size)
WRITING(pwrite, SYS_pwrite64, (int fd, const void *data, size_t size, off_t place), fd, data, size, place)
WRITING(pwrite64, SYS_pwrite64, (int fd, const void *data, size_t size, off_t place), fd, data, size, place)

int fsync(int fd) { return descriptor_fails(FSYNC, fd) ? -1 : syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return descriptor_fails(FSYNC, fd) ? -1 : syscall(SYS_fdatasync, fd); }

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    return fails(ACCEPT) ? -1 : syscall(SYS_accept4, fd, address, length, flags);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME && !result) now->tv_sec += page->clock;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    if (!result) now->tv_sec += page->clock;
    return result;
}

time_t time(time_t *stored) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (stored) *stored = now.tv_sec;
    return now.tv_sec;
}
