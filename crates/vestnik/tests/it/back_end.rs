//! Clients of back ends in their own languages, against the real service: their tests, their examples, and what an
//! example says arrives.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::clients::{self, slow};
use crate::module::{self, ready};
use crate::raw;
use crate::server::TestServer;
use crate::sign::{KEY, Pair};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("it is there")
}

/// A server, and a secret of a back end for it.
pub(crate) fn server_and_secret(settings: &[&str]) -> (TestServer, String) {
    let server = TestServer::with_module(settings);
    ready(&server);
    let mut arguments = vec!["secret", "add", "test"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let secret = module::command(&server, &arguments);
    (server, secret)
}

/// Runs a program that must succeed; what it printed.
fn run(server: &TestServer, secret: &str, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root().join("clients"))
        .env("VESTNIK_URL", format!("http://{}", server.address()))
        .env("VESTNIK_SECRET", secret)
        .env("VESTNIK_KEY", KEY)
        .output()
        .unwrap_or_else(|error| panic!("{program} is not installed, run ./test: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {out}{errors}");
    out
}

/// Reads what a channel has kept, and looks for an event in it.
fn assert_kept(server: &TestServer, channel: &str, wanted: &str) {
    let request = format!(
        "GET /bitrix/sub/?CHANNEL_ID={channel}&mid=00000000000000000000000000 HTTP/1.1\r\nHost: test\r\n\r\n"
    );
    let answer = raw::exchange(server.address(), request);
    assert!(answer.text().contains(wanted), "{wanted}: {}", answer.text());
}

#[test]
fn the_php_client_does_what_it_says_and_its_example_publishes() {
    if !slow() {
        return;
    }
    let (server, secret) = server_and_secret(&[]);
    for folder in ["php", "php/src", "php/tests", "php/examples"] {
        for entry in std::fs::read_dir(root().join("clients").join(folder)).expect("it is there") {
            let path = entry.expect("it is read").path();
            if path.extension().is_some_and(|end| end == "php") {
                run(&server, &secret, "php", &["-l", path.to_str().expect("text")]);
            }
        }
    }
    let report = run(&server, &secret, "php", &["php/tests/run.php"]);
    assert!(report.ends_with("tests passed\n"), "{report}");
    let printed = run(&server, &secret, "php", &["php/examples/publish.php"]);
    assert!(printed.contains("\"version\":4"), "{printed}");
    assert_kept(&server, &channel_of_7(&server), "\"value\":3");
}

#[test]
fn the_typescript_client_does_what_it_says_and_its_example_publishes() {
    if !slow() {
        return;
    }
    let (server, secret) = server_and_secret(&[]);
    let compiler = clients::folder().join("node_modules/.bin/tsc");
    run(&server, &secret, compiler.to_str().expect("text"), &["-p", "typescript"]);
    run(&server, &secret, "node", &["--test", "typescript/tests/"]);
    let printed = run(&server, &secret, "node", &["typescript/examples/publish.mjs"]);
    assert!(printed.contains("\"version\":4"), "{printed}");
    assert_kept(&server, &channel_of_7(&server), "\"value\":3");
}

/// The signed channel of the user that the examples publish to.
fn channel_of_7(server: &TestServer) -> String {
    let input = serde_json::json!({"USER_ID": 7});
    let channel = module::result(&module::call(server, "pull.channel.get", &input));
    channel["signed_id"].as_str().expect("text").to_owned()
}

#[test]
fn the_example_of_the_rust_publisher_publishes() {
    // The whole workspace is built with its examples, a single crate is not.
    let program = Path::new(env!("CARGO_BIN_EXE_vestnik"));
    let program = program.parent().expect("a folder").join("examples/publish");
    if !program.exists() {
        assert!(!slow(), "{} is not built", program.display());
        return;
    }
    let server = TestServer::with_module(&[]);
    let pair = Pair::new(1);
    let status = Command::new(program)
        .arg(format!("http://{}/bitrix/pub/", server.address()))
        .arg(pair.private.to_string())
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("it runs").success());
    assert_kept(&server, &pair.signed(), "hello");
}
