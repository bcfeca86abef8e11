//! The module over HTTP: where it is, and what is said while it is not.

use serde_json::{Value, json};

use crate::observe::until;
use crate::raw::{self, Answer};
use crate::server::TestServer;

/// Calls an operation of the module with a JSON object.
pub(crate) fn call(server: &TestServer, operation: &str, input: &Value) -> Answer {
    let headers = &["Content-Type: application/json"];
    let target = format!("/module/{operation}");
    raw::post(server.address(), &target, headers, input.to_string().as_bytes())
}

/// Waits until the module has its database.
pub(crate) fn ready(server: &TestServer) {
    until("the module is there", || call(server, "no.such.operation", &json!({})).status != 503);
}

#[test]
fn an_unknown_operation_is_named_as_such() {
    let server = TestServer::start();
    ready(&server);
    let answer = call(&server, "no.such.operation", &json!({}));
    assert_eq!(answer.status, 404);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"], "ERROR_METHOD_NOT_FOUND");
    assert!(server.data().join("module.db").exists());
}

#[test]
fn switched_off_the_module_is_not_found_and_has_no_database() {
    let server = TestServer::with(&["module.enabled=false"]);
    for target in ["/module/pull.config.get", "/admin/"] {
        assert_eq!(raw::get(server.address(), target).status, 404, "{target}");
    }
    assert!(!server.data().join("module.db").exists());
}

#[test]
fn without_a_database_the_module_says_so_and_the_queue_server_works() {
    // Nobody listens at this port: it belongs to nobody below 1024 here.
    let server = TestServer::with(&["module.database=postgres://user:secret@127.0.0.1:1/none"]);
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
