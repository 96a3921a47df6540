//! Asking a peer for TLS, where a protocol begins in the clear (PostgreSQL: SSLRequest).

use crate::kernel::greeting::{Handshake, Stands};
use crate::proto::StartTls;

/// One question. Nothing past the one byte of its answer is read in the clear, so nobody can slip in what the peer would
/// seem to have said over TLS.
pub struct Ask {
    pub start: StartTls,
    pub must: bool,
}

impl Handshake for Ask {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.start.ask);
    }

    fn wants(&self) -> usize {
        1
    }

    fn handle(&mut self, input: &[u8], _: &mut Vec<u8>) -> Result<Option<Stands>, String> {
        match input {
            [byte] if *byte == self.start.yes => Ok(Some(Stands::Secure)),
            [byte] if *byte == self.start.no && self.must => Err("the peer has no TLS, which is asked for".into()),
            [byte] if *byte == self.start.no => Ok(Some(Stands::Plain)),
            other => Err(format!("the peer answers {other:02x?} when it is asked for TLS: is it another protocol?")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_byte_of_the_answer_decides() {
        let start = StartTls { ask: b"?", yes: b'S', no: b'N', wish: |_| Ok(crate::proto::Wish::Must) };
        let answered = |must, byte| {
            let (mut ask, mut out) = (Ask { start, must }, Vec::new());
            ask.begin(&mut out);
            assert_eq!((out.as_slice(), ask.wants()), (&b"?"[..], 1));
            ask.handle(&[byte], &mut out)
        };
        assert_eq!(answered(true, b'S'), Ok(Some(Stands::Secure)));
        assert_eq!(answered(false, b'S'), Ok(Some(Stands::Secure)));
        assert_eq!(answered(false, b'N'), Ok(Some(Stands::Plain)));
        assert!(answered(true, b'N').unwrap_err().contains("has no TLS"));
        assert!(answered(false, b'E').unwrap_err().contains("[45]"));
    }
}
