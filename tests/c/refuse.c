/* Preloaded: makes the calls that get memory, descriptors and threads fail on demand, of the thread that demands it. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

static __thread int left = -1;
static __thread int times;

/* The calls after the first `after` fail; none does below 0. */
void refuse(int after)
{
    left = after;
    times = 0;
}

/* How often that was since. */
int refused(void)
{
    return times;
}

static int refuses(int error)
{
    if (left < 0 || (left > 0 && left--))
        return 0;
    times++;
    errno = error;
    return 1;
}

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

int eventfd(unsigned int count, int flags)
{
    int (*call)(unsigned int, int);
    *(void **)&call = real("eventfd");
    return refuses(EMFILE) ? -1 : call(count, flags);
}

int epoll_create1(int flags)
{
    int (*call)(int);
    *(void **)&call = real("epoll_create1");
    return refuses(ENOMEM) ? -1 : call(flags);
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    int (*call)(int, int, int, struct epoll_event *);
    *(void **)&call = real("epoll_ctl");
    return refuses(ENOMEM) ? -1 : call(epoll, op, fd, event);
}

int memfd_create(const char *name, unsigned int flags)
{
    int (*call)(const char *, unsigned int);
    *(void **)&call = real("memfd_create");
    return refuses(ENFILE) ? -1 : call(name, flags);
}

int ftruncate(int fd, off_t length)
{
    int (*call)(int, off_t);
    *(void **)&call = real("ftruncate");
    return refuses(ENOMEM) ? -1 : call(fd, length);
}

void *mmap(void *address, size_t length, int access, int flags, int fd, off_t offset)
{
    void *(*call)(void *, size_t, int, int, int, off_t);
    *(void **)&call = real("mmap");
    return refuses(ENOMEM) ? MAP_FAILED : call(address, length, access, flags, fd, offset);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument)
{
    int (*call)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    *(void **)&call = real("pthread_create");
    return refuses(EAGAIN) ? EAGAIN : call(thread, attributes, body, argument);
}
