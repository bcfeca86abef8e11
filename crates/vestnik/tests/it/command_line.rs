//! The commands as a user types them: from nothing to a delivered event.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use crate::server::{TestServer, launch, wait_for};
use crate::sign::{KEY, Pair};

fn vestnik(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vestnik")).args(arguments).output().expect("it is built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn an_event_published_by_a_command_is_printed_by_another() {
    let server = TestServer::start();
    let channels = Pair::new(1).signed();
    let (listen, publish) = (
        format!("ws://{}/bitrix/subws/", server.address()),
        format!("http://{}/bitrix/pub/", server.address()),
    );
    let event = r#"{"module_id":"im","command":"hello","params":{"n":1}}"#;
    // Kept for a minute, so that it does not matter which of the two is first.
    let mut listener = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["listen", &channels, "--url", &listen, "--count", "1", "--after"])
        .arg("00000000000000000000000000")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is built");
    let published = vestnik(&["publish", &channels, event, "--url", &publish, "--expiry", "60"]);
    assert!(published.status.success(), "{}", stderr(&published));
    let mut line = String::new();
    BufReader::new(listener.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let printed: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(printed["text"]["command"], "hello");
    assert!(wait_for(&mut listener).success());
}

#[test]
fn a_first_start_without_configuration_prints_what_to_enter_on_the_site() {
    let data = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
    let (mut child, address, _) = launch(command);
    let address = address.expect("it starts");
    let key = std::fs::read_to_string(data.path().join("signature.key")).expect("a key was made");
    assert!(key.trim().len() >= 32);
    let key_file = data.path().join("signature.key");
    let signed =
        vestnik(&["sign", "--random", "--json", "--key-file", key_file.to_str().expect("text")]);
    assert!(signed.status.success(), "{}", stderr(&signed));
    let answer =
        crate::raw::get(address, "/bitrix/pub/?CHANNEL_ID=00112233445566778899aabbccddeeff");
    assert_eq!(answer.text(), r#"{"infos":[]}"#);
    child.kill().expect("it runs");
    wait_for(&mut child);
}

#[test]
fn a_port_in_use_is_said_with_a_hint_and_exit_code_1() {
    let server = TestServer::start();
    let data = tempfile::tempdir().expect("a folder");
    let address = server.address().to_string();
    let data = data.path().to_str().expect("text");
    let failed = vestnik(&["serve", "--listen", &address, "--data-dir", data]);
    assert_eq!(failed.status.code(), Some(1));
    let said = stderr(&failed);
    assert!(said.contains(&format!("{address} is in use")) && said.contains("hint:"), "{said}");
}

#[test]
fn two_servers_cannot_share_a_data_folder() {
    let server = TestServer::start();
    let data = server.data().to_str().expect("text");
    let failed = vestnik(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("another process"), "{}", stderr(&failed));
}

#[test]
fn a_data_folder_that_cannot_be_made_is_said_with_a_hint_and_exit_code_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").expect("a file");
    let inside = file.join("data");
    let inside = inside.to_str().expect("text");
    let failed = vestnik(&["serve", "--listen", "127.0.0.1:0", "--data-dir", inside]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("hint:"), "{}", stderr(&failed));
}

#[test]
fn commands_against_nobody_fail_with_a_hint_and_exit_code_1() {
    // A port that was free a moment ago.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let channels = Pair::new(1).signed();
    for arguments in [
        [
            "publish",
            &channels,
            r#"{"module_id":"im","command":"x"}"#,
            "--url",
            &format!("http://{port}/bitrix/pub/"),
        ],
        ["listen", &channels, "--count=1", "--url", &format!("ws://{port}/bitrix/subws/")],
    ] {
        let failed = vestnik(&arguments);
        assert_eq!(failed.status.code(), Some(1));
        assert!(stderr(&failed).contains("hint: is the server running?"), "{}", stderr(&failed));
    }
}

#[test]
fn sigterm_ends_the_server_in_order() {
    let server = TestServer::start();
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("stopped"), "{log}");
    assert!(!log.contains(KEY), "keys stay out of the log");
}

#[test]
fn help_names_every_command() {
    let help = vestnik(&["--help"]);
    assert!(help.status.success());
    for command in ["serve", "publish", "listen", "sign", "keygen", "check"] {
        assert!(stdout(&help).contains(command), "{command}");
        assert!(vestnik(&[command, "--help"]).status.success(), "{command}");
    }
}

#[test]
fn a_publish_that_reaches_nobody_is_no_success_for_the_command() {
    let server = TestServer::start();
    let url = format!("http://{}/bitrix/pub/", server.address());
    let pair = Pair::new(1);
    let forged = format!("{}:{}.{}", pair.private, pair.public, "0".repeat(40));
    let event = r#"{"module_id":"im","command":"x"}"#;
    let failed = vestnik(&["publish", &forged, event, "--url", &url]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("wrong signature of a channel pair"), "{}", stderr(&failed));
}

#[test]
fn slips_in_channels_and_addresses_are_the_users_to_fix() {
    for (arguments, said) in [
        (&["listen", "a b"][..], "malformed item"),
        (&["publish", "abc", r#"{"module_id":"im"}"#], "malformed item"),
        (&["publish", "abc", "no json"], "no JSON"),
        (
            &["listen", &Pair::new(1).signed(), "--url", "ws://no.such.host.invalid/bitrix/subws/"],
            "cannot find no.such.host.invalid",
        ),
    ] {
        let failed = vestnik(arguments);
        assert_eq!(failed.status.code(), Some(1), "{arguments:?}");
        let told = stderr(&failed);
        assert!(told.contains(said) && told.contains("hint:"), "{told}");
    }
}
