//! The beginning of a conn (PostgreSQL 15 documentation, 55.2.1 "Start-up"): who we are, the password, the server's settings.
use std::hash::{BuildHasher, Hasher, RandomState};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::Options;
use super::binding::{Binding, Wish};
use super::error::ServerError;
use super::scram::{self, Scram};
use super::statements::Shared;
use super::wire::{self, Fields, broken};
use crate::proto::{Fault, FaultKind};

/// The authentication, message by message.
pub struct Startup {
    /// Nobody else can read what is sent.
    pub secure: bool,
    /// What SCRAM can be bound to.
    pub end_point: Option<Vec<u8>>,
    scram: Option<Scram>,
    /// The server knows the password too.
    verified: bool,
    /// The server has taken us.
    authenticated: bool,
}

/// What the server told of itself.
#[derive(Debug, Default)]
pub struct Server {
    pub process: u32,
    /// What shows, beside it, that a CancelRequest is ours.
    pub secret: Option<u32>,
    version: String,
    /// `in_hot_standby`, where the server reports it (14 and later).
    pub standby: Option<bool>,
}

impl Startup {
    pub fn new() -> Self {
        Startup { secure: false, end_point: None, scram: None, verified: false, authenticated: false }
    }

    /// Nothing was heard yet that shows a server of PostgreSQL.
    pub fn is_stranger(&self) -> bool {
        !self.authenticated && self.scram.is_none()
    }

    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    pub fn open(&self, options: &Options, wire: &mut Vec<u8>) {
        let mut parameters = vec![
            ("user", &*options.user),
            ("database", &*options.database),
            ("application_name", &*options.application_name),
            // What we read and write is UTF-8, whatever the database is kept in.
            ("client_encoding", "UTF8"),
            // The spelling of dates in results of the simple protocol; which of day and month is first stays the server's.
            ("DateStyle", "ISO"),
        ];
        if let Some(options) = &options.options {
            parameters.push(("options", options));
        }
        wire::startup(wire, &parameters);
    }

    /// An authentication message.
    pub fn authenticate(
        &mut self,
        body: &[u8],
        options: &Options,
        shared: &Shared,
        wire: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut fields = Fields(body);
        let Some(kind) = fields.int32() else { return Err(broken("an authentication message without a kind")) };
        if self.authenticated {
            return Err(broken("an authentication message after the authentication"));
        }
        if options.binding == Wish::Require && !(matches!(kind, 10..=12) || kind == 0 && self.verified) {
            return Err(unbound("no SCRAM"));
        }
        match kind {
            0 if self.scram.is_some() && !self.verified => {
                return Err(refused("the server's SCRAM-SHA-256 is wrong: it ended without its signature"));
            }
            0 => self.authenticated = true,
            3 if self.secure || options.cleartext => wire::password(wire, password(options)?.as_bytes()),
            3 => {
                let why = "the server wants the password in clear text, which anybody on the way could read: use TLS, \
                           SCRAM on the server, or cleartext=true";
                return Err(refused(why));
            }
            5 => {
                let salt = fields.take(4).ok_or_else(|| broken("an MD5 salt of less than 4 bytes"))?;
                wire::password(wire, scram::md5(&options.user, password(options)?, salt).as_bytes());
            }
            10 => self.begin_scram(&mut fields, options, wire)?,
            11 | 12 => {
                let Some(scram) = &mut self.scram else { return Err(broken("SASL goes on that did not begin")) };
                let wrong = |why: String| refused(&format!("the server's SCRAM-SHA-256 is wrong: {why}"));
                if kind == 12 {
                    self.verified = true;
                    return scram.verify(fields.0).map_err(wrong);
                }
                let mut known = shared.lock();
                let proof = scram.proof(fields.0, password(options)?, &mut known.salted).map_err(wrong)?;
                wire::sasl_response(wire, &proof);
            }
            other => {
                let name = match other {
                    2 => "Kerberos V5".into(),
                    7 | 8 => "GSSAPI".into(),
                    9 => "SSPI".into(),
                    other => format!("authentication of kind {other}"),
                };
                return Err(refused(&format!(
                    "the server wants {name}: expected SCRAM-SHA-256, MD5, a password or nothing"
                )));
            }
        }
        Ok(())
    }

