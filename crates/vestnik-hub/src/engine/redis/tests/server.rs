//! Real servers of the tests: the installed one, and those of other makers and versions.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::RedisError;

use super::super::{Address, Layout, RedisOptions, Topology};
use super::access;

/// A program that is a server.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Program {
    path: PathBuf,
}

impl Program {
    /// What `./test` brings into the folder of servers, each in its place there.
    const OTHERS: &[&str] = &["redis-6.2/redis-server", "valkey-9.1/valkey-server"];

    /// The Redis that the system has.
    pub(in crate::engine) fn installed() -> Self {
        Self { path: "redis-server".into() }
    }

    /// The others that are there. In the full run a missing one fails the test.
    ///
    /// # Panics
    /// When one is missing although the gate has brought it.
    pub(in crate::engine) fn others() -> Vec<Self> {
        let folder = folder();
        let all = Self::OTHERS.iter().map(|name| folder.join(name));
        let is_there = |path: &PathBuf| {
            // Of Redis 6 there is only one for this kind of processor.
            let is_brought =
                cfg!(target_arch = "x86_64") || !path.starts_with(folder.join("redis-6.2"));
            let missing = !path.exists();
            assert!(!missing || !is_brought || !is_full(), "no {}: run ./test", path.display());
            !missing
        };
        all.filter(is_there).map(|path| Self { path }).collect()
    }

    /// The installed one and the others.
    pub(in crate::engine) fn all() -> Vec<Self> {
        [vec![Self::installed()], Self::others()].concat()
    }

    /// Whether it is Redis 6, which has no sharded publishing.
    pub(super) fn is_old(&self) -> bool {
        self.path.iter().any(|part| part == "redis-6.2")
    }

    /// Whether it is Valkey.
    pub(super) fn is_valkey(&self) -> bool {
        self.path.ends_with("valkey-server")
    }
}

#[expect(clippy::disallowed_methods, reason = "the switch of the gate")]
fn is_full() -> bool {
    std::env::var("SLOW").is_ok_and(|value| value == "1")
}

/// `TEST_SERVERS`, or `tests/servers` of this repository.
#[expect(clippy::disallowed_methods, reason = "a switch of the tests")]
fn folder() -> PathBuf {
    match std::env::var("TEST_SERVERS") {
        Ok(path) => path.into(),
        Err(_) => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/servers"),
    }
}

/// A real server of its own port and folder; ends with the test.
pub(in crate::engine) struct Server {
    child: Child,
    pub(in crate::engine) port: u16,
    folder: tempfile::TempDir,
    program: Program,
    more: Vec<String>,
}

pub(in crate::engine) fn free_port() -> u16 {
    // A node of a cluster listens at this port plus 10,000 too.
    const HIGHEST: u16 = u16::MAX - 10_000;
    for _ in 0..1000 {
        // Released at once; a server of a test takes it within milliseconds.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if port <= HIGHEST {
            return port;
        }
    }
    panic!("the system gives no port up to {HIGHEST}");
}

impl Server {
    /// A server of the installed program.
    pub(in crate::engine) fn start(more: &[&str]) -> Self {
        Self::of(&Program::installed(), more)
    }

    pub(in crate::engine) fn of(program: &Program, more: &[&str]) -> Self {
        let more: Vec<String> = more.iter().map(|&it| it.to_owned()).collect();
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port();
            let child = Self::spawn(program, port, &folder, &more);
            let program = program.clone();
            let mut server = Self { child, port, folder, program, more: more.clone() };
            // Somebody else may have taken the port, or the one above it, meanwhile.
            if server.comes_up() {
                return server;
            }
        }
        panic!("{} does not come up", program.path.display());
    }

    fn spawn(program: &Program, port: u16, folder: &tempfile::TempDir, more: &[String]) -> Child {
        Command::new(&program.path)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(folder.path())
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed: ./test installs it")
    }

    /// Whether it answers; `false`: it has ended.
    fn comes_up(&mut self) -> bool {
        for _ in 0..6000 {
            // First: a foreign server at the same port would answer too.
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.ask(&["PING"]).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub(in crate::engine) fn ask(&self, words: &[&str]) -> Result<redis::Value, RedisError> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection)
    }

    pub(in crate::engine) fn number(&self, words: &[&str]) -> i64 {
        redis::from_redis_value(self.ask(words).unwrap()).unwrap()
    }

    pub(in crate::engine) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(in crate::engine) fn start_again(&mut self) {
        self.child = Self::spawn(&self.program, self.port, &self.folder, &self.more);
        assert!(self.comes_up(), "it was there before");
    }

    pub(in crate::engine) fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    pub(in crate::engine) fn options(&self, layout: Layout) -> RedisOptions {
        let address = Address::Tcp("127.0.0.1".to_owned(), self.port);
        RedisOptions { access: access(Topology::Standalone(address)), layout }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
