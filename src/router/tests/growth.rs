//! Shared pools that grow while what is at the head of a conn keeps others waiting.

use super::*;

const FIRST: ConnId = ConnId(1);
const SECOND: ConnId = ConnId(2);

fn growing() -> Scene {
    let mut scene = Scene::of(
        ServiceConfig { pool: 2, grows: Some(Duration::from_millis(50)), queue_max: 100, ..config() },
        &[peer(1)],
    );
    assert_eq!(scene.act.dialled, [FIRST], "one at first");
    scene.ready(FIRST);
    scene
}

fn hold_up(scene: &mut Scene, conn: ConnId) {
    scene.act.held_up.insert(conn);
    scene.act.tenancies.insert(conn, (1, Tenancy::Clean));
}

#[test]
fn what_comes_while_the_conn_is_held_up_goes_by_another() {
    let mut scene = growing();
    scene.ask(1, Class::Shared, 0);
    assert_eq!((scene.went(1), scene.act.dialled.len()), (Some(FIRST), 1));
    hold_up(&mut scene, FIRST);
    scene.ask(2, Class::Shared, 0);
    scene.ask(3, Class::Shared, 0);
    assert_eq!((scene.went(2), scene.act.dialled.len()), (None, 2), "one more is made, and no more than one");
    scene.ready(SECOND);
    assert_eq!((scene.went(2), scene.went(3)), (Some(SECOND), Some(SECOND)));
    hold_up(&mut scene, SECOND);
    scene.ask(4, Class::Shared, 0);
    assert!(scene.went(4).is_some(), "the pool is full");
    assert_eq!(scene.act.dialled.len(), 2);
    scene.act.held_up.remove(&FIRST);
    scene.ask(5, Class::Shared, 0);
    assert_eq!(scene.went(5), Some(FIRST));
}

#[test]
fn who_waits_for_one_more_goes_on_when_the_first_does() {
    let mut scene = growing();
    hold_up(&mut scene, FIRST);
    scene.ask(1, Class::Shared, 0);
    assert_eq!(scene.went(1), None);
    scene.act.held_up.clear();
    scene.progress(FIRST);
    assert_eq!(scene.went(1), Some(FIRST));
}

#[test]
fn one_more_that_cannot_be_made_costs_nothing() {
    let mut scene = growing();
    hold_up(&mut scene, FIRST);
    scene.ask(1, Class::Shared, 0);
    scene.down(SECOND, false);
    assert_eq!((scene.went(1), scene.word()), (Some(FIRST), "up"));
    scene.ask(2, Class::Shared, 0);
    assert_eq!((scene.went(2), scene.act.dialled.len()), (Some(FIRST), 2), "not so soon again");
    assert_eq!(scene.act.failed, []);
}

#[test]
fn what_is_not_needed_any_more_is_closed() {
    let mut scene = growing();
    hold_up(&mut scene, FIRST);
    scene.ask(1, Class::Shared, 0);
    scene.ready(SECOND);
    scene.act.held_up.clear();
    scene.act.tenancies.insert(SECOND, (1, Tenancy::Clean));
    scene.sleep();
    assert_eq!(scene.act.dropped, [], "it is in use");
    scene.act.tenancies.insert(SECOND, (0, Tenancy::Clean));
    scene.sleep();
    assert_eq!(scene.act.dropped, [SECOND]);
    scene.ask(2, Class::Shared, 0);
    assert_eq!((scene.went(2), scene.act.dialled.len()), (Some(FIRST), 2));
}
