//! A server of HTTP for what the program asks of others.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// Answers what a closure says, and remembers target and body of each request.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Mock {
    /// At a free port; every answer has status 200.
    pub(crate) fn start(answer: impl Fn(&str, &str) -> String + Send + 'static) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").expect("a port"), answer)
    }

    /// At a place that was taken before.
    pub(crate) fn at(
        listener: TcpListener,
        answer: impl Fn(&str, &str) -> String + Send + 'static,
    ) -> Self {
        Self::on(listener, move |target, body| ("200 OK", answer(target, body)))
    }

    /// At a free port, with a status beside each answer.
    pub(crate) fn answering(
        answer: impl Fn(&str, &str) -> (&'static str, String) + Send + 'static,
    ) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"), answer)
    }

    fn on(
        listener: TcpListener,
        answer: impl Fn(&str, &str) -> (&'static str, String) + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("it has one");
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let noted = Arc::clone(&seen);
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut bytes = Vec::new();
                let mut buffer = [0; 4096];
                let (target, body) = loop {
                    let Ok(read @ 1..) = stream.read(&mut buffer) else { break Default::default() };
                    bytes.extend_from_slice(&buffer[..read]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let lower = head.to_ascii_lowercase();
                    let length = lower.split("content-length: ").nth(1);
                    let length = length.and_then(|it| it.lines().next()?.parse().ok()).unwrap_or(0);
                    if body.len() >= length {
                        let target = head.split(' ').nth(1).unwrap_or_default();
                        break (target.to_owned(), body.to_owned());
                    }
                };
                let (status, text) = answer(&target, &body);
                noted.lock().expect("not poisoned").push((target, body));
                let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length:");
                // The client may have given up.
                let _ = stream.write_all(format!("{head} {}\r\n\r\n{text}", text.len()).as_bytes());
            }
        });
        Self { address, seen }
    }

    /// Target and body of every request so far.
    pub(crate) fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// Those of the last one.
    pub(crate) fn last(&self) -> (String, String) {
        self.seen().pop().expect("somebody asked")
    }
}
