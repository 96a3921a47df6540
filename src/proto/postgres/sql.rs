//! As much of SQL as is needed to know whether a statement may share its conn (PostgreSQL 15 documentation, 4.1 "Lexical
//! Structure"): where statements end, and the words outside of literals and comments.
use memchr::{memchr, memchr_iter, memmem};

/// What a text does to its conn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// It begins or ends a transaction, or makes sense inside of one only.
    pub transaction: bool,
    /// It leaves something in the session.
    pub session: bool,
    /// It moves data outside of requests and replies.
    pub copy: bool,
    /// It may commit by itself what comes before an error (CALL, DO).
    pub procedure: bool,
}

/// The first word of a text: its command. Never part of a literal.
pub fn command(sql: &[u8]) -> &[u8] {
    Words { rest: sql }.first().map_or(b"", |token| token.word)
}

/// One statement, of which the first words decide.
pub fn statement(sql: &[u8]) -> Effect {
    let mut effect = first(&mut Words { rest: sql });
    effect.session |= calls(sql);
    effect
}

/// All statements of a text.
pub fn script(sql: &[u8]) -> Effect {
    let mut words = Words { rest: sql };
    let mut effect = Effect { session: calls(sql), ..Effect::default() };
    loop {
        let one = first(&mut words);
        effect.transaction |= one.transaction;
        effect.session |= one.session;
        effect.copy |= one.copy;
        effect.procedure |= one.procedure;
        if !words.next_statement() {
            return effect;
        }
    }
}

/// A text is one COPY from or to the client, and nothing else.
pub fn is_copy(sql: &[u8]) -> bool {
    let mut words = Words { rest: sql };
    first(&mut words).copy && !(words.next_statement() && words.first().is_some())
}

/// Functions that leave something in the session: advisory locks and `set_config`.
fn calls(sql: &[u8]) -> bool {
    memchr_iter(b'_', sql).any(|at| {
        let (before, after) = (&sql[..at], &sql[at + 1..]);
        let follows = |word: &[u8]| after.get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word));
        let ends = |word: &[u8]| {
            before.len().checked_sub(word.len()).is_some_and(|at| before[at..].eq_ignore_ascii_case(word))
        };
        follows(b"advisory_lock") || follows(b"try_advisory_lock") || follows(b"config") && ends(b"set")
    })
}

fn first(words: &mut Words<'_>) -> Effect {
    let mut effect = Effect::default();
    let Some(first) = words.first() else { return effect };
    let mut word = [0; 16];
    match upper(first.word, &mut word) {
        b"BEGIN" | b"START" | b"COMMIT" | b"END" | b"ROLLBACK" | b"ABORT" | b"SAVEPOINT" | b"RELEASE" | b"LOCK"
        | b"FETCH" | b"MOVE" => effect.transaction = true,
        b"DECLARE" | b"CLOSE" => (effect.transaction, effect.session) = (true, true),
        b"SET" => {
            let mut next = [0; 16];
            let second = words.next().map_or(&b""[..], |token| token.word);
            effect.transaction = true;
            effect.session = !matches!(upper(second, &mut next), b"LOCAL" | b"CONSTRAINTS" | b"TRANSACTION");
        }
        b"PREPARE" => (effect.transaction, effect.session) = (true, true),
        b"RESET" | b"DISCARD" | b"DEALLOCATE" | b"EXECUTE" | b"LISTEN" | b"UNLISTEN" | b"LOAD" => effect.session = true,
        b"CREATE" => effect.session = words.find(|token| !is_before_kind(token.word)).is_some_and(is_temporary),
        b"CALL" | b"DO" => effect.procedure = true,
        b"COPY" => {
            effect.copy = words
                .any(|token| token.word.eq_ignore_ascii_case(b"STDIN") || token.word.eq_ignore_ascii_case(b"STDOUT"));
        }
        _ => {}
    }
    effect
}

/// CREATE [OR REPLACE] [GLOBAL | LOCAL] TEMP.
fn is_before_kind(word: &[u8]) -> bool {
    [&b"OR"[..], b"REPLACE", b"GLOBAL", b"LOCAL"].iter().any(|known| word.eq_ignore_ascii_case(known))
}

fn is_temporary(token: Token<'_>) -> bool {
    token.word.eq_ignore_ascii_case(b"TEMP") || token.word.eq_ignore_ascii_case(b"TEMPORARY")
}

fn upper<'a>(word: &[u8], buffer: &'a mut [u8; 16]) -> &'a [u8] {
    let Some(buffer) = buffer.get_mut(..word.len()) else { return b"" };
    buffer.copy_from_slice(word);
    buffer.make_ascii_uppercase();
    buffer
}

struct Token<'a> {
    word: &'a [u8],
}

