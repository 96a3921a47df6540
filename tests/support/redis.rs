//! A private Redis server, and a conn to it that owes nothing to the code under test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

mod ports;
pub use ports::free_port;

/// Killed, and its folder removed, on drop.
pub struct RedisServer {
    pub port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// None, with the reason printed, if there is no redis-server here.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: redis-server is not installed");
            return None;
        }
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("iokernel-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        let mut server = RedisServer { port, folder, arguments, child: None };
        server.restart();
        Some(server)
    }

    pub fn url(&self, options: &str) -> String {
        format!("redis://127.0.0.1:{}?{options}", self.port)
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.id() as i32)
    }

    /// Starts it (again) on the same port and waits until it answers.
    pub fn restart(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--dir", &self.folder.to_string_lossy(), "--loglevel", "warning"]);
        self.child = Some(command.args(&self.arguments).stdout(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the pid is a child of ours that was not waited for.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn direct(&self) -> Direct {
        Direct::connect(self.port)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A reply in RESP2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resp {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Option<String>),
    Array(Vec<Resp>),
}

impl Resp {
    pub fn int(&self) -> i64 {
        match self {
            Resp::Int(number) => *number,
            Resp::Bulk(Some(text)) => text.parse().unwrap(),
            Resp::Bulk(None) => 0,
            other => panic!("expected a number, got {other:?}"),
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Resp::Bulk(Some(text)) | Resp::Simple(text) => text,
            other => panic!("expected text, got {other:?}"),
        }
    }

    pub fn items(&self) -> &[Resp] {
        match self {
            Resp::Array(items) => items,
            other => panic!("expected an array, got {other:?}"),
        }
    }
}

/// A blocking conn past the code under test.
pub struct Direct {
    stream: BufReader<TcpStream>,
}

impl Direct {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Direct { stream: BufReader::new(stream) }
    }

    /// Writes requests without waiting for their replies.
    pub fn write(&mut self, requests: &[&[&str]]) {
        let mut wire = Vec::new();
        for words in requests {
            wire.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
            for word in *words {
                wire.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
            }
        }
        self.stream.get_mut().write_all(&wire).unwrap();
    }

    pub fn call(&mut self, words: &[&str]) -> Resp {
        self.write(&[words]);
        self.read()
    }

    pub fn read(&mut self) -> Resp {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let line = line.trim_end();
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" => Resp::Simple(rest.into()),
            "-" => Resp::Error(rest.into()),
            ":" => Resp::Int(rest.parse().unwrap()),
            "$" => self.bulk(rest.parse().unwrap()),
            "*" => Resp::Array((0..rest.parse::<i64>().unwrap().max(0)).map(|_| self.read()).collect()),
            _ => panic!("not RESP2: {line:?}"),
        }
    }

    fn bulk(&mut self, length: i64) -> Resp {
        if length < 0 {
            return Resp::Bulk(None);
        }
        let mut bytes = vec![0; length as usize + 2];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes.truncate(length as usize);
        Resp::Bulk(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The lines of CLIENT LIST whose lib or id is not this conn's own.
    pub fn clients(&mut self) -> Vec<String> {
        let own = format!("id={} ", self.call(&["CLIENT", "ID"]).int());
        let list = self.call(&["CLIENT", "LIST"]);
        list.text().lines().filter(|line| !line.starts_with(&own)).map(str::to_string).collect()
    }
}

/// A field of a CLIENT LIST line.
pub fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let found = line.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {line}"))
}
