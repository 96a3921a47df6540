//! The client's side of HTTP/1.1 (RFC 9112), as far as posting a document and hearing what came of it needs it.

use std::time::Duration;

/// Bytes of one answer, head and body.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

/// What came of a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `Retry-After` (RFC 9110, section 10.2.3) where it is a number of seconds.
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
    /// The conn may carry another request.
    pub keep_alive: bool,
}

/// Where a body ends (RFC 9112, section 6.3).
enum Framing {
    Length(usize),
    Chunked,
    /// With the conn.
    Close,
}

/// The head of a POST of so many bytes of JSON. `headers` have names and values that are proper ones.
pub fn head(authority: &str, path: &str, headers: &[(String, String)], length: usize) -> Vec<u8> {
    let mut out = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: OTel-OTLP-Exporter-iokernel/{}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n",
        env!("CARGO_PKG_VERSION")
    );
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// The answer at the start of what came, or None while more of it is to come. `ended`: the peer has closed the conn.
pub fn answer(input: &[u8], ended: bool) -> Result<Option<Answer>, String> {
    let mut at = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        at += match head.parse(&input[at..]).map_err(|error| format!("no HTTP answer: {error}"))? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return more(input, ended),
        };
        // Interim answers come before the final one (RFC 9110, section 15.2).
        if !head.code.is_some_and(|status| (100..200).contains(&status)) {
            return final_answer(&head, input, at, ended);
        }
    }
}

/// The answer of which the head ends at `at`.
fn final_answer(
    head: &httparse::Response<'_, '_>,
    input: &[u8],
    at: usize,
    ended: bool,
) -> Result<Option<Answer>, String> {
    let status = head.code.unwrap_or(0);
    let framing = framing(status, head.headers)?;
    let closes = head.version != Some(1) || word(head.headers, "connection", "close");
    let retry_after = value(head.headers, "retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let (body, rest) = match framing {
        Framing::Length(length) => match input[at..].get(..length) {
            Some(body) => (body.to_vec(), input.len() - at - length),
            None => return more(input, ended),
        },
        Framing::Chunked => match chunks(&input[at..])? {
            Some((body, length)) => (body, input.len() - at - length),
            None => return more(input, ended),
        },
        Framing::Close if ended => (input[at..].to_vec(), 0),
        Framing::Close => return more(input, ended),
    };
    let keep_alive = !closes && !matches!(framing, Framing::Close) && rest == 0 && !ended;
    Ok(Some(Answer { status, retry_after, body, keep_alive }))
}

fn more(input: &[u8], ended: bool) -> Result<Option<Answer>, String> {
    match input.len() {
        _ if ended => Err("the conn was closed before the answer was there".into()),
        length if length >= ANSWER_BYTES_MAX => Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")),
        _ => Ok(None),
    }
}

fn framing(status: u16, headers: &[httparse::Header<'_>]) -> Result<Framing, String> {
    if matches!(status, 204 | 304) {
        return Ok(Framing::Length(0));
    }
    if value(headers, "transfer-encoding").is_some() {
        let chunked = word(headers, "transfer-encoding", "chunked");
        return Ok(if chunked { Framing::Chunked } else { Framing::Close });
    }
    match value(headers, "content-length") {
        None => Ok(Framing::Close),
        Some(text) => match text.parse() {
            Ok(length) if length <= ANSWER_BYTES_MAX => Ok(Framing::Length(length)),
            _ => Err(format!("content-length: {text:?}: expected at most {ANSWER_BYTES_MAX}")),
        },
    }
}

fn value<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(header.value).ok().map(str::trim)
}

/// One of the words of a list.
fn word(headers: &[httparse::Header<'_>], name: &str, wanted: &str) -> bool {
    value(headers, name).is_some_and(|list| list.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted)))
}

/// The body of chunks and the bytes that it took, trailer included (RFC 9112, section 7.1).
fn chunks(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (start, length) = match httparse::parse_chunk_size(&input[at..]) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("a chunk without its size".into()),
        };
        at += start;
        if length == 0 {
            return trailer(input, at).map(|end| end.map(|end| (body, end)));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(chunk) = length.checked_add(2).and_then(|length| input.get(at..at.checked_add(length)?)) else {
            return Ok(None);
        };
        let (chunk, end) = chunk.split_at(length);
        if end != b"\r\n" {
            return Err("a chunk longer than its size".into());
        }
        body.extend_from_slice(chunk);
        at += length + 2;
    }
}

/// Where the trailer ends that begins at `at`.
fn trailer(input: &[u8], at: usize) -> Result<Option<usize>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::parse_headers(&input[at..], &mut headers) {
        Ok(httparse::Status::Complete((length, _))) => Ok(Some(at + length)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(format!("a trailer: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(input: &str) -> Answer {
        answer(input.as_bytes(), false).unwrap().expect("all of it is there")
    }

    #[test]
    fn an_answer_is_whole_or_not_yet() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        ] {
            for cut in 0..text.len() {
                assert_eq!(answer(&text.as_bytes()[..cut], false), Ok(None), "{text:?} at {cut}");
                assert!(answer(&text.as_bytes()[..cut], true).is_err(), "{text:?} at {cut}");
            }
            let whole = Answer { status: 200, retry_after: None, body: b"{}".to_vec(), keep_alive: true };
            assert_eq!(done(text), whole, "{text:?}");
        }
    }

    #[test]
    fn who_closes_is_not_written_to_again() {
        assert!(!done("HTTP/1.1 204 No Content\r\nConnection: foo, Close\r\n\r\n").keep_alive);
        assert!(!done("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").keep_alive);
        assert!(!done("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore").keep_alive);
        assert!(done("HTTP/1.1 204 No Content\r\n\r\n").keep_alive);
        let open = b"HTTP/1.1 500 Oops\r\n\r\nso sorry";
        assert_eq!(answer(open, false), Ok(None));
        let closed = answer(open, true).unwrap().unwrap();
        assert_eq!((closed.status, &closed.body[..], closed.keep_alive), (500, &b"so sorry"[..], false));
    }

    #[test]
    fn a_time_to_wait_is_read_in_seconds() {
        let wait = |text: &str| done(&format!("HTTP/1.1 429 x\r\nContent-Length: 0\r\nRetry-After: {text}\r\n\r\n"));
        assert_eq!(wait("7").retry_after, Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 21 Oct 2026 07:28:00 GMT").retry_after, None);
    }

    #[test]
    fn nonsense_and_too_much_are_refused() {
        for text in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        ] {
            assert!(answer(text.as_bytes(), false).is_err(), "{text:?}");
        }
        let patient = "HTTP/1.1 100 \r\n\r\n".repeat(3000);
        assert_eq!(answer(patient.as_bytes(), false), Ok(None));
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(ANSWER_BYTES_MAX));
        assert!(answer(endless.as_bytes(), false).is_err());
        let huge = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
        assert_eq!(answer(huge.as_bytes(), false), Ok(None));
    }

    #[test]
    fn a_post_has_its_head() {
        let headers = [("x-key".to_string(), "v".to_string())];
        let text = String::from_utf8(head("h:4318", "/v1/traces", &headers, 12)).unwrap();
        assert!(text.starts_with("POST /v1/traces HTTP/1.1\r\nHost: h:4318\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 12\r\nx-key: v\r\n\r\n"), "{text}");
    }
}
