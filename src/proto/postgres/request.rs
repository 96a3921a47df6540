//! Requests as programs make them: `[sql, p1, ...]`, `{"simple": sql}`, an array of these; as streams `{"stream": [sql, p1,
//! ...]}`, `{"copy": sql}`, and `["LISTEN", channel, ...]`.
use super::sql::{self, Effect};
use super::wire;
use crate::proto::{Class, Refusal};
use crate::value::{Reader, Token};

/// Parameters of one statement: the protocol counts them in 16 bits.
const PARAMETERS_MAX: u32 = 65_535;
/// Longest name of a channel: a server cuts longer ones, and would tell of another one then.
const CHANNEL_BYTES_MAX: usize = 63;

/// One statement, or one script, of a request.
#[derive(Clone, Debug)]
pub enum Part<'a> {
    /// By the extended protocol. The reader stands before the first of `count` parameters.
    Extended { sql: &'a [u8], count: u32, parameters: Reader<'a> },
    /// By the simple protocol.
    Simple { sql: &'a [u8] },
    /// One COPY from or to the client, by the simple protocol.
    Copy { sql: &'a [u8] },
}

impl<'a> Part<'a> {
    pub fn sql(&self) -> &'a [u8] {
        match self {
            Part::Extended { sql, .. } | Part::Simple { sql } | Part::Copy { sql } => sql,
        }
    }

    pub fn effect(&self) -> Effect {
        match self {
            Part::Extended { sql, .. } | Part::Copy { sql } => sql::statement(sql),
            Part::Simple { sql } => sql::script(sql),
        }
    }
}

#[derive(Debug)]
pub struct Asked<'a> {
    /// Each with its own bytes, which are a request of one part.
    pub parts: Vec<(Part<'a>, &'a [u8])>,
    /// The replies are wanted in an array, even if there is one part alone.
    pub is_batch: bool,
    /// It moves much data: a conn of its own is wanted for it.
    pub flows: bool,
}

/// What a request may say by a map.
const MAPS: &str = r#"{"simple": sql}, {"stream": [sql, ...]} or {"copy": sql}"#;

#[cold]
pub fn bad_request(message: impl Into<String>) -> Refusal {
    Refusal { code: "BADREQUEST", message: message.into() }
}

#[cold]
fn malformed(error: impl std::fmt::Display) -> Refusal {
    bad_request(error.to_string())
}

impl<'a> Asked<'a> {
    /// Takes a request apart; parameters are looked into when the statement is sent.
    pub fn read(body: &'a [u8], depth_max: usize) -> Result<Self, Refusal> {
        let mut reader = Reader::new(body);
        let start = reader.clone();
        let asked = match reader.token().map_err(malformed)? {
            Token::Map(_) => {
                reader = start;
                named(&mut reader, body, depth_max)?
            }
            Token::Array(0) => return Err(bad_request("an empty array is no request")),
            Token::Array(count) => members(&mut reader, body, count, depth_max)?,
            other => {
                let kind = other.kind();
                return Err(bad_request(format!("a request is an array such as [\"select 1\"], not a bare {kind}")));
            }
        };
        if reader.is_at_end() { Ok(asked) } else { Err(bad_request("bytes follow the request")) }
    }
}

fn members<'a>(reader: &mut Reader<'a>, body: &'a [u8], count: u32, depth_max: usize) -> Result<Asked<'a>, Refusal> {
    let mut ahead = reader.clone();
    match ahead.token().map_err(malformed)? {
        Token::Str(sql) | Token::Bin(sql) => {
            *reader = ahead;
            let parts = vec![(extended(reader, sql, count - 1, depth_max)?, body)];
            Ok(Asked { parts, is_batch: false, flows: false })
        }
        Token::Map(_) if count == 1 => named(reader, body, depth_max),
        Token::Map(_) | Token::Array(_) => {
            let mut parts = Vec::new();
            for index in 0..count {
                let start = reader.position();
                let part = member(reader, depth_max).map_err(|refusal| in_batch(index as usize, refusal))?;
                parts.push((part, &body[start..reader.position()]));
            }
            Ok(Asked { parts, is_batch: true, flows: false })
        }
        other => Err(bad_request(format!("the statement is {}: expected str", other.kind()))),
    }
}

