//! What the command ends with when it cannot do what was asked.

use std::fmt;

/// Exit statuses, as `--help` has them.
pub const UNHEALTHY: u8 = 1;
pub const USAGE: u8 = 2;
pub const NO_ANSWER: u8 = 3;

/// An exit status and a text that names the cause and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub status: u8,
    pub text: String,
}

impl Fault {
    pub fn usage(text: impl Into<String>) -> Self {
        Fault { status: USAGE, text: text.into() }
    }

    pub fn no_answer(text: impl Into<String>) -> Self {
        Fault { status: NO_ANSWER, text: text.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
