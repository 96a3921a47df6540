//! One lookup: the names a host stands for, and both address families, or the services, of each.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RecordType};

use super::config::ResolverConfig;
use super::question::{Verdict, ask};
use super::reactor::Runtime;
use super::{Answer, ResolveError, ResolveErrorKind};
use crate::discovery::Services;
use crate::discovery::sort::{RouteProbe, dial_order};

/// RFC 8305, section 3: how long the second family may keep an answer waiting.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Addresses,
    Services,
}

/// What it found.
pub enum Found {
    Addresses(Answer),
    Services(Services),
}

/// Tries each name that the host may mean, until one has what is wanted.
pub async fn lookup(
    runtime: Runtime,
    config: Arc<ResolverConfig>,
    wanted: Wanted,
    host: String,
) -> Result<Found, ResolveError> {
    let mut names = candidates(&host, &config);
    let mut misses = Misses::default();
    while let Some(candidate) = names.pop_front() {
        let found = match parse_name(&candidate) {
            Ok(name) if wanted == Wanted::Services => services(&runtime, &config, name).await.map(Found::Services),
            Ok(name) => both_families(&runtime, &config, name).await.map(Found::Addresses),
            Err(()) => Err((ResolveErrorKind::BadName, "not a domain name".into())),
        };
        match found {
            Ok(found) => return Ok(found),
            Err((kind, cause)) => misses.add(&candidate, kind, cause),
        }
        // As in the system's resolver: where no server answers, the rest of the search list is left out, but the name
        // as it stands has its turn.
        if misses.worst() == Some(ResolveErrorKind::NoAnswer) {
            names.retain(|name| *name == host);
        }
    }
    Err(misses.into_error(&host))
}

/// The absolute names to try, in the system's order: a name with a trailing dot alone; otherwise the search list and the
/// name as it stands, which goes first if it has `ndots` dots.
fn candidates(host: &str, config: &ResolverConfig) -> VecDeque<String> {
    if let Some(absolute) = host.strip_suffix('.') {
        return [absolute.to_string()].into();
    }
    let as_it_stands_first = host.matches('.').count() >= config.ndots;
    let searched = config.search.iter().map(|domain| match domain.trim_matches('.') {
        "" => host.to_string(),
        domain => format!("{host}.{domain}"),
    });
    let mut names: VecDeque<String> = as_it_stands_first.then(|| host.to_string()).into_iter().collect();
    for name in searched.chain([host.to_string()]) {
        if !names.contains(&name) {
            names.push_back(name);
        }
    }
    names
}

fn parse_name(text: &str) -> Result<Name, ()> {
    if text.is_empty() || text.contains(|c: char| c.is_ascii_whitespace() || c.is_ascii_control() || c == '\\') {
        return Err(());
    }
    let mut name = Name::from_str_relaxed(text).map_err(drop)?;
    name.set_fqdn(true);
    Ok(name)
}

type Miss = (ResolveErrorKind, String);

async fn services(runtime: &Runtime, config: &ResolverConfig, name: Name) -> Result<Services, Miss> {
    match ask(runtime.clone(), config, name, RecordType::SRV).await {
        Verdict::Services { records, ttl } => Ok(Services { records, ttl }),
        verdict => Err(miss(verdict)),
    }
}

/// A and AAAA at the same time. Once one family has addresses, the other has `RESOLUTION_DELAY` left; a family without
/// addresses never hides the other's.
async fn both_families(runtime: &Runtime, config: &ResolverConfig, name: Name) -> Result<Answer, Miss> {
    let mut six = pin!(ask(runtime.clone(), config, name.clone(), RecordType::AAAA));
    let mut four = pin!(ask(runtime.clone(), config, name, RecordType::A));
    let mut verdicts: [Option<Verdict>; 2] = [None, None];
    let mut delay = pin!(None);
    poll_fn(|cx| {
        if verdicts[0].is_none()
            && let Poll::Ready(verdict) = six.as_mut().poll(cx)
        {
            verdicts[0] = Some(verdict);
        }
        if verdicts[1].is_none()
            && let Poll::Ready(verdict) = four.as_mut().poll(cx)
        {
            verdicts[1] = Some(verdict);
        }
        if verdicts.iter().all(Option::is_some) {
            return Poll::Ready(());
        }
        if !verdicts.iter().any(|verdict| matches!(verdict, Some(Verdict::Addresses { .. }))) {
            return Poll::Pending;
        }
        if delay.is_none() {
            delay.set(Some(runtime.sleep(RESOLUTION_DELAY)));
        }
        delay.as_mut().as_pin_mut().map_or(Poll::Pending, |delay| delay.poll(cx))
    })
    .await;
    judge(verdicts)
}

