//! Finds kernels without their programs' help: who holds memory or code of ours, what such processes listen on, and
//! which of these sockets answers `/state` as a kernel of that very process.
//!
//! Only processes whose descriptors we may read are looked into, and only those with an iokernel in them are asked
//! anything, so that no stranger's log shows our questions.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::fault::Fault;
use super::http;
use super::target::{Address, Target};

const PROCESSES_MAX: usize = 1 << 16;
const FDS_MAX: usize = 1 << 16;
const CANDIDATES_MAX: usize = 1024;
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// So many sockets are asked at a time.
const ASKED_AT_ONCE: usize = 16;
/// A kernel answers within milliseconds; other listeners of a program that hangs never do.
const PATIENCE: Duration = Duration::from_secs(1);

/// A kernel that answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// As this process sees it; the kernel may know itself by another in a pid namespace of its own.
    pub pid: u32,
    pub name: String,
    pub address: Address,
    /// Its `/state`.
    pub state: Value,
}

/// What a search came across.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    pub kernels: Vec<Kernel>,
    /// Processes that were looked into, that have an iokernel in them, and that we may not look into.
    pub seen: usize,
    pub ours: usize,
    pub closed: usize,
    /// Sockets that were asked, and those of other network namespaces, which cannot be reached from here.
    pub asked: usize,
    pub beyond: usize,
}

/// Where the kernel that `target` means can be asked.
pub fn locate(target: &Target, timeout: Duration) -> Result<Address, Fault> {
    match target {
        Target::At(address) => Ok(address.clone()),
        Target::Pid(pid) => choose(target, survey(&[existing(*pid)?], timeout)),
        _ => choose(target, everywhere(timeout)),
    }
}

/// Every kernel that can be found.
pub fn everywhere(timeout: Duration) -> Survey {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    survey(&pids.take(PROCESSES_MAX).collect::<Vec<u32>>(), timeout)
}

fn existing(pid: u32) -> Result<u32, Fault> {
    if Path::new(&format!("/proc/{pid}")).exists() {
        return Ok(pid);
    }
    Err(Fault::no_answer(format!("pid {pid}: there is no such process; `iokernel list` shows those with kernels")))
}

/// The one kernel of `survey` that `target` means.
fn choose(target: &Target, mut survey: Survey) -> Result<Address, Fault> {
    let mut others = Vec::new();
    if let Target::Name(name) = target {
        (survey.kernels, others) = survey.kernels.into_iter().partition(|kernel| kernel.name == *name);
    }
    match survey.kernels.as_slice() {
        [] if !others.is_empty() => Err(Fault::no_answer(format!("{target}: was not found, but {}", named(&others)))),
        [] => Err(Fault::no_answer(nothing(target, &survey))),
        [one] => Ok(one.address.clone()),
        many => {
            let mut text = format!("{target}: {} answer; give the pid or the socket of one:", many.len());
            for kernel in many {
                let _ =
                    write!(text, "\n  {:<9} {:<20} {}", kernel.pid, super::words::clean(&kernel.name), kernel.address);
            }
            Err(Fault::usage(text))
        }
    }
}

/// The first few kernels by name and pid.
fn named(kernels: &[Kernel]) -> String {
    const SHOWN: usize = 10;
    let some = kernels.iter().take(SHOWN);
    let mut text =
        some.map(|one| format!("\"{}\" ({})", super::words::clean(&one.name), one.pid)).collect::<Vec<_>>().join(", ");
    if kernels.len() > SHOWN {
        text.push_str(", and others: `iokernel list`");
    }
    text
}

/// What was tried in vain, and the way out.
pub fn nothing(target: &Target, survey: &Survey) -> String {
    let mut text = match target {
        Target::Pid(pid) if survey.closed > 0 => {
            return format!(
                "pid {pid}: may not look into this process: run as its user or as root, or give its socket"
            );
        }
        Target::Pid(pid) if survey.ours == 0 => {
            return format!("pid {pid}: has no iokernel in it; `iokernel list` shows the processes that have");
        }
        Target::Only => "no kernel was found".to_owned(),
        _ => format!("{target}: was not found"),
    };
    let _ = write!(
        text,
        ": of {} processes {} have an iokernel in them, and of their listening sockets {} were asked in vain",
        survey.seen, survey.ours, survey.asked
    );
    if survey.beyond > 0 {
        let _ = write!(text, "; {} more are in other network namespaces (nsenter -n)", survey.beyond);
    }
    if survey.closed > 0 {
        let _ = write!(text, "; {} processes may not be looked into (run as their user or as root)", survey.closed);
    }
    text.push_str(". A kernel answers if it was opened with admin=\"auto\", \"unix:/path\" or \"host:port\"");
    text
}

