//! HTTP as bytes: what was sent, what came back, nothing in between.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The longest wait for bytes; measures nothing.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and header lines, as they came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header, in any letter case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

/// A connection to a server.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Read, but not taken.
    received: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("the server accepts")
    }

    /// Connects, or says why not: the server may be down.
    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        if stream.local_addr()? == stream.peer_addr()? {
            // The server is down, and the system gave this end its port: we talk to ourselves.
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Self::over(stream)
    }

    /// Speaks over a connection that was made already.
    pub(crate) fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// The socket itself, for what is special about a test.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The socket with what was read beyond the last answer.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.received)
    }

    /// Sends bytes in one write.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Reads one answer to a request whose method was not HEAD.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer")
    }

    /// Reads one answer, or why there is none.
    pub(crate) fn try_answer(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            if self.read()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).expect("a head of text");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        if status == 101 || status == 304 || status == 100 {
            return Ok(answer);
        }
        match answer.header("content-length").map(|length| length.parse::<usize>()) {
            Some(length) => {
                let length = length.expect("a length");
                while self.received.len() < length {
                    if self.read()? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                answer.body = self.received.drain(..length).collect();
            }
            None => {
                assert_eq!(answer.header("transfer-encoding"), None, "answers have a length");
                while self.read()? > 0 {}
                answer.body = std::mem::take(&mut self.received);
            }
        }
        Ok(answer)
    }

    /// Whether the server has closed the connection without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.received.is_empty()
            && match self.read() {
                Ok(read) => read == 0,
                Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer)?;
        self.received.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

/// Sends one request on a connection of its own and reads the answer.
pub(crate) fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::open(address);
    connection.send(request);
    connection.answer()
}

/// `GET target`.
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    exchange(address, format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

/// One GET with these header lines.
pub(crate) fn get_with(address: SocketAddr, target: &str, headers: &[&str]) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    exchange(address, format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n"))
}

/// The bytes of `POST target`, `headers` as whole lines.
pub(crate) fn post_bytes(target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// `POST target`, `headers` as whole lines.
pub(crate) fn post(address: SocketAddr, target: &str, headers: &[&str], body: &[u8]) -> Answer {
    exchange(address, post_bytes(target, headers, body))
}

/// Publishes a text to a channel list; `expiry_s` 0 sends it without the header.
pub(crate) fn publish(address: SocketAddr, channels: &str, expiry_s: u32, body: &str) -> Answer {
    let expiry = format!("Message-Expiry: {expiry_s}");
    let headers: &[&str] = if expiry_s == 0 { &[] } else { &[&expiry] };
    post(address, &format!("/bitrix/pub/?CHANNEL_ID={channels}"), headers, body.as_bytes())
}

/// The objects between the markers of a text body or frame, in order.
pub(crate) fn events(text: &str) -> Vec<serde_json::Value> {
    text.split("#!NGINXNMS!#")
        .skip(1)
        .map(|part| {
            let json = part.split("#!NGINXNME!#").next().expect("an end marker");
            serde_json::from_str(json).expect("an event is JSON")
        })
        .collect()
}

/// Where `needle` begins in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
