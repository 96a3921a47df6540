//! Counters read without asking anyone: from the memory of a process, or from a file that processes share.

use std::fs::File;
use std::path::PathBuf;

use iokernel::observe::read::read_file;
use iokernel::observe::text::{Format, render};

use super::target::Target;

/// What a target counts, if it has an area that we may read: a process without an admin endpoint has one all the same,
/// and `metrics=NAME` names one.
pub fn text(target: &Target, openmetrics: bool) -> Option<String> {
    let file = match target {
        Target::Pid(pid) => of_process(*pid)?,
        Target::Name(name) => File::open(format!("/dev/shm/iokernel-{name}")).ok()?,
        _ => return None,
    };
    let snapshot = read_file(&file).ok()?;
    Some(render(&snapshot, if openmetrics { Format::OpenMetrics } else { Format::Prometheus }))
}

/// The area among a process's descriptors: the one that has no name, or one in /dev/shm.
fn of_process(pid: u32) -> Option<File> {
    let is_area = |path: &PathBuf| {
        let target = std::fs::read_link(path).unwrap_or_default();
        let target = target.to_string_lossy();
        target.starts_with("/memfd:iokernel-metrics") || target.starts_with("/dev/shm/iokernel-")
    };
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let path = entries.flatten().map(|entry| entry.path()).find(is_area)?;
    File::open(path).ok()
}
