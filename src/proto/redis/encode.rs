//! Requests: one MessagePack array becomes one RESP array of bulk strings; an array of arrays, a pipeline of them.
use super::commands::{self, Judged, Mark, Rule, bad_request};
use super::number;
use crate::proto::{Class, Refusal};
use crate::value::{Malformed, Reader, Token};

/// What was written, and what it does to the conn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Replies that will come, if they are to be gathered into one.
    pub batch: Option<u32>,
    /// It may wait in the server.
    pub waits: bool,
    /// What it does to the conn's state.
    pub mark: Option<Mark>,
    pub monitors: bool,
    /// It may run a script.
    pub scripts: bool,
    /// A batch of nothing but whole transactions.
    pub transactions: bool,
}

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// A request's head: how many elements, and whether they are commands of a batch.
pub enum Head<'a> {
    Command(u32, Token<'a>),
    Batch(u32, u32),
}

#[inline(always)]
pub fn head<'a>(reader: &mut Reader<'a>) -> Result<Head<'a>, Refusal> {
    let count = match reader.token().map_err(malformed)? {
        Token::Array(0) => return Err(bad_request("an empty array is no command")),
        Token::Array(count) => count,
        other => return Err(bare(&other)),
    };
    if let Some(name) = reader.short_str() {
        return Ok(Head::Command(count, Token::Str(name)));
    }
    Ok(match reader.token().map_err(malformed)? {
        Token::Array(first) => Head::Batch(count, first),
        name => Head::Command(count, name),
    })
}

#[cold]
fn bare(token: &Token<'_>) -> Refusal {
    bad_request(format!("a request is an array such as [\"GET\", \"key\"], not a bare {}", token.kind()))
}

/// What this request needs of a conn.
#[inline]
pub fn classify(body: &[u8], tracked: bool) -> Result<Class, Refusal> {
    let mut reader = Reader::new(body);
    match head(&mut reader)? {
        Head::Command(count, name) => {
            let name = command_name(name)?;
            let judged = commands::judge(name, &reader, count - 1);
            class(judged, &mut reader, count - 1, tracked)
        }
        Head::Batch(count, first) => classify_batch(&mut reader, count, first),
    }
}

fn classify_batch(reader: &mut Reader<'_>, count: u32, first: u32) -> Result<Class, Refusal> {
    let mut batch = Batch::default();
    for index in 0..count {
        let members = if index == 0 { first } else { member_count(reader, index)? };
        batch.add(index, judge_member(reader, members, index)?)?;
    }
    let written = batch.finish(count)?;
    Ok(match (written.mark, written.waits) {
        (Some(_), _) => Class::Pinned("a batch with WATCH needs a lease: the conn goes on watching after it"),
        (_, true) => Class::Pinned("a batch with a command that waits needs a lease"),
        _ => Class::Shared,
    })
}

#[inline]
fn class(judged: Judged, arguments: &mut Reader<'_>, count: u32, tracked: bool) -> Result<Class, Refusal> {
    match judged.rule {
        Rule::Shared | Rule::Scripts => Ok(Class::Shared),
        Rule::Waits => Ok(Class::Waiting),
        Rule::Pinned(mark) => Ok(Class::Pinned(commands::lease_advice(judged.name, mark))),
        Rule::Monitor => Ok(Class::Takeover),
        Rule::Topics(kind) => topics(judged.name, kind, arguments, count, tracked),
        _ => Err(commands::refuse(judged).unwrap_or_else(|| bad_request("unknown class"))),
    }
}

