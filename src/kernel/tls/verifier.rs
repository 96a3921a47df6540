//! Whether a server is who it must be.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::hash::Hash;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::options::{ClientOptions, Pin, Verify};

/// A chain of certificates up to a root that is believed, a name, and, where the URL says so, one of a few public keys.
/// A certificate that stands among the roots itself needs no chain: a server may have one that it signed itself.
#[derive(Debug)]
pub struct Verifier {
    verify: Verify,
    store: Arc<RootCertStore>,
    /// Those of the store that may be a server's own certificate.
    own: Vec<CertificateDer<'static>>,
    pins: Vec<Pin>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub fn new(
        provider: &CryptoProvider,
        options: &ClientOptions,
        store: Arc<RootCertStore>,
        own: Vec<CertificateDer<'static>>,
    ) -> Self {
        let (verify, pins) = (options.verify, options.pins.clone());
        Verifier { verify, store, own, pins, algorithms: provider.signature_verification_algorithms }
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
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let cert = ParsedCertificate::try_from(end_entity)?;
        if self.verify != Verify::Nothing && !self.own.iter().any(|root| root == end_entity) {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&cert, &self.store, intermediates, now, algorithms)?;
        }
        if self.verify == Verify::Full {
            verify_server_name(&cert, server_name)?;
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
