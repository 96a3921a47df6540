//! A private BIND on a free loopback port, and nsupdate to change its zone.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

mod ports;

const SECRET: &str = "aW9rZXJuZWwgdGVzdCBrZXkgb2YgMzIgYnl0ZXMhISE=";

const ZONE: &str = "$TTL 1
@ IN SOA ns.test. admin.test. 1 3600 600 86400 1
@ IN NS ns.test.
ns IN A 127.0.0.1
db 1 IN A 192.0.2.1
db 1 IN AAAA 2001:db8::1
other 1 IN A 192.0.2.9
alias 1 IN CNAME db.test.
_redis._tcp.db 1 IN SRV 1 20 6380 db.test.
_alias 1 IN CNAME _redis._tcp.db.test.
";

const PATIENCE: Duration = Duration::from_millis(100);

/// The address of db.test.
const QUESTION: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x02db\x04test\0\0\x01\0\x01";

/// The zone is there: an answer without an error, not a refusal.
fn is_good(answer: &[u8]) -> bool {
    answer[3] & 0x0f == 0
}

/// A folder of the caller's own.
pub fn folder() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("iokernel-named-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

pub struct Named {
    child: Child,
    folder: PathBuf,
    pub address: SocketAddr,
}

impl Named {
    /// None where it is not installed. Another test may take the port before it does: then it tries the next.
    pub fn start() -> Option<Self> {
        Command::new("nsupdate").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        let mut log = String::new();
        for _ in 0..5 {
            let mut server = Named::spawn()?;
            match server.wait() {
                Ok(()) => return Some(server),
                Err(why) => log = why,
            }
        }
        panic!("named does not answer: {log}");
    }

    fn spawn() -> Option<Self> {
        let folder = folder();
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free_port()));
        std::fs::write(folder.join("test.zone"), ZONE).unwrap();
        let config = format!(
            "options {{ directory \"{0}\"; listen-on port {1} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no;
             pid-file none; dnssec-validation no; allow-transfer {{ none; }}; }};
             controls {{ }};
             key \"k\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};
             zone \"test\" {{ type master; file \"{0}/test.zone\"; allow-update {{ key \"k\"; }}; }};\n",
            folder.display(),
            address.port()
        );
        std::fs::write(folder.join("named.conf"), config).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let spawn = |program: &str| {
            let mut command = Command::new(program);
            command.arg("-g").arg("-c").arg(folder.join("named.conf"));
            command.stdout(Stdio::null()).stderr(log.try_clone().unwrap()).spawn()
        };
        // Where an ordinary user's PATH does not look.
        let spawned = spawn("named").or_else(|_| spawn("/usr/sbin/named"));
        let child = match spawned {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            spawned => spawned.unwrap(),
        };
        Some(Named { child, folder, address })
    }

    /// Until it answers both ways: it runs on where another has the port by TCP, and then this is not its zone.
    fn wait(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while !(self.answers_datagrams() && self.answers_streams()) {
            if self.child.try_wait().unwrap().is_some() || begun.elapsed() > Duration::from_secs(10) {
                return Err(std::fs::read_to_string(self.folder.join("log")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn answers_datagrams(&self) -> bool {
        let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
        probe.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 512];
        probe.send_to(QUESTION, self.address).is_ok() && probe.recv(&mut answer).is_ok() && is_good(&answer)
    }

    fn answers_streams(&self) -> bool {
        let Ok(mut probe) = TcpStream::connect_timeout(&self.address, PATIENCE) else { return false };
        probe.set_read_timeout(Some(PATIENCE)).unwrap();
        let question = [&(QUESTION.len() as u16).to_be_bytes()[..], QUESTION].concat();
        let mut answer = [0; 14];
        probe.write_all(&question).is_ok() && probe.read_exact(&mut answer).is_ok() && is_good(&answer[2..])
    }

    /// Runs lines of nsupdate as one update.
    pub fn update(&self, lines: &str) {
        let mut child = Command::new("nsupdate")
            .args(["-y", &format!("hmac-sha256:k:{SECRET}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nsupdate");
        let text = format!("server 127.0.0.1 {}\nzone test\n{lines}\nsend\n", self.address.port());
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{lines}");
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
