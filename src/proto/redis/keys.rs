//! Where the keys of a command stand, and which commands concern a node and not keys: as of Redis 7.4 and Valkey 8.
//!
//! The table holds the commands whose keys are not just their first argument. Every other command is taken to have one
//! key there, those of modules included. `tests/redis_cluster.rs` compares it with what a server says of itself.
use super::commands::{bad_request, text};
use super::encode::{argument_text, malformed};
use crate::proto::Refusal;
use crate::value::{Reader, Token};

/// Where the keys stand among the arguments, which count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// First, last and step. A last one below 0 counts from the end: -1 is the last argument.
    At(u32, i32, u32),
    /// Their number stands at this position, and they follow.
    Counted(u32),
    /// One key comes first, then the number of the others, then these.
    OneAndCounted,
    /// The first half of what follows the word STREAMS.
    Streams,
    /// The first argument, and the one after the word STORE.
    Sort,
    /// The first argument, and the one after the words STORE or STOREDIST.
    GeoRadius,
    /// The third argument; if that is empty, what follows the word KEYS.
    Migrate,
    /// No keys but channels, up to such a last one: they matter for hashes only, so that who publishes and who
    /// subscribes meet.
    Channels(i32),
    /// The number of a slot.
    Slot(u32),
    /// No keys: any node answers.
    Any,
    /// It concerns each node: who means the whole cluster must ask them all.
    Fanout,
    /// The second word decides; the last rule is for the words that are not named.
    Words(&'static [(&'static str, Keys)], &'static Keys),
}

use Keys::{Any, At, Channels, Counted, Fanout, GeoRadius, Migrate, OneAndCounted, Slot, Sort, Streams, Words};

/// What a command without a row has.
const ONE: Keys = At(1, 1, 1);
const ALL: Keys = At(1, -1, 1);
const TWO: Keys = At(1, 2, 1);
const ALL_BUT_LAST: Keys = At(1, -2, 1);
const PAIRS: Keys = At(1, -1, 2);
const TRIPLES: Keys = At(1, -1, 3);
const SECOND: Keys = At(2, 2, 1);

