//! The handshake, requests and replies of a service's conn.
use super::*;
use crate::proto::{Admit, Class};

#[test]
fn hello_carries_user_password_and_name() {
    let mut rig = Rig::client("redis://al:pw@h/3?client_name=web", Limits::default());
    let hello = "*7\\r\\n$5\\r\\nHELLO\\r\\n$1\\r\\n3\\r\\n$4\\r\\nAUTH\\r\\n$2\\r\\nal\\r\\n$2\\r\\npw\\r\\n$7\\r\\nSETNAME\\r\\n$3\\r\\nweb\\r\\n";
    let select = "*2\\r\\n$6\\r\\nSELECT\\r\\n$1\\r\\n3\\r\\n";
    assert!(rig.sent().starts_with(&format!("{hello}{select}*4\\r\\n$6\\r\\nCLIENT\\r\\n$7\\r\\nSETINFO")));
    rig.feed(HELLO3).unwrap();
    assert_eq!(rig.conn.admit(b""), Admit::Later);
    assert_eq!(rig.events(), [""; 0]);
    rig.feed(b"+OK\r\n").unwrap();
    assert_eq!(rig.conn.admit(b""), Admit::Now);
    assert_eq!(rig.events().len(), 1);
}

#[test]
fn an_old_server_is_spoken_to_in_resp2() {
    for error in ["-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n", "-NOPROTO sorry\r\n"] {
        let mut rig = Rig::client("redis://:pw@h/3?client_name=web", Limits::default());
        rig.sent();
        rig.feed(error.as_bytes()).unwrap();
        assert!(
            rig.sent()
                .starts_with("*2\\r\\n$4\\r\\nAUTH\\r\\n$2\\r\\npw\\r\\n*3\\r\\n$6\\r\\nCLIENT\\r\\n$7\\r\\nSETNAME")
        );
        // The rest of the first packet's answers, then AUTH, SETNAME, SELECT, PING.
        rig.feed(b"-NOAUTH Authentication required.\r\n-ERR x\r\n-ERR x\r\n+OK\r\n+OK\r\n+OK\r\n").unwrap();
        assert_eq!(rig.events(), [""; 0]);
        rig.feed(b"+PONG\r\n-ERR x\r\n-ERR x\r\n").unwrap();
        assert_eq!(rig.events(), ["Ready { topics_beside_requests: false, description: \"redis resp2\" }"]);
    }
}

