//! Frames on the wire (RFC 6455, 5.2): their heads, and masks.
