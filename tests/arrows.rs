//! The arrow rules of `src/lib.rs`, proven by reading the sources: who may name whom, and where the dangerous words
//! may stand. Comments, strings and tests are not read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A room, and the rooms whose names may stand in it. `COMMON` may stand everywhere.
const ARROWS: &[(&str, &[&str])] = &[
    ("ffi", &["kernel", "ring", "sys"]),
    ("kernel", &["router", "discovery", "observe", "ring", "sys", "proto", "value"]),
    ("router", &["proto", "value"]),
    ("proto", &["value"]),
    ("value", &[]),
    ("discovery", &["sys", "value"]),
    ("observe", &["ring", "sys"]),
    ("ring", &["sys"]),
    ("sys", &[]),
    // Programs beside the library: they ask it from outside, or read the areas that it writes.
    ("bin", &["observe"]),
];

/// Numbers, names and grammar without behaviour.
const COMMON: &[&str] = &["config", "peer", "status", "ring::layout"];

/// A word, the only rooms where it may stand, and why.
const WORDS: &[(&str, &[&str], &str)] = &[
    ("unsafe", &["ffi", "ring", "sys"], "unsafe is proven in few places"),
    ("libc", &["sys"], "what depends on the system is behind sys"),
    ("extern \"C\"", &["ffi", "sys"], "the C boundary has one guard"),
    ("no_mangle", &["ffi"], "the C boundary has one guard"),
    ("mio", OUTSIDE_SANS_IO, "sans-IO rooms know no socket"),
    ("socket2", OUTSIDE_SANS_IO, "sans-IO rooms know no socket"),
    ("TcpStream", OUTSIDE_SANS_IO, "sans-IO rooms know no socket"),
    ("UdpSocket", OUTSIDE_SANS_IO, "sans-IO rooms know no socket"),
    ("Instant::now", OUTSIDE_SANS_IO, "time is passed in, so that a run can be replayed"),
    ("SystemTime", OUTSIDE_SANS_IO, "time is passed in, so that a run can be replayed"),
    ("thread", OUTSIDE_SANS_IO, "sans-IO rooms start nothing"),
    ("File::open", &["sys", "bin"], "what is open is known to forked children"),
    ("fs::read", &["sys", "bin"], "what is open is known to forked children"),
    ("println", &["bin"], "a library prints nothing"),
    ("eprintln", &["bin"], "a library prints nothing"),
    ("dbg", &[], "a library prints nothing"),
];

const OUTSIDE_SANS_IO: &[&str] = &["ffi", "kernel", "discovery", "observe", "ring", "sys", "bin"];

/// A longer file is more than one room.
const LINES_MAX: usize = 700;

