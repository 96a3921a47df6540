//! What libpq has other words for than every endpoint (PostgreSQL 15 documentation, 34.1.2 "Parameter Key Words").
use crate::config::{ConfigError, Url};

const ATTRIBUTES: &str = "one of any, read-write, primary, read-only, standby, prefer-standby";

/// See [`crate::proto::Scheme::adapt`].
pub fn adapt(url: &mut Url) -> Result<(), ConfigError> {
    let options = &mut url.options;
    if let Some(attributes) = options.text("target_session_attrs") {
        let fails = |expected: String| Err(ConfigError::new("target_session_attrs", &attributes, expected));
        let role = match &*attributes {
            "any" => "any",
            "read-write" | "primary" => "primary",
            "read-only" | "standby" => "replica",
            "prefer-standby" => "prefer-replica",
            _ => return fails(ATTRIBUTES.into()),
        };
        if let Some(given) = options.peek("role") {
            return fails(format!("role={given} or target_session_attrs, not both: they are one thing"));
        }
        options.put("role", role.into())?;
    }
    let seconds = options.peek("connect_timeout").and_then(|text| text.parse::<i64>().ok());
    if let (Some(seconds), Some(text)) = (seconds, seconds.and_then(|_| options.text("connect_timeout"))) {
        if seconds <= 0 {
            let expected = "1 or more, in seconds, or a time such as 10s: there is no connecting without a limit";
            return Err(ConfigError::new("connect_timeout", &text, expected));
        }
        options.put("connect_timeout", format!("{seconds}s"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(query: &str) -> Result<(Option<String>, Option<String>), String> {
        let mut url = Url::parse(&format!("postgres://me@a,b/d?{query}"), |_| Some(5432)).unwrap();
        adapt(&mut url).map_err(|error| error.to_string())?;
        Ok((url.options.text("role"), url.options.text("connect_timeout")))
    }

    #[test]
    fn words_of_libpq_become_ours() {
        for (query, role, timeout) in [
            ("", None, None),
            ("target_session_attrs=any", Some("any"), None),
            ("target_session_attrs=read-write", Some("primary"), None),
            ("target_session_attrs=primary", Some("primary"), None),
            ("target_session_attrs=read-only", Some("replica"), None),
            ("target_session_attrs=standby&connect_timeout=10", Some("replica"), Some("10s")),
            ("target_session_attrs=prefer-standby", Some("prefer-replica"), None),
            ("role=nearest&connect_timeout=250ms", Some("nearest"), Some("250ms")),
        ] {
            assert_eq!(adapted(query), Ok((role.map(Into::into), timeout.map(Into::into))), "{query}");
        }
        for (query, expected) in [
            ("target_session_attrs=master", "\"master\": expected one of any, read-write"),
            ("target_session_attrs=any&role=any", "not both"),
            ("connect_timeout=0", "1 or more"),
            ("connect_timeout=-1", "1 or more"),
        ] {
            let error = adapted(query).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
