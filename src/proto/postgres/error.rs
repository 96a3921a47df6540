//! Errors as the server tells them (PostgreSQL 15 documentation, 55.8 "Error and Notice Message Fields").
use super::wire::Fields;
use crate::value::write;

/// One ErrorResponse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// SQLSTATE, such as `23505`.
    pub code: String,
    severity: String,
    pub message: String,
    /// Detail, hint and the like, each with its title.
    more: Vec<(&'static str, String)>,
}

/// Fields that are told, and their titles.
const TITLES: &[(u8, &str)] = &[
    (b'D', "DETAIL"),
    (b'H', "HINT"),
    (b'P', "POSITION"),
    (b'q', "QUERY"),
    (b'p', "POSITION IN IT"),
    (b'W', "CONTEXT"),
];

impl ServerError {
    /// None: the message ends too soon.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let mut error = ServerError::default();
        loop {
            let kind = fields.byte()?;
            if kind == 0 {
                return Some(error);
            }
            let text = String::from_utf8_lossy(fields.text()?).into_owned();
            match kind {
                b'C' => error.code = text.chars().filter(char::is_ascii_alphanumeric).take(5).collect(),
                // The severity in the server's language, unless it is there in English too.
                b'S' if error.severity.is_empty() => error.severity = text,
                b'V' => error.severity = text,
                b'M' => error.message = text,
                kind => {
                    if let Some((_, title)) = TITLES.iter().find(|(known, _)| *known == kind) {
                        error.more.push((title, text));
                    }
                }
            }
        }
    }

    /// One that is ours: the server said nothing of the kind.
    pub fn own(code: &str, message: impl Into<String>) -> Self {
        ServerError { code: code.into(), message: message.into(), ..ServerError::default() }
    }

    /// Adds a hint of ours to what the server said.
    pub fn advise(&mut self, hint: &str) {
        self.more.push(("HINT", hint.into()));
    }

    /// The server closes the conn after it.
    pub fn is_fatal(&self) -> bool {
        matches!(&*self.severity, "FATAL" | "PANIC")
    }

    /// `ERROR: duplicate key ...`, and what else was told on a line each.
    pub fn text(&self) -> String {
        let mut text = if self.severity.is_empty() { String::new() } else { format!("{}: ", self.severity) };
        text.push_str(&self.message);
        for (title, more) in &self.more {
            text.push_str(&format!("\n{title}: {more}"));
        }
        text
    }

    /// `[code, message]`.
    pub fn body(&self, out: &mut Vec<u8>) {
        let code = if self.code.is_empty() { "XX000" } else { &self.code };
        write::error(out, code.as_bytes(), self.text().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_what_the_server_said() {
        let body = b"SFEHLER\0VERROR\0C23505\0Mduplicate key\0DKey (id)=(1) already exists.\0P15\0Fnbtinsert.c\0\0";
        let error = ServerError::read(body).unwrap();
        assert_eq!((&*error.code, error.is_fatal()), ("23505", false));
        assert_eq!(error.text(), "ERROR: duplicate key\nDETAIL: Key (id)=(1) already exists.\nPOSITION: 15");
        (0..body.len()).for_each(|end| assert_eq!(ServerError::read(&body[..end]), None));
    }
}