    fn begin_scram(&mut self, fields: &mut Fields<'_>, options: &Options, wire: &mut Vec<u8>) -> Result<(), Fault> {
        let mut offered = Vec::new();
        while let Some(mechanism) = fields.text().filter(|mechanism| !mechanism.is_empty()) {
            offered.push(String::from_utf8_lossy(mechanism).into_owned());
        }
        let offers = |wanted: &str| offered.iter().any(|mechanism| mechanism == wanted);
        let end_point = self.end_point.take().filter(|_| options.binding != Wish::Disable);
        let (mechanism, binding) = match end_point {
            Some(end_point) if offers(scram::MECHANISM_PLUS) => (scram::MECHANISM_PLUS, Binding::EndPoint(end_point)),
            _ if options.binding == Wish::Require => return Err(unbound(&offered.join(", "))),
            Some(_) => (scram::MECHANISM, Binding::NotOffered),
            None => (scram::MECHANISM, Binding::None),
        };
        if !offers(mechanism) {
            let offered = offered.join(", ");
            return Err(refused(&format!("the server offers {offered}: expected {}", scram::MECHANISM)));
        }
        password(options)?;
        let scram = Scram::new(nonce(), binding);
        wire::sasl_initial(wire, mechanism, &scram.first());
        self.scram = Some(scram);
        Ok(())
    }
}

fn unbound(offered: &str) -> Fault {
    let expected = "SCRAM-SHA-256-PLUS over TLS, with a certificate that can be bound to";
    refused(&format!("channel_binding=require, and the server offers {offered}: expected {expected}"))
}

fn password(options: &Options) -> Result<&str, Fault> {
    let why = "the server asks for a password, and the URL has none, as in postgres://user:password@host";
    options.password.as_deref().ok_or_else(|| refused(why))
}

fn refused(why: &str) -> Fault {
    Fault { kind: FaultKind::Refused, message: why.into() }
}

/// 24 bytes that nobody can guess, as printable text (RFC 5802, 5.1). The keys of these hashers come from the system.
fn nonce() -> String {
    let number = || RandomState::new().build_hasher().finish();
    let bytes: Vec<u8> = (0..3).flat_map(|_| number().to_be_bytes()).collect();
    STANDARD_NO_PAD.encode(bytes)
}

/// An error in place of a welcome. What passes by itself is tried again; wrong names and passwords are not.
pub fn turned_away(error: &ServerError) -> Fault {
    // Data exceptions, invalid authorization, unknown databases, features, and names (PostgreSQL 15, Appendix A).
    let stays = ["0A", "22", "28", "3D", "42"].iter().any(|class| error.code.starts_with(class));
    let kind = if stays { FaultKind::Refused } else { FaultKind::Closed };
    Fault { kind, message: format!("the server refused us: {} ({})", error.text(), error.code) }
}

impl Server {
    /// A ParameterStatus. None: it ends too soon. True: the server is a standby no more, or has become one.
    pub fn set(&mut self, body: &[u8]) -> Option<bool> {
        let mut fields = Fields(body);
        let (name, value) = (fields.text()?, fields.text()?);
        match name {
            b"server_version" => {
                let text = String::from_utf8_lossy(value);
                self.version = text.chars().filter(|c| !c.is_control()).take(64).collect();
            }
            b"in_hot_standby" => {
                let standby = Some(value == b"on");
                return Some(std::mem::replace(&mut self.standby, standby) != standby);
            }
            _ => {}
        }
        Some(false)
    }

    /// `postgresql 15.4 pid=123`.
    pub fn describe(&self) -> String {
        format!("postgresql {} pid={}", self.version, self.process)
    }
}
