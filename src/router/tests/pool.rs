//! Elastic pools: a conn for each request, no more of them than the load asks for, and ends that mean nothing.

use super::*;
use crate::router::throttle::Rate;

fn exclusive() -> ServiceConfig {
    ServiceConfig { exclusive: true, pool: 3, queue_max: 1000, ..config() }
}

fn up(config: ServiceConfig) -> Scene {
    let mut scene = Scene::of(config, &[peer(1)]);
    assert_eq!(scene.act.dialled, [SHARED], "one, to know whether it can be reached");
    scene.ready(SHARED);
    scene
}

impl Scene {
    fn exchange(&mut self, id: u64) {
        self.ask(id, Class::Exchange, 0);
        self.settle();
    }

    /// Conns have under way what they were sent and what has not ended.
    fn settle(&mut self) {
        for conn in self.act.dialled.clone() {
            let live = self.act.sent.iter().filter(|(on, id)| *on == conn && !self.act.ended.contains(id)).count();
            let tenancy = self.act.tenancy(conn).1;
            self.act.tenancies.insert(conn, (live, tenancy));
        }
    }

    fn done(&mut self, id: u64) {
        self.act.ended.insert(id);
        self.settle();
        let conn = self.went(id).expect("it was sent");
        assert!(self.service.wants_progress(conn));
        self.progress(conn);
        self.settle();
    }

    /// Readies what was dialled, `from` on.
    fn ready_from(&mut self, from: usize) -> Vec<ConnId> {
        let fresh = self.act.dialled[from..].to_vec();
        for conn in &fresh {
            self.ready(*conn);
            self.settle();
        }
        fresh
    }

    /// So many conns, idle.
    fn widen(&mut self, count: u64) {
        let from = self.act.dialled.len();
        (900..900 + count).for_each(|id| self.exchange(id));
        self.ready_from(from);
        (900..900 + count).for_each(|id| self.done(id));
        self.act.sent.clear();
    }

    /// The peer closes a conn, whose request comes back if it may be repeated.
    fn closes(&mut self, conn: ConnId, repeated: &[u64]) {
        let ids: Vec<u64> = self.act.sent.iter().filter(|(on, _)| *on == conn).map(|(_, id)| *id).collect();
        for id in ids.into_iter().filter(|id| !repeated.contains(id)) {
            self.act.ended.insert(id);
        }
        self.down(conn, false);
        self.act.sent.retain(|(on, _)| *on != conn);
        self.act.tenancies.remove(&conn);
        for id in repeated {
            let need = Need { class: Class::Exchange, idempotent: true, route: Route::default() };
            self.service.handle_again(self.now, RequestId(*id), need, Again::Idempotent, &mut self.act);
            self.settle();
        }
    }

    fn fails(&mut self, conn: ConnId) {
        let down = Down {
            was_ready: false,
            under_way: 0,
            refused: false,
            status: IOK_STATUS_UNAVAILABLE,
            message: "connection refused".into(),
        };
        self.service.handle_down(self.now, conn, &down, &mut self.act);
    }

    fn queued(&self) -> usize {
        self.service.state(&self.act).queued
    }

    fn conns(&self) -> usize {
        self.service.state(&self.act).conns
    }
}

#[test]
fn each_request_has_a_conn_and_the_one_used_last_is_used_first() {
    let mut scene = up(exclusive());
    scene.act.one_each = true;
    (1..=5).for_each(|id| scene.exchange(id));
    assert_eq!((scene.act.sent.as_slice(), scene.act.dialled.len()), (&[(SHARED, 1)][..], 3));
    let fresh = scene.ready_from(1);
    assert_eq!(scene.act.sent[1..], [(fresh[0], 2), (fresh[1], 3)]);
    scene.done(2);
    assert_eq!(scene.went(4), Some(fresh[0]), "whoever waits is next");
    [1, 3, 4].iter().for_each(|id| scene.done(*id));
    assert_eq!(scene.went(5), Some(SHARED));
    scene.done(5);
    scene.exchange(6);
    assert_eq!((scene.went(6), scene.act.dialled.len()), (Some(SHARED), 3));
    assert_eq!(scene.queued(), 0);
}

#[test]
fn a_conn_is_dialled_for_each_who_waits_and_no_more() {
    let mut scene = up(ServiceConfig { pool: 100, ..exclusive() });
    (1..=4).for_each(|id| scene.exchange(id));
    assert_eq!(scene.act.dialled.len(), 4);
    scene.done(1);
    assert_eq!(scene.went(2), Some(SHARED));
    scene.exchange(5);
    assert_eq!(scene.act.dialled.len(), 4, "three are on their way for three");
    scene.exchange(6);
    assert_eq!(scene.act.dialled.len(), 5);
}

