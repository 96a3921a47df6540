pub mod channel;
pub mod core;
pub mod request;
pub mod wheel;
