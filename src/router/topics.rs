//! Who listens to what: many streams share one subscription of one conn.

use std::collections::HashMap;

use crate::proto::RequestId;

#[derive(Default)]
struct Topic {
    streams: Vec<RequestId>,
    flowing: bool,
    /// Asked for on the conn that carries topics at present.
    asked: bool,
}

#[derive(Default)]
struct Stream {
    topics: Vec<Box<[u8]>>,
    accepted: bool,
}

/// Both directions of the relation, kept in step.
#[derive(Default)]
pub struct Topics {
    topics: HashMap<Box<[u8]>, Topic>,
    streams: HashMap<RequestId, Stream>,
}

impl Topics {
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub fn add(&mut self, stream: RequestId, topics: Vec<Vec<u8>>) {
        let mut own: Vec<Box<[u8]>> = topics.into_iter().map(Vec::into_boxed_slice).collect();
        own.sort_unstable();
        own.dedup();
        for topic in &own {
            self.topics.entry(topic.clone()).or_default().streams.push(stream);
        }
        self.streams.insert(stream, Stream { topics: own, accepted: false });
    }

    /// Forgets a stream. The topics that nobody hears any more, of those that were asked for.
    pub fn remove(&mut self, stream: RequestId) -> Vec<Box<[u8]>> {
        let mut silent = Vec::new();
        for topic in self.streams.remove(&stream).map(|stream| stream.topics).unwrap_or_default() {
            let Some(entry) = self.topics.get_mut(&topic) else { continue };
            entry.streams.retain(|other| *other != stream);
            if entry.streams.is_empty() {
                let asked = entry.asked;
                self.topics.remove(&topic);
                silent.extend(asked.then_some(topic));
            }
        }
        silent
    }

    pub fn contains(&self, stream: RequestId) -> bool {
        self.streams.contains_key(&stream)
    }

    pub fn listeners(&self, topic: &[u8]) -> &[RequestId] {
        self.topics.get(topic).map_or(&[], |topic| &topic.streams)
    }

    /// Topics that are still to be asked for; they count as asked from here on.
    pub fn ask(&mut self) -> Vec<Box<[u8]>> {
        let unasked = self.topics.iter_mut().filter(|(_, topic)| !topic.asked);
        unasked
            .map(|(name, topic)| {
                topic.asked = true;
                name.clone()
            })
            .collect()
    }

    /// A topic flows.
    pub fn flows(&mut self, topic: &[u8]) {
        if let Some(entry) = self.topics.get_mut(topic) {
            entry.flowing = true;
        }
    }

    /// The streams whose topics all flow and that were not told yet.
    pub fn to_accept(&mut self) -> Vec<RequestId> {
        let topics = &self.topics;
        let complete = |stream: &Stream| {
            !stream.accepted && stream.topics.iter().all(|name| topics.get(name).is_some_and(|topic| topic.flowing))
        };
        let standing = self.streams.iter_mut().filter(|(_, stream)| complete(stream));
        standing
            .map(|(id, stream)| {
                stream.accepted = true;
                *id
            })
            .collect()
    }

    /// The conn is gone: every topic is to be asked for again.
    pub fn forget_conn(&mut self) {
        for topic in self.topics.values_mut() {
            (topic.flowing, topic.asked) = (false, false);
        }
        for stream in self.streams.values_mut() {
            stream.accepted = false;
        }
    }

    pub fn streams(&self) -> Vec<RequestId> {
        self.streams.keys().copied().collect()
    }
}
