//! The one end-to-end test binary: starts the real program and speaks raw bytes to it.

mod bench;
mod channels;
mod chaos;
mod clients;
mod command_line;
mod delivery;
mod observe;
mod portal;
mod presence;
mod pressure;
mod publish;
mod long_poll;
mod raw;
mod requests;
mod routing;
mod sdk;
mod server;
mod shutdown;
mod sign;
mod stats;
mod traffic;
mod trust;
mod subws;
mod websocket;
mod websocket_protocol;
mod wire;
