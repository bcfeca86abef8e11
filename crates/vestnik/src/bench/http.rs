//! A connection of the benchmark to its server: one HTTP request after the other.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_MAX: usize = 4 << 20;

/// A socket that waits, though not for ever.
pub(super) fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A connection that is kept.
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

/// Where the body of an answer begins, and how long it is.
struct Head {
    status: u16,
    body_at: usize,
    length: Length,
}

enum Length {
    Known(usize),
    Chunked,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { stream: connect(address)?, received: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and waits for the whole answer.
    pub(super) fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).context("cannot send a request")?;
        self.received.clear();
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = self.stream.read(&mut buffer).context("no answer")?;
            anyhow::ensure!(read > 0, "the server hung up on a request");
            self.received.extend_from_slice(&buffer[..read]);
            anyhow::ensure!(self.received.len() <= ANSWER_MAX, "an answer of over 4 MiB");
            let Some(head) = head(&self.received)? else { continue };
            let Head { status, body_at, length } = head;
            match length {
                Length::Known(length) if self.received.len() < body_at + length => {}
                Length::Known(length) => {
                    let body = &self.received[body_at..body_at + length];
                    return Ok(Answer { status, body });
                }
                Length::Chunked => {
                    let Some(length) = join_chunks(&mut self.received[body_at..])? else {
                        continue;
                    };
                    let body = &self.received[body_at..body_at + length];
                    return Ok(Answer { status, body });
                }
            }
        }
    }
}

/// Reads the head of an answer; `None`: there is more to come.
fn head(received: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer.parse(received).context("an answer that is not HTTP")?;
    let httparse::Status::Complete(body_at) = parsed else { return Ok(None) };
    let value = |name: &str| {
        let header = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let is_chunked =
        value("transfer-encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked"));
    let length = if is_chunked {
        Length::Chunked
    } else {
        let length = value("content-length").map_or(Ok(0), str::parse);
        Length::Known(length.context("an answer whose length is no number")?)
    };
    Ok(Some(Head { status: answer.code.context("an answer without a status")?, body_at, length }))
}

/// Moves the contents of all chunks to the beginning of `body`, once they are all there; their length.
fn join_chunks(body: &mut [u8]) -> anyhow::Result<Option<usize>> {
    let mut chunks = Vec::new();
    let mut at = 0;
    loop {
        let parsed = httparse::parse_chunk_size(&body[at..])
            .map_err(|_| anyhow::anyhow!("an answer with a chunk that has no length"))?;
        let httparse::Status::Complete((head, length)) = parsed else { return Ok(None) };
        let (from, length) = (at + head, usize::try_from(length)?);
        // Behind each chunk there is an empty line.
        at = from
            .checked_add(length)
            .and_then(|it| it.checked_add(2))
            .context("a chunk too long")?;
        if at > body.len() {
            return Ok(None);
        }
        if length == 0 {
            break;
        }
        chunks.push(from..from + length);
    }
    let mut end = 0;
    for chunk in chunks {
        let length = chunk.len();
        body.copy_within(chunk, end);
        end += length;
    }
    Ok(Some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_with_a_length_in_chunks_and_without_a_body() {
        let parts = |text: &'static str| {
            let mut bytes = text.as_bytes().to_vec();
            let Head { body_at, length, .. } = head(&bytes).unwrap()?;
            Some(match length {
                Length::Known(length) => bytes.get(body_at..body_at + length)?.to_vec(),
                Length::Chunked => {
                    let length = join_chunks(&mut bytes[body_at..]).unwrap()?;
                    bytes[body_at..body_at + length].to_vec()
                }
            })
        };
        let body = |text: &'static str| parts(text).map(|it| String::from_utf8(it).unwrap());
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), Some("ab".to_owned()));
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"), None);
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\n"), Some(String::new()));
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Le"), None);
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n";
        assert_eq!(body(chunked), Some("abcde".to_owned()));
        assert_eq!(body(&chunked[..chunked.len() - 1]), None);
        assert!(head(b"nonsense\r\n\r\n").is_err());
    }
}
