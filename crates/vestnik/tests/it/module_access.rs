//! Who may call the module, and for what.

use serde_json::json;

use crate::module::{call, call_with, command, error, ready, result};
use crate::raw;
use crate::server::TestServer;
use crate::sign::sign;

fn refused() -> (u16, String) {
    (401, "NO_AUTH_FOUND".to_owned())
}

#[test]
fn m_094_a_back_end_signs_its_body_and_nothing_else_is_believed() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let host_id = command(&server, &["tenant", "list"]);
    assert_eq!(host_id.len(), 32, "{host_id}");
    let body = r#"{"USER_ID":1}"#;
    let post = |query: &str| {
        let target = format!("/module/pull.channel.get?{query}");
        raw::post(server.address(), &target, &[], body.as_bytes())
    };
    let signature = sign(body);
    let of = |id: &str, signature: &str| format!("hostId={id}&signature={signature}");
    let good = result(&post(&format!("{}&hostname=example.test", of(&host_id, &signature))));
    assert_eq!(good["user_id"], 1);
    assert_eq!(result(&post(&format!("signature={signature}")))["id"], good["id"]);
    let wrong = [
        String::new(),
        format!("hostId={host_id}"),
        of(&host_id, &sign("{}")),
        of(&host_id, "zz"),
        of(&host_id, ""),
        of("unknown", &signature),
        of(&host_id, &signature[..38]),
    ];
    for query in wrong {
        assert_eq!(error(&post(&query)), refused(), "{query}");
    }
    // A signature does not say for what: it changes no settings.
    let settings = call(&server, "pull.options.set", &json!({"nginx": "N"}));
    assert_eq!(error(&settings), (403, "ACCESS_DENIED".into()));
}

#[test]
fn secrets_are_shown_once_and_end_when_they_are_removed() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let secret = command(&server, &["secret", "add", "shop"]);
    let admin = command(&server, &["secret", "add", "console", "--admin"]);
    assert_eq!(command(&server, &["secret", "list"]), "1\tbackend\tshop\n2\tadmin\tconsole");
    let status = |secret: &str| call_with(&server, secret, "pull.module.status", &json!({}));
    assert_eq!(result(&status(&secret))["server"]["enabled"], true);
    let set = |secret: &str| {
        call_with(&server, secret, "pull.options.set", &json!({"server_name": "a.test"}))
    };
    assert_eq!(error(&set(&secret)), (403, "ACCESS_DENIED".into()));
    assert_eq!(result(&set(&admin)), true);
    let made = result(&call_with(&server, &admin, "pull.secret.add", &json!({"name": "third"})));
    let third = made["secret"].as_str().unwrap();
    assert_eq!(status(third).status, 200);
    let list = result(&call_with(&server, &admin, "pull.secret.list", &json!({})));
    assert_eq!(list[2]["name"], "third");
    assert!(!list.to_string().contains(third));
    let delete = json!({"ID": list[2]["id"]});
    assert_eq!(result(&call_with(&server, &admin, "pull.secret.delete", &delete)), true);
    assert_eq!(error(&status(third)), refused());
    for wrong in ["vs_", "vs_0000", "nonsense", "", &secret[..40]] {
        assert_eq!(error(&status(wrong)), refused(), "{wrong}");
    }
    let file = std::fs::read(server.data().join("module.db")).unwrap();
    assert!(raw::find(&file, secret.as_bytes()).is_none(), "a hash alone is kept");
}

