//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692): what an HTTP conn speaks after its upgrade, either side.
