//! Redis: RESP2 and RESP3, client and server.
