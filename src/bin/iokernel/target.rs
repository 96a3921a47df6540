//! What a kernel is called on the command line, and where its admin endpoint listens.

use std::fmt;
use std::path::{Path, PathBuf};

use super::fault::Fault;

/// Where an admin endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A socket in the file system.
    Path(PathBuf),
    /// A socket in Linux's abstract namespace; its name without the zero before it.
    Abstract(String),
    /// Host, without brackets, and port.
    Tcp(String, u16),
}

/// What was written as TARGET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    At(Address),
    Pid(u32),
    Name(String),
    /// Nothing: whatever kernel is the only one.
    Only,
}

impl Target {
    /// A path has a slash or `unix:` before it, an address ends with a port, digits are a pid, and the rest is a name.
    pub fn parse(text: Option<&str>) -> Result<Self, Fault> {
        let Some(text) = text else { return Ok(Target::Only) };
        if let Some(place) = text.strip_prefix("unix:") {
            // `unix:///run/web.sock` is how URLs have it.
            return socket(place.strip_prefix("//").unwrap_or(place), text);
        }
        if let Some(name) = text.strip_prefix("name:") {
            return if name.is_empty() { Err(wrong(text)) } else { Ok(Target::Name(name.into())) };
        }
        if text.starts_with('@') {
            return socket(text, text);
        }
        if let Some(rest) = text.strip_prefix("http://") {
            return tcp(rest.trim_end_matches('/')).map(Target::At).ok_or_else(|| wrong(text));
        }
        if text.contains('/') {
            return socket(text, text);
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().filter(|pid| *pid > 0).map(Target::Pid).ok_or_else(|| wrong(text));
        }
        match tcp(text) {
            Some(address) => Ok(Target::At(address)),
            None if text.is_empty() => Err(wrong(text)),
            None => Ok(Target::Name(text.into())),
        }
    }
}

fn socket(place: &str, text: &str) -> Result<Target, Fault> {
    match place.strip_prefix('@') {
        Some("") => Err(wrong(text)),
        None if place.is_empty() => Err(wrong(text)),
        Some(name) => Ok(Target::At(Address::Abstract(name.into()))),
        None => Ok(Target::At(Address::Path(place.into()))),
    }
}

/// `host:port` or `[v6]:port`.
fn tcp(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!bare.is_empty()).then(|| Address::Tcp(bare.into(), port))
}

fn wrong(text: &str) -> Fault {
    Fault::usage(format!(
        "TARGET: \"{text}\": expected a socket (/run/web.sock, unix:@name), host:port, a pid or a kernel's name"
    ))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Path(path) => write!(f, "unix:{}", path.display()),
            Address::Abstract(name) => write!(f, "unix:@{name}"),
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::At(address) => address.fmt(f),
            Target::Pid(pid) => write!(f, "pid {pid}"),
            Target::Name(name) => write!(f, "a kernel named \"{name}\""),
            Target::Only => f.write_str("a kernel"),
        }
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Address::Path(path.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: Address) -> Result<Target, Fault> {
        Ok(Target::At(address))
    }

    #[test]
    fn each_way_to_write_a_target_is_told_apart() {
        let path = |text: &str| at(Address::Path(text.into()));
        let abstracted = |text: &str| at(Address::Abstract(text.into()));
        let tcp = |host: &str, port| at(Address::Tcp(host.into(), port));
        for (text, expected) in [
            ("/run/web.sock", path("/run/web.sock")),
            ("./web.sock", path("./web.sock")),
            ("unix:/run/web.sock", path("/run/web.sock")),
            ("unix:web.sock", path("web.sock")),
            ("unix:///run/web.sock", path("/run/web.sock")),
            ("unix:@web", abstracted("web")),
            ("@web", abstracted("web")),
            ("unix:@web:1/2", abstracted("web:1/2")),
            ("localhost:9901", tcp("localhost", 9901)),
            ("http://127.0.0.1:9901/", tcp("127.0.0.1", 9901)),
            ("[::1]:9901", tcp("::1", 9901)),
            ("4711", Ok(Target::Pid(4711))),
            ("name:4711", Ok(Target::Name("4711".into()))),
            ("web-1", Ok(Target::Name("web-1".into()))),
            ("web:blue", Ok(Target::Name("web:blue".into()))),
        ] {
            assert_eq!(Target::parse(Some(text)), expected, "{text}");
        }
        assert_eq!(Target::parse(None), Ok(Target::Only));
    }

    #[test]
    fn what_is_no_target_is_refused_with_what_was_expected() {
        for text in ["", "unix:", "unix:@", "@", "name:", "0", "99999999999", "http://web"] {
            let fault = Target::parse(Some(text)).expect_err(text);
            assert_eq!(fault.status, super::super::fault::USAGE);
            assert!(fault.text.contains(&format!("\"{text}\"")) && fault.text.contains("expected"), "{fault}");
        }
    }

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for text in ["unix:/run/web.sock", "unix:@web", "localhost:9901", "[::1]:9901"] {
            let Ok(Target::At(address)) = Target::parse(Some(text)) else { panic!("{text}") };
            assert_eq!(address.to_string(), text);
        }
    }
}
