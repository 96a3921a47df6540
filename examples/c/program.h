/* What each of these programs would otherwise repeat: errors that end the program, submitting while the ring is full,
 * waiting for the next completion. */
#ifndef IOK_EXAMPLE_PROGRAM_H
#define IOK_EXAMPLE_PROGRAM_H

#include <iokernel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "msgpack.h"

/* Ends the program unless the call succeeded. */
static inline void check(iok_status status, const char *what)
{
    if (status == IOK_STATUS_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, iok_status_name(status), iok_last_error());
    exit(1);
}

/* Bytes that a record takes in the ring. */
static inline size_t record_bytes(uint32_t size)
{
    return ((size_t)size + IOK_RECORD_ALIGN - 1) & ~((size_t)IOK_RECORD_ALIGN - 1);
}

/* The payload follows its head. */
static inline const void *payload_of(const iok_completion *completion)
{
    return completion + 1;
}

static inline uint32_t payload_bytes(const iok_completion *completion)
{
    return completion->size - IOK_COMPLETION_BYTES;
}

/* The completion to look at next; `done_with` lets go of it. Waits as long as it takes. */
static inline const iok_completion *next_completion(iok_channel *channel)
{
    const iok_completion *first;
    size_t bytes;
    while (iok_poll(channel, &first, &bytes) == 0) {
        iok_status status = iok_wait(channel, -1);
        if (status != IOK_STATUS_INTERRUPTED)
            check(status, "iok_wait");
        check(iok_channel_status(channel), "channel");
    }
    return first;
}

static inline void done_with(iok_channel *channel, const iok_completion *completion)
{
    check(iok_advance(channel, record_bytes(completion->size)), "iok_advance");
}

/* Prints what a completion brought, and ends the program if that was an error. */
static inline void show(const iok_completion *completion)
{
    const unsigned char *payload = payload_of(completion);
    mp_reader reader = {payload, payload + payload_bytes(completion)};
    FILE *out = completion->status == IOK_STATUS_OK ? stdout : stderr;
    if (completion->status != IOK_STATUS_OK)
        fprintf(out, "%s: ", iok_status_name(completion->status));
    if (completion->encoding == IOK_ENCODING_MSGPACK)
        mp_print(out, &reader, 0);
    else
        fwrite(payload, 1, payload_bytes(completion), out);
    fputc('\n', out);
    if (completion->status != IOK_STATUS_OK)
        exit(1);
}

/* Submits one record. Good for programs with little under way: a full ring ends the program. */
static inline void submit(iok_channel *channel, uint16_t op, uint32_t endpoint, uint64_t tag, const void *payload, size_t bytes)
{
    iok_submission head = {
        .size = IOK_SUBMISSION_BYTES + (uint32_t)bytes, .op = op, .endpoint = endpoint, .tag = tag};
    check(iok_submit(channel, &head, payload), "iok_submit");
}

/* A request, `["GET", "key"]`, from `count` words. */
static inline void submit_words(iok_channel *channel, uint16_t op, uint32_t endpoint, uint64_t tag, char *const *words, int count)
{
    char payload[4096];
    mp_writer writer = mp_writer_over(payload, sizeof payload);
    mp_array(&writer, (uint32_t)count);
    for (int at = 0; at < count; at++)
        mp_str(&writer, words[at]);
    if (writer.overflow) {
        fprintf(stderr, "the request is longer than %zu bytes\n", sizeof payload);
        exit(2);
    }
    submit(channel, op, endpoint, tag, payload, writer.used);
}

/* Opens a service by its URL and answers its number. Returns at once: connecting goes on behind. */
static inline uint32_t open_endpoint(iok_channel *channel, const char *url)
{
    submit(channel, IOK_OP_OPEN, 0, 0, url, strlen(url));
    const iok_completion *opened = next_completion(channel);
    if (opened->status != IOK_STATUS_OK)
        show(opened);
    uint32_t endpoint = opened->endpoint;
    done_with(channel, opened);
    return endpoint;
}

/* A kernel and a channel of it, the defaults all around. */
typedef struct {
    iok_kernel *kernel;
    iok_channel *channel;
} session;

static inline session session_open(void)
{
    session made;
    check(iok_kernel_open(NULL, &made.kernel), "iok_kernel_open");
    check(iok_channel_open(made.kernel, NULL, &made.channel), "iok_channel_open");
    return made;
}

static inline void session_close(session *made)
{
    check(iok_channel_close(made->channel), "iok_channel_close");
    check(iok_kernel_close(made->kernel, 1000), "iok_kernel_close");
}

#endif
