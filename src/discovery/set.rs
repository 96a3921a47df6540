//! What a source has published: the kernel hears of a set only when it differs from the last one.

use std::collections::{HashMap, HashSet};

use super::Ask;
use crate::peer::{Peer, Place};

/// The last set that the kernel was given. `None` before the first.
#[derive(Debug, Default)]
pub struct Published(Option<Vec<Peer>>);

impl Published {
    /// Hands over the set if it is another one. Of peers with one name, the first counts.
    pub fn publish(&mut self, mut peers: Vec<Peer>, ask: &mut dyn Ask) {
        let mut names = HashSet::new();
        peers.retain(|peer| names.insert(peer.name.clone()));
        if !self.0.as_ref().is_some_and(|known| alike(known, &peers)) {
            self.0 = Some(peers.clone());
            ask.set_peers(peers);
        }
    }

    pub fn peers(&self) -> &[Peer] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// The same peers in any order, and the same places of each in any order: servers rotate their answers.
fn alike(one: &[Peer], other: &[Peer]) -> bool {
    let known: HashMap<&str, &Peer> = one.iter().map(|peer| (peer.name.as_str(), peer)).collect();
    let same = |peer: &Peer| known.get(peer.name.as_str()).is_some_and(|known| alike_peer(known, peer));
    one.len() == other.len() && other.iter().all(same)
}

fn alike_peer(one: &Peer, other: &Peer) -> bool {
    let terms = |peer: &Peer| (peer.priority, peer.weight, peer.role, peer.places.len());
    let places: HashSet<&Place> = one.places.iter().collect();
    terms(one) == terms(other) && other.places.iter().all(|place| places.contains(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::script::Script;
    use crate::peer::Role;

    #[test]
    fn a_rotated_set_is_the_same_and_every_other_difference_counts() {
        let (mut script, mut published) = (Script::default(), Published::default());
        let place = |text: &str| Place::Tcp(text.parse().unwrap());
        let name = |places| Peer::new("a:7", places);
        let set = vec![name(vec![place("10.0.0.1:7"), place("10.0.0.2:7")]), Peer::at("10.0.0.3", 7)];
        published.publish(set.clone(), &mut script);
        published.publish(set.iter().rev().cloned().collect(), &mut script);
        let turned = name(vec![place("10.0.0.2:7"), place("10.0.0.1:7")]);
        published.publish(vec![turned.clone(), set[1].clone(), turned], &mut script);
        assert_eq!(script.sets.len(), 1);
        let changes = [
            vec![set[0].clone()],
            vec![set[0].clone(), Peer { weight: 2, ..set[1].clone() }],
            vec![set[0].clone(), Peer { role: Role::Primary, ..set[1].clone() }],
            vec![name(vec![place("10.0.0.1:7")]), set[1].clone()],
            Vec::new(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            published.publish(change, &mut script);
            assert_eq!(script.sets.len(), number + 2);
        }
    }
}
