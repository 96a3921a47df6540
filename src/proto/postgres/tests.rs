//! Unit tests of a conn.
