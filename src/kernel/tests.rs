//! A protocol that panics ends its conn and nothing else.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use mio::Poll;

use super::channel::{Channel, ChannelConfig};
use super::conn::{Conn, Link};
use super::dial::Stream;
use super::endpoint::{Endpoint, Opened};
use super::io::{DNS_TOKENS, Io};
use super::observing::{Observing, ObservingConfig};
use super::options::EndpointOptions;
use super::request::What;
use crate::config::Url;
use crate::discovery::dns::{Resolver, ResolverConfig};
use crate::proto::{
    Admit, Class, Command, Driver, Fault, Need, Out, Progress, Protocol, Refusal, RequestId, Tenancy, Then, Transport,
    database_tracing,
};
use crate::ring::layout::{IOK_OP_REQUEST, IOK_TIMEOUT_NONE, Submission};
use crate::ring::region::Region;
use crate::router::service::Service;
use crate::sys::owned::Owned;

/// Panics at its first byte; names one request when it is abandoned.
struct Bomb(Option<RequestId>);

impl Protocol for Bomb {
    fn handle_open(&mut self, _: Instant, _: &Transport, _: &mut Out<'_>) -> Result<(), Fault> {
        Ok(())
    }
    fn handle_input(&mut self, _: Instant, _: &[u8], _: &mut Out<'_>) -> Result<Progress, Fault> {
        panic!("a bug in a protocol")
    }
    fn handle_eof(&mut self, _: Instant, _: &mut Out<'_>) -> Result<(), Fault> {
        Ok(())
    }
    fn handle_timeout(&mut self, _: Instant, _: &mut Out<'_>) -> Result<(), Fault> {
        Ok(())
    }
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    fn admit(&self, _: &[u8]) -> Admit {
        Admit::Later
    }
    fn command(&mut self, _: Instant, _: Command<'_>, _: &mut Out<'_>) -> Result<Then, Refusal> {
        Ok(Then::Done)
    }
    fn inflight(&self) -> usize {
        1
    }
    fn tenancy(&self) -> Tenancy {
        Tenancy::Clean
    }
    fn reset(&mut self, _: Instant, _: &mut Out<'_>) -> Result<(), Fault> {
        Ok(())
    }
    fn close(&mut self, _: Instant, _: &mut Out<'_>) {}
    fn abandon(&mut self, each: &mut dyn FnMut(RequestId)) {
        self.0.take().into_iter().for_each(each);
    }
}

impl Driver for Bomb {
    fn classify(&self, _: &[u8], _: bool) -> Result<Need, Refusal> {
        Ok(Need { class: Class::Shared, idempotent: false, route: Default::default() })
    }
    fn is_secret(&self, _: &[u8]) -> bool {
        false
    }
    fn client(&self) -> Box<dyn Protocol> {
        Box::new(Bomb(None))
    }
    fn server(&self) -> Box<dyn Protocol> {
        Box::new(Bomb(None))
    }
}

pub fn io() -> Io {
    let poll = Poll::new().unwrap();
    let registry = poll.registry().try_clone().unwrap();
    let own = super::observing::own::Own::new(crate::observe::area::Area::of_process().unwrap(), "test");
    let observing = Observing::prepare(&own, ObservingConfig::default(), poll.registry()).unwrap();
    let resolver = Resolver::new(registry, DNS_TOKENS..DNS_TOKENS + 64, ResolverConfig::default());
    Io::new(poll, resolver, observing, own).unwrap()
}

pub fn endpoint(io: &mut Io) -> u32 {
    let mut url = Url::parse("unix:/nowhere", |_| Some(1)).unwrap();
    let options = EndpointOptions::take(&mut url, false, 1, crate::proto::Sharing::Shared, 1).unwrap();
    let router = Service::new(options.service);
    let (driver, tracing) = (Box::new(Bomb(None)), database_tracing("bomb"));
    let opened =
        Opened { shown: "bomb://".into(), tracing, driver, options, tls: None, address: url.address, source: None };
    let key = io.endpoints.insert(Endpoint::new(opened, 1, false));
    io.endpoints[key].router = Some(Box::new(router));
    key as u32
}

#[test]
fn a_panic_in_a_protocol_ends_its_conn_and_its_requests_and_nothing_else() {
    let mut io = io();
    let endpoint = endpoint(&mut io);
    let config = ChannelConfig::parse("").unwrap();
    let region = Arc::new(Region::new(config.ring_bytes, config.ring_bytes).unwrap());
    let channel = io.core.channels.insert(Channel::new(region, config, 1)) as u32;
    let head = Submission { op: IOK_OP_REQUEST, endpoint: 1, tag: 7, ..Submission::default() };
    let doomed = io.core.begin(channel, &head, What::Request, IOK_TIMEOUT_NONE);
    let other = io.core.begin(channel, &Submission { tag: 8, ..head }, What::Request, IOK_TIMEOUT_NONE);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    listener.accept().unwrap().0.write_all(b"x").unwrap();
    stream.set_nonblocking(true).unwrap();
    let link = Link::Up(Stream::Tcp(Owned::make(|| Ok(mio::net::TcpStream::from_std(stream))).unwrap()).into());
    let mut conn = Conn::new(1, endpoint, false, link, Box::new(Bomb(Some(doomed))));
    conn.readable = true;
    let key = io.conns.insert(conn) as u32;

    io.contain(key, |io| io.read(key));

    assert!(!io.conns.iter().any(|(_, conn)| conn.number == 1), "the conn is gone");
    assert!(io.core.requests.get(doomed).is_none(), "its request has ended");
    assert!(io.core.requests.get(other).is_some(), "the others go on");
    assert!(io.endpoints[endpoint as usize].router.is_some(), "the endpoint lives");
    assert!(!io.scratch.is_empty(), "others are still read: into nothing, every conn would seem to be at its end");
}
