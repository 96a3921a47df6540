/* The C ABI without any network: rings, waits, handles, forks, proven by the echo op.
 *
 *     echo_test [--few] [NAME...]    all tests, or some; --few: with small counts, for a slow machine such as valgrind's
 */
#include <iokernel.h>

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* In a forked child too, a failed check ends the process with 1. */
#define CHECK(condition)                                                                                    \
    do {                                                                                                    \
        if (!(condition)) {                                                                                 \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition, iok_last_error()); \
            _exit(1);                                                                                       \
        }                                                                                                   \
    } while (0)
#define CHECK_STATUS(call, expected) check_status(__LINE__, #call, (call), (expected))

static void check_status(int line, const char *call, iok_status got, iok_status expected)
{
    if (got == expected)
        return;
    fprintf(stderr, "%s:%d: %s: %s, expected %s (last error: %s)\n", __FILE__, line, call, iok_status_name(got),
            iok_status_name(expected), iok_last_error());
    _exit(1);
}

static bool few;

enum { RING_BYTES = 1 << 20 };

/* ---- a kernel with one channel, and records of it ---- */

typedef struct {
    iok_kernel *kernel;
    iok_channel *channel;
} pair;

static pair open_pair(const char *config)
{
    pair made;
    CHECK_STATUS(iok_kernel_open(NULL, &made.kernel), IOK_STATUS_OK);
    CHECK_STATUS(iok_channel_open(made.kernel, config, &made.channel), IOK_STATUS_OK);
    return made;
}

static void close_pair(pair made)
{
    CHECK_STATUS(iok_channel_close(made.channel), IOK_STATUS_OK);
    CHECK_STATUS(iok_kernel_close(made.kernel, 1000), IOK_STATUS_OK);
}

static size_t padded(size_t size)
{
    return (size + IOK_RECORD_ALIGN - 1) & ~(size_t)(IOK_RECORD_ALIGN - 1);
}

static iok_submission echo_head(uint64_t tag, size_t payload_bytes)
{
    iok_submission head = {.size = (uint32_t)(sizeof head + payload_bytes), .op = IOK_OP_ECHO, .tag = tag};
    return head;
}

static iok_status echo(iok_channel *channel, uint64_t tag, const void *payload, size_t bytes)
{
    iok_submission head = echo_head(tag, bytes);
    return iok_submit(channel, &head, payload);
}

/* The next completion; waits for it for up to 20 seconds. */
static const iok_completion *next(iok_channel *channel)
{
    const iok_completion *first;
    size_t bytes;
    while (iok_poll(channel, &first, &bytes) == 0) {
        CHECK_STATUS(iok_wait(channel, 20000), IOK_STATUS_OK);
        CHECK_STATUS(iok_channel_status(channel), IOK_STATUS_OK);
    }
    CHECK(bytes >= first->size && bytes % IOK_RECORD_ALIGN == 0);
    return first;
}

static void done(iok_channel *channel, const iok_completion *completion)
{
    CHECK_STATUS(iok_advance(channel, padded(completion->size)), IOK_STATUS_OK);
}

