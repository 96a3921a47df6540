//! One peer: the queue, backoff, lanes, leases, topics.

use super::*;

#[test]
fn requests_wait_for_the_conn_and_keep_their_order() {
    let mut scene = Scene::open();
    (1..=3).for_each(|id| scene.ask(id, Class::Shared, 0));
    scene.cancel(2, None);
    scene.ready(SHARED);
    scene.ask(4, Class::Shared, 0);
    assert_eq!(scene.act.sent, [(SHARED, 1), (SHARED, 3), (SHARED, 4)]);
    scene.act.full = true;
    scene.ask(5, Class::Shared, 0);
    scene.act.full = false;
    scene.ask(6, Class::Shared, 0);
    assert_eq!(scene.act.sent.len(), 3, "6 does not overtake 5");
    scene.progress(SHARED);
    assert_eq!(scene.act.sent[3..], [(SHARED, 5), (SHARED, 6)]);
}

#[test]
fn a_full_queue_refuses_and_counts_only_those_who_wait() {
    let mut scene = Scene::open();
    (1..=5).for_each(|id| scene.ask(id, Class::Shared, 0));
    assert_eq!(scene.act.failed, [(5, IOK_STATUS_OVERLOADED)]);
    scene.cancel(2, None);
    scene.ask(6, Class::Shared, 0);
    scene.ready(SHARED);
    let order: Vec<u64> = scene.act.sent.iter().map(|(_, id)| *id).collect();
    assert_eq!(order, [1, 3, 4, 6]);
}

#[test]
fn a_refusal_ends_whoever_waits_at_once() {
    let mut scene = Scene::open();
    scene.ask(1, Class::Shared, 0);
    scene.ask(2, Class::Waiting, 0);
    scene.lease(3);
    scene.service.handle_waiter(RequestId(4), &mut scene.act);
    scene.ask(5, Class::Topics(vec![b"t".to_vec()]), 0);
    scene.down(SHARED, true);
    let mut failed = scene.act.failed.clone();
    failed.sort();
    assert_eq!(failed, (1..=5).map(|id| (id, IOK_STATUS_REFUSED)).collect::<Vec<_>>());
    scene.ask(6, Class::Shared, 0);
    assert_eq!(scene.act.failed[5..], [(6, IOK_STATUS_REFUSED)]);
    // It is tried again all the same, and success forgets the refusal.
    scene.sleep();
    let conn = *scene.act.dialled.last().unwrap();
    scene.ready(conn);
    scene.ask(7, Class::Shared, 0);
    assert_eq!(scene.act.sent, [(conn, 7)]);
}

#[test]
fn attempts_come_at_growing_distances() {
    let mut scene = Scene::open();
    let mut waits = Vec::new();
    for attempt in 1..=8 {
        scene.down(ConnId(attempt), false);
        assert_eq!(scene.act.dialled.len(), attempt as usize, "no attempt before its time");
        scene.ask(u64::from(attempt) + 100, Class::Waiting, 0);
        assert_eq!(scene.act.dialled.len(), attempt as usize, "nor for those who wait");
        scene.cancel(u64::from(attempt) + 100, None);
        let before = scene.now;
        scene.sleep();
        waits.push(scene.now - before);
        scene.act.dialled.truncate(attempt as usize + 1);
    }
    assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
    assert!(waits[7] >= Duration::from_millis(500) && waits[7] <= Duration::from_secs(1), "{waits:?}");
}

#[test]
fn what_waits_in_the_server_gets_lanes_and_leaves_them_to_others() {
    let mut scene = Scene::up();
    (1..=3).for_each(|id| scene.ask(id, Class::Waiting, 0));
    let lanes = [ConnId(2), ConnId(3)];
    assert_eq!(scene.act.dialled[1..], lanes, "two lanes at most");
    lanes.iter().for_each(|lane| scene.ready(*lane));
    assert_eq!(scene.act.sent, [(lanes[0], 1), (lanes[1], 2)]);
    // A reply frees the lane for the one that waits.
    scene.act.ended.insert(1);
    scene.progress(lanes[0]);
    assert_eq!(scene.act.sent[2..], [(lanes[0], 3)]);
    // Who is cancelled takes the lane along: its reply may come at any time. The place may be dialled anew.
    scene.ask(4, Class::Waiting, 0);
    scene.cancel(2, Some(lanes[1]));
    assert_eq!(scene.act.dropped, [lanes[1]]);
    assert_eq!(scene.act.dialled[3..], [ConnId(4)]);
    // Idle lanes go after their time.
    scene.ready(ConnId(4));
    scene.act.ended.extend([3, 4]);
    [lanes[0], ConnId(4)].iter().for_each(|lane| scene.progress(*lane));
    scene.sleep();
    assert_eq!(scene.act.dropped.len(), 3);
    assert_eq!(scene.service.state(&scene.act).conns, 1);
}

