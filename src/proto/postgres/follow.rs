//! What the router wants to know of the peer: its role.
use super::session::{Phase, Session};
use super::units::Kind;
use super::wire;
use crate::peer::Role;
use crate::proto::{Event, Fact, Follow, Out};

/// A standby is in recovery; a primary that was told to take no writes is none to its callers. The name of the file that a
/// primary writes to begins with its timeline, which every promotion counts up (PostgreSQL 15 documentation, 26.3.5).
const QUESTION: &[u8] = b"SELECT pg_catalog.pg_is_in_recovery(), \
    pg_catalog.current_setting('default_transaction_read_only'), CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
    THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END";
/// For servers that do not tell it: those before 10, and others that speak this protocol.
const SHORT_QUESTION: &[u8] =
    b"SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')";

/// What a server told of its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    standby: bool,
    read_only: bool,
    timeline: Option<u64>,
}

impl Told {
    /// A row of the answer.
    pub fn read(row: &[Option<&[u8]>]) -> Option<Self> {
        let [Some(standby), Some(read_only), more @ ..] = row else { return None };
        let file = more.first().copied().flatten().and_then(|name| name.get(..8));
        let digits = file.and_then(|digits| std::str::from_utf8(digits).ok());
        let timeline = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        Some(Told { standby: *standby == b"t", read_only: *read_only == b"on", timeline })
    }
}

impl Session {
    pub fn ask_role(&mut self, wire: &mut Vec<u8>) {
        wire::query(wire, if self.asks_timeline { QUESTION } else { SHORT_QUESTION });
        self.units.push(Kind::Role);
    }

    /// Asks at once, unless the question would become part of a tenant's transaction.
    #[cold]
    pub fn probe(&mut self, wire: &mut Vec<u8>) {
        if self.limits.follow == Follow::Roles && self.may_ask() && !self.state.tenant {
            self.ask_role(wire);
        }
    }

    /// True: it is asked once more.
    pub fn role_told(&mut self, told: Option<Told>, failed: bool, out: &mut Out<'_>) -> bool {
        if failed && std::mem::take(&mut self.asks_timeline) {
            self.ask_role(out.wire);
            return true;
        }
        let role = match told {
            None => Role::Unknown,
            Some(Told { standby: false, read_only: false, timeline }) => {
                if let Some(timeline) = timeline {
                    out.events.emit(Event::Fact(Fact::Reign(timeline)));
                }
                Role::Primary
            }
            Some(_) => Role::Replica,
        };
        emit_role(role, out);
        false
    }

    /// The server said by itself that it is a standby, or no longer one: what it is then it is asked.
    pub fn role_moved(&mut self, out: &mut Out<'_>) {
        match self.server.standby {
            Some(true) if self.limits.follow == Follow::Roles => emit_role(Role::Replica, out),
            _ => self.probe(out.wire),
        }
    }

    pub fn ready(&mut self, out: &mut Out<'_>) {
        self.phase = Phase::Ready;
        let description = self.server.describe();
        out.events.emit(Event::Fact(Fact::Ready { topics_beside_requests: true, description: &description }));
    }
}

fn emit_role(role: Role, out: &mut Out<'_>) {
    out.events.emit(Event::Fact(Fact::Role { role, follows: None }));
}

/// An error showed that the peer takes no writes.
#[cold]
pub fn emit_replica(out: &mut Out<'_>) {
    emit_role(Role::Replica, out);
}
