//! Framing (RFC 9112): heads, and where a message ends.
