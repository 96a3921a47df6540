//! Where the admin endpoint listens: the grammar of `admin=`, and binding.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};

use crate::config::{ConfigError, Options};
use crate::kernel::Failure;
use crate::kernel::listener::{BACKLOG, SocketOptions, bind_tcp, bind_unix};
use crate::observe::http::Hosts;
use crate::status::*;
use crate::sys::owned::Owned;

/// Who may open the socket: its owner.
const SOCKET_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// Kernels of one process that `auto` tells apart.
const AUTO_MAX: u32 = 16;
/// For how long others may hold a folder: they only bind a socket there.
const LOCK_TRIES: usize = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(1);
const EXPECTED: &str = "unix:/path, unix:@name, an address and a port as in 127.0.0.1:9901, or auto";

/// What `admin=` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminConfig {
    /// As given, for errors.
    given: String,
    place: Place,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Nowhere,
    Unix(String),
    Tcp {
        host: String,
        port: u16,
    },
    /// A unix socket in a folder of the user's own.
    Auto,
}

impl AdminConfig {
    pub fn is_wanted(&self) -> bool {
        self.place != Place::default()
    }

    /// Takes `admin=`. Absent or empty: there is no admin endpoint.
    pub fn take(options: &mut Options) -> Result<Self, ConfigError> {
        let given = options.text("admin").unwrap_or_default();
        let place = read(&given).ok_or_else(|| ConfigError::new("admin", &given, EXPECTED))?;
        Ok(AdminConfig { given, place })
    }
}

fn read(text: &str) -> Option<Place> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        let path = path.replace("%p", &std::process::id().to_string());
        return (!path.trim_start_matches('@').is_empty() && !path.contains('\0')).then_some(Place::Unix(path));
    }
    match text {
        "" => Some(Place::Nowhere),
        "auto" => Some(Place::Auto),
        _ => {
            let (host, port) = text.rsplit_once(':')?;
            let (bare, is_bracketed) = match host.strip_prefix('[') {
                Some(rest) => (rest.strip_suffix(']')?, true),
                None => (host, false),
            };
            let is_host = match bare.parse::<std::net::IpAddr>() {
                Ok(ip) => ip.is_ipv6() == is_bracketed,
                Err(_) => !is_bracketed && matches!(bare, "localhost" | "*"),
            };
            is_host.then_some(Place::Tcp { host: bare.into(), port: port.parse().ok()? })
        }
    }
}

/// A socket that listens.
pub enum Socket {
    Tcp(Owned<TcpListener>),
    Unix(Owned<UnixListener>),
}

/// Sockets bound as `admin=` says.
pub struct Bound {
    pub socket: Socket,
    /// As curl and `admin=` have it: `unix:/path` or `127.0.0.1:9901`.
    pub address: String,
    pub hosts: Hosts,
    /// Dropped last of all, so that the name goes with the socket.
    _file: Option<SocketFile>,
}

