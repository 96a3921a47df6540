/* 10,000 increments and 10,000 reads under way at a time on one connection, written into the ring in place:
 *
 *     pipeline redis://127.0.0.1:6379
 */
#include <time.h>

#include "program.h"

enum { COUNT = 10000 };

static const unsigned char INCR[] = "\x92\xa4INCR\xb0iokernel:counter"; /* ["INCR", "iokernel:counter"] */
static const unsigned char GET[] = "\x92\xa3GET\xb0iokernel:counter";

/* Reads all that waits; how many replies that was. */
static int read_replies(iok_channel *channel)
{
    const iok_completion *first;
    size_t bytes;
    int count = (int)iok_poll(channel, &first, &bytes);
    for (size_t at = 0; at < bytes;) {
        const iok_completion *reply = (const void *)((const char *)first + at);
        if (reply->status != IOK_STATUS_OK)
            show(reply);
        at += record_bytes(reply->size);
    }
    check(iok_advance(channel, bytes), "iok_advance");
    return count;
}

/* Reads what waits, or sleeps until there is something to read, or room to write. */
static int wait_for_replies(iok_channel *channel)
{
    int count = read_replies(channel);
    if (count == 0) {
        check(iok_wait(channel, 10000), "iok_wait");
        check(iok_channel_status(channel), "channel");
    }
    return count;
}

static void run(iok_channel *channel, uint32_t endpoint, const char *name, const unsigned char *request, uint32_t bytes)
{
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int replies = 0;
    for (int sent = 0; sent < COUNT;) {
        iok_submission *head;
        iok_status status = iok_reserve(channel, bytes, &head);
        if (status == IOK_STATUS_FULL) {
            replies += wait_for_replies(channel);
            continue;
        }
        check(status, "iok_reserve");
        head->op = IOK_OP_REQUEST;
        head->endpoint = endpoint;
        head->tag = (uint64_t)sent;
        memcpy(head + 1, request, bytes);
        check(iok_commit(channel), "iok_commit");
        sent++;
    }
    while (replies < COUNT)
        replies += wait_for_replies(channel);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
    printf("%s: %d replies in %.1f ms, %.0f/s\n", name, replies, seconds * 1000, replies / seconds);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s URL\n", argv[0]);
        return 2;
    }
    session session = session_open();
    uint32_t endpoint = open_endpoint(session.channel, argv[1]);

    char *del[] = {"DEL", "iokernel:counter"}, *get[] = {"GET", "iokernel:counter"};
    submit_words(session.channel, IOK_OP_REQUEST, endpoint, 1, del, 2);
    done_with(session.channel, next_completion(session.channel));

    run(session.channel, endpoint, "INCR", INCR, sizeof INCR - 1);
    run(session.channel, endpoint, "GET", GET, sizeof GET - 1);

    submit_words(session.channel, IOK_OP_REQUEST, endpoint, 1, get, 2);
    const iok_completion *total = next_completion(session.channel);
    show(total);
    bool right = payload_bytes(total) == 5 && memcmp(payload_of(total), "10000", 5) == 0;
    done_with(session.channel, total);

    session_close(&session);
    return right ? 0 : 1;
}
