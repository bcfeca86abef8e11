//! What systemd does with a service: hands sockets over, hears of states, wants signs of life.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use crate::raw;
use crate::server::{launch_all, wait_for};
use crate::sign::KEY;
use crate::tls;

fn serve(data: &std::path::Path) -> String {
    format!(
        "{} serve --data-dir {} --set security.key={KEY}",
        env!("CARGO_BIN_EXE_vestnik"),
        data.display()
    )
}

/// A shell that becomes the program, with its own standard input as the socket that is handed over.
fn activated(socket: &TcpListener, name: &str, serve: &str) -> Command {
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}; export LISTEN_PID LISTEN_FDS LISTEN_FDNAMES; \
         exec {serve} 3<&0 0</dev/null"
    );
    let mut command = Command::new("sh");
    let socket: OwnedFd = socket.try_clone().expect("a socket").into();
    command.arg("-c").arg(script).stdin(Stdio::from(socket)).stdout(Stdio::null());
    command.stderr(Stdio::null());
    command
}

#[test]
fn a_socket_that_was_handed_over_is_served_and_stays_open_over_a_restart() {
    let data = tempfile::tempdir().expect("a folder");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("a port");
    for _ in 0..2 {
        // Nobody serves, but nobody is refused either.
        let mut early = raw::Connection::open(address);
        early.send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut child =
            activated(&socket, "vestnik.socket", &serve(data.path())).spawn().expect("sh");
        assert_eq!(early.answer().text(), "ok\n");
        let pid = child.id().to_string();
        let told = Command::new("kill").args(["-s", "TERM", &pid]).status().expect("kill");
        assert!(told.success() && wait_for(&mut child).success());
    }
}

#[test]
fn the_name_of_a_socket_says_that_it_is_encrypted() {
    let data = tempfile::tempdir().expect("a folder");
    let certificate = tls::certificate(data.path(), "push", &["push.test"]);
    let path = |kind: &str| data.path().join(format!("push.{kind}")).display().to_string();
    let serve =
        format!("{} --set tls.certificates={}:{}", serve(data.path()), path("crt"), path("key"));
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut child = activated(&socket, "https", &serve).spawn().expect("sh");
    let address = socket.local_addr().expect("a port");
    let mut connection =
        tls::connect(&tls::client(&[&certificate]), address, "push.test").expect("a handshake");
    assert!(tls::get(&mut connection, "/healthz").ends_with("ok\n"));
    child.kill().expect("it runs");
    wait_for(&mut child);
}

#[test]
fn states_and_signs_of_life_are_told() {
    let data = tempfile::tempdir().expect("a folder");
    let place = data.path().join("notify");
    let inbox = UnixDatagram::bind(&place).expect("a socket");
    inbox.set_read_timeout(Some(raw::WAIT)).expect("a socket");
    let next = || {
        let mut buffer = [0; 1024];
        let length = inbox.recv(&mut buffer).expect("a state");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let next_state = || std::iter::from_fn(|| Some(next())).find(|it| !it.contains("WATCHDOG=1"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
    command.args(["--set", &format!("security.key={KEY}")]);
    command.env("NOTIFY_SOCKET", &place).env("WATCHDOG_USEC", "200000");
    let (mut child, addresses, _log) = launch_all(command);
    assert_eq!(addresses.len(), 1);
    assert_eq!(next_state().as_deref().map(str::trim), Some("READY=1"));
    for _ in 0..2 {
        assert_eq!(next().trim(), "WATCHDOG=1");
    }
    let signal = |name: &str| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill").success());
    };
    signal("HUP");
    let reloading = next_state().expect("a state");
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next_state().as_deref().map(str::trim), Some("READY=1"));
    signal("TERM");
    assert_eq!(next_state().as_deref().map(str::trim), Some("STOPPING=1"));
    assert!(wait_for(&mut child).success());
}
