/*
 * iokernel: all the networking of a program in one I/O thread that its interpreter cannot stall.
 *
 * Everything is a record. A program opens a kernel (iok_kernel_open) and channels of it (iok_channel_open), submits
 * records (iok_submit, or iok_reserve and iok_commit) and polls completions (iok_poll, iok_advance). What a record asks
 * for is its op; which protocol is spoken is the URL's scheme; requests and replies are MessagePack.
 *
 * Each function carries marks:
 *   [N]  never blocks. Keep your interpreter's lock.
 *   [B]  may block. Drop your interpreter's lock around it.
 *   [F]  legal in the child of a fork, with handles of its parent. All others answer IOK_STATUS_FORKED there, or
 *        0, or -1. The child opens a kernel of its own; the parent notices nothing.
 *
 * Threads. A kernel may be used by any thread. A channel is used by one thread at a time; give each thread and each
 * event loop a channel of its own. The library calls nothing of yours, ever: no callbacks, no hooks; and no
 * signals but the one of iok_stack_open, if you call it.
 * Closing a kernel ends the waits of its channels.
 *
 * Handles are opaque. NULL answers IOK_STATUS_NULL, a closed or unknown one IOK_STATUS_BAD_HANDLE. Closing twice is
 * harmless. There is nothing to free: records that iok_poll shows belong to the ring until iok_advance passes them, and
 * texts are static or belong to the calling thread until its next call.
 *
 * The loop of a program that waits in an event loop: watch iok_channel_fd for reading; when it is readable, poll and
 * advance until iok_poll answers 0. The descriptor is readable exactly while completions wait.
 */


#ifndef IOKERNEL_H
#define IOKERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Grows by one when an older binding could no longer read a region or a record.
 */
#define IOK_ABI_VERSION 1

/**
 * Feature bit: messages larger than a quarter of a ring travel as fragments.
 */
#define IOK_FEATURE_FRAGMENTS (1 << 0)

/**
 * Feature bit: services (connecting out).
 */
#define IOK_FEATURE_SERVICES (1 << 1)

/**
 * Feature bit: listeners (accepting).
 */
#define IOK_FEATURE_LISTENERS (1 << 2)

/**
 * Feature bit: leases.
 */
#define IOK_FEATURE_LEASES (1 << 3)

/**
 * Feature bit: streams (SUBSCRIBE and the pushes it brings).
 */
#define IOK_FEATURE_STREAMS (1 << 4)

/**
 * Feature bit: services of many peers (`IOK_OP_PEERS`, `IOK_OP_WATCH`, `IOK_FLAG_ROUTE`).
 */
#define IOK_FEATURE_PEERS (1 << 5)

/**
 * Feature bit: requests that carry a trace context (`IOK_FLAG_TRACE`).
 */
#define IOK_FEATURE_TRACE (1 << 6)

/**
 * Feature bit: requests and streams that take more messages (`IOK_OP_SEND`, `IOK_OP_CREDIT`, `IOK_KIND_END`).
 */
#define IOK_FEATURE_SENDS (1 << 7)

/**
 * Every record and every ring index is a multiple of this.
 */
#define IOK_RECORD_ALIGN 8

/**
 * Size in bytes of an `iok_submission`.
 */
#define IOK_SUBMISSION_BYTES 40

/**
 * Size in bytes of an `iok_completion`.
 */
#define IOK_COMPLETION_BYTES 72

/**
 * Answered by the I/O thread with the same payload and no network. `DONE`.
 */
#define IOK_OP_ECHO 1

/**
 * Opens a service; payload: its URL as UTF-8. `DONE` at once with the endpoint's number; connecting goes on behind.
 */
#define IOK_OP_OPEN 2

/**
 * Opens a listener; payload: its URL. `DONE` once bound, payload: the bound URL as text. Its requests then come to
 * this channel as `REQUEST` completions.
 */
#define IOK_OP_LISTEN 3

/**
 * Closes an endpoint; what is in flight ends with `IOK_STATUS_CLOSED`. `DONE`. With a `timeout_ms`, a listener leaves: at once
 * the kernel is not ready any more, `key` milliseconds later nobody new is let in, each client goes once it has the replies that it waits for, and `DONE` comes when all have gone, or when
 * the time is over (`IOK_STATUS_TIMEOUT`).
 */
