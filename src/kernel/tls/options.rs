//! What a URL says of TLS. Files are named here, and read in [`super::made`].

use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::config::{ConfigError, Options};

/// Bytes of a SHA-256.
pub type Pin = [u8; 32];

/// What every conn of an endpoint has in common.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    pub alpn: Vec<Vec<u8>>,
    /// TLS 1.3 alone.
    pub only_13: bool,
    /// Certificate chains and their keys. A service has one at most, a listener at least one.
    pub identities: Vec<Identity>,
    pub side: Side,
}

#[derive(Clone, Debug)]
pub enum Side {
    Client(ClientOptions),
    Server(ServerOptions),
}

#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Only these roots are believed. None: the platform's.
    pub ca: Option<PathBuf>,
    pub verify: Verify,
    pub name: Named,
    /// Of the public keys that a server may have. Empty: any.
    pub pins: Vec<Pin>,
}

/// What is asked of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// That a root vouches for it, and that it is for the right name.
    Full,
    /// That a root vouches for it (libpq: `verify-ca`).
    Chain,
    Nothing,
}

impl Verify {
    /// As `state` shows it.
    pub fn word(self) -> &'static str {
        match self {
            Verify::Full => "full",
            Verify::Chain => "chain",
            Verify::Nothing => "none",
        }
    }
}

/// Whose certificate a server must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Of the host that the URL names, or that somebody who was verified has named.
    Asked,
    /// Of the peer's own host, wherever its name comes from (`*`).
    Own,
    Fixed(String),
}

#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub client: ClientAuth,
    /// Whose certificates clients may have.
    pub client_ca: Option<PathBuf>,
    /// How long a handshake may take.
    pub timeout: Duration,
    /// Handshakes that may be under way.
    pub pending_max: usize,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    Off,
    Optional,
    Require,
}

/// A certificate chain and its key: two files, or one that holds both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl TlsOptions {
    /// Takes the options of a service or a listener whose scheme has TLS.
    pub fn take(options: &mut Options, alpn: &[&[u8]], listener: bool) -> Result<Self, ConfigError> {
        let identities = identities(options)?;
        let only_13 = options.word("tls_min", "1.2", &["1.2", "1.3"])? == "1.3";
        let side = match listener {
            true if identities.is_empty() => {
                let expected = "the path of a certificate chain (PEM), which a listener with TLS needs";
                return Err(ConfigError::new("tls_cert", "", expected));
            }
            true => Side::Server(ServerOptions::take(options)?),
            false if identities.len() > 1 => {
                let shown: Vec<String> = identities.iter().map(|one| one.cert.display().to_string()).collect();
                return Err(ConfigError::new("tls_cert", &shown.join(","), "one path: a service has one certificate"));
            }
            false => Side::Client(ClientOptions::take(options)?),
        };
        Ok(TlsOptions { alpn: alpn.iter().map(|name| name.to_vec()).collect(), only_13, identities, side })
    }
}

impl ClientOptions {
    fn take(options: &mut Options) -> Result<Self, ConfigError> {
        let verify = match options.word("tls_verify", "true", &["true", "chain", "false"])? {
            "true" => Verify::Full,
            "chain" => Verify::Chain,
            _ => Verify::Nothing,
        };
        let ca = paths(options, "tls_ca")?.map(|mut paths| paths.swap_remove(0));
        if let Some(ca) = ca.as_ref().filter(|_| verify == Verify::Nothing) {
            let expected = "tls_verify=true beside it: without verification no root is asked for";
            return Err(ConfigError::new("tls_ca", &ca.display().to_string(), expected));
        }
        Ok(ClientOptions { ca, verify, name: named(options)?, pins: pins(options)? })
    }
}

