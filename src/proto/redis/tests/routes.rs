//! Slots and hashes of requests, and those that belong nowhere.
use super::*;
use crate::proto::{Class, Follow, Need, Refusal};

fn cluster() -> Box<dyn Driver> {
    driver("redis://h", Limits { follow: Follow::Topology, ..Limits::default() })
}

fn slot(words: &str) -> Result<Option<u16>, &'static str> {
    cluster().classify(&request(words), false).map(|need| need.route.slot).map_err(|refusal| refusal.code)
}

fn slot_of(key: &str) -> Result<Option<u16>, &'static str> {
    slot(&format!("GET {key}"))
}

#[test]
fn slots_are_those_of_the_specification() {
    for (key, expected) in [("123456789", 0x31c3), ("foo", 12182), ("bar", 5061), ("", 0), ("{}foo", 9500)] {
        assert_eq!(slot_of(key), Ok(Some(expected)), "{key}");
    }
    for (key, tag) in [("{user1000}.following", "user1000"), ("foo{{bar}}zap", "{bar"), ("foo{bar}{zap}", "bar")] {
        assert_eq!(slot_of(key), slot_of(tag), "{key}");
    }
    assert_ne!(slot_of("foo{bar"), slot_of("bar"));
}

#[test]
fn keys_are_found_wherever_they_stand() {
    let foo = Ok(Some(12182));
    for words in [
        "get foo",
        "MODULE.COMMAND foo x",
        "MSET foo 1 {foo}2 2",
        "BLPOP foo {foo} 0",
        "EVAL return 2 foo {foo} bar",
        "eval_ro x 1 foo",
        "FCALL f 1 foo bar",
        "ZUNIONSTORE foo 1 {foo} WEIGHTS 2",
        "LMPOP 2 foo {foo} LEFT",
        "BLMPOP 0 1 foo LEFT",
        "XREAD COUNT 2 STREAMS foo {foo} 0 0",
        "XREADGROUP GROUP STREAMS g STREAMS foo >",
        "XGROUP CREATE foo g $",
        "XINFO STREAM foo",
        "OBJECT ENCODING foo",
        "MEMORY USAGE foo",
        "BITOP AND foo {foo} {foo}x",
        "SORT foo BY bar GET STORE LIMIT 0 1 STORE {foo}2",
        "GEORADIUS foo 0 0 1 m STORE {foo}",
        "GEORADIUSBYMEMBER foo m 1 km STOREDIST {foo}",
        "GEOSEARCHSTORE foo {foo} FROMMEMBER x",
        "MIGRATE h 1 foo 0 100",
        "HEXPIRE foo 10 FIELDS 1 f",
        "SPUBLISH foo x",
        "SSUBSCRIBE foo {foo}2",
        "CLUSTER COUNTKEYSINSLOT 12182",
        "WATCH foo",
    ] {
        assert_eq!(slot(words), foo, "{words}");
    }
    // Empty words cannot be said in the form above.
    let migrate = b"\x9c\xa7MIGRATE\xa1h\x01\xa0\x00\x64\xa4AUTH\xa4KEYS\xa7REPLACE\xa4KEYS\xa3foo\xa5{foo}";
    assert_eq!(cluster().classify(migrate, false).unwrap().route.slot, Some(12182));
    // Numbers are keys too, in their decimal form.
    assert_eq!(cluster().classify(b"\x92\xa3GET\x0c", false).unwrap().route.slot, slot_of("12").unwrap());
}

#[test]
fn some_requests_go_to_any_node_and_some_to_none() {
    for words in [
        "PING",
        "ECHO foo",
        "INFO server",
        "CLUSTER SLOTS",
        "CLUSTER KEYSLOT foo",
        "PUBLISH foo x",
        "SUBSCRIBE foo bar",
        "PSUBSCRIBE f*",
        "EVAL return 0",
        "EVALSHA x 0 foo bar",
        "MULTI",
        "CONFIG GET save",
        "XREAD",
        "LMPOP x foo",
        "SCRIPT",
        "GET",
    ] {
        assert_eq!(slot(words), Ok(None), "{words}");
    }
    for words in [
        "KEYS *",
        "scan 0",
        "DBSIZE",
        "FLUSHALL",
        "RANDOMKEY",
        "SCRIPT LOAD x",
        "FUNCTION FLUSH",
        "CONFIG SET a b",
        "CLUSTER ADDSLOTS 1",
        "CLUSTER FAILOVER",
        "WAIT 1 0",
        "MONITOR",
    ] {
        assert_eq!(slot(words), Err("FANOUT"), "{words}");
        assert!(driver("redis://h", Limits::default()).classify(&request(words), false).is_ok());
    }
    assert_eq!(slot("CLUSTER GETKEYSINSLOT 16384 1"), Err("BADREQUEST"));
}

#[test]
fn keys_of_one_request_share_a_slot() {
    let refusal = |body: &[u8]| cluster().classify(body, false).unwrap_err();
    let advice = "give them one hash tag, as in {user7}:name and {user7}:mail, or send separate requests";
    assert_eq!(
        refusal(&request("mget foo bar")),
        Refusal {
            code: "CROSSSLOT",
            message: format!("the keys of MGET lie in different slots, 12182 and 5061: {advice}")
        }
    );
    let body = batch(&["MULTI", "SET foo 1", "GET bar", "EXEC"]);
    let commands = "command 1 of the batch (SET) and command 2 of the batch (GET)";
    let message = format!("the keys of {commands} lie in different slots, 12182 and 5061: {advice}");
    assert_eq!(refusal(&body), Refusal { code: "CROSSSLOT", message });
    let body = batch(&["PING", "GET foo", "DBSIZE"]);
    assert!(refusal(&body).message.starts_with("command 2 of the batch (DBSIZE) concerns each node"));
    let need = cluster().classify(&batch(&["MULTI", "SET foo 1", "GET {foo}", "EXEC"]), false);
    assert!(matches!(need, Ok(Need { class: Class::Shared, route, .. }) if route.slot == Some(12182)));
}

#[test]
fn hashes_are_for_ever() {
    let driver = driver("redis://h", Limits::default());
    let hash = |words: &str| driver.classify(&request(words), true).unwrap().route;
    // These numbers decide where keys live: they must never change.
    assert_eq!(hash("GET foo").hash, Some(HASH_OF_FOO));
    assert_eq!(hash("GET foo").slot, None);
    assert_eq!(hash("PING").hash, None);
    assert_eq!(hash("KEYS *").hash, None);
    for words in ["MGET foo bar", "SET x{foo} 1", "PUBLISH foo x", "SUBSCRIBE foo", "EVAL x 1 foo"] {
        assert_eq!(hash(words).hash, Some(HASH_OF_FOO), "{words}");
    }
    let spread: std::collections::HashSet<_> =
        (0..1000).map(|n| hash(&format!("GET k{n}")).hash.unwrap() >> 54).collect();
    assert!(spread.len() > 550, "{} of 1024 buckets", spread.len());
    assert_eq!(driver.classify(&request("GET foo"), false).unwrap().route, Default::default());
}

const HASH_OF_FOO: u64 = 0xaf85_ea55_6958_1d4c;
