//! What went wrong with TLS, in words that say what to do. Nothing here is secret.

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::status::{IOK_STATUS_PROTOCOL, IOK_STATUS_REFUSED, IOK_STATUS_UNAVAILABLE, Status};
use crate::value::date::Civil;

/// Why there is no conn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: Status,
    /// No other attempt will fare better until someone changes something.
    pub refused: bool,
    /// What came is no record of TLS.
    pub no_tls: bool,
    pub words: String,
}

impl Failure {
    /// The way to the peer broke.
    pub fn lost(words: impl Into<String>) -> Self {
        Failure { status: IOK_STATUS_UNAVAILABLE, refused: false, no_tls: false, words: words.into() }
    }

    pub fn refused(words: impl Into<String>) -> Self {
        Failure { status: IOK_STATUS_REFUSED, refused: true, no_tls: false, words: words.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let words = of(&error);
        let status = match &error {
            Error::AlertReceived(alert) if is_passing(*alert) => return Failure::lost(words),
            Error::FailedToGetRandomBytes | Error::FailedToGetCurrentTime | Error::General(_) => {
                return Failure::lost(words);
            }
            Error::AlertReceived(_)
            | Error::InvalidCertificate(_)
            | Error::NoCertificatesPresented
            | Error::PeerIncompatible(_)
            | Error::NoApplicationProtocol => IOK_STATUS_REFUSED,
            _ => IOK_STATUS_PROTOCOL,
        };
        Failure { status, refused: true, no_tls: is_no_tls(&error), words }
    }
}

/// It says that something went wrong once, not that it always will.
fn is_passing(alert: AlertDescription) -> bool {
    matches!(alert, AlertDescription::InternalError | AlertDescription::UserCanceled | AlertDescription::CloseNotify)
}

/// By this a peer says that it does not take our certificate, or wants one (RFC 8446, 6.2). A client of TLS 1.3 hears
/// of it when its own handshake is over already.
pub fn is_about_our_certificate(error: &Error) -> bool {
    use AlertDescription::*;
    let about = [
        BadCertificate,
        UnsupportedCertificate,
        CertificateRevoked,
        CertificateExpired,
        CertificateUnknown,
        UnknownCA,
        AccessDenied,
        CertificateRequired,
    ];
    matches!(error, Error::AlertReceived(alert) if about.contains(alert))
}

/// What came is no record of TLS at all.
pub fn is_no_tls(error: &Error) -> bool {
    use InvalidMessage::{InvalidContentType, UnknownProtocolVersion};
    matches!(error, Error::InvalidMessage(InvalidContentType | UnknownProtocolVersion))
}

pub fn of(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => of_alert(*alert),
        error if is_no_tls(error) => "the peer does not speak TLS".into(),
        Error::PeerIncompatible(error) => of_incompatible(error),
        Error::NoCertificatesPresented => "the peer gave no certificate".into(),
        Error::NoApplicationProtocol => "the peer wants none of our protocols (ALPN)".into(),
        Error::DecryptError => "what came was not encrypted with our keys".into(),
        error => error.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("the peer's certificate expired at {}; it is {} here", date(not_after), date(time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("the peer's certificate is valid from {} only; it is {} here", date(not_before), date(time))
        }
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => {
            format!("the peer's certificate names nobody (no subjectAltName), so that it is not for {}", name(expected))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented: Vec<&str> = presented.iter().map(|name| shown(name)).collect();
            format!("the peer's certificate is not for {}, but for {}", name(expected), presented.join(", "))
        }
        CertificateError::UnknownIssuer => {
            "the peer's certificate was issued by nobody whom we believe (tls_ca= names roots)".into()
        }
        CertificateError::BadSignature => "the peer's certificate is not signed by the key of its issuer".into(),
        CertificateError::BadEncoding => "the peer's certificate cannot be read".into(),
        CertificateError::Revoked => "the peer's certificate was revoked".into(),
        CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => {
            "the peer's certificate is for another purpose (extended key usage)".into()
        }
        CertificateError::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => {
            "the peer's certificate is a CA's: only tls_ca= with that very certificate, or tls_pin=, makes it good"
                .into()
        }
        CertificateError::Other(error) => format!("the peer's certificate: {error}"),
        error => format!("the peer's certificate: {error}"),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription::*;
    match alert {
        CertificateRequired => "the peer wants a certificate of ours (tls_cert=)".into(),
        BadCertificate
        | UnsupportedCertificate
        | CertificateRevoked
        | CertificateExpired
        | CertificateUnknown
        | UnknownCA
        | AccessDenied => format!("the peer does not take our certificate: {alert:?}"),
        HandshakeFailure => {
            "the peer found nothing in common with us, or wants a certificate of ours (tls_cert=): HandshakeFailure"
                .into()
        }
        ProtocolVersion => "the peer speaks none of our versions of TLS (tls_min=)".into(),
        UnrecognisedName => "the peer does not serve that name (tls_server_name=)".into(),
        NoApplicationProtocol => "the peer wants none of our protocols (ALPN)".into(),
        CloseNotify => "the peer closed the connection during the handshake".into(),
        alert => format!("the peer ended it: {alert:?}"),
    }
}

fn of_incompatible(error: &PeerIncompatible) -> String {
    use PeerIncompatible::*;
    match error {
        ServerDoesNotSupportTls12Or13
        | ServerTlsVersionIsDisabledByOurConfig
        | Tls12NotOffered
        | Tls12NotOfferedOrEnabled
        | SupportedVersionsExtensionRequired => "the peer speaks none of our versions of TLS (tls_min=)".into(),
        NoCipherSuitesInCommon => "the peer knows none of our ciphers".into(),
        NoKxGroupsInCommon | NamedGroupsExtensionRequired => "the peer knows none of our key exchanges".into(),
        NoSignatureSchemesInCommon | NoCertificateRequestSignatureSchemesInCommon => {
            "the peer knows none of our signatures".into()
        }
        error => format!("the peer cannot do what we need: {error:?}"),
    }
}

/// `DnsName("localhost")` and `IpAddress(127.0.0.1)` are how certificates' names are told.
fn shown(name: &str) -> &str {
    let inner = name.strip_suffix(')').and_then(|name| name.split_once('(')).map(|(_, inner)| inner);
    inner.unwrap_or(name).trim_matches('"')
}

fn name(name: &rustls::pki_types::ServerName<'_>) -> String {
    name.to_str().into_owned()
}

/// RFC 3339, in UTC.
fn date(at: &UnixTime) -> String {
    let Civil { year, month, day, hour, minute, second, .. } = Civil::of_unix(at.as_secs());
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
