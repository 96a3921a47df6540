//! Spans as the JSON encoding of OTLP has them (OpenTelemetry protocol 1.9, "JSON Protobuf Encoding"): ids in
//! hexadecimal, 64-bit numbers as decimal text, enumerations as numbers.

use std::io::Write as _;

/// SPAN_KIND_CLIENT of opentelemetry-proto's `trace.proto`.
const KIND_CLIENT: u8 = 3;
/// STATUS_CODE_ERROR of the same.
const STATUS_ERROR: u8 = 2;
/// In a span's `flags`, above the eight of W3C: it is known whether the parent is remote, and it is not.
const PARENT_IS_LOCAL: u32 = 1 << 8;
/// Bytes of a name or a text in a span; more are cut off.
const TEXT_BYTES_MAX: usize = 256;

/// Closes what [`head`] opened.
pub const TAIL: &[u8] = b"]}]}]}";

/// One request of a client.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent_id: [u8; 8],
    /// The trace flags of W3C.
    pub flags: u8,
    pub name: &'a str,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    pub end_ns: u64,
    pub attributes: &'a [(&'a str, Attribute<'a>)],
    /// What happened when.
    pub events: &'a [(&'a str, u64)],
    /// What went wrong, if it did.
    pub error: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute<'a> {
    Text(&'a str),
    Int(u64),
}

/// All of an ExportTraceServiceRequest before its spans. They follow, with commas between them, and then [`TAIL`].
pub fn head(resource: &[(&str, Attribute<'_>)], version: &str) -> Vec<u8> {
    let mut out = b"{\"resourceSpans\":[{\"resource\":".to_vec();
    out.push(b'{');
    attributes(&mut out, resource);
    out.extend_from_slice(b"},\"scopeSpans\":[{\"scope\":{\"name\":\"iokernel\",\"version\":");
    text(&mut out, version);
    out.extend_from_slice(b"},\"spans\":[");
    out
}

/// One span.
pub fn encode(span: &Span<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(768);
    out.extend_from_slice(b"{\"traceId\":\"");
    hex(&mut out, &span.trace_id);
    out.extend_from_slice(b"\",\"spanId\":\"");
    hex(&mut out, &span.span_id);
    out.extend_from_slice(b"\",\"parentSpanId\":\"");
    hex(&mut out, &span.parent_id);
    let flags = PARENT_IS_LOCAL | u32::from(span.flags);
    put(&mut out, format_args!("\",\"flags\":{flags},\"kind\":{KIND_CLIENT},\"name\":"));
    text(&mut out, span.name);
    let (start, end) = (span.start_ns, span.end_ns);
    put(&mut out, format_args!(",\"startTimeUnixNano\":\"{start}\",\"endTimeUnixNano\":\"{end}\","));
    attributes(&mut out, span.attributes);
    out.extend_from_slice(b",\"events\":[");
    for (at, (name, time_ns)) in span.events.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        put(&mut out, format_args!("{comma}{{\"timeUnixNano\":\"{time_ns}\",\"name\":"));
        text(&mut out, name);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"status\":{");
    if let Some(error) = span.error {
        put(&mut out, format_args!("\"code\":{STATUS_ERROR},\"message\":"));
        text(&mut out, error);
    }
    out.extend_from_slice(b"}}");
    out
}

/// How many spans a collector took but threw away, by its ExportTraceServiceResponse.
pub fn rejected(body: &[u8]) -> u64 {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else { return 0 };
    let count = &answer["partialSuccess"]["rejectedSpans"];
    count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or(0)
}

fn attributes(out: &mut Vec<u8>, all: &[(&str, Attribute<'_>)]) {
    out.extend_from_slice(b"\"attributes\":[");
    for (at, (key, value)) in all.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"key\":" } else { b",{\"key\":" });
        text(out, key);
        match value {
            Attribute::Text(value) => {
                out.extend_from_slice(b",\"value\":{\"stringValue\":");
                text(out, value);
            }
            Attribute::Int(value) => put(out, format_args!(",\"value\":{{\"intValue\":\"{value}\"")),
        }
        out.extend_from_slice(b"}}");
    }
    out.push(b']');
}

fn text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Writing text to memory fails never.
    let _ = serde_json::to_writer(out, &text[..end]);
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn span() -> Span<'static> {
        Span {
            trace_id: [0xab; 16],
            span_id: [1, 2, 3, 4, 5, 6, 7, 8],
            parent_id: [0xff; 8],
            flags: 1,
            name: "GET",
            start_ns: 1_700_000_000_000_000_001,
            end_ns: 1_700_000_000_000_000_002,
            attributes: &[("a", Attribute::Text("b\"\n")), ("n", Attribute::Int(u64::MAX))],
            events: &[("sent", 5), ("first_byte", 6)],
            error: None,
        }
    }

    #[test]
    fn a_span_is_what_the_protocol_says() {
        let read: Value = serde_json::from_slice(&encode(&span())).unwrap();
        let expected = json!({
            "traceId": "ab".repeat(16), "spanId": "0102030405060708", "parentSpanId": "ff".repeat(8), "flags": 257,
            "kind": 3, "name": "GET",
            "startTimeUnixNano": "1700000000000000001", "endTimeUnixNano": "1700000000000000002",
            "attributes": [
                {"key": "a", "value": {"stringValue": "b\"\n"}},
                {"key": "n", "value": {"intValue": "18446744073709551615"}},
            ],
            "events": [{"timeUnixNano": "5", "name": "sent"}, {"timeUnixNano": "6", "name": "first_byte"}],
            "status": {},
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn an_error_has_its_code_and_its_text_cut_at_a_character() {
        let long = "é".repeat(200);
        let read: Value = serde_json::from_slice(&encode(&Span { error: Some(&long), ..span() })).unwrap();
        assert_eq!(read["status"], json!({"code": 2, "message": "é".repeat(128)}));
    }

    #[test]
    fn a_request_is_its_head_spans_and_tail() {
        let mut body = head(&[("service.name", Attribute::Text("web"))], "1.2");
        body.extend(encode(&span()));
        body.push(b',');
        body.extend(encode(&span()));
        body.extend(TAIL);
        let read: Value = serde_json::from_slice(&body).unwrap();
        let scope = &read["resourceSpans"][0]["scopeSpans"][0];
        assert_eq!(scope["spans"].as_array().unwrap().len(), 2);
        assert_eq!(scope["scope"], json!({"name": "iokernel", "version": "1.2"}));
        let name = &read["resourceSpans"][0]["resource"]["attributes"][0];
        assert_eq!(name, &json!({"key": "service.name", "value": {"stringValue": "web"}}));
    }

    #[test]
    fn a_partial_success_is_counted() {
        assert_eq!(rejected(b"{}"), 0);
        assert_eq!(rejected(b"not json"), 0);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":4}}"#), 4);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":-4}}"#), 0);
    }
}
