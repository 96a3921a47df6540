//! What every call and every completion says of itself: one number, one name, one sentence, two predicates.
//!
//! Numbers are grouped by hundred (1xx the caller's call, 2xx flow, 3xx the peer, 4xx the system, 5xx iokernel itself),
//! explicit, and never used again for something else.

/// The result of a function, or of a request in its completion. 0 is success, negatives are errors.
pub type Status = i32;

/// Success.
pub const IOK_STATUS_OK: Status = 0;

/// A pointer that must not be NULL was NULL.
pub const IOK_STATUS_NULL: Status = -101;
/// The handle is unknown or stale: it was closed, or never was one.
pub const IOK_STATUS_BAD_HANDLE: Status = -102;
/// The kernel, channel or endpoint was closed while the request was under way.
pub const IOK_STATUS_CLOSED: Status = -103;
/// The handle belongs to the parent of this forked process; open a new kernel here.
pub const IOK_STATUS_FORKED: Status = -104;
/// A URL or option is wrong; the text names the key, the value and what was expected.
pub const IOK_STATUS_BAD_CONFIG: Status = -105;
/// A submission record is malformed: its size, op, flags or alignment.
pub const IOK_STATUS_BAD_RECORD: Status = -106;
/// The payload is not a request that the endpoint's protocol can send.
pub const IOK_STATUS_BAD_REQUEST: Status = -107;
/// The message is larger than its limit.
pub const IOK_STATUS_TOO_LARGE: Status = -108;
/// No endpoint of that number is open.
pub const IOK_STATUS_NO_ENDPOINT: Status = -109;
/// No lease of that number is held.
pub const IOK_STATUS_NO_LEASE: Status = -110;
/// No request of that tag waits for a reply.
pub const IOK_STATUS_NO_REQUEST: Status = -111;

/// No room in the submission ring: poll, or wait, and submit again. Nothing was taken.
pub const IOK_STATUS_FULL: Status = -201;
/// The deadline passed; the fate says whether the request may have been executed.
pub const IOK_STATUS_TIMEOUT: Status = -202;
/// Cancelled by the program; the fate says whether the request may have been executed.
pub const IOK_STATUS_CANCELLED: Status = -203;
/// A limit of the endpoint was reached; nothing was sent.
pub const IOK_STATUS_OVERLOADED: Status = -204;
/// A signal interrupted the wait; handle it and wait again.
pub const IOK_STATUS_INTERRUPTED: Status = -205;
/// The reply came, but the program had left too many unread: its payload was dropped.
pub const IOK_STATUS_REPLY_DROPPED: Status = -206;

/// The peer answered with an error: the payload is [code, message].
pub const IOK_STATUS_REMOTE: Status = -301;
/// The connection was lost before the reply; the fate says whether the request may have been executed.
pub const IOK_STATUS_LOST: Status = -302;
/// No connection could be made in time; nothing was sent. The text gives the last cause.
pub const IOK_STATUS_UNAVAILABLE: Status = -303;
/// The peer broke the protocol; its connection was closed.
pub const IOK_STATUS_PROTOCOL: Status = -304;
/// The peer refused the handshake (user, password, database, version).
pub const IOK_STATUS_REFUSED: Status = -305;

/// A system call failed; the text names it and its errno.
pub const IOK_STATUS_SYSTEM: Status = -401;
/// The system has no memory for this.
pub const IOK_STATUS_NO_MEMORY: Status = -402;
/// The process or the system has no file descriptor left.
pub const IOK_STATUS_NO_FILES: Status = -403;

/// A fault inside iokernel was contained; the text tells where. Please report it.
pub const IOK_STATUS_PANIC: Status = -501;
/// The ring's indices or records are corrupt; the channel was closed.
pub const IOK_STATUS_CORRUPT: Status = -502;

/// One row for each status.
pub struct Row {
    pub status: Status,
    pub name: &'static str,
    pub sentence: &'static str,
    /// The same request may succeed later, if its fate allows sending it again.
    pub retriable: bool,
    /// The handle it came from is of no use any more.
    pub fatal: bool,
}

macro_rules! table {
    ($($status:ident $retriable:literal $fatal:literal $sentence:literal;)*) => {
        /// Every status there is, in the order of the numbers.
        pub static TABLE: &[Row] = &[$(Row {
            status: $status, name: stringify!($status), sentence: $sentence, retriable: $retriable, fatal: $fatal,
        },)*];
        /// The same names and sentences as C strings.
        #[cfg_attr(loom, allow(dead_code))]
        pub(crate) static C_NAMES: &[(Status, &std::ffi::CStr, &std::ffi::CStr)] = &[$((
            $status,
            match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($status), "\0").as_bytes()) { Ok(s) => s, Err(_) => panic!() },
            match std::ffi::CStr::from_bytes_with_nul(concat!($sentence, "\0").as_bytes()) { Ok(s) => s, Err(_) => panic!() },
        ),)*];
    };
}

table! {
    IOK_STATUS_OK            false false "success";
    IOK_STATUS_NULL          false false "a pointer that must not be NULL was NULL";
    IOK_STATUS_BAD_HANDLE    false true  "the handle is unknown or was closed";
    IOK_STATUS_CLOSED        false true  "closed while the request was under way";
    IOK_STATUS_FORKED        false true  "the handle belongs to the parent of this forked process";
    IOK_STATUS_BAD_CONFIG    false false "a URL or option is wrong";
    IOK_STATUS_BAD_RECORD    false false "a submission record is malformed";
    IOK_STATUS_BAD_REQUEST   false false "the payload is not a request of this protocol";
    IOK_STATUS_TOO_LARGE     false false "the message is larger than its limit";
    IOK_STATUS_NO_ENDPOINT   false false "no endpoint of that number is open";
    IOK_STATUS_NO_LEASE      false false "no lease of that number is held";
    IOK_STATUS_NO_REQUEST    false false "no request of that tag waits for a reply";
    IOK_STATUS_FULL          true  false "no room in the submission ring";
    IOK_STATUS_TIMEOUT       true  false "the deadline passed";
    IOK_STATUS_CANCELLED     false false "cancelled by the program";
    IOK_STATUS_OVERLOADED    true  false "a limit of the endpoint was reached";
    IOK_STATUS_INTERRUPTED   true  false "a signal interrupted the wait";
    IOK_STATUS_REPLY_DROPPED false false "the reply was dropped because the program left too many unread";
    IOK_STATUS_REMOTE        false false "the peer answered with an error";
    IOK_STATUS_LOST          true  false "the connection was lost before the reply";
    IOK_STATUS_UNAVAILABLE   true  false "no connection could be made";
    IOK_STATUS_PROTOCOL      false false "the peer broke the protocol";
    IOK_STATUS_REFUSED       false false "the peer refused the handshake";
    IOK_STATUS_SYSTEM        true  false "a system call failed";
    IOK_STATUS_NO_MEMORY     true  false "the system has no memory for this";
    IOK_STATUS_NO_FILES      true  false "no file descriptor is left";
    IOK_STATUS_PANIC         false true  "a fault inside iokernel was contained";
    IOK_STATUS_CORRUPT       false true  "the ring is corrupt and its channel was closed";
}

/// The row of a status, if there is one.
pub fn row(status: Status) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.status == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_row_and_numbers_descend() {
        let source = include_str!("status.rs");
        let declared = source.lines().filter(|line| line.starts_with("pub const IOK_STATUS_")).count();
        assert_eq!(declared, TABLE.len());
        assert!(TABLE.windows(2).all(|pair| pair[0].status > pair[1].status));
    }
}
