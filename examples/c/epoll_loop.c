/* The kernel inside an event loop of the program's own: epoll watches the channel beside whatever else there is, here
 * a timer that asks something at each tick:
 *
 *     epoll_loop redis://127.0.0.1:6379
 */
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "program.h"

enum { TICKS = 20, TICK_MS = 5 };

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        perror("epoll_ctl");
        exit(1);
    }
}

static int ticking_timer(void)
{
    struct itimerspec every = {{0, TICK_MS * 1000000L}, {0, TICK_MS * 1000000L}};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (timer < 0 || timerfd_settime(timer, 0, &every, NULL) != 0) {
        perror("timerfd");
        exit(1);
    }
    return timer;
}

static void tick(int timer, iok_channel *channel, uint32_t endpoint, int *asked)
{
    uint64_t ticks;
    char *words[] = {"INCR", "iokernel:ticks"};
    if (read(timer, &ticks, sizeof ticks) != sizeof ticks || *asked == TICKS)
        return;
    submit_words(channel, IOK_OP_REQUEST, endpoint, (uint64_t)++*asked, words, 2);
    check(iok_flush(channel), "iok_flush"); /* once per turn of the loop, however many were submitted in it */
}

/* The descriptor stays readable until iok_poll has answered 0. */
static void read_all(iok_channel *channel, int *answered)
{
    const iok_completion *first;
    size_t bytes;
    while (iok_poll(channel, &first, &bytes) > 0) {
        show(first);
        done_with(channel, first);
        ++*answered;
    }
    check(iok_channel_status(channel), "channel");
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s URL\n", argv[0]);
        return 2;
    }
    session session = session_open();
    uint32_t endpoint = open_endpoint(session.channel, argv[1]);
    int epoll = epoll_create1(EPOLL_CLOEXEC), timer = ticking_timer(), channel_fd = iok_channel_fd(session.channel);
    watch(epoll, timer);
    watch(epoll, channel_fd);

    for (int asked = 0, answered = 0; answered < TICKS;) {
        struct epoll_event event;
        if (epoll_wait(epoll, &event, 1, 10000) != 1) {
            fprintf(stderr, "nothing happened for ten seconds\n");
            return 1;
        }
        if (event.data.fd == timer)
            tick(timer, session.channel, endpoint, &asked);
        else
            read_all(session.channel, &answered);
    }
    close(timer);
    close(epoll);
    session_close(&session);
    return 0;
}
