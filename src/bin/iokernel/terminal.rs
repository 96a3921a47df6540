//! The terminal: its size, its colours, and keys one by one while the live view has it.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::show::{Line, Tone};

/// For a terminal that tells no size.
const USUAL: (usize, usize) = (80, 24);

/// Another screen, without a cursor, that cuts long lines; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The settings to go back to while the view has the terminal.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Columns and rows of the terminal that standard output is.
pub fn size() -> Option<(usize, usize)> {
    let out = std::io::stdout();
    let size = out.is_terminal().then(|| tcgetwinsize(&out).ok())??;
    Some(match (size.ws_col, size.ws_row) {
        (0, _) | (_, 0) => USUAL,
        (columns, rows) => (columns.into(), rows.into()),
    })
}

/// How wide text may be: as the terminal is, or without a limit.
pub fn width() -> usize {
    size().map_or(usize::MAX, |(columns, _)| columns)
}

/// Whether a live view is possible.
pub fn is_live() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    size().is_some() && std::io::stdin().is_terminal() && !is_dumb
}

/// <https://no-color.org>: any value that is not empty.
pub fn has_colour() -> bool {
    is_live() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The lines, each with its end.
pub fn painted(lines: &[Line], colour: bool) -> String {
    lines.iter().map(|line| paint(line, colour) + "\n").collect()
}

/// A line in its colours, which end with it.
pub fn paint(line: &Line, colour: bool) -> String {
    let code = match line.tone {
        Tone::Plain => "",
        Tone::Title => "1",
        Tone::Faint => "2",
        Tone::Bad => "31",
    };
    if colour && !code.is_empty() && !line.text.is_empty() {
        format!("\x1b[{code}m{}\x1b[0m", line.text)
    } else {
        line.text.clone()
    }
}

/// Has the terminal until it is dropped, also by a panic.
pub struct Screen(());

impl Screen {
    pub fn enter() -> std::io::Result<Self> {
        let keys = std::io::stdin();
        let before = tcgetattr(&keys)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(before);
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // First, so that what it says is on the screen that stays.
            leave();
            earlier(panic);
        }));
        tcsetattr(&keys, OptionalActions::Flush, &raw)?;
        let screen = Screen(());
        screen.write(ENTER)?;
        Ok(screen)
    }

    pub fn write(&self, text: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Draws all lines over what was there, and nothing below them.
    pub fn draw(&self, lines: &[Line], colour: bool) -> std::io::Result<()> {
        let painted: Vec<String> = lines.iter().map(|line| paint(line, colour) + "\x1b[K").collect();
        self.write(&format!("\x1b[H{}\x1b[J", painted.join("\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Gives the terminal back as it was; of no effect the second time.
fn leave() {
    let before = BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    let Some(before) = before else { return };
    let mut out = std::io::stdout().lock();
    // A terminal that is gone needs nothing.
    let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &before);
}

#[cfg(test)]
mod tests {
    use super::super::show::line;
    use super::*;

    #[test]
    fn colours_end_with_their_line_and_are_left_out_when_not_wanted() {
        let lines = [line(Tone::Bad, "down"), line(Tone::Plain, "up"), line(Tone::Title, "")];
        assert_eq!(painted(&lines, true), "\x1b[31mdown\x1b[0m\nup\n\n");
        assert_eq!(painted(&lines, false), "down\nup\n\n");
    }
}
