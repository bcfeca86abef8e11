//! The module over HTTP: where it is, and what is said while it is not.

use serde_json::{Value, json};

use crate::observe::until;
use crate::raw::{self, Answer};
use crate::server::TestServer;
use crate::sign::sign;

/// Calls an operation of the module with a JSON object, signed with the key of the server.
pub(crate) fn call(server: &TestServer, operation: &str, input: &Value) -> Answer {
    let body = input.to_string();
    let target = format!("/module/{operation}?signature={}", sign(&body));
    raw::post(server.address(), &target, &["Content-Type: application/json"], body.as_bytes())
}

/// Calls an operation with a secret or a token.
pub(crate) fn call_with(
    server: &TestServer,
    bearer: &str,
    operation: &str,
    input: &Value,
) -> Answer {
    let bearer = format!("Authorization: Bearer {bearer}");
    let target = format!("/module/{operation}");
    let body = input.to_string();
    let headers: &[&str] = &["Content-Type: application/json", &bearer];
    raw::post(server.address(), &target, headers, body.as_bytes())
}

/// The result of a call that must succeed.
pub(crate) fn result(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?} {}", answer.text());
    let mut body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    body["result"].take()
}

/// Status and code of a call that must fail.
pub(crate) fn error(answer: &Answer) -> (u16, String) {
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert!(body["error_description"].is_string(), "{body}");
    (answer.status, body["error"].as_str().expect("a code").to_owned())
}

/// Runs a command on the database of a server; what it printed, without the line's end.
pub(crate) fn command(server: &TestServer, arguments: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(arguments)
        .arg("--data-dir")
        .arg(server.data())
        .output()
        .expect("it is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

/// A site that has not chosen a queue server yet, as an administrator of Bitrix first sees the page; here a
/// new tenant begins with the one in the same process.
pub(crate) fn without_queue_server(server: &TestServer) {
    ready(server);
    let secret = command(server, &["secret", "add", "test", "--admin"]);
    let answer = call_with(server, &secret, "pull.options.set", &json!({"nginx": "N"}));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Waits until the module has its database.
pub(crate) fn ready(server: &TestServer) {
    until("the module is there", || call(server, "no.such.operation", &json!({})).status != 503);
}

#[test]
fn an_unknown_operation_is_named_as_such() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let answer = call(&server, "no.such.operation", &json!({}));
    assert_eq!(answer.status, 404);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"], "ERROR_METHOD_NOT_FOUND");
    assert!(server.data().join("module.db").exists());
}

#[test]
fn switched_off_the_module_is_not_found_and_has_no_database() {
    let server = TestServer::with_module(&["module.enabled=false"]);
    for target in ["/module/pull.config.get", "/admin/"] {
        assert_eq!(raw::get(server.address(), target).status, 404, "{target}");
    }
    assert!(!server.data().join("module.db").exists());
}

#[test]
fn without_a_database_the_module_says_so_and_the_queue_server_works() {
    // Nobody listens at this port: it belongs to nobody below 1024 here.
    let server =
        TestServer::with_module(&["module.database=postgres://user:secret@127.0.0.1:1/none"]);
    let answer = call(&server, "pull.config.get", &json!({}));
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("Retry-After"), Some("5"));
    assert!(answer.text().contains("SERVICE_UNAVAILABLE"), "{answer:?}");
    let channel = "0".repeat(32);
    assert_eq!(raw::publish(server.address(), &channel, 60, "{}").status, 200);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    let is_said = ["the module is not available", "before the database of the module was reached"];
    assert!(is_said.iter().any(|it| log.contains(it)), "{log}");
    assert!(!log.contains("secret"), "{log}");
}
