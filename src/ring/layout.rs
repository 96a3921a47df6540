//! The shapes that both sides of a region agree on: the page at its start, the two record heads, and the numbers
//! that records carry. Everything is `repr(C)`, in the machine's byte order, and asserted to the byte.

/// `IOKERNEL` as the first eight bytes of a region, in the machine's byte order.
pub const IOK_MAGIC: u64 = u64::from_ne_bytes(*b"IOKERNEL");
/// Grows by one when an older binding could no longer read a region or a record.
pub const IOK_ABI_VERSION: u32 = 1;

/// Feature bit: messages larger than a quarter of a ring travel as fragments.
pub const IOK_FEATURE_FRAGMENTS: u64 = 1 << 0;
/// Feature bit: services (connecting out).
pub const IOK_FEATURE_SERVICES: u64 = 1 << 1;
/// Feature bit: listeners (accepting).
pub const IOK_FEATURE_LISTENERS: u64 = 1 << 2;
/// Feature bit: leases.
pub const IOK_FEATURE_LEASES: u64 = 1 << 3;
/// Feature bit: streams (SUBSCRIBE and the pushes it brings).
pub const IOK_FEATURE_STREAMS: u64 = 1 << 4;
/// Feature bit: services of many peers (`IOK_OP_PEERS`, `IOK_OP_WATCH`, `IOK_FLAG_ROUTE`).
pub const IOK_FEATURE_PEERS: u64 = 1 << 5;
/// Feature bit: requests that carry a trace context (`IOK_FLAG_TRACE`).
pub const IOK_FEATURE_TRACE: u64 = 1 << 6;
/// Feature bit: requests and streams that take more messages (`IOK_OP_SEND`, `IOK_OP_CREDIT`, `IOK_KIND_END`).
pub const IOK_FEATURE_SENDS: u64 = 1 << 7;

/// Every record and every ring index is a multiple of this.
pub const IOK_RECORD_ALIGN: u32 = 8;
/// Size in bytes of an `iok_submission`.
pub const IOK_SUBMISSION_BYTES: u32 = 40;
/// Size in bytes of an `iok_completion`.
pub const IOK_COMPLETION_BYTES: u32 = 72;

/// Answered by the I/O thread with the same payload and no network. `DONE`.
pub const IOK_OP_ECHO: u16 = 1;
/// Opens a service; payload: its URL as UTF-8. `DONE` at once with the endpoint's number; connecting goes on behind.
pub const IOK_OP_OPEN: u16 = 2;
/// Opens a listener; payload: its URL. `DONE` once bound, payload: the bound URL as text. Its requests then come to
/// this channel as `REQUEST` completions.
pub const IOK_OP_LISTEN: u16 = 3;
/// Closes an endpoint; what is in flight ends with `IOK_STATUS_CLOSED`. `DONE`. With a `timeout_ms`, a listener leaves: at once
/// the kernel is not ready any more, `key` milliseconds later nobody new is let in, each client goes once it has the replies that it waits for, and `DONE` comes when all have gone, or when
/// the time is over (`IOK_STATUS_TIMEOUT`).
pub const IOK_OP_CLOSE: u16 = 4;
/// One request; payload: a MessagePack array. `key`: a lease, or 0. `DONE` with the reply.
pub const IOK_OP_REQUEST: u16 = 5;
/// A request that keeps giving (SUBSCRIBE, MONITOR). `ACCEPTED` once it stands, then `PUSH`es, `DONE` at its end
/// (`IOK_OP_CANCEL` ends it).
pub const IOK_OP_STREAM: u16 = 6;
/// Ends the request, stream or lease call of this channel that has the tag `tag`. Has no completion of its own.
pub const IOK_OP_CANCEL: u16 = 7;
/// Asks for a conn of one's own. `DONE`, payload: its lease number as a MessagePack unsigned integer.
pub const IOK_OP_LEASE: u16 = 8;
/// Gives the lease `key` back; its conn is made clean or closed. `DONE`.
pub const IOK_OP_RELEASE: u16 = 9;
/// Answers the listener's request whose `REQUEST` completion had this `tag`. Payload: one MessagePack value; an error
/// is ext 1 (`[code, message]`). Completes only if it fails (`DONE` with the reason).
pub const IOK_OP_REPLY: u16 = 10;
/// Asks how an endpoint is; endpoint 0: the kernel and all of them. `DONE`, payload: a MessagePack map. With
/// `IOK_FLAG_UNTIL_UP` it answers once the endpoint (the kernel: each one opened with `require=true`) is up, or when its
/// deadline passes. With a `key`: asks how the request, or stream, is that was submitted under this tag; a map of `has_conn`
/// (it was given to one), and `sent_ago_ns` (since its last byte was given to the system; nil: it was not yet).
pub const IOK_OP_STATE: u16 = 11;
/// Tells the peers of a service opened as `scheme+app://name`. Payload: a MessagePack array of `"host:port"`, or of maps
/// with `address` and, if wanted, `weight`, `priority` and `role`. The whole set, each time. `DONE`.
pub const IOK_OP_PEERS: u16 = 12;
/// Streams an endpoint's state (endpoint 0: the kernel's): `ACCEPTED`, then a `PUSH` with the map of `IOK_OP_STATE` at
/// once and after each change of its state, its peers or their roles. `IOK_OP_CANCEL` ends it.
pub const IOK_OP_WATCH: u16 = 13;
/// One more message for the request or stream that was submitted under the tag `key` (of a listener: for the request whose
/// `REQUEST` completion had it). Payload: one MessagePack value, as the protocol has it. `DONE` once it is on its way, which
/// is when the next may come without piling up; with `IOK_FLAG_QUIET` only if it fails.
pub const IOK_OP_SEND: u16 = 14;
/// Gives bytes of the window back (`window=`) of the stream under the tag `key`: `tag` of them, as payload bytes of `PUSH`es
/// that the program is done with. Has no completion.
pub const IOK_OP_CREDIT: u16 = 15;

