//! What the program's threads and the I/O thread share, beside the rings: a few rare messages and the news of the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::channel::{Channel, ChannelConfig};
use crate::ring::region::Region;
use crate::ring::wake::Bell;
use crate::status::IOK_STATUS_CLOSED;

/// Asks of the I/O thread that no ring carries.
pub enum Control {
    OpenChannel { region: Arc<Region>, config: ChannelConfig, key: u64 },
    CloseChannel { key: u64 },
    Close { drain: Duration },
}

pub struct Shared {
    pub bell: Arc<Bell>,
    waiting: Mutex<Vec<Control>>,
    any: AtomicBool,
    finished: Mutex<bool>,
    end: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held left plain data whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(bell: Arc<Bell>) -> Self {
        Shared {
            bell,
            waiting: Mutex::default(),
            any: AtomicBool::new(false),
            finished: Mutex::new(false),
            end: Condvar::new(),
        }
    }

    pub fn ask(&self, control: Control) {
        lock(&self.waiting).push(control);
        self.any.store(true, Ordering::Release);
        self.bell.ring();
        if self.is_finished() {
            self.refuse_waiting();
        }
    }

    /// Nobody takes what waits any more: a channel that came too late is told.
    fn refuse_waiting(&self) {
        for control in self.take() {
            if let Control::OpenChannel { region, config, key } = control {
                Channel::new(region, config, key).end(IOK_STATUS_CLOSED);
            }
        }
    }

    #[inline]
    pub fn has_control(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub fn take(&self) -> Vec<Control> {
        let mut waiting = lock(&self.waiting);
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut waiting)
    }

    /// The I/O thread has ended.
    pub fn finish(&self) {
        *lock(&self.finished) = true;
        self.end.notify_all();
        self.refuse_waiting();
    }

    pub fn is_finished(&self) -> bool {
        *lock(&self.finished)
    }

    /// Waits for the I/O thread's end; false if it has not come in time.
    pub fn wait_finished(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut finished = lock(&self.finished);
        while !*finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            finished = self.end.wait_timeout(finished, left).map_or_else(|e| e.into_inner().0, |(guard, _)| guard);
        }
        true
    }
}
