//! Many handshakes at once.

use super::*;
use crate::kernel::conn::{Conn, Link};
use crate::kernel::io::Io;
use crate::kernel::tests;

/// A listener whose clients have all said hello, and wait.
fn besieged(query: &str, clients: usize) -> (Io, u32, Vec<End>) {
    let pair = Pair::new(query, "");
    let mut io = tests::io();
    let key = tests::endpoint(&mut io);
    let begin = || pair.client.made.begin(Some("localhost")).unwrap();
    let mut ends = Vec::new();
    let sockets: Vec<UnixStream> = (0..clients)
        .map(|_| {
            let (near, far) = UnixStream::pair().unwrap();
            let mut end = End::new(near, begin());
            assert_eq!(end.shake(), Ok(false));
            ends.push(end);
            far
        })
        .collect();
    io.endpoints[key as usize].tls = Some(pair.server);
    for socket in sockets {
        come(&mut io, key, socket);
    }
    (io, key, ends)
}

fn come(io: &mut Io, endpoint: u32, socket: UnixStream) -> u32 {
    io.make_room(endpoint);
    io.conn_numbers += 1;
    let proto = io.endpoints[endpoint as usize].driver.server();
    let key = io.conns.insert(Conn::new(io.conn_numbers, endpoint, true, Link::Resolving, proto)) as u32;
    io.secure(key, stream(socket));
    key
}

fn tls_of(io: &Io, key: u32) -> &Tls {
    io.endpoints[key as usize].tls.as_deref().unwrap()
}

#[test]
fn a_turn_carries_on_some_of_many_handshakes_and_the_next_turn_others() {
    let (mut io, key, mut ends) = besieged("", 500);
    assert_eq!((io.handshakes.len(), tls_of(&io, key).pending), (500, 500));
    let (mut turns, mut left) = (0, 500);
    while left > 0 {
        io.shake_hands();
        assert!(io.handshakes.len() < left, "at least one step");
        left = io.handshakes.len();
        turns += 1;
    }
    // So many signatures are never made in the time of a few turns.
    assert!(turns > 5, "{turns}");
    let answered = ends.iter_mut().filter_map(|end| end.shake().ok()).filter(|done| *done).count();
    assert_eq!(answered, 500, "each of them has its answer");
    assert_eq!(tls_of(&io, key).pending, 500, "none was done yet");
    let keys: Vec<u32> = io.conns.iter().map(|(key, _)| key as u32).collect();
    for conn in keys {
        io.handshake_event(conn);
        io.handshake_event(conn);
    }
    assert_eq!(io.handshakes.len(), 500, "each is queued once");
    while !io.handshakes.is_empty() {
        io.shake_hands();
    }
    assert_eq!((tls_of(&io, key).pending, tls_of(&io, key).counts.handshakes), (0, 500));
    assert!(io.conns.iter().all(|(_, conn)| matches!(conn.link, Link::Up(_)) && conn.connect_by.is_none()));
}

#[test]
fn who_lets_us_wait_makes_room_and_who_waits_for_us_does_not() {
    let (mut io, key, _ends) = besieged("&tls_pending=3", 3);
    assert!(!io.has_room(key), "all of them have something for us to do");
    while !io.handshakes.is_empty() {
        io.shake_hands();
    }
    assert!(io.has_room(key));
    let before: Vec<u32> = io.conns.iter().map(|(_, conn)| conn.number).collect();
    let (_near, far) = UnixStream::pair().unwrap();
    come(&mut io, key, far);
    let after: Vec<u32> = io.conns.iter().map(|(_, conn)| conn.number).collect();
    assert_eq!((tls_of(&io, key).pending, after.len()), (3, 3));
    assert!(!after.contains(&before[0]) && after.contains(&before[1]), "the first to come is the first to go");
    assert!(tls_of(&io, key).last_error.contains("tls_pending="), "{}", tls_of(&io, key).last_error);
}

#[test]
fn a_handshake_has_its_time_and_no_more() {
    let (mut io, key, _ends) = besieged("&tls_timeout=20ms", 1);
    let conn = io.conns.iter().next().map(|(key, _)| key as u32).unwrap();
    io.shake_hands();
    std::thread::sleep(Duration::from_millis(30));
    io.core.tick();
    io.conn_timer(conn);
    assert!(io.conns.is_empty() && tls_of(&io, key).pending == 0);
    let told = &tls_of(&io, key).last_error;
    assert!(told.ends_with("the peer did not finish the handshake within 20ms"), "{told}");
}
