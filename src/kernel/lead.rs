//! Who turns the loop. The kernel's own thread does, whenever nobody else does; but a thread of the program that has
//! nothing to do but to wait for the kernel is lent to it meanwhile (the pattern Leader/Followers: Schmidt et al., POSA2,
//! 2000). What it waits for then comes without a wake from one thread to another: it takes its submissions itself,
//! writes them, waits at the sockets, and reads the reply.
//!
//! The loop is behind a lock that is held for half a turn at a time, never while anybody sleeps. The own thread keeps
//! sleeping at the sockets while another leads. Of all who sleep there the system wakes the one that came last, which is
//! the leader; and when the leader goes back to its program, somebody sleeps there already: nothing is handed over.
//! (While the leader looks without sleeping, the own thread wakes too, and finds nothing.)
//!
//! # Architecture invariants
//! A lent thread calls nothing of the program's. The process's first one takes signals only where it sleeps, so that none
//! comes unseen between a turn and a sleep; in others a handler that runs during a turn does not end the wait. Whoever
//! withdraws the bell's flag looks for work after it before it sleeps or leaves. A leader that leaves with work undone, or
//! with a timer that comes before the own thread wakes, wakes it.

use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::io::Io;
use super::shared::Shared;
use super::turn::{By, Loop, NEVER_NS};
use crate::ring::app::AppSide;
use crate::ring::region::Region;
use crate::ring::spin::{SPIN_MAX, Spin};
use crate::ring::wake::{self, LEADING};
use crate::status::*;
use crate::sys::clock::monotonic_ns;
use crate::sys::epoll::{self, Event};
use crate::sys::fork;
use crate::sys::mask::Held;
use crate::sys::owned::Owned;

/// Events taken from the system at once, by the own thread and by a lent one.
const EVENTS_MAX: usize = 1024;
const LENT_EVENTS_MAX: usize = 64;
/// How long the own thread looks for submissions before it sleeps.
const LOOK: Duration = Duration::from_micros(10);
/// The longest look of a lent thread at the sockets: about what a peer on the same machine takes for a hundred requests.
const LENT_LOOK: Duration = Duration::from_micros(150);
/// How long the own thread keeps away from the sockets for a leader that it has called.
const CALL: Duration = Duration::from_millis(1);

/// The loop, and who has it.
pub struct Helm {
    place: Mutex<Place>,
    /// The leader has been at the lock since it was called, or leads no more.
    heard: Condvar,
    poll: RawFd,
    shared: Arc<Shared>,
    /// There is more than one processor, so that the program can go on while this thread looks.
    looks: bool,
}

#[derive(Default)]
struct Place {
    /// None before the own thread has begun, and after it has ended.
    held: Option<Loop>,
    /// The channel for which somebody leads.
    leader: Option<Arc<Region>>,
    /// The own thread waits for the leader to hear its call.
    called: bool,
    /// When the own thread wakes by itself.
    own_wakes_ns: u64,
    /// A turn has panicked.
    broken: bool,
}

/// How to wait.
struct Wait {
    timeout: Option<Duration>,
    /// Replies are due: the sockets are what to look at.
    replies_due: bool,
    /// Whether to look before sleeping, and for how long.
    looks: bool,
    span: Duration,
    /// The bell was told.
    announced: bool,
}

