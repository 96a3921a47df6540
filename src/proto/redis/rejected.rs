//! Errors that say a request was not executed, and what that means for the next try.
use super::slots::Slot;
use super::wire::{Shape, split_error};
use crate::proto::Rejection;

/// Before the error that a transaction met at its EXEC.
const BECAUSE: &[u8] = b"Transaction discarded because of: ";

/// Reads an error as a rejection. `scripts`: the request may have run a script.
///
/// A script or a function goes on to its first failing call, so an error from within one may follow effects, a PUBLISH on
/// a replica for one. Servers since 7.0 add where it was raised (`script: <sha>, on @user_script:1`), unless the script
/// returned it by itself (`redis.pcall`): hence READONLY in answer to a script never counts, except the one that comes
/// before it starts. Redirects come before anything runs.
pub fn rejection(text: &[u8], scripts: bool) -> Option<Rejection<'_>> {
    let (code, message) = split_error(text);
    match code {
        b"READONLY" if scripts && !message.starts_with(b"Can not run script") => None,
        _ if contains(message, b" script: ") => None,
        b"READONLY" => Some(Rejection::NotPrimary),
        // CLIENT UNBLOCK gives the same code for another reason.
        b"UNBLOCKED" if contains(message, b"instance state changed") => Some(Rejection::NotPrimary),
        b"LOADING" | b"MASTERDOWN" | b"CLUSTERDOWN" => Some(Rejection::NotServing),
        b"TRYAGAIN" => Some(Rejection::TryAgain),
        b"MOVED" => moved(message, false),
        b"ASK" => moved(message, true),
        _ => None,
    }
}

/// `3999 127.0.0.1:6381`. A host of `?` is one that the server has no name for, so that there is nowhere to go.
fn moved(message: &[u8], once: bool) -> Option<Rejection<'_>> {
    let (slot, to) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    let slot = slot.parse().ok().filter(|slot| *slot < super::routes::SLOTS)?;
    let (host, port) = to.rsplit_once(':')?;
    let valid = host != "?" && host.len() <= 255 && host.chars().all(|c| c.is_ascii_graphic());
    let port: u16 = port.parse().ok()?;
    (valid && port != 0).then_some(Rejection::Moved { slot, to, once })
}

/// Whether an error shows that the server is a replica; scripts may say READONLY for reasons of their own.
pub fn shows_replica(text: &[u8]) -> bool {
    text.starts_with(b"READONLY You can't write against a read only") || because(text).is_some_and(shows_replica)
}

/// The error that made an EXEC fail.
fn because(text: &[u8]) -> Option<&[u8]> {
    let (code, message) = split_error(text);
    if code == b"EXECABORT" { message.strip_prefix(BECAUSE) } else { None }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn is_same(one: Rejection<'_>, other: Rejection<'_>) -> bool {
    match (one, other) {
        (Rejection::Moved { once, .. }, Rejection::Moved { once: other, .. }) => once == other,
        (one, other) => one == other,
    }
}

/// What the replies of a batch show together, as far as they came.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Something was executed, or may have been.
    executed: bool,
    /// A MULTI was answered, and its EXEC not yet.
    in_multi: bool,
    /// The first rejection, as the server wrote it.
    text: Vec<u8>,
    pub shows_replica: bool,
}

impl Verdict {
    pub fn note(&mut self, slot: &Slot, shape: Shape<'_>) {
        match shape {
            Shape::Error(text) => self.error(slot, text),
            Shape::Text(b"OK") if slot.transactions && !self.in_multi => self.in_multi = true,
            Shape::Text(b"QUEUED") if slot.transactions && self.in_multi => {}
            _ => self.executed = true,
        }
    }

    fn error(&mut self, slot: &Slot, text: &[u8]) {
        self.shows_replica |= shows_replica(text);
        if self.executed {
            return;
        }
        let ends = slot.transactions && split_error(text).0 == b"EXECABORT";
        if ends {
            self.in_multi = false;
        }
        let text = if ends { because(text).unwrap_or_default() } else { text };
        match rejection(text, slot.scripts) {
            Some(_) if self.text.is_empty() => self.text = text.to_vec(),
            Some(why) => {
                let first = rejection(&self.text, slot.scripts);
                self.executed = !first.is_some_and(|first| is_same(first, why));
            }
            None => self.executed = !ends,
        }
    }

    /// The rejection that the whole batch comes to.
    pub fn rejected(&self) -> Option<&[u8]> {
        (!self.executed && !self.text.is_empty()).then_some(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_as_rejections() {
        let moved = |slot, to, once| Some(Rejection::Moved { slot, to, once });
        for (text, expected) in [
            ("READONLY You can't write against a read only replica.", Some(Rejection::NotPrimary)),
            ("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)", {
                Some(Rejection::NotPrimary)
            }),
            ("UNBLOCKED client unblocked via CLIENT UNBLOCK", None),
            ("LOADING Redis is loading the dataset in memory", Some(Rejection::NotServing)),
            ("MASTERDOWN Link with MASTER is down", Some(Rejection::NotServing)),
            ("CLUSTERDOWN Hash slot not served", Some(Rejection::NotServing)),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Some(Rejection::TryAgain)),
            ("MOVED 3999 127.0.0.1:6381", moved(3999, "127.0.0.1:6381", false)),
            ("ASK 16383 ::1:6381", moved(16383, "::1:6381", true)),
            ("MOVED 0 :6381", moved(0, ":6381", false)),
            ("MOVED 16384 h:1", None),
            ("MOVED 1 h", None),
            ("MOVED 1 h:0", None),
            ("MOVED 1 ?:6381", None),
            ("MOVED 1 a b:1", None),
            ("MOVED", None),
            ("MISCONF Errors writing to the AOF file", None),
            ("OOM command not allowed", None),
            ("NOREPLICAS Not enough good replicas to write.", None),
            ("ERR wrong", None),
            ("READONLY You can't write against a read only replica. script: 4ca2, on @user_script:1.", None),
        ] {
            assert_eq!(rejection(text.as_bytes(), false), expected, "{text}");
        }
        let readonly = b"READONLY You can't write against a read only replica.";
        assert_eq!(rejection(readonly, true), None);
        let before = b"READONLY Can not run script with write flag on readonly replica.";
        assert_eq!(rejection(before, true), Some(Rejection::NotPrimary));
        assert!(shows_replica(readonly) && !shows_replica(b"READONLY says a script"));
    }
}