#define IOK_OP_CLOSE 4

/**
 * One request; payload: a MessagePack array. `key`: a lease, or 0. `DONE` with the reply.
 */
#define IOK_OP_REQUEST 5

/**
 * A request that keeps giving (SUBSCRIBE, MONITOR). `ACCEPTED` once it stands, then `PUSH`es, `DONE` at its end
 * (`IOK_OP_CANCEL` ends it).
 */
#define IOK_OP_STREAM 6

/**
 * Ends the request, stream or lease call of this channel that has the tag `tag`. Has no completion of its own.
 */
#define IOK_OP_CANCEL 7

/**
 * Asks for a conn of one's own. `DONE`, payload: its lease number as a MessagePack unsigned integer.
 */
#define IOK_OP_LEASE 8

/**
 * Gives the lease `key` back; its conn is made clean or closed. `DONE`.
 */
#define IOK_OP_RELEASE 9

/**
 * Answers the listener's request whose `REQUEST` completion had this `tag`. Payload: one MessagePack value; an error
 * is ext 1 (`[code, message]`). Completes only if it fails (`DONE` with the reason).
 */
#define IOK_OP_REPLY 10

/**
 * Asks how an endpoint is; endpoint 0: the kernel and all of them. `DONE`, payload: a MessagePack map. With
 * `IOK_FLAG_UNTIL_UP` it answers once the endpoint (the kernel: each one opened with `require=true`) is up, or when its
 * deadline passes. With a `key`: asks how the request, or stream, is that was submitted under this tag; a map of `has_conn`
 * (it was given to one), and `sent_ago_ns` (since its last byte was given to the system; nil: it was not yet).
 */
#define IOK_OP_STATE 11

/**
 * Tells the peers of a service opened as `scheme+app://name`. Payload: a MessagePack array of `"host:port"`, or of maps
 * with `address` and, if wanted, `weight`, `priority` and `role`. The whole set, each time. `DONE`.
 */
#define IOK_OP_PEERS 12

/**
 * Streams an endpoint's state (endpoint 0: the kernel's): `ACCEPTED`, then a `PUSH` with the map of `IOK_OP_STATE` at
 * once and after each change of its state, its peers or their roles. `IOK_OP_CANCEL` ends it.
 */
#define IOK_OP_WATCH 13

/**
 * One more message for the request or stream that was submitted under the tag `key` (of a listener: for the request whose
 * `REQUEST` completion had it). Payload: one MessagePack value, as the protocol has it. `DONE` once it is on its way, which
 * is when the next may come without piling up; with `IOK_FLAG_QUIET` only if it fails.
 */
#define IOK_OP_SEND 14

/**
 * Gives bytes of the window back (`window=`) of the stream under the tag `key`: `tag` of them, as payload bytes of `PUSH`es
 * that the program is done with. Has no completion.
 */
#define IOK_OP_CREDIT 15

/**
 * More fragments of this message follow, under the same tag. Records of other tags may stand between them.
 */
#define IOK_FLAG_MORE (1 << 0)

/**
 * The request may be sent again when its fate is in doubt.
 */
#define IOK_FLAG_IDEMPOTENT (1 << 1)

/**
 * No completion unless it fails.
 */
#define IOK_FLAG_QUIET (1 << 2)

/**
 * For `IOK_OP_STATE`: answer when the endpoint is up.
 */
#define IOK_FLAG_UNTIL_UP (1 << 3)

/**
 * `key` is a route key: requests (and leases) of one key go to one peer for as long as the peers stay the same.
 */
#define IOK_FLAG_ROUTE (1 << 4)

/**
 * For `IOK_OP_REQUEST` alone: the payload begins with `IOK_TRACE_BYTES` of W3C trace context, in front of the MessagePack: the
 * trace id (16 bytes), the parent span id (8), the trace flags (1), the version (1, which is 0), and six bytes of 0. In
 * a message of fragments it is in the first.
 */
