//! Notifications for mobile devices on their way to a gateway: the request, a gateway that is away over a
//! crash, one that refuses.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::mock::Mock;
use crate::module::{call, call_with, command, ready, result};
use crate::observe::until;
use crate::server::TestServer;

/// md5("L").
const KEY: &str = "d20caec3b48a1eef164cb4ca81ba2587";
const TAKEN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<response status=\"accepted\"/>\n";

/// A server whose site has a gateway there, and a user with a device.
fn pushing(gateway: &str) -> (TestServer, String) {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let admin = command(&server, &["secret", "add", "console", "--admin"]);
    let options = json!({"push": "Y", "push_service_url": gateway, "licence_key": "L",
        "server_name": "portal.example.com"});
    assert_eq!(result(&call_with(&server, &admin, "pull.options.set", &options)), true);
    let device = json!({"USER_ID": 1, "DEVICE_ID": "d", "DEVICE_TYPE": "APPLE",
        "DEVICE_TOKEN": "ab".repeat(32)});
    result(&call(&server, "pull.push.token.add", &device));
    (server, admin)
}

fn push(server: &TestServer, text: &str) {
    let input = json!({"USERS": [1], "MODULE_ID": "im", "PUSH": {"message": text}});
    assert_eq!(result(&call(server, "pull.push.add", &input)), true);
}

fn status(server: &TestServer) -> Value {
    result(&call(server, "pull.module.status", &json!({})))["push"].take()
}

#[test]
fn m_090_the_gateway_gets_the_request_of_the_php_module() {
    let mock = Mock::start(|_, _| TAKEN.to_owned());
    let (server, _) = pushing(&format!("http://{}/send/", mock.address));
    push(&server, "Hi");
    until("the gateway has it", || !mock.seen().is_empty());
    let (target, body) = mock.seen().remove(0);
    assert_eq!(target, format!("/send/?key={KEY}"));
    // A frame of Apple begins so.
    let start =
        "Action=SendMessage&MessageBody=%3B2%3Btkey%3DBitrix24%3Bh%3Dportal.example.com%3BAQAA";
    assert!(body.starts_with(start), "{body}");
    until("nothing waits", || status(&server)["waiting"] == 0);
    assert_eq!(mock.seen().len(), 1, "once");
}

#[test]
fn notifications_wait_while_the_gateway_is_away_also_over_a_crash_and_are_sent_once() {
    // Nobody else gets the port while we hold it; nobody accepts at it after.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let (server, _) = pushing(&format!("http://{address}/send/"));
    push(&server, "one");
    push(&server, "two");
    assert_eq!(status(&server), json!({"enabled": true, "waiting": 2}));
    let server = server.crash_and_restart();
    ready(&server);
    let mock = Mock::at(TcpListener::bind(address).unwrap(), |_, _| TAKEN.to_owned());
    until("both are there", || mock.seen().len() == 2);
    until("nothing waits", || status(&server)["waiting"] == 0);
    assert_eq!(mock.seen().len(), 2);
    server.signal("TERM");
    let (_, log) = server.wait();
    assert!(!log.contains(KEY), "the key of the site is no word for logs: {log}");
}

#[test]
fn a_gateway_that_refuses_is_told_to_administrators_and_asked_again() {
    let mock = Mock::answering(|_, _| ("403 Forbidden", "denied".to_owned()));
    let (server, admin) = pushing(&format!("http://{}/send/", mock.address));
    push(&server, "Hi");
    let shown = || {
        let status = call_with(&server, &admin, "pull.module.status", &json!({}));
        result(&status)["notifications"].to_string()
    };
    until("an administrator is told", || shown().contains("PUSH_ERROR_SEND"));
    assert_eq!(status(&server)["waiting"], 1, "the key may be set right");
    until("it is asked again", || mock.seen().len() > 1);
}
