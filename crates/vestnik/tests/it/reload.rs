//! A configuration that changes while connections are open (design.md §3.6).

use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use crate::raw;
use crate::server::{TestServer, launch, launch_all, wait_for};
use crate::sign::{KEY, Pair};
use crate::tls;
use crate::traffic::until;
use crate::websocket::Subscriber;

const OTHER_KEY: &str = "another key, which is long enough for everybody";

fn write(folder: &std::path::Path, text: &str) {
    let beside = folder.join("vestnik.toml.new");
    std::fs::write(&beside, text).expect("a folder");
    std::fs::rename(beside, folder.join("vestnik.toml")).expect("a folder");
}

fn server_with(text: &str, settings: &[&str]) -> TestServer {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), text);
    TestServer::with_folder(folder, settings)
}

fn stat(server: &TestServer) -> u16 {
    raw::get(server.address(), "/server-stat/").status
}

#[test]
fn a_signal_puts_keys_trust_and_limits_in_force_without_closing_a_connection() {
    let server = server_with(&format!("[security]\nkey = \"{KEY}\"\n"), &["server.watch=0s"]);
    let pair = Pair::new(1);
    let query = format!("CHANNEL_ID={}", pair.signed());
    let mut subscriber = Subscriber::open(server.address(), &query);
    let mut kept = raw::Connection::open(server.address());
    kept.send("GET /server-stat/ HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(kept.answer().status, 200);
    let keys = format!("[security]\nkeys = [{{ key = \"{OTHER_KEY}\" }}]\n");
    write(
        server.data(),
        &format!(
            "{keys}[trusted]\npath_secret = \"0123456789abcdef-X\"\nallow = [\"10.0.0.1\"]\n[limits]\nmax_payload = 5\n"
        ),
    );
    server.signal("HUP");
    until("the statistics are closed", || stat(&server) == 403);
    kept.send("GET /server-stat/ HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(kept.answer().status, 403, "an open connection obeys too");
    let Err(refused) = Subscriber::try_open(server.address(), &query) else {
        panic!("the old key")
    };
    assert_eq!(refused.status, 400);
    let target = format!("/bitrix/pub/0123456789abcdef-X/?CHANNEL_ID={}", pair.private);
    assert_eq!(raw::post(server.address(), &target, &[], b"too long").status, 413);
    assert_eq!(raw::post(server.address(), &target, &[], b"short").status, 200);
    assert_eq!(subscriber.next_text(), "short", "who was there stays");
}

#[test]
fn a_broken_configuration_changes_nothing_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!("[security]\nkey = \"{KEY}\"\n");
    write(folder.path(), &text);
    // The states that systemd is told say when a reload is over.
    let place = folder.path().join("notify");
    let inbox = UnixDatagram::bind(&place).expect("a socket");
    inbox.set_read_timeout(Some(raw::WAIT)).expect("a socket");
    let until_ready = || {
        let mut buffer = [0; 1024];
        while inbox.recv(&mut buffer).expect("a state") != "READY=1\n".len() {}
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--set", "server.watch=0s", "--config"]);
    command.arg(folder.path().join("vestnik.toml")).arg("--data-dir").arg(folder.path());
    command.env("NOTIFY_SOCKET", &place);
    let (mut child, address, log) = launch(command);
    let address = address.expect("it starts");
    until_ready();
    let pair = Pair::new(1);
    let mut subscriber = Subscriber::open(address, &format!("CHANNEL_ID={}", pair.signed()));
    let signal = |name: &str| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill").success());
    };
    let reload = |text: &str| {
        write(folder.path(), text);
        signal("HUP");
        until_ready();
    };
    reload(&format!("{text}[trusted]\nallow = []\n[limits]\nmax_paylod = 5\n"));
    assert_eq!(raw::get(address, "/server-stat/").status, 200, "nothing of it is in force");
    assert_eq!(raw::publish(address, &pair.private.to_string(), 0, "news").status, 200);
    assert_eq!(subscriber.next_text(), "news");
    reload(&format!("{text}[server]\nshards = 1\n[trusted]\nallow = []\n"));
    assert_eq!(raw::get(address, "/server-stat/").status, 403, "the correction is");
    drop(subscriber);
    signal("TERM");
    assert!(wait_for(&mut child).success());
    let log = log.join().expect("the log is read");
    for part in [
        "configuration not reloaded, the old one stays in force",
        "limits.max_paylod (line 6): unknown key; did you mean `max_payload`?",
        "configuration reloaded",
        "count from the next start",
        "server.shards",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains(KEY), "{log}");
}

#[test]
fn a_mistake_is_told_with_its_place_and_a_correction_is_taken_up() {
    let text = format!("[security]\nkey = \"{KEY}\"\n");
    let server = server_with(&text, &["server.watch=50ms"]);
    write(server.data(), &format!("{text}[trusted]\nallow = 5\n"));
    let key_file = server.data().join("signature.key");
    // Two changes that settle, one after the other; the second needs a file that comes later.
    write(
        server.data(),
        "[trusted]\nallow = [\"10.0.0.1\"]\n[security]\nkey_file = \"KEY\"\n"
            .replace("KEY", &key_file.display().to_string())
            .as_str(),
    );
    assert_eq!(stat(&server), 200);
    std::fs::write(&key_file, KEY).expect("a folder");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).expect("a file");
    until("the correction is in force", || stat(&server) == 403);
}