#define IOK_FLAG_TRACE (1 << 5)

/**
 * Bytes of a trace context (`IOK_FLAG_TRACE`).
 */
#define IOK_TRACE_BYTES 32

/**
 * The last completion of its tag.
 */
#define IOK_KIND_DONE 1

/**
 * One more message of a stream.
 */
#define IOK_KIND_PUSH 2

/**
 * A client of a listener asks; reply with the same tag.
 */
#define IOK_KIND_REQUEST 3

/**
 * Pushes of this stream were dropped because the program left too many unread; payload: how many, a MessagePack
 * unsigned integer.
 */
#define IOK_KIND_LOST 4

/**
 * The stream stands: what happens from here on is delivered. Comes again after a reconnect.
 */
#define IOK_KIND_ACCEPTED 5

/**
 * The client of a listener's request is gone; a reply has nowhere to go.
 */
#define IOK_KIND_GONE 6

/**
 * Nothing happened; taking it shows that the program lives (`max_app_silence`). Its tag is 0. Pass over it.
 */
#define IOK_KIND_TICK 7

/**
 * The peer sends nothing more under this tag; what we send still goes. Payload: a last word, as the protocol has it.
 */
#define IOK_KIND_END 8

/**
 * Nothing of the request was written: sending it again is safe.
 */
#define IOK_FATE_NOT_SENT 1

/**
 * Written at least in part, and no reply seen.
 */
#define IOK_FATE_MAYBE_EXECUTED 2

/**
 * The peer answered.
 */
#define IOK_FATE_REPLIED 3

/**
 * No payload.
 */
#define IOK_ENCODING_NONE 0

/**
 * One MessagePack value.
 */
#define IOK_ENCODING_MSGPACK 1

/**
 * The payload is the bytes themselves.
 */
#define IOK_ENCODING_BYTES 2

/**
 * The payload is text: UTF-8 unless the peer broke that promise.
 */
#define IOK_ENCODING_TEXT 3

/**
 * The protocol's own frame (`raw=true`).
 */
#define IOK_ENCODING_RAW 4

/**
 * In MessagePack: an error, `[code, message]`.
 */
#define IOK_EXT_ERROR 1

/**
 * In MessagePack: an integer of any size, in decimal text.
 */
#define IOK_EXT_BIG_NUMBER 2

/**
 * In MessagePack: text with a format, `fmt:text` where `fmt` is three bytes (`txt`, `mkd`).
 */
#define IOK_EXT_VERBATIM 3

/**
 * In MessagePack: a set; its bytes are one MessagePack array.
 */
#define IOK_EXT_SET 4

/**
 * In MessagePack: a value with attributes; its bytes are one MessagePack array `[map, value]`.
 */
#define IOK_EXT_ATTRIBUTED 5

/**
 * No deadline, in `timeout_ms`. 0 means the endpoint's own default.
 */
#define IOK_TIMEOUT_NONE UINT32_MAX

/**
 * Markers of one thread that have a place at a time.
 */
#define IOK_MARKER_PLACES 15

/**
 * Bytes of text that a marker holds.
 */
#define IOK_MARKER_TEXT_BYTES 56

/**
 * Beside the length of a marker's text: the marker was entered and not left.
 */
#define IOK_MARKER_ACTIVE 2147483648

/**
 * The bits of a serial that count up; those above them are the slot's own.
 */
#define IOK_MARKER_COUNT_MASK ((1 << 26) - 1)

/**
 * For `iok_stack_arm`: the runtime's handler writes its text later, at its next safe point, and ends it with a zero
 * byte. Without this flag it writes before it returns.
 */
#define IOK_STACK_LATE 1

/**
 * One submission ring and one completion ring, used by one thread at a time. Opaque.
 */
typedef struct iok_channel iok_channel;

/**
 * An I/O thread and all it owns. Opaque.
 */
typedef struct iok_kernel iok_kernel;

/**
 * The result of a function, or of a request in its completion. 0 is success, negatives are errors.
 */
typedef int32_t iok_status;

/**
 * The head of a submission record. The payload follows it at once; the next record starts at the next multiple of 8.
 */
