//! The access log of a listener (`access_log=`): one line for each exchange, written by the I/O thread at the end of the
//! turn in which it ended.
//!
//! A file is appended to, and opened anew when another has taken its place (as logrotate does). A pipe whose reader does
//! not keep up loses lines, and the next that is written says how many: nobody waits for a log.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crate::config::{ConfigError, Options};
use crate::kernel::io::Io;
use crate::proto::Access;
use crate::sys::file;
use crate::sys::owned::Owned;
use crate::value::date::Civil;

/// Bytes of lines that wait for their file.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// How often it is looked whether the file is still the one at its path.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a pipe that polls as writable takes without blocking (pipe(7), PIPE_BUF).
const PIPE_BYTES: usize = 4096;

/// What the listener's URL says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessOptions {
    /// `-` is the standard output.
    path: String,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Common,
    /// The same with referer and user agent.
    Combined,
    Json,
}

impl AccessOptions {
    pub fn take(options: &mut Options) -> Result<Option<Self>, ConfigError> {
        let path = options.text("access_log");
        let format = match options.word("access_format", "combined", &["common", "combined", "json"])? {
            "common" => Format::Common,
            "json" => Format::Json,
            _ => Format::Combined,
        };
        match path {
            Some(path) if path.is_empty() => {
                Err(ConfigError::new("access_log", "", "the path of a file, or - for the standard output"))
            }
            path => Ok(path.map(|path| AccessOptions { path, format })),
        }
    }
}

/// One log.
pub struct AccessLog {
    options: AccessOptions,
    file: Owned<File>,
    is_pipe: bool,
    looked: Instant,
    buffer: Vec<u8>,
    lost: u64,
    text: String,
}

impl AccessLog {
    pub fn open(options: &AccessOptions, now: Instant) -> io::Result<Self> {
        let file = open(&options.path)?;
        let is_pipe = !file.metadata()?.is_file();
        let (buffer, text) = (Vec::new(), String::new());
        Ok(AccessLog { options: options.clone(), file, is_pipe, looked: now, buffer, lost: 0, text })
    }

    /// Notes an exchange that ends at this moment, `unix_ns` nanoseconds after 1970.
    pub fn note(&mut self, access: &Access<'_>, now: Instant, unix_ns: u64) {
        if self.buffer.len() > BUFFER_BYTES_MAX {
            self.lost += 1;
            return;
        }
        let took = now.saturating_duration_since(access.began);
        self.text.clear();
        // Writing to a String does not fail.
        let _ = match self.options.format {
            Format::Json => json(&mut self.text, access, took, unix_ns),
            format => common(&mut self.text, access, unix_ns, format == Format::Combined),
        };
        self.buffer.extend_from_slice(self.text.as_bytes());
    }

    /// Writes what was noted, as far as it is taken at once.
    fn flush(&mut self, now: Instant) {
        if now >= self.looked + LOOK_EVERY {
            self.looked = now;
            self.follow();
        }
        let mut done = 0;
        while done < self.buffer.len() {
            let rest = &self.buffer[done..];
            let part = if self.is_pipe { &rest[..rest.len().min(PIPE_BYTES)] } else { rest };
            if self.is_pipe && !file::takes_bytes(&self.file) {
                break;
            }
            match (&*self.file).write(part) {
                Ok(count) if count > 0 => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A full disk, or a reader that is gone: these lines are lost, and later ones may fare better.
                _ => {
                    self.lost += self.buffer[done..].iter().filter(|byte| **byte == b'\n').count() as u64;
                    done = self.buffer.len();
                }
            }
        }
        self.buffer.drain(..done);
        if self.buffer.is_empty() && self.lost > 0 && done > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.buffer.extend_from_slice(format!("# {lost} lines were lost\n").as_bytes());
        }
    }

    /// Another file may have taken the place of this one.
    fn follow(&mut self) {
        use std::os::unix::fs::MetadataExt;
        if self.is_pipe || self.options.path == "-" {
            return;
        }
        let ours = self.file.metadata().map(|of| (of.dev(), of.ino()));
        let theirs = std::fs::metadata(&self.options.path).map(|of| (of.dev(), of.ino()));
        let same = matches!((ours, theirs), (Ok(ours), Ok(theirs)) if ours == theirs);
        if !same && let Ok(file) = open(&self.options.path) {
            self.file = file;
        }
    }
}

fn open(path: &str) -> io::Result<Owned<File>> {
    if path == "-" { file::duplicate(1) } else { file::append(path) }
}

