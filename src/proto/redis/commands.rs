//! What each command needs of its conn: the one table of the commands that are not ordinary.
//!
//! Everything that is not listed shares the conn. Most requests leave by [`may_be_special`], a bit test on length and
//! first letter.
use crate::config::ConfigError;
use crate::proto::Refusal;
use crate::value::{Reader, Token};

/// What a command needs, and what it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Shared,
    /// Shares the conn, and runs a script.
    Scripts,
    /// Waits in the server for something to happen.
    Waits,
    /// Waits if its options contain BLOCK.
    WaitsWithBlock,
    /// Changes the conn's state.
    Pinned(Mark),
    /// Subscribes to channels, patterns or shard channels; the byte tells topics of each kind apart.
    Topics(u8),
    /// Ends a subscription.
    EndsTopics,
    Monitor,
    /// Would break the conn for iokernel itself.
    Refused(&'static str),
    /// The second word decides.
    Container(&'static [(&'static str, Rule)]),
    /// `CLIENT REPLY`: only ON leaves one reply to each request.
    ClientReply,
}

/// The state that a pinned command sets or takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Select,
    /// Nothing brings the conn back to what it was.
    Spoils,
}

pub const SUBSCRIBE: u8 = b's';
pub const PSUBSCRIBE: u8 = b'p';
pub const SSUBSCRIBE: u8 = b'S';

/// The channel under which invalidations of `CLIENT TRACKING` are streamed.
pub const INVALIDATIONS: &[u8] = b"__redis__:invalidate";

const SPOILS: Rule = Rule::Pinned(Mark::Spoils);
const REPLICATION: Rule = Rule::Refused("it turns the conn into a replica's, which iokernel does not speak");

/// Every command that is not ordinary, as of Redis 7.4 and Valkey 8.
pub static COMMANDS: &[(&str, Rule)] = &[
    ("BLPOP", Rule::Waits),
    ("BRPOP", Rule::Waits),
    ("BLMOVE", Rule::Waits),
    ("BRPOPLPUSH", Rule::Waits),
    ("BLMPOP", Rule::Waits),
    ("BZPOPMIN", Rule::Waits),
    ("BZPOPMAX", Rule::Waits),
    ("BZMPOP", Rule::Waits),
    ("XREAD", Rule::WaitsWithBlock),
    ("XREADGROUP", Rule::WaitsWithBlock),
    ("WAIT", Rule::Waits),
    ("WAITAOF", Rule::Waits),
    ("EVAL", Rule::Scripts),
    ("EVALSHA", Rule::Scripts),
    ("EVAL_RO", Rule::Scripts),
    ("EVALSHA_RO", Rule::Scripts),
    ("FCALL", Rule::Scripts),
    ("FCALL_RO", Rule::Scripts),
    ("MULTI", Rule::Pinned(Mark::Multi)),
    ("EXEC", Rule::Pinned(Mark::Exec)),
    ("DISCARD", Rule::Pinned(Mark::Discard)),
    ("WATCH", Rule::Pinned(Mark::Watch)),
    ("UNWATCH", Rule::Pinned(Mark::Unwatch)),
    ("SELECT", Rule::Pinned(Mark::Select)),
    ("AUTH", SPOILS),
    ("HELLO", SPOILS),
    ("RESET", SPOILS),
    ("QUIT", SPOILS),
    ("READONLY", SPOILS),
    ("READWRITE", SPOILS),
    ("ASKING", SPOILS),
    ("CLIENT", Rule::Container(CLIENT)),
    ("SCRIPT", Rule::Container(&[("DEBUG", SPOILS)])),
    ("SUBSCRIBE", Rule::Topics(SUBSCRIBE)),
    ("PSUBSCRIBE", Rule::Topics(PSUBSCRIBE)),
    ("SSUBSCRIBE", Rule::Topics(SSUBSCRIBE)),
    ("UNSUBSCRIBE", Rule::EndsTopics),
    ("PUNSUBSCRIBE", Rule::EndsTopics),
    ("SUNSUBSCRIBE", Rule::EndsTopics),
    ("MONITOR", Rule::Monitor),
    ("SYNC", REPLICATION),
    ("PSYNC", REPLICATION),
    ("REPLCONF", REPLICATION),
];

