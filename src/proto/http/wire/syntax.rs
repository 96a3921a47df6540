//! The characters of HTTP (RFC 9110, 5.5 and 5.6; RFC 9112, 3.2).

/// A method, or a field's name (RFC 9110, 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

pub fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// A field's value, or a reason phrase (RFC 9110, 5.5): no control characters but tabs, so neither CR, LF nor NUL.
pub fn is_value(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..))
}

/// A request's target: visible ASCII without what RFC 3986 has for marks around URLs and for fragments. Some marks that it
/// excludes besides are taken, because browsers send them in queries.
pub fn is_target(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'#' | b'"' | b'<' | b'>'))
}

/// The members of a list between commas (RFC 9110, 5.6.1), without the empty ones.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Whether a list has this member, whatever its case.
pub fn lists(value: &[u8], member: &[u8]) -> bool {
    members(value).any(|other| other.eq_ignore_ascii_case(member))
}
