//! The module service over HTTP: the operations of back ends and the pages of administrators.
//!
//! Requests come from the network edge as [`vestnik_server::Visit`]s and are served on a thread of their
//! own, because they wait for a database. What the service wants told to clients leaves through
//! `publishing.rs`. The crate knows no sockets and no SQL.

mod admin;
mod answer;
mod check;
mod compatible;
mod hooks;
mod jobs;
mod publishing;
mod pushing;
mod rest;
mod web;

pub use admin::{AdminOptions, AdminParts, OwnAddresses, PrintPassword};
pub use web::{Live, Web, WebOptions};
