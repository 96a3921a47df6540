//! The admin endpoint's HTTP: no bytes panic, and how they are cut makes no difference.
#![no_main]

use iokernel::observe::http::{Event, Hosts, Session};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let whole = talk(bytes, usize::MAX);
    assert_eq!(talk(bytes, usize::from(step) + 1), whole);
});

/// What was heard, and what was written.
fn talk(mut bytes: &[u8], step: usize) -> (Vec<Event>, Vec<u8>) {
    let mut session = Session::new(Hosts::Known("admin.internal".into()));
    let (mut events, mut out) = (Vec::new(), Vec::new());
    loop {
        while let Some(event) = session.poll() {
            let status = if let Event::Refusal(refusal) = &event { refusal.status } else { 200 };
            session.answer(&mut out, status, "text/plain", b"answer");
            events.push(event);
        }
        let count = step.min(session.room()).min(bytes.len());
        if count == 0 {
            return (events, out);
        }
        session.handle_input(&bytes[..count]);
        bytes = &bytes[count..];
    }
}