fn judge(verdicts: [Option<Verdict>; 2]) -> Result<Answer, Miss> {
    let late = || Verdict::Silent(String::new());
    let verdicts = verdicts.map(|verdict| verdict.unwrap_or_else(late));
    let complete = !verdicts.iter().any(|verdict| matches!(verdict, Verdict::Silent(_) | Verdict::Failed(_)));
    let mut found: Option<(Vec<IpAddr>, Duration)> = None;
    let mut misses = Misses::default();
    for verdict in verdicts {
        match verdict {
            Verdict::Addresses { addresses, ttl } => {
                let (all, least) = found.get_or_insert((Vec::new(), ttl));
                all.extend(addresses);
                *least = ttl.min(*least);
            }
            verdict => {
                let (kind, cause) = miss(verdict);
                misses.add("", kind, cause);
            }
        }
    }
    match found {
        Some((addresses, ttl)) => {
            let probe = std::cell::LazyCell::new(RouteProbe::new);
            let addresses = dial_order(addresses, |address| probe.reachable(address));
            Ok(Answer { addresses, ttl, complete })
        }
        None => Err(misses.worst_miss()),
    }
}

/// A verdict without what was asked for.
fn miss(verdict: Verdict) -> Miss {
    match verdict {
        Verdict::NoRecords(cause) => (ResolveErrorKind::NoAddresses, cause),
        Verdict::NoSuchName(cause) => (ResolveErrorKind::NoSuchName, cause),
        Verdict::Failed(cause) => (ResolveErrorKind::ServerFailure, cause),
        Verdict::Silent(cause) => (ResolveErrorKind::NoAnswer, cause),
        Verdict::Addresses { .. } | Verdict::Services { .. } => {
            (ResolveErrorKind::Internal, "records that were not asked for".into())
        }
    }
}

/// What was tried in vain.
#[derive(Default)]
struct Misses {
    names: Vec<String>,
    misses: Vec<Miss>,
}

impl Misses {
    fn add(&mut self, name: &str, kind: ResolveErrorKind, cause: String) {
        self.names.push(name.to_string());
        self.misses.push((kind, cause));
    }

    /// The least certain miss speaks for all: only if every question had an answer is it known that there is none.
    fn worst(&self) -> Option<ResolveErrorKind> {
        self.misses.iter().map(|(kind, _)| *kind).max()
    }

    /// Its causes, each once.
    fn worst_miss(self) -> Miss {
        let worst = self.worst().unwrap_or(ResolveErrorKind::BadName);
        let mut causes: Vec<String> = Vec::new();
        for (kind, cause) in self.misses {
            if kind == worst && !causes.contains(&cause) {
                causes.push(cause);
            }
        }
        (worst, causes.join(", "))
    }

    fn into_error(self, host: &str) -> ResolveError {
        let tried = match self.names.as_slice() {
            [] => String::new(),
            [only] if *only == host => String::new(),
            names => format!(" (tried {})", names.join(", ")),
        };
        let (kind, cause) = self.worst_miss();
        ResolveError { kind, message: format!("{host}: {cause}{tried}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(host: &str, ndots: usize) -> VecDeque<String> {
        let search = vec!["a.test".into(), "b.test.".into()];
        candidates(host, &ResolverConfig { search, ndots, ..ResolverConfig::default() })
    }

    #[test]
    fn names_are_tried_in_the_order_of_the_system() {
        assert_eq!(names("db", 1), ["db.a.test", "db.b.test", "db"]);
        assert_eq!(names("db.x", 1), ["db.x", "db.x.a.test", "db.x.b.test"]);
        assert_eq!(names("db.x", 2), ["db.x.a.test", "db.x.b.test", "db.x"]);
        assert_eq!(names("db.x.", 2), ["db.x"]);
        assert_eq!(names("db.", 1), ["db"]);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for bad in ["", "a..b", "a b", "a\\.b", &"x".repeat(64), &"x.".repeat(130)] {
            assert!(parse_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "_a.b", "a_.b", "1.b", "xn--a.b"] {
            assert!(parse_name(good).is_ok_and(|name| name.is_fqdn()), "{good:?}");
        }
    }
}
