//! Replies in the making: `[tag, columns, rows]`, row by row as they come, and `notices` behind them where there are any.
use super::error::ServerError;
use super::statements::{Column, Columns};
use super::types::Types;
use super::wire::Fields;
use crate::value::write;

/// The tag comes last and stands first: room for it is kept before the columns.
const TAG_ROOM: usize = 96;
/// A buffer that grew beyond this is given back.
const BYTES_KEPT: usize = 1 << 20;
/// Rows that are wanted as they come are told in pieces of so many bytes.
pub const CHUNK_BYTES: usize = 16 << 10;

/// Notices beyond this are not kept.
const NOTICES_BYTES_MAX: usize = 64 << 10;

/// The reply of one statement, or of all statements of a script.
#[derive(Debug)]
pub struct Answer {
    bytes_max: usize,
    buffer: Vec<u8>,
    /// Where the count of rows waits to be filled in. None: no result is open.
    open: Option<write::Open>,
    rows: u32,
    /// Where the first row is.
    rows_at: usize,
    /// Where the reply begins, once it is whole.
    start: usize,
    /// `[code, text]` each.
    notices: Vec<u8>,
    notices_count: u32,
    /// Replies of a script's statements before this one.
    script: Vec<u8>,
    statements: u32,
    /// Nothing more is kept of it.
    failed: Option<ServerError>,
}

impl Answer {
    pub fn new(bytes_max: usize) -> Self {
        Answer {
            bytes_max,
            buffer: Vec::new(),
            open: None,
            rows: 0,
            rows_at: 0,
            start: 0,
            notices: Vec::new(),
            notices_count: 0,
            script: Vec::new(),
            statements: 0,
            failed: None,
        }
    }

    /// The rows so far, in an array, where they are `many` or `all` there will be. They are no longer part of the reply.
    pub fn take_rows(&mut self, all: bool) -> Option<Vec<u8>> {
        let first = self.open.as_ref().map(|_| self.rows_at)?;
        let is_due = self.rows > 0 && (all || self.buffer.len() - first >= CHUNK_BYTES);
        if !is_due || self.failed.is_some() {
            return None;
        }
        let mut rows = Vec::with_capacity(self.buffer.len() - first + 5);
        write::array(&mut rows, self.rows);
        rows.extend_from_slice(&self.buffer[first..]);
        self.buffer.truncate(first);
        self.rows = 0;
        Some(rows)
    }

    /// The next request's.
    pub fn clear(&mut self) {
        for buffer in [&mut self.buffer, &mut self.script] {
            buffer.clear();
            if buffer.capacity() > BYTES_KEPT {
                *buffer = Vec::new();
            }
        }
        self.notices.clear();
        self.notices_count = 0;
        (self.open, self.rows, self.statements, self.failed) = (None, 0, 0, None);
    }

    /// A result begins. False: one is open already.
    pub fn begin(&mut self, columns: &Columns) -> bool {
        if self.open.is_some() {
            return false;
        }
        self.buffer.clear();
        self.buffer.resize(TAG_ROOM, 0);
        self.buffer.extend_from_slice(&columns.told);
        self.rows = 0;
        self.open = Some(write::array_open(&mut self.buffer));
        self.rows_at = self.buffer.len();
        true
    }

    /// One row. None: it is not what was described.
    pub fn row(&mut self, columns: &[Column], body: &[u8], types: &Types) -> Option<()> {
        self.open?;
        let mut fields = Fields(body);
        if fields.count()? != columns.len() {
            return None;
        }
        if self.failed.is_some() {
            return Some(());
        }
        write::array(&mut self.buffer, columns.len() as u32);
        for column in columns {
            match fields.value()? {
                None => write::nil(&mut self.buffer),
                Some(value) => {
                    if let Err(why) = types.decode(column.oid, column.format, value, &mut self.buffer) {
                        let (name, kind) = (String::from_utf8_lossy(&column.name), types.name(column.oid));
                        self.fail("BADVALUE", format!("column {name} of type {kind}, row {}: {why}", self.rows));
                        return Some(());
                    }
                }
            }
        }
        self.rows += 1;
        if self.buffer.len() + self.script.len() > self.bytes_max.saturating_add(TAG_ROOM) {
            self.too_large();
        }
        fields.0.is_empty().then_some(())
    }

    /// The server says something beside its reply.
    pub fn notice(&mut self, notice: &ServerError) {
        let before = self.notices.len();
        notice.body(&mut self.notices);
        if self.notices.len() > NOTICES_BYTES_MAX {
            self.notices.truncate(before);
        } else {
            self.notices_count += 1;
        }
    }

    /// Puts what was said behind the reply that begins at `start`.
    fn add_notices(&mut self, start: usize) {
        if self.notices_count > 0 && start < self.buffer.len() {
            write::array(&mut self.buffer, std::mem::take(&mut self.notices_count));
            self.buffer.append(&mut self.notices);
            self.buffer[start] = 0x94;
        }
    }

    pub fn too_large(&mut self) {
        let max = self.bytes_max;
        self.fail("TOOLARGE", format!("the reply exceeds {max} bytes: raise max_reply, or ask for less"));
    }

    /// What is left of the reply is not kept. The first reason stands.
    pub fn fail(&mut self, code: &str, message: String) {
        if self.failed.is_none() {
            self.buffer.truncate(TAG_ROOM);
            self.script = Vec::new();
            self.failed = Some(ServerError::own(code, message));
        }
    }

    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    pub fn failure(&mut self) -> Option<ServerError> {
        self.failed.take()
    }

    /// A statement is done. Its reply is `whole`, or the next one of the `script`.
    pub fn end(&mut self, tag: &[u8], is_script: bool) {
        if self.failed.is_some() {
            self.open = None;
            return;
        }
        if self.open.is_none() {
            self.begin(&Columns::nothing());
        }
        if let Some(open) = self.open.take() {
            write::count_close(&mut self.buffer, open, self.rows);
        }
        if is_script {
            let start = self.head(tag);
            self.add_notices(start);
            self.script.extend_from_slice(&self.buffer[start..]);
            self.statements += 1;
            if self.script.len() > self.bytes_max {
                self.too_large();
            }
            return;
        }
        self.start = self.head(tag);
        self.statements += 1;
    }

    /// Writes what stands before the columns, and says where it begins.
    fn head(&mut self, tag: &[u8]) -> usize {
        let mut head = vec![0x93];
        write::str(&mut head, &tag[..tag.len().min(TAG_ROOM - 4)]);
        let start = TAG_ROOM - head.len();
        self.buffer[start..TAG_ROOM].copy_from_slice(&head);
        start
    }

    /// How many statements have ended.
    pub fn statements(&self) -> u32 {
        self.statements
    }

    /// The reply of the one statement.
    pub fn whole(&mut self) -> &[u8] {
        self.add_notices(self.start);
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// The replies of a script, in an array.
    pub fn script(&mut self) -> &[u8] {
        self.buffer.clear();
        write::array(&mut self.buffer, self.statements);
        self.buffer.extend_from_slice(&self.script);
        &self.buffer
    }
}
