//! What two ends say to each other.

use std::io::{ErrorKind, Read, Write};

use super::*;

#[test]
fn ends_agree_on_version_protocol_and_name_and_hear_each_other() {
    for (query, version) in [("", "1.3"), ("&tls_min=1.3", "1.3")] {
        let pair = Pair::new(query, query);
        let (mut client, mut server) = pair.shake("localhost").map_err(|why| format!("{why:?}")).unwrap();
        let agreed = client.session.agreed();
        assert_eq!((agreed.version, agreed.alpn.as_deref()), (version, Some(&b"one"[..])));
        assert_eq!(server.session.agreed(), agreed);
        assert!(agreed.cipher.starts_with("TLS13_"), "{}", agreed.cipher);
        assert_eq!(pair.server.take_asked().as_deref(), Some("localhost"));
        assert_eq!(pair.server.take_asked(), None, "once");
        assert_eq!(client.write(b"a question").unwrap(), 10);
        assert_eq!(server.drain(), b"a question");
        server.write(b"an answer").unwrap();
        assert_eq!(client.drain(), b"an answer");
    }
}

#[test]
fn a_session_is_resumed_and_the_next_one_too() {
    let pair = Pair::new("", "");
    let mut resumed = Vec::new();
    for _ in 0..3 {
        let (mut client, mut server) = pair.shake("localhost").ok().unwrap();
        // Tickets come with the first words.
        server.write(b"x").unwrap();
        assert_eq!(client.drain(), b"x");
        resumed.push((client.session.agreed().resumed, server.session.agreed().resumed));
        assert_eq!(pair.server.take_asked().as_deref(), Some("localhost"), "it is told who was asked for");
    }
    assert_eq!(resumed, [(false, false), (true, true), (true, true)]);
    let (client, _) = pair.shake("127.0.0.1").ok().unwrap();
    assert!(!client.session.agreed().resumed, "nothing is resumed that was with somebody else");
}

