//! The options that every endpoint takes, whatever its protocol.

use std::time::Duration;

use super::listener::SocketOptions;
use super::observing::access::AccessOptions;
use super::proxy::Proxy;
use crate::config::{Address, ConfigError, Options, Url};
use crate::discovery::Terms;
use crate::peer::Wanted;
use crate::proto::{Follow, Limits, Sharing};
use crate::ring::layout::IOK_TIMEOUT_NONE;
use crate::router::balance::Balance;
use crate::router::service::ServiceConfig;
use crate::router::throttle::Rate;

/// Of a service or a listener.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    pub limits: Limits,
    /// Default of a request's `timeout_ms`.
    pub timeout_ms: u32,
    pub connect_timeout: Duration,
    pub keepalive: Option<Duration>,
    pub user_timeout: Option<Duration>,
    pub service: ServiceConfig,
    pub conns_max: usize,
    /// Bytes of pieces that the program may leave unread, for each request.
    pub window: usize,
    /// How long a listener's client may take nothing of what waits for it.
    pub send_timeout: Option<Duration>,
    pub access: Option<AccessOptions>,
    pub socket: SocketOptions,
    pub terms: Terms,
    /// The program is not ready without it.
    pub required: bool,
    /// Arguments of requests under way are kept, to be shown.
    pub shows_arguments: bool,
    /// A program that takes nothing for so long loses its leases and its heartbeats.
    pub app_silence: Option<Duration>,
    pub proxy: Option<Box<Proxy>>,
    /// Requests that take so long are kept in the slow-request log.
    pub slow: Option<Duration>,
}

fn as_ms(span: Duration) -> u32 {
    if span.is_zero() { IOK_TIMEOUT_NONE } else { (span.as_millis() as u32).max(1) }
}

/// How long what a server executes for one request may keep the others of its conn waiting before there is another conn.
const HEAD_WAIT: Duration = Duration::from_millis(50);

/// What a URL's shape says before its options are read.
struct Shape {
    listener: bool,
    cluster: bool,
    /// It may name more than one peer.
    many: bool,
    sharing: Sharing,
}

/// Zero is how an option of a time is switched off.
fn unless_zero(span: Duration) -> Option<Duration> {
    (!span.is_zero()).then_some(span)
}

impl Shape {
    fn of(url: &Url, listener: bool, sharing: Sharing) -> Self {
        let cluster = url.via.as_deref() == Some("cluster");
        Shape { listener, cluster, many: url.via.is_some() || url.hosts.len() > 1, sharing }
    }
}

impl EndpointOptions {
    /// Takes the common options; what is left is the protocol's or the source's, or unknown. `sharing`: see
    /// [`crate::proto::Scheme`].
    pub fn take(
        url: &mut Url,
        listener: bool,
        default_port: u16,
        sharing: Sharing,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        let shape = Shape::of(url, listener, sharing);
        let roles = !listener && url.options.has("role");
        let unix = matches!(url.address, Address::Unix(_));
        let options = &mut url.options;
        let wanted = if listener { Wanted::Any } else { wanted(options, &shape)? };
        let limits = limits(options, &shape, wanted)?;
        let seconds = Duration::from_secs;
        let timeout = if listener { Duration::ZERO } else { seconds(30) };
        let mut taken = EndpointOptions {
            limits,
            timeout_ms: as_ms(options.duration("timeout", timeout)?),
            connect_timeout: seconds(5),
            keepalive: unless_zero(options.duration("keepalive", seconds(60))?),
            user_timeout: None,
            service: ServiceConfig {
                seed,
                wanted,
                topology: shape.cluster,
                exclusive: sharing == Sharing::Exclusive,
                grows: (sharing == Sharing::Growing).then_some(HEAD_WAIT),
                ..ServiceConfig::default()
            },
            conns_max: 10_000,
            send_timeout: None,
            access: None,
            socket: SocketOptions::default(),
            window: options.bytes("window", 256 << 10)?.clamp(4 << 10, 1 << 30),
            terms: Terms {
                spread: shape.many || roles && !unix,
                remote: false,
                default_port,
                ttl_min: crate::discovery::dns::TTL_MIN,
                ttl_max: seconds(300),
            },
            required: false,
            shows_arguments: false,
            app_silence: None,
            proxy: None,
            slow: None,
        };
        if listener {
            taken.conns_max = options.number("max_conns", 10_000, 1..=1 << 20)? as usize;
            taken.send_timeout = unless_zero(options.duration("send_timeout", seconds(60))?);
            taken.access = AccessOptions::take(options)?;
            taken.limits.access = taken.access.is_some();
            taken.socket = SocketOptions::take(options, taken.keepalive)?;
        } else {
            taken.proxy = Proxy::take(options, &url.address)?;
            taken.terms.remote = taken.proxy.as_ref().is_some_and(|proxy| proxy.resolves);
            taken.take_service(options)?;
        }
        Ok(taken)
    }