typedef struct iok_submission {
    /**
     * Bytes of this record, head and payload, without padding.
     */
    uint32_t size;
    /**
     * `IOK_OP_*`.
     */
    uint16_t op;
    /**
     * `IOK_FLAG_*`.
     */
    uint16_t flags;
    /**
     * The endpoint's number, from the completion of `IOK_OP_OPEN` or `IOK_OP_LISTEN`; 0 where none is meant.
     */
    uint32_t endpoint;
    /**
     * Milliseconds from now until the deadline; 0: the endpoint's default; `IOK_TIMEOUT_NONE`: none.
     */
    uint32_t timeout_ms;
    /**
     * The program's own number for this request, returned in its completions. Unique among those in flight.
     */
    uint64_t tag;
    /**
     * A lease, a route key (`IOK_FLAG_ROUTE`), or 0.
     */
    uint64_t key;
    /**
     * Payload bytes of the whole message, in its first fragment; 0 in a record that is a whole message.
     */
    uint32_t bytes_total;
    /**
     * The number of the marker that the program is in, or 0. The library fills it in where a binding leaves 0.
     */
    uint32_t marker;
} iok_submission;

/**
 * The head of a completion record. The payload follows it at once; the next record starts at the next multiple of 8.
 */
typedef struct iok_completion {
    /**
     * Bytes of this record, head and payload, without padding.
     */
    uint32_t size;
    /**
     * `IOK_KIND_*`.
     */
    uint16_t kind;
    /**
     * `IOK_FLAG_MORE`, or 0.
     */
    uint16_t flags;
    /**
     * The endpoint's number.
     */
    uint32_t endpoint;
    /**
     * `IOK_STATUS_*`.
     */
    int32_t status;
    /**
     * The tag of the submission that this answers; for `REQUEST`, the tag to reply with.
     */
    uint64_t tag;
    /**
     * A number for the peer's conn, growing with each conn; 0 where none was involved.
     */
    uint32_t peer;
    /**
     * `IOK_FATE_*`.
     */
    uint8_t fate;
    /**
     * `IOK_ENCODING_*` of the payload. With a status below 0, the payload is MessagePack `[code, message]`.
     */
    uint8_t encoding;
    /**
     * 0.
     */
    uint16_t reserved;
    /**
     * Payload bytes of the whole message; the same in each of its fragments.
     */
    uint32_t bytes_total;
    /**
     * 0.
     */
    uint32_t reserved2;
    /**
     * When the I/O thread took the request up, in nanoseconds of CLOCK_MONOTONIC; 0: never.
     */
    uint64_t queued_ns;
    /**
     * When its last byte was given to the system; 0: never.
     */
    uint64_t sent_ns;
    /**
     * When the read that held the first byte of its reply returned; 0: never.
     */
    uint64_t first_byte_ns;
    /**
     * When this completion was made.
     */
    uint64_t done_ns;
} iok_completion;

/**
 * What a thread is doing, as it says: one marker.
 *
 * To enter one: take a place whose `length` has not `IOK_MARKER_ACTIVE` (none is left: count in `overflows`, and go on
 * without); count the slot's `last` up within `IOK_MARKER_COUNT_MASK` (passing over 0) for its serial; store 0 to
 * `serial`, then the text, then `serial` and `length` as one 64-bit word with release order, and at the end the serial
 * to the slot's `current`. To leave it: take `IOK_MARKER_ACTIVE` out of `length` and store the marker around it (or 0)
 * to `current`. A place that was left stays readable until it is taken again: begin to
 * look for one at the count modulo `IOK_MARKER_PLACES`.
 */
typedef struct iok_marker {
    /**
     * The number that submissions carry; 0: the place was never used.
     */
    uint32_t serial;
    /**
     * Bytes of the text, and `IOK_MARKER_ACTIVE`.
     */
    uint32_t length;
    /**
     * UTF-8, cut at the start of a character.
     */
    uint8_t text[IOK_MARKER_TEXT_BYTES];
} iok_marker;

/**
 * The markers of one thread, in shared memory: written by that thread with plain stores, read by the I/O thread.
 */
