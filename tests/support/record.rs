//! Stands between clients and a server, and keeps every byte that the clients say.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What each conn said.
type Said = Arc<Mutex<Vec<Vec<u8>>>>;

pub struct Recorder {
    port: u16,
    said: Said,
}

impl Recorder {
    pub fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = Said::default();
        let shared = said.clone();
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let client = client.unwrap();
                let server = TcpStream::connect(("127.0.0.1", server_port)).unwrap();
                shared.lock().unwrap().push(Vec::new());
                let (back, front, said) = (server.try_clone().unwrap(), client.try_clone().unwrap(), shared.clone());
                std::thread::spawn(move || pump(client, server, |bytes| said.lock().unwrap()[number].extend(bytes)));
                std::thread::spawn(move || pump(back, front, |_| {}));
            }
        });
        Recorder { port, said }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Conns ever taken.
    pub fn conns(&self) -> usize {
        self.said.lock().unwrap().len()
    }

    /// The argument of each request of that name, on all conns. Panics where the bytes are no requests.
    pub fn words(&self, name: &str) -> Vec<Vec<u8>> {
        let said = self.said.lock().unwrap();
        let requests = said.iter().flat_map(|bytes| requests(bytes));
        requests.filter(|words| words[0] == name.as_bytes()).map(|words| words[1].clone()).collect()
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        seen(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// Arrays of strings, to the last byte.
fn requests(mut bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let count = number(&mut bytes, b'*');
        all.push((0..count).map(|_| text(&mut bytes)).collect());
    }
    all
}

fn text(bytes: &mut &[u8]) -> Vec<u8> {
    let length = number(bytes, b'$');
    let text = bytes[..length].to_vec();
    assert_eq!(&bytes[length..length + 2], b"\r\n");
    *bytes = &bytes[length + 2..];
    text
}

fn number(bytes: &mut &[u8], kind: u8) -> usize {
    assert_eq!(bytes[0], kind, "a stranger's bytes: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
    let end = bytes.iter().position(|byte| *byte == b'\r').expect("a whole line");
    let number = std::str::from_utf8(&bytes[1..end]).unwrap().parse().unwrap();
    *bytes = &bytes[end + 2..];
    number
}