fn member<'a>(reader: &mut Reader<'a>, depth_max: usize) -> Result<Part<'a>, Refusal> {
    let start = reader.clone();
    match reader.token().map_err(malformed)? {
        Token::Map(_) => {
            *reader = start;
            let Asked { mut parts, flows, .. } = named(reader, &[], depth_max)?;
            match parts.pop() {
                Some((part, _)) if !flows => Ok(part),
                _ => Err(bad_request("a stream or a COPY is a request of its own: it cannot be part of a batch")),
            }
        }
        Token::Array(count @ 1..) => extended_of(reader, count - 1, depth_max),
        other => {
            let kind = other.kind();
            Err(bad_request(format!("{kind}: expected a statement such as [\"select $1\", 1], or {{\"simple\": sql}}")))
        }
    }
}

pub fn in_batch(index: usize, refusal: Refusal) -> Refusal {
    Refusal { message: format!("statement {index} of the batch: {}", refusal.message), ..refusal }
}

fn extended<'a>(reader: &mut Reader<'a>, sql: &'a [u8], count: u32, depth_max: usize) -> Result<Part<'a>, Refusal> {
    if count > PARAMETERS_MAX {
        return Err(bad_request(format!("{count} parameters: a statement has {PARAMETERS_MAX} at most")));
    }
    let parameters = reader.clone();
    for _ in 0..count {
        reader.skip(depth_max).map_err(malformed)?;
    }
    Ok(Part::Extended { sql: checked(sql)?, count, parameters })
}

/// A request that is a map of one key, which says what it is.
fn named<'a>(reader: &mut Reader<'a>, body: &'a [u8], depth_max: usize) -> Result<Asked<'a>, Refusal> {
    let expected = |what: &str| bad_request(format!("{what}: expected {MAPS}"));
    match reader.token().map_err(malformed)? {
        Token::Map(1) => {}
        Token::Map(0) => return Err(expected("an empty map")),
        Token::Map(count) => return Err(expected(&format!("a map of {count} keys"))),
        other => return Err(expected(&other.kind().to_string())),
    }
    let key = match reader.token().map_err(malformed)? {
        Token::Str(key) | Token::Bin(key) => key,
        other => return Err(expected(&format!("a key is {}", other.kind()))),
    };
    let part = match key {
        b"simple" => Part::Simple { sql: checked(sql_of(reader, "simple")?)? },
        b"copy" => Part::Copy { sql: checked(sql_of(reader, "copy")?)? },
        b"stream" => match reader.token().map_err(malformed)? {
            Token::Array(count @ 1..) => extended_of(reader, count - 1, depth_max)?,
            other => {
                let kind = other.kind();
                return Err(bad_request(format!(
                    "stream is {kind}: expected array, as in {{\"stream\": [\"select 1\"]}}"
                )));
            }
        },
        other => return Err(expected(&String::from_utf8_lossy(other))),
    };
    Ok(Asked { parts: vec![(part, body)], is_batch: false, flows: key != b"simple" })
}

fn sql_of<'a>(reader: &mut Reader<'a>, key: &str) -> Result<&'a [u8], Refusal> {
    match reader.token().map_err(malformed)? {
        Token::Str(sql) | Token::Bin(sql) => Ok(sql),
        other => Err(bad_request(format!("{key} is {}: expected str", other.kind()))),
    }
}

fn extended_of<'a>(reader: &mut Reader<'a>, count: u32, depth_max: usize) -> Result<Part<'a>, Refusal> {
    match reader.token().map_err(malformed)? {
        Token::Str(sql) | Token::Bin(sql) => extended(reader, sql, count, depth_max),
        other => Err(bad_request(format!("the statement is {}: expected str", other.kind()))),
    }
}

/// The protocol ends texts with a NUL, and the server takes UTF-8, as it was told.
fn checked(sql: &[u8]) -> Result<&[u8], Refusal> {
    if let Some(at) = memchr::memchr(0, sql) {
        return Err(bad_request(format!("byte {at} of the statement is NUL, which PostgreSQL does not take")));
    }
    if let Err(error) = std::str::from_utf8(sql) {
        return Err(bad_request(format!("the statement is no UTF-8 from byte {} on", error.valid_up_to())));
    }
    if sql.len() > wire::SENT_BYTES_MAX {
        return Err(bad_request(format!(
            "a statement of {} bytes: PostgreSQL takes {}",
            sql.len(),
            wire::SENT_BYTES_MAX
        )));
    }
    Ok(sql)
}