static TABLE: &[(&str, Keys)] = &[
    ("ACL", Words(&[("SETUSER", Fanout), ("DELUSER", Fanout), ("LOAD", Fanout), ("SAVE", Fanout)], &Any)),
    ("ASKING", Any),
    ("AUTH", Any),
    ("BGREWRITEAOF", Fanout),
    ("BGSAVE", Fanout),
    ("BITOP", At(2, -1, 1)),
    ("BLMOVE", TWO),
    ("BLMPOP", Counted(2)),
    ("BLPOP", ALL_BUT_LAST),
    ("BRPOP", ALL_BUT_LAST),
    ("BRPOPLPUSH", TWO),
    ("BZMPOP", Counted(2)),
    ("BZPOPMAX", ALL_BUT_LAST),
    ("BZPOPMIN", ALL_BUT_LAST),
    ("CLIENT", Words(&[("KILL", Fanout), ("PAUSE", Fanout), ("UNPAUSE", Fanout), ("UNBLOCK", Fanout)], &Any)),
    ("CLUSTER", Words(CLUSTER, &Fanout)),
    ("CMS.MERGE", OneAndCounted),
    ("COMMAND", Any),
    ("COMMANDLOG", Words(&[("RESET", Fanout)], &Any)),
    ("CONFIG", Words(&[("GET", Any), ("HELP", Any)], &Fanout)),
    ("COPY", TWO),
    ("DBSIZE", Fanout),
    ("DEBUG", Words(&[("OBJECT", SECOND), ("PROTOCOL", Any), ("HELP", Any)], &Fanout)),
    ("DEL", ALL),
    ("DISCARD", Any),
    ("ECHO", Any),
    ("EVAL", Counted(2)),
    ("EVALSHA", Counted(2)),
    ("EVALSHA_RO", Counted(2)),
    ("EVAL_RO", Counted(2)),
    ("EXEC", Any),
    ("EXISTS", ALL),
    ("FAILOVER", Fanout),
    ("FCALL", Counted(2)),
    ("FCALL_RO", Counted(2)),
    ("FLUSHALL", Fanout),
    ("FLUSHDB", Fanout),
    (
        "FUNCTION",
        Words(&[("LOAD", Fanout), ("DELETE", Fanout), ("FLUSH", Fanout), ("RESTORE", Fanout), ("KILL", Fanout)], &Any),
    ),
    ("GEORADIUS", GeoRadius),
    ("GEORADIUSBYMEMBER", GeoRadius),
    ("GEOSEARCHSTORE", TWO),
    ("HELLO", Any),
    ("INFO", Any),
    ("JSON.MGET", ALL_BUT_LAST),
    ("JSON.MSET", TRIPLES),
    ("KEYS", Fanout),
    ("LASTSAVE", Any),
    ("LATENCY", Words(&[("RESET", Fanout)], &Any)),
    ("LCS", TWO),
    ("LMOVE", TWO),
    ("LMPOP", Counted(1)),
    ("LOLWUT", Any),
    ("MEMORY", Words(&[("USAGE", SECOND), ("PURGE", Fanout)], &Any)),
    ("MGET", ALL),
    ("MIGRATE", Migrate),
    ("MODULE", Words(&[("LOAD", Fanout), ("LOADEX", Fanout), ("UNLOAD", Fanout)], &Any)),
    ("MONITOR", Fanout),
    ("MSET", PAIRS),
    ("MSETNX", PAIRS),
    ("MULTI", Any),
    ("OBJECT", Words(&[("HELP", Any)], &SECOND)),
    ("PFCOUNT", ALL),
    ("PFDEBUG", SECOND),
    ("PFMERGE", ALL),
    ("PFSELFTEST", Any),
    ("PING", Any),
    ("PSUBSCRIBE", Any),
    ("PSYNC", Any),
    ("PUBLISH", Channels(1)),
    ("PUBSUB", Any),
    ("PUNSUBSCRIBE", Any),
    ("QUIT", Any),
    ("RANDOMKEY", Fanout),
    ("READONLY", Any),
    ("READWRITE", Any),
    ("RENAME", TWO),
    ("RENAMENX", TWO),
    ("REPLCONF", Any),
    ("REPLICAOF", Fanout),
    ("RESET", Any),
    ("ROLE", Any),
    ("RPOPLPUSH", TWO),
    ("SAVE", Fanout),
    ("SCAN", Fanout),
    ("SCRIPT", Words(&[("LOAD", Fanout), ("FLUSH", Fanout), ("EXISTS", Fanout), ("KILL", Fanout)], &Any)),
    ("SDIFF", ALL),
    ("SDIFFSTORE", ALL),
    ("SELECT", Any),
    ("SHUTDOWN", Fanout),
    ("SINTER", ALL),
    ("SINTERCARD", Counted(1)),
    ("SINTERSTORE", ALL),
    ("SLAVEOF", Fanout),
    ("SLOWLOG", Words(&[("RESET", Fanout)], &Any)),
    ("SMOVE", TWO),
    ("SORT", Sort),
    ("SORT_RO", Sort),
    ("SSUBSCRIBE", ALL),
    ("SUBSCRIBE", Channels(-1)),
    ("SUNION", ALL),
    ("SUNIONSTORE", ALL),
    ("SUNSUBSCRIBE", ALL),
    ("SWAPDB", Fanout),
    ("SYNC", Any),
    ("TDIGEST.MERGE", OneAndCounted),
    ("TIME", Any),
    ("TOUCH", ALL),
    ("TS.CREATERULE", TWO),
    ("TS.MADD", TRIPLES),
    ("UNLINK", ALL),
    ("UNSUBSCRIBE", Any),
    ("UNWATCH", Any),
    ("WAIT", Fanout),
    ("WAITAOF", Fanout),
    ("WATCH", ALL),
    ("XGROUP", Words(&[("HELP", Any)], &SECOND)),
    ("XINFO", Words(&[("HELP", Any)], &SECOND)),
    ("XREAD", Streams),
    ("XREADGROUP", Streams),
    ("ZDIFF", Counted(1)),
    ("ZDIFFSTORE", OneAndCounted),
    ("ZINTER", Counted(1)),
    ("ZINTERCARD", Counted(1)),
    ("ZINTERSTORE", OneAndCounted),
    ("ZMPOP", Counted(1)),
    ("ZRANGESTORE", TWO),
    ("ZUNION", Counted(1)),
    ("ZUNIONSTORE", OneAndCounted),
];

