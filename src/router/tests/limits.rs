//! Throttles, the queue behind them, and retries.

use super::*;
use crate::router::throttle::Rate;

const PLAIN: Route = Route { slot: None, hash: None };

fn up(config: ServiceConfig) -> Scene {
    let mut scene = Scene::of(config, &[peer(1)]);
    scene.ready(SHARED);
    scene
}

#[test]
fn what_is_in_flight_has_a_limit_and_the_rest_waits_its_turn() {
    let mut scene = up(ServiceConfig { inflight_max: 2, ..config() });
    (1..=7).for_each(|id| scene.ask(id, Class::Shared, 0));
    assert_eq!(scene.act.sent.len(), 2);
    assert_eq!(scene.act.failed, [(7, IOK_STATUS_OVERLOADED)], "four wait");
    scene.replied(1);
    assert_eq!(scene.act.sent[2..], [(SHARED, 3)]);
    scene.cancel(2, Some(SHARED));
    assert_eq!(scene.act.sent[3..], [(SHARED, 4)]);
}

#[test]
fn a_rate_lets_its_burst_in_and_then_one_at_a_time() {
    let rate = Some(Rate { per_second: 10.0, burst: 2.0 });
    let mut scene = up(ServiceConfig { rate, ..config() });
    (1..=4).for_each(|id| scene.ask(id, Class::Shared, 0));
    assert_eq!(scene.act.sent.len(), 2);
    let begun = scene.now;
    scene.sleep();
    assert_eq!(scene.act.sent[2..], [(SHARED, 3)]);
    scene.sleep();
    assert_eq!(scene.act.sent[3..], [(SHARED, 4)]);
    let took = scene.now - begun;
    assert!((Duration::from_millis(200)..Duration::from_millis(201)).contains(&took), "{took:?}");
    assert_eq!(scene.service.poll_timeout().filter(|next| *next <= scene.now), None);
}

#[test]
fn a_peer_has_a_rate_and_a_limit_of_its_own() {
    let rate = Some(Rate { per_second: 10.0, burst: 1.0 });
    let mut scene = Scene::of(ServiceConfig { peer_rate: rate, ..config() }, &[peer(1), peer(2)]);
    [A, B].iter().for_each(|name| scene.ready(scene.to(name)));
    (1..=4).for_each(|id| scene.ask(id, Class::Shared, 0));
    let of = |scene: &Scene, name| scene.act.sent.iter().filter(|(conn, _)| *conn == scene.to(name)).count();
    assert!(of(&scene, A) <= 1 && of(&scene, B) <= 1);
    for _ in 0..8 {
        if scene.act.sent.len() < 4 {
            scene.sleep();
        }
    }
    assert!(scene.act.sent.len() >= 4);
    let mut scene = up(ServiceConfig { peer_inflight_max: 3, pool: 1, ..config() });
    scene.act.tenancies.insert(SHARED, (3, Tenancy::Clean));
    let conns = scene.act.dialled.len();
    scene.ask(1, Class::Shared, 0);
    scene.act.tenancies.insert(SHARED, (2, Tenancy::Clean));
    scene.progress(SHARED);
    assert_eq!((scene.went(1), scene.act.dialled.len()), (Some(SHARED), conns));
}

#[test]
fn what_is_put_off_comes_again_after_a_moment() {
    let mut scene = Scene::up();
    scene.ask(1, Class::Shared, 0);
    assert!(scene.rejected(SHARED, 1, PLAIN, Rejection::TryAgain));
    assert_eq!(scene.went(1), None);
    let begun = scene.now;
    scene.sleep();
    assert_eq!(scene.went(1), Some(SHARED));
    assert!((5..20).contains(&(scene.now - begun).as_millis()));
}

#[test]
fn what_is_put_off_counts_against_the_queue() {
    let mut scene = Scene::up();
    (1..=5).for_each(|id| scene.ask(id, Class::Shared, 0));
    let taken: Vec<bool> = (1..=5).map(|id| scene.rejected(SHARED, id, PLAIN, Rejection::TryAgain)).collect();
    assert_eq!(taken, [true, true, true, true, false], "max_queue=4, and the last has the peer's error");
    assert_eq!(scene.service.state(&scene.act).queued, 4);
}

#[test]
fn retries_have_a_budget_and_what_was_never_sent_needs_none() {
    let mut scene = up(ServiceConfig { retry_share: 0.0, ..config() });
    let need = || Need { class: Class::Shared, idempotent: false, route: PLAIN };
    scene.service.handle_again(scene.now, RequestId(1), need(), Again::Idempotent, &mut scene.act);
    assert_eq!(scene.act.failed, [(1, IOK_STATUS_LOST)]);
    scene.service.handle_again(scene.now, RequestId(2), need(), Again::NotSent, &mut scene.act);
    assert_eq!(scene.went(2), Some(SHARED));
    let mut scene = up(ServiceConfig { retry_share: 0.5, ..config() });
    for id in 1..=300 {
        scene.service.handle_again(scene.now, RequestId(id), need(), Again::Idempotent, &mut scene.act);
    }
    assert!((100..=250).contains(&scene.act.sent.len()), "{}", scene.act.sent.len());
}

#[test]
fn a_request_that_was_not_executed_keeps_its_place_in_flight() {
    let config = ServiceConfig { inflight_max: 1, wanted: crate::peer::Wanted::Any, ..config() };
    let mut scene = Scene::of(config, &[peer(1), peer(2)]);
    [A, B].iter().for_each(|name| scene.ready(scene.to(name)));
    (1..=2).for_each(|id| scene.ask(id, Class::Shared, 0));
    let first = scene.went(1).unwrap();
    assert!(scene.rejected(first, 1, PLAIN, Rejection::NotServing));
    assert_ne!(scene.went(1), Some(first));
    assert_eq!((scene.went(2), scene.act.inflight()), (None, 1));
}
