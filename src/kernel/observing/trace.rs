//! Tracing: the trace context that a request carries, and the span that is made of it when the request ends. Spans wait
//! as text for [`super::collector`].

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::Part;
use super::slow::{fate_name, phases, status_name};
use crate::config::{Address, ConfigError, Options, Url};
use crate::kernel::core::{Core, Ending, Target};
use crate::kernel::io::Io;
use crate::kernel::request::Request;
use crate::observe::otlp::{self, Attribute, Span};
use crate::proto::Body;
use crate::ring::layout::*;
use crate::status::{IOK_STATUS_BAD_RECORD, IOK_STATUS_OK, IOK_STATUS_REMOTE};
use crate::value::{Reader, Token};

/// Spans in one request to the collector.
pub const BATCH: usize = 512;
/// The key of the timer by which spans are sent.
pub const SEND: u32 = 0;
/// The bit of the trace flags that says that somebody records (W3C Trace Context, section 3.2.2.5).
const SAMPLED: u8 = 1;

/// The spans' way out: `otlp=http://host:4318` and the options beside it.
#[derive(Clone, Debug, Default)]
pub struct TraceConfig {
    pub collector: Option<CollectorConfig>,
}

#[derive(Clone, Debug)]
pub struct CollectorConfig {
    pub host: String,
    pub port: u16,
    /// `host:port` as a URL has it.
    pub authority: String,
    pub path: String,
    /// `service.name`; None: the kernel's name.
    pub service: Option<String>,
    pub headers: Headers,
    pub interval: Duration,
    pub queue_max: usize,
}

/// Headers, whose values may be secret.
#[derive(Clone, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl TraceConfig {
    pub fn take(options: &mut Options) -> Result<Self, ConfigError> {
        let url = options.text("otlp").filter(|url| !url.is_empty());
        let beside = ["otlp_service", "otlp_headers", "otlp_interval", "otlp_queue"];
        let alone = beside.into_iter().find(|key| url.is_none() && options.has(key));
        let service = options.text("otlp_service");
        let headers = headers(&options.text("otlp_headers").unwrap_or_default())?;
        let interval = options.duration("otlp_interval", Duration::from_secs(1))?;
        let queue_max = options.number("otlp_queue", 2048, 1..=1 << 20)? as usize;
        if let Some(key) = alone {
            return Err(ConfigError::new(key, "***", "otlp= beside it, as in otlp=http://127.0.0.1:4318"));
        }
        if interval < Duration::from_millis(1) {
            return Err(ConfigError::new("otlp_interval", "0s", "a time of 1ms or more"));
        }
        let Some(url) = url else { return Ok(TraceConfig::default()) };
        let (host, port, path) = collector(&url)?;
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let collector = CollectorConfig { host, port, authority, path, service, headers, interval, queue_max };
        Ok(TraceConfig { collector: Some(collector) })
    }
}

/// Host, port and path of a collector's URL.
fn collector(text: &str) -> Result<(String, u16, String), ConfigError> {
    let wrong = |expected: &str| {
        let shown = text.rsplit_once('@').map_or(text.to_string(), |(_, after)| format!("***@{after}"));
        ConfigError::new("otlp", &shown, expected)
    };
    if text.starts_with("https:") {
        return Err(wrong("http://: spans are sent without TLS; let a collector on this host take them onwards"));
    }
    let url = Url::parse(text, |scheme| (scheme == "http").then_some(4318));
    let url = url.map_err(|_| wrong("the URL of a collector, as in http://127.0.0.1:4318"))?;
    if url.user.is_some() || url.password.is_some() {
        return Err(wrong("no user and password; give otlp_headers=authorization=..."));
    }
    if text.contains(['?', '#']) || url.hosts.len() > 1 || url.via.is_some() {
        return Err(wrong("one host and no options, as in http://127.0.0.1:4318"));
    }
    let Address::Host { host, port } = url.address else { return Err(wrong("a host, as in http://127.0.0.1:4318")) };
    let prefix = url.path.trim_matches('/');
    if !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("a path of printable ASCII"));
    }
    let path = if prefix.is_empty() { "/v1/traces".into() } else { format!("/{prefix}/v1/traces") };
    Ok((host, port, path))
}