#[test]
fn rooms_name_only_the_rooms_below_them() {
    let mut wrong = String::new();
    for source in sources() {
        let Some((_, below)) = ARROWS.iter().find(|(room, _)| *room == source.room) else { continue };
        for (line, path) in source.crate_paths() {
            let head = path.split("::").next().unwrap_or_default();
            let allowed =
                head == source.room || below.contains(&head) || COMMON.iter().any(|name| path.starts_with(name));
            if !allowed {
                writeln!(wrong, "{}:{line}: crate::{path} in {}", source.path.display(), source.room).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{wrong}");
}

#[test]
fn dangerous_words_stand_only_in_their_rooms() {
    let mut wrong = String::new();
    for source in sources() {
        for (word, rooms, why) in WORDS.iter().filter(|(_, rooms, _)| !rooms.contains(&source.room.as_str())) {
            for line in source.lines_with(word) {
                writeln!(wrong, "{}:{line}: {word} ({why}; only in {rooms:?})", source.path.display()).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What encrypts is behind one door, and so is whoever wants to know how.
#[test]
fn rustls_stands_only_in_its_room() {
    let is_outside = |source: &&Source| !source.path.starts_with("src/kernel/tls");
    let names =
        |source: &Source| ["rustls", "rustls_native_certs"].iter().any(|name| !source.lines_with(name).is_empty());
    let all = sources();
    let wrong: Vec<&PathBuf> =
        all.iter().filter(is_outside).filter(|source| names(source)).map(|source| &source.path).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let room = Path::new("src/kernel/tls/session.rs");
    assert!(all.iter().any(|source| source.path == room && names(source)));
}

#[test]
fn every_room_has_its_arrows() {
    let unknown: Vec<String> = sources()
        .into_iter()
        .map(|source| source.room)
        .filter(|room| {
            !COMMON.contains(&room.as_str()) && room != "lib" && !ARROWS.iter().any(|(known, _)| known == room)
        })
        .collect();
    assert!(unknown.is_empty(), "add {unknown:?} to ARROWS and to the map in src/lib.rs");
}

#[test]
fn files_are_rooms_not_halls() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.lines > LINES_MAX)
        .map(|source| format!("{} ({} lines)", source.path.display(), source.lines))
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
}

#[test]
fn the_reader_sees_code_and_nothing_else() {
    let text = "a /* x /* y */ */ b // libc\n\"un\\\"safe\" 'c' '\"' &'a str r#\"mio\"# z\n#[cfg(test)]\nmod tests { fn f() { dbg!(1) } }\nend";
    let code = without_tests(&without_comments_and_strings(text));
    assert_eq!(
        code.split_whitespace().collect::<Vec<_>>(),
        ["a", "b", "\"\"", "''", "''", "&'a", "str", "\"\"", "z", "end"]
    );
    assert_eq!(code.lines().count(), text.lines().count());
}

struct Source {
    path: PathBuf,
    /// The folder or file right under `src`.
    room: String,
    lines: usize,
    /// Without comments, strings and tests; line numbers are kept.
    code: String,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Source {
        let text = std::fs::read_to_string(path).expect("a source is readable");
        let inside = path.strip_prefix(root).expect("under src");
        let room = inside
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        let code = without_tests(&without_comments_and_strings(&text));
        Source { path: Path::new("src").join(inside), room, lines: text.lines().count(), code }
    }

    fn lines_with(&self, word: &str) -> Vec<usize> {
        // String contents are gone, so a string within a word (extern "C") matches by what is left of it.
        let word = without_comments_and_strings(word);
        let numbered = self.code.lines().enumerate();
        numbered.filter(|(_, line)| has_word(line, &word)).map(|(number, _)| number + 1).collect()
    }

    /// What follows each `crate::`, with groups in braces taken apart one level deep.
    fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let line = self.code[..at].lines().count().max(1);
            let rest = &self.code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => paths.extend(group_heads(group).map(|path| (line, path))),
                None => paths.push((line, path_of(rest))),
            }
        }
        paths
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("src is readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
                found.push(Source::read(&root, &path));
            }
        }
    }
    found
}

fn path_of(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect()
}

/// The first path of each part of `{a, b::{c, d}, e}`, given what follows its first brace.
fn group_heads(group: &str) -> impl Iterator<Item = String> {
    let mut depth = 1;
    let end = group.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    let mut depth = 0;
    let parts = group[..end.unwrap_or(group.len())].split(move |c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.map(|part| path_of(part.trim_start())).filter(|path| !path.is_empty())
}

fn has_word(line: &str, word: &str) -> bool {
    let inside_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !inside_name(line[..at].chars().next_back()) && !inside_name(line[at + word.len()..].chars().next())
    })
}

/// Empties strings and characters, drops comments, keeps every line end.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (keep, length) = match token(rest) {
            Some((keep, length)) => (keep, length),
            None => (&rest[..c.len_utf8()], c.len_utf8()),
        };
        code.push_str(keep);
        if keep.is_empty() || keep.len() != length {
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
        }
        rest = &rest[length..];
    }
    code
}

/// What stands at the start of `text` if it is a comment, a string or a character: what is kept of it, and its length.
fn token(text: &str) -> Option<(&'static str, usize)> {
    if text.starts_with("//") {
        return Some(("", text.find('\n').unwrap_or(text.len())));
    }
    if text.starts_with("/*") {
        return Some(("", block_comment(text)));
    }
    if text.starts_with('"') {
        return Some(("\"\"", escaped_until(text, '"')));
    }
    if let Some(hashes) = text.strip_prefix('r').filter(|rest| rest.trim_start_matches('#').starts_with('"')) {
        let fence = &hashes[..hashes.len() - hashes.trim_start_matches('#').len()];
        let body = 1 + fence.len() + 1;
        let end = text[body..].find(&format!("\"{fence}")).map_or(text.len(), |at| body + at + 1 + fence.len());
        return Some(("\"\"", end));
    }
    let quoted = text.strip_prefix('\'')?;
    let is_char = quoted.starts_with('\\') || quoted.chars().nth(1) == Some('\'');
    is_char.then(|| ("''", escaped_until(text, '\'')))
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    for (at, pair) in text.as_bytes().windows(2).enumerate() {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 2;
        }
    }
    text.len()
}

/// Bytes of a literal, from its first quote to its last.
fn escaped_until(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Empties every `#[cfg(test)]` item with a body, keeping its line ends.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let length = item_length(&rest[at..]);
        kept.extend(rest[at..at + length].chars().filter(|c| *c == '\n'));
        rest = &rest[at + length..];
    }
    kept + rest
}

/// Up to the item's closing brace, or to its semicolon.
fn item_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}