#[test]
fn a_renewed_certificate_is_shown_to_whoever_comes_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = tls::certificate(folder.path(), "push", &["push.test"]);
    let path = |kind: &str| folder.path().join(format!("push.{kind}")).display().to_string();
    let mut text =
        format!("[security]\nkey = \"{KEY}\"\n[server]\nlisten_tls = [\"127.0.0.1:0\"]\n");
    let (chain, key) = (path("crt"), path("key"));
    write!(text, "[[tls.certificates]]\ncertificate = \"{chain}\"\nkey = \"{key}\"\n")
        .expect("text");
    write(folder.path(), &text);
    let server = TestServer::with_folder(folder, &["server.watch=50ms"]);
    let pair = Pair::new(1);
    let connect = |trusted| {
        // A client of its own each time: a resumed session shows no certificate.
        tls::connect(&tls::client(&[trusted]), server.secure(), "push.test")
    };
    let mut subscriber = tls::subscribe(
        connect(&old).expect("the old one"),
        &format!("CHANNEL_ID={}", pair.signed()),
    );
    let mut kept = connect(&old).expect("the old one");
    assert!(tls::get(&mut kept, "/healthz").ends_with("ok\n"));
    // A certificate whose key is not there yet does no harm.
    let key_before = std::fs::read(&key).expect("it is there");
    let _ = tls::certificate(server.data(), "push", &["push.test"]);
    std::fs::write(&key, &key_before).expect("a folder");
    for _ in 0..3 {
        assert!(connect(&old).is_ok());
    }
    let new = tls::certificate(server.data(), "push", &["push.test"]);
    until("the new certificate is shown", || connect(&new).is_ok());
    assert!(connect(&old).is_err());
    assert!(tls::get(&mut kept, "/healthz").ends_with("ok\n"));
    assert_eq!(raw::publish(server.address(), &pair.private.to_string(), 0, "news").status, 200);
    assert_eq!(tls::next_text(&mut subscriber), "news", "who was there stays");
}

#[test]
fn listeners_that_change_places_keep_their_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] =
        ["one", "two"].map(|name| tls::certificate(folder.path(), name, &["push.test"]));
    let listener = |name: &str, host: &str| {
        let path = |kind: &str| folder.path().join(format!("{name}.{kind}"));
        serde_json::json!({
            "name": name, "hostname": host, "port": 0,
            "ssl": { "cert": path("crt"), "key": path("key") },
            "routes": { "sub": "/bitrix/subws/", "pub": "/bitrix/pub/" },
        })
    };
    let file = folder.path().join("push-server.json");
    let write = |servers: &[serde_json::Value], storage: serde_json::Value| {
        let text = serde_json::json!({
            "servers": servers, "security": { "key": KEY }, "storage": storage,
        });
        std::fs::write(&file, text.to_string()).expect("a folder");
    };
    let (first, second) = (listener("one", "127.0.0.1"), listener("two", "127.0.0.2"));
    let memory = serde_json::json!({ "type": "memory" });
    write(&[first.clone(), second.clone()], memory.clone());
    let place = folder.path().join("notify");
    let inbox = UnixDatagram::bind(&place).expect("a socket");
    inbox.set_read_timeout(Some(raw::WAIT)).expect("a socket");
    let until_ready = || {
        let mut buffer = [0; 1024];
        while inbox.recv(&mut buffer).expect("a state") != "READY=1\n".len() {}
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
    command.args(["serve", "--set", "server.watch=0s", "--set", "module.enabled=false"]);
    command.arg("--config").arg(&file).arg("--data-dir").arg(folder.path().join("data"));
    command.env("NOTIFY_SOCKET", &place);
    let (mut child, addresses, _log) = launch_all(command);
    until_ready();
    let at = |host: &str| {
        let address = addresses.iter().find(|(_, address)| address.ip().to_string() == host);
        address.expect("it listens there").1
    };
    let shows = |host: &str, certificate| {
        tls::connect(&tls::client(&[certificate]), at(host), "push.test").is_ok()
    };
    let are_right = || {
        shows("127.0.0.1", &one)
            && shows("127.0.0.2", &two)
            && !shows("127.0.0.1", &two)
            && !shows("127.0.0.2", &one)
    };
    assert!(are_right());
    let hang_up = || {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", "HUP", &pid]).status().expect("kill").success());
        until_ready();
    };
    write(&[second.clone(), first.clone()], memory.clone());
    hang_up();
    assert!(are_right(), "in another order");
    write(&[second], memory);
    hang_up();
    assert!(are_right(), "one is not there any more");
    child.kill().expect("it runs");
    wait_for(&mut child);
}

#[test]
fn the_level_of_the_log_changes_while_the_server_runs() {
    let text = format!("[security]\nkey = \"{KEY}\"\n");
    let server = server_with(&format!("{text}[log]\nlevel = \"error\"\n"), &["server.watch=0s"]);
    let get = |target: &str| raw::get(server.address(), target).status;
    assert_eq!(get("/bitrix/sub/?CHANNEL_ID=quiet"), 400);
    write(server.data(), &format!("{text}[log]\nlevel = \"debug\"\n[trusted]\nallow = []\n"));
    server.signal("HUP");
    until("it is in force", || stat(&server) == 403);
    assert_eq!(get("/bitrix/sub/?CHANNEL_ID=loud"), 400);
    server.signal("TERM");
    let (_, log) = server.wait();
    assert_eq!(log.matches("subscription refused").count(), 1, "{log}");
}
