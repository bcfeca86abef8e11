//! Real database servers for tests, each in a folder of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vestnik_service::DatabaseOptions;
use vestnik_service::db::Database;

const NOBODY: u32 = 65_534;
const START_LIMIT: Duration = Duration::from_secs(60);

/// A database server in a folder of its own, with an unprivileged user where the test has a choice.
pub(crate) struct DatabaseServer {
    child: Child,
    _folder: tempfile::TempDir,
    /// The program that runs scripts, with what it needs to connect.
    client: Vec<String>,
}

impl DatabaseServer {
    /// Runs a script in the database called `name`.
    pub(crate) fn script(&self, name: &str, script: &str) {
        let mut command = Command::new(&self.client[0]);
        command.args(&self.client[1..]).arg(name).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the client is installed");
        let mut input = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut input, script.as_bytes()).expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}\n{script}");
    }
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        // PostgreSQL takes its children along when it is asked; MariaDB has none.
        let id = self.child.id().to_string();
        let asked = Command::new("kill").args(["-INT", &id]).status();
        if !asked.is_ok_and(|status| status.success()) || cfg!(not(unix)) {
            drop(self.child.kill());
        }
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_root() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::MetadataExt::uid(&folder.path().metadata().expect("it is there")) == 0
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    if is_root() {
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    folder
}

/// A program in one of `folders`; `None` where it is not installed, which fails the full run.
fn program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
    #[expect(clippy::disallowed_methods, reason = "the switch of the gate")]
    let is_full = std::env::var("SLOW").is_ok();
    assert!(found.is_some() || !is_full, "{name} is not installed: run ./test");
    found
}

async fn reached(options: &DatabaseOptions) {
    let end = Instant::now() + START_LIMIT;
    loop {
        match Database::open(options).await {
            Ok(database) => return database.close().await,
            Err(error) if Instant::now() > end => panic!("the server does not answer: {error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// PostgreSQL, empty.
pub(crate) async fn postgres() -> Option<(DatabaseServer, DatabaseOptions)> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    let (initdb, server) = (program("initdb", &folders)?, program("postgres", &folders)?);
    let folder = folder();
    let data = folder.path().join("data");
    let made = command(&initdb)
        .args(["--no-sync", "--auth=trust", "--username=test", "--encoding=UTF8", "--no-locale"])
        .arg("-D")
        .arg(&data)
        .status();
    assert!(made.expect("it runs").success(), "initdb");
    // A socket in a folder of our own: no port to find or to lose.
    let child = command(&server)
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(folder.path())
        .args(["-c", "listen_addresses=", "-c", "fsync=off"])
        .spawn()
        .expect("it starts");
    let client =
        ["psql", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--username=test", "--host"];
    let mut client = client.map(str::to_owned).to_vec();
    client.extend([folder.path().display().to_string(), "--dbname".to_owned()]);
    let host = folder.path().display().to_string().replace('/', "%2F");
    let options = DatabaseOptions::new(format!("postgres://test@{host}/postgres"));
    let server = DatabaseServer { child, _folder: folder, client };
    reached(&options).await;
    Some((server, options))
}

/// MariaDB with an empty database `test`.
pub(crate) async fn mariadb() -> Option<(DatabaseServer, DatabaseOptions)> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"].map(PathBuf::from);
    let (install, server) =
        (program("mariadb-install-db", &folders)?, program("mariadbd", &folders)?);
    let folder = folder();
    let data = folder.path().join("data");
    let made = command(&install)
        .args(["--no-defaults", "--auth-root-authentication-method=normal"])
        .arg(format!("--datadir={}", data.display()))
        .status();
    assert!(made.expect("it runs").success(), "mariadb-install-db");
    let socket = folder.path().join("socket");
    let child = command(&server)
        .args(["--no-defaults", "--skip-networking", "--innodb-flush-log-at-trx-commit=0"])
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", socket.display()))
        .arg(format!("--pid-file={}", folder.path().join("pid").display()))
        .spawn()
        .expect("it starts");
    let client = ["mariadb", "--no-defaults", "--user=root", "--default-character-set=utf8mb4"];
    let mut client = client.map(str::to_owned).to_vec();
    client.extend([format!("--socket={}", socket.display()), "--database".to_owned()]);
    let address = format!("mysql://root@localhost/test?socket={}", socket.display());
    let options = DatabaseOptions::new(address);
    let server = DatabaseServer { child, _folder: folder, client };
    reached(&options).await;
    Some((server, options))
}
