//! One question, put to the name servers until one of them answers it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsRequestSender, DnsStreamHandle, FirstAnswer};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, MessageType, Query, ResponseCode, SerialMessage,
};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::config::ResolverConfig;
use super::reactor::{Runtime, Tcp, within};
use crate::discovery::ServiceRecord;

/// Aliases that are followed before a chain counts as a loop.
const ALIASES_MAX: usize = 16;

/// What is known after asking for one kind of records of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: Duration,
    },
    /// Empty: the service is decidedly not there (RFC 2782, a target of `.`).
    Services {
        records: Vec<ServiceRecord>,
        ttl: Duration,
    },
    /// The name exists and has no records of this kind.
    NoRecords(String),
    /// The name does not exist.
    NoSuchName(String),
    /// Servers answered, none of them with an answer.
    Failed(String),
    /// No server answered, or the network refused.
    Silent(String),
}

/// Asks server after server, as often as configured: the next one's turn comes after silence, after a refusal, and after
/// an answer that tells nothing (SERVFAIL, REFUSED, NOTIMP, FORMERR, lame delegation), as in the system's resolver.
/// The order stays even when the first is dead: a later one may know less, and its "no such name" would be believed.
///
/// Only the first round speaks EDNS: some networks drop what they do not know.
pub async fn ask(runtime: Runtime, config: &ResolverConfig, name: Name, kind: RecordType) -> Verdict {
    let mut troubles = Troubles::default();
    for round in 0..config.attempts {
        for &address in &config.nameservers {
            let server = Server { runtime: &runtime, address, timeout: config.timeout, edns: round == 0 };
            match server.ask(name.clone(), kind).await {
                Ok(verdict) => return verdict,
                Err(trouble) => troubles.add(address, trouble),
            }
        }
    }
    troubles.into_verdict(config.timeout)
}

/// Why a server's turn is over without a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    Silence,
    /// The system's words: connection refused, network unreachable.
    Network(String),
    /// The server's words.
    Answer(String),
}

/// One entry a server, with its latest trouble and how often it was asked.
#[derive(Default)]
struct Troubles(Vec<(SocketAddr, Trouble, u32)>);

impl Troubles {
    fn add(&mut self, server: SocketAddr, trouble: Trouble) {
        match self.0.iter_mut().find(|(known, ..)| *known == server) {
            Some(entry) => *entry = (server, trouble, entry.2 + 1),
            None => self.0.push((server, trouble, 1)),
        }
    }

    fn into_verdict(self, timeout: Duration) -> Verdict {
        let answered = self.0.iter().any(|(_, trouble, _)| matches!(trouble, Trouble::Answer(_)));
        let causes = self.0.iter().map(|(server, trouble, times)| match trouble {
            Trouble::Silence if *times == 1 => format!("no answer from {server} within {timeout:?}"),
            Trouble::Silence => format!("no answer from {server} within {timeout:?} ({times} tries)"),
            Trouble::Network(cause) => format!("{server}: {cause}"),
            Trouble::Answer(cause) => format!("{cause} from {server}"),
        });
        let causes = causes.collect::<Vec<_>>().join(", ");
        if answered { Verdict::Failed(causes) } else { Verdict::Silent(causes) }
    }
}

/// One name server in one round.
struct Server<'a> {
    runtime: &'a Runtime,
    address: SocketAddr,
    timeout: Duration,
    edns: bool,
}