#[test]
fn a_full_pool_gives_more_to_conns_that_take_more() {
    let mut scene = up(ServiceConfig { pool: 1, ..exclusive() });
    scene.exchange(1);
    scene.exchange(2);
    assert_eq!((scene.went(2), scene.act.dialled.len()), (Some(SHARED), 1));
    scene.act.full = true;
    scene.exchange(3);
    scene.act.full = false;
    assert_eq!(scene.went(3), None);
    scene.done(1);
    assert_eq!(scene.went(3), Some(SHARED));
}

#[test]
fn the_end_of_an_idle_conn_is_no_failure_and_its_peer_is_dialled_when_it_is_asked() {
    let mut scene = up(exclusive());
    scene.exchange(1);
    scene.done(1);
    let version = scene.service.version();
    scene.closes(SHARED, &[]);
    let state = scene.service.state(&scene.act);
    assert_eq!((state.word, state.conns, state.peers[0].word, state.peers[0].failures), ("up", 0, "up", 0));
    assert_eq!((scene.service.version(), scene.act.doubts, scene.act.dialled.len()), (version, 0, 1));
    assert!(scene.service.is_up() && scene.service.poll_timeout().is_none());
    scene.exchange(2);
    let fresh = scene.ready_from(1);
    assert_eq!((fresh.len(), scene.went(2)), (1, Some(fresh[0])));
}

#[test]
fn a_peer_that_cannot_be_reached_any_more_is_down() {
    let mut scene = up(exclusive());
    scene.closes(SHARED, &[]);
    scene.exchange(1);
    scene.fails(ConnId(2));
    assert_eq!((scene.word(), scene.queued(), scene.act.failed.len()), ("down", 1, 0), "it may come back");
    scene.sleep();
    scene.ready_from(2);
    assert_eq!((scene.went(1), scene.word()), (Some(ConnId(3)), "up"));
}

#[test]
fn warm_conns_are_kept_and_others_are_closed_after_a_while() {
    let config = ServiceConfig { warm: 2, lane_idle: Duration::from_secs(5), ..exclusive() };
    let mut scene = Scene::of(config, &[peer(1)]);
    assert_eq!(scene.act.dialled.len(), 2);
    scene.ready_from(0);
    scene.widen(3);
    assert_eq!(scene.conns(), 3);
    let begun = scene.now;
    scene.sleep();
    assert_eq!((scene.now - begun, scene.conns(), scene.service.poll_timeout()), (config.lane_idle, 2, None));
    let last = *scene.act.dialled.iter().find(|conn| !scene.act.dropped.contains(conn)).unwrap();
    scene.closes(last, &[]);
    assert_eq!(scene.act.dialled.len(), 4, "one is dialled in its place");
    assert_eq!(scene.service.state(&scene.act).peers[0].failures, 0);
}

#[test]
fn idle_conns_go_and_the_peer_stays_up() {
    let mut scene = up(exclusive());
    scene.widen(3);
    scene.sleep();
    assert_eq!((scene.conns(), scene.word(), scene.act.dropped.len()), (0, "up", 3));
    assert!(scene.service.poll_timeout().is_none());
}

#[test]
fn a_conn_that_is_to_be_closed_finishes_and_its_place_is_taken() {
    let mut scene = up(ServiceConfig { pool: 1, ..exclusive() });
    scene.exchange(1);
    scene.act.full = true;
    scene.exchange(2);
    scene.act.full = false;
    scene.service.handle_fact(scene.now, SHARED, &Fact::Draining, &mut scene.act);
    assert_eq!((scene.act.dialled.len(), scene.act.dropped.len()), (2, 0));
    scene.ready_from(1);
    assert_eq!(scene.went(2), Some(ConnId(2)));
    scene.done(1);
    assert_eq!((scene.act.dropped.as_slice(), scene.word()), (&[SHARED][..], "up"));
    scene.done(2);
    scene.service.handle_fact(scene.now, ConnId(2), &Fact::Draining, &mut scene.act);
    assert_eq!((scene.act.dropped[1..].to_vec(), scene.conns()), (vec![ConnId(2)], 0));
    scene.exchange(3);
    assert_eq!(scene.act.dialled.len(), 3);
}

#[test]
fn a_cancelled_exchange_takes_its_conn_with_it() {
    let mut scene = up(ServiceConfig { pool: 1, ..exclusive() });
    scene.exchange(1);
    scene.act.tenancies.insert(SHARED, (1, Tenancy::Spoiled));
    scene.cancel(1, Some(SHARED));
    assert_eq!((scene.act.dropped.as_slice(), scene.act.dialled.len()), (&[SHARED][..], 1), "nobody waits");
    assert_eq!((scene.word(), scene.service.state(&scene.act).peers[0].failures), ("up", 0));
    scene.exchange(2);
    assert_eq!(scene.act.dialled.len(), 2);
    scene.exchange(3);
    scene.ready_from(1);
    scene.act.full = true;
    scene.exchange(4);
    scene.act.full = false;
    scene.act.tenancies.insert(ConnId(2), (1, Tenancy::Spoiled));
    scene.cancel(2, Some(ConnId(2)));
    assert_eq!(scene.act.dialled.len(), 3, "who waits has another");
}

