//! Redis Sentinel: `redis+sentinel://s1,s2:26379,s3/mymaster/0`.
//!
//! Every sentinel of the URL is asked once a second, and at once when it publishes anything about the master, when its
//! stream stands (again) or when the router doubts: SENTINEL MASTER for its epoch, GET-MASTER-ADDR-BY-NAME for the
//! address, which names a promoted replica before MASTER does, and REPLICAS. [`truth`] tells which answers are
//! believed, [`reply`] how they are read. With `rediss+sentinel://` the sentinels are asked over TLS too, unless
//! `sentinel_tls=false` says otherwise. See <https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/>.

mod reply;
mod truth;

use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::set::Published;
use super::watch::Numbers;
use super::{Ask, News, Query, Source, Terms};
use crate::config::{Address, ConfigError, Url};
use crate::peer::Peer;
use crate::value::write;
use reply::{Replica, Trouble};
use truth::Truth;

const DEFAULT_PORT: u16 = 26379;
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What may mean that the set has changed.
const CHANNELS: &[&str] = &[
    "+switch-master",
    "+promoted-slave",
    "+config-update-from",
    "+convert-to-slave",
    "+failover-end",
    "+failover-state-reconf-slaves",
    "+reset-master",
    "+slave",
    "+slave-reconf-done",
    "+fix-slave-config",
    "+reboot",
    "+role-change",
    "-role-change",
    "+sdown",
    "-sdown",
    "+odown",
    "-odown",
];

struct Sentinels {
    master: String,
    urls: Vec<String>,
    each: Vec<Sentinel>,
    truth: Truth,
    numbers: Numbers,
    published: Published,
    /// What was said last when nothing was known.
    said: String,
}

/// One sentinel of the URL.
#[derive(Default)]
struct Sentinel {
    shown: String,
    stream: Option<Query>,
    round: Option<Round>,
    /// Something happened after the round began.
    again: bool,
    /// None: at once.
    due: Option<Instant>,
    /// It calls replicas slaves.
    old: bool,
    trouble: Option<Trouble>,
    replicas: Vec<Replica>,
}

/// Three questions that belong together, the first of them `first`.
struct Round {
    begun: Instant,
    first: Query,
    master: Option<Result<u64, Trouble>>,
    address: Option<Result<Peer, Trouble>>,
    replicas: Option<Result<Vec<Replica>, Trouble>>,
}

