//! Certificates and keys from files (RFC 7468), and what is wrong with those that are none: which file, which line.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, RootCertStore};

use super::options::Identity;
use super::words;
use crate::config::ConfigError;
use crate::discovery::stamp::Stamp;

/// A bundle of all the world's roots has a twentieth of it.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// One section of a file.
struct Section {
    kind: SectionKind,
    der: Vec<u8>,
    /// Where it ends.
    line: usize,
}

/// An option that names a file.
struct File<'a> {
    key: &'static str,
    path: &'a Path,
}

impl File<'_> {
    fn wrong(&self, expected: impl Into<String>) -> ConfigError {
        ConfigError::new(self.key, &self.path.display().to_string(), expected)
    }

    fn bytes(&self) -> Result<Vec<u8>, ConfigError> {
        // Another kind of file might make the thread wait.
        let found = Stamp::of(self.path).and_then(|_| crate::sys::file::read(self.path, FILE_BYTES_MAX));
        found.map_err(|error| self.wrong(format!("a file that can be read: {error}")))
    }

    fn sections(&self, what: &str) -> Result<(Vec<u8>, Vec<Section>), ConfigError> {
        let bytes = self.bytes()?;
        let mut cursor = Cursor::new(&bytes[..]);
        let mut sections = Vec::new();
        loop {
            let next = pem::from_buf(&mut cursor);
            let line = bytes[..cursor.position() as usize].iter().filter(|byte| **byte == b'\n').count();
            match next {
                Ok(Some((kind, der))) => sections.push(Section { kind, der, line }),
                Ok(None) => return Ok((bytes, sections)),
                Err(error) => return Err(self.wrong(format!("{what} in PEM: line {line}: {}", trouble(&error)))),
            }
        }
    }

    /// What a file holds that does not hold what it should.
    fn lacks(&self, what: &str, bytes: &[u8], sections: &[Section]) -> ConfigError {
        let found = match sections.first().map(|section| section.kind) {
            _ if memchr::memmem::find(bytes, b"ENCRYPTED").is_some() && what.contains("key") => {
                "the key in it is encrypted: decrypt it, as in openssl pkey -in key.pem -out plain.pem"
            }
            Some(SectionKind::Certificate) => "it holds certificates alone",
            Some(SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey) => {
                "it holds a private key alone"
            }
            Some(_) => "it holds something else",
            None if bytes.is_empty() => "it is empty",
            // A DER SEQUENCE with a length of two bytes.
            None if bytes.starts_with(&[0x30, 0x82]) => "it is DER: openssl x509 -inform der or openssl pkey makes PEM",
            None => "it has no line that begins with -----BEGIN",
        };
        self.wrong(format!("{what} in PEM: {found}"))
    }

    fn certificates(&self) -> Result<Vec<(CertificateDer<'static>, usize)>, ConfigError> {
        let (bytes, sections) = self.sections("certificates")?;
        let is_certificate = |section: &&Section| section.kind == SectionKind::Certificate;
        let found: Vec<_> = sections.iter().filter(is_certificate).collect();
        if found.is_empty() {
            return Err(self.lacks("certificates", &bytes, &sections));
        }
        Ok(found.into_iter().map(|section| (section.der.clone().into(), section.line)).collect())
    }

    fn private_key(&self, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, ConfigError> {
        let (bytes, sections) = self.sections("a private key")?;
        let key = sections.iter().find_map(|section| match section.kind {
            SectionKind::PrivateKey => Some(PrivateKeyDer::Pkcs8(section.der.clone().into())),
            SectionKind::RsaPrivateKey => Some(PrivateKeyDer::Pkcs1(section.der.clone().into())),
            SectionKind::EcPrivateKey => Some(PrivateKeyDer::Sec1(section.der.clone().into())),
            _ => None,
        });
        let key = key.ok_or_else(|| self.lacks("a private key", &bytes, &sections))?;
        let kinds = "an RSA (2048 bits or more), ECDSA (P-256, P-384) or Ed25519 key";
        provider.key_provider.load_private_key(key).map_err(|error| self.wrong(format!("{kinds}: {error}")))
    }
}

fn trouble(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("no -----END {}----- follows", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { .. } => "a line that begins with -----BEGIN does not end with -----".into(),
        // Its text may quote what was read.
        pem::Error::Base64Decode(_) => "the section that ends here is not base64".into(),
        error => error.to_string(),
    }
}

/// A certificate chain and its key, which belong together.
pub fn identity(provider: &CryptoProvider, identity: &Identity) -> Result<Arc<CertifiedKey>, ConfigError> {
    let cert = File { key: "tls_cert", path: &identity.cert };
    let key = File { key: "tls_key", path: &identity.key };
    let chain = cert.certificates()?.into_iter().map(|(der, _)| der).collect();
    let certified = CertifiedKey::new(chain, key.private_key(provider)?);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(Error::InconsistentKeys(_)) => {
            let shown = identity.cert.display();
            Err(key.wrong(format!("the key of the first certificate in {shown}, which has another one")))
        }
        Err(error) => Err(cert.wrong(format!("a certificate first: {}", words::of(&error)))),
    }
}

/// The roots of a file, and themselves.
pub fn roots(key: &'static str, path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), ConfigError> {
    let file = File { key, path };
    let mut store = RootCertStore::empty();
    let mut all = Vec::new();
    for (der, line) in file.certificates()? {
        let added = store.add(der.clone());
        added.map_err(|error| file.wrong(format!("certificates: line {line}: {}", words::of(&error))))?;
        all.push(der);
    }
    Ok((store, all))
}
