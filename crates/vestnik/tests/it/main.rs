//! The one end-to-end test binary: starts the real program and speaks raw bytes to it.

mod bench;
mod chaos;
mod clients;
mod command_line;
mod delivery;
mod portal;
mod pressure;
mod raw;
mod sdk;
mod server;
mod shutdown;
mod sign;
mod traffic;
mod websocket;
mod websocket_protocol;
mod wire;
