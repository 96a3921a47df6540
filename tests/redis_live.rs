//! The Redis room against the real thing: redis-server answers our client, redis-cli and redis-benchmark ask our
//! listener. Each test starts a private instance; without redis installed there is nothing to test.
#[path = "support/ports.rs"]
mod ports;
mod rig;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use iokernel::proto::{Limits, scheme};
use ports::free_port;
use rig::Rig;

struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> Option<Server> {
    let port = free_port();
    let child = Process::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "yes"])
        .args(["--dir", std::env::temp_dir().to_str()?])
        .args(["--user", "al", "on", ">secret", "~*", "&*", "+@all"])
        .stdout(Stdio::null())
        .spawn();
    let server = match child {
        Ok(child) => Server { child, port },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: redis-server is not installed");
            return None;
        }
        Err(error) => panic!("redis-server: {error}"),
    };
    let patience = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < patience, "redis-server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(server)
}

/// Carries bytes both ways until `done`.
fn carry(rig: &mut Rig, socket: &mut TcpStream, done: impl Fn(&Rig) -> bool) {
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut bytes = [0; 4096];
    loop {
        socket.write_all(&std::mem::take(&mut rig.wire)).expect("written");
        if done(rig) {
            return;
        }
        let read = socket.read(&mut bytes).expect("an answer in time");
        if read == 0 {
            return rig.eof();
        }
        rig.feed(&bytes[..read]);
    }
}

fn connect(server: &Server, options: &str) -> (Rig, TcpStream) {
    let row = scheme("redis").expect("redis is in the table");
    let url = format!("redis://{options}");
    let mut rig = Rig::new(row, &url, true, Limits::default());
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("a conn");
    carry(&mut rig, &mut socket, |rig| !rig.log.lines.is_empty());
    (rig, socket)
}

fn body(words: &[&str]) -> Vec<u8> {
    let mut body = vec![0x90 | words.len() as u8];
    for word in words {
        body.push(0xa0 | word.len() as u8);
        body.extend_from_slice(word.as_bytes());
    }
    body
}

/// Sends requests and returns the events until as many came.
fn ask(rig: &mut Rig, socket: &mut TcpStream, requests: &[&[&str]]) -> Vec<String> {
    rig.log.lines.clear();
    for words in requests {
        assert!(rig.request(&body(words)), "{words:?}");
    }
    carry(rig, socket, |rig| rig.log.lines.len() >= requests.len());
    std::mem::take(&mut rig.log.lines)
}

#[test]
fn handshakes_succeed_and_fail_as_they_should() {
    let Some(server) = start() else { return };
    for (options, expected) in [
        ("h/3?client_name=web&tracking=bcast", "topics_beside_requests: true"),
        ("al:secret@h/3", "resp3 standalone master id="),
        ("h/3?protocol=2&client_name=web", "topics_beside_requests: false, description: \"redis resp2\""),
        ("al:secret@h?protocol=2", "redis resp2"),
        ("al:wrong@h", "fault Refused"),
        ("al:wrong@h?protocol=2", "fault Refused"),
        ("h/999", "fault Refused"),
    ] {
        let (rig, _socket) = connect(&server, options);
        assert!(rig.log.lines[0].contains(expected), "{options}: {:?}", rig.log.lines);
    }
}

#[test]
fn requests_topics_and_transactions_against_a_server() {
    let Some(server) = start() else { return };
    let (mut rig, mut socket) = connect(&server, "h/3");
    let mut ask = |requests: &[&[&str]]| ask(&mut rig, &mut socket, requests);
    let types = ["string", "integer", "double", "null", "array", "set", "map", "attrib", "verbatim", "true", "bignum"];
    for kind in types {
        let events = ask(&[&["DEBUG", "PROTOCOL", kind]]);
        assert!(events[0].starts_with("Reply") && events[0].contains("error: false"), "{events:?}");
    }
    assert!(ask(&[&["LPUSH", "l", "1"], &["GET", "l"]])[1].contains("error: true"));
    assert!(ask(&[&["SUBSCRIBE", "news"]])[0].starts_with("Subscribed"));
    let events = ask(&[&["PUBLISH", "news", "rain"], &["GET", "nothing"]]);
    assert_eq!(events.iter().filter(|line| line.starts_with("Push")).count(), 1, "{events:?}");
    let events = ask(&[&["WATCH", "l"], &["MULTI"], &["LLEN", "l"], &["EXEC"], &["MULTI"], &["SELECT", "1"]]);
    assert!(events.iter().all(|line| line.contains("error: false")), "{events:?}");
}

#[test]
fn a_lease_comes_back_clean_from_a_server() {
    use iokernel::proto::Tenancy;
    let Some(server) = start() else { return };
    let (mut rig, mut socket) = connect(&server, "h/3");
    ask(&mut rig, &mut socket, &[&["WATCH", "l"], &["SELECT", "1"], &["MULTI"], &["SET", "a", "1"]]);
    assert_eq!(rig.conn.tenancy(), Tenancy::Dirty);
    rig.reset();
    carry(&mut rig, &mut socket, |rig| rig.conn.tenancy() == Tenancy::Clean);
    let events = ask(&mut rig, &mut socket, &[&["CLIENT", "INFO"], &["EXISTS", "a"]]);
    assert!(events[1].contains("Msgpack([0])"), "{events:?}");
}

/// Serves conns until the client is done; the program answers each request with its last word.
fn serve(mut client: Process) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    listener.set_nonblocking(true).expect("nonblocking");
    let mut child = client.args(["-p", &port.to_string()]).stdout(Stdio::piped()).spawn().expect("a client");
    let row = scheme("redis").expect("redis is in the table");
    let mut conns: Vec<(Rig, TcpStream)> = Vec::new();
    let patience = Instant::now() + Duration::from_secs(30);
    while child.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < patience, "the client is stuck");
        if let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true).expect("nonblocking");
            let mut rig = Rig::new(row, "redis://h", false, Limits::default());
            rig.replies_held = conns.len() % 3;
            conns.push((rig, socket));
        }
        for (rig, socket) in &mut conns {
            let mut bytes = [0; 4096];
            match socket.read(&mut bytes) {
                Ok(read) if read > 0 => rig.feed(&bytes[..read]),
                _ => rig.reply_all(b"\xa2OK"),
            }
            // Small enough for the socket's buffer.
            socket.write_all(&std::mem::take(&mut rig.wire)).expect("written");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let mut shown = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut shown).expect("text");
    shown
}

fn is_installed(program: &str) -> bool {
    Process::new(program).arg("--version").stdout(Stdio::null()).status().is_ok()
}

#[test]
fn redis_cli_and_redis_benchmark_are_served() {
    if !is_installed("redis-cli") || !is_installed("redis-benchmark") {
        eprintln!("skipped: the tools of redis are not installed");
        return;
    }
    // redis-cli takes its options before the command only, hence the shell.
    let mut cli = Process::new("sh");
    cli.args(["-c", "exec redis-cli -3 \"$@\" SET key value", "redis-cli"]);
    assert_eq!(serve(cli), "OK\nx\n\n");
    let mut benchmark = Process::new("redis-benchmark");
    benchmark.args(["-n", "300", "-c", "3", "-P", "10", "-t", "set,get", "-q"]);
    assert!(serve(benchmark).contains("requests per second"));
}
