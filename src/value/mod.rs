//! MessagePack.
pub fn error_value(out: &mut Vec<u8>, code: &str, message: &str) {
    let _ = rmp::encode::write_array_len(out, 2);
    let _ = rmp::encode::write_str(out, code);
    let _ = rmp::encode::write_str(out, message);
}
pub fn error_ext(out: &mut Vec<u8>, code: &str, message: &str) {
    let mut inner = Vec::new();
    error_value(&mut inner, code, message);
    let _ = rmp::encode::write_ext_meta(out, inner.len() as u32, 1);
    out.extend_from_slice(&inner);
}
pub fn read_error(body: crate::proto::Body<'_>) -> Option<(String, String)> {
    let crate::proto::Body::Msgpack(bytes) = body else { return None };
    let mut r = bytes;
    if rmp::decode::read_array_len(&mut r).ok()? != 2 {
        return None;
    }
    let n = rmp::decode::read_str_len(&mut r).ok()? as usize;
    let (code, mut r) = r.split_at_checked(n)?;
    let n = rmp::decode::read_str_len(&mut r).ok()? as usize;
    let message = r.get(..n)?;
    Some((String::from_utf8_lossy(code).into(), String::from_utf8_lossy(message).into()))
}
/// Builds a map whose size is known at its end.
#[derive(Default)]
pub struct MapWriter {
    pairs: u32,
    bytes: Vec<u8>,
}
impl MapWriter {
    pub fn text(&mut self, key: &str, value: &str) {
        self.pairs += 1;
        let _ = rmp::encode::write_str(&mut self.bytes, key);
        let _ = rmp::encode::write_str(&mut self.bytes, value);
    }
    pub fn number(&mut self, key: &str, value: u64) {
        self.pairs += 1;
        let _ = rmp::encode::write_str(&mut self.bytes, key);
        let _ = rmp::encode::write_uint(&mut self.bytes, value);
    }
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 5);
        let _ = rmp::encode::write_map_len(&mut out, self.pairs);
        out.extend_from_slice(&self.bytes);
        out
    }
}