#[test]
fn a_dirty_lease_is_cleaned_before_the_next_tenant_and_a_spoiled_one_closed() {
    let mut scene = Scene::up();
    scene.lease(1);
    let lane = ConnId(2);
    scene.ready(lane);
    assert_eq!(scene.act.leased, [(1, 1)]);
    scene.ask(2, Class::Pinned("why"), 0);
    assert_eq!(scene.act.failed, [(2, IOK_STATUS_BAD_REQUEST)]);
    scene.ask(3, Class::Shared, 1);
    assert_eq!(scene.act.sent, [(lane, 3)]);
    scene.act.tenancies.insert(lane, (0, Tenancy::Dirty));
    assert!(scene.release(1) && !scene.release(1));
    assert_eq!(scene.act.reset, [lane]);
    scene.lease(4);
    scene.progress(lane);
    assert_eq!(scene.act.leased.len(), 1, "not while it is dirty");
    scene.act.tenancies.insert(lane, (0, Tenancy::Clean));
    scene.progress(lane);
    assert_eq!(scene.act.leased[1..], [(4, 2)]);
    scene.act.tenancies.insert(lane, (0, Tenancy::Spoiled));
    assert!(scene.release(2));
    assert_eq!(scene.act.dropped, [lane]);
    scene.ask(5, Class::Shared, 2);
    assert_eq!(scene.act.failed[1..], [(5, IOK_STATUS_NO_LEASE)]);
}

#[test]
fn replies_under_way_do_not_reach_the_next_tenant() {
    let mut scene = Scene::up();
    scene.lease(1);
    scene.ready(ConnId(2));
    scene.act.tenancies.insert(ConnId(2), (1, Tenancy::Clean));
    assert!(scene.release(1));
    assert_eq!(scene.act.dropped, [ConnId(2)]);
}

#[test]
fn a_lost_lease_says_so_until_it_is_released() {
    let mut scene = Scene::up();
    scene.lease(1);
    scene.ready(ConnId(2));
    scene.down(ConnId(2), false);
    scene.ask(2, Class::Shared, 1);
    assert_eq!(scene.act.failed, [(2, IOK_STATUS_LOST)]);
    assert!(scene.release(1));
    scene.ask(3, Class::Shared, 1);
    assert_eq!(scene.act.failed[1..], [(3, IOK_STATUS_NO_LEASE)]);
    assert_eq!(scene.service.state(&scene.act).leases, 0);
}

#[test]
fn topics_are_shared_and_asked_for_again_on_the_next_conn() {
    let mut scene = Scene::up();
    let topic = |name: &str| name.as_bytes().to_vec();
    scene.ask(1, Class::Topics(vec![topic("a"), topic("b")]), 0);
    scene.ask(2, Class::Topics(vec![topic("b")]), 0);
    assert_eq!(scene.act.topics.len(), 2, "b is asked for once");
    scene.service.handle_topic(scene.now, SHARED, b"b", None, &mut scene.act);
    assert_eq!(scene.act.accepted, [2]);
    scene.service.handle_topic(scene.now, SHARED, b"a", None, &mut scene.act);
    assert_eq!(scene.act.accepted, [2, 1]);
    assert_eq!(scene.service.listeners(SHARED, b"b").len(), 2);
    scene.down(SHARED, false);
    scene.sleep();
    let next = *scene.act.dialled.last().unwrap();
    scene.ready(next);
    assert_eq!(scene.act.topics[2..].iter().filter(|(conn, on, _)| *conn == next && *on).count(), 2);
    // What a conn that is gone still says is not believed.
    scene.service.handle_topic(scene.now, SHARED, b"b", None, &mut scene.act);
    assert_eq!(scene.act.accepted.len(), 2);
    [b"a", b"b"].iter().for_each(|name| scene.service.handle_topic(scene.now, next, *name, None, &mut scene.act));
    assert_eq!(scene.act.accepted.len(), 4);
    // The last one to leave turns the topic off.
    scene.cancel(1, None);
    assert_eq!(scene.act.topics[4..], [(next, false, topic("a"))]);
    scene.service.handle_topic(scene.now, next, b"b", Some(("NOPERM", "no")), &mut scene.act);
    assert_eq!(scene.act.failed, [(2, IOK_STATUS_REMOTE)]);
    assert_eq!(scene.service.state(&scene.act).topics, 0);
}

#[test]
fn those_who_wait_for_the_endpoint_hear_of_it_once() {
    let mut scene = Scene::open();
    scene.service.handle_waiter(RequestId(1), &mut scene.act);
    scene.down(SHARED, false);
    assert!(scene.act.finished.is_empty() && scene.act.failed.is_empty(), "it may still come up");
    scene.sleep();
    scene.ready(*scene.act.dialled.last().unwrap());
    scene.service.handle_waiter(RequestId(2), &mut scene.act);
    assert_eq!(scene.act.finished, [1, 2]);
}
