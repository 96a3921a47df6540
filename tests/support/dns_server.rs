//! A name server that does as it is told: answers, fails, stays silent, truncates, delays. It speaks UDP and TCP on one
//! loopback port, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const A: u16 = 1;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;

pub const FORMERR: u8 = 1;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const REFUSED: u8 = 5;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Lower case, without the trailing dot.
    pub name: String,
    pub kind: u16,
    pub tcp: bool,
    pub edns: bool,
}

/// A record as the test writes it: owner, TTL in seconds, data.
#[derive(Clone, Debug)]
pub struct Record(pub &'static str, pub u32, pub Data);

#[derive(Clone, Debug)]
pub enum Data {
    Address(IpAddr),
    Alias(&'static str),
    /// Priority, weight, port, target.
    Service(u16, u16, u16, &'static str),
}

#[derive(Clone, Debug)]
pub enum Reply {
    Answer(Vec<Record>),
    /// No records, and an SOA that says so.
    NoData,
    Code(u8),
    Silent,
    /// The TC bit and no records.
    Truncated,
    Delayed(Duration, Box<Reply>),
    /// The same bytes, with another transaction id, before the reply.
    Forged(Box<Reply>, Box<Reply>),
    /// Bytes that are no DNS message, after the right id.
    Garbage,
}

/// The address if the question is for its family, else no data.
pub fn address(asked: &Asked, ttl: u32, text: &str) -> Reply {
    addresses(asked, ttl, &[text])
}

pub fn addresses(asked: &Asked, ttl: u32, texts: &[&str]) -> Reply {
    let name: &'static str = asked.name.clone().leak();
    let all = texts.iter().map(|text| text.parse::<IpAddr>().unwrap());
    let fitting = all.filter(|address| address.is_ipv4() == (asked.kind == A));
    let records: Vec<Record> = fitting.map(|address| Record(name, ttl, Data::Address(address))).collect();
    if records.is_empty() { Reply::NoData } else { Reply::Answer(records) }
}

pub struct DnsServer {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

type Script = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

impl DnsServer {
    pub fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let (asked, stop, script): (Arc<Mutex<Vec<Asked>>>, Arc<AtomicBool>, Script) =
            (Arc::default(), Arc::default(), Arc::new(script));
        let (log, stopped, rules) = (asked.clone(), stop.clone(), script.clone());
        std::thread::spawn(move || serve_udp(&udp, &rules, &log, &stopped));
        let (log, stopped) = (asked.clone(), stop.clone());
        std::thread::spawn(move || serve_tcp(&tcp, &script, &log, &stopped));
        DnsServer { address, asked, stop }
    }

    /// Every question so far, in the order of arrival.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The names of the questions of one kind.
    pub fn names(&self, kind: u16) -> Vec<String> {
        self.asked().into_iter().filter(|asked| asked.kind == kind).map(|asked| asked.name).collect()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

const TICK: Duration = Duration::from_millis(20);

fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            udp.set_read_timeout(Some(TICK)).unwrap();
            tcp.set_nonblocking(true).unwrap();
            return (udp, tcp);
        }
    }
}

fn serve_udp(udp: &UdpSocket, script: &Script, log: &Mutex<Vec<Asked>>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((bytes, peer)) = udp.recv_from(&mut buffer) else { continue };
        let question = buffer[..bytes].to_vec();
        let asked = parse(&question, false);
        let (socket, reply) = (udp.try_clone().unwrap(), script(&asked));
        log.lock().unwrap().push(asked);
        perform(reply, question, move |bytes| {
            let _ = socket.send_to(bytes, peer);
        });
    }
}

fn serve_tcp(tcp: &TcpListener, script: &Script, log: &Mutex<Vec<Asked>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = tcp.accept() else {
            std::thread::sleep(TICK / 10);
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let Some(question) = read_message(&mut stream) else { continue };
        let asked = parse(&question, true);
        let reply = script(&asked);
        log.lock().unwrap().push(asked);
        perform(reply, question, move |bytes| {
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            // In three parts, so that the reader meets each boundary.
            let whole = [&length[..], bytes].concat();
            for part in [&whole[..1], &whole[1..7], &whole[7..]] {
                let _ = stream.write_all(part);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
    }
}

fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

/// Sends what the reply says, by another thread if it is to be late.
fn perform(reply: Reply, question: Vec<u8>, mut send: impl FnMut(&[u8]) + Send + 'static) {
    match reply {
        Reply::Silent => {}
        Reply::Delayed(span, reply) => {
            std::thread::spawn(move || {
                std::thread::sleep(span);
                perform(*reply, question, send);
            });
        }
        Reply::Forged(forged, reply) => {
            let mut bytes = encode(&forged, &question);
            bytes[0] ^= 0x55;
            send(&bytes);
            perform(*reply, question, send);
        }
        reply => send(&encode(&reply, &question)),
    }
}

fn parse(message: &[u8], tcp: bool) -> Asked {
    let (mut at, mut labels) = (12, Vec::new());
    while message[at] != 0 {
        let length = usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..at + 1 + length]).to_ascii_lowercase());
        at += 1 + length;
    }
    let kind = u16::from_be_bytes([message[at + 1], message[at + 2]]);
    Asked { name: labels.join("."), kind, tcp, edns: message[11] == 1 }
}

fn encode(reply: &Reply, question: &[u8]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut bytes = question[..end].to_vec();
    if matches!(reply, Reply::Garbage) {
        bytes.truncate(2);
        bytes.extend([0xff; 30]);
        return bytes;
    }
    let code = if let Reply::Code(code) = reply { *code } else { 0 };
    bytes[2] = 0x81 | if matches!(reply, Reply::Truncated) { 2 } else { 0 };
    bytes[3] = 0x80 | code;
    bytes[6..12].fill(0);
    if let Reply::Answer(records) = reply {
        bytes[7] = u8::try_from(records.len()).unwrap();
        for Record(name, ttl, data) in records {
            let (kind, data) = match data {
                Data::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
                Data::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
                Data::Alias(target) => (CNAME, encode_name(target)),
                Data::Service(priority, weight, port, target) => {
                    let numbers = [priority, weight, port].map(|number| number.to_be_bytes()).concat();
                    (SRV, [numbers, encode_name(target)].concat())
                }
            };
            encode_record(&mut bytes, name, kind, *ttl, &data);
        }
    }
    if matches!(reply, Reply::NoData) {
        bytes[9] = 1;
        let numbers = [1u32, 2, 3, 4, 5].map(u32::to_be_bytes).concat();
        let data = [encode_name("ns.test"), encode_name("admin.test"), numbers].concat();
        encode_record(&mut bytes, "test", SOA, 5, &data);
    }
    bytes
}

fn encode_record(bytes: &mut Vec<u8>, name: &str, kind: u16, ttl: u32, data: &[u8]) {
    bytes.extend(encode_name(name));
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
}

fn encode_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}
