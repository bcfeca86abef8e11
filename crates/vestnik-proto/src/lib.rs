//! Bytes to vocabulary and back: the only crate that knows a wire format. Pure: no async, no I/O.

pub mod query;
pub mod websocket;
