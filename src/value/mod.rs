//! MessagePack.
pub fn error_value(out: &mut Vec<u8>, code: &str, message: &str) {
    let _ = rmp::encode::write_array_len(out, 2);
    let _ = rmp::encode::write_str(out, code);
    let _ = rmp::encode::write_str(out, message);
}
