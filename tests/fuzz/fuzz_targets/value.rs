//! MessagePack: walking never panics, what is written again reads the same, and every driver survives any request.
#![no_main]
use iokernel::proto::{Limits, TABLE};
use iokernel::value::{Reader, Token, whole, write};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let walked = whole(data, 16);
    let mut reader = Reader::new(data);
    let mut again = Vec::new();
    let mut tokens = 0;
    while let Ok(token) = reader.token() {
        copy(&mut again, &token);
        tokens += 1;
    }
    let mut rereader = Reader::new(&again);
    for _ in 0..tokens {
        rereader.token().expect("what was written can be read");
    }
    assert!(rereader.is_at_end());
    if walked.is_ok() {
        assert!(reader.is_at_end(), "a whole value leaves nothing");
        whole(&again, 16).expect("a whole value stays one");
    }
    for scheme in TABLE.iter().filter(|scheme| !scheme.samples.is_empty()) {
        let mut url = iokernel::config::Url::parse(scheme.samples[0].url, |_| Some(1)).expect("a sample's URL");
        let driver = (scheme.open)(&mut url, &Limits::default()).expect("a sample's options");
        let _ = driver.classify(data, true);
    }
});

fn copy(out: &mut Vec<u8>, token: &Token<'_>) {
    match *token {
        Token::Nil => write::nil(out),
        Token::Bool(value) => write::bool(out, value),
        Token::Int(value) => write::int(out, value),
        Token::Uint(value) => write::uint(out, value),
        Token::Float(value) => write::float(out, value),
        Token::Str(text) => write::str(out, text),
        Token::Bin(bytes) => write::bin(out, bytes),
        Token::Array(count) => write::array(out, count),
        Token::Map(count) => write::map(out, count),
        Token::Ext(kind, payload) => write::ext(out, kind, payload),
    }
}
