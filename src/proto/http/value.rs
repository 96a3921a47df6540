//! What the program and the protocol tell each other: requests and replies as MessagePack.