/* The next completion is the echo of this. */
static void expect_echo(iok_channel *channel, uint64_t tag, const void *payload, size_t bytes)
{
    const iok_completion *got = next(channel);
    CHECK(got->kind == IOK_KIND_DONE && got->tag == tag && got->endpoint == 0);
    CHECK_STATUS(got->status, IOK_STATUS_OK);
    CHECK(got->flags == 0 && got->bytes_total == bytes && got->size == IOK_COMPLETION_BYTES + bytes);
    CHECK(memcmp(got + 1, payload, bytes) == 0);
    done(channel, got);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- tests ---- */

#define TEST(name) static void test_##name(void)

TEST(versions_and_statuses)
{
    CHECK(iok_abi_version() == IOK_ABI_VERSION);
    CHECK(iok_features() & IOK_FEATURE_FRAGMENTS);
    CHECK(strcmp(iok_status_name(IOK_STATUS_TIMEOUT), "IOK_STATUS_TIMEOUT") == 0);
    CHECK(strlen(iok_status_text(IOK_STATUS_TIMEOUT)) > 3);
    CHECK(iok_status_name(-999) && iok_status_text(12345));
    CHECK(iok_status_retriable(IOK_STATUS_FULL) && !iok_status_retriable(IOK_STATUS_NULL));
    CHECK(iok_status_fatal(IOK_STATUS_CORRUPT) && !iok_status_fatal(IOK_STATUS_FULL) && !iok_status_fatal(-999));
    CHECK(iok_last_error() != NULL);
}

TEST(round_trip)
{
    pair pair = open_pair(NULL);
    CHECK_STATUS(echo(pair.channel, 7, "hello", 5), IOK_STATUS_OK);
    const iok_completion *got = next(pair.channel);
    CHECK(got->encoding == IOK_ENCODING_BYTES && got->done_ns != 0 && got->peer == 0);
    expect_echo(pair.channel, 7, "hello", 5);
    CHECK_STATUS(echo(pair.channel, UINT64_MAX, NULL, 0), IOK_STATUS_OK);
    expect_echo(pair.channel, UINT64_MAX, "", 0);
    close_pair(pair);
}

TEST(written_in_place)
{
    pair pair = open_pair(NULL);
    iok_submission *head;
    CHECK_STATUS(iok_reserve(pair.channel, 100, &head), IOK_STATUS_OK);
    CHECK(head->size == IOK_SUBMISSION_BYTES + 100);
    head->op = IOK_OP_ECHO;
    head->tag = 1;
    head->size = IOK_SUBMISSION_BYTES + 3; /* less was written than reserved */
    memcpy(head + 1, "abc", 3);
    CHECK_STATUS(iok_commit(pair.channel), IOK_STATUS_OK);
    CHECK_STATUS(iok_commit(pair.channel), IOK_STATUS_BAD_RECORD);
    CHECK_STATUS(echo(pair.channel, 2, "next", 4), IOK_STATUS_OK);
    expect_echo(pair.channel, 1, "abc", 3);
    expect_echo(pair.channel, 2, "next", 4);

    CHECK_STATUS(iok_reserve(pair.channel, 8, &head), IOK_STATUS_OK);
    head->size = IOK_SUBMISSION_BYTES + 9; /* more than was reserved */
    CHECK_STATUS(iok_commit(pair.channel), IOK_STATUS_BAD_RECORD);
    CHECK_STATUS(echo(pair.channel, 3, "on", 2), IOK_STATUS_OK);
    expect_echo(pair.channel, 3, "on", 2);
    close_pair(pair);
}

/* Every size from 0 to a few hundred: padding is never seen, order is kept. */
TEST(sizes_in_order)
{
    enum { COUNT = 700 };
    unsigned char bytes[COUNT];
    pair pair = open_pair(NULL);
    for (int at = 0; at < COUNT; at++)
        bytes[at] = (unsigned char)(at * 7);
    for (int size = 0; size < COUNT; size++)
        CHECK_STATUS(echo(pair.channel, (uint64_t)size, bytes, (size_t)size), IOK_STATUS_OK);
    for (int size = 0; size < COUNT; size++)
        expect_echo(pair.channel, (uint64_t)size, bytes, (size_t)size);
    close_pair(pair);
}

/* Fills `records` with echoes of 8 bytes that hold their tag. */
static size_t batch_of_echoes(unsigned char *records, uint64_t first_tag, int count)
{
    size_t at = 0;
    for (int number = 0; number < count; number++) {
        uint64_t tag = first_tag + (uint64_t)number;
        iok_submission head = echo_head(tag, sizeof tag);
        memcpy(records + at, &head, sizeof head);
        memcpy(records + at + sizeof head, &tag, sizeof tag);
        at += padded(head.size);
    }
    return at;
}

TEST(batch)
{
    enum { COUNT = 1000, RECORD = IOK_SUBMISSION_BYTES + 8 };
    unsigned char *records = malloc(COUNT * RECORD);
    pair pair = open_pair(NULL);
    size_t bytes = batch_of_echoes(records, 0, COUNT), taken = 0;
    CHECK_STATUS(iok_submit_batch(pair.channel, records, bytes, &taken), IOK_STATUS_OK);
    CHECK(taken == bytes);
    for (uint64_t tag = 0; tag < COUNT; tag++)
        expect_echo(pair.channel, tag, &tag, sizeof tag);

    CHECK_STATUS(iok_submit_batch(pair.channel, NULL, 0, &taken), IOK_STATUS_OK);
    CHECK(taken == 0);
    CHECK_STATUS(iok_submit_batch(pair.channel, records, RECORD + 20, &taken), IOK_STATUS_BAD_RECORD);
    CHECK(taken == RECORD); /* the whole record went in, its torn follower did not */
    uint64_t zero = 0;
    expect_echo(pair.channel, 0, &zero, sizeof zero);
    free(records);
    close_pair(pair);
}

/* A batch larger than the ring: taken in parts, at record boundaries, nothing lost and nothing twice. */
TEST(batch_larger_than_the_ring)
{
    enum { COUNT = 60000, RECORD = IOK_SUBMISSION_BYTES + 8 };
    unsigned char *records = malloc((size_t)COUNT * RECORD);
    pair pair = open_pair(NULL);
    size_t bytes = batch_of_echoes(records, 0, COUNT), at = 0, run;
    uint64_t seen = 0;
    int full = 0;
    while (seen < COUNT) {
        size_t taken = 0;
        if (at < bytes) {
            iok_status status = iok_submit_batch(pair.channel, records + at, bytes - at, &taken);
            CHECK(taken % RECORD == 0 && taken <= bytes - at);
            CHECK_STATUS(status, at + taken == bytes ? IOK_STATUS_OK : IOK_STATUS_FULL);
            full += status == IOK_STATUS_FULL;
            at += taken;
        }
        const iok_completion *first;
        size_t count = iok_poll(pair.channel, &first, &run);
        for (const char *place = (const char *)first; count--; place += padded(((const iok_completion *)(const void *)place)->size))
            CHECK(((const iok_completion *)(const void *)place)->tag == seen++);
        CHECK_STATUS(iok_advance(pair.channel, run), IOK_STATUS_OK);
        if (run == 0)
            CHECK_STATUS(iok_wait(pair.channel, 20000), IOK_STATUS_OK);
    }
    CHECK(full > 0);
    free(records);
    close_pair(pair);
}

/* A program that submits without ever polling is told FULL, and loses nothing of what was taken. */
TEST(full_loses_nothing)
{
    pair pair = open_pair("credits=1000");
    char payload[500];
    memset(payload, 'x', sizeof payload);
    uint64_t taken = 0;
    for (double end = seconds_now() + 20; seconds_now() < end; taken++) {
        iok_status status = echo(pair.channel, taken, payload, sizeof payload);
        if (status == IOK_STATUS_OK)
            continue;
        CHECK_STATUS(status, IOK_STATUS_FULL);
        usleep(20000); /* the kernel would have made room by now if it meant to */
        if (echo(pair.channel, taken, payload, sizeof payload) == IOK_STATUS_FULL)
            break;
    }
    CHECK(taken > 1000);
    for (uint64_t tag = 0; tag < taken; tag++)
        expect_echo(pair.channel, tag, payload, sizeof payload);
    iok_wait(pair.channel, 0); /* tells of room, once */
    CHECK_STATUS(iok_wait(pair.channel, 0), IOK_STATUS_TIMEOUT);
    CHECK_STATUS(echo(pair.channel, 1, "again", 5), IOK_STATUS_OK);
    expect_echo(pair.channel, 1, "again", 5);
    close_pair(pair);
}

TEST(many_in_flight)
{
    const uint64_t count = few ? 2000 : 1000000;
    pair pair = open_pair(NULL);
    double start = seconds_now();
    uint64_t sent = 0, seen = 0;
    while (seen < count) {
        while (sent < count && sent - seen < 1024 && echo(pair.channel, sent, &sent, sizeof sent) == IOK_STATUS_OK)
            sent++;
        const iok_completion *first = next(pair.channel);
        CHECK(first->tag == seen && memcmp(first + 1, &seen, sizeof seen) == 0);
        seen++;
        done(pair.channel, first);
    }
    printf("%.2f M echoes/s with 1024 under way\n", (double)count / (seconds_now() - start) / 1e6);
    close_pair(pair);
}

TEST(one_at_a_time)
{
    const int count = few ? 200 : 20000;
    pair pair = open_pair(NULL);
    double start = seconds_now();
    for (int at = 0; at < count; at++) {
        CHECK_STATUS(echo(pair.channel, 1, "x", 1), IOK_STATUS_OK);
        expect_echo(pair.channel, 1, "x", 1);
    }
    printf("%.2f us for an echo, one at a time\n", (seconds_now() - start) / count * 1e6);
    close_pair(pair);
}

/* ---- messages larger than a quarter of the ring ---- */

/* Byte `at` of a large message, told by its place. */
static unsigned char pattern(size_t at)
{
    return (unsigned char)(at ^ at >> 8 ^ at >> 16);
}

typedef struct {
    size_t bytes, fragments;
} received;

/* Takes what waits of the large message; false if nothing waits. */
static bool receive_some(iok_channel *channel, uint64_t tag, size_t total, received *so_far)
{
    const iok_completion *first;
    size_t run;
    if (iok_poll(channel, &first, &run) == 0)
        return false;
    size_t bytes = first->size - IOK_COMPLETION_BYTES;
    const unsigned char *payload = (const unsigned char *)(first + 1);
    CHECK_STATUS(first->status, IOK_STATUS_OK);
    CHECK(first->tag == tag && first->kind == IOK_KIND_DONE && first->bytes_total == total);
    for (size_t at = 0; at < bytes; at++)
        CHECK(payload[at] == pattern(so_far->bytes + at));
    so_far->bytes += bytes;
    so_far->fragments++;
    CHECK(!(first->flags & IOK_FLAG_MORE) == (so_far->bytes == total));
    CHECK(first->size <= RING_BYTES / 4);
    done(channel, first);
    return true;
}

/* Sends `total` bytes in fragments and reads their echo meanwhile. */
static received echo_large(iok_channel *channel, uint64_t tag, size_t total, size_t fragment_bytes)
{
    received received = {0, 0};
    unsigned char *payload = malloc(fragment_bytes);
    for (size_t sent = 0; sent < total;) {
        size_t bytes = total - sent < fragment_bytes ? total - sent : fragment_bytes;
        for (size_t at = 0; at < bytes; at++)
            payload[at] = pattern(sent + at);
        iok_submission head = echo_head(tag, bytes);
        head.flags = sent + bytes < total ? IOK_FLAG_MORE : 0;
        head.bytes_total = sent == 0 && head.flags ? (uint32_t)total : 0;
        iok_status status = iok_submit(channel, &head, payload);
        if (status == IOK_STATUS_OK)
            sent += bytes;
        else if (status != IOK_STATUS_FULL || !receive_some(channel, tag, total, &received))
            CHECK_STATUS(status == IOK_STATUS_FULL ? iok_wait(channel, 20000) : status, IOK_STATUS_OK);
    }
    while (received.bytes < total)
        if (!receive_some(channel, tag, total, &received))
            CHECK_STATUS(iok_wait(channel, 20000), IOK_STATUS_OK);
    free(payload);
    return received;
}

TEST(fragments)
{
    const size_t record_max = RING_BYTES / 4 - IOK_SUBMISSION_BYTES;
    pair pair = open_pair("ring=1MiB");
    CHECK(echo_large(pair.channel, 1, 1000, record_max).fragments == 1);
    CHECK(echo_large(pair.channel, 2, record_max, record_max).fragments >= 1);
    CHECK(echo_large(pair.channel, 3, record_max + 1, record_max).fragments == 2);
    CHECK(echo_large(pair.channel, 4, (few ? 1 : 8) << 20, record_max).fragments > 3);
    CHECK(echo_large(pair.channel, 5, 300000, 77).bytes == 300000);
    CHECK_STATUS(echo(pair.channel, 6, "small", 5), IOK_STATUS_OK);
    expect_echo(pair.channel, 6, "small", 5);
    close_pair(pair);
}

TEST(too_large)
{
    pair pair = open_pair("ring=64KiB&max_request=100000");
    char *bytes = calloc(1, 200000);
    CHECK_STATUS(echo(pair.channel, 2, bytes, 65536 / 4 - IOK_SUBMISSION_BYTES + 1), IOK_STATUS_TOO_LARGE);
    iok_submission *place;
    CHECK_STATUS(iok_reserve(pair.channel, 65536 / 4, &place), IOK_STATUS_TOO_LARGE);

    iok_submission head = echo_head(3, 10);
    head.flags = IOK_FLAG_MORE;
    head.bytes_total = 100001;
    CHECK_STATUS(iok_submit(pair.channel, &head, bytes), IOK_STATUS_TOO_LARGE);
    CHECK_STATUS(echo(pair.channel, 4, "on", 2), IOK_STATUS_OK);
    expect_echo(pair.channel, 4, "on", 2);
    free(bytes);
    close_pair(pair);
}

/* Fragments that never say how large the message is are refused once they are too many. */
TEST(too_large_without_saying_so)
{
    pair pair = open_pair("ring=64KiB&max_request=100000");
    char bytes[10000] = {0};
    int finals = 0;
    for (int part = 0; part < 20; part++) {
        iok_submission head = echo_head(3, sizeof bytes);
        head.flags = part < 19 ? IOK_FLAG_MORE : 0;
        while (iok_submit(pair.channel, &head, bytes) == IOK_STATUS_FULL)
            CHECK_STATUS(iok_wait(pair.channel, 20000), IOK_STATUS_OK);
    }
    CHECK_STATUS(echo(pair.channel, 4, "on", 2), IOK_STATUS_OK);
    for (const iok_completion *got; (got = next(pair.channel))->tag != 4; finals++) {
        CHECK(got->tag == 3);
        CHECK_STATUS(got->status, IOK_STATUS_TOO_LARGE);
        done(pair.channel, got);
    }
    CHECK(finals == 1);
    expect_echo(pair.channel, 4, "on", 2);
    close_pair(pair);
}

/* Whole messages, and another large one, between the fragments of one: each keeps its own bytes. */
TEST(fragments_interleaved)
{
    static const struct { uint64_t tag; const char *text; bool more; uint32_t total; } RECORDS[] = {
        {1, "abc", true, 8}, {2, "other", false, 0}, {3, "xx", true, 4}, {1, "def", true, 0}, {3, "yy", false, 0}, {1, "gh", false, 0},
    };
    pair pair = open_pair(NULL);
    for (size_t at = 0; at < sizeof RECORDS / sizeof *RECORDS; at++) {
        iok_submission head = echo_head(RECORDS[at].tag, strlen(RECORDS[at].text));
        head.flags = RECORDS[at].more ? IOK_FLAG_MORE : 0;
        head.bytes_total = RECORDS[at].total;
        CHECK_STATUS(iok_submit(pair.channel, &head, RECORDS[at].text), IOK_STATUS_OK);
    }
    expect_echo(pair.channel, 2, "other", 5);
    expect_echo(pair.channel, 3, "xxyy", 4);
    expect_echo(pair.channel, 1, "abcdefgh", 8);
    close_pair(pair);
}

/* Messages begun and never ended: that channel ends, and its kernel lives. */
TEST(fragments_without_end)
{
    pair pair = open_pair(NULL);
    iok_status status = IOK_STATUS_OK;
    for (uint64_t tag = 0; tag < 100000 && (status == IOK_STATUS_OK || status == IOK_STATUS_FULL); tag++) {
        iok_submission head = echo_head(tag, 1);
        head.flags = IOK_FLAG_MORE;
        status = iok_submit(pair.channel, &head, "x");
        if (status == IOK_STATUS_FULL)
            status = iok_wait(pair.channel, 20000);
    }
    CHECK_STATUS(status, IOK_STATUS_CORRUPT);
    CHECK_STATUS(iok_channel_close(pair.channel), IOK_STATUS_OK);
    CHECK_STATUS(iok_channel_open(pair.kernel, NULL, &pair.channel), IOK_STATUS_OK);
    CHECK_STATUS(echo(pair.channel, 1, "alive", 5), IOK_STATUS_OK);
    expect_echo(pair.channel, 1, "alive", 5);
    close_pair(pair);
}

/* ---- the descriptor ---- */

static int epoll_of(int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    return epoll;
}

static bool readable(int epoll, int timeout_ms)
{
    struct epoll_event event;
    return epoll_wait(epoll, &event, 1, timeout_ms) == 1;
}

/* As a loop does it: polls until there is nothing; how many completions that were. */
static int drain(iok_channel *channel)
{
    const iok_completion *first;
    size_t bytes;
    int total = 0;
    for (size_t count; (count = iok_poll(channel, &first, &bytes)) > 0; total += (int)count)
        CHECK_STATUS(iok_advance(channel, bytes), IOK_STATUS_OK);
    return total;
}

TEST(descriptor_is_level_triggered)
{
    pair pair = open_pair(NULL);
    int epoll = epoll_of(iok_channel_fd(pair.channel));
    drain(pair.channel);
    CHECK(!readable(epoll, 30));
    for (uint64_t round = 0; round < 50; round++) {
        CHECK_STATUS(echo(pair.channel, 1, "a", 1), IOK_STATUS_OK);
        CHECK_STATUS(echo(pair.channel, 2, "b", 1), IOK_STATUS_OK);
        CHECK_STATUS(iok_flush(pair.channel), IOK_STATUS_OK);
        CHECK(readable(epoll, 20000));
        CHECK(readable(epoll, 0)); /* and stays so */
        expect_echo(pair.channel, 1, "a", 1);
        CHECK(readable(epoll, 20000)); /* the second is unread */
        int again = epoll_of(iok_channel_fd(pair.channel));
        CHECK(readable(again, 20000)); /* a loop that came later sees it too */
        close(again);
        expect_echo(pair.channel, 2, "b", 1);
        CHECK(drain(pair.channel) == 0);
        CHECK(!readable(epoll, 1));
    }
    close(epoll);
    close_pair(pair);
}

TEST(descriptor_is_readable_for_what_came_before_it_was_asked_for)
{
    pair pair = open_pair(NULL);
    CHECK_STATUS(echo(pair.channel, 1, "a", 1), IOK_STATUS_OK);
    CHECK_STATUS(iok_wait(pair.channel, 20000), IOK_STATUS_OK);
    int epoll = epoll_of(iok_channel_fd(pair.channel));
    CHECK(readable(epoll, 20000));
    expect_echo(pair.channel, 1, "a", 1);
    close(epoll);
    close_pair(pair);
}

/* After FULL, the descriptor tells of room, though there is nothing to read. */
TEST(descriptor_tells_of_room)
{
    pair pair = open_pair("ring=64KiB");
    int epoll = epoll_of(iok_channel_fd(pair.channel));
    char part[8000] = {0};
    int full = 0;
    for (int sent = 0; sent < (few ? 200 : 3000);) { /* one message; nothing is answered before its end */
        iok_submission head = echo_head(1, sizeof part);
        head.flags = IOK_FLAG_MORE;
        iok_status status = iok_submit(pair.channel, &head, part);
        CHECK(drain(pair.channel) == 0);
        if (status == IOK_STATUS_OK) {
            sent++;
            continue;
        }
        CHECK_STATUS(status, IOK_STATUS_FULL);
        CHECK(readable(epoll, 20000));
        full++;
    }
    CHECK(full > 0);
    close(epoll);
    close_pair(pair);
}

TEST(descriptor_tells_of_the_end_and_then_rests)
{
    pair pair = open_pair(NULL);
    int epoll = epoll_of(iok_channel_fd(pair.channel)), wakes = 0;
    CHECK_STATUS(iok_kernel_close(pair.kernel, 0), IOK_STATUS_OK);
    for (; readable(epoll, wakes ? 20 : 20000); wakes++)
        CHECK(drain(pair.channel) == 0);
    CHECK(wakes >= 1 && wakes <= 3);
    CHECK_STATUS(iok_channel_status(pair.channel), IOK_STATUS_CLOSED);
    close(epoll);
    CHECK_STATUS(iok_channel_close(pair.channel), IOK_STATUS_OK);
}

/* Waits and the descriptor, mixed by the same program, miss nothing. */
TEST(descriptor_and_waits_mixed)
{
    pair pair = open_pair(NULL);
    int epoll = epoll_of(iok_channel_fd(pair.channel));
    for (int round = 0; round < (few ? 50 : 2000); round++) {
        CHECK_STATUS(echo(pair.channel, 1, "a", 1), IOK_STATUS_OK);
        if (round % 3 == 0)
            CHECK_STATUS(iok_wait(pair.channel, 20000), IOK_STATUS_OK);
        else
            CHECK_STATUS(iok_flush(pair.channel), IOK_STATUS_OK);
        CHECK(readable(epoll, 20000));
        int count = drain(pair.channel);
        while (count == 0 && readable(epoll, 20000)) /* a wake may find nothing */
            count = drain(pair.channel);
        CHECK(count == 1);
    }
    close(epoll);
    close_pair(pair);
}

/* ---- waits ---- */

TEST(wait_times_out)
{
    pair pair = open_pair(NULL);
    CHECK_STATUS(iok_wait(pair.channel, 0), IOK_STATUS_TIMEOUT);
    double start = seconds_now();
    CHECK_STATUS(iok_wait(pair.channel, 60), IOK_STATUS_TIMEOUT);
    CHECK(seconds_now() - start > 0.055);
    close_pair(pair);
}

static void on_alarm(int number)
{
    (void)number;
}

TEST(wait_returns_on_a_signal)
{
    pair pair = open_pair(NULL);
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval soon = {{0, 20000}, {0, 20000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK_STATUS(iok_wait(pair.channel, 20000), IOK_STATUS_INTERRUPTED);
    CHECK_STATUS(iok_wait(pair.channel, -1), IOK_STATUS_INTERRUPTED);
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    close_pair(pair);
}

static void *close_kernel_soon(void *kernel)
{
    usleep(50000);
    CHECK_STATUS(iok_kernel_close(kernel, 0), IOK_STATUS_OK);
    return NULL;
}

TEST(closing_the_kernel_ends_waits)
{
    pair pair = open_pair(NULL);
    pthread_t closer;
    CHECK_STATUS(echo(pair.channel, 1, "unread", 6), IOK_STATUS_OK);
    CHECK_STATUS(iok_wait(pair.channel, 20000), IOK_STATUS_OK);
    expect_echo(pair.channel, 1, "unread", 6);
    CHECK(pthread_create(&closer, NULL, close_kernel_soon, pair.kernel) == 0);
    CHECK_STATUS(iok_wait(pair.channel, 20000), IOK_STATUS_CLOSED);
    CHECK_STATUS(iok_wait(pair.channel, -1), IOK_STATUS_CLOSED);
    CHECK_STATUS(iok_channel_status(pair.channel), IOK_STATUS_CLOSED);
    CHECK_STATUS(echo(pair.channel, 2, "late", 4), IOK_STATUS_CLOSED);
    pthread_join(closer, NULL);
    CHECK_STATUS(iok_channel_close(pair.channel), IOK_STATUS_OK);
}

/* ---- handles and arguments ---- */

TEST(null_pointers)
{
    iok_submission head = echo_head(1, 4), *place;
    const iok_completion *first;
    size_t bytes = 1;
    pair pair = open_pair(NULL);
    CHECK_STATUS(iok_kernel_open(NULL, NULL), IOK_STATUS_NULL);
    CHECK_STATUS(iok_kernel_close(NULL, 0), IOK_STATUS_NULL);
    CHECK_STATUS(iok_channel_open(pair.kernel, NULL, NULL), IOK_STATUS_NULL);
    CHECK_STATUS(iok_channel_open(NULL, NULL, &pair.channel), IOK_STATUS_NULL);
    CHECK_STATUS(iok_channel_close(NULL), IOK_STATUS_NULL);
    CHECK_STATUS(iok_channel_status(NULL), IOK_STATUS_NULL);
    CHECK(iok_channel_fd(NULL) == -1);
    CHECK_STATUS(iok_reserve(NULL, 1, &place), IOK_STATUS_NULL);
    CHECK_STATUS(iok_reserve(pair.channel, 1, NULL), IOK_STATUS_NULL);
    CHECK_STATUS(iok_commit(NULL), IOK_STATUS_NULL);
    CHECK_STATUS(iok_submit(NULL, &head, "1234"), IOK_STATUS_NULL);
    CHECK_STATUS(iok_submit(pair.channel, NULL, "1234"), IOK_STATUS_NULL);
    CHECK_STATUS(iok_submit(pair.channel, &head, NULL), IOK_STATUS_NULL);
    CHECK_STATUS(iok_submit_batch(pair.channel, NULL, 8, &bytes), IOK_STATUS_NULL);
    CHECK_STATUS(iok_submit_batch(pair.channel, &head, sizeof head, NULL), IOK_STATUS_NULL);
    CHECK_STATUS(iok_submit_batch(NULL, &head, sizeof head, &bytes), IOK_STATUS_NULL);
    CHECK_STATUS(iok_flush(NULL), IOK_STATUS_NULL);
    CHECK_STATUS(iok_wait(NULL, 0), IOK_STATUS_NULL);
    CHECK(iok_poll(NULL, &first, &bytes) == 0 && bytes == 0 && first == NULL);
    CHECK(iok_poll(pair.channel, NULL, &bytes) == 0 && iok_poll(pair.channel, &first, NULL) == 0);
    CHECK_STATUS(iok_advance(NULL, 8), IOK_STATUS_NULL);
    close_pair(pair);
}

static void expect_bad_channel(iok_channel *channel, iok_status expected)
{
    iok_submission head = echo_head(1, 0), *place;
    const iok_completion *first;
    size_t bytes = 1;
    CHECK(iok_channel_fd(channel) == -1);
    CHECK_STATUS(iok_reserve(channel, 1, &place), expected);
    CHECK_STATUS(iok_commit(channel), expected);
    CHECK_STATUS(iok_submit(channel, &head, NULL), expected);
    CHECK_STATUS(iok_submit_batch(channel, &head, sizeof head, &bytes), expected);
    CHECK_STATUS(iok_flush(channel), expected);
    CHECK_STATUS(iok_wait(channel, -1), expected);
    CHECK_STATUS(iok_wait(channel, 0), expected);
    bytes = 1;
    CHECK(iok_poll(channel, &first, &bytes) == 0 && bytes == 0);
    CHECK_STATUS(iok_advance(channel, 0), expected);
    CHECK_STATUS(iok_channel_status(channel), expected);
    CHECK_STATUS(iok_channel_close(channel), expected);
}

TEST(stale_handles)
{
    pair pair = open_pair(NULL), other = open_pair(NULL);
    CHECK_STATUS(iok_channel_close(pair.channel), IOK_STATUS_OK);
    expect_bad_channel(pair.channel, IOK_STATUS_BAD_HANDLE);

    iok_channel *reused;
    CHECK_STATUS(iok_channel_open(pair.kernel, NULL, &reused), IOK_STATUS_OK);
    expect_bad_channel(pair.channel, IOK_STATUS_BAD_HANDLE); /* its place is taken again; it stays stale */

    CHECK_STATUS(iok_kernel_close(pair.kernel, 0), IOK_STATUS_OK);
    CHECK_STATUS(iok_kernel_close(pair.kernel, 0), IOK_STATUS_BAD_HANDLE);
    CHECK_STATUS(iok_channel_open(pair.kernel, NULL, &pair.channel), IOK_STATUS_BAD_HANDLE);
    CHECK_STATUS(iok_channel_close(reused), IOK_STATUS_OK);

    const uintptr_t strangers[] = {1, 8, 0x1230, 0x7fffffffffff, UINTPTR_MAX, UINTPTR_MAX & ~(uintptr_t)15};
    for (size_t at = 0; at < sizeof strangers / sizeof *strangers; at++) {
        expect_bad_channel((iok_channel *)strangers[at], IOK_STATUS_BAD_HANDLE);
        CHECK_STATUS(iok_kernel_close((iok_kernel *)strangers[at], 0), IOK_STATUS_BAD_HANDLE);
    }
    CHECK_STATUS(echo(other.channel, 1, "alive", 5), IOK_STATUS_OK);
    expect_echo(other.channel, 1, "alive", 5);
    close_pair(other);
}

static void expect_text(const char *text, const char *part)
{
    if (strstr(text, part))
        return;
    fprintf(stderr, "last error: \"%s\": expected it to name \"%s\"\n", text, part);
    _exit(1);
}

static void expect_bad_config(iok_kernel *kernel, const char *config, const char *key, const char *value)
{
    iok_channel *channel = NULL;
    CHECK_STATUS(iok_channel_open(kernel, config, &channel), IOK_STATUS_BAD_CONFIG);
    expect_text(iok_last_error(), key);
    expect_text(iok_last_error(), value);
    CHECK(channel == NULL);
}

TEST(bad_config)
{
    iok_kernel *kernel = NULL;
    CHECK_STATUS(iok_kernel_open("colour=blue", &kernel), IOK_STATUS_BAD_CONFIG);
    expect_text(iok_last_error(), "colour");
    CHECK_STATUS(iok_kernel_open("name", &kernel), IOK_STATUS_BAD_CONFIG);
    CHECK_STATUS(iok_kernel_open("name=\xff\xfe", &kernel), IOK_STATUS_BAD_CONFIG);
    CHECK(kernel == NULL);
    CHECK_STATUS(iok_kernel_open("name=test", &kernel), IOK_STATUS_OK);
    expect_bad_config(kernel, "ring=banana", "ring", "banana");
    expect_bad_config(kernel, "ring=3000", "ring", "3000");
    expect_bad_config(kernel, "credits=0", "credits", "0");
    expect_bad_config(kernel, "colour=blue", "colour", "blue");
    CHECK_STATUS(iok_kernel_close(kernel, 0), IOK_STATUS_OK);
}

TEST(bad_records)
{
    pair pair = open_pair(NULL);
    iok_submission head = echo_head(1, 0);
    head.size = IOK_SUBMISSION_BYTES - 1;
    CHECK_STATUS(iok_submit(pair.channel, &head, "x"), IOK_STATUS_BAD_RECORD);
    head.size = IOK_SUBMISSION_BYTES;
    head.op = 9999;
    CHECK_STATUS(iok_submit(pair.channel, &head, NULL), IOK_STATUS_OK);
    const iok_completion *got = next(pair.channel);
    CHECK(got->tag == 1 && got->kind == IOK_KIND_DONE && got->encoding == IOK_ENCODING_MSGPACK);
    CHECK_STATUS(got->status, IOK_STATUS_BAD_RECORD);
    CHECK_STATUS(iok_advance(pair.channel, 7), IOK_STATUS_BAD_RECORD);
    CHECK_STATUS(iok_advance(pair.channel, RING_BYTES), IOK_STATUS_BAD_RECORD);
    done(pair.channel, got);
    head = echo_head(2, 0);
    head.op = IOK_OP_REQUEST;
    head.endpoint = 77;
    CHECK_STATUS(iok_submit(pair.channel, &head, NULL), IOK_STATUS_OK);
    CHECK_STATUS((got = next(pair.channel))->status, IOK_STATUS_NO_ENDPOINT);
    done(pair.channel, got);
    close_pair(pair);
}

static int open_files(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

/* Once it rests: a kernel's last descriptors close right after its thread has said that it ends. */
static int settled_files(void)
{
    int count = -1, again = open_files();
    while (count != again) {
        count = again;
        usleep(100000);
        again = open_files();
    }
    return count;
}

TEST(nothing_leaks)
{
    /* The area of metrics is opened once, and stays. */
    close_pair(open_pair(NULL));
    int before = settled_files();
    for (int round = 0; round < (few ? 3 : 50); round++) {
        pair pair = open_pair(NULL);
        CHECK_STATUS(echo(pair.channel, 1, "x", 1), IOK_STATUS_OK);
        if (round % 2)
            expect_echo(pair.channel, 1, "x", 1);
        CHECK(iok_channel_fd(pair.channel) >= 0);
        close_pair(pair);
    }
    CHECK(settled_files() == before);
}

/* ---- threads ---- */

static void *echo_many(void *kernel)
{
    iok_channel *channel;
    CHECK_STATUS(iok_channel_open(kernel, "ring=64KiB", &channel), IOK_STATUS_OK);
    for (uint64_t tag = 0; tag < (few ? 100u : 20000u); tag += 10) {
        for (uint64_t at = tag; at < tag + 10; at++)
            CHECK_STATUS(echo(channel, at, &at, sizeof at), IOK_STATUS_OK);
        for (uint64_t at = tag; at < tag + 10; at++)
            expect_echo(channel, at, &at, sizeof at);
    }
    CHECK_STATUS(iok_channel_close(channel), IOK_STATUS_OK);
    return NULL;
}

/* Each thread its channel, and one more that nobody ever polls: it delays none of them. */
TEST(channels_of_many_threads)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    pair stuck = open_pair("ring=64KiB&credits=100");
    char payload[1000] = {0};
    while (echo(stuck.channel, 1, payload, sizeof payload) == IOK_STATUS_OK)
        ;
    for (int at = 0; at < THREADS; at++)
        CHECK(pthread_create(&threads[at], NULL, echo_many, stuck.kernel) == 0);
    for (int at = 0; at < THREADS; at++)
        CHECK(pthread_join(threads[at], NULL) == 0);
    close_pair(stuck);
}

/* ---- fork ---- */

/* AddressSanitizer's allocator forgets its locks in a fork: a child that allocates beside a second thread hangs there. */
#ifdef __SANITIZE_ADDRESS__
#define FORK_TESTS
#else
#define FORK_TESTS ROW(fork_leaves_the_parent_alone)

static void in_the_child(pair parents)
{
    iok_channel *made;
    alarm(20);
    expect_bad_channel(parents.channel, IOK_STATUS_FORKED);
    CHECK_STATUS(iok_channel_open(parents.kernel, NULL, &made), IOK_STATUS_FORKED);
    CHECK_STATUS(iok_kernel_close(parents.kernel, 1000), IOK_STATUS_FORKED);
    pair own = open_pair(NULL);
    CHECK_STATUS(echo(own.channel, 1, "child", 5), IOK_STATUS_OK);
    expect_echo(own.channel, 1, "child", 5);
    close_pair(own);
    _exit(0);
}

TEST(fork_leaves_the_parent_alone)
{
    pair pair = open_pair(NULL);
    int epoll = epoll_of(iok_channel_fd(pair.channel));
    for (int round = 0; round < (few ? 2 : 20); round++) {
        CHECK_STATUS(echo(pair.channel, 1, "before", 6), IOK_STATUS_OK);
        pid_t child = fork();
        if (child == 0)
            in_the_child(pair);
        CHECK(child > 0);
        CHECK_STATUS(echo(pair.channel, 2, "after", 5), IOK_STATUS_OK);
        expect_echo(pair.channel, 1, "before", 6);
        expect_echo(pair.channel, 2, "after", 5);
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    close(epoll);
    close_pair(pair);
}
#endif

/* A child that does not know of us at all, and runs other programs. */
TEST(fork_and_exec)
{
    pair pair = open_pair(NULL);
    pid_t child = fork();
    if (child == 0) {
        execlp("true", "true", (char *)NULL);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_STATUS(echo(pair.channel, 1, "alive", 5), IOK_STATUS_OK);
    expect_echo(pair.channel, 1, "alive", 5);
    close_pair(pair);
}

/* ---- */

static const struct {
    const char *name;
    void (*run)(void);
} TESTS[] = {
#define ROW(name) {#name, test_##name},
    ROW(versions_and_statuses) ROW(round_trip) ROW(written_in_place) ROW(sizes_in_order) ROW(batch)
    ROW(batch_larger_than_the_ring) ROW(full_loses_nothing) ROW(many_in_flight) ROW(one_at_a_time)
    ROW(fragments) ROW(too_large) ROW(too_large_without_saying_so) ROW(fragments_interleaved) ROW(fragments_without_end)
    ROW(descriptor_is_level_triggered) ROW(descriptor_is_readable_for_what_came_before_it_was_asked_for)
    ROW(descriptor_tells_of_room) ROW(descriptor_tells_of_the_end_and_then_rests) ROW(descriptor_and_waits_mixed) ROW(wait_times_out) ROW(wait_returns_on_a_signal)
    ROW(closing_the_kernel_ends_waits) ROW(null_pointers) ROW(stale_handles) ROW(bad_config) ROW(bad_records)
    ROW(nothing_leaks) ROW(channels_of_many_threads) ROW(fork_and_exec) FORK_TESTS
};

static bool run(const char *name)
{
    bool found = false;
    for (size_t at = 0; at < sizeof TESTS / sizeof *TESTS; at++) {
        if (name && strcmp(name, TESTS[at].name) != 0)
            continue;
        found = true;
        printf("%s\n", TESTS[at].name);
        fflush(stdout);
        TESTS[at].run();
    }
    if (!found)
        fprintf(stderr, "no test is named %s\n", name);
    return found;
}

int main(int argc, char **argv)
{
    few = argc > 1 && strcmp(argv[1], "--few") == 0;
    int first = few ? 2 : 1;
    if (argc == first)
        return run(NULL) ? 0 : 1;
    for (int at = first; at < argc; at++)
        if (!run(argv[at]))
            return 1;
    return 0;
}
