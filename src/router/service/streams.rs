//! Topics: on a shared conn of a peer that serves, or on one more conn where pushes and requests cannot mix.

use std::time::Instant;

use super::members::MemberId;
use super::{Part, Service, refuse};
use crate::proto::RequestId;
use crate::router::{Act, ConnId};
use crate::status::IOK_STATUS_REMOTE;

/// How often a topic is asked for where its slot's owner may have changed.
const TRIES_MAX: u32 = 8;

impl Service {
    pub(super) fn add_stream(
        &mut self,
        now: Instant,
        stream: RequestId,
        topics: Vec<Vec<u8>>,
        slot: Option<u16>,
        act: &mut dyn Act,
    ) {
        if let Some(down) = self.refusal().cloned() {
            return refuse(act, stream, &down);
        }
        self.topics.add(stream, topics, slot);
        self.ask_topics(now, act);
    }

    /// The peer whose pushes a topic comes by: the same for as long as it will do.
    fn topic_member(&mut self, slot: Option<u16>) -> Option<MemberId> {
        let able = self.slots.able(slot).unwrap_or(&self.able);
        if slot.is_some() {
            return able.first().copied();
        }
        if let Some(kept) = self.topics_member.filter(|id| able.contains(id)) {
            return Some(kept);
        }
        self.topics_member = (!able.is_empty()).then(|| able[self.rng.usize(..able.len())]);
        self.topics_member
    }

    /// A conn of that peer that can carry topics; one is dialled if there is none.
    fn topic_conn(&mut self, now: Instant, id: MemberId, act: &mut dyn Act) -> Option<ConnId> {
        let of = |part: Part| move |conn: &ConnId, service: &Self| service.conns[conn].part == part;
        let shared = self
            .members
            .get(&id)?
            .ready
            .iter()
            .copied()
            .find(|conn| of(Part::Shared)(conn, self) && self.conns[conn].topics_beside_requests);
        if shared.is_some() {
            return shared;
        }
        // A conn of the place that the peer left is better than a gap.
        let stale = self.members.get(&id)?.ready.iter().copied();
        if let Some(conn) = stale.clone().find(|conn| self.conns[conn].topics_beside_requests) {
            return Some(conn);
        }
        let own = self.conns.iter().find(|(_, held)| held.member == id && held.part == Part::Topics);
        match own.map(|(conn, held)| (*conn, held.ready)) {
            Some((conn, true)) => return Some(conn),
            Some((_, false)) => return None,
            None => {}
        }
        if self.members.get_mut(&id)?.backoff.may_try(now) {
            self.dial(id, Part::Topics, act);
        }
        None
    }

    pub(super) fn ask_topics(&mut self, now: Instant, act: &mut dyn Act) {
        if self.topics.is_empty() {
            return;
        }
        for (topic, slot) in self.topics.unasked() {
            let Some(id) = self.topic_member(slot) else { continue };
            let Some(conn) = self.topic_conn(now, id, act) else { continue };
            self.topics.asked(&topic, conn);
            act.subscribe(conn, &topic);
        }
        self.accept_streams(act);
    }

    /// Topics on conns of peers that do not serve them any more go elsewhere.
    pub(super) fn move_topics(&mut self, now: Instant, act: &mut dyn Act) {
        if self.topics.is_empty() {
            return;
        }
        for (topic, slot, conn) in self.topics.homes() {
            let Some(held) = self.conns.get(&conn).copied() else {
                self.topics.forget(&topic);
                continue;
            };
            let draining = matches!(held.part, Part::Draining(_));
            let next = self.topic_member(slot);
            // Nobody better: it stays where it flows.
            if !draining && next.is_none_or(|next| next == held.member) {
                continue;
            }
            self.topics.forget(&topic);
            act.unsubscribe(conn, &topic);
        }
        self.ask_topics(now, act);
        self.drop_topic_conns(act);
    }

    /// Closes conns for topics alone that carry none.
    fn drop_topic_conns(&mut self, act: &mut dyn Act) {
        let unused: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(conn, held)| held.part == Part::Topics && held.ready && !self.topics.uses(**conn))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in unused {
            self.drop_conn(conn, "it carries no topics any more", act);
        }
    }

    fn accept_streams(&mut self, act: &mut dyn Act) {
        for stream in self.topics.to_accept() {
            act.accept(stream);
        }
    }

    pub(super) fn drop_stream(&mut self, stream: RequestId, act: &mut dyn Act) {
        for (conn, topic) in self.topics.remove(stream) {
            act.unsubscribe(conn, &topic);
        }
    }

    pub(super) fn topic_moved(
        &mut self,
        now: Instant,
        conn: ConnId,
        topic: &[u8],
        end: Option<(&str, &str)>,
        act: &mut dyn Act,
    ) {
        let Some((code, message)) = end else {
            if self.topics.flows(conn, topic) {
                self.accept_streams(act);
            }
            return;
        };
        let homes = self.topics.homes();
        let Some((_, slot, _)) = homes.iter().find(|(name, _, home)| **name == *topic && *home == conn) else { return };
        if slot.is_some() && self.topics.tries(topic) < TRIES_MAX {
            // Its slot has moved: whoever owns it is asked once that is known.
            self.topics.forget(topic);
            self.slots.doubt(now);
            return self.refresh_topology(now, act);
        }
        for stream in self.topics.listeners(conn, topic).to_vec() {
            self.drop_stream(stream, act);
            act.fail(stream, IOK_STATUS_REMOTE, code, message);
        }
    }
}
