//! The commands that a listener answers by itself, because they concern the conn and not the program.
use std::sync::Arc;

use super::Options;
use super::commands::text;
use crate::ring::layout::IOK_EXT_ERROR;
use crate::value::{Reader, write};

/// What a conn knows of its client.
pub struct Client {
    options: Arc<Options>,
    id: u64,
    pub resp3: bool,
    pub authenticated: bool,
    name: Vec<u8>,
    library: [Vec<u8>; 2],
}

impl Client {
    pub fn new(options: Arc<Options>, id: u64) -> Self {
        let authenticated = options.password.is_none();
        Client { options, id, resp3: false, authenticated, name: Vec::new(), library: Default::default() }
    }

    fn reset(&mut self) {
        *self = Client::new(self.options.clone(), self.id);
    }
}

/// An answer of our own: one MessagePack value.
pub struct Own {
    pub value: Vec<u8>,
    /// The client is to be left once it has this.
    pub leaves: bool,
}

const NOAUTH: &str = "Authentication required.";
const HELLO_NOAUTH: &str = "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                            <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                            version at the same time";
const NO_PASSWORD: &str = "AUTH <password> called without any password configured for the default user. Are you sure \
                           your configuration is correct?";
const WRONGPASS: &str = "invalid username-password pair or user is disabled.";

