//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), and the older MD5 scheme.
//!
//! `postgres-protocol` has both, but takes any number of iterations: a hostile server would keep the caller busy for
//! minutes. The primitives are RustCrypto's.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};

use super::binding::Binding;

pub const MECHANISM: &str = "SCRAM-SHA-256";
/// With channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// A server's default is 4,096; each costs about half a microsecond.
const ITERATIONS_MAX: u32 = 600_000;

type Key = [u8; 32];

/// What was computed from a password. It is the same for as long as the server keeps its salt.
#[derive(Clone)]
pub struct Salted {
    salt: Vec<u8>,
    iterations: u32,
    password: Key,
}

/// One exchange, at the client's side.
pub struct Scram {
    nonce: String,
    binding: Binding,
    /// Set by the server's first message.
    expected: Option<Key>,
}

impl Scram {
    /// `nonce`: printable characters that were never used before, without a comma.
    pub fn new(nonce: String, binding: Binding) -> Self {
        Scram { nonce, binding, expected: None }
    }

    /// client-first-message. The user is the one of the startup message: the server ignores the name here.
    pub fn first(&self) -> Vec<u8> {
        format!("{}{}", self.binding.header(), self.first_bare()).into_bytes()
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// server-first-message in, client-final-message out. `known` is used if it fits, and set anew if not.
    pub fn proof(&mut self, server: &[u8], password: &str, known: &mut Option<Salted>) -> Result<Vec<u8>, String> {
        let server = std::str::from_utf8(server).map_err(|_| "its first message is no text")?;
        let mut parts = server.split(',');
        let mut attribute = |name: &str| {
            let part = parts.next().unwrap_or_default();
            part.strip_prefix(name).ok_or_else(|| format!("its first message has no {name} where one is due"))
        };
        let (nonce, salt, iterations) = (attribute("r=")?, attribute("s=")?, attribute("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("its nonce does not go on from ours".into());
        }
        let salt = STANDARD.decode(salt).map_err(|_| "its salt is not in base64")?;
        let iterations: u32 = iterations.parse().map_err(|_| "its number of iterations is none")?;
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(format!("it asks for {iterations} iterations: expected 1 to {ITERATIONS_MAX}"));
        }
        let salted = match known.as_ref().filter(|known| known.salt == salt && known.iterations == iterations) {
            Some(known) => known.password,
            None => hi(normalized(password).as_bytes(), &salt, iterations),
        };
        *known = Some(Salted { salt, iterations, password: salted });
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(self.binding.input()));
        let signed = format!("{},{server},{without_proof}", self.first_bare());
        let client_key = hmac(&salted, b"Client Key");
        let signature = hmac(&Sha256::digest(client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(one, other)| one ^ other).collect();
        self.expected = Some(hmac(&hmac(&salted, b"Server Key"), signed.as_bytes()));
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// server-final-message: whether the server knows the password too.
    pub fn verify(&self, server: &[u8]) -> Result<(), String> {
        let server = std::str::from_utf8(server).map_err(|_| "its last message is no text")?;
        if let Some(error) = server.strip_prefix("e=") {
            return Err(format!("it says {error}"));
        }
        let signature = server.split(',').next().and_then(|part| part.strip_prefix("v="));
        let signature = signature.and_then(|text| STANDARD.decode(text).ok());
        let matches = self.expected.zip(signature).is_some_and(|(expected, signature)| signature == expected);
        if matches { Ok(()) } else { Err("its signature is wrong: it does not know the password".into()) }
    }
}

/// SASLprep (RFC 4013). What it prohibits is taken as it is, as the server does.
fn normalized(password: &str) -> std::borrow::Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(password.into())
}

fn hmac(key: &[u8], text: &[u8]) -> Key {
    keyed(key).chain_update(text).finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // A longer key is hashed, a shorter one filled up: every length is taken.
    Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

/// `Hi` (RFC 5802, 2.2): PBKDF2 of one block.
fn hi(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let keyed = keyed(password);
    let mut last = keyed.clone().chain_update(salt).chain_update(1u32.to_be_bytes()).finalize().into_bytes();
    let mut all: Key = last.into();
    for _ in 1..iterations {
        last = keyed.clone().chain_update(last).finalize().into_bytes();
        all.iter_mut().zip(last).for_each(|(all, last)| *all ^= last);
    }
    all
}

/// AuthenticationMD5Password: `md5(md5(password + user) + salt)` (PostgreSQL 15 documentation, 55.2.1).
pub fn md5(user: &str, password: &str, salt: &[u8]) -> String {
    let inner = hex(&Md5::new().chain_update(password).chain_update(user).finalize());
    format!("md5{}", hex(&Md5::new().chain_update(inner).chain_update(salt).finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, 3, but for the name, which is left to the startup message here.
    #[test]
    fn the_exchange_of_the_rfc() {
        let mut salted = None;
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(
            hex(&hi(b"pencil", &salt, 4096)),
            "c4a49510323ab4f952cac1fa99441939e78ea74d6be81ddf7096e87513dc615d"
        );
        let mut scram = Scram::new("rOprNGfwEbeRWgbNEkqO".into(), Binding::None);
        assert_eq!(scram.first(), b"n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        let server = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = scram.proof(server, "pencil", &mut salted).unwrap();
        assert!(proof.starts_with(b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p="));
        assert_eq!(scram.proof(server, "another", &mut salted).unwrap(), proof, "what is known is not computed again");
        assert!(scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").is_err(), "signed with another name");
        assert!(scram.verify(b"e=invalid-proof").unwrap_err().contains("invalid-proof"));
    }

    #[test]
    fn a_server_that_asks_too_much_is_refused() {
        let refuse = |server: &str| {
            Scram::new("abc".into(), Binding::None).proof(server.as_bytes(), "x", &mut None).unwrap_err()
        };
        assert!(refuse("r=abcd,s=AAAA,i=4294967295").contains("4294967295 iterations"));
        assert!(refuse("r=abcd,s=AAAA,i=0").contains("iterations"));
        assert!(refuse("r=abc,s=AAAA,i=1").contains("nonce"));
        assert!(refuse("r=xabcd,s=AAAA,i=1").contains("nonce"));
        assert!(refuse("r=abcd,s=?,i=1").contains("salt"));
        assert!(refuse("m=x,r=abcd,s=AAAA,i=1").contains("r="));
        assert!(refuse("").contains("r="));
    }

    #[test]
    fn md5_is_salted_twice() {
        // As in the documentation: concat('md5', md5(concat(md5(concat(password, username)), salt))).
        let inner = hex(&Md5::digest("secretme"));
        let expected = format!("md5{}", hex(&Md5::new().chain_update(inner).chain_update([1, 2, 3, 4]).finalize()));
        assert_eq!(md5("me", "secret", &[1, 2, 3, 4]), expected);
    }
}
