/* A stream and requests side by side: subscribes, publishes three messages to itself, reads them, ends the stream:
 *
 *     pubsub redis://127.0.0.1:6379
 */
#include "program.h"

enum { MESSAGES = 3, STREAM_TAG = 1, PUBLISH_TAG = 2 };

static void publish(iok_channel *channel, uint32_t endpoint)
{
    char *messages[MESSAGES] = {"one", "two", "three"};
    for (int at = 0; at < MESSAGES; at++) {
        char *words[] = {"PUBLISH", "iokernel:news", messages[at]};
        submit_words(channel, IOK_OP_REQUEST, endpoint, PUBLISH_TAG + (uint64_t)at, words, 3);
    }
}

/* False once the stream has ended. */
static bool handle(iok_channel *channel, uint32_t endpoint, const iok_completion *completion, int *pushes)
{
    switch (completion->kind) {
    case IOK_KIND_ACCEPTED: /* from here on nothing is missed; comes again after a reconnect */
        if (*pushes == 0)
            publish(channel, endpoint);
        return true;
    case IOK_KIND_LOST: /* we read too slowly */
    case IOK_KIND_PUSH:
        show(completion);
        if (++*pushes == MESSAGES)
            submit(channel, IOK_OP_CANCEL, endpoint, STREAM_TAG, NULL, 0);
        return true;
    default: /* IOK_KIND_DONE, of a PUBLISH or of the stream */
        if (completion->tag == STREAM_TAG && completion->status == IOK_STATUS_CANCELLED)
            return false;
        if (completion->status != IOK_STATUS_OK)
            show(completion);
        return true;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s URL\n", argv[0]);
        return 2;
    }
    session session = session_open();
    uint32_t endpoint = open_endpoint(session.channel, argv[1]);
    char *subscribe[] = {"SUBSCRIBE", "iokernel:news"};
    submit_words(session.channel, IOK_OP_STREAM, endpoint, STREAM_TAG, subscribe, 2);

    int pushes = 0;
    for (bool open = true; open;) {
        const iok_completion *completion = next_completion(session.channel);
        open = handle(session.channel, endpoint, completion, &pushes);
        done_with(session.channel, completion);
    }
    session_close(&session);
    return pushes == MESSAGES ? 0 : 1;
}
