//! One grammar for all configuration: URLs with `key=value` queries. Reading an option takes it; what nobody took is an
//! error that names it.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;

/// Says which key, which value, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub key: String,
    pub value: String,
    pub expected: String,
}

impl ConfigError {
    pub fn new(key: &str, value: &str, expected: impl Into<String>) -> Self {
        ConfigError { key: key.into(), value: value.into(), expected: expected.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: expected {}", self.key, self.value, self.expected)
    }
}

impl std::error::Error for ConfigError {}

/// `key=value&key=value`, percent-decoded. Each key once.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Options {
    pub fn parse(query: &str) -> Result<Self, ConfigError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| ConfigError::new(pair, "", "key=value, as in heartbeat=5s"))?;
            let (key, value) = (decode(key)?, decode(value)?);
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(ConfigError::new(&key, &value, "each key only once"));
            }
            pairs.push((key, value));
        }
        Ok(Options { pairs, known: Vec::new() })
    }

    /// What was not taken yet, as it may be shown: secrets are replaced.
    pub fn shown(&self) -> Vec<(String, String)> {
        let shown = |(key, value): &(String, String)| (key.clone(), shown_value(key, value));
        self.pairs.iter().map(shown).collect()
    }

    /// True if `key` is given and was not taken yet.
    pub fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(name, _)| name == key)
    }

    /// The value of `key`, which is left for whom it concerns.
    pub fn peek(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Gives `key` a value, as if it had been in the URL.
    pub fn put(&mut self, key: &'static str, value: String) -> Result<(), ConfigError> {
        if self.has(key) {
            return Err(ConfigError::new(key, &value, "each key only once, whatever its names"));
        }
        self.pairs.push((key.into(), value));
        Ok(())
    }

    /// Copies of what is left of the keys with that prefix, whole.
    pub fn copies(&self, prefix: &str) -> Vec<(String, String)> {
        self.pairs.iter().filter(|(key, _)| key.starts_with(prefix)).cloned().collect()
    }

    /// The value of `key` as text.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let at = self.pairs.iter().position(|(name, _)| name == key)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// What is left of the keys with that prefix, in their order, and their values.
    pub fn prefixed(&mut self, prefix: &'static str) -> Vec<(String, String)> {
        self.known.push(prefix);
        let (found, others) = std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| key.starts_with(prefix));
        self.pairs = others;
        let found: Vec<(String, String)> = found;
        found.into_iter().map(|(key, value)| (key[prefix.len()..].to_string(), value)).collect()
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        match self.text(key) {
            None => Ok(default),
            Some(text) => parse(&text).ok_or_else(|| ConfigError::new(key, &text, expected)),
        }
    }

    /// A span of time: `250ms`, `5s`, `2m`, `1h`. A bare number is refused, so that nobody wonders about its unit.
    pub fn duration(&mut self, key: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        self.value(key, default, "a time such as 250ms, 5s, 2m or 1h", parse_duration)
    }

    /// A size in bytes: `4096`, `64KiB`, `16MiB`, `1GiB`.
    pub fn bytes(&mut self, key: &'static str, default: usize) -> Result<usize, ConfigError> {
        self.value(key, default, "a size such as 4096, 64KiB, 16MiB or 1GiB", parse_bytes)
    }

    /// A whole number within `range`.
    pub fn number(
        &mut self,
        key: &'static str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.value(key, default, &expected, |text| text.parse().ok().filter(|n| range.contains(n)))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        self.value(key, default, "true or false", |text| text.parse().ok())
    }

    /// So many per second: `1000/s`, `90/m`, `5/h`. None if the key is absent.
    pub fn per_second(&mut self, key: &'static str) -> Result<Option<f64>, ConfigError> {
        self.value(key, None, "a rate such as 1000/s, 90/m or 5/h", |text| parse_rate(text).map(Some))
    }

    /// A share: `20%`, as 0.2.
    pub fn share(&mut self, key: &'static str, default: f64) -> Result<f64, ConfigError> {
        self.value(key, default, "a share from 0% to 100%, such as 20%", |text| {
            let percent: f64 = text.strip_suffix('%')?.parse().ok()?;
            (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
        })
    }

    /// One of a few words.
    pub fn word(
        &mut self,
        key: &'static str,
        default: &'static str,
        words: &[&'static str],
    ) -> Result<&'static str, ConfigError> {
        let expected = format!("one of {}", words.join(", "));
        self.value(key, default, &expected, |text| words.iter().find(|word| **word == text).copied())
    }

    /// Refuses what nobody took.
    pub fn finish(&self) -> Result<(), ConfigError> {
        let Some((key, value)) = self.pairs.first() else { return Ok(()) };
        let mut known = self.known.clone();
        if known.is_empty() {
            return Err(ConfigError::new(key, value, "no options"));
        }
        known.sort_unstable();
        known.dedup();
        Err(ConfigError::new(key, value, format!("a known option: {}", known.join(", "))))
    }
}

