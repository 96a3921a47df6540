//! Services divided by slots.

use super::*;
use crate::peer::Wanted;
use crate::proto::Shard;

fn shard(primary: &str, slots: (u16, u16)) -> Shard {
    Shard { slots: vec![slots], primary: primary.into(), replicas: Vec::new() }
}

fn slot(slot: u16) -> Route {
    Route { slot: Some(slot), hash: None }
}

fn tell(scene: &mut Scene, conn: ConnId, shards: &[Shard]) {
    scene.service.handle_fact(scene.now, conn, &Fact::Topology(shards), &mut scene.act);
}

/// A owns the lower half, B the upper.
fn cluster() -> Scene {
    let config = ServiceConfig { topology: true, wanted: Wanted::Primary, ..config() };
    let mut scene = Scene::of(config, &[peer(1)]);
    let a = scene.to(A);
    scene.ready(a);
    assert_eq!(scene.act.probed, [a], "the first to be ready is asked who owns what");
    assert!(!scene.service.is_up());
    tell(&mut scene, a, &[shard(A, (0, 8191)), shard(B, (8192, 16_383))]);
    scene
}

#[test]
fn requests_go_to_whoever_owns_their_slot() {
    let mut scene = cluster();
    scene.ask_at(1, slot(9000));
    assert_eq!((scene.went(1), scene.service.is_up()), (None, false), "its owner is not connected");
    scene.ready(scene.to(B));
    assert!(scene.service.is_up());
    scene.ask_at(2, slot(1));
    assert_eq!((scene.went(1), scene.went(2)), (Some(scene.to(B)), Some(scene.to(A))));
}

#[test]
fn a_moved_slot_is_learnt_and_an_asked_one_is_not() {
    let mut scene = cluster();
    let (a, b) = (scene.to(A), scene.to(B));
    scene.ready(b);
    scene.ask_at(1, slot(5));
    assert!(scene.rejected(a, 1, slot(5), Rejection::Moved { slot: 5, to: B, once: true }));
    assert_eq!((scene.went(1), scene.act.asking.as_slice()), (Some(b), &[1][..]));
    scene.ask_at(2, slot(5));
    assert_eq!(scene.went(2), Some(a));
    assert!(scene.rejected(a, 2, slot(5), Rejection::Moved { slot: 5, to: B, once: false }));
    scene.ask_at(3, slot(5));
    scene.ask_at(4, slot(6));
    assert_eq!([2, 3, 4].map(|id| scene.went(id)), [Some(b), Some(b), Some(a)]);
    assert_eq!(scene.act.asking, [1]);
}

#[test]
fn a_redirect_to_an_unknown_peer_waits_for_its_conn() {
    let mut scene = cluster();
    let a = scene.to(A);
    scene.ready(scene.to(B));
    scene.ask_at(1, slot(5));
    assert!(scene.rejected(a, 1, slot(5), Rejection::Moved { slot: 5, to: C, once: false }));
    assert_eq!(scene.went(1), None);
    let c = scene.to(C);
    scene.ready(c);
    assert_eq!(scene.went(1), Some(c));
}

#[test]
fn what_waits_for_a_peer_that_leaves_unconnected_goes_where_it_belongs() {
    let mut scene = cluster();
    let a = scene.to(A);
    scene.ready(scene.to(B));
    scene.ask_at(1, slot(5));
    assert!(scene.rejected(a, 1, slot(5), Rejection::Moved { slot: 5, to: C, once: false }));
    let c = scene.to(C);
    tell(&mut scene, a, &[shard(A, (0, 8191)), shard(B, (8192, 16_383))]);
    assert!(scene.act.dropped.contains(&c));
    assert_eq!((scene.went(1), scene.service.state(&scene.act).queued), (Some(a), 0));
}

#[test]
fn an_empty_host_is_the_tellers_own_and_those_that_leave_drain() {
    let mut scene = cluster();
    let a = scene.to(A);
    scene.ready(scene.to(B));
    let b = scene.to(B);
    tell(&mut scene, a, &[shard(":7", (0, 8191)), shard(C, (8192, 16_383))]);
    assert!(scene.act.dropped.contains(&b));
    scene.ready(scene.to(C));
    scene.ask_at(1, slot(9000));
    assert_eq!((scene.went(1), scene.names()), (Some(scene.to(C)), vec![A.to_string(), C.to_string()]));
}

#[test]
fn a_lost_conn_has_the_others_asked_who_owns_what() {
    let mut scene = cluster();
    let (a, b) = (scene.to(A), scene.to(B));
    scene.ready(b);
    let probed = scene.act.probed.len();
    scene.down(b, false);
    for _ in 0..20 {
        if scene.act.probed.len() == probed {
            scene.sleep();
        }
    }
    assert_eq!(scene.act.probed.last(), Some(&a));
    assert_eq!(scene.word(), "degraded");
}