typedef struct iok_markers {
    /**
     * The thread's number (gettid). 0 in a forked child: ask for a slot again.
     */
    uint32_t tid;
    /**
     * Serial of the marker whose number submissions of this thread carry, where they say 0; 0: none.
     */
    uint32_t current;
    /**
     * The last serial that was given.
     */
    uint32_t last;
    /**
     * Markers that found no place.
     */
    uint32_t overflows;
    /**
     * 0.
     */
    uint32_t reserved[12];
    struct iok_marker places[IOK_MARKER_PLACES];
} iok_markers;

/**
 * Success.
 */
#define IOK_STATUS_OK 0

/**
 * A pointer that must not be NULL was NULL.
 */
#define IOK_STATUS_NULL -101

/**
 * The handle is unknown or stale: it was closed, or never was one.
 */
#define IOK_STATUS_BAD_HANDLE -102

/**
 * The kernel, channel or endpoint was closed while the request was under way.
 */
#define IOK_STATUS_CLOSED -103

/**
 * The handle belongs to the parent of this forked process; open a new kernel here.
 */
#define IOK_STATUS_FORKED -104

/**
 * A URL or option is wrong; the text names the key, the value and what was expected.
 */
#define IOK_STATUS_BAD_CONFIG -105

/**
 * A submission record is malformed: its size, op, flags or alignment.
 */
#define IOK_STATUS_BAD_RECORD -106

/**
 * The payload is not a request that the endpoint's protocol can send.
 */
#define IOK_STATUS_BAD_REQUEST -107

/**
 * The message is larger than its limit.
 */
#define IOK_STATUS_TOO_LARGE -108

/**
 * No endpoint of that number is open.
 */
#define IOK_STATUS_NO_ENDPOINT -109

/**
 * No lease of that number is held.
 */
#define IOK_STATUS_NO_LEASE -110

/**
 * No request of that tag waits for a reply.
 */
#define IOK_STATUS_NO_REQUEST -111

/**
 * No room in the submission ring: poll, or wait, and submit again. Nothing was taken.
 */
#define IOK_STATUS_FULL -201

/**
 * The deadline passed; the fate says whether the request may have been executed.
 */
#define IOK_STATUS_TIMEOUT -202

/**
 * Cancelled by the program; the fate says whether the request may have been executed.
 */
#define IOK_STATUS_CANCELLED -203

/**
 * A limit of the endpoint was reached; nothing was sent.
 */
#define IOK_STATUS_OVERLOADED -204

/**
 * A signal interrupted the wait; handle it and wait again.
 */
#define IOK_STATUS_INTERRUPTED -205

/**
 * The reply came, but the program had left too many unread: its payload was dropped.
 */
#define IOK_STATUS_REPLY_DROPPED -206

/**
 * The peer answered with an error: the payload is [code, message].
 */
#define IOK_STATUS_REMOTE -301

/**
 * The connection was lost before the reply; the fate says whether the request may have been executed.
 */
#define IOK_STATUS_LOST -302

/**
 * No connection could be made in time; nothing was sent. The text gives the last cause.
 */
#define IOK_STATUS_UNAVAILABLE -303

/**
 * The peer broke the protocol; its connection was closed.
 */
#define IOK_STATUS_PROTOCOL -304

/**
 * The peer refused the handshake (user, password, database, version).
 */
#define IOK_STATUS_REFUSED -305

/**
 * A system call failed; the text names it and its errno.
 */
#define IOK_STATUS_SYSTEM -401

/**
 * The system has no memory for this.
 */
#define IOK_STATUS_NO_MEMORY -402

/**
 * The process or the system has no file descriptor left.
 */
#define IOK_STATUS_NO_FILES -403

/**
 * A fault inside iokernel was contained; the text tells where. Please report it.
 */
#define IOK_STATUS_PANIC -501

/**
 * The ring's indices or records are corrupt; the channel was closed.
 */
#define IOK_STATUS_CORRUPT -502

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the ABI: a program built for another one must not go on. [N][F]
 */
uint32_t iok_abi_version(void);

/**
 * `IOK_FEATURE_*` bits. [N][F]
 */