fn survey(pids: &[u32], timeout: Duration) -> Survey {
    let mut survey = Survey::default();
    let mut search = Search::default();
    for pid in pids {
        match Process::look_into(*pid) {
            Look::Gone => {}
            Look::Closed => survey.closed += 1,
            Look::Stranger => survey.seen += 1,
            Look::Ours(process) => {
                survey.seen += 1;
                survey.ours += 1;
                search.add(&process);
            }
        }
    }
    survey.asked = search.candidates.len();
    survey.beyond = search.beyond;
    survey.kernels = ask(&search.candidates, timeout.min(PATIENCE));
    survey.kernels.sort_by(|a, b| (&a.name, a.pid, &a.address).cmp(&(&b.name, b.pid, &b.address)));
    survey
}

/// A process with an iokernel in it.
struct Process {
    pid: u32,
    /// Inodes of its sockets.
    sockets: Vec<u64>,
}

enum Look {
    /// It ended meanwhile.
    Gone,
    /// Its descriptors may not be read.
    Closed,
    /// There is no iokernel in it.
    Stranger,
    Ours(Process),
}

impl Process {
    fn look_into(pid: u32) -> Look {
        let folder = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(folder) => folder,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Look::Closed,
            Err(_) => return Look::Gone,
        };
        let (mut sockets, mut ours) = (Vec::new(), false);
        for entry in folder.flatten().take(FDS_MAX) {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let link = link.to_string_lossy();
            ours |= is_ours(&link);
            sockets.extend(socket_inode(&link));
        }
        if ours || text_of(&format!("/proc/{pid}/maps")).lines().any(is_ours) {
            Look::Ours(Process { pid, sockets })
        } else {
            Look::Stranger
        }
    }
}

/// Whether a descriptor's link or a line of `/proc/PID/maps` names memory or code of ours.
fn is_ours(text: &str) -> bool {
    text.contains("/memfd:iokernel") || text.contains("/libiokernel.so")
}

