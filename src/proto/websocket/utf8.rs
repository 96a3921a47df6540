//! UTF-8 that comes in pieces (RFC 6455, 8.1; RFC 3629).

/// What a piece ended in the middle of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    begun: [u8; 4],
    count: usize,
}

impl Utf8 {
    /// False: no continuation can make this valid.
    pub fn feed(&mut self, mut piece: &[u8]) -> bool {
        while self.count > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return true };
            self.begun[self.count] = byte;
            self.count += 1;
            piece = rest;
            match std::str::from_utf8(&self.begun[..self.count]) {
                Ok(_) => self.count = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(piece) else { return true };
        let begun = &piece[error.valid_up_to()..];
        if error.error_len().is_some() {
            return false;
        }
        self.begun[..begun.len()].copy_from_slice(begun);
        self.count = begun.len();
        true
    }

    /// The text may end here.
    pub fn is_whole(&self) -> bool {
        self.count == 0
    }
}
