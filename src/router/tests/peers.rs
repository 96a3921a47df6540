//! Peers that come, move, go, fail and are preferred.

use super::*;
use crate::peer::Wanted;
use crate::router::balance::Balance;

fn two() -> Scene {
    let mut scene = Scene::of(config(), &[peer(1), peer(2)]);
    [A, B].iter().for_each(|name| scene.ready(scene.to(name)));
    scene
}

#[test]
fn a_replacement_connects_before_traffic_moves_and_the_old_peer_drains() {
    let mut scene = Scene::of(config(), &[peer(1)]);
    let old = scene.to(A);
    scene.ready(old);
    scene.peers(&[peer(2)]);
    let new = scene.to(B);
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(old), "nobody else can serve yet");
    scene.act.tenancies.insert(old, (1, Tenancy::Clean));
    scene.ready(new);
    scene.ask(2, Class::Shared, 0);
    assert_eq!(scene.went(2), Some(new));
    assert!(scene.act.dropped.is_empty(), "a reply is under way");
    assert_eq!(scene.names(), [A, B]);
    scene.act.tenancies.remove(&old);
    scene.replied(1);
    assert_eq!((scene.act.dropped.as_slice(), scene.names()), (&[old][..], vec![B.to_string()]));
}

#[test]
fn a_peer_that_does_not_drain_is_closed_in_time() {
    let mut scene = Scene::of(config(), &[peer(1)]);
    let old = scene.to(A);
    scene.ready(old);
    scene.act.tenancies.insert(old, (1, Tenancy::Clean));
    scene.peers(&[peer(2)]);
    scene.ready(scene.to(B));
    let begun = scene.now;
    scene.sleep();
    assert_eq!((scene.act.dropped.as_slice(), scene.now - begun), (&[old][..], config().drain));
    assert_eq!(scene.names(), [B]);
}

fn at(last: u8) -> Place {
    Place::Tcp(format!("10.0.0.{last}:7").parse().unwrap())
}

fn named(last: u8) -> Peer {
    Peer::new("cache:7", vec![at(last)])
}

/// A name that leads elsewhere since its conn stood: that conn.
fn moved() -> (Scene, ConnId) {
    let mut scene = Scene::of(config(), &[named(1)]);
    let old = scene.to("cache:7");
    scene.act.places.insert(old, at(1));
    scene.ready(old);
    scene.peers(&[named(2)]);
    (scene, old)
}

#[test]
fn a_peer_that_moves_is_served_by_its_old_place_until_the_other_is_ready() {
    let (mut scene, old) = moved();
    let new = scene.to("cache:7");
    assert_ne!(old, new);
    scene.act.places.insert(new, at(2));
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(old));
    scene.ready(new);
    scene.ask(2, Class::Shared, 0);
    assert_eq!((scene.went(2), scene.act.dropped.as_slice()), (Some(new), &[old][..]));
}

#[test]
fn a_place_that_comes_back_is_not_left() {
    let (mut scene, old) = moved();
    scene.peers(&[named(1)]);
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(old));
    assert!(!scene.act.dropped.contains(&old));
}

#[test]
fn a_peer_that_serves_nobody_is_left_alone_for_a_while() {
    let mut scene = two();
    let (bad, good) = (scene.to(A), scene.to(B));
    scene.ask(1, Class::Shared, 0);
    let first = scene.went(1).unwrap();
    let other = if first == bad { good } else { bad };
    assert!(scene.rejected(first, 1, Route::default(), Rejection::NotServing));
    assert_eq!(scene.went(1), Some(other), "another peer takes it");
    (2..20).for_each(|id| scene.ask(id, Class::Shared, 0));
    assert!((2..20).all(|id| scene.went(id) == Some(other)));
    assert_eq!(scene.word(), "degraded");
    scene.sleep();
    assert_eq!(scene.word(), "up");
    (20..60).for_each(|id| scene.ask(id, Class::Shared, 0));
    assert!((20..60).any(|id| scene.went(id) == Some(first)), "it is asked again");
}

#[test]
fn a_peer_that_serves_nobody_costs_no_timer_once_it_is_asked_again() {
    let mut scene = Scene::up();
    scene.ask(1, Class::Shared, 0);
    assert!(scene.rejected(SHARED, 1, Route::default(), Rejection::NotServing));
    assert_eq!(scene.went(1), None);
    scene.sleep();
    assert_eq!(scene.went(1), Some(SHARED));
    assert!(scene.service.poll_timeout().is_none_or(|next| next > scene.now));
}

#[test]
fn redirects_name_nobody_where_slots_are_not_followed() {
    let mut scene = Scene::up();
    scene.ask(1, Class::Shared, 0);
    assert!(!scene.rejected(SHARED, 1, Route::default(), Rejection::Moved { slot: 1, to: B, once: false }));
    assert_eq!(scene.names(), [A]);
}

#[test]
fn a_hash_stays_with_its_peer_and_only_those_of_a_lost_peer_move() {
    let config = ServiceConfig { balance: Balance::Hash, queue_max: 1000, ..config() };
    let mut scene = Scene::of(config, &[peer(1), peer(2), peer(3)]);
    [A, B, C].iter().for_each(|name| scene.ready(scene.to(name)));
    let ask = |scene: &mut Scene, id: u64, hash: u64| {
        scene.ask_at(id, Route { slot: None, hash: Some(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)) });
        scene.went(id).unwrap()
    };
    let before: Vec<ConnId> = (0..90).map(|hash| ask(&mut scene, hash + 1, hash)).collect();
    let again: Vec<ConnId> = (0..90).map(|hash| ask(&mut scene, hash + 101, hash)).collect();
    assert_eq!(before, again);
    let lost = scene.to(C);
    scene.down(lost, false);
    for (hash, was) in before.into_iter().enumerate() {
        let now = ask(&mut scene, hash as u64 + 201, hash as u64);
        assert!(now == was || was == lost && now != lost);
    }
}

