//! Where a request belongs: the slot of its keys in a cluster, and the hash of its first key for a ring of servers.
use super::commands::bad_request;
use super::encode::{self, Head, malformed};
use super::keys::{self, Keys, Part};
use crate::proto::{Refusal, Route};
use crate::value::{Reader, Token};

/// Slots of a cluster.
pub const SLOTS: u16 = 16384;

/// CRC16 of each byte: XMODEM, which the cluster specification chose (polynomial 0x1021, from 0, nothing reflected).
static CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

/// What decides where a key lives: what stands between the first `{` and the next `}`, unless that is nothing.
fn tag(key: &[u8]) -> &[u8] {
    let tagged = memchr::memchr(b'{', key).and_then(|open| {
        let rest = &key[open + 1..];
        memchr::memchr(b'}', rest).map(|close| &rest[..close])
    });
    tagged.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

pub fn slot(key: &[u8]) -> u16 {
    crc16(tag(key)) % SLOTS
}

/// FNV-1a of 64 bits over the key or its hash tag, then the last step of MurmurHash3, which lets every bit depend on every
/// byte. Programs of any version that share a ring of servers must agree on it, so it never changes.
pub fn hash(key: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = tag(key).iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The route of a request whose class was judged. `slots`: keys must share one, and what concerns every node is refused.
#[inline(never)]
pub fn route(body: &[u8], slots: bool, hashes: bool) -> Result<Route, Refusal> {
    let mut reader = Reader::new(body);
    let mut finder = Finder { slots, hashes, route: Route::default(), first: None, batch: None };
    match encode::head(&mut reader)? {
        Head::Command(count, name) => finder.command(encode::command_name(name)?, &reader, count - 1)?,
        Head::Batch(count, first) => {
            for index in 0..count {
                let members = if index == 0 { first } else { encode::member_count(&mut reader, index)? };
                finder.batch = Some(index);
                finder.member(&mut reader, members)?;
            }
        }
    }
    Ok(finder.route)
}

/// The command that gave the request its slot: its place in the batch, and its name.
type First = (Option<u32>, String);

struct Finder {
    slots: bool,
    hashes: bool,
    route: Route,
    first: Option<First>,
    /// The place of the command at hand.
    batch: Option<u32>,
}

impl Finder {
    fn member(&mut self, reader: &mut Reader<'_>, members: u32) -> Result<(), Refusal> {
        if members == 0 {
            return Err(bad_request("a command of the batch is empty"));
        }
        let name: Token<'_> = reader.token().map_err(malformed)?;
        self.command(encode::command_name(name)?, reader, members - 1)?;
        for _ in 1..members {
            reader.token().map_err(malformed)?;
        }
        Ok(())
    }

    fn command(&mut self, name: &[u8], arguments: &Reader<'_>, count: u32) -> Result<(), Refusal> {
        let keys = keys::rule(name, arguments, count);
        if keys == Keys::Fanout && self.slots {
            return Err(fanout(&shown(self.batch, name)));
        }
        keys::each(keys, arguments, count, &mut |part| self.part(name, part))
    }

    fn part(&mut self, name: &[u8], part: Part<'_>) -> Result<(), Refusal> {
        if let (true, None, Part::Key(text) | Part::Channel(text)) = (self.hashes, self.route.hash, part) {
            self.route.hash = Some(hash(text));
        }
        let slot = match part {
            Part::Key(key) if self.slots => slot(key),
            Part::Slot(slot) if self.slots => slot,
            _ => return Ok(()),
        };
        match self.route.slot {
            None => {
                self.route.slot = Some(slot);
                // Only a batch can meet another name.
                self.first = self.batch.map(|index| (Some(index), upper(name)));
                Ok(())
            }
            Some(known) if known == slot => Ok(()),
            Some(known) => Err(self.cross_slot(name, known, slot)),
        }
    }

    #[cold]
    fn cross_slot(&self, name: &[u8], known: u16, slot: u16) -> Refusal {
        let here = shown(self.batch, name);
        let whose = match &self.first {
            Some((index, first)) if *index != self.batch => {
                format!("the keys of {} and {here}", shown(*index, first.as_bytes()))
            }
            _ => format!("the keys of {here}"),
        };
        let message = format!(
            "{whose} lie in different slots, {known} and {slot}: give them one hash tag, as in {{user7}}:name and \
             {{user7}}:mail, or send separate requests"
        );
        Refusal { code: "CROSSSLOT", message }
    }
}

#[cold]
fn fanout(name: &str) -> Refusal {
    let message = format!(
        "{name} concerns each node and not a key: open the node itself, as in redis://host:port, and ask there"
    );
    Refusal { code: "FANOUT", message }
}

fn upper(name: &[u8]) -> String {
    name.to_ascii_uppercase().escape_ascii().to_string()
}

/// `MGET`, or `command 2 of the batch (MGET)`.
fn shown(index: Option<u32>, name: &[u8]) -> String {
    match index {
        None => upper(name),
        Some(index) => format!("command {index} of the batch ({})", upper(name)),
    }
}
