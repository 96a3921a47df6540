//! permessage-deflate (RFC 7692): what the handshake says of it, and messages through it.

/// What both sides agreed on. Windows are of 32 KiB always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// The server compresses each message by itself.
    pub server_no_context_takeover: bool,
    /// The client compresses each message by itself.
    pub client_no_context_takeover: bool,
    /// The offer limited the server's window to 15 bits, which the answer has to repeat.
    pub server_max_window_bits: bool,
}
