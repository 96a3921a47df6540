//! Whether a server is who it must be.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::hash::Hash;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::options::Pin;
use crate::config::ConfigError;

/// A chain of certificates up to a root that is believed, a name, and, where the URL says so, one of a few public keys.
/// A certificate that stands among the roots itself needs no chain: a server may have a certificate that it signed
/// itself.
#[derive(Debug)]
pub struct Verifier {
    /// None: anybody is believed.
    chain: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    pins: Vec<Pin>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// `roots`: those of the store that may be a server's own certificate.
    pub fn new(
        provider: &Arc<CryptoProvider>,
        store: Arc<RootCertStore>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, ConfigError> {
        let chain = WebPkiServerVerifier::builder_with_provider(store, provider.clone()).build();
        let chain = chain.map_err(|error| ConfigError::new("tls_ca", "", format!("roots: {error}")))?;
        Ok(Verifier { chain: Some(chain), roots, ..Verifier::none(provider) })
    }

    pub fn none(provider: &CryptoProvider) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Verifier { chain: None, roots: Vec::new(), pins: Vec::new(), algorithms }
    }

    pub fn pinned(self, pins: Vec<Pin>) -> Self {
        Verifier { pins, ..self }
    }

    fn verify_pin(&self, cert: &ParsedCertificate<'_>) -> Result<(), Error> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let digest = sha256(&cert.subject_public_key_info());
        match self.pins.iter().any(|pin| pin[..] == digest[..]) {
            true => Ok(()),
            false => Err(CertificateError::Other(OtherError(Arc::new(OtherKey(digest)))).into()),
        }
    }
}

/// By the provider's own, which is there anyway.
fn sha256(bytes: &[u8]) -> Vec<u8> {
    let hash: &dyn Hash = match rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13() {
        Some(suite) => suite.common.hash_provider,
        None => unreachable!("a suite of TLS 1.3"),
    };
    hash.hash(bytes).as_ref().to_vec()
}

/// A certificate whose public key is not one of `tls_pin=`.
#[derive(Debug)]
struct OtherKey(Vec<u8>);

impl fmt::Display for OtherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = base64::engine::general_purpose::STANDARD.encode(&self.0);
        write!(f, "its public key is none of tls_pin=, but sha256//{digest}")
    }
}

impl StdError for OtherKey {}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let cert = ParsedCertificate::try_from(end_entity)?;
        match &self.chain {
            None => {}
            Some(_) if self.roots.iter().any(|root| root == end_entity) => verify_server_name(&cert, server_name)?,
            Some(chain) => {
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
            }
        }
        self.verify_pin(&cert)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
