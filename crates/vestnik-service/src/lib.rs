//! The module "Push and Pull" as a service: what the PHP module does inside a site, for back ends in
//! any language (module.md §21). Options, sites, channels, watches and the configuration of clients,
//! for many tenants, over one database.
//!
//! [`Service`] is the front; [`Tenant`] is one customer of it, chosen by `hostId`, and has everything
//! else as methods, each feature in the file of its name. The crate speaks SQL and knows nothing of HTTP,
//! of the wire formats of queue servers or of the hub: what is to be published comes out as [`Notice`]s.

pub mod access;
pub mod activity;
pub mod administrator;
pub mod audit;
pub mod bitrix;
mod cache;
pub mod channel;
pub mod config;
pub mod db;
pub mod event;
pub mod guest;
pub mod hook;
pub mod job;
pub mod notice;
pub mod notification;
pub mod option;
pub mod outbox;
pub mod php;
pub mod push;
pub mod rest;
pub mod settings;
pub mod site;
pub mod stack;
pub mod tenant;
mod token;
mod user_option;
pub mod watch;

pub use db::{Database, DatabaseError, DatabaseOptions};
pub use notice::Notice;
pub use tenant::{Service, ServiceError, Tenant, TenantInfo};
