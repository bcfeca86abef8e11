//! A publisher as fast as its server: one connection, request after request.

use std::net::SocketAddr;

use prost::Message as _;
use vestnik_core::ChannelId;
use vestnik_proto::protobuf::schema;

use super::http::Connection;
use crate::client::Address;
use crate::failure::Failure;

/// One connection to the publish route.
pub(super) struct Publisher {
    address: SocketAddr,
    url: Address,
    connection: Connection,
}

impl Publisher {
    /// Connects.
    pub(super) fn open(url: &Address) -> anyhow::Result<Self> {
        let address = url.resolve()?;
        Ok(Self { address, url: url.clone(), connection: Connection::open(address)? })
    }

    /// Takes a new connection for the next request, as PHP does for each.
    pub(super) fn reconnect(&mut self) -> anyhow::Result<()> {
        self.connection = Connection::open(self.address)?;
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
        let status = self.connection.exchange(request)?.status;
        anyhow::ensure!(
            status == 200,
            Failure::new(
                format!("a publish was refused with {status}"),
                "check the address to publish to, and what the log of the server says",
            )
        );
        Ok(())
    }
}