uint64_t iok_features(void);

/**
 * Starts a kernel: its I/O thread, without any network. `config`: `name=web-1` names the thread (at most 15 bytes);
 * `resolv_conf=` and `hosts=` name files to read instead of the system's; `admin=`, `busy_limit=`, `metrics=`, `statsd=`,
 * `graphite=`, `otlp=` and those beside them say who may ask the kernel, and whom it tells (docs/observability.md). NULL or "" for the defaults. The handle goes
 * to `*out` and belongs to the caller until `iok_kernel_close`. Any thread. [N]
 *
 * Errors: BAD_CONFIG (the text names the key), NULL, NO_FILES, NO_MEMORY, SYSTEM.
 */
iok_status iok_kernel_open(const char *config, struct iok_kernel **out);

/**
 * Closes a kernel: takes no new requests, lets those under way finish for at most `drain_ms`, ends the rest with
 * CLOSED, closes every connection and waits for the thread. Bounded, whatever peers, names or other threads do. Closing
 * twice is BAD_HANDLE and harmless. Its channels stay readable until they are closed. Any thread. [B][F]
 *
 * Errors: BAD_HANDLE, FORKED (the parent's kernel is not touched), TIMEOUT (it ends by itself later).
 */
iok_status iok_kernel_close(struct iok_kernel *kernel, uint32_t drain_ms);

/**
 * Opens a channel of a kernel. `config`: `ring=1MiB` (each way, a power of two), `credits=65536` (requests under way),
 * `push_buffer=4MiB` and `reply_buffer=256MiB` (what waits beside the ring for a program that does not poll),
 * `max_request=128MiB`. NULL or "" for the defaults. The handle goes to `*out` and belongs to the caller until
 * `iok_channel_close`. One thread at a time uses a channel. [N]
 *
 * Errors: BAD_CONFIG, BAD_HANDLE, FORKED, CLOSED, NO_FILES, NO_MEMORY, SYSTEM, OVERLOADED.
 */
iok_status iok_channel_open(struct iok_kernel *kernel, const char *config, struct iok_channel **out);

/**
 * Closes a channel: what it had under way ends as cancelled, its leases go back, its listeners close. Pointers from
 * `iok_poll` and `iok_reserve` are of no use afterwards. Closing twice is BAD_HANDLE and harmless. [N][F]
 *
 * Errors: BAD_HANDLE, NULL, FORKED (the parent's channel is not touched).
 */
iok_status iok_channel_close(struct iok_channel *channel);

/**
 * A descriptor for poll, epoll or select, level-triggered: readable while completions wait, until `iok_poll` gave 0;
 * once when room came back after FULL; once when the channel has ended. It belongs to the channel: watch it, never read,
 * write or close it. A wake may find nothing. -1 for a handle that cannot be used. [N]
 */
int32_t iok_channel_fd(const struct iok_channel *channel);

/**
 * Has what was submitted taken: once after a burst of submissions. Submitting alone publishes; without a flush (or a
 * wait) the kernel may sleep on. Wakes the I/O thread, or, for a little at a time and in a program that does not watch
 * the descriptor, has this thread take and write it, which costs less than a wake. Before a wait it is of no use. [N]
 */
iok_status iok_flush(struct iok_channel *channel);

/**
 * Flushes, then sleeps until completions wait, or room came back after FULL, or `timeout_ms` is over (0: look only;
 * below 0: no limit). Drop your lock around it. [B]
 *
 * Meanwhile this thread turns the kernel's loop, if no other does, so that what it waits for comes without a wake from
 * one thread to another. In the process's first thread signals are held back but where it sleeps.
 *
 * Returns OK, TIMEOUT, INTERRUPTED (a signal came: run its handler, wait again), or, when nothing is left to read, what
 * ended the channel: CLOSED, CORRUPT, PANIC.
 */
iok_status iok_wait(struct iok_channel *channel, int32_t timeout_ms);