#[test]
fn conns_that_a_restart_left_dead_cost_no_budget_and_are_not_tried_one_by_one() {
    let mut scene = up(ServiceConfig { pool: 10, retry_share: 0.0, ..exclusive() });
    scene.widen(10);
    scene.now += Duration::from_secs(1);
    scene.exchange(1);
    let stale = scene.went(1).unwrap();
    scene.closes(stale, &[1]);
    assert_eq!(scene.act.dropped.len(), 9, "those that rested longer are as dead");
    assert_eq!((scene.went(1), scene.act.failed.len(), scene.act.dialled.len()), (None, 0, 11));
    scene.ready_from(10);
    assert_eq!((scene.went(1), scene.word()), (Some(ConnId(11)), "up"));
    assert_eq!(scene.service.state(&scene.act).peers[0].failures, 0);
}

#[test]
fn a_flood_of_dead_conns_is_survived() {
    let mut scene = up(ServiceConfig { pool: 300, retry_share: 0.0, ..exclusive() });
    scene.widen(300);
    scene.now += Duration::from_secs(1);
    (1..=300).for_each(|id| scene.exchange(id));
    let on: Vec<ConnId> = (1..=300).map(|id| scene.went(id).unwrap()).collect();
    on.iter().zip(1..).for_each(|(conn, id)| scene.closes(*conn, &[id]));
    assert_eq!((scene.act.failed.len(), scene.act.dialled.len()), (0, 600));
    scene.ready_from(300);
    assert!((1..=300).all(|id| scene.went(id).is_some_and(|conn| conn.0 > 300)));
}

#[test]
fn a_conn_lost_with_a_reply_begun_or_never_proven_is_a_failure_and_costs_budget() {
    let mut scene = up(ServiceConfig { retry_share: 0.0, ..exclusive() });
    scene.exchange(1);
    scene.closes(SHARED, &[1]);
    assert_eq!((scene.act.failed.as_slice(), scene.word()), (&[(1, IOK_STATUS_LOST)][..], "down"));
    scene.sleep();
    scene.ready_from(1);
    scene.exchange(2);
    scene.done(2);
    scene.now += Duration::from_secs(1);
    scene.exchange(3);
    scene.progress(ConnId(2));
    scene.closes(ConnId(2), &[3]);
    assert_eq!(scene.act.failed[1..], [(3, IOK_STATUS_LOST)]);
}

#[test]
fn what_need_not_wait_ends_with_the_attempt_that_fails() {
    let config = ServiceConfig { fails_down: true, ..exclusive() };
    let mut scene = Scene::of(config, &[peer(1), peer(2)]);
    scene.exchange(1);
    scene.fails(ConnId(1));
    assert!(scene.act.failed.is_empty(), "the other may be there");
    scene.fails(ConnId(2));
    assert_eq!(scene.act.failed, [(1, IOK_STATUS_UNAVAILABLE)]);
    let dialled = scene.act.dialled.len();
    scene.exchange(2);
    scene.exchange(3);
    assert_eq!(scene.act.dialled.len(), dialled + 2, "each peer is tried at once, and once");
    scene.ready(ConnId(4));
    scene.fails(ConnId(3));
    assert_eq!((scene.went(2), scene.act.failed.len()), (Some(ConnId(4)), 1));
}

#[test]
fn what_need_not_wait_ends_when_nobody_is_known() {
    for (fails_down, failed) in [(true, vec![(1, IOK_STATUS_UNAVAILABLE)]), (false, vec![])] {
        let mut scene = Scene::of(ServiceConfig { fails_down, ..exclusive() }, &[]);
        scene.exchange(1);
        assert_eq!((scene.act.failed.len(), scene.act.doubts), (0, usize::from(fails_down)), "the source may know");
        scene.service.handle_unknown("no such name", &mut scene.act);
        assert_eq!(scene.act.failed, failed);
    }
}