/// The words of one statement; stands still at its semicolon.
struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Words<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let (&first, after) = self.rest.split_first()?;
            self.rest = match first {
                b';' => return None,
                b'-' if after.starts_with(b"-") => memchr(b'\n', after).map_or(b"", |at| &after[at..]),
                b'/' if after.starts_with(b"*") => comment(&after[1..]),
                b'\'' | b'"' => quoted(after, first, false),
                b'$' => dollar_quoted(self.rest),
                _ if is_word(first) => {
                    let length = self.rest.iter().take_while(|byte| is_word(**byte) || **byte == b'$').count();
                    let (word, rest) = self.rest.split_at(length);
                    if word.eq_ignore_ascii_case(b"e") && rest.first() == Some(&b'\'') {
                        self.rest = quoted(&rest[1..], b'\'', true);
                        continue;
                    }
                    self.rest = rest;
                    return Some(Token { word });
                }
                _ => after,
            };
        }
    }
}

impl<'a> Words<'a> {
    /// The first word there is: statements may be empty.
    fn first(&mut self) -> Option<Token<'a>> {
        loop {
            match self.next() {
                None if self.next_statement() => {}
                found => return found,
            }
        }
    }

    /// Goes behind the next semicolon. False: there is none.
    fn next_statement(&mut self) -> bool {
        while self.next().is_some() {}
        self.rest = self.rest.get(1..).unwrap_or_default();
        !self.rest.is_empty()
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Comments nest.
fn comment(mut rest: &[u8]) -> &[u8] {
    let mut depth = 1;
    while depth > 0 {
        rest = match rest {
            [] => return rest,
            [b'*', b'/', rest @ ..] => {
                depth -= 1;
                rest
            }
            [b'/', b'*', rest @ ..] => {
                depth += 1;
                rest
            }
            [_, rest @ ..] => rest,
        };
    }
    rest
}

/// Behind the closing quote; a doubled one is no end, as the text after it begins with a quote.
fn quoted(mut rest: &[u8], quote: u8, escapes: bool) -> &[u8] {
    loop {
        rest = match rest {
            [] => return rest,
            [b'\\', _, rest @ ..] if escapes => rest,
            [first, rest @ ..] if *first == quote => return rest,
            [_, rest @ ..] => rest,
        };
    }
}

/// `$tag$ ... $tag$`; a parameter such as `$1` is none.
fn dollar_quoted(rest: &[u8]) -> &[u8] {
    let after = &rest[1..];
    let length = after.iter().take_while(|byte| is_word(**byte)).count();
    let is_quote = after.get(length) == Some(&b'$') && !after[0].is_ascii_digit();
    if !is_quote {
        return after;
    }
    let (tag, body) = rest.split_at(length + 2);
    memmem::find(body, tag).map_or(b"", |at| &body[at + tag.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_the_command() {
        for (sql, expected) in [
            ("select 1", "select"),
            (" -- begin\n /* a /* b */ c */ (Select 1)", "Select"),
            ("'text' x", "x"),
            ("", ""),
            ("-- only", ""),
            (";begin", "begin"),
            ("/* open", ""),
        ] {
            assert_eq!(command(sql.as_bytes()), expected.as_bytes(), "{sql}");
        }
    }

    #[test]
    fn statements_that_need_a_lease_are_known() {
        let transaction = Effect { transaction: true, ..Effect::default() };
        let session = Effect { session: true, ..Effect::default() };
        let both = Effect { transaction: true, session: true, ..Effect::default() };
        for (sql, expected) in [
            ("select 'begin'", Effect::default()),
            ("begin", transaction),
            (" ;; begin", transaction),
            ("/* x */ Start Transaction", transaction),
            ("set local a = 1", transaction),
            ("SET a = 1", both),
            ("create temp table t (a int)", session),
            ("create or replace temporary view v as select 1", session),
            ("create table temp_t (a int)", Effect::default()),
            ("create table temp (a int)", Effect::default()),
            ("select pg_advisory_lock(1)", session),
            ("select pg_advisory_xact_lock(1)", Effect::default()),
            ("select set_config('a', 'b', false)", session),
            ("call p()", Effect { procedure: true, ..Effect::default() }),
            ("copy t from stdin", Effect { copy: true, ..Effect::default() }),
            ("copy t to '/tmp/stdout'", Effect::default()),
        ] {
            assert_eq!(statement(sql.as_bytes()), expected, "{sql}");
        }
    }

    #[test]
    fn one_copy_stands_alone() {
        for (sql, alone) in [
            ("copy t from stdin", true),
            (" ; COPY (select 1) to stdout with csv; -- done", true),
            ("copy t from stdin; copy u from stdin", false),
            ("select 1; copy t from stdin", false),
            ("copy t from '/tmp/stdin'", false),
            ("select 'copy t from stdin'", false),
            ("", false),
        ] {
            assert_eq!(is_copy(sql.as_bytes()), alone, "{sql}");
        }
    }

    #[test]
    fn all_statements_of_a_script_count() {
        for (sql, begins) in [
            ("select 1; begin", true),
            ("select ';begin'", false),
            ("select 1; -- ;begin", false),
            ("select 1 /* ; */; commit;", true),
            ("select $$;begin$$, $a$;begin$$;$a$", false),
            ("select $1;begin", true),
            ("select e'\\';begin'", false),
            ("select '\\';begin --'", true),
            ("select \";begin\"; select 1", false),
            ("select 'it''s;begin';;", false),
        ] {
            assert_eq!(script(sql.as_bytes()).transaction, begins, "{sql}");
        }
    }
}
