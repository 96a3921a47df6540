//! A file tells the set: `redis+file:///etc/peers.json`.
//!
//! JSON (an array of `"host:port"` or of objects `{address, weight, priority, role}`, or an object with such an array as
//! `peers`), or lines: `host:port [weight=..] [priority=..] [role=primary|replica]`, with `#` before comments.
//!
//! The file is looked at every [`LOOK_EVERY`]. One that was put in place as a whole (renamed, or a symlink swapped) is
//! read at once; one that is written where it stands, or whose last line has no end, is read when it has stood still from
//! one look to the next, as it may be half-written. What cannot be read changes nothing. An empty file is not an empty
//! set, which is `[]`. A peer that is told by name has its name looked up whenever it is dialled.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::entry::{ADDRESS_EXPECTED, Entry, Given, PEERS_MAX, refuse_doubles};
use super::set::Published;
use super::stamp::Stamp;
use super::{Ask, News, Source, Terms};
use crate::config::{Address, ConfigError, Url};
use crate::peer::Peer;
use crate::sys;

const LOOK_EVERY: Duration = Duration::from_millis(250);
const FILE_BYTES_MAX: u64 = 1 << 20;

struct PeersFile {
    path: PathBuf,
    due: Option<Instant>,
    /// At the last look.
    seen: Option<Stamp>,
    /// What was judged, and whether it was again a look later: a file may change twice within one tick of its clock.
    read: Option<Stamp>,
    confirmed: bool,
    published: Published,
    said: String,
}

pub fn open(url: &mut Url, _terms: &Terms) -> Result<Box<dyn Source>, ConfigError> {
    let is_local = |host: &Address| matches!(host, Address::Host { host, .. } if host == "localhost");
    if url.path.is_empty() || !url.hosts.iter().all(is_local) {
        let expected = format!("the path of a file after three slashes, as in {}+file:///etc/peers.json", url.scheme);
        return Err(ConfigError::new("path", &url.path, expected));
    }
    Ok(Box::new(PeersFile::new(PathBuf::from(format!("/{}", std::mem::take(&mut url.path))))))
}

impl PeersFile {
    fn new(path: PathBuf) -> Self {
        let (published, said) = (Published::default(), String::new());
        PeersFile { path, due: None, seen: None, read: None, confirmed: false, published, said }
    }

    fn look(&mut self, ask: &mut dyn Ask) {
        match self.changed() {
            Ok(None) => {}
            Ok(Some(peers)) => {
                self.said.clear();
                self.published.publish(peers, ask);
            }
            Err(why) => self.complain(why, ask),
        }
    }

    fn complain(&mut self, why: String, ask: &mut dyn Ask) {
        let why = format!("{}: {why}", self.path.display());
        if why != self.said {
            ask.unknown(&why);
            self.said = why;
        }
    }

    /// The set, if it is to be judged anew.
    fn changed(&mut self) -> Result<Option<Vec<Peer>>, String> {
        let stamp = Stamp::of(&self.path).map_err(|error| {
            (self.seen, self.read) = (None, None);
            words(&error)
        })?;
        let stands = self.seen.replace(stamp) == Some(stamp);
        let known = self.read == Some(stamp);
        let in_place = !known && self.read.is_some_and(|read| read.is_same_file(&stamp));
        if known && self.confirmed || in_place && !stands {
            return Ok(None);
        }
        let text = read(&self.path)?;
        if !is_json(&text) && !text.ends_with('\n') && !stands {
            return Ok(None);
        }
        (self.read, self.confirmed) = (Some(stamp), known);
        parse(&text).map(Some)
    }
}