#[test]
fn limits_bound_the_conns_too() {
    let config = ServiceConfig { peer_inflight_max: 2, pool: 10, ..exclusive() };
    let mut scene = up(config);
    (1..=5).for_each(|id| scene.exchange(id));
    assert_eq!(scene.act.dialled.len(), 2);
    scene.ready_from(1);
    assert_eq!((scene.act.sent.len(), scene.queued()), (2, 3));
    scene.done(1);
    assert_eq!((scene.went(3), scene.act.sent.len()), (Some(SHARED), 3));
    let rate = Some(Rate { per_second: 10.0, burst: 2.0 });
    let mut scene = up(ServiceConfig { peer_rate: rate, pool: 10, ..exclusive() });
    (1..=5).for_each(|id| scene.exchange(id));
    assert_eq!(scene.act.dialled.len(), 2);
    scene.ready_from(1);
    assert_eq!(scene.act.sent.len(), 2);
    for _ in 0..20 {
        if scene.queued() > 0 {
            scene.sleep();
            scene.ready_from(2);
        }
    }
    assert_eq!((scene.act.sent.len(), scene.queued()), (5, 0));
    let mut scene = up(ServiceConfig { inflight_max: 2, pool: 10, ..exclusive() });
    (1..=3).for_each(|id| scene.exchange(id));
    scene.ready_from(1);
    assert_eq!(scene.act.sent.len(), 2);
    scene.done(1);
    assert_eq!(scene.act.sent.len(), 3);
}

#[test]
fn peers_share_the_requests_and_one_that_leaves_finishes_first() {
    let mut scene = Scene::of(ServiceConfig { pool: 50, ..exclusive() }, &[peer(1), peer(2)]);
    scene.ready_from(0);
    let mut seen = 2;
    for id in 1..=40 {
        scene.exchange(id);
        scene.ready_from(seen);
        seen = scene.act.dialled.len();
    }
    let of = |scene: &Scene, name: &str| scene.act.peers.iter().filter(|peer| *peer == name).count();
    assert!(of(&scene, A) >= 10 && of(&scene, B) >= 10, "{} and {}", of(&scene, A), of(&scene, B));
    scene.peers(&[peer(2)]);
    let busy_a = (1..=40).filter(|id| scene.act.peers[scene.went(*id).unwrap().0 as usize - 1] == A).count();
    assert!(busy_a > 0 && scene.act.dropped.is_empty());
    (1..=40).for_each(|id| scene.done(id));
    assert_eq!(scene.names(), [B]);
    (41..=60).for_each(|id| scene.exchange(id));
    assert!((41..=60).filter_map(|id| scene.went(id)).all(|conn| scene.act.peers[conn.0 as usize - 1] == B));
}

#[test]
fn a_peer_that_moves_serves_where_it_was_until_it_is_reached() {
    let place = |last: u8| Place::Tcp(format!("10.0.0.{last}:80").parse().unwrap());
    let mut scene = Scene::of(exclusive(), &[Peer::new("web:80", vec![place(1)])]);
    scene.act.places.insert(SHARED, place(1));
    scene.ready(SHARED);
    scene.exchange(1);
    scene.done(1);
    scene.peers(&[Peer::new("web:80", vec![place(2)])]);
    assert_eq!(scene.act.dialled.len(), 2);
    scene.exchange(2);
    assert_eq!(scene.went(2), Some(SHARED));
    scene.act.places.insert(ConnId(2), place(2));
    scene.ready(ConnId(2));
    scene.exchange(3);
    assert_eq!(scene.went(3), Some(ConnId(2)));
    scene.done(2);
    assert_eq!(scene.act.dropped, [SHARED]);
}

#[test]
fn a_lease_has_a_conn_of_its_own_that_ends_when_its_peer_says_so() {
    let mut scene = up(exclusive());
    scene.lease(1);
    let lane = *scene.act.dialled.last().unwrap();
    assert_ne!(lane, SHARED);
    scene.ready(lane);
    assert_eq!(scene.act.leased.len(), 1);
    scene.ask(2, Class::Exchange, 1);
    assert_eq!(scene.went(2), Some(lane));
    scene.settle();
    scene.service.handle_fact(scene.now, lane, &Fact::Draining, &mut scene.act);
    assert!(scene.act.dropped.is_empty());
    scene.done(2);
    assert_eq!(scene.act.dropped, [lane]);
    scene.ask(3, Class::Exchange, 1);
    assert_eq!(scene.act.failed, [(3, IOK_STATUS_LOST)]);
}

#[test]
fn a_thousand_conns_cost_a_request_no_more_than_one() {
    let mut scene = up(ServiceConfig { pool: 1000, ..exclusive() });
    scene.widen(1000);
    assert_eq!(scene.conns(), 1000);
    // Each look at a conn is counted.
    scene.act.looks.set(0);
    scene.ask(1, Class::Exchange, 0);
    let conn = scene.went(1).unwrap();
    scene.act.ended.insert(1);
    scene.service.handle_progress(scene.now, conn, 0, Tenancy::Clean, &mut scene.act);
    assert!(scene.act.looks.get() <= 4, "{} looks", scene.act.looks.get());
}