/**
 * Makes room for one submission with up to `payload_bytes`, to be written in place: fill the head (its `size` is set
 * already; make it smaller if less was written) and the payload that follows it, then `iok_commit`. The pointer is good
 * until then. [N]
 *
 * Errors: FULL (nothing is lost: poll or wait, then again), TOO_LARGE (more than a quarter of the ring: send fragments),
 * CLOSED and other ends of the channel, BAD_HANDLE, FORKED, NULL.
 */
iok_status iok_reserve(struct iok_channel *channel, uint32_t payload_bytes, struct iok_submission **out);

/**
 * Publishes what was reserved. BAD_RECORD if nothing was, or its `size` has grown. [N]
 */
iok_status iok_commit(struct iok_channel *channel);

/**
 * Copies one record in and publishes it: `head`, and the `head->size - sizeof *head` bytes at `payload` (may be NULL
 * when that is 0). [N]
 *
 * Errors: as `iok_reserve`; BAD_RECORD for a `size` below that of a head.
 */
iok_status iok_submit(struct iok_channel *channel, const struct iok_submission *head, const void *payload);

/**
 * Copies whole records in, each starting at a multiple of 8, as many as fit, publishes them at once and wakes the kernel
 * if it sleeps. `*taken` says how many bytes went in; give the rest again after FULL. One call for a whole turn of a
 * script's loop: no `iok_flush` is needed after it. [N]
 *
 * Errors: as `iok_submit`; what was taken before the error stands.
 */
iok_status iok_submit_batch(struct iok_channel *channel, const void *records, size_t bytes, size_t *taken);

/**
 * Looks at the completions that wait: returns how many, `*first` the first of them, `*bytes` the length of the run, in
 * which each record starts at the next multiple of 8 after the one before. 0 when there is none. The run is good until
 * `iok_advance`. A channel that has ended and is empty gives 0, and `iok_last_error` says why. [N]
 */
size_t iok_poll(struct iok_channel *channel, const struct iok_completion **first, size_t *bytes);

/**
 * Done with the first `bytes` of the run: a whole number of records with their padding. BAD_RECORD if it is not, or
 * more than the run had. [N]
 */
iok_status iok_advance(struct iok_channel *channel, size_t bytes);

/**
 * What ended the channel, or OK while it lives. [N]
 */
iok_status iok_channel_status(const struct iok_channel *channel);

/**
 * Begins to let the admin endpoint ask the program's threads where they are, by a signal to the very thread; the
 * kernel's `stack_signal=` says which, SIGURG by default. `*signal` becomes its number and `*fd` a descriptor to which a
 * handler of the runtime's own may write its frames as text (at most 64 KiB; non-blocking, never closed in this
 * process, closed in forked children). For a process, not for a kernel: of several kernels the first one's signal holds.
 *
 * After this call the runtime installs its handler for `*signal`, if it has one, and then comes `iok_stack_arm`. In
 * CPython the handler is `faulthandler.register(signal, file=fd, all_threads=False)`. Where a runtime delivers signals
 * at safe points only (Ruby's `trap`, Perl's `%SIG`, a Lua hook that a handler in C sets) it is one that writes its lines
 * and a zero byte. It runs for our asks alone. Without any there are native frames, which every program has.
 *
 * Signals of that number which are not ours still reach the handler that the program had before. A forked child takes
 * the runtime's handler away, if it has one, and opens its own; until then nothing of this happens there. Any thread. [N]
 *
 * Errors: NULL, BAD_HANDLE, FORKED, NO_FILES, SYSTEM.
 */
iok_status iok_stack_open(struct iok_kernel *kernel, int32_t *signal, int32_t *fd);

/**
 * Puts the library's handler on top of the one that is installed, which it calls first. `flags`: 0 or
 * `IOK_STACK_LATE`. Arming twice is harmless. Any thread. [N]
 *
 * Errors: BAD_HANDLE, BAD_CONFIG (not opened, or an unknown flag), FORKED, SYSTEM.
 */
iok_status iok_stack_arm(struct iok_kernel *kernel, uint32_t flags);

/**
 * Ends what `iok_stack_open` began; `iok_kernel_close` does so too. `*restored` becomes true if no kernel of this process
 * uses it any more and the program's handler is in its place again: the runtime may then take its own away. It becomes
 * false if the program has installed another handler since: that one stays. Closing twice is harmless. Any thread. [N]
 *
 * Errors: NULL, BAD_HANDLE, FORKED.
 */
