//! Statsd: datagrams to one receiver, which may be down, unknown or slow without anyone here waiting for it.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;

use super::places::{Places, take_address};
use super::{Counts, STATSD_LOOKUP, STATSD_MORE, STATSD_TICK, Schedule, take_interval, take_prefix};
use crate::config::{Address, ConfigError, Options};
use crate::kernel::dial::unix_address;
use crate::kernel::io::Io;
use crate::kernel::observing::Part;
use crate::observe::area::Area;
use crate::observe::read::Whose;
use crate::observe::snapshot::Snapshot;
use crate::observe::statsd::{Style, Tags, packets};
use crate::peer::Place;
use crate::sys::owned::Owned;

const DEFAULT_PORT: u16 = 8125;
/// What a datagram may have: an Ethernet frame's 1500 less the heads of IPv6 and UDP, and some room for tunnels.
const DEFAULT_PACKET_BYTES: u64 = 1432;
const PACKET_BYTES: std::ops::RangeInclusive<u64> = 64..=65507;
/// How often a name is looked up again, and how soon after it was not found while no address is known.
const LOOKUP_EVERY_MS: u64 = 60_000;
const LOOKUP_AGAIN_MS: u64 = 2_000;
/// Datagrams sent at a time, and the milliseconds until more are sent: also for a receiver that is full.
const BURST: usize = 64;
const BURST_PAUSE_MS: u64 = 1;
const FULL_PAUSE_MS: u64 = 10;
const LAST_BURSTS: usize = 16;

#[derive(Clone, Debug)]
pub struct StatsdConfig {
    address: Address,
    interval_ms: u64,
    style: Style,
}

impl StatsdConfig {
    pub fn take(options: &mut Options) -> Result<Option<Self>, ConfigError> {
        let address = take_address(options, "statsd", DEFAULT_PORT)?;
        let interval_ms = take_interval(options, "statsd_interval")?;
        let tags = match options.word("statsd_tags", "none", &["none", "datadog", "influx"])? {
            "datadog" => Tags::Datadog,
            "influx" => Tags::Influx,
            _ => Tags::None,
        };
        let prefix = take_prefix(options, "statsd_prefix")?;
        let packet_bytes = options.number("statsd_packet", DEFAULT_PACKET_BYTES, PACKET_BYTES)? as usize;
        let style = Style { prefix, tags, packet_bytes };
        Ok(address.map(|address| StatsdConfig { address, interval_ms, style }))
    }
}

/// A connected datagram socket that never blocks.
enum Socket {
    Udp(Owned<UdpSocket>),
    Unix(Owned<UnixDatagram>),
}

impl Socket {
    fn open(place: &Place) -> std::io::Result<Socket> {
        match place {
            Place::Tcp(to) => Owned::make(|| {
                let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.set_nonblocking(true)?;
                socket.connect(to)?;
                Ok(socket)
            })
            .map(Socket::Udp),
            Place::Unix(path) => Owned::make(|| {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect_addr(&unix_address(path)?)?;
                Ok(socket)
            })
            .map(Socket::Unix),
        }
    }

    fn send(&self, packet: &[u8]) -> std::io::Result<usize> {
        match self {
            Socket::Udp(socket) => socket.send(packet),
            Socket::Unix(socket) => socket.send(packet),
        }
    }
}

pub struct Statsd {
    style: Style,
    schedule: Schedule,
    places: Places,
    socket: Option<Socket>,
    /// What was told already.
    before: Snapshot,
    /// Datagrams of the last tick that wait for their turn.
    waiting: VecDeque<Vec<u8>>,
    pub counts: Counts,
}

impl Statsd {
    pub fn new(config: &StatsdConfig, area: Area, kernel: &str) -> Self {
        Statsd {
            style: config.style.clone(),
            schedule: Schedule::new(config.interval_ms),
            places: Places::new(config.address.clone()),
            socket: None,
            before: area.snapshot(Whose::Own).unwrap_or_default(),
            waiting: VecDeque::new(),
            counts: Counts::new(area, kernel, "statsd"),
        }
    }

