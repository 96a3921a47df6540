//! The live view: one thread looks at the kernel once an interval, another draws and listens to keys.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};

use super::Asking;
use super::fault::Fault;
use super::frame::{Counts, Look, Scene, View, draw};
use super::target::Address;
use super::terminal::{self, Screen};

/// Requests that are asked for: more than a screen has rows.
const REQUESTS: &str = "/requests?limit=200";
/// Without a terminal, so wide.
const PLAIN_WIDTH: usize = 120;
/// Ends by a signal, as shells have it: 128 and the signal's number.
const SIGNALLED: u8 = 128 + SIGTERM as u8;

pub fn run(asking: &Asking, interval: Duration, once: bool) -> Result<u8, Fault> {
    if asking.json {
        return Err(Fault::usage("top: --json: expected without; `iokernel state --json` has the same in JSON"));
    }
    if once || !terminal::is_live() { one_frame(asking, interval) } else { live(asking, interval) }
}

/// Two looks, so that there are rates.
fn one_frame(asking: &Asking, interval: Duration) -> Result<u8, Fault> {
    let address = asking.locate()?;
    let (counts, then) = (Counts::of(&asking.fetch_json(&address, "/state")?), Instant::now());
    std::thread::sleep(interval);
    let look = look(asking, &address, View::Overview)?;
    let rates = Counts::of(&look.state).rates(&counts, then.elapsed());
    let scene = Scene { look: Some(look), rates, ..Scene::default() };
    let width = terminal::size().map_or(PLAIN_WIDTH, |(columns, _)| columns);
    let lines = draw(&scene, width, None);
    super::print(terminal::painted(&lines, terminal::has_colour()).as_bytes())
}

fn look(asking: &Asking, address: &Address, view: View) -> Result<Look, Fault> {
    let mut look = Look { state: asking.fetch_json(address, "/state")?, ..Look::default() };
    match view {
        // The stack is taken by a signal to the program, so only when somebody looks at it.
        View::Stack => look.stack = asking.fetch_json(address, "/stack")?,
        View::Overview | View::Requests => look.requests = asking.fetch_json(address, REQUESTS)?,
    }
    Ok(look)
}

/// What the looking thread saw, when, and for which view.
type Seen = (Instant, Result<(View, Look), Fault>);

fn live(asking: &Asking, interval: Duration) -> Result<u8, Fault> {
    // What is wrong from the start is told on the screen that stays.
    let address = asking.locate()?;
    let first = look(asking, &address, View::Overview)?;
    let fault = |error: std::io::Error| Fault::no_answer(format!("terminal: {error}"));
    let (waker, woken) = UnixStream::pair().map_err(fault)?;
    woken.set_nonblocking(true).map_err(fault)?;
    let (to_looker, views) = channel();
    let (to_drawer, seen) = channel();
    let mut drawer = Drawer { seen, to_looker, woken, heard: Instant::now(), counts: None, scene: Scene::default() };
    drawer.take((Instant::now(), Ok((View::Overview, first))));
    let looker = Looker { asking: asking.clone(), address: Some(address), interval, views, seen: to_drawer, waker };
    // Nobody waits for it: it may be in the middle of a question when the user quits.
    std::thread::spawn(move || looker.run());
    drawer.run().map_err(fault)
}

struct Looker {
    asking: Asking,
    address: Option<Address>,
    interval: Duration,
    views: Receiver<View>,
    seen: Sender<Seen>,
    waker: UnixStream,
}

impl Looker {
    fn run(mut self) {
        let mut view = View::default();
        let mut next = Instant::now() + self.interval;
        loop {
            match self.views.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(wanted) => view = wanted,
                Err(RecvTimeoutError::Timeout) => next = Instant::now() + self.interval,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let saw = self.look(view).map(|look| (view, look));
            if self.seen.send((Instant::now(), saw)).is_err() || self.waker.write_all(b"!").is_err() {
                return;
            }
        }
    }

    /// After a fault the kernel is looked for again: its program may have begun anew.
    fn look(&mut self, view: View) -> Result<Look, Fault> {
        let address = match self.address.take() {
            Some(address) => address,
            None => self.asking.locate()?,
        };
        let look = look(&self.asking, &address, view)?;
        self.address = Some(address);
        Ok(look)
    }
}

struct Drawer {
    seen: Receiver<Seen>,
    to_looker: Sender<View>,
    /// Readable when there is something in `seen`.
    woken: UnixStream,
    /// When the kernel answered last.
    heard: Instant,
    /// What was counted then.
    counts: Option<(Instant, Counts)>,
    scene: Scene,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Quit,
    Show(View),
}

