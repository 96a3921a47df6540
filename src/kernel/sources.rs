//! Sources of peers at work: their lookups, their requests to other services, and the sets that they tell.

use std::collections::HashMap;

use super::core::{OwnNews, Target};
use super::endpoint::read_url;
use super::io::Io;
use super::observing::PART_LOOKUP;
use super::request::{OWN_CHANNEL, What};
use crate::discovery::dns::{LookupId, Outcome};
use crate::discovery::{Ask, News, Query};
use crate::peer::Peer;
use crate::ring::layout::*;
use crate::router::service::Service;
use crate::status::{IOK_STATUS_OK, IOK_STATUS_OVERLOADED};
use crate::value::Reader;

/// The lookups of sources have this bit in their number; those of conns have not.
const SOURCE_LOOKUP: u64 = 1 << 63;

/// Who asked what.
#[derive(Default)]
pub struct Sources {
    numbers: u64,
    /// By the number of the lookup.
    lookups: HashMap<u64, Asked>,
    /// By the tag of the request.
    requests: HashMap<u64, Asked>,
}

#[derive(Clone, Copy)]
struct Asked {
    /// The endpoint's key, and its number, since keys are used again.
    key: u32,
    number: u32,
    query: Query,
    is_stream: bool,
}

/// The kernel as one endpoint's source sees it.
struct Asks<'a> {
    io: &'a mut Io,
    key: u32,
    number: u32,
    peers: Option<Vec<Peer>>,
    unknown: Option<String>,
}

impl Io {
    /// Opens a service: its router, the services that its source asks, and its source. Its key.
    pub fn open_service(&mut self, opened: super::endpoint::Opened, internal: bool) -> u32 {
        let helpers = opened.source.as_ref().map(|source| source.services()).unwrap_or_default();
        let service = Service::new(opened.options.service);
        let key = self.install(opened, internal);
        self.name_endpoint(key);
        self.endpoints[key as usize].router = Some(Box::new(service));
        for url in helpers {
            // What a source makes of its own URL is right; a wrong one would leave it without answers.
            let helper = read_url(url.as_bytes(), false, fastrand::u64(..));
            debug_assert!(helper.is_ok(), "{url}: {:?}", helper.err());
            if let Ok(helper) = helper {
                let helper = self.open_service(helper, true);
                self.endpoints[key as usize].helpers.push(helper);
            }
        }
        self.tell_source(key, News::Open);
        self.watch_silence(key);
        key
    }

    /// Lets a source hear something, and passes on what it makes of it.
    pub fn tell_source(&mut self, key: u32, news: News<'_>) {
        self.with_source(key, |source, now, asks| source.handle(now, news, asks));
    }

    /// The program tells the peers.
    pub fn told_peers(&mut self, key: u32, body: &[u8]) -> Result<(), String> {
        let told = self.with_source(key, |source, now, asks| source.handle_told(now, body, asks));
        told.unwrap_or_else(|| Err("the endpoint has no source of peers".into()))
    }

    fn with_source<R>(
        &mut self,
        key: u32,
        body: impl FnOnce(&mut dyn crate::discovery::Source, std::time::Instant, &mut dyn Ask) -> R,
    ) -> Option<R> {
        let now = self.core.now();
        let of = self.endpoints.get_mut(key as usize)?;
        let number = of.number;
        let mut source = of.source.take()?;
        let mut asks = Asks { io: self, key, number, peers: None, unknown: None };
        let result = body(&mut *source, now, &mut asks);
        let (peers, unknown) = (asks.peers, asks.unknown);
        if let Some(of) = self.endpoints.get_mut(key as usize) {
            of.source = Some(source);
        }
        self.rearm_source(key);
        if let Some(peers) = peers {
            self.with_router(key, |router, now, act| router.handle_peers(now, &peers, act));
        }
        if let Some(why) = unknown {
            self.with_router(key, |router, _, act| router.handle_unknown(&why, act));
        }
        Some(result)
    }

    fn rearm_source(&mut self, key: u32) {
        let Some(of) = self.endpoints.get_mut(key as usize) else { return };
        self.core.wheel.clear(of.source_timer);
        let next = of.source.as_ref().and_then(|source| source.poll_timeout());
        of.source_timer = next.map_or(super::wheel::TimerKey::NONE, |at| self.core.timer_at(at, Target::Source(key)));
    }

    /// A source's timer has come.
    pub fn source_timer(&mut self, key: u32) {
        if let Some(of) = self.endpoints.get_mut(key as usize) {
            of.source_timer = super::wheel::TimerKey::NONE;
            self.tell_source(key, News::Time);
        }
    }

    /// A lookup has come to its end: a conn's, or a source's.
    pub fn looked_up(&mut self, id: LookupId, outcome: Outcome) {
        self.core.own.looked_up(match &outcome {
            Outcome::Addresses(outcome) => outcome.is_ok(),
            Outcome::Services(outcome) => outcome.is_ok(),
        });
        if id.0 & SOURCE_LOOKUP == 0 {
            let Outcome::Addresses(outcome) = outcome else { return };
            let outcome = outcome.map(|answer| answer.addresses).map_err(|error| error.message);
            if id.0 & PART_LOOKUP != 0 {
                return self.part_looked_up(id, outcome);
            }
            return self.resolved(id.0 as u32, outcome);
        }
        let Some(asked) = self.sources.lookups.remove(&id.0).filter(|asked| self.is_open(asked)) else { return };
        let query = asked.query;
        self.tell_source(
            asked.key,
            match outcome {
                Outcome::Addresses(outcome) => News::Addresses { query, outcome },
                Outcome::Services(outcome) => News::Services { query, outcome },
            },
        );
    }

