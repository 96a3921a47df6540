//! Primaries and replicas, as they and the source say.

use super::*;
use crate::peer::Wanted;

fn wanting(wanted: Wanted, count: u8) -> Scene {
    let peers: Vec<Peer> = (1..=count).map(peer).collect();
    Scene::of(ServiceConfig { wanted, lanes_max: 4, ..config() }, &peers)
}

/// A is the primary, B its replica.
fn pair() -> Scene {
    let mut scene = wanting(Wanted::Primary, 2);
    let (a, b) = (scene.to(A), scene.to(B));
    scene.role(a, Role::Primary, None);
    scene.ready(a);
    scene.role(b, Role::Replica, Some(A));
    scene.ready(b);
    scene
}

#[test]
fn requests_go_to_whoever_has_the_role() {
    let mut scene = pair();
    (1..=4).for_each(|id| scene.ask(id, Class::Shared, 0));
    assert!((1..=4).all(|id| scene.went(id) == Some(scene.to(A))));
    let mut scene = wanting(Wanted::Replica, 2);
    let (a, b) = (scene.to(A), scene.to(B));
    scene.role(a, Role::Primary, None);
    scene.ready(a);
    scene.ask(1, Class::Shared, 0);
    assert_eq!((scene.went(1), scene.service.is_up()), (None, false));
    scene.role(b, Role::Replica, Some(A));
    scene.ready(b);
    assert_eq!(scene.went(1), Some(b));
}

#[test]
fn a_write_that_a_replica_refuses_is_its_callers_where_replicas_are_wanted() {
    let mut scene = wanting(Wanted::Replica, 1);
    let a = scene.to(A);
    scene.role(a, Role::Replica, None);
    scene.ready(a);
    scene.ask(1, Class::Shared, 0);
    assert!(!scene.rejected(a, 1, Route::default(), Rejection::NotPrimary), "another replica would say the same");
}

#[test]
fn a_promoted_replica_supersedes_whom_it_followed() {
    let mut scene = pair();
    let (a, b) = (scene.to(A), scene.to(B));
    scene.role(b, Role::Primary, None);
    assert_eq!(scene.act.dropped, [a], "what it still acknowledges is lost");
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(b));
    // It comes back and has not heard of it.
    let a = scene.to(A);
    scene.role(a, Role::Primary, None);
    scene.ready(a);
    (2..=4).for_each(|id| scene.ask(id, Class::Shared, 0));
    assert!((2..=4).all(|id| scene.went(id) == Some(b)));
    // Once it has been a replica, it may be promoted like any other.
    scene.role(a, Role::Replica, Some(B));
    scene.role(a, Role::Primary, None);
    scene.ask(5, Class::Shared, 0);
    assert_eq!(scene.went(5), Some(a));
}

#[test]
fn a_replica_that_does_not_tell_whom_it_follows_supersedes_every_primary() {
    let mut scene = pair();
    let (a, b) = (scene.to(A), scene.to(B));
    scene.role(b, Role::Replica, None);
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(a));
    scene.role(b, Role::Primary, None);
    assert_eq!(scene.act.dropped, [a], "what it still acknowledges is lost");
    // It comes back and has not heard of it.
    let a = scene.to(A);
    scene.role(a, Role::Primary, None);
    scene.ready(a);
    (2..=4).for_each(|id| scene.ask(id, Class::Shared, 0));
    assert!((2..=4).all(|id| scene.went(id) == Some(b)));
    // It follows the other, and is promoted in its turn.
    scene.role(a, Role::Replica, None);
    scene.role(a, Role::Primary, None);
    scene.ask(5, Class::Shared, 0);
    assert_eq!(scene.went(5), Some(a));
    assert!(scene.act.dropped.contains(&b));
}

#[test]
fn a_superseded_primary_is_believed_again_once_its_successor_is_none() {
    let mut scene = pair();
    let b = scene.to(B);
    scene.role(b, Role::Primary, None);
    let a = scene.to(A);
    scene.role(a, Role::Primary, None);
    scene.ready(a);
    scene.role(b, Role::Replica, Some(A));
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(a));
    let mut scene = pair();
    scene.role(scene.to(B), Role::Primary, None);
    let a = scene.to(A);
    scene.role(a, Role::Primary, None);
    scene.ready(a);
    scene.peers(&[peer(1)]);
    scene.act.tenancies.clear();
    scene.down(scene.to(B), false);
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(a), "the successor is not of the set any more");
}

#[test]
fn a_refused_write_shows_a_demotion_and_goes_to_the_next_primary() {
    let mut scene = pair();
    let (a, b) = (scene.to(A), scene.to(B));
    scene.ask(1, Class::Shared, 0);
    assert!(scene.rejected(a, 1, Route::default(), Rejection::NotPrimary));
    assert_eq!(scene.went(1), None, "it waits for a primary");
    assert!(scene.act.doubts > 0);
    scene.role(b, Role::Primary, None);
    assert_eq!(scene.went(1), Some(b));
}

#[test]
fn leases_on_a_demoted_peer_are_lost() {
    let mut scene = pair();
    let a = scene.to(A);
    scene.lease(1);
    let lane = *scene.act.dialled.last().unwrap();
    scene.role(lane, Role::Primary, None);
    scene.ready(lane);
    assert_eq!(scene.act.leased, [(1, 1)]);
    scene.role(a, Role::Replica, Some(B));
    assert_eq!(scene.act.dropped, [lane]);
    scene.ask(2, Class::Shared, 1);
    assert_eq!(scene.act.failed, [(2, IOK_STATUS_LOST)]);
}

