//! iokernel: all the networking of a program in one I/O thread that its interpreter cannot stall.
pub mod config;
pub mod discovery;
pub mod ffi;
pub mod kernel;
pub mod proto;
pub mod ring;
pub mod router;
pub mod status;
pub mod sys;
pub mod value;