/// More fragments of this message follow, under the same tag. Records of other tags may stand between them.
pub const IOK_FLAG_MORE: u16 = 1 << 0;
/// The request may be sent again when its fate is in doubt.
pub const IOK_FLAG_IDEMPOTENT: u16 = 1 << 1;
/// No completion unless it fails.
pub const IOK_FLAG_QUIET: u16 = 1 << 2;
/// For `IOK_OP_STATE`: answer when the endpoint is up.
pub const IOK_FLAG_UNTIL_UP: u16 = 1 << 3;
/// `key` is a route key: requests (and leases) of one key go to one peer for as long as the peers stay the same.
pub const IOK_FLAG_ROUTE: u16 = 1 << 4;
/// For `IOK_OP_REQUEST` alone: the payload begins with `IOK_TRACE_BYTES` of W3C trace context, in front of the MessagePack: the
/// trace id (16 bytes), the parent span id (8), the trace flags (1), the version (1, which is 0), and six bytes of 0. In
/// a message of fragments it is in the first.
pub const IOK_FLAG_TRACE: u16 = 1 << 5;
/// Bytes of a trace context (`IOK_FLAG_TRACE`).
pub const IOK_TRACE_BYTES: u32 = 32;

/// The last completion of its tag.
pub const IOK_KIND_DONE: u16 = 1;
/// One more message of a stream.
pub const IOK_KIND_PUSH: u16 = 2;
/// A client of a listener asks; reply with the same tag.
pub const IOK_KIND_REQUEST: u16 = 3;
/// Pushes of this stream were dropped because the program left too many unread; payload: how many, a MessagePack
/// unsigned integer.
pub const IOK_KIND_LOST: u16 = 4;
/// The stream stands: what happens from here on is delivered. Comes again after a reconnect.
pub const IOK_KIND_ACCEPTED: u16 = 5;
/// The client of a listener's request is gone; a reply has nowhere to go.
pub const IOK_KIND_GONE: u16 = 6;
/// Nothing happened; taking it shows that the program lives (`max_app_silence`). Its tag is 0. Pass over it.
pub const IOK_KIND_TICK: u16 = 7;
/// The peer sends nothing more under this tag; what we send still goes. Payload: a last word, as the protocol has it.
pub const IOK_KIND_END: u16 = 8;

/// Nothing of the request was written: sending it again is safe.
pub const IOK_FATE_NOT_SENT: u8 = 1;
/// Written at least in part, and no reply seen.
pub const IOK_FATE_MAYBE_EXECUTED: u8 = 2;
/// The peer answered.
pub const IOK_FATE_REPLIED: u8 = 3;

/// No payload.
pub const IOK_ENCODING_NONE: u8 = 0;
/// One MessagePack value.
pub const IOK_ENCODING_MSGPACK: u8 = 1;
/// The payload is the bytes themselves.
pub const IOK_ENCODING_BYTES: u8 = 2;
/// The payload is text: UTF-8 unless the peer broke that promise.
pub const IOK_ENCODING_TEXT: u8 = 3;
/// The protocol's own frame (`raw=true`).
pub const IOK_ENCODING_RAW: u8 = 4;

/// In MessagePack: an error, `[code, message]`.
pub const IOK_EXT_ERROR: i8 = 1;
/// In MessagePack: an integer of any size, in decimal text.
pub const IOK_EXT_BIG_NUMBER: i8 = 2;
/// In MessagePack: text with a format, `fmt:text` where `fmt` is three bytes (`txt`, `mkd`).
pub const IOK_EXT_VERBATIM: i8 = 3;
/// In MessagePack: a set; its bytes are one MessagePack array.
pub const IOK_EXT_SET: i8 = 4;
/// In MessagePack: a value with attributes; its bytes are one MessagePack array `[map, value]`.
pub const IOK_EXT_ATTRIBUTED: i8 = 5;

/// No deadline, in `timeout_ms`. 0 means the endpoint's own default.
pub const IOK_TIMEOUT_NONE: u32 = u32::MAX;

