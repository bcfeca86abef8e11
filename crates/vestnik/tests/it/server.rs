//! A real `vestnik serve` on a free port of 127.0.0.1, with a data folder of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::sign::KEY;

/// A running server; killed when dropped.
pub(crate) struct TestServer {
    child: Child,
    address: SocketAddr,
    /// Where it listens with TLS, if it does.
    secure: Option<SocketAddr>,
    data: TempDir,
    settings: Vec<String>,
    log: Option<JoinHandle<String>>,
}

/// The longest wait for a process to start or to end; measures nothing.
const WAIT: Duration = Duration::from_secs(30);

impl TestServer {
    /// Starts a server with the test key and the usual settings.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server that serves the module too, with its tables on disk, and further settings.
    pub(crate) fn with_module(settings: &[&str]) -> Self {
        Self::with(&[&["module.enabled=true"], settings].concat())
    }

    /// Starts a server with `option=value` settings; without the module unless they are about it, because
    /// making its tables takes longer than many a test.
    pub(crate) fn with(settings: &[&str]) -> Self {
        let key = format!("security.key={KEY}");
        let mut settings: Vec<String> = settings.iter().map(|&setting| setting.into()).collect();
        let is_about = |section: &str| settings.iter().any(|it| it.starts_with(section));
        if !is_about("module.") && !is_about("admin.") {
            settings.push("module.enabled=false".to_owned());
        }
        if !settings.iter().any(|setting| setting.starts_with("security.")) {
            settings.push(key);
        }
        let data = tempfile::tempdir().expect("a folder for the test");
        Self::spawn(data, settings, "127.0.0.1:0".to_owned())
    }

    /// Starts a server with a folder that holds files already. A `vestnik.toml` in it is its
    /// configuration.
    pub(crate) fn with_folder(data: TempDir, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|&setting| setting.into()).collect();
        Self::spawn(data, settings, "127.0.0.1:0".to_owned())
    }

    fn spawn(data: TempDir, settings: Vec<String>, listen: String) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
        command.arg("serve").args(["--listen", &listen]).arg("--data-dir").arg(data.path());
        let file = data.path().join("vestnik.toml");
        if file.exists() {
            command.arg("--config").arg(file);
        }
        for setting in &settings {
            command.args(["--set", setting]);
        }
        let (child, addresses, log) = launch_all(command);
        let of = |scheme| addresses.iter().find(|(it, _)| it == scheme).map(|(_, at)| *at);
        let Some(address) = of("http") else {
            panic!("the server does not start: {}", log.join().unwrap_or_default());
        };
        Self { child, address, secure: of("https"), data, settings, log: Some(log) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens with TLS.
    pub(crate) fn secure(&self) -> SocketAddr {
        self.secure.expect("it listens with TLS")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The `option=value` settings it was started with.
    pub(crate) fn settings(&self) -> &[String] {
        &self.settings
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// Sends a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill is there").success());
    }

    /// Waits until it has ended by itself; returns its exit status and its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_for(&mut self.child);
        let log =
            self.log.take().map(|log| log.join().expect("the log is read")).unwrap_or_default();
        (status, log)
    }

    /// Ends it without a warning, as a power cut would, and starts it again on the same address and
    /// data.
    pub(crate) fn crash_and_restart(mut self) -> Self {
        self.child.kill().expect("it runs");
        wait_for(&mut self.child);
        self.restart()
    }

    /// Ends it without a warning; [`TestServer::revived`] starts it again.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        wait_for(&mut self.child);
    }

    /// Starts it again on the same address and data after [`TestServer::kill`].
    pub(crate) fn revived(self) -> Self {
        self.restart()
    }

    /// Ends it in order and starts it again on the same address and data.
    pub(crate) fn stop_and_restart(self) -> Self {
        self.signal("TERM");
        self.restarted()
    }

    /// Waits until it has ended in order and starts it again on the same address and data.
    pub(crate) fn restarted(mut self) -> Self {
        assert!(wait_for(&mut self.child).success());
        self.restart()
    }

    fn restart(mut self) -> Self {
        let empty = tempfile::tempdir().expect("a folder for the test");
        let data = std::mem::replace(&mut self.data, empty);
        let mut settings = std::mem::take(&mut self.settings);
        if let Some(secure) = self.secure {
            settings.push(format!("server.listen_tls={secure}"));
        }
        Self::spawn(data, settings, self.address.to_string())
    }
}

impl Drop for TestServer {
    #[expect(clippy::print_stderr, reason = "the log of a server is part of a test's failure")]
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(log) = self.log.take()
            && std::thread::panicking()
        {
            eprintln!("--- log of the server\n{}---", log.join().unwrap_or_default());
        }
    }
}

/// Starts a `serve` command and waits for its first plain address; `None` when it ends before that.
/// Its standard error is gathered until it ends.
pub(crate) fn launch(command: Command) -> (Child, Option<SocketAddr>, JoinHandle<String>) {
    let (child, addresses, log) = launch_all(command);
    let plain = addresses.iter().find(|(scheme, _)| scheme == "http");
    (child, plain.map(|(_, address)| *address), log)
}

/// Starts a `serve` command and waits for its addresses, each with its scheme; none when it ends before
/// that. Its standard error is gathered until it ends.
pub(crate) fn launch_all(
    mut command: Command,
) -> (Child, Vec<(String, SocketAddr)>, JoinHandle<String>) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is built");
    let mut stderr = child.stderr.take().expect("piped");
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        // A log that is no text fails the tests that look at it.
        let _ = stderr.read_to_string(&mut log);
        log
    });
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut addresses = Vec::new();
    for line in lines.by_ref().map_while(Result::ok) {
        let line = line.trim();
        // What follows the addresses.
        if line.starts_with("data in ") {
            break;
        }
        if let Some((scheme, rest)) =
            line.strip_prefix("listening on ").and_then(|line| line.split_once("://"))
        {
            let address = rest.split([' ', ',']).next().and_then(|it| it.parse().ok());
            addresses.push((scheme.to_owned(), address.expect("an address")));
        }
    }
    // The rest of the summary is read so that the pipe never fills.
    std::thread::spawn(move || lines.for_each(drop));
    (child, addresses, log)
}

/// Waits until a process has ended.
pub(crate) fn wait_for(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + WAIT;
    loop {
        if let Some(status) = child.try_wait().expect("it was started") {
            return status;
        }
        assert!(Instant::now() < until, "the process does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}