    fn is_open(&self, asked: &Asked) -> bool {
        self.endpoints.get(asked.key as usize).is_some_and(|of| of.number == asked.number)
    }

    /// Passes on what came for requests of sources.
    pub fn hear_own_news(&mut self) {
        for news in std::mem::take(&mut self.core.own_news) {
            self.own_news(&news);
        }
    }

    fn own_news(&mut self, news: &OwnNews) {
        let done = news.kind == IOK_KIND_DONE;
        let asked =
            if done { self.sources.requests.remove(&news.tag) } else { self.sources.requests.get(&news.tag).copied() };
        let Some(asked) = asked.filter(|asked| self.is_open(asked)) else { return };
        let (query, body) = (asked.query, &news.body[..]);
        let why = if news.status == IOK_STATUS_OK { String::new() } else { error_text(body) };
        let told = match news.kind {
            IOK_KIND_PUSH => News::Push { query, body },
            IOK_KIND_ACCEPTED => News::Standing { query },
            IOK_KIND_DONE if asked.is_stream => News::Ended { query, why: &why },
            IOK_KIND_DONE => News::Reply { query, outcome: if why.is_empty() { Ok(body) } else { Err(&why) } },
            _ => return,
        };
        self.tell_source(asked.key, told);
    }

    /// Forgets what a source has asked, and closes the services that it asked.
    pub fn close_source(&mut self, key: u32, why: &str) {
        let Some(of) = self.endpoints.get_mut(key as usize) else { return };
        let number = of.number;
        drop(of.source.take());
        self.core.wheel.clear(std::mem::replace(&mut of.source_timer, super::wheel::TimerKey::NONE));
        let helpers = std::mem::take(&mut of.helpers);
        let mine = |asked: &Asked| (asked.key, asked.number) == (key, number);
        let lookups: Vec<u64> =
            self.sources.lookups.iter().filter(|(_, asked)| mine(asked)).map(|(id, _)| *id).collect();
        for id in lookups {
            self.sources.lookups.remove(&id);
            self.resolver.cancel(LookupId(id));
        }
        self.sources.requests.retain(|_, asked| !mine(asked));
        for helper in helpers {
            self.close_endpoint(helper, why);
        }
    }
}

/// `[code, message]` as one text; never empty.
fn error_text(body: &[u8]) -> String {
    let mut reader = Reader::new(body);
    let _ = reader.token();
    let mut text = || match reader.token() {
        Ok(crate::value::Token::Str(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => "?".into(),
    };
    format!("{} {}", text(), text())
}

impl Asks<'_> {
    fn asked(&mut self, query: Query, is_stream: bool) -> (u64, Asked) {
        self.io.sources.numbers += 1;
        (self.io.sources.numbers, Asked { key: self.key, number: self.number, query, is_stream })
    }

    fn begin_lookup(&mut self, query: Query) -> (std::time::Instant, LookupId) {
        let (number, asked) = self.asked(query, false);
        let id = SOURCE_LOOKUP | number;
        self.io.sources.lookups.insert(id, asked);
        (self.io.core.now(), LookupId(id))
    }

    fn submit(&mut self, query: Query, service: usize, body: &[u8], what: What) {
        let (tag, asked) = self.asked(query, what == What::Stream);
        self.io.sources.requests.insert(tag, asked);
        let helper = self.io.endpoints.get(self.key as usize).and_then(|of| of.helpers.get(service)).copied();
        let of = helper.and_then(|helper| self.io.endpoints.get(helper as usize));
        let need = of.map(|of| (of.number, of.options.timeout_ms, of.driver.classify(body, false)));
        let head = |endpoint| Submission { endpoint, tag, ..Submission::default() };
        match need {
            Some((number, timeout_ms, Ok(need))) => {
                let timeout_ms = if what == What::Stream { IOK_TIMEOUT_NONE } else { timeout_ms };
                let id = self.io.core.begin(OWN_CHANNEL, &head(number), what, timeout_ms);
                self.io.route(id, &head(number), need, body);
            }
            _ => {
                let mut why = Vec::new();
                crate::value::write::error(&mut why, b"NOSERVICE", b"there is no such service to ask");
                let news = OwnNews { tag, kind: IOK_KIND_DONE, status: IOK_STATUS_OVERLOADED, body: why };
                self.io.core.own_news.push(news);
            }
        }
    }
}

impl Ask for Asks<'_> {
    fn lookup(&mut self, query: Query, host: &str) {
        let (now, id) = self.begin_lookup(query);
        self.io.resolver.lookup(now, id, host);
    }

    fn lookup_services(&mut self, query: Query, name: &str) {
        let (now, id) = self.begin_lookup(query);
        self.io.resolver.lookup_services(now, id, name);
    }

    fn request(&mut self, query: Query, service: usize, body: &[u8]) {
        self.submit(query, service, body, What::Request);
    }

    fn stream(&mut self, query: Query, service: usize, body: &[u8]) {
        self.submit(query, service, body, What::Stream);
    }

    fn set_peers(&mut self, peers: Vec<Peer>) {
        self.peers = Some(peers);
    }

    fn unknown(&mut self, why: &str) {
        self.unknown = Some(why.into());
    }
}
