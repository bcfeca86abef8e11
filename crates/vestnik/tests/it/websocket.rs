//! A WebSocket client of another maker, over a handshake in raw bytes.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use crate::raw::{self, Answer, Connection};

/// An open connection.
pub(crate) struct Subscriber {
    socket: WebSocket<TcpStream>,
}

/// The bytes of a handshake for `target`.
pub(crate) fn handshake(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

impl Subscriber {
    /// Connects to `/bitrix/subws/` with a query.
    pub(crate) fn open(address: SocketAddr, query: &str) -> Self {
        Self::try_open(address, query).unwrap_or_else(|answer| panic!("refused: {answer:?}"))
    }

    /// Connects, or returns the refusal.
    pub(crate) fn try_open(address: SocketAddr, query: &str) -> Result<Self, Answer> {
        let mut connection = Connection::open(address);
        connection.send(handshake(&format!("/bitrix/subws/?{query}")));
        let answer = connection.answer();
        if answer.status != 101 {
            return Err(answer);
        }
        let (stream, received) = connection.into_parts();
        Ok(Self { socket: WebSocket::from_partially_read(stream, received, Role::Client, None) })
    }

    /// The next message that is no control frame; pings are answered on the way.
    pub(crate) fn next(&mut self) -> Message {
        loop {
            match self.socket.read().expect("a message") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next text frame's events; usually one.
    pub(crate) fn next_events(&mut self) -> Vec<Value> {
        match self.next() {
            Message::Text(text) => raw::events(&text),
            other => panic!("no text frame: {other:?}"),
        }
    }

    /// The next event's `text` member; fails unless it came alone in its frame.
    pub(crate) fn next_text(&mut self) -> Value {
        let mut events = self.next_events();
        assert_eq!(events.len(), 1, "one event per frame");
        events.remove(0)["text"].take()
    }

    /// The payload of the next binary frame.
    pub(crate) fn next_binary(&mut self) -> Vec<u8> {
        match self.next() {
            Message::Binary(payload) => payload.to_vec(),
            other => panic!("no binary frame: {other:?}"),
        }
    }

    /// Code and reason of the server's close, whatever comes before it.
    pub(crate) fn close_reason(&mut self) -> (u16, String) {
        loop {
            match self.next() {
                Message::Close(Some(frame)) => {
                    return (frame.code.into(), frame.reason.as_str().to_owned());
                }
                Message::Close(None) => return (1005, String::new()),
                _ => {}
            }
        }
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: Message) {
        self.socket.send(message).expect("the server reads");
    }

    /// The library's socket, for what is special about a test.
    pub(crate) fn socket(&mut self) -> &mut WebSocket<TcpStream> {
        &mut self.socket
    }
}