impl Drawer {
    fn run(mut self) -> std::io::Result<u8> {
        let ended = Arc::new(AtomicBool::new(false));
        let resized = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, ended.clone())?;
        }
        signal_hook::flag::register(SIGWINCH, resized)?;
        let colour = terminal::has_colour();
        let screen = Screen::enter()?;
        loop {
            let (width, height) = terminal::size().unwrap_or((80, 24));
            screen.draw(&draw(&self.scene, width, Some(height)), colour)?;
            let (keys, news) = self.wait()?;
            if ended.load(Ordering::Relaxed) {
                return Ok(SIGNALLED);
            }
            if news {
                self.take_all();
            }
            if keys && self.obey(&read_keys()?) {
                return Ok(0);
            }
        }
    }

    /// For a key, for news, or for a signal, whichever comes first.
    fn wait(&self) -> std::io::Result<(bool, bool)> {
        let keys = std::io::stdin();
        let mut both = [PollFd::new(&keys, PollFlags::IN), PollFd::new(&self.woken, PollFlags::IN)];
        // A signal between the drawing and the wait shows a second later at most.
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut both, Some(&second)) {
            Ok(_) | Err(Errno::INTR) => Ok((!both[0].revents().is_empty(), !both[1].revents().is_empty())),
            Err(error) => Err(error.into()),
        }
    }

    fn take_all(&mut self) {
        let _ = (&self.woken).read(&mut [0; 64]);
        while let Ok(seen) = self.seen.try_recv() {
            self.take(seen);
        }
    }

    fn take(&mut self, (at, saw): Seen) {
        match saw {
            Ok((view, look)) => {
                let counts = Counts::of(&look.state);
                if let Some((then, before)) = &self.counts {
                    self.scene.rates = counts.rates(before, at - *then);
                }
                (self.counts, self.heard) = (Some((at, counts)), at);
                self.scene.silent = None;
                if view == self.scene.view || self.scene.look.is_none() {
                    self.scene.look = Some(look);
                }
            }
            Err(fault) => self.scene.silent = Some((at - self.heard, fault.text)),
        }
    }

    /// Whether to quit.
    fn obey(&mut self, pressed: &[u8]) -> bool {
        for key in keys_of(pressed) {
            let Key::Show(view) = key else { return true };
            if view != self.scene.view {
                self.scene.view = view;
                // It has gone only if it panicked; the screen says then for how long nothing was heard.
                let _ = self.to_looker.send(view);
            }
        }
        false
    }
}

fn read_keys() -> std::io::Result<Vec<u8>> {
    let mut pressed = [0; 64];
    // Not by std's buffer, of which poll would know nothing.
    match rustix::io::read(std::io::stdin(), &mut pressed) {
        // The terminal is gone.
        Ok(0) => Ok(b"q".to_vec()),
        Ok(count) => Ok(pressed[..count].to_vec()),
        Err(Errno::INTR | Errno::AGAIN) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn keys_of(pressed: &[u8]) -> Vec<Key> {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    const ESCAPE: u8 = 27;
    let (mut keys, mut rest) = (Vec::new(), pressed);
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'q' | b'Q' | &CTRL_C | &CTRL_D => keys.push(Key::Quit),
            b'r' | b'R' => keys.push(Key::Show(View::Requests)),
            b's' | b'S' => keys.push(Key::Show(View::Stack)),
            b'o' | b'O' => keys.push(Key::Show(View::Overview)),
            // An arrow or another key that is a sequence of its own; by itself, Esc.
            &ESCAPE => match sequence_length(after) {
                0 => keys.push(Key::Show(View::Overview)),
                length => rest = &after[length..],
            },
            _ => {}
        }
    }
    keys
}

/// How long the rest of a sequence after Esc is: `[A`, `[15~`, `OP` (ECMA-48, section 5.4).
fn sequence_length(after: &[u8]) -> usize {
    match after {
        [b'[', rest @ ..] => {
            1 + rest.iter().position(|byte| (0x40..=0x7e).contains(byte)).map_or(rest.len(), |at| at + 1)
        }
        [b'O', ..] => after.len().min(2),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_sequences() {
        assert_eq!(keys_of(b"q"), [Key::Quit]);
        assert_eq!(keys_of(b"\x03"), [Key::Quit]);
        assert_eq!(keys_of(b"srx"), [Key::Show(View::Stack), Key::Show(View::Requests)]);
        assert_eq!(keys_of(b"\x1b"), [Key::Show(View::Overview)]);
        assert_eq!(keys_of(b"\x1b[A\x1b[15~\x1bOP\x1b["), []);
        assert_eq!(keys_of(b"\x1b[Aq"), [Key::Quit]);
    }
}
