//! The router of a service under a scripted kernel and fake time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::service::{Service, ServiceConfig};
use super::{Act, ConnId, Down, How, Router, Sent};
use crate::peer::{Peer, Place};
use crate::proto::{Body, Class, Need, RequestId, Route, Tenancy};
use crate::status::*;

fn config() -> ServiceConfig {
    ServiceConfig {
        queue_max: 4,
        lanes_max: 2,
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
        seed: 7,
        ..ServiceConfig::default()
    }
}

/// A kernel that notes what it is asked for.
#[derive(Default)]
struct Script {
    dialled: Vec<ConnId>,
    /// Whom each of them leads to.
    peers: Vec<String>,
    probed: Vec<ConnId>,
    doubts: usize,
    dropped: Vec<ConnId>,
    sent: Vec<(ConnId, u64)>,
    failed: Vec<(u64, Status)>,
    finished: Vec<u64>,
    leased: Vec<(u64, u64)>,
    accepted: Vec<u64>,
    reset: Vec<ConnId>,
    topics: Vec<(ConnId, bool, Vec<u8>)>,
    tenancies: HashMap<ConnId, (usize, Tenancy)>,
    ended: HashSet<u64>,
    /// Conns take no more.
    full: bool,
}

impl Act for Script {
    fn dial(&mut self, peer: &Peer) -> ConnId {
        self.peers.push(peer.name.clone());
        let conn = ConnId(self.dialled.len() as u32 + 1);
        self.dialled.push(conn);
        conn
    }
    fn drop_conn(&mut self, conn: ConnId, _why: &str) {
        self.dropped.push(conn);
    }
    fn send(&mut self, conn: ConnId, request: RequestId, _how: How) -> Sent {
        if self.full {
            return Sent::Later;
        }
        self.sent.push((conn, request.0));
        Sent::Gone
    }
    fn reset(&mut self, conn: ConnId) {
        self.reset.push(conn);
    }
    fn subscribe(&mut self, conn: ConnId, topic: &[u8]) {
        self.topics.push((conn, true, topic.to_vec()));
    }
    fn unsubscribe(&mut self, conn: ConnId, topic: &[u8]) {
        self.topics.push((conn, false, topic.to_vec()));
    }
    fn probe(&mut self, conn: ConnId) {
        self.probed.push(conn);
    }
    fn doubt(&mut self) {
        self.doubts += 1;
    }
    fn inflight(&self) -> usize {
        self.sent.iter().filter(|(_, id)| !self.ended.contains(id)).count()
    }
    fn latency_ns(&self, _conn: ConnId) -> u64 {
        0
    }
    fn place(&self, _conn: ConnId) -> Option<Place> {
        None
    }
    fn tenancy(&self, conn: ConnId) -> (usize, Tenancy) {
        self.tenancies.get(&conn).copied().unwrap_or((0, Tenancy::Clean))
    }
    fn fail(&mut self, request: RequestId, status: Status, _code: &str, _message: &str) {
        self.ended.insert(request.0);
        self.failed.push((request.0, status));
    }
    fn finish(&mut self, request: RequestId, _body: Body<'_>) {
        self.ended.insert(request.0);
        self.finished.push(request.0);
    }
    fn lease(&mut self, request: RequestId, lease: u64) {
        self.ended.insert(request.0);
        self.leased.push((request.0, lease));
    }
    fn accept(&mut self, stream: RequestId) {
        self.accepted.push(stream.0);
    }
    fn is_live(&self, request: RequestId) -> bool {
        !self.ended.contains(&request.0)
    }
}

/// A service, its kernel, and the time.
struct Scene {
    service: Service,
    act: Script,
    now: Instant,
}

const SHARED: ConnId = ConnId(1);

impl Scene {
    fn open() -> Self {
        let mut scene = Scene { service: Service::new(config()), act: Script::default(), now: Instant::now() };
        scene.service.handle_peers(scene.now, &[Peer::at("10.0.0.1", 7)], &mut scene.act);
        assert_eq!(scene.act.dialled, [SHARED]);
        scene
    }

    fn up() -> Self {
        let mut scene = Scene::open();
        scene.ready(SHARED);
        scene
    }

    fn ready(&mut self, conn: ConnId) {
        self.service.handle_ready(self.now, conn, true, "", &mut self.act);
    }

    fn ask(&mut self, id: u64, class: Class, lease: u64) {
        let need = Need { class, route: Route::default() };
        self.service.handle_request(self.now, RequestId(id), need, lease, &mut self.act);
    }

    fn down(&mut self, conn: ConnId, refused: bool) {
        let status = if refused { IOK_STATUS_REFUSED } else { IOK_STATUS_LOST };
        let down = Down { was_ready: true, refused, status, message: "gone".into() };
        self.service.handle_down(self.now, conn, &down, &mut self.act);
    }

    /// The program cancels a request that is on `conn`.
    fn cancel(&mut self, id: u64, conn: Option<ConnId>) {
        self.act.ended.insert(id);
        self.service.handle_ended(self.now, RequestId(id), conn, &mut self.act);
    }

    fn progress(&mut self, conn: ConnId) {
        let (inflight, tenancy) = self.act.tenancy(conn);
        self.service.handle_progress(self.now, conn, inflight, tenancy, &mut self.act);
    }

    /// Time passes until the router wants to be called, and it is.
    fn sleep(&mut self) {
        self.now = self.service.poll_timeout().expect("a router that waits says until when");
        self.service.handle_timeout(self.now, &mut self.act);
    }

    fn lease(&mut self, id: u64) {
        self.service.handle_lease(self.now, RequestId(id), Route::default(), &mut self.act);
    }

    fn release(&mut self, lease: u64) -> bool {
        self.service.handle_release(self.now, lease, &mut self.act)
    }
}

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