impl Bound {
    /// None: nothing is configured, or this is a forked child whose parent has the address and answers there.
    pub fn bind(config: &AdminConfig) -> Result<Option<Self>, Failure> {
        let bound = match &config.place {
            Place::Nowhere => return Ok(None),
            Place::Unix(path) => bind_path(path),
            Place::Tcp { host, port } => bind_port(host, *port),
            Place::Auto => bind_auto(),
        };
        match bound {
            Ok(bound) => Ok(Some(bound)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_forked() => Ok(None),
            Err(error) => Err(failure(&config.given, &error)),
        }
    }
}

fn is_forked() -> bool {
    crate::sys::fork::epoch() > 1
}

fn failure(given: &str, error: &io::Error) -> Failure {
    let status = match error.kind() {
        io::ErrorKind::InvalidInput => IOK_STATUS_BAD_CONFIG,
        _ if crate::sys::out_of_files(error) => IOK_STATUS_NO_FILES,
        _ => IOK_STATUS_SYSTEM,
    };
    Failure { status, message: format!("admin: {given:?}: {error}") }
}

fn bind_port(host: &str, port: u16) -> io::Result<Bound> {
    let listener = Owned::make(|| bind_tcp(host, port, &SocketOptions::default()))?;
    let address = listener.local_addr()?.to_string();
    Ok(Bound { socket: Socket::Tcp(listener), address, hosts: Hosts::Known(host.into()), _file: None })
}

fn bind_path(path: &str) -> io::Result<Bound> {
    let _lock = lock_folder(path);
    let listener = Owned::make(|| bind_unix(path, Some(SOCKET_MODE), BACKLOG))?;
    let file = if path.starts_with('@') { None } else { Some(SocketFile::take(path)?) };
    let shown = file.as_ref().map_or(path, |file| &file.path);
    Ok(Bound { address: format!("unix:{shown}"), socket: Socket::Unix(listener), hosts: Hosts::Any, _file: file })
}

/// While it is held, no other process of ours finds the socket bound but not yet listening, and takes it for abandoned.
/// A folder that cannot be had is done without: it may be everybody's, and held by a stranger.
fn lock_folder(path: &str) -> Option<Owned<fs::File>> {
    let path = std::path::absolute(path).ok().filter(|_| !path.starts_with('@'))?;
    let folder = crate::sys::file::open(path.parent()?).ok()?;
    for _ in 0..LOCK_TRIES {
        if crate::sys::lock(&folder).is_ok() {
            return Some(folder);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    None
}

fn bind_auto() -> io::Result<Bound> {
    let folder = own_folder()?;
    let pid = std::process::id();
    let names = (1..=AUTO_MAX).map(|at| if at == 1 { format!("{pid}.sock") } else { format!("{pid}-{at}.sock") });
    let mut bound = Err(io::ErrorKind::AddrInUse.into());
    for name in names {
        bound = bind_path(&folder.join(name).to_string_lossy());
        if !bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    bound
}

/// Where `auto` looks for a place, in this order: a folder of this user's in each. Sockets there are named `PID.sock`,
/// or `PID-2.sock` and so on for further kernels of a process.
pub fn folders() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let name = format!("iokernel-{}", crate::sys::user_id());
    runtime.into_iter().chain(["/run".into(), "/tmp".into()]).map(|folder| folder.join(&name)).collect()
}

/// The first of [`folders`] that is there or can be made.
fn own_folder() -> io::Result<PathBuf> {
    let mut causes = Vec::new();
    for folder in folders() {
        match make_private(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => causes.push(format!("{}: {error}", folder.display())),
        }
    }
    Err(io::Error::other(format!("no folder for the socket: {}", causes.join("; "))))
}

/// A folder that nobody else can reach into: a stranger may have made it before us, where everyone can make folders.
fn make_private(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != crate::sys::user_id() || found.mode() & 0o077 != 0 {
        return Err(io::Error::other("it is not a folder of this user's alone (mode 0700)"));
    }
    Ok(())
}

/// The file of a unix socket of ours. It goes with us, unless another process has put its own there.
struct SocketFile {
    /// Absolute: the program may go to another folder meanwhile.
    path: String,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn take(path: &str) -> io::Result<Self> {
        let path = std::path::absolute(path)?.to_string_lossy().into_owned();
        let found = fs::symlink_metadata(&path)?;
        Ok(SocketFile { path, identity: (found.dev(), found.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(text: &str) -> Result<Place, String> {
        let mut options = Options::parse(&format!("admin={text}")).unwrap();
        AdminConfig::take(&mut options).map(|config| config.place).map_err(|error| error.to_string())
    }

    fn bind(text: &str) -> Result<Option<Bound>, String> {
        let config = AdminConfig { given: text.into(), place: read(text).unwrap() };
        Bound::bind(&config).map_err(|failure| failure.message)
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("iokernel-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn addresses_have_one_grammar() {
        let tcp = |host: &str, port| Ok(Place::Tcp { host: host.into(), port });
        let unix = |path: &str| Ok(Place::Unix(path.into()));
        assert_eq!(take(""), Ok(Place::Nowhere));
        assert_eq!(take("auto"), Ok(Place::Auto));
        assert_eq!(take("unix:/run/a.sock"), unix("/run/a.sock"));
        assert_eq!(take("unix:///run/a.sock"), unix("/run/a.sock"));
        assert_eq!(take("unix:@name"), unix("@name"));
        assert_eq!(take("unix:/run/%25p.sock"), unix(&format!("/run/{}.sock", std::process::id())));
        assert_eq!(take("127.0.0.1:9901"), tcp("127.0.0.1", 9901));
        assert_eq!(take("localhost:0"), tcp("localhost", 0));
        assert_eq!(take("[::1]:9901"), tcp("::1", 9901));
        for wrong in
            ["unix:", "unix:@", "example.org:1", "127.0.0.1", ":1", "::1:1", "[127.0.0.1]:1", "h:p", "[::1]:70000"]
        {
            let told = take(wrong).unwrap_err();
            assert!(told.starts_with(&format!("admin: {wrong:?}: expected unix:/path")), "{told}");
        }
    }

    #[test]
    fn a_socket_file_is_its_owners_and_goes_with_its_socket() {
        let folder = folder("mode");
        let path = folder.join("a.sock");
        let given = format!("unix:{}", path.display());
        let bound = bind(&given).unwrap().unwrap();
        assert_eq!(bound.address, given);
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o600);
        drop(bound);
        assert!(!path.exists());
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn a_socket_in_use_is_an_error_and_one_left_behind_is_replaced() {
        let folder = folder("stale");
        let path = folder.join("a.sock");
        let given = format!("unix:{}", path.display());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let bound = bind(&given).unwrap().unwrap();
        let told = bind(&given).err().unwrap();
        assert_eq!(told, format!("admin: {given:?}: Address already in use (os error 98)"));
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists(), "the socket of another was removed");
        drop(other);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let folder = folder("file");
        let path = folder.join("precious");
        fs::write(&path, "text").unwrap();
        assert!(bind(&format!("unix:{}", path.display())).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        let told = bind(&format!("unix:{}/none/a.sock", folder.display())).err().unwrap();
        assert!(told.ends_with("No such file or directory (os error 2)"), "{told}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_of_sockets_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder("private").join("sockets");
        make_private(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        make_private(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(make_private(&folder).is_err());
        let link = folder.with_file_name("link");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(make_private(&link).is_err(), "a link that a stranger made");
        fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }
}
