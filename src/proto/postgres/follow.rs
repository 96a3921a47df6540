//! What the router wants to know of the peer: its role.
use super::session::{Phase, Session};
use super::units::Kind;
use super::wire;
use crate::peer::Role;
use crate::proto::{Event, Fact, Follow, Out};

/// A standby is in recovery; a primary that was told to take no writes is none to its callers.
const QUESTION: &[u8] =
    b"SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')";

impl Session {
    pub fn ask_role(&mut self, wire: &mut Vec<u8>) {
        wire::query(wire, QUESTION);
        self.units.push(Kind::Role);
    }

    /// Asks at once, unless the question would become part of a tenant's transaction.
    #[cold]
    pub fn probe(&mut self, wire: &mut Vec<u8>) {
        if self.limits.follow == Follow::Roles && self.may_ask() && !self.state.tenant {
            self.ask_role(wire);
        }
    }

    pub fn role_told(&mut self, told: Option<(bool, bool)>, out: &mut Out<'_>) {
        emit_role(
            match told {
                None => Role::Unknown,
                Some((false, false)) => Role::Primary,
                Some(_) => Role::Replica,
            },
            out,
        );
    }

    /// The server said by itself that it is a standby, or no longer one.
    pub fn role_moved(&mut self, out: &mut Out<'_>) {
        if self.limits.follow == Follow::Roles
            && let Some(standby) = self.server.standby
        {
            emit_role(if standby { Role::Replica } else { Role::Primary }, out);
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