/// The head of a submission record. The payload follows it at once; the next record starts at the next multiple of 8.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// Bytes of this record, head and payload, without padding.
    pub size: u32,
    /// `IOK_OP_*`.
    pub op: u16,
    /// `IOK_FLAG_*`.
    pub flags: u16,
    /// The endpoint's number, from the completion of `IOK_OP_OPEN` or `IOK_OP_LISTEN`; 0 where none is meant.
    pub endpoint: u32,
    /// Milliseconds from now until the deadline; 0: the endpoint's default; `IOK_TIMEOUT_NONE`: none.
    pub timeout_ms: u32,
    /// The program's own number for this request, returned in its completions. Unique among those in flight.
    pub tag: u64,
    /// A lease, a route key (`IOK_FLAG_ROUTE`), or 0.
    pub key: u64,
    /// Payload bytes of the whole message, in its first fragment; 0 in a record that is a whole message.
    pub bytes_total: u32,
    /// The number of the marker that the program is in, or 0. The library fills it in where a binding leaves 0.
    pub marker: u32,
}

/// The head of a completion record. The payload follows it at once; the next record starts at the next multiple of 8.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Bytes of this record, head and payload, without padding.
    pub size: u32,
    /// `IOK_KIND_*`.
    pub kind: u16,
    /// `IOK_FLAG_MORE`, or 0.
    pub flags: u16,
    /// The endpoint's number.
    pub endpoint: u32,
    /// `IOK_STATUS_*`.
    pub status: i32,
    /// The tag of the submission that this answers; for `REQUEST`, the tag to reply with.
    pub tag: u64,
    /// A number for the peer's conn, growing with each conn; 0 where none was involved.
    pub peer: u32,
    /// `IOK_FATE_*`.
    pub fate: u8,
    /// `IOK_ENCODING_*` of the payload. With a status below 0, the payload is MessagePack `[code, message]`.
    pub encoding: u8,
    /// 0.
    pub reserved: u16,
    /// Payload bytes of the whole message; the same in each of its fragments.
    pub bytes_total: u32,
    /// 0.
    pub reserved2: u32,
    /// When the I/O thread took the request up, in nanoseconds of CLOCK_MONOTONIC; 0: never.
    pub queued_ns: u64,
    /// When its last byte was given to the system; 0: never.
    pub sent_ns: u64,
    /// When the read that held the first byte of its reply returned; 0: never.
    pub first_byte_ns: u64,
    /// When this completion was made.
    pub done_ns: u64,
}

/// Markers of one thread that have a place at a time.
pub const IOK_MARKER_PLACES: u32 = 15;
/// Bytes of text that a marker holds.
pub const IOK_MARKER_TEXT_BYTES: u32 = 56;
/// Beside the length of a marker's text: the marker was entered and not left.
pub const IOK_MARKER_ACTIVE: u32 = 0x8000_0000;
/// The bits of a serial that count up; those above them are the slot's own.
pub const IOK_MARKER_COUNT_MASK: u32 = (1 << 26) - 1;

/// What a thread is doing, as it says: one marker.
///
/// To enter one: take a place whose `length` has not `IOK_MARKER_ACTIVE` (none is left: count in `overflows`, and go on
/// without); count the slot's `last` up within `IOK_MARKER_COUNT_MASK` (passing over 0) for its serial; store 0 to
/// `serial`, then the text, then `serial` and `length` as one 64-bit word with release order, and at the end the serial
/// to the slot's `current`. To leave it: take `IOK_MARKER_ACTIVE` out of `length` and store the marker around it (or 0)
/// to `current`. A place that was left stays readable until it is taken again: begin to
/// look for one at the count modulo `IOK_MARKER_PLACES`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Marker {
    /// The number that submissions carry; 0: the place was never used.
    pub serial: u32,
    /// Bytes of the text, and `IOK_MARKER_ACTIVE`.
    pub length: u32,
    /// UTF-8, cut at the start of a character.
    pub text: [u8; IOK_MARKER_TEXT_BYTES as usize],
}

/// The markers of one thread, in shared memory: written by that thread with plain stores, read by the I/O thread.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MarkerSlot {
    /// The thread's number (gettid). 0 in a forked child: ask for a slot again.
    pub tid: u32,
    /// Serial of the marker whose number submissions of this thread carry, where they say 0; 0: none.
    pub current: u32,
    /// The last serial that was given.
    pub last: u32,
    /// Markers that found no place.
    pub overflows: u32,
    /// 0.
    pub reserved: [u32; 12],
    pub places: [Marker; IOK_MARKER_PLACES as usize],
}

const _: () = assert!(size_of::<Marker>() == 64 && size_of::<MarkerSlot>() == 1024);
const _: () = assert!(size_of::<Submission>() == IOK_SUBMISSION_BYTES as usize);
const _: () = assert!(size_of::<Completion>() == IOK_COMPLETION_BYTES as usize);

/// `size` rounded up to the next record.
pub const fn aligned(size: usize) -> usize {
    (size + (IOK_RECORD_ALIGN as usize - 1)) & !(IOK_RECORD_ALIGN as usize - 1)
}
