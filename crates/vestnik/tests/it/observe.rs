//! What tests see of a server from outside: metrics, presence, polls that are being held.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::raw::{self, Connection};

/// Waits until something is so.
///
/// # Panics
/// When it is not after the longest wait.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + raw::WAIT;
    while !is_so() {
        assert!(Instant::now() < end, "not within {:?}: {what}", raw::WAIT);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The value of a metric now.
pub(crate) fn metric(address: SocketAddr, name: &str) -> u64 {
    let page = raw::get(address, "/metrics");
    let value = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric {name}")).parse().expect("a number")
}

/// Polls that are being held now.
pub(crate) fn polls(address: SocketAddr) -> u64 {
    metric(address, "vestnik_connections_polling")
}

/// Sends a request that is held, and waits until it is.
pub(crate) fn hold(address: SocketAddr, request: &str) -> Connection {
    let before = polls(address);
    let mut connection = Connection::open(address);
    connection.send(request);
    until("the poll is held", || polls(address) > before);
    connection
}

/// Holds `GET /bitrix/sub/` with a query.
pub(crate) fn hold_poll(address: SocketAddr, query: &str) -> Connection {
    hold(address, &format!("GET /bitrix/sub/?{query} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

/// The answer to `GET pub` about some channels.
pub(crate) fn presence(address: SocketAddr, channels: &str) -> String {
    let answer = raw::get(address, &format!("/bitrix/pub/?CHANNEL_ID={channels}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().to_owned()
}

/// Whether somebody listens to a private channel.
pub(crate) fn is_online(address: SocketAddr, channel: impl std::fmt::Display) -> bool {
    presence(address, &channel.to_string()).contains("subscribers")
}
