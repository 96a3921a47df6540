//! Stopping what nobody waits for, and what may be hit in its place.
use std::time::Duration;

use super::{Rig, URL, driver, error, int_rows, ready, request, script};
use crate::proto::{Command, Limits, RequestId};

const MOMENT: Duration = Duration::from_millis(20);
/// CancelRequest for process 7, whose secret is 1, as the event shows it.
const WORD: &str = "Aside { say: [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 7, 0, 0, 0, 1] }";

/// Requests 1 to `count` are under way, of statements that are known.
fn busy(count: u64) -> Rig {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    rig.ask(1, &request("select 1", &[])).unwrap();
    rig.hear(&super::described(&[], &[("n", 23)])).unwrap();
    for id in 2..=count {
        rig.ask(id, &request("select 1", &[])).unwrap();
    }
    rig.wrote();
    rig
}

fn cancel(rig: &mut Rig, id: u64) {
    rig.command(Command::Cancel { id: RequestId(id) }).unwrap();
}

fn canceled() -> Vec<u8> {
    [error("57014", "canceling statement due to user request"), ready(b'I')].concat()
}

#[test]
fn what_runs_alone_is_stopped_at_once() {
    let mut rig = busy(1);
    cancel(&mut rig, 1);
    assert_eq!(rig.events(), [WORD]);
    rig.hear(&canceled()).unwrap();
    rig.command(Command::AsideOver).unwrap();
    assert_eq!((rig.events(), rig.conn.inflight(), rig.wrote()), (vec![], 0, String::new()));
    rig.ask(2, &request("select 1", &[])).unwrap();
    rig.hear(&int_rows(&[2], b'I')).unwrap();
    assert!(rig.events()[0].starts_with("2 "));
}

#[test]
fn what_others_wait_for_may_end_by_itself_for_a_moment() {
    let mut rig = busy(3);
    cancel(&mut rig, 1);
    assert_eq!((rig.events(), rig.conn.poll_timeout()), (vec![], Some(rig.now + MOMENT)));
    rig.hear(&int_rows(&[1], b'I')).unwrap();
    rig.pass(MOMENT).unwrap();
    assert_eq!(rig.events(), Vec::<String>::new(), "it did");
    cancel(&mut rig, 3);
    rig.pass(MOMENT).unwrap();
    assert_eq!(rig.events(), Vec::<String>::new(), "its turn has not come");
    rig.hear(&int_rows(&[2], b'I')).unwrap();
    assert_eq!(rig.events()[1..], [WORD]);
}

#[test]
fn what_was_hit_in_anothers_place_is_sent_once_more() {
    let mut rig = busy(4);
    cancel(&mut rig, 1);
    rig.pass(MOMENT).unwrap();
    assert_eq!(rig.events(), [WORD]);
    rig.hear(&int_rows(&[1], b'I')).unwrap();
    rig.command(Command::AsideOver).unwrap();
    rig.hear(&canceled()).unwrap();
    assert_eq!((rig.events(), rig.wrote().as_str()), (vec![], "BES"), "the second one, once more");
    rig.hear(&[int_rows(&[3], b'I'), int_rows(&[4], b'I'), int_rows(&[2], b'I')].concat()).unwrap();
    let events = rig.events();
    assert!(events[0].starts_with("3 ") && events[1].starts_with("4 ") && events[2].starts_with("2 "), "{events:?}");
    // What was sent after the word had arrived is not its victim.
    rig.ask(5, &request("select 1", &[])).unwrap();
    rig.hear(&canceled()).unwrap();
    assert!(rig.events()[0].starts_with("5! [\"57014\""));
}

#[test]
fn a_script_that_was_hit_is_sent_once_more_unless_it_may_have_committed() {
    for (begun, again) in [(false, true), (true, false)] {
        let mut rig = busy(1);
        rig.ask(2, &script("select 1; select 2")).unwrap();
        cancel(&mut rig, 1);
        rig.pass(MOMENT).unwrap();
        rig.events();
        rig.wrote();
        rig.hear(&int_rows(&[1], b'I')).unwrap();
        if begun {
            rig.hear(&super::said(b'C', b"COMMIT\0")).unwrap();
        }
        rig.hear(&canceled()).unwrap();
        assert_eq!((rig.wrote().is_empty(), rig.events().is_empty()), (!again, again), "begun: {begun}");
    }
}

#[test]
fn a_server_that_goes_on_is_asked_again_less_and_less_often() {
    let mut rig = busy(1);
    cancel(&mut rig, 1);
    let mut patience = 2 * MOMENT;
    for _ in 0..3 {
        assert_eq!(rig.events(), [WORD]);
        assert!(rig.conn.poll_timeout().is_none_or(|at| at > rig.now), "one word at a time");
        rig.command(Command::AsideOver).unwrap();
        rig.pass(patience - MOMENT).unwrap();
        assert_eq!(rig.events(), Vec::<String>::new());
        rig.pass(MOMENT).unwrap();
        patience *= 2;
    }
}

#[test]
fn a_tenant_sends_nothing_behind_the_word() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    rig.ask(1, &script("begin")).unwrap();
    rig.hear(&[super::said(b'C', b"BEGIN\0"), ready(b'T')].concat()).unwrap();
    rig.ask(2, &script("select slow()")).unwrap();
    rig.wrote();
    rig.events();
    cancel(&mut rig, 2);
    assert_eq!(rig.events(), [WORD]);
    rig.ask(3, &script("rollback")).unwrap();
    rig.hear(&[error("57014", "canceling"), ready(b'E')].concat()).unwrap();
    assert_eq!(rig.wrote(), "");
    rig.command(Command::AsideOver).unwrap();
    assert_eq!(rig.wrote(), "Q(rollback)");
    rig.hear(&[super::said(b'C', b"ROLLBACK\0"), ready(b'I')].concat()).unwrap();
    assert!(rig.events()[0].starts_with("3 "));
    // More of the same tenant's is behind it: an error would end that.
    rig.ask(4, &script("begin")).unwrap();
    rig.ask(5, &script("select slow()")).unwrap();
    cancel(&mut rig, 4);
    rig.pass(MOMENT).unwrap();
    assert_eq!(rig.events(), Vec::<String>::new());
}