/// The inode in `socket:[4711]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A file of /proc; empty if it cannot be read.
fn text_of(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A listening socket, and the processes that hold it: more than one after a fork.
struct Candidate {
    inode: u64,
    address: Address,
    holders: Vec<u32>,
}

#[derive(Default)]
struct Search {
    candidates: Vec<Candidate>,
    beyond: usize,
    /// What listens, by the name of the network namespace.
    spaces: HashMap<PathBuf, Rc<HashMap<u64, Listening>>>,
}

impl Search {
    fn add(&mut self, process: &Process) {
        let space = link(process.pid, "ns/net");
        let near = space == fs::read_link("/proc/self/ns/net").ok();
        let listening = self.listening(process.pid, space);
        for inode in &process.sockets {
            let Some(socket) = listening.get(inode) else { continue };
            if let Some(known) = self.candidates.iter_mut().find(|known| known.inode == *inode) {
                known.holders.push(process.pid);
                continue;
            }
            match reach(process.pid, socket, near) {
                Some(address) if self.candidates.len() < CANDIDATES_MAX => {
                    self.candidates.push(Candidate { inode: *inode, address, holders: vec![process.pid] });
                }
                Some(_) => {}
                None => self.beyond += 1,
            }
        }
    }

    fn listening(&mut self, pid: u32, space: Option<PathBuf>) -> Rc<HashMap<u64, Listening>> {
        let read = || Rc::new(listening_of(pid));
        match space {
            Some(space) => self.spaces.entry(space).or_insert_with(read).clone(),
            None => read(),
        }
    }
}

fn link(pid: u32, name: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/{name}")).ok()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Listening {
    /// As it was bound: maybe relative, maybe seen from another root.
    Path(String),
    Abstract(String),
    Tcp(IpAddr, u16),
}

/// How this process connects to what another listens on; `near` if both are in one network namespace.
fn reach(pid: u32, socket: &Listening, near: bool) -> Option<Address> {
    match socket {
        Listening::Path(path) => {
            let same_files = link(pid, "ns/mnt") == fs::read_link("/proc/self/ns/mnt").ok()
                && link(pid, "root") == fs::read_link("/proc/self/root").ok();
            Some(Address::Path(match path.strip_prefix('/') {
                Some(_) if same_files => PathBuf::from(path),
                Some(inner) => PathBuf::from(format!("/proc/{pid}/root/{inner}")),
                None => PathBuf::from(format!("/proc/{pid}/cwd/{path}")),
            }))
        }
        Listening::Abstract(name) => near.then(|| Address::Abstract(name.clone())),
        Listening::Tcp(ip, port) => near.then(|| {
            let local = match ip {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip => *ip,
            };
            Address::Tcp(local.to_string(), *port)
        }),
    }
}

/// By inode, what listens in the network namespace of `pid`.
fn listening_of(pid: u32) -> HashMap<u64, Listening> {
    let net = |table: &str| text_of(&format!("/proc/{pid}/net/{table}"));
    let mut found: HashMap<u64, Listening> = net("unix").lines().filter_map(unix_row).collect();
    found.extend(net("tcp").lines().filter_map(tcp_row));
    found.extend(net("tcp6").lines().filter_map(tcp_row));
    found
}

/// `Num RefCount Protocol Flags Type St Inode Path`, of a stream socket that listens and has a name.
fn unix_row(row: &str) -> Option<(u64, Listening)> {
    const ACCEPTS: u32 = 1 << 16;
    let mut rest = row;
    let mut word = || {
        rest = rest.trim_start();
        let (word, after) = rest.split_once(' ')?;
        rest = after;
        Some(word)
    };
    let flags = u32::from_str_radix(word().and_then(|_| word()).and_then(|_| word()).and_then(|_| word())?, 16).ok()?;
    let stream = word()? == "0001";
    let inode = word().and_then(|_| word())?.parse().ok()?;
    if flags & ACCEPTS == 0 || !stream || rest.is_empty() {
        return None;
    }
    Some((
        inode,
        match rest.strip_prefix('@') {
            Some(name) => Listening::Abstract(name.into()),
            None => Listening::Path(rest.into()),
        },
    ))
}

/// `sl local_address rem_address st … inode` (the tenth), of a socket in state LISTEN.
fn tcp_row(row: &str) -> Option<(u64, Listening)> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = row.split_whitespace().collect();
    if *words.get(3)? != LISTEN {
        return None;
    }
    let (ip, port) = words[1].split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((words.get(9)?.parse().ok()?, Listening::Tcp(ip_of(ip)?, port)))
}

/// An address as /proc has it: words of 32 bits in the machine's order.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..hex.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

fn ask(candidates: &[Candidate], timeout: Duration) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for some in candidates.chunks(ASKED_AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|candidate| scope.spawn(move || introduce(candidate, timeout))).collect();
            kernels.extend(asked.into_iter().filter_map(|answer| answer.join().ok().flatten()));
        });
    }
    kernels
}

fn introduce(candidate: &Candidate, timeout: Duration) -> Option<Kernel> {
    let answer = http::get(&candidate.address, "/state", "", timeout).ok()?;
    let state: Value = serde_json::from_slice(&answer.body).ok()?;
    let name = state["kernel"]["name"].as_str()?.to_owned();
    let own = state["kernel"]["pid"].as_u64()?;
    let pid = *candidate.holders.iter().find(|pid| pids_of(**pid).contains(&own))?;
    Some(Kernel { pid, name, address: candidate.address.clone(), state })
}

/// The process's pids in all its pid namespaces.
fn pids_of(pid: u32) -> Vec<u64> {
    let status = text_of(&format!("/proc/{pid}/status"));
    let mut pids = pids_in(&status);
    pids.push(pid.into());
    pids
}

