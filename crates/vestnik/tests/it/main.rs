//! The one end-to-end test binary: starts the real program and speaks raw bytes to it.

mod bench;
mod clients;
mod command_line;
mod raw;
mod sdk;
mod server;
mod sign;
mod websocket;