/// `name=value,name=value`, the values percent-encoded, as OpenTelemetry's environment variables have them.
fn headers(text: &str) -> Result<Headers, ConfigError> {
    let wrong = || ConfigError::new("otlp_headers", "***", "name=value,name=value, in printable ASCII");
    let mut headers = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let (name, value) = (name.trim(), percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy());
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_value = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if name.is_empty() || !name.bytes().all(is_name) || !value.bytes().all(is_value) {
            return Err(wrong());
        }
        headers.push((name.to_string(), value.into_owned()));
    }
    Ok(Headers(headers))
}

/// What a request says of the trace that it belongs to (W3C Trace Context).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace_id: [u8; 16],
    pub parent_id: [u8; 8],
    pub flags: u8,
}

impl Context {
    /// Takes the context off the start of a payload.
    pub fn split(payload: &[u8]) -> Result<(Context, &[u8]), String> {
        let Some((head, rest)) = payload.split_first_chunk::<{ IOK_TRACE_BYTES as usize }>() else {
            return Err(format!("a payload of {} bytes: expected a trace context of {IOK_TRACE_BYTES}", payload.len()));
        };
        let (mut trace_id, mut parent_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&head[..16]);
        parent_id.copy_from_slice(&head[16..24]);
        if trace_id == [0; 16] {
            return Err("trace context: the trace id is all zero".into());
        }
        if parent_id == [0; 8] {
            return Err("trace context: the parent span id is all zero".into());
        }
        if head[25] != 0 {
            return Err(format!("trace context: version {}: expected 0", head[25]));
        }
        if head[26..] != [0; 6] {
            return Err("trace context: expected 0 in its last six bytes".into());
        }
        Ok((Context { trace_id, parent_id, flags: head[24] }, rest))
    }
}

/// Spans that wait for the collector, each as its JSON.
#[derive(Default)]
pub struct Trace {
    /// None: nobody wants spans.
    settings: Option<Settings>,
    spans: VecDeque<Vec<u8>>,
    /// The timer for sending is set.
    armed: bool,
    pub counts: Counts,
}

struct Settings {
    queue_max: usize,
    interval_ms: u64,
}

/// How many spans came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector has them.
    pub sent: u64,
    /// There was no room in the queue.
    pub dropped: u64,
    /// The collector refused them, or could not be reached for too long.
    pub failed: u64,
}

impl Trace {
    pub fn begin(&mut self, config: &CollectorConfig) {
        let interval_ms = (config.interval.as_millis() as u64).max(1);
        self.settings = Some(Settings { queue_max: config.queue_max, interval_ms });
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Takes the oldest, with commas between them, and says how many.
    pub fn batch(&mut self, out: &mut Vec<u8>) -> usize {
        let count = self.spans.len().min(BATCH);
        for (at, span) in self.spans.drain(..count).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&span);
        }
        count
    }

    /// The timer for sending has come.
    pub fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Io {
    /// A submission whose payload begins with a trace context.
    #[cold]
    pub fn traced(&mut self, channel: u32, head: &Submission, payload: &[u8]) {
        let split = match head.op {
            IOK_OP_REQUEST => Context::split(payload),
            // What ends something is never refused: it has no completion of its own.
            IOK_OP_CANCEL => return self.cancel(channel, head.tag),
            op => Err(format!("flags: IOK_FLAG_TRACE with op {op}: expected it with IOK_OP_REQUEST alone")),
        };
        match split {
            Ok((context, payload)) => {
                let head = Submission { flags: head.flags & !IOK_FLAG_TRACE, ..*head };
                let wanted = self.core.trace.settings.is_some() && context.flags & SAMPLED != 0;
                self.request(channel, &head, payload, wanted.then(|| Box::new(context)));
            }
            Err(message) => self.core.refuse(channel, head, IOK_STATUS_BAD_RECORD, "BADRECORD", &message),
        }
    }
}