type Answer = Result<Vec<u8>, (&'static str, String)>;

/// Answers a command, or leaves it to the program. `arguments` stands before its `count` arguments.
pub fn answer(client: &mut Client, name: &[u8], arguments: &mut Reader<'_>, count: u32) -> Option<Own> {
    let mut upper = [0; 8];
    let word = upper.get_mut(..name.len()).map(|upper| {
        upper.copy_from_slice(name);
        upper.make_ascii_uppercase();
        &*upper
    });
    let mut leaves = false;
    let answered = match word.unwrap_or_default() {
        b"HELLO" => hello(client, arguments, count),
        b"AUTH" => auth(client, arguments, count),
        b"QUIT" => {
            leaves = true;
            ok()
        }
        b"RESET" => {
            client.reset();
            simple("RESET")
        }
        _ if !client.authenticated => Err(("NOAUTH", NOAUTH.into())),
        b"PING" => ping(arguments, count),
        b"SELECT" => select(arguments, count),
        b"CLIENT" => client_command(client, arguments, count)?,
        b"COMMAND" => command(arguments),
        _ => return None,
    };
    let value = answered.unwrap_or_else(|(code, message)| {
        let mut value = Vec::new();
        write::error_ext(&mut value, IOK_EXT_ERROR, code.as_bytes(), message.as_bytes());
        value
    });
    Some(Own { value, leaves })
}

fn simple(text: &str) -> Answer {
    let mut value = Vec::new();
    write::str(&mut value, text.as_bytes());
    Ok(value)
}

fn ok() -> Answer {
    simple("OK")
}

fn bulk(bytes: &[u8]) -> Answer {
    let mut value = Vec::new();
    write::bin(&mut value, bytes);
    Ok(value)
}

fn error(message: impl Into<String>) -> Answer {
    Err(("ERR", message.into()))
}

fn arity(name: &str) -> Answer {
    error(format!("wrong number of arguments for '{name}' command"))
}

fn ping(arguments: &mut Reader<'_>, count: u32) -> Answer {
    match (count, text(arguments)) {
        (0, _) => simple("PONG"),
        (1, Some(message)) => bulk(message),
        _ => arity("ping"),
    }
}

fn select(arguments: &mut Reader<'_>, count: u32) -> Answer {
    match (count, text(arguments)) {
        (1, Some(b"0")) => ok(),
        (1, Some(number)) if number.iter().all(u8::is_ascii_digit) => error("DB index is out of range"),
        (1, _) => error("value is not an integer or out of range"),
        _ => arity("select"),
    }
}

/// redis-cli asks for every command's documentation when it starts.
fn command(arguments: &mut Reader<'_>) -> Answer {
    let mut value = Vec::new();
    match text(arguments).map(<[u8]>::to_ascii_uppercase).as_deref() {
        Some(b"COUNT") => write::int(&mut value, 0),
        Some(b"DOCS") => write::map(&mut value, 0),
        _ => write::array(&mut value, 0),
    }
    Ok(value)
}

fn auth(client: &mut Client, arguments: &mut Reader<'_>, count: u32) -> Answer {
    let (user, password) = match count {
        1 => (&b"default"[..], text(arguments)),
        2 => (text(arguments).unwrap_or_default(), text(arguments)),
        _ => return arity("auth"),
    };
    if count == 1 && client.options.password.is_none() {
        return error(NO_PASSWORD);
    }
    verify(client, user, password.unwrap_or_default())?;
    ok()
}

fn verify(client: &mut Client, user: &[u8], password: &[u8]) -> Result<(), (&'static str, String)> {
    let Options { user: expected_user, password: expected, .. } = &*client.options;
    let user_is_right = equal(user, expected_user.as_deref().unwrap_or("default").as_bytes());
    // Without a password, the default user may say any, as in Redis.
    let password_is_right = expected.as_ref().is_none_or(|expected| equal(password, expected.as_bytes()));
    client.authenticated |= user_is_right & password_is_right;
    if user_is_right & password_is_right { Ok(()) } else { Err(("WRONGPASS", WRONGPASS.into())) }
}

/// Compares in a time that tells nothing of where they differ.
fn equal(given: &[u8], secret: &[u8]) -> bool {
    let length_differs = usize::from(given.len() != secret.len());
    let differs = given.iter().zip(secret.iter().cycle()).fold(0, |differs, (a, b)| differs | (a ^ b));
    length_differs | usize::from(differs) == 0
}

fn hello(client: &mut Client, arguments: &mut Reader<'_>, count: u32) -> Answer {
    let mut resp3 = client.resp3;
    let mut name = None;
    let mut left = count;
    if count > 0 {
        left -= 1;
        resp3 = match text(arguments).map(|version| std::str::from_utf8(version).unwrap_or("").parse::<i64>()) {
            Some(Ok(2)) => false,
            Some(Ok(3)) => true,
            Some(Ok(_)) => return Err(("NOPROTO", "unsupported protocol version".into())),
            _ => return error("Protocol version is not an integer or out of range"),
        };
    }
    while left > 0 {
        let option = text(arguments).unwrap_or_default();
        left -= 1;
        if option.eq_ignore_ascii_case(b"AUTH") && left >= 2 {
            let (user, password) = (text(arguments).unwrap_or_default(), text(arguments).unwrap_or_default());
            verify(client, user, password)?;
            left -= 2;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && left >= 1 {
            name = Some(valid_name(text(arguments).unwrap_or_default())?);
            left -= 1;
        } else {
            return error(format!("Syntax error in HELLO option '{}'", option.escape_ascii()));
        }
    }
    if !client.authenticated {
        return Err(("NOAUTH", HELLO_NOAUTH.into()));
    }
    client.resp3 = resp3;
    client.name = name.unwrap_or_else(|| std::mem::take(&mut client.name));
    Ok(introduction(client))
}

fn introduction(client: &Client) -> Vec<u8> {
    let mut value = Vec::new();
    write::map(&mut value, 7);
    for (key, text) in [("server", "iokernel"), ("version", env!("CARGO_PKG_VERSION"))] {
        write::bin(&mut value, key.as_bytes());
        write::bin(&mut value, text.as_bytes());
    }
    for (key, number) in [("proto", 2 + u64::from(client.resp3)), ("id", client.id)] {
        write::bin(&mut value, key.as_bytes());
        write::uint(&mut value, number);
    }
    for (key, text) in [("mode", "standalone"), ("role", "master")] {
        write::bin(&mut value, key.as_bytes());
        write::bin(&mut value, text.as_bytes());
    }
    write::bin(&mut value, b"modules");
    write::array(&mut value, 0);
    value
}

fn valid_name(name: &[u8]) -> Result<Vec<u8>, (&'static str, String)> {
    if name.len() <= 256 && name.iter().all(u8::is_ascii_graphic) {
        return Ok(name.to_vec());
    }
    Err(("ERR", "Client names cannot contain spaces, newlines or special characters.".into()))
}

/// The parts of CLIENT that concern this conn; the others are the program's.
fn client_command(client: &mut Client, arguments: &mut Reader<'_>, count: u32) -> Option<Answer> {
    let word = text(arguments).unwrap_or_default().to_ascii_uppercase();
    let argument = text(arguments);
    Some(match (&word[..], count) {
        (b"ID", 1) => {
            let mut value = Vec::new();
            write::uint(&mut value, client.id);
            Ok(value)
        }
        (b"SETNAME", 2) => valid_name(argument.unwrap_or_default()).and_then(|name| {
            client.name = name;
            ok()
        }),
        (b"GETNAME", 1) if client.name.is_empty() => Ok(vec![0xc0]),
        (b"GETNAME", 1) => bulk(&client.name),
        (b"SETINFO", 3) => set_info(client, argument.unwrap_or_default(), text(arguments).unwrap_or_default()),
        (b"INFO", 1) => bulk(info(client).as_bytes()),
        (b"NO-EVICT" | b"NO-TOUCH", 2) => ok(),
        (b"REPLY", 2) if argument.is_some_and(|word| word.eq_ignore_ascii_case(b"ON")) => ok(),
        (b"REPLY" | b"TRACKING" | b"CACHING", _) => {
            error(format!("CLIENT {} is not supported here", word.escape_ascii()))
        }
        (b"ID" | b"SETNAME" | b"GETNAME" | b"SETINFO" | b"INFO" | b"NO-EVICT" | b"NO-TOUCH", _) => {
            arity(&format!("client|{}", word.to_ascii_lowercase().escape_ascii()))
        }
        _ => return None,
    })
}

fn set_info(client: &mut Client, key: &[u8], value: &[u8]) -> Answer {
    let field = match () {
        () if key.eq_ignore_ascii_case(b"LIB-NAME") => &mut client.library[0],
        () if key.eq_ignore_ascii_case(b"LIB-VER") => &mut client.library[1],
        () => return error(format!("Unrecognized option '{}'", key.escape_ascii())),
    };
    *field = valid_name(value)?;
    ok()
}

fn info(client: &Client) -> String {
    let Client { id, name, library: [library, version], .. } = client;
    let resp = 2 + u8::from(client.resp3);
    let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let (name, library, version) = (shown(name), shown(library), shown(version));
    format!("id={id} name={name} db=0 resp={resp} lib-name={library} lib-ver={version}\n")
}