impl Server<'_> {
    /// Follows aliases (RFC 1034, section 3.6.2) within answers, and asks on where an answer ends with an alias.
    async fn ask(&self, mut name: Name, kind: RecordType) -> Result<Verdict, Trouble> {
        let server = self.address;
        let mut ttl = u32::MAX;
        for _ in 0..ALIASES_MAX {
            let response = self.exchange(&name, kind).await?;
            if judge(&response)? == Judged::NoSuchName {
                return Ok(Verdict::NoSuchName(format!("NXDOMAIN from {server}")));
            }
            let found = follow(&response, &name, kind);
            ttl = ttl.min(found.ttl);
            let span = Duration::from_secs(ttl.into());
            if !found.addresses.is_empty() {
                return Ok(Verdict::Addresses { addresses: found.addresses, ttl: span });
            }
            if !found.services.is_empty() {
                let records = found.services.into_iter().filter(|record| !record.target.is_empty()).collect();
                return Ok(Verdict::Services { records, ttl: span });
            }
            if found.looped {
                break;
            }
            if found.end == name || response.soa().is_some() {
                return Ok(Verdict::NoRecords(format!("no {kind} records from {server}")));
            }
            name = found.end;
        }
        Err(Trouble::Answer(format!("a loop of aliases ({kind})")))
    }

    /// UDP first; without EDNS after FORMERR (RFC 6891, section 6.2.2), by TCP after truncation (RFC 7766).
    async fn exchange(&self, name: &Name, kind: RecordType) -> Result<DnsResponse, Trouble> {
        let question = |edns| {
            let mut options = DnsRequestOptions::default();
            options.use_edns = edns;
            DnsRequest::from_query(Query::query(name.clone(), kind), options)
        };
        let mut edns = self.edns;
        let mut response = self.exchange_udp(question(edns)).await;
        let formerr = |response: &DnsResponse| response.metadata.response_code == ResponseCode::FormErr;
        if edns && response.as_ref().is_ok_and(formerr) {
            edns = false;
            response = self.exchange_udp(question(edns)).await;
        }
        match response {
            Ok(response) if !response.metadata.truncation => Ok(response),
            // Some servers cut in the middle of a record, which does not parse.
            Ok(_) | Err(NetError::Proto(_)) => {
                self.exchange_tcp(question(edns)).await.map_err(|error| trouble(error, "TCP: "))
            }
            Err(error) => Err(trouble(error, "")),
        }
    }

    async fn exchange_udp(&self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        let stream = UdpClientStream::builder(self.address, self.runtime.clone())
            .with_timeout(Some(self.timeout))
            .with_os_port_selection(true) // a random port for each question, without trying ports that are taken
            .with_max_retries(1) // repeating is up to `ask`
            .with_retry_interval_floor(self.timeout.as_millis() as u64 * 2);
        stream.build().send_message(request).first_answer().await
    }

    /// One question on a connection of its own.
    async fn exchange_tcp(&self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        let (server, timeout, runtime) = (self.address, self.timeout, self.runtime.clone());
        let exchange = async move {
            let (connecting, mut sender) = TcpClientStream::<Tcp>::new(server, None, Some(timeout), runtime);
            let stream = connecting.await?;
            sender.send(SerialMessage::new(request.to_vec()?, server))?;
            let (bytes, _) = stream.first_answer().await?.into_parts();
            let response = DnsResponse::from_buffer(bytes)?;
            match response.metadata.id == request.metadata.id && response.queries == request.queries {
                true => Ok(response),
                false => Err(NetError::Message("an answer to another question")),
            }
        };
        within(self.runtime.sleep(timeout), exchange).await?
    }
}

#[derive(PartialEq, Eq)]
enum Judged {
    Answered,
    NoSuchName,
}

fn judge(response: &DnsResponse) -> Result<Judged, Trouble> {
    let trouble = |words: &str| Err(Trouble::Answer(words.to_string()));
    match response.metadata.response_code {
        _ if response.metadata.message_type != MessageType::Response => trouble("a question instead of an answer"),
        ResponseCode::NoError => {
            let meta = &response.metadata;
            let referral = response.answers.is_empty() && !meta.authoritative && !meta.recursion_available;
            match referral && response.soa().is_none() && !response.authorities.is_empty() {
                true => trouble("a referral instead of an answer"),
                false => Ok(Judged::Answered),
            }
        }
        ResponseCode::NXDomain => Ok(Judged::NoSuchName),
        ResponseCode::ServFail => trouble("SERVFAIL"),
        ResponseCode::Refused => trouble("REFUSED"),
        ResponseCode::NotImp => trouble("NOTIMP"),
        ResponseCode::FormErr => trouble("FORMERR"),
        other => trouble(&other.to_string()),
    }
}

struct Found {
    addresses: Vec<IpAddr>,
    services: Vec<ServiceRecord>,
    /// The least of the records that were used, in seconds.
    ttl: u32,
    /// Where the aliases lead.
    end: Name,
    looped: bool,
}

fn follow(response: &DnsResponse, name: &Name, kind: RecordType) -> Found {
    let mut found =
        Found { addresses: Vec::new(), services: Vec::new(), ttl: u32::MAX, end: name.clone(), looped: false };
    for _ in 0..ALIASES_MAX {
        for record in response.answers.iter().filter(|record| record.name == found.end) {
            match &record.data {
                RData::A(a) if kind == RecordType::A => found.addresses.push(Ipv4Addr::from(*a).into()),
                RData::AAAA(aaaa) if kind == RecordType::AAAA => found.addresses.push(Ipv6Addr::from(*aaaa).into()),
                RData::SRV(srv) if kind == RecordType::SRV => found.services.push(service(srv)),
                _ => continue,
            }
            found.ttl = found.ttl.min(record.ttl);
        }
        let alias = response.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == found.end => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        match alias {
            Some((target, ttl)) if found.addresses.is_empty() && found.services.is_empty() => {
                found.end = target;
                found.ttl = found.ttl.min(ttl);
            }
            _ => return found,
        }
    }
    found.looped = true;
    found
}

/// The root, which stands for no service at all, becomes an empty target.
fn service(srv: &SRV) -> ServiceRecord {
    let target = srv.target.to_ascii();
    let target = target.strip_suffix('.').unwrap_or(&target).to_string();
    ServiceRecord { target, port: srv.port, priority: srv.priority, weight: srv.weight }
}

fn trouble(error: NetError, how: &str) -> Trouble {
    match error {
        NetError::Timeout => Trouble::Silence,
        NetError::Io(error) => {
            let words = error.to_string();
            Trouble::Network(format!("{how}{}", words.split(" (os error").next().unwrap_or_default()))
        }
        NetError::Proto(error) => Trouble::Answer(format!("{how}an answer that cannot be read ({error})")),
        other => Trouble::Answer(format!("{how}{other}")),
    }
}