const TRANSACTION: &str =
    "it begins, ends or needs a transaction: take a lease, so that nobody else's requests get into it";
const SESSION: &str = "it changes the session for whoever comes after: take a lease";

const COPY: &str = "COPY FROM STDIN and COPY TO STDOUT have a conn of their own: ask by {\"copy\": sql} as a stream \
                    (copy_from, copy_to)";

/// What a request needs of a conn.
pub fn classify(body: &[u8], depth_max: usize) -> Result<Class, Refusal> {
    if let Some(topics) = topics(body)? {
        return Ok(Class::Topics(topics));
    }
    let asked = Asked::read(body, depth_max)?;
    if asked.flows {
        return flow(&asked.parts[0].0);
    }
    let mut class = Class::Shared;
    for (index, (part, _)) in asked.parts.iter().enumerate() {
        let effect = part.effect();
        if effect.copy {
            let refusal = bad_request(COPY);
            return Err(if asked.is_batch { in_batch(index, refusal) } else { refusal });
        }
        if effect.session {
            class = Class::Pinned(SESSION);
        } else if effect.transaction {
            class = Class::Pinned(TRANSACTION);
        }
    }
    Ok(class)
}

/// What has a conn of its own, and no lease.
fn flow(part: &Part<'_>) -> Result<Class, Refusal> {
    let effect = part.effect();
    match part {
        Part::Copy { sql } if !sql::is_copy(sql) => {
            Err(bad_request("copy takes one statement: COPY ... FROM STDIN or COPY ... TO STDOUT"))
        }
        Part::Copy { .. } => Ok(Class::Flow),
        _ if effect.copy => Err(bad_request(COPY)),
        _ if effect.session || effect.transaction => {
            let why = "a stream has a conn of its own, which is nobody's after it: it takes no statement that begins, \
                       ends or needs a transaction, or changes the session";
            Err(bad_request(why))
        }
        _ => Ok(Class::Flow),
    }
}

/// `["LISTEN", channel, ...]`: the names as they are, without SQL's folding to lower case.
fn topics(body: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Refusal> {
    let mut reader = Reader::new(body);
    let Ok(Token::Array(count @ 2..)) = reader.token() else { return Ok(None) };
    match reader.token() {
        Ok(Token::Str(word) | Token::Bin(word)) if word.eq_ignore_ascii_case(b"LISTEN") => {}
        _ => return Ok(None),
    }
    let mut topics: Vec<Vec<u8>> = Vec::new();
    for index in 1..count {
        let channel = match reader.token().map_err(malformed)? {
            Token::Str(channel) | Token::Bin(channel) => channel,
            other => return Err(bad_request(format!("channel {index} is {}: expected str", other.kind()))),
        };
        if !(1..=CHANNEL_BYTES_MAX).contains(&channel.len()) {
            let length = channel.len();
            return Err(bad_request(format!("channel {index} has {length} bytes: expected 1 to {CHANNEL_BYTES_MAX}")));
        }
        checked(channel)?;
        if !topics.iter().any(|topic| topic == channel) {
            topics.push(channel.to_vec());
        }
    }
    if reader.is_at_end() { Ok(Some(topics)) } else { Err(bad_request("bytes follow the request")) }
}

/// The first word of the first statement, to be shown: what follows it may be anybody's data.
pub fn command(body: &[u8]) -> &[u8] {
    let mut reader = Reader::new(body);
    for _ in 0..4 {
        match reader.token() {
            Ok(Token::Array(1..)) => {}
            Ok(Token::Map(1..)) => {
                let _ = reader.token();
            }
            Ok(Token::Str(sql) | Token::Bin(sql)) => return sql::command(sql),
            _ => return b"",
        }
    }
    b""
}

/// The statement may hold a credential: `ALTER ROLE ... PASSWORD`.
pub fn is_secret(body: &[u8]) -> bool {
    body.windows(8).any(|window| window.eq_ignore_ascii_case(b"password"))
}