    /// A socket, if there is anywhere to send. A place that cannot be reached gives way to another.
    fn open(&mut self) -> bool {
        if self.socket.is_none()
            && let Some(place) = self.places.current()
        {
            match Socket::open(place) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => self.failed(&error),
            }
        }
        self.socket.is_some()
    }

    /// The next try is with another place, and with another socket where that may help.
    fn failed(&mut self, _why: &Error) {
        self.counts.errors.add(1);
        let elsewhere = self.places.turn();
        if elsewhere || !matches!(self.socket, Some(Socket::Udp(_))) {
            self.socket = None;
        }
    }

    /// What happened since it was told last. Without a socket it stays untold, so that nothing is lost until there is one.
    fn tell(&mut self, now: Snapshot) {
        if !self.open() {
            return;
        }
        self.counts.dropped.add(self.waiting.len() as u64);
        let packed = packets(&self.before, &now, &self.style);
        self.counts.dropped.add(packed.left_out);
        self.waiting = packed.packets.into();
        self.before = now;
    }

    /// Sends a few. After how many milliseconds there is more to send.
    fn send(&mut self) -> Option<u64> {
        for _ in 0..BURST {
            let packet = self.waiting.pop_front()?;
            match self.send_one(&packet) {
                Ok(()) => self.counts.sent.add(1),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counts.errors.add(1);
                    self.waiting.push_front(packet);
                    return Some(FULL_PAUSE_MS);
                }
                Err(_) => self.counts.dropped.add(1),
            }
        }
        (!self.waiting.is_empty()).then_some(BURST_PAUSE_MS)
    }

    /// Sends all that can be sent without a wait: a program that ends has no later.
    pub fn send_last(&mut self) {
        for _ in 0..LAST_BURSTS {
            if self.send() != Some(BURST_PAUSE_MS) {
                return;
            }
        }
    }

    /// An error may be an earlier datagram's (its receiver was not there), so there is a second try.
    fn send_one(&mut self, packet: &[u8]) -> std::io::Result<()> {
        let mut last = Error::from(ErrorKind::NotConnected);
        for _ in 0..2 {
            if !self.open() {
                break;
            }
            match self.socket.as_ref().map(|socket| socket.send(packet)) {
                Some(Ok(_)) => return Ok(()),
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                Some(Err(error)) => {
                    self.failed(&error);
                    last = error;
                }
                None => break,
            }
        }
        Err(last)
    }
}

impl Io {
    fn statsd(&mut self) -> Option<&mut Statsd> {
        self.observing.push.statsd.as_mut()
    }

    pub(super) fn begin_statsd(&mut self) {
        let now_ms = self.core.now_ns / 1_000_000;
        let Some(statsd) = self.statsd() else { return };
        statsd.schedule.begin(now_ms);
        let due_ms = statsd.schedule.due_ms();
        self.push_timer_at(due_ms, STATSD_TICK);
        self.statsd_lookup();
    }

    pub(super) fn statsd_tick(&mut self) {
        let now_ms = self.core.now_ns / 1_000_000;
        let Some(statsd) = self.statsd() else { return };
        statsd.counts.missed.add(statsd.schedule.come(now_ms));
        let due_ms = statsd.schedule.due_ms();
        self.push_timer_at(due_ms, STATSD_TICK);
        self.push_statsd();
    }

    pub(super) fn push_statsd(&mut self) {
        if self.statsd().is_none() {
            return;
        }
        let now = self.snapshot_own();
        if let Some(statsd) = self.statsd() {
            let resting = statsd.waiting.is_empty();
            statsd.tell(now);
            if resting {
                self.statsd_more();
            }
        }
    }

    /// Sends what waits, some at a time.
    pub(super) fn statsd_more(&mut self) {
        if let Some(pause_ms) = self.statsd().and_then(Statsd::send) {
            self.part_timer_after(Part::Push, STATSD_MORE, pause_ms);
        }
    }

    /// Looks the receiver's name up, where it has one.
    pub(super) fn statsd_lookup(&mut self) {
        let name = self.statsd().and_then(|statsd| statsd.places.name().map(String::from));
        if let Some(name) = name {
            self.part_lookup(Part::Push, STATSD_LOOKUP, &name);
        }
    }

