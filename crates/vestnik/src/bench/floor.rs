//! The baseline: a bare loop that sends the same bytes to the same number of sockets, and nothing
//! else. What it costs is what the kernel costs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::process::cpu_of;

/// Arguments of the hidden command that is the baseline's server.
#[derive(Debug, clap::Args)]
pub(crate) struct FloorArgs {
    /// Sockets to serve.
    sockets: usize,
}

/// Serves as the baseline: accepts, then sends to all sockets as often as a line of standard input
/// says, `<bytes>` each time, and answers with a line when done.
pub(crate) fn run(args: &FloorArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", listener.local_addr()?.port()).context("cannot write")?;
    out.flush().context("cannot write")?;
    let mut sockets = Vec::with_capacity(args.sockets);
    for _ in 0..args.sockets {
        let (socket, _) = listener.accept().context("cannot accept")?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    for line in std::io::stdin().lines() {
        let bytes: usize = line.context("cannot read")?.trim().parse().context("no number")?;
        let frame = vec![b'x'; bytes];
        for socket in &mut sockets {
            socket.write_all(&frame).context("cannot send")?;
        }
        writeln!(out, "sent").context("cannot write")?;
        out.flush().context("cannot write")?;
    }
    Ok(())
}

/// The baseline with its readers.
pub(super) struct Floor {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    poll: Poll,
    sockets: Vec<TcpStream>,
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It ends by itself when its input closes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Floor {
    /// Starts it with `count` sockets.
    pub(super) fn start(count: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(["bench-floor", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the baseline")?;
        let input = child.stdin.take().context("the baseline has no input")?;
        let mut output = BufReader::new(child.stdout.take().context("the baseline has no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let port: u16 = line.trim().parse().context("the baseline did not start")?;
        let poll = Poll::new()?;
        let mut sockets = Vec::with_capacity(count);
        for index in 0..count {
            // A blocking connect keeps the accept queue short.
            let stream =
                std::net::TcpStream::connect(("127.0.0.1", port)).context("raise `ulimit -n`")?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            sockets.push(stream);
        }
        Ok(Self { child, input, output, poll, sockets })
    }

    /// Sends `bytes` bytes to every socket once and reads them all; the processor time it took the
    /// sender.
    pub(super) fn round(&mut self, bytes: usize) -> anyhow::Result<Duration> {
        let before = cpu_of(self.child.id());
        writeln!(self.input, "{bytes}").context("the baseline has ended")?;
        let mut left = bytes * self.sockets.len();
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            self.poll.poll(&mut events, Some(Duration::from_secs(30)))?;
            anyhow::ensure!(!events.is_empty(), "the baseline sends nothing");
            for event in &events {
                while let Ok(read @ 1..) = self.sockets[event.token().0].read(&mut buffer) {
                    left -= read;
                }
            }
        }
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(cpu_of(self.child.id()) - before)
    }
}