impl ServerOptions {
    fn take(options: &mut Options) -> Result<Self, ConfigError> {
        let client_ca = paths(options, "tls_client_ca")?.map(|mut paths| paths.swap_remove(0));
        let default = if client_ca.is_some() { "require" } else { "off" };
        let word = options.word("tls_client", default, &["off", "optional", "require"])?;
        let client = match word {
            "off" => ClientAuth::Off,
            "optional" => ClientAuth::Optional,
            _ => ClientAuth::Require,
        };
        if (client == ClientAuth::Off) != client_ca.is_none() {
            let expected = match client {
                ClientAuth::Off => "optional or require beside tls_client_ca, or no tls_client_ca",
                _ => "tls_client_ca= beside it, with the roots of the clients' certificates",
            };
            return Err(ConfigError::new("tls_client", word, expected));
        }
        let timeout = options.duration("tls_timeout", Duration::from_secs(10))?;
        if timeout.is_zero() {
            return Err(ConfigError::new("tls_timeout", "0s", "a time of more than nothing"));
        }
        let pending_max = options.number("tls_pending", 1024, 1..=1 << 20)? as usize;
        Ok(ServerOptions { client, client_ca, timeout, pending_max })
    }
}

/// The paths of an option, of which none is empty.
fn paths(options: &mut Options, key: &'static str) -> Result<Option<Vec<PathBuf>>, ConfigError> {
    let Some(text) = options.text(key) else { return Ok(None) };
    // Whoever gives the file's contents may have given a key, which is shown to nobody.
    if text.contains("-----BEGIN") {
        return Err(ConfigError::new(key, "-----BEGIN ...", "the path of a file, not what stands in it"));
    }
    if text.split(',').any(str::is_empty) {
        return Err(ConfigError::new(key, &text, "the path of a file"));
    }
    Ok(Some(text.split(',').map(PathBuf::from).collect()))
}

/// `tls_cert=a.pem,b.pem&tls_key=a.key,b.key`; without keys, each file holds its own.
fn identities(options: &mut Options) -> Result<Vec<Identity>, ConfigError> {
    let (certs, keys) = (paths(options, "tls_cert")?, paths(options, "tls_key")?);
    let Some(certs) = certs else {
        return match keys {
            None => Ok(Vec::new()),
            Some(keys) => {
                let expected = "tls_cert= beside it, with the certificate of that key";
                Err(ConfigError::new("tls_key", &keys[0].display().to_string(), expected))
            }
        };
    };
    let keys = keys.unwrap_or_else(|| certs.clone());
    if keys.len() != certs.len() {
        let shown: Vec<String> = keys.iter().map(|key| key.display().to_string()).collect();
        let expected = format!("as many paths as tls_cert has: {}", certs.len());
        return Err(ConfigError::new("tls_key", &shown.join(","), expected));
    }
    Ok(certs.into_iter().zip(keys).map(|(cert, key)| Identity { cert, key }).collect())
}

fn named(options: &mut Options) -> Result<Named, ConfigError> {
    let Some(text) = options.text("tls_server_name") else { return Ok(Named::Asked) };
    match text.as_str() {
        "*" => Ok(Named::Own),
        name if ServerName::try_from(name).is_ok() => Ok(Named::Fixed(text)),
        _ => Err(ConfigError::new("tls_server_name", &text, "a DNS name, an IP address, or * for each peer's own")),
    }
}