#[test]
fn a_lane_to_a_peer_that_lost_the_role_meanwhile_is_given_to_nobody() {
    let mut scene = pair();
    scene.ask(1, Class::Waiting, 0);
    let lane = *scene.act.dialled.last().unwrap();
    scene.role(lane, Role::Replica, Some(B));
    scene.ready(lane);
    assert_eq!((scene.went(1), scene.act.dropped.as_slice()), (None, &[lane][..]));
    scene.role(scene.to(B), Role::Primary, None);
    let lane = *scene.act.dialled.last().unwrap();
    scene.role(lane, Role::Primary, None);
    scene.ready(lane);
    assert_eq!(scene.went(1), Some(lane));
}

#[test]
fn what_waits_for_a_demoted_peer_is_for_its_successor() {
    let mut scene = pair();
    let (a, b) = (scene.to(A), scene.to(B));
    scene.act.full = true;
    scene.ask(1, Class::Shared, 0);
    scene.role(a, Role::Replica, Some(B));
    scene.act.full = false;
    scene.progress(a);
    assert_eq!(scene.went(1), None, "it would be refused there");
    scene.role(b, Role::Primary, None);
    assert_eq!(scene.went(1), Some(b));
}

#[test]
fn a_source_that_demotes_a_primary_has_its_conns_closed_at_once() {
    let of = |last: u8, role: Role| Peer { role, ..peer(last) };
    let config = ServiceConfig { wanted: Wanted::Primary, ..config() };
    let mut scene = Scene::of(config, &[of(1, Role::Primary), of(2, Role::Replica)]);
    for (name, role) in [(A, Role::Primary), (B, Role::Replica)] {
        let conn = scene.to(name);
        scene.role(conn, role, None);
        scene.ready(conn);
    }
    let (a, b) = (scene.to(A), scene.to(B));
    scene.peers(&[of(1, Role::Replica), of(2, Role::Primary)]);
    assert_eq!(scene.act.dropped, [a]);
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), None, "the source and the peer must agree");
    scene.role(b, Role::Primary, None);
    assert_eq!(scene.went(1), Some(b));
}

#[test]
fn a_primary_that_the_source_no_longer_names_takes_no_more() {
    let of = |last: u8, role: Role| Peer { role, ..peer(last) };
    let config = ServiceConfig { wanted: Wanted::Primary, ..config() };
    let mut scene = Scene::of(config, &[of(1, Role::Primary)]);
    let a = scene.to(A);
    scene.role(a, Role::Primary, None);
    scene.ready(a);
    scene.peers(&[of(2, Role::Primary)]);
    assert_eq!(scene.act.dropped, [a]);
    scene.ask(1, Class::Shared, 0);
    assert_eq!((scene.went(1), scene.names()), (None, vec![B.to_string()]));
}

#[test]
fn a_lease_that_outlives_the_shared_conn_is_lost_with_the_role() {
    let mut scene = pair();
    scene.lease(1);
    let lane = *scene.act.dialled.last().unwrap();
    scene.role(lane, Role::Primary, None);
    scene.ready(lane);
    scene.down(scene.act.dialled[0], false);
    while scene.act.dialled.last() == Some(&lane) {
        scene.sleep();
    }
    let a = *scene.act.dialled.last().unwrap();
    scene.role(a, Role::Replica, Some(B));
    assert!(scene.act.dropped.contains(&lane));
    scene.ask(2, Class::Shared, 1);
    assert_eq!(scene.act.failed.last(), Some(&(2, IOK_STATUS_LOST)));
}

#[test]
fn who_prefers_replicas_takes_the_primary_while_there_is_none() {
    let mut scene = wanting(Wanted::PreferReplica, 2);
    let (first, second) = (scene.to(A), scene.to(B));
    scene.role(first, Role::Primary, None);
    scene.ready(first);
    scene.ask(1, Class::Shared, 0);
    assert_eq!((scene.went(1), scene.word()), (Some(first), "degraded"));
    scene.role(second, Role::Replica, None);
    scene.ready(second);
    scene.ask(2, Class::Shared, 0);
    assert_eq!((scene.went(2), scene.word()), (Some(second), "up"));
    scene.role(second, Role::Primary, None);
    scene.ask(3, Class::Shared, 0);
    assert!(scene.went(3).is_some(), "both call themselves primary: there is nobody better");
}

#[test]
fn of_several_that_call_themselves_primary_the_last_one_is() {
    for order in [[A, B], [B, A]] {
        let mut scene = wanting(Wanted::Primary, 2);
        for name in order {
            let conn = scene.to(name);
            scene.reign(conn, if name == A { 1 } else { 2 });
            scene.ready(conn);
        }
        scene.ask(1, Class::Shared, 0);
        assert_eq!(scene.went(1), Some(scene.to(B)), "{order:?}");
        let a = *scene.act.dialled.last().filter(|_| order[0] == A).unwrap_or(&scene.to(A));
        scene.reign(a, 1);
        scene.ask(2, Class::Shared, 0);
        assert_eq!(scene.went(2), Some(scene.to(B)), "it says so again and again");
        // It was rebuilt as a replica, and promoted, unseen.
        scene.reign(a, 3);
        scene.ready(a);
        scene.ask(3, Class::Shared, 0);
        assert_eq!(scene.went(3), Some(a));
    }
}

#[test]
fn a_primary_that_was_set_up_anew_begins_a_new_row() {
    let mut scene = wanting(Wanted::Primary, 2);
    let (a, b) = (scene.to(A), scene.to(B));
    scene.reign(a, 7);
    scene.ready(a);
    scene.reign(a, 1);
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), Some(a));
    scene.reign(b, 1);
    scene.ready(b);
    scene.role(a, Role::Replica, None);
    scene.ask(2, Class::Shared, 0);
    assert_eq!(scene.went(2), Some(b));
}