pub fn open(url: &mut Url, _terms: &Terms) -> Result<Box<dyn Source>, ConfigError> {
    let path = std::mem::take(&mut url.path);
    let (master, rest) = path.split_once('/').unwrap_or((&path, ""));
    if master.is_empty() || master.contains(char::is_whitespace) {
        let expected = "the master's name, as in redis+sentinel://s1,s2,s3/mymaster";
        return Err(ConfigError::new("path", &path, expected));
    }
    url.path = rest.to_string();
    url.set_default_port(DEFAULT_PORT);
    let (user, password) = (url.options.text("sentinel_user"), url.options.text("sentinel_password"));
    if user.is_some() && password.is_none() {
        return Err(ConfigError::new("sentinel_user", "", "sentinel_password beside it"));
    }
    let credentials = password
        .map_or(String::new(), |password| format!("{}:{}@", encoded(&user.unwrap_or_default()), encoded(&password)));
    let secure = url.scheme == "rediss" && url.options.flag("sentinel_tls", true)?;
    let tls = if secure { url.options.copies("tls_") } else { Vec::new() };
    let tls: String = tls.iter().map(|(key, value)| format!("&{key}={}", encoded(value))).collect();
    let scheme = if secure { "rediss" } else { "redis" };
    let each = |host: &Address| format!("{scheme}://{credentials}{host}?heartbeat=1s&max_silence=2s&timeout=2s{tls}");
    Ok(Box::new(Sentinels::new(master, &url.hosts, each)))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Sentinels {
    fn new(master: &str, hosts: &[Address], url: impl Fn(&Address) -> String) -> Self {
        let sentinel = |host: &Address| Sentinel { shown: host.to_string(), ..Sentinel::default() };
        Sentinels {
            master: master.to_string(),
            urls: hosts.iter().map(url).collect(),
            each: hosts.iter().map(sentinel).collect(),
            truth: Truth::new(hosts.len()),
            numbers: Numbers::default(),
            published: Published::default(),
            said: String::new(),
        }
    }

    fn ask_due(&mut self, now: Instant, ask: &mut dyn Ask) {
        for (at, sentinel) in self.each.iter_mut().enumerate() {
            if sentinel.round.is_some() || sentinel.due.is_some_and(|due| now < due) {
                continue;
            }
            if sentinel.stream.is_none() {
                let query = self.numbers.take();
                sentinel.stream = Some(query);
                ask.stream(query, at, &command(&[&["SUBSCRIBE"], CHANNELS].concat()));
            }
            let queries = [self.numbers.take(), self.numbers.take(), self.numbers.take()];
            let replicas = if sentinel.old { "SLAVES" } else { "REPLICAS" };
            for (query, question) in queries.into_iter().zip(["MASTER", "GET-MASTER-ADDR-BY-NAME", replicas]) {
                ask.request(query, at, &command(&["SENTINEL", question, &self.master]));
            }
            sentinel.begin(now, queries[0]);
        }
    }

    fn reply(&mut self, now: Instant, query: Query, outcome: Result<&[u8], &str>) {
        let Some(at) = self.each.iter().position(|sentinel| sentinel.awaits(query)) else { return };
        if self.each[at].take(query, outcome) {
            self.end_round(now, at);
        }
    }

    fn end_round(&mut self, now: Instant, at: usize) {
        let sentinel = &mut self.each[at];
        match sentinel.end(now) {
            Some((epoch, master)) => self.truth.hear(now, at, epoch, master, sentinel.replicas.clone()),
            None => self.truth.lose(now, at),
        }
    }

    fn hurry(&mut self) {
        self.each.iter_mut().for_each(Sentinel::hurry);
    }

    fn publish(&mut self, ask: &mut dyn Ask) {
        if let Some(peers) = self.truth.peers() {
            self.said.clear();
            self.published.publish(peers, ask);
        }
        let why = self.troubles();
        if self.truth.is_deaf() && !why.is_empty() && why != self.said {
            ask.unknown(&why);
            self.said = why;
        }
    }

    /// What each sentinel said when it did not name the master.
    fn troubles(&self) -> String {
        let each = self.each.iter().filter_map(|sentinel| {
            Some(match sentinel.trouble.as_ref()? {
                Trouble::NoSuchMaster(words) => {
                    format!("sentinel {} knows no master {:?}: {words}", sentinel.shown, self.master)
                }
                Trouble::NoSuchQuestion => format!("{} is no sentinel", sentinel.shown),
                Trouble::Other(cause) => format!("sentinel {}: {cause}", sentinel.shown),
            })
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

impl Sentinel {
    fn hurry(&mut self) {
        self.again = self.round.is_some();
        self.due = None;
    }

    fn begin(&mut self, now: Instant, first: Query) {
        self.again = false;
        self.round = Some(Round { begun: now, first, master: None, address: None, replicas: None });
    }

    fn awaits(&self, query: Query) -> bool {
        self.round.as_ref().is_some_and(|round| (round.first..round.first + 3).contains(&query))
    }

    /// True when it was the last reply of its round.
    fn take(&mut self, query: Query, outcome: Result<&[u8], &str>) -> bool {
        let Some(round) = &mut self.round else { return false };
        let outcome = outcome.map_err(Trouble::of);
        match query - round.first {
            0 => round.master = Some(outcome.and_then(reply::epoch)),
            1 => round.address = Some(outcome.and_then(reply::address)),
            _ => round.replicas = Some(outcome.and_then(reply::replicas)),
        }
        round.master.is_some() && round.address.is_some() && round.replicas.is_some()
    }

    /// The epoch and the master of the round that is complete; else `trouble` says why there are none. Replicas that
    /// could not be asked for are those of the round before.
    fn end(&mut self, now: Instant) -> Option<(u64, Peer)> {
        let Round { begun, master, address, replicas, .. } = self.round.take()?;
        match replicas? {
            Ok(replicas) => self.replicas = replicas,
            Err(Trouble::NoSuchQuestion) if !self.old => (self.old, self.again) = (true, true),
            Err(_) => {}
        }
        self.due = (!self.again).then(|| (begun + ASK_EVERY).max(now));
        match (master?, address?) {
            (Ok(epoch), Ok(master)) => {
                self.trouble = None;
                Some((epoch, master))
            }
            (Err(trouble), _) | (_, Err(trouble)) => {
                self.trouble = Some(trouble);
                None
            }
        }
    }
}

impl Source for Sentinels {
    fn services(&self) -> Vec<String> {
        self.urls.clone()
    }

    fn handle(&mut self, now: Instant, news: News<'_>, ask: &mut dyn Ask) {
        match news {
            News::Doubt => self.hurry(),
            News::Reply { query, outcome } => self.reply(now, query, outcome),
            // Nobody knows what was published before it stood.
            News::Standing { query } => {
                self.each.iter_mut().filter(|one| one.stream == Some(query)).for_each(|one| one.hurry())
            }
            News::Push { body, .. } if reply::words(body).contains(&self.master) => self.hurry(),
            News::Ended { query, .. } => {
                self.each.iter_mut().filter(|one| one.stream == Some(query)).for_each(|one| one.stream = None);
            }
            _ => {}
        }
        self.truth.settle(now);
        self.publish(ask);
        self.ask_due(now, ask);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let rounds = self.each.iter().filter(|sentinel| sentinel.round.is_none()).filter_map(|sentinel| sentinel.due);
        rounds.chain(self.truth.poll_timeout()).min()
    }
}

/// A request: an array of texts.
fn command(words: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    write::array(&mut body, words.len() as u32);
    words.iter().for_each(|word| write::str(&mut body, word.as_bytes()));
    body
}

#[cfg(test)]
mod tests;
