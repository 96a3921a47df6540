//! Runs futures on the thread that calls it, when they were woken.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

pub type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Futures with a label each.
pub struct Executor<L, T> {
    tasks: Slab<Task<L, T>>,
    woken: Arc<Mutex<Vec<usize>>>,
    batch: Vec<usize>,
}

struct Task<L, T> {
    label: L,
    work: Work<T>,
    bell: Arc<Bell>,
}

/// Wakes one task. Its key may belong to another task by the time it rings, which is then polled once for nothing.
struct Bell {
    key: usize,
    rung: AtomicBool,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            lock(&self.woken).push(self.key);
        }
    }
}

/// What a task came to: its output, or the panic that ended it.
pub type Outcome<T> = Result<T, Box<dyn Any + Send>>;

impl<L: PartialEq, T> Executor<L, T> {
    pub fn new() -> Self {
        Executor { tasks: Slab::new(), woken: Arc::default(), batch: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Polled for the first time by the next [`Executor::run`].
    pub fn spawn(&mut self, label: L, work: Work<T>) {
        let entry = self.tasks.vacant_entry();
        let bell = Arc::new(Bell { key: entry.key(), rung: AtomicBool::new(false), woken: self.woken.clone() });
        bell.wake_by_ref();
        entry.insert(Task { label, work, bell });
    }

    /// Drops the task with this label. True if there was one.
    pub fn cancel(&mut self, label: &L) -> bool {
        let found = self.tasks.iter().find(|(_, task)| task.label == *label).map(|(key, _)| key);
        found.map(|key| self.tasks.remove(key)).is_some()
    }

    pub fn is_woken(&self) -> bool {
        !lock(&self.woken).is_empty()
    }

    /// Polls every task that was woken before the call, each once. A panic ends its own task only.
    pub fn run(&mut self, done: &mut dyn FnMut(L, Outcome<T>)) {
        let mut batch = std::mem::take(&mut self.batch);
        std::mem::swap(&mut batch, &mut lock(&self.woken));
        for key in batch.drain(..) {
            let Some(task) = self.tasks.get_mut(key) else { continue };
            task.bell.rung.store(false, Ordering::Release);
            let waker = Waker::from(task.bell.clone());
            let work = &mut task.work;
            let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut Context::from_waker(&waker))));
            let outcome = match polled {
                Ok(Poll::Pending) => continue,
                Ok(Poll::Ready(output)) => Ok(output),
                Err(panic) => Err(panic),
            };
            let Task { label, work, .. } = self.tasks.remove(key);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(work)));
            done(label, outcome);
        }
        self.batch = batch;
    }
}

/// State stays usable after a panic elsewhere: nothing here is left half-changed while locked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_its_own_task_only() {
        let mut executor = Executor::<u8, u8>::new();
        executor.spawn(1, Box::pin(async { panic!("on purpose") }));
        executor.spawn(2, Box::pin(async { 7 }));
        executor.spawn(3, Box::pin(std::future::pending()));
        let mut ended = Vec::new();
        executor.run(&mut |label, outcome| ended.push((label, outcome.ok())));
        assert_eq!(ended, [(1, None), (2, Some(7))]);
        assert_eq!(executor.len(), 1);
        assert!(!executor.is_woken() && executor.cancel(&3) && !executor.cancel(&3));
    }

    #[test]
    fn a_task_runs_again_only_when_woken() {
        let polls = Arc::new(Mutex::new((0, None::<Waker>)));
        let seen = polls.clone();
        let mut executor = Executor::<u8, ()>::new();
        executor.spawn(
            1,
            Box::pin(std::future::poll_fn(move |cx| {
                let mut seen = lock(&seen);
                *seen = (seen.0 + 1, Some(cx.waker().clone()));
                Poll::Pending
            })),
        );
        for _ in 0..3 {
            executor.run(&mut |_, _| {});
        }
        assert_eq!(lock(&polls).0, 1);
        let waker = lock(&polls).1.clone().unwrap();
        waker.wake_by_ref();
        waker.wake();
        executor.run(&mut |_, _| {});
        assert_eq!(lock(&polls).0, 2);
    }
}