    fn take_service(&mut self, options: &mut Options) -> Result<(), ConfigError> {
        self.connect_timeout = options.duration("connect_timeout", self.connect_timeout)?;
        self.user_timeout = unless_zero(options.duration("user_timeout", Duration::ZERO)?);
        self.required = options.flag("require", false)?;
        self.shows_arguments = options.flag("show_arguments", false)?;
        let silence = unless_zero(options.duration("max_app_silence", Duration::ZERO)?);
        self.app_silence = silence.map(|silence| silence.max(Duration::from_millis(10)));
        self.slow = unless_zero(options.duration("slow", Duration::ZERO)?);
        let spread = if self.terms.spread { "all" } else { "one" };
        self.terms.spread = options.word("peers", spread, &["one", "all"])? == "all";
        let floor = self.terms.ttl_min;
        self.terms.ttl_min = options.duration("min_ttl", floor)?;
        if self.terms.ttl_min < floor {
            let given = format!("{:?}", self.terms.ttl_min);
            return Err(ConfigError::new("min_ttl", &given, format!("a time of {floor:?} or more")));
        }
        self.terms.ttl_max = options.duration("max_ttl", self.terms.ttl_max)?.max(self.terms.ttl_min);
        let service = &mut self.service;
        service.queue_max = options.number("max_queue", service.queue_max as u64, 1..=1 << 24)? as usize;
        service.lanes_max = options.number("lanes", service.lanes_max as u64, 1..=65_536)? as usize;
        service.lane_idle = options.duration("lane_idle", service.lane_idle)?;
        service.backoff_min = options.duration("backoff", service.backoff_min)?;
        service.backoff_max = options.duration("max_backoff", service.backoff_max)?;
        service.drain = options.duration("drain", service.drain)?;
        let (pool, pool_max) = match (service.exclusive, service.grows) {
            (true, _) => (100, 4096),
            (false, Some(_)) => (4, 256),
            (false, None) => (1, 256),
        };
        service.pool = options.number("pool", pool, 1..=pool_max)? as usize;
        if let Some(head_wait) = service.grows {
            service.grows = unless_zero(options.duration("head_wait", head_wait)?);
        }
        if service.exclusive {
            service.warm = options.number("warm", 0, 0..=service.pool as u64)? as usize;
        }
        service.fails_down = options.word("when_down", "wait", &["wait", "fail"])? == "fail";
        let balance = options.word("balance", "least", &["least", "hash"])?;
        service.balance = if balance == "hash" { Balance::Hash } else { Balance::Least };
        let bounded = options.has("max_inflight");
        let inflight_max = options.number("max_inflight", 1, 1..=1 << 24)? as usize;
        service.inflight_max = if bounded { inflight_max } else { usize::MAX };
        service.peer_inflight_max = self.limits.inflight_max;
        service.adaptive = options.flag("adaptive", false)?;
        service.retry_share = options.share("retry_budget", service.retry_share)?;
        service.rate = rate(options, "rate", "burst")?;
        service.peer_rate = rate(options, "peer_rate", "peer_burst")?;
        Ok(())
    }
}

/// `rate=` and its burst, which is a tenth of a second's worth unless it is given.
fn rate(options: &mut Options, key: &'static str, burst: &'static str) -> Result<Option<Rate>, ConfigError> {
    let per_second = options.per_second(key)?;
    let default = per_second.map_or(1, |rate| (rate / 10.0).ceil() as u64).clamp(1, 1 << 24);
    let given = options.has(burst);
    let burst_of = options.number(burst, default, 1..=1 << 24)?;
    if per_second.is_none() && given {
        return Err(ConfigError::new(burst, &burst_of.to_string(), format!("{key}= beside it")));
    }
    Ok(per_second.map(|per_second| Rate { per_second, burst: burst_of as f64 }))
}

/// Where there may be many peers, writes must find the primary unless the URL says otherwise.
fn wanted(options: &mut Options, shape: &Shape) -> Result<Wanted, ConfigError> {
    let default = if shape.many { "primary" } else { "any" };
    let word = match shape.sharing == Sharing::Exclusive {
        true => options.word("role", "any", &["any", "nearest"])?,
        false => options.word("role", default, &["primary", "replica", "prefer-replica", "any", "nearest"])?,
    };
    Ok(match word {
        "primary" => Wanted::Primary,
        "replica" => Wanted::Replica,
        "prefer-replica" => Wanted::PreferReplica,
        "nearest" => Wanted::Nearest,
        _ => Wanted::Any,
    })
}

fn limits(options: &mut Options, shape: &Shape, wanted: Wanted) -> Result<Limits, ConfigError> {
    let follow = match wanted {
        _ if shape.cluster => Follow::Topology,
        Wanted::Primary | Wanted::Replica | Wanted::PreferReplica => Follow::Roles,
        Wanted::Any | Wanted::Nearest => Follow::Nothing,
    };
    let default = Limits::default();
    // A role is as true as it is fresh.
    let (beat, silence) = match follow {
        Follow::Nothing => (default.heartbeat, Duration::from_secs(10)),
        _ => (Duration::from_secs(1), Duration::from_secs(3)),
    };
    let heartbeat = options.duration("heartbeat", beat)?;
    let (message, inflight, inflight_max) =
        if shape.listener { ("max_request", "max_inflight", 1024) } else { ("max_reply", "peer_inflight", 65_536) };
    Ok(Limits {
        access: false,
        listener: shape.listener,
        message_bytes_max: options.bytes(message, default.message_bytes_max)?.min(u32::MAX as usize / 2),
        depth_max: options.number("max_depth", default.depth_max as u64, 1..=512)? as usize,
        inflight_max: options.number(inflight, inflight_max, 1..=1 << 24)? as usize,
        heartbeat: if heartbeat.is_zero() { Duration::from_secs(365 * 86_400) } else { heartbeat },
        silence_max: options.duration("max_silence", silence)?,
        raw: options.flag("raw", false)?,
        follow,
        reads_replicas: wanted != Wanted::Primary,
    })
}
