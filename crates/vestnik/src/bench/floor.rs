//! The baseline: a bare loop that sends the same bytes to the same number of sockets, and nothing
//! else. What it costs is what the kernel costs.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::{ServerConnection, StreamOwned};

use super::link::{self, Identity, Link};
use super::process::cpu_of;
use super::report::micros_each;
use crate::parent::{self, ParentArgs};

/// Arguments of the hidden command that is the baseline's server.
#[derive(Debug, clap::Args)]
pub(crate) struct FloorArgs {
    /// Sockets to serve.
    sockets: usize,
    /// Serve them with TLS: the certificate and its key.
    #[arg(long, num_args = 2)]
    tls: Vec<PathBuf>,
    #[command(flatten)]
    parent: ParentArgs,
}

/// Serves as the baseline: accepts, then sends to all sockets as often as a line of standard input
/// says, `<bytes>` each time, and answers with a line when done.
pub(crate) fn run(args: &FloorArgs) -> anyhow::Result<()> {
    args.parent.end_with_it()?;
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", listener.local_addr()?.port()).context("cannot write")?;
    out.flush().context("cannot write")?;
    let tls = match &*args.tls {
        [certificate, key] => Some(link::server(certificate, key)?),
        _ => None,
    };
    let mut sockets: Vec<Box<dyn Write>> = Vec::with_capacity(args.sockets);
    for _ in 0..args.sockets {
        let (mut socket, _) = listener.accept().context("cannot accept")?;
        socket.set_nodelay(true)?;
        let Some(tls) = &tls else {
            sockets.push(Box::new(socket));
            continue;
        };
        let mut session = ServerConnection::new(Arc::clone(tls))?;
        while session.is_handshaking() || session.wants_write() {
            session.complete_io(&mut socket).context("no handshake")?;
        }
        sockets.push(Box::new(StreamOwned::new(session, socket)));
    }
    for line in std::io::stdin().lines() {
        let bytes: usize = line.context("cannot read")?.trim().parse().context("no number")?;
        let frame = vec![b'x'; bytes];
        for socket in &mut sockets {
            socket.write_all(&frame).and_then(|()| socket.flush()).context("cannot send")?;
        }
        writeln!(out, "sent").context("cannot write")?;
        out.flush().context("cannot write")?;
    }
    Ok(())
}

/// The process of a baseline; ended with its owner.
struct Sender {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// The baseline with its readers.
pub(super) struct Floor {
    sender: Sender,
    poll: Poll,
    sockets: Vec<Link>,
    /// Processor time of accepting all of them.
    pub(super) accepting: Duration,
}

impl Drop for Sender {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sender {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        parent::ends_with_this_one(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the baseline")?;
        let input = child.stdin.take().context("the baseline has no input")?;
        let output = BufReader::new(child.stdout.take().context("the baseline has no output")?);
        Ok(Self { child, input, output })
    }

    /// What it says next.
    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    fn cpu(&self) -> Duration {
        cpu_of(self.child.id())
    }
}

impl Floor {
    /// Starts it with `count` sockets.
    pub(super) fn start(count: usize, tls: Option<&Identity>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.args(["bench-floor", &count.to_string()]);
        if let Some(identity) = tls {
            command.arg("--tls").arg(identity.certificate()).arg(identity.key());
        }
        let mut sender = Sender::start(command)?;
        let port: u16 = sender.line()?.trim().parse().context("the baseline did not start")?;
        let mut poll = Poll::new()?;
        let mut sockets = Vec::with_capacity(count);
        let before = sender.cpu();
        for index in 0..count {
            // A blocking connect keeps the accept queue short.
            let stream =
                std::net::TcpStream::connect(("127.0.0.1", port)).context("raise `ulimit -n`")?;
            stream.set_nonblocking(true)?;
            let mut stream = Link::new(TcpStream::from_std(stream), tls.map(|it| &it.client))?;
            poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            sockets.push(stream);
            if tls.is_some() {
                make_session(&mut poll, &mut sockets)?;
            }
        }
        let accepting = sender.cpu() - before;
        Ok(Self { sender, poll, sockets, accepting })
    }

    /// Processor time of one send of `bytes` bytes to one socket, in microseconds, over so many rounds.
    pub(super) fn rounds(&mut self, rounds: u64, bytes: usize) -> anyhow::Result<f64> {
        // The first round warms up what a running server has warm.
        self.round(bytes)?;
        let mut cpu = Duration::ZERO;
        for _ in 0..rounds {
            cpu += self.round(bytes)?;
        }
        Ok(micros_each(cpu, rounds * self.sockets.len() as u64))
    }

    /// Sends `bytes` bytes to every socket once and reads them all; the processor time it took the
    /// sender.
    fn round(&mut self, bytes: usize) -> anyhow::Result<Duration> {
        let before = self.sender.cpu();
        writeln!(self.sender.input, "{bytes}").context("the baseline has ended")?;
        let mut left = bytes * self.sockets.len();
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            self.poll.poll(&mut events, Some(Duration::from_secs(30)))?;
            anyhow::ensure!(!events.is_empty(), "the baseline sends nothing");
            for event in &events {
                let socket = &mut self.sockets[event.token().0];
                while let Ok(read @ 1..) = socket.read(&mut buffer) {
                    left -= read;
                    if socket.is_drained_by(read, buffer.len()) {
                        break;
                    }
                }
            }
        }
        self.sender.line()?;
        Ok(self.sender.cpu() - before)
    }
}

/// Makes the session of the newest socket: until the server's last word of the handshake, its ticket, is
/// there.
fn make_session(poll: &mut Poll, sockets: &mut [Link]) -> anyhow::Result<()> {
    let Some(link @ Link::Tls(_)) = sockets.last_mut() else { return Ok(()) };
    link.flush().context("no handshake")?;
    let mut events = Events::with_capacity(16);
    let mut buffer = [0; 16];
    loop {
        match link.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            read => anyhow::bail!("no handshake: {read:?}"),
        }
        if let Link::Tls(tls) = link
            && tls.1.tls13_tickets_received() > 0
        {
            return Ok(());
        }
        poll.poll(&mut events, Some(Duration::from_secs(30)))?;
        anyhow::ensure!(!events.is_empty(), "the baseline makes no session");
    }
}