impl Source for PeersFile {
    fn handle(&mut self, now: Instant, news: News<'_>, ask: &mut dyn Ask) {
        if matches!(news, News::Open | News::Time) && self.due.is_none_or(|due| due <= now) {
            self.due = Some(now + LOOK_EVERY);
            self.look(ask);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

fn words(error: &io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_string()
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = sys::file::read(path, FILE_BYTES_MAX + 1).map_err(|error| words(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("more than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".into())
}

/// Told by the first character that is not blank; a bracket may also begin an IPv6 address.
fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    match text.strip_prefix('[') {
        Some(rest) => rest.trim_start().chars().next().is_none_or(|c| "\"{[]".contains(c)),
        None => text.starts_with('{'),
    }
}

/// The peers that a file of this text names; an error says where it makes no sense.
pub fn parse(text: &str) -> Result<Vec<Peer>, String> {
    if is_json(text) { parse_json(text) } else { parse_lines(text) }
}

fn parse_lines(text: &str) -> Result<Vec<Peer>, String> {
    let (mut peers, mut numbers) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next() else { continue };
        peers.push(parse_line(address, words).map_err(|why| format!("line {}: {why}", at + 1))?);
        numbers.push(at + 1);
        if peers.len() > PEERS_MAX {
            return Err(format!("line {}: more than {PEERS_MAX} peers", at + 1));
        }
    }
    if peers.is_empty() {
        return Err("line 1: nothing but blank lines: expected peers, or [] for none".into());
    }
    refuse_doubles(&peers).map_err(|(index, why)| format!("line {}: {why}", numbers[index]))?;
    Ok(peers)
}

fn parse_line<'a>(address: &str, words: impl Iterator<Item = &'a str>) -> Result<Peer, String> {
    let mut entry = Entry::default();
    entry.set("address", Given::Text(address))?;
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?}: expected key=value"))?;
        entry.set(key, value.parse().map_or(Given::Text(value), Given::Number))?;
    }
    entry.finish()
}

fn parse_json(text: &str) -> Result<Vec<Peer>, String> {
    // Its errors end with line and column.
    let mut value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let list = match &mut value {
        Value::Object(object) => object.get_mut("peers").map_or(Value::Null, Value::take),
        other => other.take(),
    };
    let Value::Array(list) = list else {
        return Err("line 1: expected an array, or an object with one as peers".into());
    };
    if list.len() > PEERS_MAX {
        return Err(format!("{} entries: expected at most {PEERS_MAX}", list.len()));
    }
    let one = |(index, value)| parse_entry(value).map_err(|why| format!("entry {index}: {why}"));
    let peers: Vec<Peer> = list.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    refuse_doubles(&peers).map_err(|(index, why)| format!("entry {index}: {why}"))?;
    Ok(peers)
}

fn parse_entry(value: &Value) -> Result<Peer, String> {
    let mut entry = Entry::default();
    match value {
        Value::String(address) => entry.set("address", Given::Text(address))?,
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| set(&mut entry, key, value))?,
        other => return Err(format!("{other:.80}: expected {ADDRESS_EXPECTED}, or an object")),
    }
    entry.finish()
}