impl Core {
    /// A request that carries a trace context has ended: its span waits to be sent.
    #[cold]
    pub fn end_span(&mut self, request: &Request, ending: &Ending, body: Body<'_>) {
        let (Some(settings), Some(context)) = (&self.trace.settings, &request.trace) else { return };
        if self.trace.spans.len() >= settings.queue_max {
            self.trace.counts.dropped += 1;
            return;
        }
        let interval_ms = settings.interval_ms;
        let offset_ns = self.unix.offset_ns(self.now_ns);
        let span = self.span(request, context, ending, body, offset_ns);
        self.trace.spans.push_back(span);
        if self.trace.spans.len() == BATCH {
            self.timer(1, Target::Part(Part::Trace, SEND));
        }
        self.arm_spans(interval_ms);
    }

    fn arm_spans(&mut self, after_ms: u64) {
        if !self.trace.armed {
            self.trace.armed = true;
            self.timer(after_ms, Target::Part(Part::Trace, SEND));
        }
    }

    /// Sees to it that what waits is sent.
    pub fn rearm_spans(&mut self) {
        let Some(settings) = &self.trace.settings else { return };
        let interval_ms = settings.interval_ms;
        match self.trace.len() {
            0 => {}
            BATCH.. => drop(self.timer(1, Target::Part(Part::Trace, SEND))),
            _ => self.arm_spans(interval_ms),
        }
    }