#[test]
fn a_token_of_a_user_opens_the_operations_of_users_for_this_user_alone() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let issued = result(&call(&server, "pull.token.get", &json!({"USER_ID": 7, "TTL": 60})));
    let token = issued["token"].as_str().unwrap();
    let as_user = |operation: &str, input| call_with(&server, token, operation, &input);
    let config = result(&as_user("pull.config.get", json!({"CACHE": "N"})));
    assert_eq!(config["publicChannels"]["7"]["user_id"], 7);
    assert_eq!(result(&as_user("pull.watch.extend", json!({"TAGS": ["a"]}))), json!({"a": false}));
    assert_eq!(result(&as_user("pull.channel.public.get", json!({"USER_ID": 8})))["user_id"], 8);
    let denied = (403, "ACCESS_DENIED".to_owned());
    assert_eq!(error(&as_user("pull.config.get", json!({"USER_ID": 8}))), denied);
    assert_eq!(error(&as_user("pull.watch.add", json!({"USER_ID": 7, "TAGS": ["a"]}))), denied);
    let event = json!({"recipients": [7], "module_id": "im", "command": "x"});
    assert_eq!(error(&as_user("pull.event.add", event)), denied);
    let changed = token.replace("~7~", "~8~");
    assert_eq!(error(&call_with(&server, &changed, "pull.config.get", &json!({}))), refused());
    for life in [json!(0), json!(86_401), json!(-1), json!("x")] {
        let answer = call(&server, "pull.token.get", &json!({"USER_ID": 7, "TTL": life}));
        assert_eq!(error(&answer).1, "ERROR_ARGUMENT", "{life}");
    }
    let admin = command(&server, &["secret", "add", "console", "--admin"]);
    result(&call_with(&server, &admin, "pull.token.revokeAll", &json!({})));
    assert_eq!(error(&as_user("pull.config.get", json!({}))), refused());
}

#[test]
fn m_095_tenants_do_not_see_each_other() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    for tenant in ["one.test", "two.test"] {
        command(&server, &["tenant", "add", tenant]);
    }
    let secret = |tenant| command(&server, &["secret", "add", "x", "--admin", "--tenant", tenant]);
    let (one, two) = (secret("one.test"), secret("two.test"));
    for secret in [&one, &two] {
        result(&call_with(&server, secret, "pull.options.set", &json!({"nginx": "Y"})));
    }
    let channel = |secret: &str| {
        result(&call_with(&server, secret, "pull.channel.get", &json!({"USER_ID": 1})))["id"].take()
    };
    assert_ne!(channel(&one), channel(&two));
    result(&call_with(&server, &one, "pull.watch.add", &json!({"USER_ID": 1, "TAGS": ["t"]})));
    let users = |secret: &str| {
        result(&call_with(&server, secret, "pull.watch.users", &json!({"TAGS": ["t"]})))
    };
    assert_eq!((users(&one), users(&two)), (json!(["1"]), json!([])));
    // The key of the server is the default tenant's alone.
    let body = r#"{"USER_ID":1}"#;
    let target = format!("/module/pull.channel.get?hostId=one.test&signature={}", sign(body));
    let answer = raw::post(server.address(), &target, &[], body.as_bytes());
    assert_eq!(error(&answer), refused());
    let answer = raw::post(
        server.address(),
        "/module/pull.module.status?hostId=two.test",
        &[&format!("Authorization: Bearer {one}")],
        b"",
    );
    assert_eq!(error(&answer), refused(), "a secret is for its own tenant");
}

#[test]
fn trusted_addresses_need_a_proof_unless_that_is_switched_off_and_browsers_always() {
    let body = br#"{"USER_ID":1}"#;
    let post = |server: &TestServer, headers: &[&str], operation: &str| {
        raw::post(server.address(), &format!("/module/{operation}"), headers, body)
    };
    let closed = TestServer::with_module(&[]);
    ready(&closed);
    assert_eq!(error(&post(&closed, &[], "pull.channel.get")), refused());
    let open = TestServer::with_module(&["module.open_to_trusted=true"]);
    ready(&open);
    assert_eq!(result(&post(&open, &[], "pull.channel.get"))["user_id"], 1);
    assert_eq!(error(&post(&open, &[], "pull.options.set")), (403, "ACCESS_DENIED".into()));
    for header in
        ["Origin: http://evil.test", "Sec-Fetch-Site: cross-site", "X-Forwarded-For: 203.0.113.9"]
    {
        assert_eq!(error(&post(&open, &[header], "pull.channel.get")), refused(), "{header}");
    }
}
