//! Tests that need a process of their own (memory, descriptors, forks, signals) run this test binary again for just one
//! of them.

use std::process::Command;

const MARK: &str = "IOKERNEL_TEST_ALONE";

/// Runs `body` in a process that runs only the test named `name` (its full path, as `cargo test -- --list` shows it).
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var(MARK).is_ok_and(|marked| marked == name) {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, name);
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{text}");
    assert!(output.status.success(), "{name} failed in its own process: {}", output.status);
    assert!(text.contains("1 passed"), "no test is called {name}");
}

/// True in `make soak`: the long variants.
pub fn soak() -> bool {
    std::env::var_os("IOKERNEL_SOAK").is_some()
}

/// Resident memory of this process, in bytes.
pub fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Asserts that memory has not grown by more. Sanitizers keep what was freed, so that it cannot be told there.
#[track_caller]
pub fn bounded(grown: usize, max: usize) {
    let sanitized = std::env::var_os("IOKERNEL_SANITIZER").is_some();
    assert!(sanitized || grown <= max, "memory grew by {grown} bytes");
}

/// Open descriptors of this process.
pub fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}
