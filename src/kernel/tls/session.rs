//! One conn's TLS, over a socket that never blocks: what is read is decrypted in the buffer that it was read to, what is
//! written is encrypted in pieces, and neither piles up here.
//!
//! rustls is used by its unbuffered API: it holds no bytes of its own, so that what is held is in [`Session`], and bounded:
//! of what came, one record, or one message of a handshake; of what goes, one piece.

use std::io::{self, ErrorKind, Read, Write};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{CommonState, Error};

use super::words::{self, Failure};
use crate::kernel::dial::{Stream, cause};
use crate::kernel::line::Got;

/// Plaintext that is encrypted at once: four full records.
const PIECE_BYTES: usize = 4 * (16 << 10);
/// By how much a piece may grow (RFC 8446, 5.2, and the explicit nonces of TLS 1.2), alerts and new keys included.
const PIECE_MORE: usize = 4 * 64 + 256;
/// Room for ciphertext that is kept once it is empty.
const KEPT_BYTES: usize = 4 << 10;
/// The longest message of a handshake that is taken, as rustls has it elsewhere.
const HELD_BYTES_MAX: usize = 64 << 10;
/// Before ciphertext there is so much room for plaintext: a record's (RFC 8446, 5.2).
const FRONT_BYTES: usize = 20 << 10;
/// Read at once during a handshake, so that little comes along of what follows it.
const HANDSHAKE_READ_BYTES: usize = 16 << 10;

/// Either side of rustls, by what they have in common.
trait Records {
    type Data;
    fn common(&self) -> &CommonState;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Records for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn common(&self) -> &CommonState {
        self
    }

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Records for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn common(&self) -> &CommonState {
        self
    }

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// Runs the same code for either side.
macro_rules! on_side {
    ($side:expr, $conn:ident => $body:expr) => {
        match $side {
            Side::Client($conn) => $body,
            Side::Server($conn) => $body,
        }
    };
}

/// Ciphertext on its way to the socket.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// At least so many writable bytes behind what waits.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        if self.bytes.len() < self.end + wanted {
            self.bytes.resize(self.end + wanted, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// Writes what waits. An error when the socket does not take all of it.
    fn send(&mut self, socket: &mut Stream) -> io::Result<()> {
        while self.start < self.end {
            match socket.write(&self.bytes[self.start..self.end]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.start += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.start, self.end) = (0, 0);
        Ok(())
    }
}

/// What is known of a session once its handshake is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub version: &'static str,
    pub cipher: String,
    pub alpn: Option<Vec<u8>>,
    pub resumed: bool,
}

pub struct Session {
    side: Side,
    /// Ciphertext that came and is not whole.
    incoming: Vec<u8>,
    /// What was decrypted along with the end of the handshake.
    early: Vec<u8>,
    outgoing: Outgoing,
    /// Anything has come.
    heard: bool,
    /// The peer has said that it sends no more.
    closed: bool,
    /// What went wrong after something that came well.
    fault: Option<Error>,
}

impl Session {
    pub fn client(conn: UnbufferedClientConnection) -> Self {
        Session::new(Side::Client(Box::new(conn)))
    }

    pub fn server(conn: UnbufferedServerConnection) -> Self {
        Session::new(Side::Server(Box::new(conn)))
    }

    fn new(side: Side) -> Self {
        let (incoming, early) = (Vec::new(), Vec::new());
        Session { side, incoming, early, outgoing: Outgoing::default(), heard: false, closed: false, fault: None }
    }

    pub fn has_heard(&self) -> bool {
        self.heard
    }

    fn common(&self) -> &CommonState {
        on_side!(&self.side, conn => conn.common())
    }

