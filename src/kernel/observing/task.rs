//! What the system itself tells of this process's threads: `/proc/self/task`, proc(5). Reading it waits for nobody.

use crate::sys::file;
use crate::sys::process::read_task;

/// How many threads are listed.
pub const THREADS_MAX: usize = 256;

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub tid: i32,
    pub name: String,
    /// `R` running, `S` sleeping, `D` waiting where no signal reaches it, `T` stopped, and so on.
    pub state: char,
}

/// The threads of this process by number, the first [`THREADS_MAX`] of them.
pub fn tasks() -> Vec<Task> {
    let Ok(names) = file::names("/proc/self/task", THREADS_MAX) else { return Vec::new() };
    let mut tids: Vec<i32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    tids.sort_unstable();
    tids.into_iter().filter_map(task).collect()
}

pub fn task(tid: i32) -> Option<Task> {
    parse_stat(tid, &read_task(tid, "stat")?)
}

/// `1234 (name, which may have ") (" in it) S …`
fn parse_stat(tid: i32, stat: &str) -> Option<Task> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(") ")?;
    Some(Task { tid, name: name.into(), state: rest.chars().next()? })
}

/// Whether the thread keeps a signal from being delivered.
pub fn blocks(tid: i32, signal: i32) -> bool {
    let bit = 1u64 << (signal - 1);
    read_task(tid, "status").and_then(|status| mask(&status, "SigBlk:")).is_some_and(|mask| mask & bit != 0)
}

fn mask(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Where in the system the thread waits, if it does and the system tells.
pub fn wait_channel(tid: i32) -> Option<String> {
    read_task(tid, "wchan").filter(|text| !text.is_empty() && text != "0")
}

/// The system call that the thread is in: its number and arguments.
pub fn system_call(tid: i32) -> Option<String> {
    read_task(tid, "syscall").map(|text| text.trim().to_string()).filter(|text| text != "running")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_anything_in_them() {
        let task = parse_stat(7, "7 (a) S (b) R 1 2 3").unwrap();
        assert_eq!(task, Task { tid: 7, name: "a) S (b".into(), state: 'R' });
        assert_eq!(parse_stat(7, "7 garbage"), None);
    }

    #[test]
    fn masks_are_hexadecimal() {
        let status = "Name:\tx\nSigBlk:\t0000000000400000\nSigIgn:\t0\n";
        assert_eq!(mask(status, "SigBlk:"), Some(1 << 22));
        assert_eq!(mask(status, "SigCgt:"), None);
    }

    #[test]
    fn this_process_has_this_thread() {
        let main = std::process::id() as i32;
        assert!(tasks().iter().any(|task| task.tid == main));
        let mine = std::thread::spawn(|| blocks(crate::sys::thread::id() as i32, 23)).join();
        assert!(mine.is_ok_and(|blocked| !blocked));
        assert_eq!(task(0), None);
    }
}
