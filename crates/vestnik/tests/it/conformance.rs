//! `vestnik conformance` against a real server, and against one that keeps no promise.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use crate::server::TestServer;
use crate::sign::KEY;

fn conformance(target: SocketAddr, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["conformance", "--target", &format!("http://{target}")])
        .args(arguments)
        .output()
        .expect("it is built")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Reads XML as far as JUnit files go and returns the names of its elements. Fails where it is not
/// well formed.
fn elements(xml: &str) -> Vec<String> {
    let (mut names, mut open) = (Vec::new(), Vec::new());
    let mut rest = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").expect("a head");
    while let Some(start) = rest.find('<') {
        assert_text(&rest[..start]);
        let (tag, after) = rest[start + 1..].split_once('>').expect("a tag ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "elements are nested");
            continue;
        }
        let inside = tag.strip_suffix('/').unwrap_or(tag);
        let (name, attributes) = inside.split_once(' ').unwrap_or((inside, ""));
        let quoted: Vec<&str> = attributes.split('"').collect();
        assert_eq!(quoted.len() % 2, 1, "values are quoted: {tag}");
        for value in quoted.iter().skip(1).step_by(2) {
            assert_text(value);
        }
        names.push(name.to_owned());
        if !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert_eq!((open, rest.trim()), (Vec::new(), ""), "every element ends");
    names
}

/// Text holds no markup, and its ampersands begin entities.
fn assert_text(text: &str) {
    assert!(!text.contains(['<', '>']), "{text}");
    for part in text.split('&').skip(1) {
        let entity = part.split(';').next().expect("a first part");
        assert!(["amp", "lt", "gt", "quot"].contains(&entity), "&{part}");
    }
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn vestnik_keeps_every_promise_of_the_suite() {
    let server = TestServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    let junit = folder.path().join("results.xml");
    let junit_text = junit.to_str().expect("text");
    // Twice: a server with a history is asked as well as a fresh one.
    for _ in 0..2 {
        let played =
            conformance(server.address(), &["--key", KEY, "--junit", junit_text, "--patience=30s"]);
        let report = text(&played.stdout);
        assert!(played.status.success(), "{report}{}", text(&played.stderr));
        assert!(report.contains(" 0 failed, "), "{report}");
        assert!(report.matches("  pass  ").count() >= 60, "{report}");
    }
    let xml = std::fs::read_to_string(&junit).expect("it was written");
    let names = elements(&xml);
    let of = |name: &str| names.iter().filter(|found| *found == name).count();
    assert_eq!(of("testsuite"), 1);
    assert!(of("testcase") >= 60);
    assert_eq!(of("failure"), 0);
    assert!(of("skipped") > 0, "what waits for a minute is not played unasked");
}

/// A server that answers every request with an empty 200.
fn yes_sayer() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                // A request that is cut has no answer, and a client that has left needs none.
                while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_server_that_says_yes_to_everything_fails_item_by_item() {
    let target = yes_sayer();
    let folder = tempfile::tempdir().expect("a folder");
    let junit = folder.path().join("results.xml");
    let junit_text = junit.to_str().expect("text");
    let played = conformance(
        target,
        &["--key", KEY, "--junit", junit_text, "--patience=200ms", "--filter=Q-00"],
    );
    assert_eq!(played.status.code(), Some(1));
    let report = text(&played.stdout);
    assert!(report.contains("Q-003                "), "{report}");
    for part in ["FAIL", "expected status 400", "received status 200", "channel_ids.fixture:"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(report.contains(" 0 passed, "), "{report}");
    let said = text(&played.stderr);
    assert!(said.contains("are not kept by") && said.contains("hint:"), "{said}");
    let names = elements(&std::fs::read_to_string(&junit).expect("it was written"));
    assert!(names.iter().filter(|name| *name == "failure").count() >= 9);
}

#[test]
fn a_key_that_does_not_fit_is_said_once_instead_of_a_hundred_failures() {
    let server = TestServer::start();
    let wrong = conformance(server.address(), &["--key", "another-key-another-key-another-key"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("the key does not fit"), "{}", text(&wrong.stderr));
    assert_eq!(text(&wrong.stdout), "");
    let algorithm = conformance(server.address(), &["--key", KEY, "--algorithm=sha256"]);
    assert!(text(&algorithm.stderr).contains("the key does not fit"));
}

#[test]
fn an_address_that_may_not_publish_is_said_once() {
    let server = TestServer::with(&["trusted.allow=192.0.2.1"]);
    let refused = conformance(server.address(), &["--key", KEY]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("trusted.allow"), "{}", text(&refused.stderr));
}

#[test]
fn nobody_at_the_address_is_said_with_a_hint() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let failed = conformance(port, &["--key", KEY]);
    assert_eq!(failed.status.code(), Some(1));
    let said = text(&failed.stderr);
    assert!(said.contains("cannot connect to") && said.contains("hint:"), "{said}");
}

#[test]
fn the_list_has_every_item_with_its_origin() {
    let listed = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["conformance", "--list"])
        .output()
        .expect("it is built");
    assert!(listed.status.success());
    let list = text(&listed.stdout);
    let items: std::collections::BTreeSet<&str> =
        list.lines().filter(|line| line.starts_with("Q-")).map(|line| &line[..5]).collect();
    assert!(items.len() >= 100, "{} items", items.len());
    assert!(list.contains("; observed: push server 2.0; queue-server.md §"), "{list}");
    assert!(list.contains("; decided: "), "{list}");
}

#[test]
fn fixtures_of_a_folder_are_played_and_slips_in_them_are_told() {
    let server = TestServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("text");
    let arguments = ["--key", KEY, "--fixtures", path];
    let none = conformance(server.address(), &arguments);
    assert!(text(&none.stderr).contains("there is no such fixture"), "{}", text(&none.stderr));
    let file = folder.path().join("own.fixture");
    let story = "# Q-078 — nobody — observed: here\n> GET /bitrix/pub/?CHANNEL_ID={priv1} HTTP/1.1\n\
                 < HTTP/1.1 200 OK\n<\n< json {\"infos\": [ ]}\n";
    std::fs::write(&file, story).expect("it is written");
    let played = conformance(server.address(), &arguments);
    assert!(played.status.success(), "{}", text(&played.stdout));
    std::fs::write(&file, format!("{story}\n> dance\n")).expect("it is written");
    let slip = conformance(server.address(), &arguments);
    assert_eq!(slip.status.code(), Some(1));
    assert!(text(&slip.stderr).contains("own.fixture:7: `dance`"), "{}", text(&slip.stderr));
}