    /// One step of the handshake: takes what has come and writes what follows from it. True once it is done.
    pub fn shake(&mut self, socket: &mut Stream, scratch: &mut [u8]) -> Result<bool, Failure> {
        loop {
            // A client speaks first.
            let room = &mut scratch[..FRONT_BYTES + HELD_BYTES_MAX + HANDSHAKE_READ_BYTES];
            let count = self.go_through(room, 0);
            self.early.extend_from_slice(&room[..count]);
            // An alert is for those who speak TLS.
            if let Some(error) = self.fault.take_if(|error| words::is_no_tls(error)) {
                return Err(error.into());
            }
            let sent = self.outgoing.send(socket);
            if let Some(error) = self.fault.take() {
                return Err(error.into());
            }
            match sent {
                Ok(()) if !self.common().is_handshaking() => return Ok(true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(broken(&error)),
                Ok(()) => {}
            }
            match self.receive(socket, room) {
                Ok(0) => return Err(Failure::lost("the peer closed the connection during the TLS handshake")),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    /// Reads once from the socket, to what is held already.
    fn receive(&mut self, socket: &mut Stream, room: &mut [u8]) -> io::Result<usize> {
        let count = retried(|| socket.read(&mut room[..HANDSHAKE_READ_BYTES]))?;
        self.incoming.extend_from_slice(&room[..count]);
        self.heard |= count > 0;
        Ok(count)
    }

    pub fn agreed(&self) -> Agreed {
        let common = self.common();
        let version = match common.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        };
        let cipher = common.negotiated_cipher_suite().map_or_else(String::new, |suite| format!("{:?}", suite.suite()));
        let resumed = common.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Agreed { version, cipher, alpn: common.alpn_protocol().map(<[u8]>::to_vec), resumed }
    }

    /// What the peer showed of itself, in DER.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        self.common().peer_certificates()?.first().map(|certificate| certificate.to_vec())
    }

    /// Reads once from the socket, and decrypts what came. `scratch` has room for much more than a record.
    pub fn read(&mut self, socket: &mut Stream, scratch: &mut [u8]) -> io::Result<Got> {
        if !self.early.is_empty() {
            let count = self.early.len().min(scratch.len());
            scratch[..count].copy_from_slice(&self.early[..count]);
            self.early.drain(..count);
            return Ok(Got { bytes: count, more: true, closed: false });
        }
        if let Some(error) = self.fault.take() {
            return Err(self.unwell(&error));
        }
        if self.closed {
            return Ok(Got { bytes: 0, more: false, closed: true });
        }
        let room = &mut scratch[FRONT_BYTES + self.incoming.len()..];
        let count = retried(|| socket.read(room))?;
        if count == 0 {
            let text = "closed the connection without a word (no close_notify): what it sent may be cut off";
            return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
        }
        let full = count == room.len();
        let bytes = self.go_through(scratch, count);
        // What a message of the peer's asks for at once, such as new keys of ours; the rest goes with the next write.
        let _ = self.outgoing.send(socket);
        let more = full || self.closed || self.fault.is_some();
        Ok(Got { bytes, more, closed: self.closed && bytes == 0 })
    }

    /// Goes through what is held, and `fresh` bytes behind its place in `scratch`, until there is nothing more to do.
    /// Plaintext of how many bytes lies at the front of `scratch` then.
    fn go_through(&mut self, scratch: &mut [u8], fresh: usize) -> usize {
        let held = self.incoming.len();
        let end = FRONT_BYTES + held + fresh;
        scratch[FRONT_BYTES..FRONT_BYTES + held].copy_from_slice(&self.incoming);
        self.incoming.clear();
        let mut through = Through { used: FRONT_BYTES, plain: 0, closed: false };
        let outcome = on_side!(&mut self.side, conn => {
            through.go(&mut **conn, &mut scratch[..end], &mut self.outgoing)
        });
        self.closed |= through.closed;
        match outcome {
            Ok(()) if self.closed => {}
            Ok(()) if end - through.used > HELD_BYTES_MAX => self.fault = Some(Error::PeerSentOversizedRecord),
            Ok(()) => self.incoming.extend_from_slice(&scratch[through.used..end]),
            Err(error) => {
                on_side!(&mut self.side, conn => last_words(&mut **conn, &mut self.outgoing));
                self.fault = Some(error);
            }
        }
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        through.plain
    }

    /// The peer has broken TLS, or has ended it.
    fn unwell(&self, error: &Error) -> io::Error {
        let kind = match words::is_about_our_certificate(error) {
            true => ErrorKind::PermissionDenied,
            false => ErrorKind::InvalidData,
        };
        io::Error::new(kind, format!("TLS: {}", words::of(error)))
    }

    /// Takes some of the bytes, encrypts them, and writes them as far as the socket takes them. Nothing is taken while
    /// earlier ones wait.
    pub fn write(&mut self, socket: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.send(socket)?;
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        self.say(piece.len() + PIECE_MORE, |traffic, room| traffic.encrypt(piece, room))?;
        match self.outgoing.send(socket) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(piece.len()),
            sent => sent.map(|()| piece.len()),
        }
    }

    /// Bytes that lie here, to be read or to be written.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        self.incoming.len() + self.early.len() + self.outgoing.end - self.outgoing.start
    }

