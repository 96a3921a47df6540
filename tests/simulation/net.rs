//! Byte streams between conns and servers: late, in pieces, cut, and silent.

use std::collections::VecDeque;

use iokernel::peer::Place;

use crate::server::Session;
use crate::world::{Event, MS, World};

/// One direction of a stream.
#[derive(Default)]
pub struct Way {
    /// When the last piece arrives: what comes later arrives no sooner.
    last_ns: u64,
    ended: bool,
    /// Nothing arrives any more, and nobody is told.
    silent: bool,
    /// What a partition holds back.
    held: Vec<Event>,
}

/// One TCP connection.
pub struct Link {
    pub key: u32,
    pub serial: u64,
    pub node: usize,
    /// Which life of the server it belongs to.
    pub run: u64,
    pub client_open: bool,
    pub server_open: bool,
    up: Way,
    down: Way,
    pub session: Session,
    /// What a stopped or blocked server has not looked at.
    pub inbox: Vec<u8>,
    pub waiting: VecDeque<Vec<Vec<u8>>>,
}

impl World {
    pub fn latency(&mut self) -> u64 {
        match self.rng.usize(..if self.calm { 20 } else { 30 }) {
            0 => self.rng.u64(MS..8 * MS),
            1 if !self.calm => self.rng.u64(5 * MS..60 * MS),
            _ => self.rng.u64(MS / 20..MS),
        }
    }

    pub fn new_link(&mut self, key: u32, serial: u64, place: &Place) -> usize {
        let Some(node) = self.node_at(place) else { self.fail("a conn leads nowhere") };
        self.links.push(Link {
            key,
            serial,
            node,
            run: self.nodes[node].run,
            client_open: true,
            server_open: true,
            up: Way::default(),
            down: Way::default(),
            session: Session::default(),
            inbox: Vec::new(),
            waiting: VecDeque::new(),
        });
        let link = self.links.len() - 1;
        self.nodes[node].links.push(link);
        link
    }

    /// The conn at the client's end.
    pub fn client_of(&self, link: usize) -> Option<u32> {
        let of = &self.links[link];
        let here = self.conns.get(&of.key).is_some_and(|conn| conn.serial == of.serial);
        (of.client_open && here).then_some(of.key)
    }

    /// Sends bytes on their way, in pieces.
    pub fn carry(&mut self, link: usize, up: bool, mut bytes: Vec<u8>) {
        while !bytes.is_empty() {
            let split = self.rng.usize(..8) == 0;
            let count = if split { self.rng.usize(1..=bytes.len()) } else { bytes.len() };
            let rest = bytes.split_off(count);
            self.depart(link, up, Event::Bytes { link, up, bytes });
            bytes = rest;
        }
    }

    fn depart(&mut self, link: usize, up: bool, event: Event) {
        let latency = self.latency() + self.nodes[self.links[link].node].slow_ns;
        let cut = self.nodes[self.links[link].node].is_cut_off();
        let now_ns = self.now_ns;
        let of = &mut self.links[link];
        let way = if up { &mut of.up } else { &mut of.down };
        if way.ended || way.silent {
            return;
        }
        if cut {
            return way.held.push(event);
        }
        way.ended = matches!(event, Event::End { .. });
        way.last_ns = way.last_ns.max(now_ns + latency);
        let at = way.last_ns;
        self.at(at, event);
    }

    /// Our side has closed: what was written may still arrive.
    pub fn close_client(&mut self, link: usize) {
        if self.links[link].client_open {
            self.links[link].client_open = false;
            self.depart(link, true, Event::End { link, up: true, reset: false });
        }
    }

    /// The server's side closes.
    pub fn close_server(&mut self, link: usize, reset: bool) {
        let of = &mut self.links[link];
        if of.server_open {
            of.server_open = false;
            of.session = Session::default();
            of.inbox.clear();
            of.waiting.clear();
            self.depart(link, false, Event::End { link, up: false, reset });
        }
    }

    /// A partition is over: what was held back arrives.
    pub fn release_held(&mut self, link: usize) {
        let up = std::mem::take(&mut self.links[link].up.held);
        let down = std::mem::take(&mut self.links[link].down.held);
        for event in up {
            self.depart(link, true, event);
        }
        for event in down {
            self.depart(link, false, event);
        }
    }

    /// One conn goes bad by itself.
    pub fn cut_link(&mut self, link: usize) {
        match self.rng.usize(..5) {
            0 => self.close_server(link, true),
            1 => self.close_server(link, false),
            2 => self.links[link].down.silent = true,
            3 => self.links[link].up.silent = true,
            _ => {
                self.links[link].up.silent = true;
                self.links[link].down.silent = true;
            }
        }
    }
}
