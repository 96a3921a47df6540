//! RESP as a server reads and writes it.

/// The next command, and how many bytes it took. None while it is not whole.
pub fn command(input: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let mut at = 0;
    let count = number(input, &mut at, b'*')?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = number(input, &mut at, b'$')?;
        let word = input.get(at..at + length)?;
        input.get(at + length..at + length + 2)?;
        words.push(word.to_vec());
        at += length + 2;
    }
    Some((words, at))
}

fn number(input: &[u8], at: &mut usize, mark: u8) -> Option<usize> {
    let rest = input.get(*at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    assert_eq!(rest[0], mark, "the client wrote no RESP: {:?}", String::from_utf8_lossy(rest));
    *at += end + 2;
    Some(std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap())
}

/// The number of a request, between two hashes anywhere in its words.
pub fn mark(words: &[Vec<u8>]) -> Option<u64> {
    words.iter().find_map(|word| {
        let text = std::str::from_utf8(word).ok()?;
        text.split_once('#')?.1.split_once('#')?.0.parse().ok()
    })
}

pub fn line(text: &str) -> Vec<u8> {
    format!("{text}\r\n").into_bytes()
}

pub fn bulk(text: &str) -> Vec<u8> {
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}

pub fn array(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", parts.len()).into_bytes();
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A message that nobody asked for one by one.
pub fn push(resp3: bool, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = array(parts);
    if resp3 {
        out[0] = b'>';
    }
    out
}

const fn crc_of(byte: u16) -> u16 {
    let mut crc = byte << 8;
    let mut bit = 0;
    while bit < 8 {
        crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        bit += 1;
    }
    crc
}

/// The slot of a key with a hash tag.
pub fn slot(key: &[u8]) -> u16 {
    let open = key.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
    let close = key.iter().position(|byte| *byte == b'}').unwrap_or(key.len());
    key[open..close].iter().fold(0u16, |crc, byte| (crc << 8) ^ crc_of((crc >> 8) ^ u16::from(*byte))) % 16_384
}
