//! The module as a service, over real databases.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bitrix;
mod channel;
mod config;
mod cost;
mod database_server;
mod databases;
mod event;
mod fixture;
mod option;
mod push;
mod rest;
mod scale;
mod site;
mod stack;
mod tables;
mod watch;
