//! Options and files become what rustls works with; again whenever a file has changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{ClientSessionMemoryCache, Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, ServerSessionMemoryCache, UnbufferedServerConnection,
    WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::options::{ClientAuth, ClientOptions, ServerOptions, Side, TlsOptions, Verify};
use super::session::Session;
use super::verifier::Verifier;
use super::words::{self, Failure};
use super::{pem, roots};
use crate::config::ConfigError;

/// Servers whose sessions are kept, to be resumed.
const SERVERS_KEPT: usize = 256;
/// Sessions of clients that are kept, for those of TLS 1.2 that take no tickets.
const CLIENTS_KEPT: usize = 1024;

/// The name that the client asked for whose hello was answered last.
pub type Asked = Mutex<Option<String>>;

/// Files as they were when they were read.
pub enum Made {
    Client(Arc<ClientConfig>),
    Server(Arc<ServerConfig>),
}

impl Made {
    /// Reads every file.
    pub fn new(options: &TlsOptions, asked: &Arc<Asked>) -> Result<Self, ConfigError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identities = options.identities.iter().map(|one| pem::identity(&provider, one));
        let identities: Vec<Arc<CertifiedKey>> = identities.collect::<Result<_, _>>()?;
        let versions: &[&SupportedProtocolVersion] = if options.only_13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        match &options.side {
            Side::Client(client) => {
                let mut config = client_config(client, provider, versions, identities.into_iter().next())?;
                config.alpn_protocols.clone_from(&options.alpn);
                Ok(Made::Client(Arc::new(config)))
            }
            Side::Server(server) => {
                let identities = Arc::new(Identities { all: identities, asked: asked.clone() });
                let mut config = server_config(server, provider, versions, identities)?;
                config.alpn_protocols.clone_from(&options.alpn);
                Ok(Made::Server(Arc::new(config)))
            }
        }
    }

    /// Begins a session; a service's with whom it must be.
    pub fn begin(&self, name: Option<&str>) -> Result<Session, Failure> {
        match self {
            Made::Client(config) => {
                let name = server_name(name.unwrap_or_default()).map_err(Failure::refused)?;
                let conn = UnbufferedClientConnection::new(config.clone(), name);
                conn.map(Session::client).map_err(|error| Failure::lost(words::of(&error)))
            }
            Made::Server(config) => {
                let conn = UnbufferedServerConnection::new(config.clone());
                conn.map(Session::server).map_err(|error| Failure::lost(words::of(&error)))
            }
        }
    }
}

/// As certificates have it: without the zone of an IPv6 address, and without a last dot.
fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    let plain = name.split('%').next().unwrap_or_default().trim_end_matches('.');
    if plain.is_empty() {
        return Err("there is no name that its certificate must be for: give tls_server_name=".into());
    }
    ServerName::try_from(plain.to_string())
        .map_err(|_| format!("{plain:?} is no name that a certificate can be for: give tls_server_name="))
}

fn unusable(error: &rustls::Error) -> ConfigError {
    ConfigError::new("tls_min", "", format!("versions of TLS that can be had: {}", words::of(error)))
}

fn client_config(
    options: &ClientOptions,
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, ConfigError> {
    let (store, own) = match &options.ca {
        _ if options.verify == Verify::Nothing => (Arc::new(RootCertStore::empty()), Vec::new()),
        Some(path) => pem::roots("tls_ca", path).map(|(store, all)| (Arc::new(store), all))?,
        None => (roots::of_platform()?, Vec::new()),
    };
    let verifier = Arc::new(Verifier::new(&provider, options, store, own));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let builder = builder.map_err(|error| unusable(&error))?.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(SERVERS_KEPT)));
    Ok(config)
}

fn server_config(
    options: &ServerOptions,
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    identities: Arc<Identities>,
) -> Result<ServerConfig, ConfigError> {
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = builder.map_err(|error| unusable(&error))?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let (store, _) = pem::roots("tls_client_ca", path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
            let verifier = match options.client {
                ClientAuth::Require => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            let made = verifier.build().map_err(|error| wrong_roots("tls_client_ca", path, &error))?;
            builder.with_client_cert_verifier(made)
        }
    };
    let mut config = builder.with_cert_resolver(identities);
    config.session_storage = ServerSessionMemoryCache::new(CLIENTS_KEPT);
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|error| unusable(&error))?;
    Ok(config)
}

fn wrong_roots(key: &str, path: &Path, error: &rustls::server::VerifierBuilderError) -> ConfigError {
    ConfigError::new(key, &path.display().to_string(), format!("roots: {error}"))
}

/// The files that options name, each once.
pub fn files(options: &TlsOptions) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = options.identities.iter().flat_map(|one| [one.cert.clone(), one.key.clone()]).collect();
    all.extend(match &options.side {
        Side::Client(client) => client.ca.clone(),
        Side::Server(server) => server.client_ca.clone(),
    });
    all.sort();
    all.dedup();
    all
}

/// A listener's certificates.
#[derive(Debug)]
pub struct Identities {
    all: Vec<Arc<CertifiedKey>>,
    asked: Arc<Asked>,
}

impl ResolvesServerCert for Identities {
    /// The first that is for the name that the client asks for, and whose key it knows what to do with.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = name.map(str::to_string);
        let wanted = name.and_then(|name| ServerName::try_from(name).ok());
        let signs = |one: &&Arc<CertifiedKey>| one.key.choose_scheme(hello.signature_schemes()).is_some();
        let is_for = |one: &&Arc<CertifiedKey>| wanted.as_ref().is_some_and(|name| is_for(one, name));
        let usable = || self.all.iter().filter(signs);
        usable().find(is_for).or_else(|| usable().next()).or_else(|| self.all.first()).cloned()
    }
}

fn is_for(one: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = one.cert.first().and_then(|cert| ParsedCertificate::try_from(cert).ok());
    parsed.is_some_and(|cert| rustls::client::verify_server_name(&cert, name).is_ok())
}