fn pids_in(status: &str) -> Vec<u64> {
    let row = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    row.into_iter().flat_map(str::split_whitespace).filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: &str = "\
Num       RefCount Protocol Flags    Type St Inode Path
00000000b1e533d1: 00000003 00000000 00000000 0001 03 3854386
00000000c4ca54fe: 00000002 00000000 00010000 0001 01    77 /run/my web.sock
00000000132800a5: 00000002 00000000 00010000 0001 01 3854385 @iokernel-12-web
00000000132800a6: 00000002 00000000 00010000 0005 01 3854390 /run/packets.sock
00000000464cf8fd: 00000003 00000000 00000000 0001 03 3853634 /run/connected.sock
00000000464cf8fe: 00000002 00000000 00010000 0001 01 3853635 web.sock
";

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1161 1 00000000eb00124b 100 0 0 10 0
   1: 0100007F:49F3 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 3850931 1 00000000f9face3b 100 0 0 10 0
   2: 00000000000000000000000001000000:26AD 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100 0 0 10 0
";

    #[test]
    fn unix_sockets_that_listen_are_found_by_inode() {
        let found: Vec<_> = UNIX.lines().filter_map(unix_row).collect();
        assert_eq!(
            found,
            [
                (77, Listening::Path("/run/my web.sock".into())),
                (3854385, Listening::Abstract("iokernel-12-web".into())),
                (3853635, Listening::Path("web.sock".into())),
            ]
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn tcp_sockets_that_listen_are_found_by_inode() {
        let found: Vec<_> = TCP.lines().filter_map(tcp_row).collect();
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
        assert_eq!(found, [(1161, Listening::Tcp(any, 2024)), (42, Listening::Tcp(loopback, 9901))]);
    }

    #[test]
    fn rows_that_are_cut_or_garbled_are_passed_over() {
        for row in UNIX.lines().chain(TCP.lines()) {
            for cut in 0..row.len() {
                let _ = (unix_row(&row[..cut]), tcp_row(&row[..cut]));
            }
        }
        assert_eq!(ip_of("0100007"), None);
        assert_eq!(ip_of("é100007F"), None);
    }

    #[test]
    fn links_tell_sockets_and_what_is_ours() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        assert_eq!(socket_inode("pipe:[4711]"), None);
        assert!(is_ours("/memfd:iokernel (deleted)"));
        assert!(is_ours("7f10-7f20 r-xp 00000000 fe:00 99 /usr/local/lib/libiokernel.so.0.1.0"));
        assert!(!is_ours("/memfd:wayland-cursor (deleted)"));
    }

    #[test]
    fn pids_of_all_namespaces_are_read() {
        assert_eq!(pids_in("Name:\tweb\nNSpid:\t20226\t17\t1\nThreads:\t2\n"), [20226, 17, 1]);
        assert!(pids_in("Name:\tweb\n").is_empty());
    }

    #[test]
    fn a_wildcard_is_reached_by_loopback_and_other_namespaces_not_at_all() {
        let own = std::process::id();
        let any = Listening::Tcp(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);
        assert_eq!(reach(own, &any, true), Some(Address::Tcp("127.0.0.1".into(), 80)));
        assert_eq!(reach(own, &any, false), None);
        let path = Listening::Path("/run/web.sock".into());
        assert_eq!(reach(own, &path, false), Some(Address::Path("/run/web.sock".into())));
        let relative = Listening::Path("web.sock".into());
        assert_eq!(reach(own, &relative, true), Some(Address::Path(format!("/proc/{own}/cwd/web.sock").into())));
    }

    fn kernel(name: &str, pid: u32) -> Kernel {
        Kernel { pid, name: name.into(), address: Address::Abstract(name.into()), state: Value::Null }
    }

    #[test]
    fn the_only_kernel_is_meant_and_of_two_neither() {
        let two = Survey { kernels: vec![kernel("api", 7), kernel("web", 8)], ..Survey::default() };
        let web = Target::Name("web".into());
        assert_eq!(choose(&web, two.clone()), Ok(Address::Abstract("web".into())));
        let fault = choose(&Target::Only, two.clone()).unwrap_err();
        assert_eq!(fault.status, super::super::fault::USAGE);
        assert!(fault.text.contains("unix:@api") && fault.text.contains("unix:@web"), "{fault}");
        let fault = choose(&Target::Name("db".into()), two).unwrap_err();
        assert_eq!(fault.status, super::super::fault::NO_ANSWER);
        assert!(fault.text.contains("\"db\"") && fault.text.contains("\"web\" (8)"), "{fault}");
        let fault = choose(&Target::Name("db".into()), Survey::default()).unwrap_err();
        assert!(fault.text.contains("\"db\"") && fault.text.contains("admin="), "{fault}");
    }
}