#[test]
fn a_lane_is_no_use_to_whom_another_peer_owns() {
    let config = ServiceConfig { balance: Balance::Hash, lanes_max: 8, ..config() };
    let mut scene = Scene::of(config, &[peer(1), peer(2)]);
    [A, B].iter().for_each(|name| scene.ready(scene.to(name)));
    let mut lanes: HashMap<String, ConnId> = HashMap::new();
    for id in 1..=24u64 {
        let route = Route { slot: None, hash: Some(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)) };
        let need = Need { class: Class::Waiting, idempotent: false, route };
        let dialled = scene.act.dialled.len();
        scene.service.handle_request(scene.now, RequestId(id), need, 0, &mut scene.act);
        if let Some(lane) = scene.act.dialled.get(dialled).copied() {
            assert!(lanes.insert(scene.act.peers[dialled].clone(), lane).is_none(), "its idle lane would have done");
            scene.ready(lane);
        }
        scene.replied(id);
    }
    assert_eq!(lanes.len(), 2);
}

#[test]
fn the_best_group_that_can_serve_does() {
    let of = |last: u8, priority: u16| Peer { priority, ..peer(last) };
    let mut scene = Scene::of(config(), &[of(1, 1), of(2, 2)]);
    let (best, next) = (scene.to(A), scene.to(B));
    scene.ready(next);
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(next));
    scene.ready(best);
    (2..10).for_each(|id| scene.ask(id, Class::Shared, 0));
    assert!((2..10).all(|id| scene.went(id) == Some(best)));
    scene.down(best, false);
    scene.ask(10, Class::Shared, 0);
    assert_eq!(scene.went(10), Some(next));
}

#[test]
fn topics_move_with_the_peer_that_carries_them() {
    let mut scene = Scene::of(config(), &[peer(1)]);
    let old = scene.to(A);
    scene.ready(old);
    scene.ask(1, Class::Topics(vec![b"t".to_vec()]), 0);
    scene.service.handle_topic(scene.now, old, b"t", None, &mut scene.act);
    assert_eq!(scene.act.accepted, [1]);
    scene.peers(&[peer(2)]);
    assert_eq!(scene.act.topics.len(), 1, "it stays while nobody else serves");
    let new = scene.to(B);
    scene.ready(new);
    assert_eq!(scene.act.topics[1..], [(old, false, b"t".to_vec()), (new, true, b"t".to_vec())]);
    scene.service.handle_topic(scene.now, new, b"t", None, &mut scene.act);
    assert_eq!(scene.service.listeners(new, b"t"), [RequestId(1)]);
    assert!(scene.act.dropped.contains(&old));
}

#[test]
fn pools_have_their_conns_and_requests_are_spread_over_them() {
    let config = ServiceConfig { pool: 2, wanted: Wanted::Any, ..config() };
    let mut scene = Scene::of(config, &[peer(1)]);
    assert_eq!(scene.act.dialled.len(), 2);
    let conns = scene.act.dialled.clone();
    conns.iter().for_each(|conn| scene.ready(*conn));
    scene.act.tenancies.insert(conns[0], (3, Tenancy::Clean));
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(conns[1]));
    scene.down(conns[1], false);
    scene.ask(2, Class::Shared, 0);
    assert_eq!(scene.went(2), Some(conns[0]));
}

#[test]
fn a_refused_lane_ends_nothing_that_a_conn_can_serve() {
    let mut scene = Scene::up();
    scene.ask(1, Class::Waiting, 0);
    scene.down(ConnId(2), true);
    assert_eq!((scene.act.failed.as_slice(), scene.word()), (&[][..], "up"));
    scene.act.full = true;
    scene.ask(2, Class::Shared, 0);
    scene.act.full = false;
    scene.progress(SHARED);
    assert_eq!(scene.went(2), Some(SHARED));
}

#[test]
fn a_stream_that_took_a_conn_over_leaves_with_its_peer() {
    let mut scene = Scene::of(config(), &[peer(1)]);
    scene.ready(scene.to(A));
    scene.ask(1, Class::Takeover, 0);
    let lane = *scene.act.dialled.last().unwrap();
    scene.ready(lane);
    assert_eq!(scene.went(1), Some(lane));
    scene.peers(&[peer(2)]);
    scene.ready(scene.to(B));
    assert!(scene.act.dropped.contains(&lane));
    assert_eq!(scene.names(), [B]);
    let next = *scene.act.dialled.last().unwrap();
    scene.ready(next);
    assert_eq!((scene.went(1), scene.act.peers.last().map(String::as_str)), (Some(next), Some(B)));
}

#[test]
fn what_waits_in_a_peer_that_leaves_has_the_time_for_draining_and_no_more() {
    let mut scene = Scene::of(config(), &[peer(1)]);
    scene.ready(scene.to(A));
    scene.ask(1, Class::Waiting, 0);
    let waits = *scene.act.dialled.last().unwrap();
    scene.ready(waits);
    scene.lease(2);
    let leased = *scene.act.dialled.last().unwrap();
    scene.ready(leased);
    scene.peers(&[peer(2)]);
    scene.ready(scene.to(B));
    assert!(!scene.act.dropped.contains(&waits) && !scene.act.dropped.contains(&leased));
    let begun = scene.now;
    scene.sleep();
    assert_eq!(scene.now - begun, config().drain);
    assert!(scene.act.dropped.contains(&waits) && scene.act.dropped.contains(&leased));
    assert_eq!(scene.names(), [B]);
    scene.ask(3, Class::Shared, 1);
    assert_eq!(scene.act.failed, [(3, IOK_STATUS_LOST)]);
}