static CLIENT: &[(&str, Rule)] = &[
    ("REPLY", Rule::ClientReply),
    ("TRACKING", SPOILS),
    ("CACHING", SPOILS),
    ("SETNAME", SPOILS),
    ("SETINFO", SPOILS),
    ("NO-EVICT", SPOILS),
    ("NO-TOUCH", SPOILS),
];

const NAME_BYTES_MAX: usize = 15;

/// For each length, the first letters (A is bit 0) of the table's commands.
static FIRST_LETTERS: [u32; NAME_BYTES_MAX + 1] = {
    let mut letters = [0; NAME_BYTES_MAX + 1];
    let mut row = 0;
    while row < COMMANDS.len() {
        let name = COMMANDS[row].0.as_bytes();
        letters[name.len()] |= 1 << (name[0] - b'A');
        row += 1;
    }
    letters
};

/// False for nearly every command that is ordinary.
#[inline]
fn may_be_special(name: &[u8]) -> bool {
    let Some(first) = name.first() else { return false };
    let letter = (first & !0x20).wrapping_sub(b'A');
    letter < 26 && FIRST_LETTERS.get(name.len()).is_some_and(|letters| letters >> letter & 1 == 1)
}

fn find(table: &[(&'static str, Rule)], name: &[u8]) -> Option<(&'static str, Rule)> {
    table.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).copied()
}

/// A command's name in the table's spelling, and its rule once its arguments were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub name: &'static str,
    /// Never `WaitsWithBlock`, `Container` or `ClientReply`.
    pub rule: Rule,
}

pub const ORDINARY: Judged = Judged { name: "", rule: Rule::Shared };

/// Judges a command by its name and its `count` arguments, which `arguments` stands before.
#[inline]
pub fn judge(name: &[u8], arguments: &Reader<'_>, count: u32) -> Judged {
    if may_be_special(name) { judge_special(name, arguments, count) } else { ORDINARY }
}

fn judge_special(name: &[u8], arguments: &Reader<'_>, count: u32) -> Judged {
    let Some((name, rule)) = find(COMMANDS, name) else { return ORDINARY };
    let mut arguments = arguments.clone();
    let judged = |rule| Judged { name, rule };
    match rule {
        Rule::WaitsWithBlock if blocks(&mut arguments, count) => judged(Rule::Waits),
        Rule::WaitsWithBlock => ORDINARY,
        Rule::Container(words) => {
            let word = text(&mut arguments).unwrap_or_default();
            match find(words, word) {
                Some((name, Rule::ClientReply)) => Judged { name, rule: client_reply(&mut arguments) },
                Some((name, rule)) => Judged { name, rule },
                None => ORDINARY,
            }
        }
        // With arguments these are errors that change nothing, except that they spoil a transaction.
        Rule::Pinned(Mark::Exec | Mark::Discard | Mark::Unwatch) if count > 0 => judged(Rule::Pinned(Mark::Multi)),
        rule => judged(rule),
    }
}

fn client_reply(arguments: &mut Reader<'_>) -> Rule {
    match text(arguments) {
        Some(word) if word.eq_ignore_ascii_case(b"ON") => SPOILS,
        _ => Rule::Refused("each request has one reply here"),
    }
}

/// Whether an XREAD or XREADGROUP has the option BLOCK; keys and ids after STREAMS are not options.
fn blocks(arguments: &mut Reader<'_>, count: u32) -> bool {
    let mut left = count;
    while left > 0 {
        left -= 1;
        let Some(word) = text(arguments) else { continue };
        let values = match () {
            () if word.eq_ignore_ascii_case(b"BLOCK") => return true,
            () if word.eq_ignore_ascii_case(b"STREAMS") => return false,
            () if word.eq_ignore_ascii_case(b"GROUP") => 2,
            () if word.eq_ignore_ascii_case(b"COUNT") => 1,
            () => 0,
        };
        for _ in 0..values.min(left) {
            let _ = arguments.token();
            left -= 1;
        }
    }
    false
}

/// The next token, if it is text.
pub fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    match reader.token() {
        Ok(Token::Str(text) | Token::Bin(text)) => Some(text),
        _ => None,
    }
}