/// As curl writes them: `sha256//` and base64 of the SHA-256 of a certificate's SubjectPublicKeyInfo.
fn pins(options: &mut Options) -> Result<Vec<Pin>, ConfigError> {
    use base64::Engine;
    let Some(text) = options.text("tls_pin") else { return Ok(Vec::new()) };
    let pin = |one: &str| {
        let digest = one.strip_prefix("sha256//")?;
        base64::engine::general_purpose::STANDARD.decode(digest).ok()?.try_into().ok()
    };
    let expected = "sha256// and the base64 of a public key's SHA-256, or more of them between commas";
    text.split(',').map(|one| pin(one).ok_or_else(|| ConfigError::new("tls_pin", &text, expected))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(query: &str, listener: bool) -> Result<TlsOptions, ConfigError> {
        let mut options = Options::parse(query).unwrap();
        let taken = TlsOptions::take(&mut options, &[b"http/1.1"], listener)?;
        options.finish()?;
        Ok(taken)
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let service = take("", false).unwrap();
        let Side::Client(client) = service.side else { panic!("a service is a client") };
        assert_eq!((client.ca, client.verify, client.name, client.pins.len()), (None, Verify::Full, Named::Asked, 0));
        assert_eq!((service.only_13, service.identities.len(), service.alpn), (false, 0, vec![b"http/1.1".to_vec()]));
        let listener = take("tls_cert=/c.pem", true).unwrap();
        assert_eq!(listener.identities, [Identity { cert: "/c.pem".into(), key: "/c.pem".into() }]);
        let Side::Server(server) = listener.side else { panic!("a listener is a server") };
        assert_eq!((server.client, server.client_ca), (ClientAuth::Off, None));
        assert_eq!((server.timeout, server.pending_max), (Duration::from_secs(10), 1024));
    }

    #[test]
    fn what_is_said_is_taken() {
        let pin = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let query =
            format!("tls_ca=/ca&tls_server_name=10.0.0.1&tls_min=1.3&tls_pin={pin},{pin}&tls_cert=/c&tls_key=/k");
        let service = take(&query, false).unwrap();
        let Side::Client(client) = service.side else { panic!("a service is a client") };
        assert_eq!((client.ca, client.name), (Some("/ca".into()), Named::Fixed("10.0.0.1".into())));
        // The SHA-256 of nothing begins so.
        assert_eq!((client.pins.len(), client.pins[1][..4].to_vec()), (2, vec![0xe3, 0xb0, 0xc4, 0x42]));
        assert!(service.only_13 && service.identities == [Identity { cert: "/c".into(), key: "/k".into() }]);
        let Side::Client(client) = take("tls_server_name=*&tls_verify=false", false).unwrap().side else { panic!() };
        assert!(client.name == Named::Own && client.verify == Verify::Nothing);
        let query = "tls_cert=/a,/b&tls_key=/c,/d&tls_client_ca=/ca&tls_timeout=3s&tls_pending=7";
        let listener = take(query, true).unwrap();
        assert_eq!(listener.identities[1], Identity { cert: "/b".into(), key: "/d".into() });
        let Side::Server(server) = listener.side else { panic!("a listener is a server") };
        assert_eq!(
            (server.client, server.timeout, server.pending_max),
            (ClientAuth::Require, Duration::from_secs(3), 7)
        );
        let Side::Server(server) = take("tls_cert=/c&tls_client=optional&tls_client_ca=/ca", true).unwrap().side else {
            panic!("a listener is a server")
        };
        assert_eq!(server.client, ClientAuth::Optional);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (false, "tls_key=/k", r#"tls_key: "/k": expected tls_cert= beside it"#),
            (false, "tls_cert=/a,/b", r#"tls_cert: "/a,/b": expected one path"#),
            (false, "tls_cert=/a&tls_key=/b,/c", r#"tls_key: "/b,/c": expected as many paths as tls_cert has: 1"#),
            (false, "tls_ca=", r#"tls_ca: "": expected the path of a file"#),
            (false, "tls_ca=/c&tls_verify=false", r#"tls_ca: "/c": expected tls_verify=true beside it"#),
            (false, "tls_verify=maybe", r#"tls_verify: "maybe": expected one of true, chain, false"#),
            (false, "tls_min=1.1", r#"tls_min: "1.1": expected one of 1.2, 1.3"#),
            (false, "tls_server_name=a_%20b", r#"tls_server_name: "a_ b": expected a DNS name"#),
            (false, "tls_pin=sha256//xx", r#"tls_pin: "sha256//xx": expected sha256// and the base64"#),
            (false, "tls_client_ca=/c", "expected a known option"),
            (true, "", r#"tls_cert: "": expected the path of a certificate chain"#),
            (true, "tls_cert=/c&tls_ca=/c", "expected a known option"),
            (true, "tls_cert=/c&tls_client=require", r#"tls_client: "require": expected tls_client_ca= beside it"#),
            (true, "tls_cert=/c&tls_client=off&tls_client_ca=/a", r#"tls_client: "off": expected optional or require"#),
            (true, "tls_cert=/c&tls_timeout=0s", r#"tls_timeout: "0s": expected a time"#),
            (true, "tls_cert=/c&tls_pending=0", r#"tls_pending: "0": expected a whole number from 1"#),
        ];
        for (listener, query, told) in cases {
            let error = take(query, listener).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(told), "{query}: {error}");
        }
    }

    #[test]
    fn a_key_in_the_place_of_its_path_is_not_shown() {
        let error = take("tls_cert=/c&tls_key=-----BEGIN PRIVATE KEY-----%0AS3CR3T", false).unwrap_err().to_string();
        assert!(error.contains("the path of a file") && !error.contains("S3CR3T"), "{error}");
    }
}
