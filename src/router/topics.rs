//! Who listens to what, and on which conn it flows: many streams share one subscription.

use std::collections::{BTreeMap, HashMap};

use super::ConnId;
use crate::proto::RequestId;

#[derive(Default)]
struct Topic {
    streams: Vec<RequestId>,
    slot: Option<u16>,
    /// Where it was asked for.
    conn: Option<ConnId>,
    flowing: bool,
    /// How often it was asked for since it flowed last.
    tries: u32,
}

#[derive(Default)]
struct Stream {
    topics: Vec<Box<[u8]>>,
    accepted: bool,
}

/// Both directions of the relation, kept in step.
#[derive(Default)]
pub struct Topics {
    topics: BTreeMap<Box<[u8]>, Topic>,
    streams: HashMap<RequestId, Stream>,
}

impl Topics {
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// `slot`: that of every topic, where slots are followed.
    pub fn add(&mut self, stream: RequestId, topics: Vec<Vec<u8>>, slot: Option<u16>) {
        let mut own: Vec<Box<[u8]>> = topics.into_iter().map(Vec::into_boxed_slice).collect();
        own.sort_unstable();
        own.dedup();
        for topic in &own {
            let entry = self.topics.entry(topic.clone()).or_default();
            entry.streams.push(stream);
            entry.slot = slot;
        }
        self.streams.insert(stream, Stream { topics: own, accepted: false });
    }

    /// Forgets a stream. The topics that nobody hears any more, of those that were asked for, and where.
    pub fn remove(&mut self, stream: RequestId) -> Vec<(ConnId, Box<[u8]>)> {
        let mut silent = Vec::new();
        for topic in self.streams.remove(&stream).map(|stream| stream.topics).unwrap_or_default() {
            let Some(entry) = self.topics.get_mut(&topic) else { continue };
            entry.streams.retain(|other| *other != stream);
            if entry.streams.is_empty() {
                let conn = entry.conn;
                self.topics.remove(&topic);
                silent.extend(conn.map(|conn| (conn, topic)));
            }
        }
        silent
    }

    pub fn contains(&self, stream: RequestId) -> bool {
        self.streams.contains_key(&stream)
    }

    pub fn listeners(&self, conn: ConnId, topic: &[u8]) -> &[RequestId] {
        self.topics.get(topic).filter(|topic| topic.conn == Some(conn)).map_or(&[], |topic| &topic.streams)
    }

    /// The topics that are asked for nowhere, and their slots.
    pub fn unasked(&self) -> Vec<(Box<[u8]>, Option<u16>)> {
        let unasked = self.topics.iter().filter(|(_, topic)| topic.conn.is_none());
        unasked.map(|(name, topic)| (name.clone(), topic.slot)).collect()
    }

    pub fn asked(&mut self, topic: &[u8], conn: ConnId) {
        if let Some(entry) = self.topics.get_mut(topic) {
            entry.conn = Some(conn);
            entry.tries += 1;
        }
    }

    /// Where each asked topic travels: its name, slot and conn.
    pub fn homes(&self) -> Vec<(Box<[u8]>, Option<u16>, ConnId)> {
        let asked = self.topics.iter().filter_map(|(name, topic)| Some((name.clone(), topic.slot, topic.conn?)));
        asked.collect()
    }

    /// True if any topic travels on this conn.
    pub fn uses(&self, conn: ConnId) -> bool {
        self.topics.values().any(|topic| topic.conn == Some(conn))
    }

    /// A topic flows on this conn. False if it is not expected there.
    pub fn flows(&mut self, conn: ConnId, topic: &[u8]) -> bool {
        let Some(entry) = self.topics.get_mut(topic).filter(|entry| entry.conn == Some(conn)) else { return false };
        (entry.flowing, entry.tries) = (true, 0);
        true
    }

    /// How often a topic was asked for in vain.
    pub fn tries(&self, topic: &[u8]) -> u32 {
        self.topics.get(topic).map_or(0, |topic| topic.tries)
    }

    /// The streams whose topics all flow and that were not told yet.
    pub fn to_accept(&mut self) -> Vec<RequestId> {
        let topics = &self.topics;
        let complete = |stream: &Stream| {
            !stream.accepted && stream.topics.iter().all(|name| topics.get(name).is_some_and(|topic| topic.flowing))
        };
        let standing = self.streams.iter_mut().filter(|(_, stream)| complete(stream));
        let mut told: Vec<RequestId> = standing
            .map(|(id, stream)| {
                stream.accepted = true;
                *id
            })
            .collect();
        told.sort_unstable();
        told
    }

    /// One topic is to be asked for again.
    pub fn forget(&mut self, topic: &[u8]) {
        let Some(entry) = self.topics.get_mut(topic) else { return };
        (entry.conn, entry.flowing) = (None, false);
        for stream in &entry.streams {
            if let Some(stream) = self.streams.get_mut(stream) {
                stream.accepted = false;
            }
        }
    }

    /// A conn is gone: what it carried is to be asked for again.
    pub fn forget_conn(&mut self, conn: ConnId) {
        let carried = self.topics.iter().filter(|(_, topic)| topic.conn == Some(conn));
        for name in carried.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.forget(&name);
        }
    }

    pub fn streams(&self) -> Vec<RequestId> {
        let mut streams: Vec<RequestId> = self.streams.keys().copied().collect();
        streams.sort_unstable();
        streams
    }
}