iok_status iok_stack_close(struct iok_kernel *kernel, bool *restored);

/**
 * The name of a status, as `"IOK_STATUS_TIMEOUT"`; `"IOK_STATUS_UNKNOWN"` for a number that is none. Static. [N][F]
 */
const char *iok_status_name(iok_status status);

/**
 * What a status means, in one sentence. Static. [N][F]
 */
const char *iok_status_text(iok_status status);

/**
 * True if the same request may succeed later (whether it may be sent again, its fate says). [N][F]
 */
bool iok_status_retriable(iok_status status);

/**
 * True if the handle that the status came from is of no use any more. [N][F]
 */
bool iok_status_fatal(iok_status status);

/**
 * The text of this thread's last error: which key, which value, what was expected. Empty if there was none. Valid until
 * this thread's next error. [N][F]
 */
const char *iok_last_error(void);

/**
 * A counter of whole numbers: `*cell` is its cell of this process, which begins at any number. It is `iok_cells` with
 * `name=NAME`, for a name without `&`, `=` or `%`. [N]
 *
 * Errors: as `iok_cells`.
 */
iok_status iok_counter(struct iok_kernel *kernel, const char *name, uint64_t **cell);

/**
 * The cells of a series, made if nobody has made it before. `spec` describes it, percent-encoded:
 * `kind=histogram&name=took_seconds&unit=seconds&help=How%20long.&label.shop=a&buckets=0.1,1`. [N]
 *
 * `kind`: `counter` (the default: a u64 that only grows), `sum` (the bits of a double that only grows), `gauge` (the
 * bits of a double), `histogram` (one u64 for each bucket, the last one without a bound, then the sum: the bits of a
 * double; a value is counted in the first bucket whose bound it does not exceed, and in no other). `name`:
 * `[a-zA-Z_:][a-zA-Z0-9_:]*`; a `_total` at the end of what counts is left out, as exporters add it; `unit` is added at
 * its end where it is missing. `buckets`: upper bounds, growing, 128 at most (default: 0.005 to 10). `merge`: how gauges
 * of several processes make one: `sum`, `max` or `min`. Beyond 1000 series of a name, all are one, with the label
 * `overflow="true"`.
 *
 * `*cells` points to the first cell, `*count` says how many there are. They are written without any call: by one thread
 * with a load and a store, by several with an atomic addition (relaxed). The same series has the same cells each time.
 * They are readable and writable for as long as the process lives, whatever becomes of the kernel. In a forked child
 * they are the child's own; a counter there begins where a process that has ended left it, a gauge begins at 0. Readers
 * see the sum over all processes, also of those that have ended; gauges of those that live.
 *
 * Errors: BAD_CONFIG (the text names the key), OVERLOADED (the area has no room for another series), BAD_HANDLE, FORKED,
 * CLOSED, NULL.
 */
iok_status iok_cells(struct iok_kernel *kernel, const char *spec, uint64_t **cells, uint32_t *count);

/**
 * Adds to a cell of whole numbers: one atomic addition (relaxed). For languages that cannot make one, and that may change
 * threads, or run the handler of a signal, between a load and a store. [N]
 */
void iok_cell_count(uint64_t *cell, uint64_t more);

/**
 * Adds to a cell that holds the bits of a double: see `iok_cell_count`. [N]
 */
void iok_cell_add(uint64_t *cell, double more);

/**
 * The slot in which the calling thread says what it is doing: see `iok_marker`. The same one each time, for as long as
 * the thread lives; other threads must not write to it. What the thread submits carries the slot's `current` from here
 * on. A forked child asks again (the slot's `tid` is 0 there). 64 threads of a process have one at a time. [N]
 *
 * Errors: OVERLOADED (no slot is left), BAD_HANDLE, FORKED, CLOSED, NULL.
 */
iok_status iok_marker_slot(struct iok_kernel *kernel, struct iok_markers **out);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* IOKERNEL_H */
