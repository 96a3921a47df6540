//! What the system tells of this process's threads.

use super::file;

/// A thread at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadLook {
    /// As in proc(5): `R` runs, `S` sleeps, `D` waits for a device, `T` is stopped. `?`: not known.
    pub state: char,
    /// Times that it gave up the processor by itself, because it had to wait.
    pub switches: u64,
}

impl ThreadLook {
    pub fn is_asleep(&self) -> bool {
        self.state == 'S' || self.state == 'I'
    }
}

/// The thread that began the process.
pub fn look_at_main() -> ThreadLook {
    look_at(std::process::id())
}

/// A thread of this process.
pub fn look_at(tid: u32) -> ThreadLook {
    let text = read_task(tid as i32, "status").unwrap_or_default();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    ThreadLook {
        state: field("State:").and_then(|rest| rest.trim_start().chars().next()).unwrap_or('?'),
        switches: field("voluntary_ctxt_switches:").and_then(|rest| rest.trim().parse().ok()).unwrap_or(0),
    }
}

/// A file of one thread of this process under `/proc/self/task`, cut at 4 KiB.
pub fn read_task(tid: i32, name: &str) -> Option<String> {
    let bytes = file::read(format!("/proc/self/task/{tid}/{name}"), 4096).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_switches_and_sleeps() {
        let (tell, told) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // SAFETY: no arguments.
            tell.send(unsafe { libc::gettid() } as u32).unwrap();
            wait.recv()
        });
        let tid = told.recv().unwrap();
        while !look_at(tid).is_asleep() {
            std::thread::yield_now();
        }
        assert!(look_at(tid).switches > 0);
        assert_eq!(look_at(u32::MAX), ThreadLook { state: '?', switches: 0 });
        drop(go);
        assert!(thread.join().unwrap().is_err());
    }
}