#[test]
fn a_refused_handshake_says_what_the_server_said() {
    let fault = |url: &str, bytes: &[u8]| Rig::client(url, Limits::default()).feed(bytes).unwrap_err();
    assert_eq!(
        fault("redis://u:p@h", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        "Refused: the server refused the handshake's HELLO: WRONGPASS invalid username-password pair or user is disabled."
    );
    let out_of_range = [HELLO3, b"-ERR DB index is out of range\r\n"].concat();
    assert!(fault("redis://h/99", &out_of_range).starts_with("Refused: the server refused the handshake's SELECT"));
    assert!(fault("redis://h?protocol=2", b"-NOAUTH Authentication required.\r\n").starts_with("Refused"));
    assert!(fault("redis://h?protocol=3", b"-NOPROTO unsupported protocol version\r\n").starts_with("Refused"));
    assert!(fault("redis://h", b"-LOADING Redis is loading the dataset in memory\r\n").starts_with("Closed"));
    assert!(fault("redis://h", b"-ERR max number of clients reached\r\n").starts_with("Closed"));
    assert_eq!(
        fault("redis://h", b"HTTP/1.1 400 Bad Request\r\nx: y\r\n"),
        "Protocol: the peer does not speak RESP: it answered \"HTTP/1.1 400 Bad Request\""
    );
    assert!(fault("redis://h", b"\x15\x03\x01\0\x02\x02F").contains("TLS alert"));
}

#[test]
fn options_are_checked() {
    let error = |url: &str| try_driver(url, Limits::default()).err().unwrap();
    assert_eq!(error("redis://h/x"), "database: \"x\": expected a database number, as in redis://host/0");
    assert!(error("redis://h/1?db=2").starts_with("database: \"1\""));
    assert!(error("redis://h?protocol=4").starts_with("protocol: \"4\": expected one of auto, 2, 3"));
    assert!(error("redis://h?tracking=on&protocol=2").starts_with("tracking"));
    assert!(error("redis://h?client_name=a%20b").starts_with("client_name"));
    assert!(error("redis://h?what=1").starts_with("what"));
    assert!(try_driver("redis://h/1?db=1&protocol=3&tracking=bcast&attributes=true", Limits::default()).is_ok());
}

#[test]
fn every_reply_type_becomes_messagepack() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    for (wire, shown) in [
        (&b"$11\r\nHello World\r\n"[..], "bytes:Hello World"),
        (b"$0\r\n\r\n", "bytes:"),
        (b"+OK\r\n", "text:OK"),
        (b":12345\r\n", "12345"),
        (b":-9223372036854775808\r\n", "-9223372036854775808"),
        (b",3.141\r\n", "3.141"),
        (b",inf\r\n", "inf"),
        (b",-inf\r\n", "-inf"),
        (b",nan\r\n", "NaN"),
        (b"_\r\n", "nil"),
        (b"$-1\r\n", "nil"),
        (b"*-1\r\n", "nil"),
        (b"*0\r\n", "[]"),
        (b"*3\r\n:0\r\n:1\r\n:2\r\n", "[0, 1, 2]"),
        (b"~3\r\n:0\r\n:1\r\n:2\r\n", "!4([0, 1, 2])"),
        (b"%3\r\n:0\r\n#f\r\n:1\r\n#t\r\n:2\r\n#f\r\n", "{0, false, 1, true, 2, false}"),
        (b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n$4\r\nSome\r\n", "bytes:Some"),
        (b"=29\r\ntxt:This is a verbatim\nstring\r\n", "!3(txt:This is a verbatim\\nstring)"),
        (b"#t\r\n", "true"),
        (b"(1234567999999999999999999999999999999\r\n", "!2(1234567999999999999999999999999999999)"),
        (b"*2\r\n+OK\r\n-ERR no such key\r\n", "[\"OK\", !1([\"ERR\", \"no such key\"])]"),
        (b"*2\r\n~0\r\n*1\r\n$-1\r\n", "[!4([]), [nil]]"),
        (b"*2\r\n|1\r\n+a\r\n:1\r\n:2\r\n:3\r\n", "[2, 3]"),
        (b"$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;1\r\nd\r\n;0\r\n", "bytes:Hello word"),
        (b"*?\r\n:1\r\n%?\r\n+a\r\n:2\r\n.\r\n~?\r\n.\r\n.\r\n", "[1, {\"a\", 2}, !4([])]"),
        (b"*1\r\n$?\r\n;1\r\na\r\n;0\r\n", "[b\"a\"]"),
    ] {
        rig.ask(1, "X");
        rig.feed(wire).unwrap();
        assert_eq!(rig.events(), [format!("1 {shown}")], "{}", wire.escape_ascii());
    }
    for (wire, shown) in [
        (&b"-ERR wrong kind\r\n"[..], "[\"ERR\", \"wrong kind\"]"),
        (b"!21\r\nSYNTAX invalid syntax\r\n", "[\"SYNTAX\", \"invalid syntax\"]"),
        (b"-OOPS\r\n", "[\"OOPS\", \"\"]"),
        (b"|1\r\n+a\r\n:1\r\n-ERR x\r\n", "[\"ERR\", \"x\"]"),
    ] {
        rig.ask(1, "X");
        rig.feed(wire).unwrap();
        assert_eq!(rig.events(), [format!("1! {shown}")], "{}", wire.escape_ascii());
    }
}

#[test]
fn requests_become_arrays_of_bulks() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    let mut body = Vec::new();
    write::array(&mut body, 6);
    write::str(&mut body, b"SET");
    write::bin(&mut body, b"\xff");
    write::int(&mut body, -5);
    write::uint(&mut body, u64::MAX);
    write::float(&mut body, 0.5);
    write::str(&mut body, &[b'x'; 12]);
    rig.command(Command::Request { id: RequestId(1), body: &body, asking: false, streams: false }).unwrap();
    assert_eq!(
        rig.sent(),
        "*6\\r\\n$3\\r\\nSET\\r\\n$1\\r\\n\\xff\\r\\n$2\\r\\n-5\\r\\n$20\\r\\n18446744073709551615\\r\\n$3\\r\\n0.5\\r\\n$12\\r\\nxxxxxxxxxxxx\\r\\n"
    );
}

