/* How an endpoint is: opens a service and prints its state, at once and after each change, for some seconds:
 *
 *     watch_state redis://127.0.0.1:6379 3
 */
#include "program.h"

#include <time.h>

enum { WATCH_TAG = 1 };

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: %s URL [SECONDS]\n", argv[0]);
        return 2;
    }
    session session = session_open();
    uint32_t endpoint = open_endpoint(session.channel, argv[1]);
    submit(session.channel, IOK_OP_WATCH, endpoint, WATCH_TAG, NULL, 0);

    long long end = now_ms() + 1000LL * (argc == 3 ? atoi(argv[2]) : 3);
    for (long long left; (left = end - now_ms()) > 0;) {
        const iok_completion *completion;
        size_t bytes;
        if (iok_poll(session.channel, &completion, &bytes) == 0) {
            iok_status status = iok_wait(session.channel, (int32_t)left);
            if (status != IOK_STATUS_TIMEOUT && status != IOK_STATUS_INTERRUPTED)
                check(status, "iok_wait");
            check(iok_channel_status(session.channel), "channel");
            continue;
        }
        /* The others are IOK_KIND_ACCEPTED, at the beginning, and IOK_KIND_DONE, if the endpoint is closed. */
        if (completion->kind == IOK_KIND_PUSH || completion->status != IOK_STATUS_OK)
            show(completion);
        done_with(session.channel, completion);
    }
    session_close(&session);
    return 0;
}