/// What to say to someone who sends a pinned command without a lease.
pub fn lease_advice(name: &str, mark: Mark) -> &'static str {
    match (mark, name) {
        (Mark::Multi | Mark::Exec | Mark::Discard, _) => {
            "a transaction needs a lease, or one batch: [[\"MULTI\"], ..., [\"EXEC\"]]"
        }
        (Mark::Watch | Mark::Unwatch, _) => "WATCH needs a lease: only the conn that watches sees the change",
        (Mark::Select, _) => "SELECT needs a lease; for another database open redis://host/N",
        (_, "AUTH" | "HELLO") => "the handshake is iokernel's: put user, password and protocol into the URL",
        (_, "QUIT" | "RESET") => "it would end the conn for everyone: close the endpoint, or take a lease",
        (_, "TRACKING" | "CACHING") => "tracking is the conn's: open with tracking=on, or take a lease",
        (_, "SETNAME") => "the name is the conn's: open with client_name=..., or take a lease",
        _ => "it changes the state of a conn that others share: take a lease",
    }
}

/// Why a command cannot be a plain request at all.
pub fn refuse(judged: Judged) -> Option<Refusal> {
    let name = judged.name;
    let message = match judged.rule {
        Rule::Refused(why) => format!("{name} is refused: {why}"),
        Rule::EndsTopics => format!("{name} is refused: cancel the stream instead"),
        Rule::Topics(_) => format!("{name} brings many replies: open it as a stream"),
        _ => return None,
    };
    Some(bad_request(message))
}

#[cold]
pub fn bad_request(message: impl Into<String>) -> Refusal {
    Refusal { code: "BADREQUEST", message: message.into() }
}

/// A database number, as a URL names it.
pub fn database(text: &str) -> Result<u32, ConfigError> {
    text.parse().map_err(|_| ConfigError::new("database", text, "a database number, as in redis://host/0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::write;

    fn rule(words: &[&str]) -> Rule {
        let mut body = Vec::new();
        for word in words {
            write::str(&mut body, word.as_bytes());
        }
        let mut reader = Reader::new(&body);
        let name = text(&mut reader).unwrap();
        judge(name, &reader, words.len() as u32 - 1).rule
    }

    #[test]
    fn ordinary_commands_leave_by_the_bit_test() {
        for name in ["GET", "SET", "MGET", "HGET", "INCR", "DEL", "EXPIRE", "LPUSH", "ZADD", "HGETALL", "PUBLISH", ""] {
            assert!(!may_be_special(name.as_bytes()), "{name}");
        }
        for (name, _) in COMMANDS {
            assert!(may_be_special(name.as_bytes()) && may_be_special(name.to_lowercase().as_bytes()), "{name}");
        }
    }

    #[test]
    fn commands_are_judged_in_any_case_and_by_their_options() {
        assert_eq!(rule(&["blpop", "k", "0"]), Rule::Waits);
        assert_eq!(rule(&["Multi"]), Rule::Pinned(Mark::Multi));
        assert_eq!(rule(&["exec", "extra"]), Rule::Pinned(Mark::Multi));
        assert_eq!(rule(&["XREAD", "COUNT", "BLOCK", "STREAMS", "BLOCK", "0"]), Rule::Shared);
        assert_eq!(rule(&["XREAD", "COUNT", "2", "block", "5", "STREAMS", "s", "$"]), Rule::Waits);
        assert_eq!(rule(&["XREADGROUP", "GROUP", "BLOCK", "STREAMS", "STREAMS", "s", ">"]), Rule::Shared);
        assert_eq!(rule(&["XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "s", ">"]), Rule::Waits);
        assert_eq!(rule(&["CLIENT", "id"]), Rule::Shared);
        assert_eq!(rule(&["CLIENT"]), Rule::Shared);
        assert_eq!(rule(&["client", "setname", "x"]), SPOILS);
        assert_eq!(rule(&["CLIENT", "REPLY", "on"]), SPOILS);
        assert!(matches!(rule(&["CLIENT", "REPLY", "OFF"]), Rule::Refused(_)));
        assert!(matches!(rule(&["psync", "?", "-1"]), Rule::Refused(_)));
        assert_eq!(rule(&["SCRIPT", "LOAD", "x"]), Rule::Shared);
        assert_eq!(rule(&["SCRIPT", "DEBUG", "YES"]), SPOILS);
        assert_eq!(rule(&["subscribe", "a"]), Rule::Topics(SUBSCRIBE));
        assert_eq!(rule(&["WAITAOF", "1", "1", "0"]), Rule::Waits);
        assert_eq!(rule(&["WHAT"]), Rule::Shared);
    }
}