fn parse_rate(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/')?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let rate = number.parse::<f64>().ok()? / seconds;
    (rate.is_finite() && rate > 0.0 && rate <= 1e9).then_some(rate)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok().filter(|span| *span <= Duration::from_secs(365 * 86_400))
}

fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: usize = text[..digits].parse().ok()?;
    let unit: usize = match &text[digits..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

fn decode(text: &str) -> Result<String, ConfigError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| ConfigError::new("url", text, "percent-encoded UTF-8"))
}

/// Where to connect or listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host (a name, or a literal IPv4 or IPv6 address without brackets) and a port.
    Host { host: String, port: u16 },
    /// A unix socket's path; a leading `@` names an abstract socket.
    Unix(String),
}

impl Address {
    /// `host`, `host:port` (IPv6 in brackets) or `unix:/path`.
    pub fn parse(text: &str, default_port: u16) -> Option<Address> {
        match text.strip_prefix("unix:") {
            Some(path) => (!path.is_empty()).then(|| Address::Unix(path.into())),
            None => parse_host(text, default_port).filter(|_| !text.is_empty()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Host { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// `scheme://user:password@host:port/path?options`, with RFC 3986's meaning; `scheme+unix:///path` and, for the
/// default protocol, `unix:///path` name a unix socket.
#[derive(Clone, Debug)]
pub struct Url {
    pub scheme: String,
    pub user: Option<String>,
    pub password: Option<String>,
    /// The first of `hosts`.
    pub address: Address,
    /// `a,b:7,c`: at least one.
    pub hosts: Vec<Address>,
    /// Whether each of `hosts` names a port.
    ports_given: Vec<bool>,
    /// What follows the plus in `redis+srv`: how the peers are found.
    pub via: Option<String>,
    /// Percent-decoded, without the leading slash. Empty for unix sockets, whose path is the address.
    pub path: String,
    pub options: Options,
}

/// The longest URL taken.
pub const URL_BYTES_MAX: usize = 8192;

impl Url {
    /// Takes a URL apart. `default_port` answers for a scheme, or None for a scheme that nobody serves.
    pub fn parse(text: &str, default_port: impl Fn(&str) -> Option<u16>) -> Result<Self, ConfigError> {
        if text.len() > URL_BYTES_MAX {
            return Err(ConfigError::new("url", &redact(&text[..64]), format!("at most {URL_BYTES_MAX} bytes")));
        }
        let shown = redact(text);
        let bad = |expected: &str| ConfigError::new("url", &shown, expected);
        let (scheme, rest) = text.split_once(':').ok_or_else(|| bad("scheme://host, as in redis://cache.internal"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let options = Options::parse(query)?;
        if rest.contains('#') || query.contains('#') {
            return Err(bad("no fragment (#); percent-encode it as %23"));
        }
        let (scheme, via) = match scheme.split_once('+') {
            Some((scheme, via)) => (scheme, Some(via)),
            None if scheme == "unix" => ("redis", Some("unix")),
            None => (scheme, None),
        };
        let unix = via == Some("unix");
        let port = default_port(scheme).ok_or_else(|| ConfigError::new("scheme", scheme, "a known protocol"))?;
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
            None if unix => ("", rest),
            None => return Err(bad("scheme://host, as in redis://cache.internal")),
        };
        let (credentials, hosts_given) = authority.rsplit_once('@').map_or((None, authority), |(c, h)| (Some(c), h));
        let (user, password) = match credentials.map(|c| c.split_once(':').unwrap_or((c, ""))) {
            None => (None, None),
            Some((user, password)) => {
                let decoded = |text| decode(text).map_err(|_| bad("percent-encoded UTF-8"));
                (Some(decoded(user)?), Some(decoded(password)?))
            }
        };
        let hosts = match unix {
            // As requests-unixsocket and httpx write it: the path percent-encoded in the host's place.
            true if hosts_given.starts_with("%2F") || hosts_given.starts_with("%2f") => {
                vec![Address::Unix(decode(hosts_given)?)]
            }
            true if path.is_empty() => return Err(bad("the path of a unix socket, as in unix:///run/redis.sock")),
            true => vec![Address::Unix(decode(path)?)],
            false => {
                let hosts: Option<Vec<Address>> = hosts_given.split(',').map(|host| parse_host(host, port)).collect();
                hosts.ok_or_else(|| bad("host or host:port, or more of them between commas, IPv6 in brackets"))?
            }
        };
        let path = if unix { String::new() } else { decode(path.trim_start_matches('/'))? };
        Ok(Url {
            scheme: scheme.into(),
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            address: hosts[0].clone(),
            ports_given: hosts_given.split(',').map(names_port).collect(),
            hosts,
            via: via.filter(|via| *via != "unix").map(str::to_string),
            path,
            options,
        })
    }

    /// Gives this port to the hosts that name none: those of a registry listen elsewhere than the service itself.
    pub fn set_default_port(&mut self, default: u16) {
        for (host, _) in self.hosts.iter_mut().zip(&self.ports_given).filter(|(_, given)| !**given) {
            if let Address::Host { port, .. } = host {
                *port = default;
            }
        }
        self.address = self.hosts[0].clone();
    }
}

fn names_port(host: &str) -> bool {
    host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':')
}

fn parse_host(text: &str, default_port: u16) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.split('%').next()?.parse::<std::net::Ipv6Addr>().ok()?;
            (host, after.strip_prefix(':').map_or(Some(default_port), |port| port.parse().ok())?)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, default_port),
        },
    };
    let valid = |c: char| c.is_ascii_alphanumeric() || "-._:%~".contains(c) || !c.is_ascii();
    let host = if host.is_empty() { "localhost" } else { host };
    (host.len() <= 255 && host.chars().all(valid)).then(|| Address::Host { host: host.into(), port })
}

/// What stands for a secret where it would be shown.
const HIDDEN: &str = "***";
/// Options whose names hold one of these are secrets.
const SECRET_WORDS: [&str; 9] =
    ["pass", "secret", "token", "auth", "credential", "apikey", "api_key", "private", "headers"];

/// A URL as it may be shown: password and secret options replaced. Also of text that is no URL, as far as it looks like
/// one.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("//") else { return redact_path(url) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    if let Some(at) = authority.rfind('@') {
        let user = authority[..at].split(':').next().unwrap_or("");
        return format!("{scheme}//{user}:{HIDDEN}{}{}", &authority[at..], redact_path(after));
    }
    // A password with a slash or a question mark that was not encoded.
    let is_torn = authority.split(',').any(|host| parse_host(host, 0).is_none());
    match after.rfind('@').filter(|_| is_torn) {
        Some(at) => format!("{scheme}//{HIDDEN}{}", redact_path(&after[at..])),
        None => format!("{scheme}//{authority}{}", redact_path(after)),
    }
}