fn topics(name: &str, kind: u8, arguments: &mut Reader<'_>, count: u32, tracked: bool) -> Result<Class, Refusal> {
    if count == 0 {
        return Err(bad_request(format!("{name} needs at least one channel")));
    }
    let mut topics: Vec<Vec<u8>> = Vec::new();
    for index in 0..count {
        let mut topic = vec![kind];
        topic.push(b':');
        argument_text(&mut topic, arguments.token().map_err(malformed)?, index + 1)?;
        if kind == commands::SUBSCRIBE && topic[2..] == *commands::INVALIDATIONS && !tracked {
            return Err(bad_request("invalidations come only with tracking: open with tracking=on or tracking=bcast"));
        }
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    Ok(Class::Topics(topics))
}

/// Appends the request's wire form. After an error the caller cuts `wire` back.
#[inline]
pub fn request(body: &[u8], wire: &mut Vec<u8>) -> Result<Written, Refusal> {
    let mut reader = Reader::new(body);
    let written = match head(&mut reader)? {
        Head::Command(count, name) => single(&mut reader, count, name, wire)?,
        Head::Batch(count, first) => batch(&mut reader, count, first, wire, None)?,
    };
    at_end(&reader)?;
    Ok(written)
}

/// The same with ASKING before each command that is not inside a MULTI; `asked` says of each whether it has one.
#[cold]
pub fn request_asking(body: &[u8], wire: &mut Vec<u8>, asked: &mut Vec<bool>) -> Result<Written, Refusal> {
    let mut reader = Reader::new(body);
    let written = match head(&mut reader)? {
        Head::Command(count, _) => {
            // As a batch of one, which needs no second copy of the hot path. What needs a lease is never asked for so.
            reader = Reader::new(body);
            let _ = reader.token();
            Written { batch: None, ..batch(&mut reader, 1, count, wire, Some(asked))? }
        }
        Head::Batch(count, first) => batch(&mut reader, count, first, wire, Some(asked))?,
    };
    at_end(&reader)?;
    Ok(written)
}

#[inline]
fn at_end(reader: &Reader<'_>) -> Result<(), Refusal> {
    if reader.is_at_end() { Ok(()) } else { Err(bad_request("bytes follow the request")) }
}

#[inline]
fn single(reader: &mut Reader<'_>, count: u32, name: Token<'_>, wire: &mut Vec<u8>) -> Result<Written, Refusal> {
    let judged = command(reader, count, name, wire)?;
    let mut written = Written::default();
    match judged.rule {
        Rule::Shared => {}
        Rule::Scripts => written.scripts = true,
        Rule::Waits => written.waits = true,
        Rule::Pinned(mark) => written.mark = Some(mark),
        Rule::Monitor => written.monitors = true,
        _ => return Err(commands::refuse(judged).unwrap_or_else(|| bad_request("unknown class"))),
    }
    Ok(written)
}

fn batch(
    reader: &mut Reader<'_>,
    count: u32,
    first: u32,
    wire: &mut Vec<u8>,
    mut asked: Option<&mut Vec<bool>>,
) -> Result<Written, Refusal> {
    let mut batch = Batch::default();
    for index in 0..count {
        let members = if index == 0 { first } else { member_count(reader, index)? };
        if members == 0 {
            return Err(bad_request(format!("command {index} of the batch is empty")));
        }
        let name = reader.token().map_err(malformed)?;
        if let Some(asked) = &mut asked {
            asked.push(!batch.open);
            wire.extend_from_slice(if batch.open { b"" } else { ASKING });
        }
        let judged = command(reader, members, name, wire).map_err(|refusal| in_batch(index, refusal))?;
        batch.add(index, judged)?;
    }
    batch.finish(count)
}

/// One command's array of bulks.
#[inline(always)]
fn command(reader: &mut Reader<'_>, count: u32, name: Token<'_>, wire: &mut Vec<u8>) -> Result<Judged, Refusal> {
    let name = command_name(name)?;
    number::head(wire, b'*', u64::from(count));
    number::bulk(wire, name);
    let judged = commands::judge(name, reader, count - 1);
    for index in 1..count {
        if let Some(text) = reader.short_str() {
            number::bulk(wire, text);
            continue;
        }
        match reader.token().map_err(malformed)? {
            Token::Str(text) | Token::Bin(text) => number::bulk(wire, text),
            Token::Int(value) => number::bulk(wire, number::Decimal::new(value).as_bytes()),
            other => argument(wire, other, index)?,
        }
    }
    Ok(judged)
}

/// The rarer types of arguments.
fn argument(wire: &mut Vec<u8>, token: Token<'_>, index: u32) -> Result<(), Refusal> {
    let mut text = Vec::new();
    argument_text(&mut text, token, index)?;
    number::bulk(wire, &text);
    Ok(())
}

/// An argument's text; `index` counts from 1, as the command's name is 0.
pub fn argument_text(out: &mut Vec<u8>, token: Token<'_>, index: u32) -> Result<(), Refusal> {
    match token {
        Token::Str(text) | Token::Bin(text) => out.extend_from_slice(text),
        Token::Int(value) => out.extend_from_slice(number::Decimal::new(value).as_bytes()),
        Token::Uint(value) => out.extend_from_slice(number::Decimal::unsigned(value).as_bytes()),
        Token::Float(value) => out.extend_from_slice(number::float_text(value).as_bytes()),
        other => {
            let kind = other.kind();
            return Err(bad_request(format!("argument {index} is {kind}: expected str, bytes, int or float")));
        }
    }
    Ok(())
}

pub fn command_name(token: Token<'_>) -> Result<&[u8], Refusal> {
    match token {
        Token::Str(b"") | Token::Bin(b"") => Err(bad_request("the command's name is empty")),
        Token::Str(name) | Token::Bin(name) => Ok(name),
        other => Err(bad_request(format!("the command's name is {}: expected str or bytes", other.kind()))),
    }
}

pub fn member_count(reader: &mut Reader<'_>, index: u32) -> Result<u32, Refusal> {
    match reader.token().map_err(malformed)? {
        Token::Array(count) => Ok(count),
        other => {
            let kind = other.kind();
            Err(bad_request(format!("element {index} of the batch is {kind}: all or none must be commands (arrays)")))
        }
    }
}

fn judge_member(reader: &mut Reader<'_>, members: u32, index: u32) -> Result<Judged, Refusal> {
    if members == 0 {
        return Err(bad_request(format!("command {index} of the batch is empty")));
    }
    let name = reader.token().map_err(malformed)?;
    let judged = commands::judge(command_name(name)?, reader, members - 1);
    for _ in 1..members {
        reader.token().map_err(malformed)?;
    }
    Ok(judged)
}

/// What the commands of a batch do together.
#[derive(Default)]
struct Batch {
    /// A MULTI stands open at this point.
    open: bool,
    waits: bool,
    watches: bool,
    scripts: bool,
    /// A command stands outside any MULTI.
    outside: bool,
}

impl Batch {
    fn add(&mut self, index: u32, judged: Judged) -> Result<(), Refusal> {
        let name = judged.name;
        let refuse = |why: &str| Err(in_batch(index, bad_request(format!("{name}: {why}"))));
        // A DISCARD answers as MULTI does, so that the replies alone would not tell one from the other.
        self.outside |= match judged.rule {
            Rule::Pinned(Mark::Multi | Mark::Exec) => false,
            rule => !self.open || rule == Rule::Pinned(Mark::Discard),
        };
        match judged.rule {
            Rule::Shared => {}
            Rule::Scripts => self.scripts = true,
            Rule::Waits => self.waits = true,
            Rule::Pinned(Mark::Multi) if self.open => return refuse("a transaction is open already"),
            Rule::Pinned(Mark::Multi) => self.open = true,
            Rule::Pinned(Mark::Exec | Mark::Discard) if !self.open => return refuse("there is no MULTI before it"),
            Rule::Pinned(Mark::Exec | Mark::Discard) => self.open = false,
            Rule::Pinned(Mark::Watch | Mark::Unwatch) => self.watches = true,
            _ => return refuse("only ordinary commands, MULTI and EXEC may be in a batch"),
        }
        Ok(())
    }

    fn finish(self, count: u32) -> Result<Written, Refusal> {
        if self.open {
            return Err(bad_request("the batch opens a MULTI that it does not close with EXEC or DISCARD"));
        }
        let mark = self.watches.then_some(Mark::Watch);
        let (scripts, transactions) = (self.scripts, !self.outside);
        Ok(Written { batch: Some(count), waits: self.waits, mark, monitors: false, scripts, transactions })
    }
}

fn in_batch(index: u32, refusal: Refusal) -> Refusal {
    Refusal { code: refusal.code, message: format!("command {index} of the batch: {}", refusal.message) }
}

#[cold]
pub fn malformed(error: Malformed) -> Refusal {
    bad_request(error.to_string())
}