fn set(entry: &mut Entry, key: &str, value: &Value) -> Result<(), String> {
    match value {
        // As the defaults say.
        Value::Null if key != "address" => Ok(()),
        Value::String(text) => entry.set(key, Given::Text(text)),
        Value::Number(number) if number.is_i64() => entry.set(key, Given::Number(number.as_i64().unwrap_or(-1))),
        Value::Array(_) => entry.set(key, Given::Other("array")),
        Value::Object(_) => entry.set(key, Given::Other("object")),
        other => entry.set(key, Given::Other(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::script::Script;
    use crate::peer::{Place, Role};

    struct Rig {
        folder: PathBuf,
        source: PeersFile,
        script: Script,
        now: Instant,
    }

    impl Rig {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("iokernel-file-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let source = PeersFile::new(folder.join("peers"));
            Rig { folder, source, script: Script::default(), now: Instant::now() }
        }

        fn rename(&self, text: &str) {
            std::fs::write(self.folder.join("whole"), text).unwrap();
            std::fs::rename(self.folder.join("whole"), self.folder.join("peers")).unwrap();
        }

        fn write(&self, text: &str) {
            std::fs::write(self.folder.join("peers"), text).unwrap();
        }

        fn look(&mut self) -> (usize, usize) {
            self.now += LOOK_EVERY;
            self.source.handle(self.now, News::Time, &mut self.script);
            assert!(self.source.poll_timeout().unwrap() > self.now);
            (self.script.sets.len(), self.script.unknown.len())
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn what_is_renamed_into_place_is_seen_and_nonsense_changes_nothing() {
        let mut rig = Rig::new("rename");
        assert_eq!(rig.look(), (0, 1));
        assert!(rig.script.unknown[0].ends_with("peers: No such file or directory"), "{:?}", rig.script.unknown);
        rig.rename("10.0.0.1:7\n");
        assert_eq!(rig.look(), (1, 1));
        rig.rename("10.0.0.1:7\n10.0.0.2:x\n");
        assert_eq!((rig.look(), rig.look()), ((1, 2), (1, 2)));
        let why = rig.script.unknown.last().unwrap();
        assert!(why.ends_with("line 2: address: \"10.0.0.2:x\": expected host:port, [v6]:port or unix:/path"), "{why}");
        std::fs::remove_file(rig.folder.join("peers")).unwrap();
        assert_eq!(rig.look(), (1, 3));
        rig.rename("[\"10.0.0.2:7\"]");
        assert_eq!(rig.look(), (2, 3));
        rig.rename("[]");
        assert_eq!((rig.look(), rig.script.shown().len()), ((3, 3), 0));
    }

    #[test]
    fn what_is_written_in_place_is_read_when_it_stands_still() {
        let mut rig = Rig::new("place");
        rig.write("10.0.0.1:7");
        assert_eq!(rig.look().0, 0, "its last line may not be whole");
        assert_eq!(rig.look().0, 1);
        rig.write("");
        assert_eq!(rig.look(), (1, 0));
        rig.write("10.0.0.1:7\n10.0.0.2:7\n");
        assert_eq!(rig.look(), (1, 0));
        assert_eq!(rig.look(), (2, 0));
        rig.write("");
        assert_eq!((rig.look(), rig.look()), ((2, 0), (2, 1)));
    }

    #[test]
    fn a_swapped_symlink_is_followed() {
        let mut rig = Rig::new("link");
        for (version, text) in [("1", "10.0.0.1:7\n"), ("2", "10.0.0.2:7\n")] {
            std::fs::create_dir(rig.folder.join(version)).unwrap();
            std::fs::write(rig.folder.join(version).join("peers"), text).unwrap();
        }
        let swap = |version: &str| {
            std::os::unix::fs::symlink(version, rig.folder.join("next")).unwrap();
            std::fs::rename(rig.folder.join("next"), rig.folder.join("data")).unwrap();
        };
        swap("1");
        std::os::unix::fs::symlink("data/peers", rig.folder.join("peers")).unwrap();
        assert_eq!((rig.look().0, rig.script.shown()), (1, vec!["10.0.0.1:7".to_string()]));
        let folder = rig.folder.clone();
        std::os::unix::fs::symlink("2", folder.join("next")).unwrap();
        std::fs::rename(folder.join("next"), folder.join("data")).unwrap();
        assert_eq!((rig.look().0, rig.script.shown()), (2, vec!["10.0.0.2:7".to_string()]));
    }

    #[test]
    fn both_forms_say_the_same() {
        let lines = "# all\n\n[::1]:7 weight=5 role=replica # one\n db.test:8 priority=2\nunix:/run/r.sock\n";
        let json = r#" {"peers": [{"address": "[::1]:7", "weight": 5, "role": "replica", "priority": null},
                       {"address": "db.test:8", "priority": 2}, "unix:/run/r.sock"]}"#;
        let peers = parse(lines).unwrap();
        assert_eq!(parse(json).unwrap(), peers);
        assert_eq!((peers[0].weight, peers[0].role, peers[1].priority), (5, Role::Replica, 2));
        assert!(peers[1].places.is_empty() && matches!(peers[2].places[0], Place::Unix(_)));
        assert_eq!(parse("[::1]:7\n").unwrap()[0].name, "[::1]:7");
    }

    #[test]
    fn errors_say_where() {
        let many: String = (0..5000).map(|n| format!("10.0.0.1:{}\n", n + 1)).collect();
        for (text, expected) in [
            ("", "line 1: nothing"),
            ("# only\n", "line 1: nothing"),
            ("a:1\n\na:1\n", "line 3: \"a:1\": expected each address once"),
            ("a:1 weight\n", "line 1: \"weight\": expected key=value"),
            ("a:1 weight=x\n", "line 1: weight: \"x\": expected a whole number"),
            ("a:1 role=boss\n", "line 1: role: \"boss\": expected primary or replica"),
            ("[\n\"a:1\",\n", "EOF while parsing a value at line 3"),
            ("[\"a:1\" \"b:1\"]", "expected `,` or `]` at line 1 column 8"),
            ("{}", "line 1: expected an array"),
            ("[\"a:1\", 7]", "entry 1: 7: expected host:port"),
            ("[{\"adress\": \"a:1\"}]", "entry 0: adress: \"a:1\": expected no such key"),
            ("[{\"address\": \"a:1\", \"weight\": 1.5}]", "entry 0: weight: 1.5: expected a whole number"),
            (many.as_str(), "line 4097: more than 4096 peers"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