    fn span(&self, request: &Request, context: &Context, ending: &Ending, body: Body<'_>, offset_ns: u64) -> Vec<u8> {
        let endpoint = self.names.endpoint_of(request.endpoint);
        let peer = self.names.peer_of(ending.peer);
        let command = request.command.text();
        let marker = self.marker_text(request.marker);
        let mut attributes: Vec<(&str, Attribute<'_>)> = Vec::with_capacity(12);
        if let Some(endpoint) = endpoint {
            let (system, name) = endpoint.tracing.system;
            attributes.push((system, Attribute::Text(name)));
            attributes.push((endpoint.tracing.operation, Attribute::Text(&command)));
            attributes.push(("server.address", Attribute::Text(&endpoint.host)));
            attributes.extend(endpoint.port.map(|port| ("server.port", Attribute::Int(port.into()))));
        }
        match peer.rsplit_once(':') {
            Some(("unix", path)) => attributes.push(("network.peer.address", Attribute::Text(path))),
            Some((host, port)) => {
                let host = host.trim_matches(['[', ']']);
                attributes.push(("network.peer.address", Attribute::Text(host)));
                let port = port.parse().ok();
                attributes.extend(port.map(|port| ("network.peer.port", Attribute::Int(port))));
            }
            None => {}
        }
        attributes.push(("iokernel.fate", Attribute::Text(fate_name(request.fate(ending)))));
        let retries = u64::from(request.retries) + u64::from(request.rejections);
        if retries > 0 {
            attributes.push(("iokernel.retries", Attribute::Int(retries)));
        }
        attributes.extend(marker.as_ref().map(|marker| ("iokernel.marker", Attribute::Text(marker))));
        let failure = (ending.status != IOK_STATUS_OK).then(|| failure(body));
        if let Some((code, _)) = &failure {
            let remote = ending.status == IOK_STATUS_REMOTE;
            let code = if remote { code.as_str() } else { status_name(ending) };
            attributes.push(("error.type", Attribute::Text(code)));
            attributes.extend(endpoint.filter(|_| remote).map(|of| (of.tracing.error_code, Attribute::Text(code))));
        }
        let (queued_ns, wire_ns) = phases(request, ending, self.now_ns);
        let start_ns = request.queued_ns + offset_ns;
        let sent_ns = start_ns + queued_ns;
        let events = [("queued", start_ns), ("sent", sent_ns), ("first_byte", sent_ns + wire_ns)];
        let events_known = match (request.sent_ns, ending.first_byte_ns) {
            (0, _) => 1,
            (_, 0) => 2,
            _ => 3,
        };
        otlp::encode(&Span {
            trace_id: context.trace_id,
            span_id: fastrand::u64(1..).to_be_bytes(),
            parent_id: context.parent_id,
            flags: context.flags,
            name: if command.is_empty() { "request" } else { &command },
            start_ns,
            end_ns: self.now_ns + offset_ns,
            attributes: &attributes,
            events: &events[..events_known],
            error: failure.as_ref().map(|(_, message)| message.as_str()),
        })
    }
}

/// The code and message of an error's payload.
fn failure(body: Body<'_>) -> (String, String) {
    let Body::Msgpack(bytes) = body else { return Default::default() };
    let mut reader = Reader::new(bytes);
    let mut text = || match reader.token() {
        Ok(Token::Str(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        Ok(Token::Array(2)) => Some(String::new()),
        _ => None,
    };
    let _array = text();
    (text().unwrap_or_default(), text().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<CollectorConfig, String> {
        let mut options = Options::parse(text).unwrap();
        let config = TraceConfig::take(&mut options).map_err(|error| error.to_string())?;
        options.finish().unwrap();
        Ok(config.collector.expect("a collector"))
    }

    fn context() -> Vec<u8> {
        let mut bytes = vec![0; 32];
        (bytes[0], bytes[23], bytes[24]) = (1, 2, 1);
        bytes
    }

    #[test]
    fn a_context_is_taken_off_the_payload() {
        let bytes = [context(), b"\x91\xa4PING".to_vec()].concat();
        let (found, rest) = Context::split(&bytes).unwrap();
        assert_eq!((found.trace_id[0], found.parent_id[7], found.flags), (1, 2, 1));
        assert_eq!(rest, b"\x91\xa4PING");
    }

    #[test]
    fn a_context_that_is_none_says_what_is_wrong() {
        let changed = |at: usize, to: u8| {
            let mut bytes = context();
            bytes[at] = to;
            Context::split(&bytes).unwrap_err()
        };
        assert!(changed(0, 0).contains("trace id"));
        assert!(changed(23, 0).contains("parent span id"));
        assert!(changed(25, 1).contains("version 1"));
        assert!(changed(31, 1).contains("last six bytes"));
        assert!(Context::split(&context()[..31]).unwrap_err().contains("31 bytes"));
    }

    #[test]
    fn a_collector_is_where_its_url_says() {
        let found = config("otlp=http://[::1]/otel/&otlp_interval=50ms&otlp_headers=a=b%2520c,x-y=").unwrap();
        assert_eq!((found.host.as_str(), found.port, found.path.as_str()), ("::1", 4318, "/otel/v1/traces"));
        assert_eq!(found.authority, "[::1]:4318");
        assert_eq!(found.headers.0, [("a".into(), "b c".into()), ("x-y".into(), String::new())]);
        assert_eq!((found.interval, found.queue_max), (Duration::from_millis(50), 2048));
        assert_eq!(config("otlp=http://h:1").unwrap().path, "/v1/traces");
    }

    #[test]
    fn a_wrong_collector_is_refused_and_no_secret_told() {
        for (text, expected) in [
            ("otlp=https://h:1", "without TLS"),
            ("otlp=ftp://h", "the URL of a collector"),
            ("otlp=http://u:hush@h", "otlp_headers"),
            ("otlp=http://h%3Fa=b", "no options"),
            ("otlp=http://h&otlp_interval=0s", "1ms or more"),
            ("otlp_headers=a=hush", "otlp= beside it"),
            ("otlp=http://h&otlp_headers=hush", "name=value"),
            ("otlp=http://h&otlp_headers=a=hush%250d%250a", "name=value"),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hush"), "{text}: {error}");
        }
        let shown = format!("{:?}", config("otlp=http://h&otlp_headers=key=hush").unwrap());
        assert!(shown.contains("key") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn an_errors_code_and_message_are_read() {
        let mut body = Vec::new();
        crate::value::write::error(&mut body, b"WRONGTYPE", b"no");
        assert_eq!(failure(Body::Msgpack(&body)), ("WRONGTYPE".into(), "no".into()));
        assert_eq!(failure(Body::Msgpack(b"\xc0")), Default::default());
        assert_eq!(failure(Body::None), Default::default());
    }
}
