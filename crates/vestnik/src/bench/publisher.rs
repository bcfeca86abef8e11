//! A publisher as fast as its server: one connection, request after request.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use prost::Message as _;
use vestnik_core::ChannelId;
use vestnik_proto::protobuf::schema;

use crate::client::Address;
use crate::failure::Failure;

/// One connection to the publish route.
pub(super) struct Publisher {
    address: SocketAddr,
    url: Address,
    stream: TcpStream,
    answer: Vec<u8>,
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).context("cannot connect to publish")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

impl Publisher {
    /// Connects.
    pub(super) fn open(url: &Address) -> anyhow::Result<Self> {
        let address = url.resolve()?;
        Ok(Self {
            address,
            url: url.clone(),
            stream: connect(address)?,
            answer: vec![0; 64 * 1024],
        })
    }

    /// Takes a new connection for the next request, as PHP does for each.
    pub(super) fn reconnect(&mut self) -> anyhow::Result<()> {
        self.stream = connect(self.address)?;
        Ok(())
    }

    /// Publishes a text. `expiry_s` 0: volatile.
    pub(super) fn text(
        &mut self,
        channel: ChannelId,
        expiry_s: u32,
        event: &str,
    ) -> anyhow::Result<()> {
        let target = self.url.with(&[("CHANNEL_ID", &channel.to_string())]);
        let expiry =
            if expiry_s == 0 { String::new() } else { format!("Message-Expiry: {expiry_s}\r\n") };
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: bench\r\n{expiry}Content-Length: {}\r\n\r\n{event}",
            event.len()
        );
        self.exchange(request.as_bytes())
    }

    /// Publishes several events to one channel each, in one request.
    pub(super) fn batch(
        &mut self,
        expiry_s: u32,
        events: &[(ChannelId, String)],
    ) -> anyhow::Result<()> {
        let messages = events
            .iter()
            .map(|(channel, event)| schema::IncomingMessage {
                receivers: vec![schema::Receiver {
                    id: channel.as_bytes().to_vec().into(),
                    is_private: true,
                    ..Default::default()
                }],
                body: event.clone().into_bytes().into(),
                expiry: expiry_s,
                ..Default::default()
            })
            .collect();
        let command =
            schema::RequestCommand::IncomingMessages(schema::IncomingMessagesRequest { messages });
        let batch =
            schema::RequestBatch { requests: vec![schema::Request { command: Some(command) }] };
        let body = batch.encode_to_vec();
        let target = self.url.with(&[("binaryMode", "true")]);
        let mut request = format!(
            "POST {target} HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        self.exchange(&request)
    }

    fn exchange(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).context("cannot publish")?;
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut self.answer[length..]).context("no answer")?;
            anyhow::ensure!(read > 0, "the server hung up on the publisher");
            length += read;
            let answer = &self.answer[..length];
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer[..end]);
                anyhow::ensure!(
                    head.starts_with("HTTP/1.1 200"),
                    Failure::new(
                        format!("publish refused: {}", head.lines().next().unwrap_or_default()),
                        "check the address to publish to, and whether the server lets this machine publish",
                    )
                );
                // Answers of publishing have no body; chunked ones end with an empty chunk.
                let is_chunked =
                    answer[..end].windows(7).any(|window| window.eq_ignore_ascii_case(b"chunked"));
                if !is_chunked || answer[end + 4..].ends_with(b"0\r\n\r\n") {
                    return Ok(());
                }
            }
            anyhow::ensure!(length < self.answer.len(), "an answer of over 64 KiB");
        }
    }
}