/// `203.0.113.7 - - [06/Nov/1994:08:49:37 +0000] "GET / HTTP/1.1" 200 12`
fn common(text: &mut String, access: &Access<'_>, unix_ns: u64, combined: bool) -> std::fmt::Result {
    let at = Civil::of_unix(unix_ns / 1_000_000_000);
    let Civil { year, day, hour, minute, second, .. } = at;
    match access.peer {
        Some(peer) => write!(text, "{}", peer.ip())?,
        None => text.push('-'),
    }
    write!(text, " - - [{day:02}/{}/{year}:{hour:02}:{minute:02}:{second:02} +0000] \"", at.month_name())?;
    if access.method.is_empty() {
        text.push('-');
    } else {
        escape(text, access.method)?;
        text.push(' ');
        escape(text, access.target)?;
        write!(text, " HTTP/{}.{}", access.version / 10, access.version % 10)?;
    }
    write!(text, "\" {} {}", access.status, access.sent_bytes)?;
    if combined {
        for field in [access.referer, access.user_agent] {
            text.push_str(" \"");
            escape(text, if field.is_empty() { b"-" } else { field })?;
            text.push('"');
        }
    }
    text.push('\n');
    Ok(())
}

/// What could be taken for the log's own, or for a terminal's orders, as `\xNN`.
fn escape(text: &mut String, field: &[u8]) -> std::fmt::Result {
    for byte in field {
        match byte {
            b'"' | b'\\' | 0..=31 | 127.. => write!(text, "\\x{byte:02X}")?,
            byte => text.push(char::from(*byte)),
        }
    }
    Ok(())
}

fn json(text: &mut String, access: &Access<'_>, took: Duration, unix_ns: u64) -> std::fmt::Result {
    let at = Civil::of_unix(unix_ns / 1_000_000_000);
    let Civil { year, month, day, hour, minute, second, .. } = at;
    let ms = unix_ns / 1_000_000 % 1000;
    let shown = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let line = serde_json::json!({
        "time": format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"),
        "client": access.peer.map(|peer| peer.ip().to_string()),
        "method": shown(access.method),
        "target": shown(access.target),
        "version": format!("{}.{}", access.version / 10, access.version % 10),
        "status": access.status,
        "bytes": access.sent_bytes,
        "duration_ms": took.as_micros() as f64 / 1000.0,
        "referer": shown(access.referer),
        "user_agent": shown(access.user_agent),
    });
    writeln!(text, "{line}")
}

impl Io {
    /// Writes what listeners have noted.
    pub fn flush_access_logs(&mut self) {
        let now = self.core.now();
        for (_, log) in &mut self.core.access_logs {
            if !log.buffer.is_empty() {
                log.flush(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(began: Instant) -> Access<'static> {
        Access {
            peer: "203.0.113.7:4711".parse().ok(),
            method: b"GET",
            target: b"/a\"b\x1b[2J",
            version: 11,
            status: 200,
            sent_bytes: 12,
            referer: b"",
            user_agent: b"curl/8\n",
            began,
        }
    }

    #[test]
    fn a_line_holds_nothing_that_is_not_its_own() {
        let mut text = String::new();
        common(&mut text, &access(Instant::now()), 784_111_777_000_000_000, true).unwrap();
        let expected = concat!(
            r#"203.0.113.7 - - [06/Nov/1994:08:49:37 +0000] "GET /a\x22b\x1B[2J HTTP/1.1" 200 12 "-" "curl/8\x0A""#,
            "\n"
        );
        assert_eq!(text, expected);
        text.clear();
        json(&mut text, &access(Instant::now()), Duration::from_micros(1500), 784_111_777_042_000_000).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["duration_ms"], &line["time"]), (&1.5.into(), &"1994-11-06T08:49:37.042Z".into()));
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn a_file_that_was_put_aside_is_left_for_the_new_one() {
        let folder = std::env::temp_dir().join(format!("iok-access-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let now = Instant::now();
        let options = AccessOptions { path: path.to_str().unwrap().into(), format: Format::Common };
        let mut log = AccessLog::open(&options, now).unwrap();
        let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap().lines().count();
        log.note(&access(now), now, 0);
        log.flush(now);
        assert_eq!(lines(&path), 1);
        std::fs::rename(&path, folder.join("log.1")).unwrap();
        log.note(&access(now), now, 0);
        log.flush(now + LOOK_EVERY);
        assert_eq!((lines(&path), lines(&folder.join("log.1"))), (1, 1));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