/// Passes on what one socket says to the other, in pieces of some size.
fn pass_on(from: &mut UnixStream, to: &mut UnixStream, size: usize) -> bool {
    let mut bytes = vec![0; size];
    match from.read(&mut bytes) {
        Ok(0) => false,
        Ok(count) => {
            to.write_all(&bytes[..count]).unwrap();
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

#[test]
fn pieces_of_any_size_make_the_same_conversation() {
    let pair = Pair::new("", "");
    let said: Vec<u8> = (0..70_000u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    for size in [1, 2, 3, 5, 7, 100, 4096, 17_000] {
        let ((a, mut near), (b, mut far)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut client = End::new(a, pair.client.made.begin(Some("localhost")).unwrap());
        let mut server = End::new(b, pair.server.made.begin(None).unwrap());
        let (mut ready, mut sent, mut heard) = ((false, false), 0, Vec::new());
        while heard.len() < said.len() {
            if ready.0 {
                let bytes = &said[sent..said.len().min(sent + 30_000)];
                sent += client
                    .write(bytes)
                    .or_else(|error| match error.kind() {
                        ErrorKind::WouldBlock => Ok(0),
                        _ => Err(error),
                    })
                    .unwrap();
            } else {
                ready.0 = client.shake().unwrap();
            }
            while pass_on(&mut near, &mut far, size) {
                if ready.1 {
                    heard.extend(server.drain());
                } else {
                    ready.1 = server.shake().unwrap();
                }
            }
            while pass_on(&mut far, &mut near, size) {
                match ready.0 {
                    true => assert_eq!(client.drain(), b""),
                    false => ready.0 = client.shake().unwrap(),
                }
            }
            let _ = client.session.settle(&mut client.socket);
        }
        assert!(heard == said, "pieces of {size}");
    }
}

/// A handshake through a middleman who breaks off after so many bytes in one direction. What each side made of it.
fn cut(pair: &Pair, to_server: bool, at: usize) -> [Option<Result<(), Failure>>; 2] {
    let ((a, near), (b, far)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let mut ends = [
        End::new(a, pair.client.made.begin(Some("localhost")).unwrap()),
        End::new(b, pair.server.made.begin(None).unwrap()),
    ];
    let (mut left, mut outcome) = (at, [None, None]);
    for _ in 0..8 {
        for (end, outcome) in ends.iter_mut().zip(&mut outcome).filter(|(_, outcome)| outcome.is_none()) {
            *outcome = end.shake().map(|done| done.then_some(())).transpose();
        }
        for (mut from, mut to, is_cut) in [(&near, &far, to_server), (&far, &near, !to_server)] {
            let mut bytes = vec![0; 8192];
            let Ok(count @ 1..) = from.read(&mut bytes) else { continue };
            let passed = if is_cut { count.min(left) } else { count };
            // Who has heard enough may be gone.
            let _ = to.write_all(&bytes[..passed]);
            if is_cut {
                left -= passed;
                if passed < count {
                    let _ = from.shutdown(std::net::Shutdown::Both);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                }
            }
        }
    }
    outcome
}

#[test]
fn a_handshake_that_is_cut_off_at_any_byte_fails_for_who_did_not_hear_the_end() {
    let pair = Pair::new("", "");
    let mut longest = [0, 0];
    for to_server in [true, false] {
        for at in 0.. {
            let [client, server] = cut(&pair, to_server, at);
            let of_who_hears = if to_server { &server } else { &client };
            match of_who_hears {
                Some(Ok(())) => {
                    longest[usize::from(to_server)] = at;
                    break;
                }
                Some(Err(failure)) => {
                    let told = failure.words.contains("during the TLS handshake");
                    assert!(!failure.refused && told, "{failure:?}");
                }
                None => panic!("nobody waits for ever: cut after {at} bytes"),
            }
            assert!(at < 5000);
        }
    }
    assert!(longest[0] > 500 && longest[1] > 200, "there was something to cut: {longest:?}");
}

#[test]
fn the_end_is_believed_only_from_who_says_it() {
    let pair = Pair::new("", "");
    for clean in [true, false] {
        let (mut client, mut server) = pair.shake("localhost").ok().unwrap();
        server.write(b"all of it, or not?").unwrap();
        server.into_line().close(clean);
        let (got, bytes) = client.read().unwrap();
        assert_eq!((bytes.as_slice(), got.closed), (&b"all of it, or not?"[..], false));
        match clean {
            true => assert!(got.more && client.read().unwrap().0.closed),
            false => {
                let error = client.read().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                assert!(error.to_string().contains("may be cut off"), "{error}");
            }
        }
    }
}

#[test]
fn who_hears_no_more_is_still_answered() {
    let pair = Pair::new("", "");
    let (mut client, mut server) = pair.shake("localhost").ok().unwrap();
    client.write(b"my last words").unwrap();
    client.session.say_goodbye(&mut client.socket);
    assert_eq!(server.read().unwrap().1, b"my last words");
    assert!(server.read().unwrap().0.closed);
    assert!(server.read().unwrap().0.closed, "it stays so");
    server.write(b"heard").unwrap();
    assert_eq!(client.read().unwrap().1, b"heard");
}

#[test]
fn what_waits_for_a_slow_peer_is_one_piece() {
    let pair = Pair::new("", "");
    let (mut client, mut server) = pair.shake("localhost").ok().unwrap();
    let said: Vec<u8> = (0..4 << 20).map(|at: u32| (at >> 8) as u8).collect();
    let (mut sent, mut heard, mut waited) = (0, Vec::new(), 0);
    while heard.len() < said.len() {
        match client.write(&said[sent..]) {
            Ok(count) => {
                assert!(count <= 64 << 10);
                sent += count;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(!client.session.is_settled());
                waited += 1;
                assert!(client.session.held_bytes() < 66 << 10, "{}", client.session.held_bytes());
                heard.extend(server.drain());
                assert!(server.session.held_bytes() < 18 << 10, "{}", server.session.held_bytes());
            }
        }
        if sent == said.len() {
            let _ = client.session.settle(&mut client.socket);
            heard.extend(server.drain());
        }
    }
    assert!(heard == said && waited > 3, "{waited}");
    client.session.settle(&mut client.socket).unwrap();
    assert_eq!((client.session.held_bytes(), server.session.held_bytes()), (0, 0));
}

#[test]
fn one_wrong_bit_ends_it_and_says_so_to_the_peer() {
    let pair = Pair::new("", "");
    let (mut client, mut server) = pair.shake("localhost").ok().unwrap();
    assert_eq!(server.drain(), b"");
    let ((mut near, far), _keep) = (UnixStream::pair().unwrap(), ());
    let own = std::mem::replace(&mut client.socket, stream(far));
    client.write(b"well").unwrap();
    client.write(b"spoilt").unwrap();
    let mut bytes = vec![0; 1000];
    let count = near.read(&mut bytes).unwrap();
    bytes[count - 1] ^= 1;
    client.socket = own;
    client.socket.write_all(&bytes[..count]).unwrap();
    let (got, well) = server.read().unwrap();
    assert_eq!((well.as_slice(), got.more), (&b"well"[..], true), "what came well is told first");
    let error = server.read().unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::InvalidData, "TLS: what came was not encrypted with our keys")
    );
    let error = client.read().unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
}

#[test]
fn what_is_no_tls_is_told_as_such() {
    let pair = Pair::new("", "");
    for words in ["HTTP/1.1 400 Bad Request\r\n\r\n", "-ERR unknown command\r\n", "\0\0\0\0\0\0\0\0"] {
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut client = End::new(far, pair.client.made.begin(Some("localhost")).unwrap());
        assert_eq!(client.shake(), Ok(false));
        near.write_all(words.as_bytes()).unwrap();
        let failure = client.shake().unwrap_err();
        assert_eq!((failure.status, failure.refused), (crate::status::IOK_STATUS_PROTOCOL, true), "{words}");
        assert_eq!((failure.words.as_str(), failure.no_tls), ("the peer does not speak TLS", true));
        let mut heard = Vec::new();
        drop(client);
        near.read_to_end(&mut heard).unwrap();
        assert_eq!(heard[0], 22, "nothing but the hello");
        assert_eq!(heard.len(), 5 + usize::from(u16::from_be_bytes([heard[3], heard[4]])), "and no alert");
    }
    let (near, far) = UnixStream::pair().unwrap();
    let mut client = End::new(far, pair.client.made.begin(Some("localhost")).unwrap());
    drop(near);
    let failure = client.shake().unwrap_err();
    assert_eq!((failure.status, failure.refused), (crate::status::IOK_STATUS_UNAVAILABLE, false));
}

/// A message of a handshake that is announced as longer than any is not waited for.
#[test]
fn a_hello_without_an_end_is_not_held() {
    let pair = Pair::new("", "");
    let (mut near, far) = UnixStream::pair().unwrap();
    let mut server = End::new(far, pair.server.made.begin(None).unwrap());
    let mut failed = None;
    for at in 0..100 {
        // Records of 1 KiB, the first of which announces a ClientHello of 16 MiB.
        let mut record = vec![22, 3, 1, 4, 0];
        record.extend(if at == 0 { vec![1, 0xff, 0xff, 0xff] } else { vec![0; 4] });
        record.resize(5 + 1024, 0);
        if near.write_all(&record).is_err() {
            break;
        }
        match server.shake() {
            Ok(done) => assert!(!done && server.session.held_bytes() <= 66 << 10),
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    assert!(failed.is_some_and(|failure| failure.refused));
}