#[test]
fn refusals_name_the_position_and_leave_nothing() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    for (body, expected) in [
        (&b"\x90"[..], "an empty array is no command"),
        (b"\x01", "a request is an array such as [\"GET\", \"key\"], not a bare int"),
        (b"\x91\xc0", "the command's name is nil: expected str or bytes"),
        (b"\x93\xa3SET\xa1k\xc0", "argument 2 is nil: expected str, bytes, int or float"),
        (b"\x93\xa3SET\xa1k\xc3", "argument 2 is bool: expected str, bytes, int or float"),
        (b"\x92\xa3GET\x91\xa1k", "argument 1 is array: expected str, bytes, int or float"),
        (b"\x92\xa3GET", "malformed MessagePack at byte 5: it ends inside a value"),
        (b"\x91\xa3GET\xc0", "bytes follow the request"),
        (b"\x91\xa0", "the command's name is empty"),
        (b"\x92\x91\xa3GET\x01", "element 1 of the batch is int: all or none must be commands (arrays)"),
        (b"\x91\x90", "command 0 of the batch is empty"),
        (b"\x92\xa9SUBSCRIBE\xa1a", "SUBSCRIBE brings many replies: open it as a stream"),
        (b"\x91\xa4SYNC", "SYNC is refused: it turns the conn into a replica's, which iokernel does not speak"),
    ] {
        let refusal =
            rig.command(Command::Request { id: RequestId(1), body, asking: false, streams: false }).unwrap_err();
        assert_eq!((refusal.as_str(), rig.sent().as_str()), (expected, ""));
    }
    rig.conn.abandon(&mut |id| panic!("{id:?}"));
}

#[test]
fn classes() {
    let driver = driver("redis://h", Limits::default());
    let class = |words: &str| driver.classify(&request(words), false).map(|need| need.class);
    assert_eq!(class("GET k"), Ok(Class::Shared));
    assert_eq!(class("blpop k 0"), Ok(Class::Waiting));
    assert_eq!(class("MONITOR"), Ok(Class::Takeover));
    assert!(matches!(class("MULTI"), Ok(Class::Pinned(text)) if text.contains("lease")));
    let topics = vec![b"p:a*".to_vec(), b"p:b".to_vec()];
    assert_eq!(class("PSUBSCRIBE a* b a*"), Ok(Class::Topics(topics)));
    assert!(class("SUBSCRIBE __redis__:invalidate").unwrap_err().message.contains("tracking=on"));
    assert!(class("UNSUBSCRIBE a").unwrap_err().message.contains("cancel the stream"));
    let class = |commands: &[&str]| driver.classify(&batch(commands), false).map(|need| need.class);
    assert_eq!(class(&["GET a", "GET b"]), Ok(Class::Shared));
    assert_eq!(class(&["MULTI", "SET a 1", "EXEC", "MULTI", "DISCARD"]), Ok(Class::Shared));
    assert!(matches!(class(&["WATCH a", "GET a"]), Ok(Class::Pinned(_))));
    assert!(matches!(class(&["BLPOP a 0", "GET a"]), Ok(Class::Pinned(_))));
    for bad in [&["MULTI", "GET a"][..], &["EXEC"], &["SELECT 1"], &["SUBSCRIBE a"], &["MULTI", "MULTI"]] {
        assert!(class(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_batch_has_one_reply() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    let body = batch(&["MULTI", "SET a 1", "GET b", "EXEC"]);
    rig.command(Command::Request { id: RequestId(7), body: &body, asking: false, streams: false }).unwrap();
    rig.ask(8, "PING");
    rig.feed(b"+OK\r\n+QUEUED\r\n-ERR no\r\n>2\r\n+x\r\n:1\r\n").unwrap();
    rig.feed(b"*1\r\n$1\r\nv\r\n+PONG\r\n").unwrap();
    assert_eq!(
        rig.events(),
        ["push - [\"x\", 1]", "7 [\"OK\", \"QUEUED\", !1([\"ERR\", \"no\"]), [b\"v\"]]", "8 text:PONG"]
    );
}

#[test]
fn cancelled_slots_stay_deaf() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    for id in [1, 2, 9, 3] {
        rig.ask(id, "GET k");
    }
    rig.command(Command::Cancel { id: RequestId(2) }).unwrap();
    rig.command(Command::Cancel { id: RequestId(3) }).unwrap();
    rig.command(Command::Cancel { id: RequestId(77) }).unwrap();
    rig.feed(b":1\r\n:2\r\n").unwrap();
    assert_eq!(rig.events(), ["1 1"]);
    let mut left = Vec::new();
    rig.conn.abandon(&mut |id| left.push(id.0));
    assert_eq!(left, [9]);
}
