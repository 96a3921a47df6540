//! A listener's conn.
use super::*;

fn listener(url: &str) -> Rig {
    Rig::new(driver(url, Limits { inflight_max: 4, ..Limits::default() }).server())
}

fn reply(rig: &mut Rig, slot: u64, body: &[u8]) -> Result<(), String> {
    rig.command(Command::Reply { slot, body })
}

/// Sends inline commands and returns what was written.
fn talk(rig: &mut Rig, lines: &str) -> String {
    rig.feed(lines.as_bytes()).unwrap();
    rig.sent()
}

#[test]
fn requests_go_to_the_program_and_replies_leave_in_order() {
    let mut rig = listener("redis://h");
    rig.feed(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nget b\r\nPING\r\n*1\r\n$5\r\nMULTI\r\n").unwrap();
    assert_eq!(
        rig.events(),
        ["request 0 [b\"GET\", b\"a\"]", "request 1 [b\"get\", b\"b\"]", "request 3 [b\"MULTI\"]"]
    );
    assert!(rig.conn.paused());
    reply(&mut rig, 3, b"\x01").unwrap();
    reply(&mut rig, 1, b"\xc4\x01x").unwrap();
    assert_eq!(rig.sent(), "");
    reply(&mut rig, 0, b"\xa2OK").unwrap();
    assert_eq!(rig.sent(), "+OK\\r\\n$1\\r\\nx\\r\\n+PONG\\r\\n:1\\r\\n");
    assert!(!rig.conn.paused());
    assert!(reply(&mut rig, 0, b"\xc0").is_err() && reply(&mut rig, 9, b"\xc0").is_err());
}

#[test]
fn every_value_becomes_resp3_and_resp2() {
    let mut error = Vec::new();
    write::error_ext(&mut error, 1, b"WRONG", b"a\r\n+forged");
    for (value, resp3, resp2) in [
        (&b"\xc0"[..], "_\r\n", "$-1\r\n"),
        (b"\xc3", "#t\r\n", ":1\r\n"),
        (b"\xfb", ":-5\r\n", ":-5\r\n"),
        (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "(18446744073709551615\r\n", "$20\r\n18446744073709551615\r\n"),
        (b"\xca\x3f\x00\x00\x00", ",0.5\r\n", "$3\r\n0.5\r\n"),
        (b"\xa1a", "+a\r\n", "+a\r\n"),
        (b"\xa2\r\n", "$2\r\n\r\n\r\n", "$2\r\n\r\n\r\n"),
        (b"\xc4\x01b", "$1\r\nb\r\n", "$1\r\nb\r\n"),
        (b"\x92\x01\xc0", "*2\r\n:1\r\n_\r\n", "*2\r\n:1\r\n$-1\r\n"),
        (b"\x81\xa1k\x01", "%1\r\n+k\r\n:1\r\n", "*2\r\n+k\r\n:1\r\n"),
        (&error, "-WRONG a  +forged\r\n", "-WRONG a  +forged\r\n"),
        (b"\xd5\x02-7", "(-7\r\n", "$2\r\n-7\r\n"),
        (b"\xc7\x05\x03txt:a", "=5\r\ntxt:a\r\n", "$1\r\na\r\n"),
        (b"\xd5\x04\x91\x01", "~1\r\n:1\r\n", "*1\r\n:1\r\n"),
        (b"\xd6\x05\x92\x81\x01\x02\x00", "", ""),
        (b"\xc7\x05\x05\x92\x81\x01\x02\x03", "|1\r\n:1\r\n:2\r\n:3\r\n", ":3\r\n"),
    ] {
        for (version, expected) in [("3", resp3), ("2", resp2)] {
            let mut rig = listener("redis://h");
            talk(&mut rig, &format!("HELLO {version}\r\nGET a\r\n"));
            let sent = reply(&mut rig, 0, value);
            match expected {
                "" => {
                    assert!(sent.is_err());
                    assert_eq!(rig.sent(), "-ERR the program\\'s reply cannot be sent\\r\\n");
                }
                _ => assert_eq!((sent, rig.sent()), (Ok(()), expected.escape_default().to_string())),
            }
        }
    }
}

#[test]
fn the_conn_is_our_own_business() {
    let mut rig = listener("redis://h");
    assert_eq!(talk(&mut rig, "ping\r\nPING hi\r\nSELECT 0\r\n"), "+PONG\\r\\n$2\\r\\nhi\\r\\n+OK\\r\\n");
    assert_eq!(talk(&mut rig, "SELECT 1\r\n"), "-ERR DB index is out of range\\r\\n");
    assert_eq!(talk(&mut rig, "CLIENT SETNAME me\r\nclient getname\r\n"), "+OK\\r\\n$2\\r\\nme\\r\\n");
    assert_eq!(talk(&mut rig, "COMMAND DOCS\r\nCOMMAND\r\n"), "*0\\r\\n*0\\r\\n");
    assert!(talk(&mut rig, "HELLO 3\r\n").starts_with("%7\\r\\n$6\\r\\nserver"));
    assert_eq!(talk(&mut rig, "COMMAND DOCS\r\nCLIENT ID\r\n"), "%0\\r\\n:1\\r\\n");
    assert_eq!(talk(&mut rig, "HELLO 4\r\n"), "-NOPROTO unsupported protocol version\\r\\n");
    assert_eq!(talk(&mut rig, "RESET\r\nCLIENT GETNAME\r\n"), "+RESET\\r\\n$-1\\r\\n");
    assert_eq!(rig.events(), [""; 0]);
    talk(&mut rig, "ECHO x\r\nCLIENT LIST\r\nCLIENT KILL a\r\n");
    assert_eq!(rig.events().len(), 3);
}

#[test]
fn a_password_is_asked_for() {
    let mut rig = listener("redis://:secret@h");
    let denied = "-NOAUTH Authentication required.\\r\\n";
    assert_eq!(talk(&mut rig, "GET a\r\nPING\r\n"), format!("{denied}{denied}"));
    assert!(talk(&mut rig, "HELLO 3\r\n").starts_with("-NOAUTH HELLO must be called"));
    for wrong in ["AUTH secre\r\n", "AUTH secrets\r\n", "AUTH al secret\r\n", "HELLO 3 AUTH default x\r\n"] {
        assert!(talk(&mut rig, wrong).starts_with("-WRONGPASS"), "{wrong}");
    }
    assert_eq!(rig.events(), [""; 0]);
    assert_eq!(talk(&mut rig, "AUTH secret\r\nGET a\r\n"), "+OK\\r\\n");
    assert_eq!(rig.events().len(), 1);
    let mut rig = listener("redis://al:secret@h");
    assert!(talk(&mut rig, "HELLO 3 AUTH al secret\r\n").starts_with("%7"));
    let mut rig = listener("redis://:secret@h");
    assert!(rig.feed(b"*11\r\n").unwrap_err().contains("unauthenticated multibulk length"));
}

#[test]
fn quit_waits_for_the_replies_before_it() {
    let mut rig = listener("redis://h");
    talk(&mut rig, "GET a\r\nQUIT\r\nGET b\r\n");
    assert_eq!(rig.events().len(), 1);
    reply(&mut rig, 0, b"\xc0").unwrap();
    assert_eq!((rig.sent().as_str(), rig.events()), ("$-1\\r\\n+OK\\r\\n", vec!["Draining".to_string()]));
}

#[test]
fn what_breaks_the_protocol_is_told_and_left() {
    for (bytes, expected) in [
        (&b"*1\r\n+a\r\n"[..], "-ERR Protocol error: expected \\'$\\', got \\'+\\'\\r\\n"),
        (b"get \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\\r\\n"),
        (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\\r\\n"),
        (b"*2000000\r\n", "-ERR Protocol error: invalid multibulk length\\r\\n"),
        (b"POST / HTTP/1.1\r\n", "-ERR Protocol error: this is HTTP\\r\\n"),
    ] {
        let mut rig = listener("redis://h");
        assert!(rig.feed(bytes).is_err());
        assert_eq!(rig.sent(), expected);
    }
}