/// What only tells; the others change a node.
static CLUSTER: &[(&str, Keys)] = &[
    ("COUNT-FAILURE-REPORTS", Any),
    ("COUNTKEYSINSLOT", Slot(2)),
    ("GETKEYSINSLOT", Slot(2)),
    ("HELP", Any),
    ("INFO", Any),
    ("KEYSLOT", Any),
    ("LINKS", Any),
    ("MYID", Any),
    ("MYSHARDID", Any),
    ("NODES", Any),
    ("REPLICAS", Any),
    ("SHARDS", Any),
    ("SLAVES", Any),
    ("SLOT-STATS", Any),
    ("SLOTS", Any),
];

const NAME_BYTES_MAX: usize = 17;

/// For each length, the first letters (A is bit 0) of the table's commands.
static FIRST_LETTERS: [u32; NAME_BYTES_MAX + 1] = {
    let mut letters = [0; NAME_BYTES_MAX + 1];
    let mut row = 0;
    while row < TABLE.len() {
        let name = TABLE[row].0.as_bytes();
        letters[name.len()] |= 1 << (name[0] - b'A');
        row += 1;
    }
    letters
};

fn find(table: &[(&'static str, Keys)], name: &[u8]) -> Option<Keys> {
    table.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, keys)| *keys)
}

/// The rule of a command; `arguments` stands before its `count` arguments.
pub fn rule(name: &[u8], arguments: &Reader<'_>, count: u32) -> Keys {
    let letter = name.first().map_or(u8::MAX, |first| (first & !0x20).wrapping_sub(b'A'));
    let listed = letter < 26 && FIRST_LETTERS.get(name.len()).is_some_and(|letters| letters >> letter & 1 == 1);
    match listed.then(|| find(TABLE, name)).flatten() {
        None => ONE,
        Some(Words(words, others)) => {
            let word = if count > 0 { text(&mut arguments.clone()) } else { None };
            word.and_then(|word| find(words, word)).unwrap_or(*others)
        }
        Some(keys) => keys,
    }
}

/// What a command concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Key(&'a [u8]),
    Channel(&'a [u8]),
    Slot(u16),
}

/// Called for each part.
pub type Visit<'v> = &'v mut dyn FnMut(Part<'_>) -> Result<(), Refusal>;

/// Visits what a command concerns, by its rule.
pub fn each(keys: Keys, arguments: &Reader<'_>, count: u32, visit: Visit<'_>) -> Result<(), Refusal> {
    let mut walk = Walk { reader: arguments.clone(), at: 0, count };
    match keys {
        At(first, last, step) => walk.range(first, walk.last(last), step, visit),
        Counted(at) => walk.counted(at, visit),
        OneAndCounted => {
            walk.range(1, 1, 1, visit)?;
            walk.counted(2, visit)
        }
        Streams => walk.streams(visit),
        Sort => walk.stores(2, &[("LIMIT", 2), ("GET", 1), ("BY", 1)], visit),
        GeoRadius => walk.stores(5, &[], visit),
        Migrate => walk.migrate(visit),
        Channels(last) => {
            let last = walk.last(last);
            walk.range(1, last, 1, &mut |part| match part {
                Part::Key(channel) => visit(Part::Channel(channel)),
                part => visit(part),
            })
        }
        Slot(at) => walk.slot(at, visit),
        Any | Fanout | Words(..) => Ok(()),
    }
}

/// A cursor over a command's arguments.
struct Walk<'a> {
    reader: Reader<'a>,
    /// Arguments behind it.
    at: u32,
    count: u32,
}

impl<'a> Walk<'a> {
    fn last(&self, last: i32) -> u32 {
        let last = i64::from(last);
        let last = if last < 0 { i64::from(self.count) + 1 + last } else { last };
        u32::try_from(last).unwrap_or(0)
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, Refusal> {
        if self.at >= self.count {
            return Ok(None);
        }
        self.at += 1;
        self.reader.token().map(Some).map_err(malformed)
    }

    /// The argument at a position that is not behind it.
    fn get(&mut self, position: u32) -> Result<Option<Token<'a>>, Refusal> {
        while self.at + 1 < position {
            if self.next()?.is_none() {
                return Ok(None);
            }
        }
        self.next()
    }