impl Helm {
    pub fn new(io: &Io, shared: Arc<Shared>) -> Self {
        let (poll, looks) = (io.poll.as_raw_fd(), crate::sys::thread::processors() > 1);
        Helm { place: Mutex::default(), heard: Condvar::new(), poll, shared, looks }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        // Panics in it are contained, and told by `broken`.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The own thread's body: runs until the kernel is closed.
    pub fn run(&self, io: Owned<Io>) {
        let mut events = vec![Event::NONE; EVENTS_MAX];
        let mut spin = Spin::new();
        let (mut count, mut slept) = (0, false);
        let mut turns = Loop::new(io, self.shared.clone());
        let begun = catch_unwind(AssertUnwindSafe(|| turns.begin()));
        let mut place = self.lock();
        (place.held, place.broken) = (Some(turns), begun.is_err());
        drop(place);
        loop {
            let mut place = self.lock();
            let broken = place.broken;
            let Some(turns) = &mut place.held else { break };
            let mut turn = || {
                turns.after_wait(&events[..count], slept, By::Own);
                turns.before_wait(By::Own)
            };
            match if broken { None } else { catch_unwind(AssertUnwindSafe(&mut turn)).ok() } {
                Some(true) => {}
                Some(false) => break,
                // A panic that nothing nearer contained: what the loop holds may be half-changed. Everyone is told.
                None => {
                    let _ = catch_unwind(AssertUnwindSafe(|| turns.shut(IOK_STATUS_PANIC)));
                    break;
                }
            }
            let mut place = self.call_leader(place);
            let Some(turns) = &mut place.held else { break };
            let due_ns = turns.due_ns();
            let wait = self.prepare(turns, &mut spin, due_ns, SPIN_MAX);
            place.own_wakes_ns = due_ns;
            drop(place);
            slept = wait.timeout != Some(Duration::ZERO);
            count = self.wait(&wait, &mut spin, &mut events, None).unwrap_or(0);
        }
        self.end();
    }

    /// The loop ends: nobody leads any more, and every descriptor is closed before anyone hears of the end.
    fn end(&self) {
        let mut place = self.lock();
        while place.leader.is_some() {
            place.called = true;
            self.shared.bell.event().signal();
            place = self.heard.wait_timeout(place, CALL).map_or_else(|e| e.into_inner().0, |(place, _)| place);
        }
        let held = place.held.take();
        drop(place);
        drop(held);
        self.shared.finish();
    }

    /// If somebody leads, and the turn that has just been done was for it: wakes it, and stays away from the sockets until
    /// it has heard, so that nobody else takes the event that calls it.
    fn call_leader<'a>(&self, mut place: MutexGuard<'a, Place>) -> MutexGuard<'a, Place> {
        if place.leader.as_ref().is_some_and(|region| !region.is_leading()) {
            place.called = true;
            self.shared.bell.event().signal();
            let missed = |place: &mut Place| place.called;
            place = self
                .heard
                .wait_timeout_while(place, CALL, missed)
                .map_or_else(|e| e.into_inner().0, |(place, _)| place);
        }
        place
    }

    /// The leader is at the lock.
    fn hear(&self, place: &mut Place) {
        if std::mem::take(&mut place.called) {
            self.heard.notify_one();
        }
    }

    /// Under the lock, before a wait until that moment: how. Whoever submits from here on rings.
    fn prepare(&self, turns: &Loop, spin: &mut Spin, until_ns: u64, look: Duration) -> Wait {
        let timeout = match until_ns {
            NEVER_NS => None,
            at => Some(Duration::from_nanos(at.saturating_sub(monotonic_ns()))),
        };
        let replies_due = turns.awaits_replies();
        let span = if replies_due { look } else { LOOK };
        let now = Wait { timeout: Some(Duration::ZERO), replies_due, looks: false, span, announced: false };
        if turns.is_busy() || timeout == Some(Duration::ZERO) {
            return now;
        }
        let looks = if replies_due { spin.begin() } else { self.looks };
        self.shared.bell.announce(if looks { wake::LOOKING } else { wake::ON_FD });
        let timeout = if turns.has_work() { Some(Duration::ZERO) } else { timeout };
        Wait { timeout, replies_due, looks, span, announced: true }
    }

    /// Without the lock: waits until there is something to do. How many events there are; an error: a signal came.
    fn wait(
        &self,
        wait: &Wait,
        spin: &mut Spin,
        events: &mut [Event],
        signals: Option<&Held>,
    ) -> std::io::Result<usize> {
        let bell = &self.shared.bell;
        let poll = |events: &mut [Event], timeout| epoll::wait(self.poll, events, timeout, signals);
        let nothing_to_look_for = wait.timeout == Some(Duration::ZERO);
        let found = if nothing_to_look_for {
            poll(events, wait.timeout)
        } else if wait.replies_due {
            // The sockets are what to look at, and only the system can do that.
            let start = Instant::now();
            let limit = wait.timeout.map_or(wait.span, |timeout| timeout.min(wait.span));
            let mut found = Ok(0);
            let mut met = false;
            while wait.looks && !met && start.elapsed() < limit {
                found = epoll::wait(self.poll, events, Some(Duration::ZERO), None);
                met = !matches!(found, Ok(0)) || bell.has_rung();
            }
            if !met {
                let rang = wait.looks && bell.look(Duration::ZERO);
                found = poll(events, if rang { Some(Duration::ZERO) } else { wait.timeout });
            }
            spin.end(wait.looks, start.elapsed());
            found
        } else {
            let rang = wait.looks && bell.look(wait.span);
            poll(events, if rang { Some(Duration::ZERO) } else { wait.timeout })
        };
        if wait.announced {
            bell.withdraw();
        }
        found
    }

    /// Lends this thread to the loop until its channel has something to tell. None: it cannot be lent, or can no longer;
    /// then it is to sleep until it is woken.
    pub fn lead(&self, app: &mut AppSide, deadline_ns: u64) -> Option<Status> {
        let epoch = fork::epoch();
        let signals = Held::in_first_thread();
        let mut place = self.place.try_lock().ok()?;
        if place.leader.is_some() || place.broken || place.held.as_ref().is_none_or(Loop::wants_own_thread) {
            return None;
        }
        let region = app.lead();
        place.leader = Some(region.clone());
        self.shared.bell.withdraw();
        let mut events = [Event::NONE; LENT_EVENTS_MAX];
        let (mut count, mut slept) = (None, false);
        let outcome = loop {
            let own_wakes_ns = place.own_wakes_ns;
            let Some(turns) = &mut place.held else { break None };
            let mut met = false;
            let turn = catch_unwind(AssertUnwindSafe(|| {
                if let Some(count) = count {
                    turns.after_wait(&events[..count], slept, By::Lent);
                    met = app.has_cause();
                }
                if !met {
                    turns.before_wait(By::Lent);
                    met = app.has_cause();
                }
            }));
            if turn.is_err() {
                place.broken = true;
                break None;
            }
            if met {
                break Some(app.cause());
            }
            if turns.wants_own_thread() {
                break None;
            }
            if deadline_ns != NEVER_NS && monotonic_ns() >= deadline_ns {
                break Some(IOK_STATUS_TIMEOUT);
            }
            // The own thread sees to the timers for which it wakes anyway.
            let due_ns = Some(turns.due_ns()).filter(|at| *at < own_wakes_ns).unwrap_or(NEVER_NS);
            let wait = self.prepare(turns, app.spin(), due_ns.min(deadline_ns), LENT_LOOK);
            wake::announce(region.sleep_word(), LEADING);
            drop(place);
            slept = wait.timeout != Some(Duration::ZERO);
            let found = self.wait(&wait, app.spin(), &mut events, signals.as_ref());
            if fork::epoch() != epoch {
                // A signal's handler has forked, and this is the child: nothing here is its own.
                return Some(IOK_STATUS_INTERRUPTED);
            }
            place = self.lock();
            self.hear(&mut place);
            wake::withdraw(region.sleep_word());
            match found {
                Ok(found) => count = Some(found),
                Err(_) if app.has_cause() => break Some(app.cause()),
                Err(_) => break Some(IOK_STATUS_INTERRUPTED),
            }
        };
        self.leave(place);
        app.follow();
        outcome
    }

    /// Lends this thread for half a turn: what its program has submitted is taken and written. False: it cannot be lent.
    pub fn lend(&self) -> bool {
        let _signals = Held::in_first_thread();
        let Ok(mut place) = self.place.try_lock() else { return false };
        if place.leader.is_some() || place.broken {
            return false;
        }
        let Some(turns) = place.held.as_mut().filter(|turns| !turns.wants_own_thread()) else { return false };
        self.shared.bell.withdraw();
        let turn = catch_unwind(AssertUnwindSafe(|| turns.before_wait(By::Lent)));
        place.broken = turn.is_err();
        self.leave(place);
        true
    }

    /// The leader goes back to its program. The own thread sleeps at the sockets; it is woken if that is not enough.
    fn leave(&self, mut place: MutexGuard<'_, Place>) {
        place.leader = None;
        self.hear(&mut place);
        self.shared.bell.announce(wake::ON_FD);
        let own_wakes_ns = place.own_wakes_ns;
        let undone = place.held.as_mut().is_some_and(|turns| {
            turns.rests();
            turns.is_busy() || turns.wants_own_thread() || turns.has_work() || turns.due_ns() < own_wakes_ns
        });
        if undone || place.broken {
            self.shared.bell.withdraw();
            self.shared.bell.event().signal();
        }
    }
}