    /// Nothing waits to be written.
    pub fn is_settled(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Writes what waits, and gives its room back.
    pub fn settle(&mut self, socket: &mut Stream) -> io::Result<()> {
        self.outgoing.send(socket)?;
        if self.outgoing.bytes.len() > KEPT_BYTES {
            self.outgoing = Outgoing::default();
        }
        Ok(())
    }

    /// Tells the peer that we send no more, as far as the socket takes it.
    pub fn say_goodbye(&mut self, socket: &mut Stream) {
        if self.say(PIECE_MORE, |traffic, room| traffic.queue_close_notify(room)).is_ok() {
            let _ = self.outgoing.send(socket);
        }
    }

    /// Has something encrypted. What came is not whole, so that nothing is decrypted meanwhile.
    fn say(&mut self, room: usize, what: impl Fn(&mut dyn Traffic, &mut [u8]) -> Said) -> io::Result<()> {
        let (incoming, outgoing, closed) = (&mut self.incoming, &mut self.outgoing, &mut self.closed);
        let said = on_side!(&mut self.side, conn => say(&mut **conn, incoming, outgoing, closed, room, &what));
        said.map_err(|text| io::Error::new(ErrorKind::InvalidData, format!("TLS: {text}")))
    }
}

/// How many bytes something became.
type Said = Result<usize, EncryptError>;

/// What can be said on a session that stands, whichever side it is.
trait Traffic {
    fn encrypt(&mut self, bytes: &[u8], room: &mut [u8]) -> Said;
    fn queue_close_notify(&mut self, room: &mut [u8]) -> Said;
}

impl<Data> Traffic for WriteTraffic<'_, Data> {
    fn encrypt(&mut self, bytes: &[u8], room: &mut [u8]) -> Said {
        WriteTraffic::encrypt(self, bytes, room)
    }

    fn queue_close_notify(&mut self, room: &mut [u8]) -> Said {
        WriteTraffic::queue_close_notify(self, room)
    }
}

/// A way through bytes that came: `[..plain]` is decrypted, `[used..]` is still to be looked at.
struct Through {
    used: usize,
    plain: usize,
    closed: bool,
}

impl Through {
    fn go<C: Records>(&mut self, conn: &mut C, buffer: &mut [u8], outgoing: &mut Outgoing) -> Result<(), Error> {
        loop {
            let (front, rest) = buffer.split_at_mut(self.used);
            let UnbufferedStatus { mut discard, state } = conn.process(rest);
            let mut goes_on = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        // What was decrypted is never longer than what it came as, and a record's is before it.
                        let end = self.plain + record.payload.len();
                        front[self.plain..end].copy_from_slice(record.payload);
                        self.plain = end;
                    }
                }
                Ok(ConnectionState::PeerClosed) => self.closed = true,
                Ok(ConnectionState::Closed) => (self.closed, goes_on) = (true, false),
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => goes_on = false,
                Ok(state) => prepare(state, outgoing)?,
                Err(error) => {
                    self.used += discard;
                    return Err(error);
                }
            }
            self.used += discard;
            if !goes_on {
                return Ok(());
            }
        }
    }
}

/// What rustls itself has to say goes among the rest.
fn prepare<Data>(state: ConnectionState<'_, '_, Data>, outgoing: &mut Outgoing) -> Result<(), Error> {
    match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let mut wanted = 0;
            loop {
                match data.encode(outgoing.room(wanted)) {
                    Ok(count) => {
                        outgoing.end += count;
                        return Ok(());
                    }
                    Err(EncodeError::InsufficientSize(error)) => wanted = error.required_size,
                    Err(EncodeError::AlreadyEncoded) => return Ok(()),
                }
            }
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(())
        }
        _ => Err(Error::General("TLS is in a state that nobody foresaw".into())),
    }
}

/// The alert that tells the peer what it did wrong. What it sent is not looked at again.
fn last_words<C: Records>(conn: &mut C, outgoing: &mut Outgoing) {
    while conn.common().wants_write() {
        let Ok(state) = conn.process(&mut []).state else { return };
        if prepare(state, outgoing).is_err() {
            return;
        }
    }
}

fn say<C: Records>(
    conn: &mut C,
    incoming: &mut [u8],
    outgoing: &mut Outgoing,
    closed: &mut bool,
    mut wanted: usize,
    what: &impl Fn(&mut dyn Traffic, &mut [u8]) -> Said,
) -> Result<(), String> {
    loop {
        match conn.process(incoming).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => loop {
                match what(&mut traffic, outgoing.room(wanted)) {
                    Ok(count) => {
                        outgoing.end += count;
                        return Ok(());
                    }
                    Err(EncryptError::InsufficientSize(error)) => wanted = error.required_size,
                    Err(error) => return Err(error.to_string()),
                }
            },
            Ok(ConnectionState::PeerClosed) => *closed = true,
            Ok(ConnectionState::Closed) => return Err("we have said goodbye already".into()),
            Ok(state) => prepare(state, outgoing).map_err(|error| words::of(&error))?,
            Err(error) => return Err(words::of(&error)),
        }
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::lost(format!("the connection broke during the TLS handshake: {}", cause(error)))
}

fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
