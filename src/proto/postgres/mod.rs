//! PostgreSQL, the client's side: protocol 3.0 (PostgreSQL 15 documentation, chapter 55).
//!
//! [`wire`] frames messages both ways. [`request`] reads what programs ask and [`sql`] as much of their statements as
//! decides about the conn; [`statements`] is what is known of them, [`types`] how values look. [`session`] is one conn:
//! [`startup`], [`scram`] and [`binding`] begin it, [`sending`] writes requests, [`incoming`] takes what the server says of the
//! [`units`] under way, [`answer`] makes replies of it, [`copying`] moves the data of COPY, [`follow`]
//! tells its role, [`interrupt`] stops what nobody waits for. [`secure`] is how TLS is asked for, [`words`] what
//! libpq calls otherwise.
//! The manual page is `docs/postgres.md`.
use std::sync::Arc;

use crate::config::{ConfigError, Url};
use crate::proto::{Driver, Follow, Limits, Need, Protocol, Refusal, Route, Scheme, Sharing, database_tracing};

mod answer;
mod binding;
mod copying;
mod error;
mod follow;
mod incoming;
mod interrupt;
mod request;
mod samples;
mod scram;
mod secure;
mod sending;
mod session;
mod sql;
mod startup;
mod statements;
#[cfg(test)]
mod tests;
pub mod types;
mod units;
mod wire;
mod words;

/// The row of [`crate::proto::TABLE`].
pub const SCHEME: Scheme = Scheme {
    name: "postgres",
    tls: false,
    starttls: Some(secure::STARTTLS),
    alpn: &[],
    rebuff: b"",
    default_port: 5432,
    sharing: Sharing::Growing,
    adapt: Some(words::adapt),
    tracing: database_tracing("postgresql"),
    open,
    samples: samples::SAMPLES,
};

/// The same by its other name.
pub const SCHEME_LONG: Scheme = Scheme { name: "postgresql", samples: &[], ..SCHEME };

/// What the URL chose. Holds a secret, hence no `Debug`.
pub struct Options {
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    pub application_name: String,
    /// Settings for the session, as the server's command line has them: `-c name=value`.
    pub options: Option<String>,
    /// Statements are prepared under names, and used again.
    pub prepare: bool,
    pub binding: binding::Wish,
    /// The password may be sent where others can read it.
    pub cleartext: bool,
}

fn open(url: &mut Url, limits: &Limits) -> Result<Box<dyn Driver>, ConfigError> {
    if limits.listener {
        let expected = "a protocol that can listen: iokernel is a client of PostgreSQL, and no server";
        return Err(ConfigError::new("scheme", &url.scheme, expected));
    }
    if limits.raw {
        return Err(ConfigError::new("raw", "true", "false: a reply of PostgreSQL is no single frame"));
    }
    if limits.follow == Follow::Topology {
        return Err(ConfigError::new("scheme", &url.scheme, "a protocol with clusters: redis+cluster"));
    }
    let user = match (&url.user, url.options.text("user")) {
        (Some(user), Some(option)) if *user != option => {
            return Err(ConfigError::new("user", &option, format!("the same as {user}, or only one of them")));
        }
        (Some(user), _) => user.clone(),
        (None, Some(user)) => user,
        (None, None) => return Err(ConfigError::new("user", "", "a name, as in postgres://user@host/database")),
    };
    let database = database(url)?.unwrap_or_else(|| user.clone());
    let options = Options {
        database,
        password: url.password.clone(),
        application_name: url.options.text("application_name").unwrap_or_else(|| "iokernel".into()),
        options: url.options.text("options"),
        prepare: url.options.flag("prepare", true)?,
        binding: match url.options.word("channel_binding", "prefer", &["disable", "prefer", "require"])? {
            "disable" => binding::Wish::Disable,
            "require" => binding::Wish::Require,
            _ => binding::Wish::Prefer,
        },
        cleartext: url.options.flag("cleartext", false)?,
        user,
    };
    let statements_max = url.options.number("statements", 256, 1..=65_536)? as usize;
    let texts =
        [("user", &options.user), ("dbname", &options.database), ("application_name", &options.application_name)];
    let texts = texts.into_iter().chain(options.options.as_ref().map(|text| ("options", text)));
    if let Some((key, text)) = texts.into_iter().find(|(_, text)| text.is_empty() || text.contains('\0')) {
        return Err(ConfigError::new(key, text, "text without a NUL byte, and not empty"));
    }
    let shared = statements::Shared::new(statements_max);
    Ok(Box::new(Postgres { options: Arc::new(options), limits: *limits, statements_max, shared }))
}

/// The path, or `dbname=`.
fn database(url: &mut Url) -> Result<Option<String>, ConfigError> {
    let path = (!url.path.is_empty()).then(|| url.path.clone());
    match (path, url.options.text("dbname")) {
        (Some(path), Some(option)) if path != option => {
            Err(ConfigError::new("dbname", &option, format!("the same as the path, {path}, or only one of them")))
        }
        (path, option) => Ok(path.or(option)),
    }
}

struct Postgres {
    options: Arc<Options>,
    limits: Limits,
    statements_max: usize,
    /// What its conns learn of statements and types.
    shared: statements::Shared,
}

impl Driver for Postgres {
    fn classify(&self, body: &[u8], _hashes: bool) -> Result<Need, Refusal> {
        let class = request::classify(body, self.limits.depth_max)?;
        Ok(Need { class, idempotent: false, route: Route::default() })
    }

    fn command<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        request::command(body)
    }

    fn is_secret(&self, body: &[u8]) -> bool {
        request::is_secret(body)
    }

    fn client(&self) -> Box<dyn Protocol> {
        let shared = self.shared.clone();
        Box::new(session::Session::new(self.options.clone(), self.limits, self.statements_max, shared))
    }

    /// Nobody asks for one: `open` refuses listeners.
    fn server(&self) -> Box<dyn Protocol> {
        self.client()
    }
}
