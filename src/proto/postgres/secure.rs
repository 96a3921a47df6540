//! TLS as libpq asks for it: SSLRequest (PostgreSQL 15 documentation, 55.2.11), `sslmode` and what belongs to it (34.19).

use crate::config::{Address, ConfigError, Url};
use crate::proto::{StartTls, Wish};

/// The length of the message, and a code that is no version of the protocol.
pub const STARTTLS: StartTls = StartTls { ask: &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f], yes: b'S', no: b'N', wish };

/// `allow` is taken for `prefer`, which is the safer of the two: with libpq they differ in what is tried first.
const MODES: &[&str] = &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
/// libpq's names, and ours.
const NAMES: [(&str, &str); 3] = [("sslrootcert", "tls_ca"), ("sslcert", "tls_cert"), ("sslkey", "tls_key")];

fn wish(url: &mut Url) -> Result<Wish, ConfigError> {
    for (theirs, ours) in NAMES {
        if let Some(path) = url.options.text(theirs).filter(|path| !path.is_empty()) {
            url.options.put(ours, path)?;
        }
    }
    let has_own = !url.options.copies("tls_").is_empty();
    // Nobody listens in on a unix socket, and its servers have no TLS.
    let is_unix = matches!(url.address, Address::Unix(_));
    let default = if is_unix {
        "disable"
    } else if has_own {
        "verify-full"
    } else {
        "prefer"
    };
    let mode = url.options.word("sslmode", default, MODES)?;
    if is_unix && mode != "disable" {
        return Err(ConfigError::new("sslmode", mode, "disable: a unix socket has no TLS"));
    }
    if mode == "disable" && has_own {
        return Err(ConfigError::new("sslmode", mode, "require, verify-ca or verify-full beside other options of TLS"));
    }
    let verify = match mode {
        "disable" => return Ok(Wish::No),
        // As libpq does it: whoever gives a root wants it asked.
        "require" if url.options.has("tls_ca") => "chain",
        "allow" | "prefer" | "require" => "false",
        "verify-ca" => "chain",
        _ => "true",
    };
    if !url.options.has("tls_verify") {
        url.options.put("tls_verify", verify.into())?;
    }
    Ok(if matches!(mode, "allow" | "prefer") { Wish::IfOffered } else { Wish::Must })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wished(rest: &str) -> Result<(Wish, Vec<(String, String)>), ConfigError> {
        let mut url = Url::parse(&format!("postgres://{rest}"), |_| Some(5432)).unwrap();
        let wish = wish(&mut url)?;
        let mut options = url.options.copies("tls_");
        options.sort();
        Ok((wish, options))
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_string(), value.to_string()));
        text.split_whitespace().filter_map(pair).collect()
    }

    #[test]
    fn modes_say_whether_and_what_is_verified() {
        for (rest, wish, options) in [
            ("h", Wish::IfOffered, "tls_verify=false"),
            ("h?sslmode=disable", Wish::No, ""),
            ("h?sslmode=allow", Wish::IfOffered, "tls_verify=false"),
            ("h?sslmode=require", Wish::Must, "tls_verify=false"),
            ("h?sslmode=require&sslrootcert=/ca", Wish::Must, "tls_ca=/ca tls_verify=chain"),
            ("h?sslmode=verify-ca", Wish::Must, "tls_verify=chain"),
            ("h?sslmode=verify-full&sslcert=/c&sslkey=/k", Wish::Must, "tls_cert=/c tls_key=/k tls_verify=true"),
            ("h?tls_ca=/ca", Wish::Must, "tls_ca=/ca tls_verify=true"),
        ] {
            assert_eq!(wished(rest).unwrap(), (wish, pairs(options)), "{rest}");
        }
        for rest in ["h?sslmode=disable&tls_ca=/ca", "h?sslrootcert=/a&tls_ca=/b"] {
            assert!(wished(rest).is_err(), "{rest}");
        }
    }
}
