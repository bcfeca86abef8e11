//! `vestnik listen`: subscribes as a browser does and prints what comes.

use std::io::Write as _;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vestnik_core::MessageId;
use vestnik_proto::query::ChannelList;
use vestnik_proto::websocket::{self as codec, Assembler, Event, Opcode, Peer, Step};

use crate::client::{self, Address};
use crate::failure::Failure;
use crate::keygen::fill_random;

/// Arguments of `vestnik listen`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListenArgs {
    /// Channels to listen to, signed, joined by `/`; `vestnik sign` makes them.
    #[arg(value_name = "CHANNELS")]
    channels: String,
    /// Go on behind this message: its 26 digits, as `mid` was printed.
    #[arg(long, value_name = "MID")]
    after: Option<MessageId>,
    /// End after this many events; without it, go on until the connection ends.
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// The WebSocket address, as on the site's settings page.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8895/bitrix/subws/")]
    url: Address,
}

/// The largest message that is printed.
const MESSAGE_MAX: usize = 256 * 1024 * 1024;

/// Listens and prints one event per line.
pub(crate) fn run(args: &ListenArgs) -> anyhow::Result<()> {
    ChannelList::parse(&args.channels, ChannelList::SUBSCRIPTION_ITEMS_MAX).map_err(|error| {
        Failure::new(
            error,
            "a channel is 32 lower-case hex digits with its signature, joined by `/`; `vestnik sign` \
             makes them",
        )
    })?;
    client::run(listen(args))
}

async fn listen(args: &ListenArgs) -> anyhow::Result<()> {
    let mut stream = connect(args).await?;
    let mut assembler = Assembler::new();
    let mut received = Vec::new();
    let mut printed = 0;
    loop {
        let mut taken = 0;
        while taken < received.len() {
            let step = assembler
                .read(&mut received[taken..], Peer::Server, MESSAGE_MAX)
                .context("the server does not speak WebSocket as it should")?;
            let Step::Event { consumed, event } = step else { break };
            taken += consumed;
            match event {
                Event::Message(_, text) => {
                    writeln!(std::io::stdout(), "{}", json_of(&String::from_utf8_lossy(&text)))
                        .context("cannot write")?;
                    printed += 1;
                    if Some(printed) == args.count {
                        return send(&mut stream, Opcode::Close, &1000_u16.to_be_bytes()).await;
                    }
                }
                Event::Ping(payload) => {
                    let payload = payload.to_vec();
                    send(&mut stream, Opcode::Pong, &payload).await?;
                }
                Event::Fragment | Event::Pong(_) => {}
                Event::Close(reason) => {
                    let reason = reason.map_or_else(String::new, |reason| {
                        format!(" with {} {}", reason.code, reason.text).trim_end().to_owned()
                    });
                    return Err(Failure::new(
                        format!("the server closed the connection{reason}"),
                        "connect again with --after and the last mid to miss nothing",
                    )
                    .into());
                }
            }
        }
        received.drain(..taken);
        if stream.read_buf(&mut received).await.context("the connection was lost")? == 0 {
            anyhow::bail!("the connection was lost");
        }
    }
}

/// The JSON between the markers of a text event.
fn json_of(text: &str) -> &str {
    let inner = text.strip_prefix("#!NGINXNMS!#").and_then(|t| t.strip_suffix("#!NGINXNME!#"));
    inner.unwrap_or(text)
}

async fn send(
    stream: &mut TokioIo<Upgraded>,
    opcode: Opcode,
    payload: &[u8],
) -> anyhow::Result<()> {
    let mut mask = [0; 4];
    fill_random(&mut mask)?;
    let mut frame = Vec::new();
    codec::push_client_frame(&mut frame, opcode, payload, mask);
    stream.write_all(&frame).await.context("the connection was lost")
}

async fn connect(args: &ListenArgs) -> anyhow::Result<TokioIo<Upgraded>> {
    let mid = args.after.map(|mid| mid.to_string());
    let mut parameters = vec![("CHANNEL_ID", args.channels.as_str())];
    parameters.extend(mid.as_deref().map(|mid| ("mid", mid)));
    parameters.push(("revision", "19"));
    let request = Request::builder()
        .uri(args.url.with(&parameters))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dmVzdG5pay1saXN0ZW4tMQ==");
    let answer = args.url.send(request, Bytes::new()).await?;
    match answer.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            Ok(TokioIo::new(hyper::upgrade::on(answer).await.context("the handshake failed")?))
        }
        StatusCode::BAD_REQUEST => {
            let body = client::short_body(answer).await;
            Err(Failure::new(
                format!("the server refused the subscription: {body}"),
                if body.starts_with("Wrong Channel") {
                    "sign the channels with the key of this server: `vestnik sign <private id>`"
                } else {
                    "the WebSocket address ends with /bitrix/subws/; `vestnik serve` prints it"
                },
            )
            .into())
        }
        status => Err(Failure::new(
            format!("the server answered {status}"),
            "the WebSocket address ends with /bitrix/subws/; `vestnik serve` prints it",
        )
        .into()),
    }
}