    pub(super) fn statsd_resolved(&mut self, outcome: Result<Vec<IpAddr>, String>) {
        let Some(statsd) = self.statsd() else { return };
        match outcome {
            Ok(ips) if !ips.is_empty() => {
                if !statsd.places.resolved(&ips) {
                    statsd.socket = None;
                }
            }
            _ => statsd.counts.errors.add(1),
        }
        let known = statsd.places.current().is_some();
        let again_ms = if known { LOOKUP_EVERY_MS } else { LOOKUP_AGAIN_MS };
        self.part_timer_after(Part::Push, STATSD_LOOKUP, again_ms);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::snapshot::{Family, Kind, Series, Value};

    fn statsd(address: &str) -> Statsd {
        let mut options = Options::parse(&format!("statsd={address}")).unwrap();
        let config = StatsdConfig::take(&mut options).unwrap().unwrap();
        let mut statsd = Statsd::new(&config, Area::of_process().unwrap(), address);
        statsd.before = Snapshot::default();
        statsd
    }

    fn counted(count: u64) -> Snapshot {
        let series = vec![Series { labels: Vec::new(), value: Value::Count(count) }];
        let (name, help, unit) = ("calls".to_string(), String::new(), String::new());
        Snapshot { families: vec![Family { name, kind: Kind::Counter, help, unit, series }] }
    }

    fn receiver() -> (UdpSocket, String) {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let address = receiver.local_addr().unwrap().to_string();
        (receiver, address)
    }

    fn heard(receiver: &UdpSocket) -> String {
        let mut bytes = [0; 2048];
        let count = receiver.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_receiver_that_was_down_hears_the_first_datagram_after_it_is_back() {
        let (receiver, address) = receiver();
        drop(receiver);
        let mut statsd = statsd(&address);
        for round in 1..4 {
            statsd.tell(counted(round));
            assert_eq!(statsd.send(), None);
        }
        assert!(statsd.counts.errors.get() > 0);
        let receiver = UdpSocket::bind(&address).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        statsd.tell(counted(10));
        assert_eq!(statsd.send(), None);
        assert_eq!(heard(&receiver), "calls:7|c");
    }

    #[test]
    fn what_happens_before_there_is_an_address_is_told_when_there_is_one() {
        let (receiver, address) = receiver();
        let port = address.rsplit_once(':').unwrap().1;
        let mut statsd = statsd(&format!("some.name:{port}"));
        statsd.tell(counted(3));
        assert!(statsd.waiting.is_empty());
        statsd.places.resolved(&["127.0.0.1".parse().unwrap()]);
        statsd.tell(counted(5));
        assert_eq!(statsd.send(), None);
        assert_eq!(heard(&receiver), "calls:5|c");
    }

    #[test]
    fn another_address_of_the_name_takes_the_place_of_one_that_refuses() {
        let (receiver, address) = receiver();
        let port = address.rsplit_once(':').unwrap().1;
        let mut statsd = statsd(&format!("some.name:{port}"));
        statsd.places.resolved(&["127.0.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap()]);
        for round in 1..4 {
            statsd.tell(counted(round));
            assert_eq!(statsd.send(), None);
        }
        assert!(heard(&receiver).starts_with("calls:"));
    }

    #[test]
    fn a_unix_receiver_that_is_full_is_tried_again_and_one_that_restarts_is_found() {
        let folder = std::env::temp_dir().join(format!("iokernel-statsd-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut statsd = statsd(&format!("unix:{}", path.display()));
        let mut count = 0;
        let full = (0..100_000).any(|_| {
            count += 1;
            statsd.tell(counted(count));
            statsd.send() == Some(FULL_PAUSE_MS)
        });
        assert!(full);
        let mut bytes = [0; 64];
        receiver.recv(&mut bytes).unwrap();
        assert_eq!(statsd.send(), None);
        drop(receiver);
        std::fs::remove_file(&path).unwrap();
        let receiver = UnixDatagram::bind(&path).unwrap();
        statsd.tell(counted(count + 2));
        assert_eq!(statsd.send(), None);
        let received = receiver.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..received], b"calls:2|c");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