    fn word(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        Ok(self.next()?.map(|token| match token {
            Token::Str(text) | Token::Bin(text) => text,
            _ => b"",
        }))
    }

    fn key(&mut self, token: Token<'_>, visit: Visit<'_>) -> Result<(), Refusal> {
        match token {
            Token::Str(key) | Token::Bin(key) => visit(Part::Key(key)),
            token => {
                let mut key = Vec::new();
                argument_text(&mut key, token, self.at)?;
                visit(Part::Key(&key))
            }
        }
    }

    fn range(&mut self, first: u32, last: u32, step: u32, visit: Visit<'_>) -> Result<(), Refusal> {
        let mut position = first;
        while position <= last {
            let Some(key) = self.get(position)? else { return Ok(()) };
            self.key(key, visit)?;
            position = position.saturating_add(step);
        }
        Ok(())
    }

    fn number(&mut self, at: u32) -> Result<Option<u32>, Refusal> {
        Ok(self.get(at)?.and_then(|token| match token {
            Token::Int(number) => u32::try_from(number).ok(),
            Token::Str(text) | Token::Bin(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }))
    }

    /// A number that is none, or larger than what follows, is the server's to refuse.
    fn counted(&mut self, at: u32, visit: Visit<'_>) -> Result<(), Refusal> {
        let number = self.number(at)?.unwrap_or(0);
        self.range(at + 1, at.saturating_add(number), 1, visit)
    }

    fn streams(&mut self, visit: Visit<'_>) -> Result<(), Refusal> {
        while let Some(word) = self.word()? {
            let values = match () {
                () if word.eq_ignore_ascii_case(b"STREAMS") => {
                    let (first, half) = (self.at + 1, (self.count - self.at) / 2);
                    return self.range(first, self.at + half, 1, visit);
                }
                () if word.eq_ignore_ascii_case(b"GROUP") => 2,
                () if word.eq_ignore_ascii_case(b"BLOCK") || word.eq_ignore_ascii_case(b"COUNT") => 1,
                () => 0,
            };
            for _ in 0..values {
                self.next()?;
            }
        }
        Ok(())
    }

    /// The first argument, and what follows STORE and STOREDIST from a position on; `options` have so many values.
    fn stores(&mut self, from: u32, options: &[(&str, u32)], visit: Visit<'_>) -> Result<(), Refusal> {
        self.range(1, 1, 1, visit)?;
        while self.at + 1 < from && self.next()?.is_some() {}
        while let Some(word) = self.word()? {
            if word.eq_ignore_ascii_case(b"STORE") || word.eq_ignore_ascii_case(b"STOREDIST") {
                self.range(self.at + 1, self.at + 1, 1, visit)?;
                continue;
            }
            let option = options.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word));
            for _ in 0..option.map_or(0, |(_, values)| *values) {
                self.next()?;
            }
        }
        Ok(())
    }

    fn migrate(&mut self, visit: Visit<'_>) -> Result<(), Refusal> {
        match self.get(3)? {
            Some(Token::Str(b"") | Token::Bin(b"")) => {}
            Some(key) => return self.key(key, visit),
            None => return Ok(()),
        }
        while let Some(word) = self.word()? {
            let values = match () {
                () if word.eq_ignore_ascii_case(b"KEYS") => return self.range(self.at + 1, self.count, 1, visit),
                () if word.eq_ignore_ascii_case(b"AUTH") => 1,
                () if word.eq_ignore_ascii_case(b"AUTH2") => 2,
                () => 0,
            };
            for _ in 0..values {
                self.next()?;
            }
        }
        Ok(())
    }

    fn slot(&mut self, at: u32, visit: Visit<'_>) -> Result<(), Refusal> {
        let number = self.number(at)?.and_then(|number| u16::try_from(number).ok());
        match number.filter(|slot| *slot < super::routes::SLOTS) {
            Some(slot) => visit(Part::Slot(slot)),
            None => Err(bad_request(format!("argument {at} is no slot: expected 0 to {}", super::routes::SLOTS - 1))),
        }
    }
}