/// What follows an authority: a path, and options.
fn redact_path(text: &str) -> String {
    let Some((path, query)) = text.split_once('?') else { return text.into() };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, value)) => format!("{key}={}", shown_value(key, value)),
        None => pair.to_string(),
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

fn shown_value(key: &str, value: &str) -> String {
    let key = percent_decode_str(key).decode_utf8_lossy().to_ascii_lowercase();
    if SECRET_WORDS.iter().any(|word| key.contains(word)) || key == "key" || key.ends_with("_key") {
        return HIDDEN.into();
    }
    // An option may be a URL with secrets of its own, percent-encoded where it stands in another's query.
    let decoded = percent_decode_str(value).decode_utf8_lossy();
    let shown = redact(&decoded);
    if shown == decoded { value.into() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<Url, ConfigError> {
        Url::parse(text, |scheme| (scheme == "redis").then_some(6379))
    }

    #[test]
    fn urls_come_apart() {
        let parsed = url("redis://al%40ice:p%3Aw@cache.internal/3?heartbeat=5s").unwrap();
        assert_eq!(parsed.user.as_deref(), Some("al@ice"));
        assert_eq!(parsed.password.as_deref(), Some("p:w"));
        assert_eq!(parsed.address, Address::Host { host: "cache.internal".into(), port: 6379 });
        assert_eq!(parsed.path, "3");
        assert_eq!(url("redis://[::1]:7/").unwrap().address.to_string(), "[::1]:7");
        assert_eq!(url("unix:///run/r.sock").unwrap().address, Address::Unix("/run/r.sock".into()));
        assert_eq!(url("redis+unix:///run/r.sock").unwrap().address, Address::Unix("/run/r.sock".into()));
        assert_eq!(url("unix:/run/r.sock").unwrap().address, Address::Unix("/run/r.sock".into()));
    }

    #[test]
    fn a_default_port_leaves_the_ports_that_were_given() {
        let mut parsed = url("redis://a,b:7,[::1],[::1]:8/x").unwrap();
        parsed.set_default_port(26379);
        let hosts: Vec<String> = parsed.hosts.iter().map(Address::to_string).collect();
        assert_eq!(hosts, ["a:26379", "b:7", "[::1]:26379", "[::1]:8"]);
        assert_eq!(parsed.address.to_string(), "a:26379");
    }

    #[test]
    fn errors_name_key_value_and_expectation() {
        assert_eq!(url("gopher://x").unwrap_err().to_string(), r#"scheme: "gopher": expected a known protocol"#);
        let mut options = url("redis://x?heartbeat=5").unwrap().options;
        let error = options.duration("heartbeat", Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), r#"heartbeat: "5": expected a time such as 250ms, 5s, 2m or 1h"#);
        let mut options = url("redis://x?hartbeat=5s").unwrap().options;
        options.duration("heartbeat", Duration::ZERO).unwrap();
        assert_eq!(options.finish().unwrap_err().to_string(), r#"hartbeat: "5s": expected a known option: heartbeat"#);
        for bad in
            ["redis", "redis:", "redis:x", "redis://a:b:c", "redis://x:99999", "redis://x#f", "unix://", "redis://[x]"]
        {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_stand_alone() {
        let shown = |text: &str| Address::parse(text, 8125).map(|address| address.to_string());
        for (text, expected) in
            [("h", "h:8125"), ("h:1", "h:1"), ("[::1]:2", "[::1]:2"), ("unix:/run/s", "unix:/run/s")]
        {
            assert_eq!(shown(text).as_deref(), Some(expected));
        }
        for bad in ["", "unix:", "h:x", "a b", "::1"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(redact("redis://u:secret@h/0?password=x&a=b"), "redis://u:***@h/0?password=***&a=b");
        let secret = "S3CR3T";
        for (url, shown) in [
            ("redis://:S3CR3T@h", "redis://:***@h"),
            ("redis://u:S3CR3T@a:1,b:2/0", "redis://u:***@a:1,b:2/0"),
            ("redis://u:S3@CR3T@h", "redis://u:***@h"),
            ("redis://u:p/S3CR3T@h/0", "redis://***@h/0"),
            ("redis://u:p?S3CR3T@h/0?a=b", "redis://***@h/0?a=b"),
            ("redis://u:p#S3CR3T@h", "redis://***@h"),
            ("redis+sentinel://h?sentinel_password=S3CR3T", "redis+sentinel://h?sentinel_password=***"),
            ("redis://h?sentinel_p%61ssword=S3CR3T", "redis://h?sentinel_p%61ssword=***"),
            ("redis://h?PassWord=S3CR3T&auth=S3CR3T", "redis://h?PassWord=***&auth=***"),
            ("redis://h?api_key=S3CR3T&x_key=S3CR3T&key=S3CR3T", "redis://h?api_key=***&x_key=***&key=***"),
            ("redis://h?via=http%3A%2F%2Fu%3AS3CR3T%40x", "redis://h?via=http://u:***@x"),
            ("unix:/run/x.sock?password=S3CR3T", "unix:/run/x.sock?password=***"),
            ("unix:///run/x@y.sock?password=S3CR3T", "unix:///run/x@y.sock?password=***"),
        ] {
            assert_eq!(redact(url), shown);
            assert!(!shown.contains(secret), "{url}");
        }
        let plain = "redis+cluster://u@h?";
        assert_eq!(redact("redis://h:7/na@me?keepalive=5s"), "redis://h:7/na@me?keepalive=5s");
        assert_eq!(redact(plain), "redis+cluster://u:***@h?");
        let options = Options::parse("name=web&otlp=http://u:S3CR3T@h/x&otlp_token=S3CR3T&graphite=h:2003").unwrap();
        let shown: Vec<String> = options.shown().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown, ["name=web", "otlp=http://u:***@h/x", "otlp_token=***", "graphite=h:2003"]);
    }

    #[test]
    fn a_password_that_is_badly_encoded_is_not_told() {
        assert!(!url("redis://u:S3CR3T%ff@h").unwrap_err().to_string().contains("S3CR3T"));
    }
}
