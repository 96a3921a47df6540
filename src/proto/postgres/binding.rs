//! Channel binding: SCRAM is bound to the certificate of the very server at the other end of TLS, so that nobody in between
//! can pass it on (RFC 5929, 4: tls-server-end-point).
use sha2::{Digest, Sha256, Sha384, Sha512};

/// What a URL says of it (`channel_binding=`, as libpq's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Disable,
    Prefer,
    Require,
}

/// How SCRAM begins: gs2-cbind-flag (RFC 5802, 7), and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// There is nothing to bind to.
    None,
    /// We could, and the server has not offered it: one that has is told so that somebody took its offer away.
    NotOffered,
    EndPoint(Vec<u8>),
}

impl Binding {
    pub fn header(&self) -> &'static str {
        match self {
            Binding::None => "n,,",
            Binding::NotOffered => "y,,",
            Binding::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// cbind-input.
    pub fn input(&self) -> Vec<u8> {
        let mut input = self.header().as_bytes().to_vec();
        if let Binding::EndPoint(hash) = self {
            input.extend_from_slice(hash);
        }
        input
    }
}

/// The hash of a certificate (DER) by the hash of its own signature. None where that has none, or more than one.
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { algorithm OID, ... }, ... } (RFC 5280, 4.1)
    let (SEQUENCE, body, _) = element(certificate)? else { return None };
    let (_, _, rest) = element(body)?;
    let (SEQUENCE, algorithm, _) = element(rest)? else { return None };
    let (OID, name, _) = element(algorithm)? else { return None };
    Some(match name {
        // 1.2.840.113549.1.1: RSA (RFC 8017, A.2.4); 1.2.840.10045.4: ECDSA (RFC 5758, 3.2). MD5 and SHA-1 give way to SHA-256.
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04"
        | b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05"
        | b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"
        | b"\x2a\x86\x48\xce\x3d\x04\x01"
        | b"\x2a\x86\x48\xce\x3d\x04\x03\x02" => Sha256::digest(certificate).to_vec(),
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c" | b"\x2a\x86\x48\xce\x3d\x04\x03\x03" => {
            Sha384::digest(certificate).to_vec()
        }
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d" | b"\x2a\x86\x48\xce\x3d\x04\x03\x04" => {
            Sha512::digest(certificate).to_vec()
        }
        _ => return None,
    })
}

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;

/// Tag and contents of the first element of DER, and what follows it (X.690, 8.1).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
        let mut out = vec![tag, 0x82];
        out.extend_from_slice(&(contents.len() as u16).to_be_bytes());
        out.extend_from_slice(contents);
        out
    }

    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let parts = [der(SEQUENCE, &[7; 300]), der(SEQUENCE, &der(OID, algorithm)), der(0x03, b"signature")];
        der(SEQUENCE, &parts.concat())
    }

    #[test]
    fn a_certificate_is_hashed_as_it_is_signed() {
        for (algorithm, bytes) in [
            (&b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05"[..], 32),
            (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", 32),
            (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", 48),
            (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", 64),
        ] {
            let certificate = certificate(algorithm);
            let hash = end_point(&certificate).unwrap();
            assert_eq!(hash.len(), bytes);
            assert!((0..certificate.len()).all(|end| end_point(&certificate[..end]).is_none()), "cut short");
        }
        // Ed25519 signs without one (RFC 8410).
        assert_eq!(end_point(&certificate(b"\x2b\x65\x70")), None);
        assert_eq!(end_point(b"\x30\x80\x00\x00"), None);
        let expected = Sha256::digest(certificate(b"\x2a\x86\x48\xce\x3d\x04\x03\x02")).to_vec();
        assert_eq!(end_point(&certificate(b"\x2a\x86\x48\xce\x3d\x04\x03\x02")), Some(expected));
    }
}
