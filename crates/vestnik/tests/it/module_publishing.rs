//! The way of events to a queue server: another one that goes away and comes back, foreign channels, old
//! clients that poll, controllers, the cloud, callbacks.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::mock::Mock;
use crate::module::{call, call_with, command, error, ready, result};
use crate::observe::until;
use crate::raw::{self, Connection};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::Subscriber;

fn set(server: &TestServer, admin: &str, options: &Value) {
    assert_eq!(result(&call_with(server, admin, "pull.options.set", options)), true);
}

fn admin(server: &TestServer) -> String {
    command(server, &["secret", "add", "console", "--admin"])
}

/// The bodies of events that a poll from the beginning gets.
fn history(address: SocketAddr, channel: &str) -> Vec<Value> {
    let target = format!("/bitrix/sub/?CHANNEL_ID={channel}&mid={}", "0".repeat(26));
    let answer = raw::get(address, &target);
    raw::events(answer.text()).into_iter().map(|mut event| event["text"].take()).collect()
}

#[test]
fn accepted_events_wait_while_their_server_is_away_and_come_in_order_also_after_a_crash() {
    let mut other = TestServer::with_module(&[]);
    let away = other.address();
    let server = TestServer::with_module(&[]);
    ready(&server);
    let admin = admin(&server);
    let config = result(&call(&server, "pull.config.get", &json!({"USER_ID": 1})));
    let channel = config["channels"]["private"]["id"].as_str().unwrap().to_owned();
    set(&server, &admin, &json!({"path_to_publish": format!("http://{away}/bitrix/pub/")}));
    let add = |server: &TestServer, number: usize| {
        let event = json!({"recipients": [1], "module_id": "im", "command": format!("n{number}")});
        assert_eq!(result(&call(server, "pull.event.add", &event)), true);
    };
    add(&server, 0);
    other.kill();
    for number in 1..4 {
        add(&server, number);
    }
    let status = result(&call(&server, "pull.module.status", &json!({})))["server"].take();
    assert!(status["waiting"].as_u64().unwrap() >= 3, "{status}");
    assert!(status["last_error"]["text"].as_str().unwrap().contains("not published"), "{status}");
    let check = result(&call(&server, "pull.server.check", &json!({})));
    assert_eq!(check["reachable"], false, "{check}");
    let server = server.crash_and_restart();
    ready(&server);
    add(&server, 4);
    let other = other.revived();
    until("everything is sent", || {
        result(&call(&server, "pull.module.status", &json!({})))["server"]["waiting"] == 0
    });
    let commands: Vec<_> =
        history(other.address(), &channel).iter().map(|it| it["command"].clone()).collect();
    assert_eq!(commands, ["n0", "n1", "n2", "n3", "n4"]);
    let check = result(&call(&server, "pull.server.check", &json!({})));
    assert_eq!(check["reachable"], true, "{check}");
}

#[test]
fn m_097_a_site_with_channels_of_its_own_publishes_to_them_through_the_module() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let pair = Pair::new(7);
    let query = format!("CHANNEL_ID={}", pair.signed());
    let mut page = Subscriber::open(server.address(), &query);
    let event = json!({"recipients": {"channels": [pair.private.to_string()]}, "module_id": "im",
        "command": "x", "params": []});
    assert_eq!(result(&call(&server, "pull.event.add", &event)), true);
    assert_eq!(page.next_text()["params"], json!([]));
}

#[test]
fn m_098_clients_publish_at_each_path_that_a_site_may_have_been_given() {
    let server = TestServer::with_module(&[]);
    let (one, two) = (Pair::new(1), Pair::new(2));
    let mut page =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}&jsonRpc=true", two.signed()));
    for (at, path) in ["/bitrix/pubweb/", "/bitrix/rest/", "/rest/"].into_iter().enumerate() {
        let body = json!([{"jsonrpc": "2.0", "method": "publish", "params": {
            "channelList": [two.public_signed()],
            "body": {"module_id": "im", "command": format!("c{at}"), "params": {}},
            "expiry": 60, "type": "im_c",
        }}]);
        let target = format!("{path}?CHANNEL_ID={}", one.signed());
        let answer = raw::post(server.address(), &target, &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        let frame = loop {
            let message = page.next().into_text().expect("text");
            if message.as_str() != "ping" {
                break message.to_string();
            }
        };
        assert!(frame.contains(&format!("\"c{at}\"")), "{path}: {frame}");
    }
}

#[test]
fn m_063_an_empty_batch_of_a_site_is_answered_with_json() {
    let server = TestServer::with_module(&[]);
    let target = format!("/bitrix/api/?hostId=h&signature={}", crate::sign::sign("[]"));
    let answer = raw::post(server.address(), &target, &[], b"[]");
    assert_eq!((answer.status, answer.text()), (200, "[]"));
}

#[test]
fn m_082_the_steps_of_the_site_checker_pass() {
    let server = TestServer::with_module(&[]);
    let channel = Pair::new(9);
    let signed = channel.private_signed();
    let mut poll = Connection::open(server.address());
    let held = crate::observe::polls(server.address());
    poll.send(format!(
        "GET /bitrix/sub/?CHANNEL_ID={signed} HTTP/1.0\r\nIf-Modified-Since: Mon, 23 Nov 2026 00:00:00 +0000\r\nHost: test\r\n\r\n"
    ));
    until("it is held", || crate::observe::polls(server.address()) > held);
    let text = "5d41402abc4b2a76b9719d911017c592";
    let target = format!("/bitrix/pub/?CHANNEL_ID={}", channel.private);
    let answer = raw::post(server.address(), &target, &[], text.as_bytes());
    assert_eq!(answer.status, 200);
    let wrapped = format!("{{\"infos\": [{}]}}", answer.text());
    serde_json::from_str::<Value>(&wrapped).unwrap();
    let news = poll.answer();
    assert!(news.text().contains(text), "{news:?}");
    let mut delete = Connection::open(server.address());
    delete.send(format!("DELETE /bitrix/pub/?CHANNEL_ID={signed} HTTP/1.0\r\nHost: test\r\n\r\n"));
    delete.answer();
}

#[test]
fn m_073_old_clients_poll_at_the_address_of_the_php_module() {
    const PATH: &str = "/bitrix/components/bitrix/pull.request/ajax.php";
    let server = TestServer::with_module(&[]);
    ready(&server);
    set(&server, &admin(&server), &json!({"nginx": "N"}));
    let token = result(&call(&server, "pull.token.get", &json!({"USER_ID": 1})));
    let token = token["token"].as_str().unwrap().replace('~', "%7E");
    let post = |form: String| {
        let headers = &["Content-Type: application/x-www-form-urlencoded"];
        let target = format!("{PATH}?UPDATE_STATE&V=19");
        let answer = raw::post(server.address(), &target, headers, form.as_bytes());
        assert_eq!(answer.status, 200);
        let kind = answer.header("Content-Type").unwrap();
        assert!(kind.starts_with("application/x-javascript"), "{kind}");
        answer.text().to_owned()
    };
    let common = format!("PULL_AJAX_CALL=Y&SITE_ID=s1&USER_ID=1&sessid={token}");
    let refused = post("PULL_GET_CHANNEL=Y&USER_ID=1&sessid=x".into());
    assert_eq!(refused, "{'ERROR':'AUTHORIZE_ERROR','BITRIX_SESSID':''}");
    let other = post(format!("PULL_GET_CHANNEL=Y&USER_ID=2&sessid={token}"));
    assert!(other.contains("SESSION_ERROR"), "{other}");
    assert_eq!(post(common.clone()), "{'ERROR':'UNKNOWN_ERROR'}");
    let channel = post(format!("{common}&PULL_GET_CHANNEL=Y"));
    let id = channel.split("'CHANNEL_ID':'").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    assert!(channel.contains("'METHOD':'PULL'"), "{channel}");
    let event = json!({"recipients": [1], "module_id": "im", "command": "hello"});
    assert_eq!(result(&call(&server, "pull.event.add", &event)), true);
    let state = format!("{common}&PULL_UPDATE_STATE=Y&CHANNEL_ID={id}&CHANNEL_LAST_ID=0");
    let news = post(state);
    assert!(news.contains("'command':'hello'"), "{news}");
    let watch = post(format!("{common}&PULL_UPDATE_WATCH=Y&WATCH[]=t"));
    assert_eq!(watch, "{'RESULT':{'t':false},'ERROR':''}");
}

#[test]
fn m_087_controllers_answer_in_their_envelope() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let token = result(&call(&server, "pull.token.get", &json!({"USER_ID": 1})));
    let bearer = format!("Authorization: Bearer {}", token["token"].as_str().unwrap());
    let control = |action: &str, headers: &[&str], body: &str| {
        let target = format!("/bitrix/services/main/ajax.php?action={action}");
        let answer = raw::post(server.address(), &target, headers, body.as_bytes());
        (answer.status, serde_json::from_slice::<Value>(&answer.body).unwrap())
    };
    let (status, config) = control("pull.api.config.get", &[&bearer], "{\"cache\":true}");
    assert_eq!((status, &config["status"]), (200, &json!("success")));
    assert_eq!(config["data"]["api"]["revision_web"], 19);
    assert!(config["data"].get("serverTime").is_none());
    let (_, watch) = control("pull.api.config.extendWatch", &[&bearer], "{\"tags\":[\"a\"]}");
    assert_eq!(watch["data"], json!({"a": false}));
    let (_, ids) = control("pull.api.channel.getPublicIds", &[&bearer], "{\"users\":[1]}");
    assert_eq!(ids["data"]["1"]["user_id"], 1);
    let (_, seen) = control("pull.api.user.getLastSeen", &[&bearer], "{\"userIds\":[1]}");
    assert_eq!(seen["data"], json!([]));
    let (status, denied) = control("pull.api.config.get", &[], "{}");
    assert_eq!((status, &denied["status"]), (401, &json!("denied")));
    let (status, missing) = control("pull.api.token.remove", &[], "{\"token\":\"none\"}");
    assert_eq!((status, &missing["status"]), (200, &json!("error")));
    assert_eq!(missing["errors"][0]["code"], "NOT_FOUND");
    let (status, unknown) = control("pull.options.set", &[&bearer], "{}");
    assert_eq!((status, &unknown["status"]), (404, &json!("error")));
}

#[test]
fn m_077_a_site_registers_with_the_cloud_and_a_refusal_changes_nothing() {
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let refusing = Arc::clone(&refuses);
    let mock = Mock::start(move |target, _| match target {
        "/servers" => "rtc-one.test;ru\nrtc-two.test;de\n".to_owned(),
        "/register-client/" if refusing.load(std::sync::atomic::Ordering::SeqCst) => {
            r#"{"status":"error","error":"no licence"}"#.to_owned()
        }
        "/register-client/" => r#"{"securityKey":"SEC"}"#.to_owned(),
        _ => "not here".to_owned(),
    });
    let directory = format!("module.cloud_directory=http://{}", mock.address);
    let server = TestServer::with_module(&[&directory]);
    ready(&server);
    let admin = admin(&server);
    let list = result(&call_with(&server, &admin, "pull.server.list", &json!({})));
    assert_eq!(list[1], json!({"url": "rtc-two.test", "region": "de"}));
    let host = mock.address.to_string();
    let register = || call_with(&server, &admin, "pull.server.register", &json!({"HOST": &host}));
    let refused = register();
    assert_eq!(error(&refused), (502, "SERVER_UNREACHABLE".into()));
    assert!(refused.text().contains("no licence"), "{}", refused.text());
    let mode = || {
        let keys = json!({"KEYS": ["server_mode", "registered_on_shared_server"]});
        let options = result(&call(&server, "pull.options.get", &keys));
        [
            options["server_mode"]["value"].clone(),
            options["registered_on_shared_server"]["value"].clone(),
        ]
    };
    assert_eq!(mode(), ["personal", "N"]);
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(result(&register())["host"], host);
    let body = &mock.last().1;
    assert_eq!(
        body,
        "verificationQuery=BX_LICENCE%3D9300e3d70f5eb313b91e90b11fe0bdea%26BX_TYPE%3DCP%26BX_HASH%3D4e72efebcabab87e91bbd005bf285238%26BX_ALL%3Dy"
    );
    let shown = result(&call_with(&server, &admin, "pull.options.get", &json!({})));
    assert_eq!(shown["server_mode"]["value"], "shared");
    assert_eq!(
        shown["shared_server_key"],
        json!({"value": null, "is_set": true, "source": "database"})
    );
}

#[test]
fn m_082_a_back_end_has_every_configured_address_tried() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let admin = admin(&server);
    let at = server.address();
    set(
        &server,
        &admin,
        &json!({
            "path_to_publish": format!("http://{at}/bitrix/pub/"),
            "path_to_modern_listener": "http://#DOMAIN#/bitrix/sub/",
            "path_to_websocket": "ws://#DOMAIN#/bitrix/subws/",
            "path_to_publish_web": "http://#DOMAIN#/bitrix/rest/",
            "path_to_modern_listener_secure": "https://127.0.0.1:1/bitrix/sub/",
        }),
    );
    let input = json!({"STEPS": "Y", "HOST": at.to_string()});
    let refused = call(&server, "pull.server.check", &input);
    assert_eq!(error(&refused), (403, "ACCESS_DENIED".into()));
    let check = result(&call_with(&server, &admin, "pull.server.check", &input));
    assert_eq!(check["reachable"], true, "{check}");
    let step = |name: &str| {
        let steps = check["steps"].as_array().unwrap();
        steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("{name}: {check}"))
    };
    for name in ["key", "publish", "clock", "poll", "websocket", "replay", "client-publish"] {
        assert_eq!(step(name)["outcome"], "good", "{name}: {check}");
    }
    let broken = step("poll-secure");
    assert_eq!((&broken["outcome"], &broken["remedy"]), (&json!("bad"), &json!("listen")));
}

#[test]
fn m_096_a_back_end_is_asked_within_a_second_and_its_silence_harms_nobody() {
    let mock = Mock::start(|_, body| {
        if body.contains("[8]") {
            std::thread::sleep(std::time::Duration::from_secs(3));
        }
        r#"{"result":{"7":false,"8":false}}"#.to_owned()
    });
    let server = TestServer::with_module(&[]);
    ready(&server);
    let admin = admin(&server);
    let url = format!("http://{}/hooks", mock.address);
    set(&server, &admin, &json!({"callback_url": url}));
    let get = |user: i64| call(&server, "pull.channel.get", &json!({"USER_ID": user}));
    assert_eq!(error(&get(7)), (400, "USER_NOT_ACTIVE".into()));
    let (target, body) = mock.last();
    assert_eq!(body, r#"{"hook":"user.active","params":{"USERS":[7]}}"#);
    let (_, signature) = target.split_once("&signature=").unwrap();
    assert_eq!(signature, crate::sign::sign(&body));
    assert_eq!(result(&get(8))["user_id"], 8, "no answer in time counts as yes");
    assert_eq!(result(&get(7))["user_id"], 7, "and it is left alone for a while");
    let wrong = call_with(&server, &admin, "pull.options.set", &json!({"callback_url": "ftp://x"}));
    assert_eq!(error(&wrong), (400, "OPTION_ERROR".into()));
}

#[test]
fn a_server_with_tls_is_used_when_its_authority_is_known_and_never_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    crate::tls::certificate(folder.path(), "push", &["localhost"]);
    let (chain, key) = (folder.path().join("push.crt"), folder.path().join("push.key"));
    let certificates = format!("tls.certificates={}:{}", chain.display(), key.display());
    let authorities = format!("module.tls_authorities={}", chain.display());
    let other = TestServer::with_module(&["server.listen_tls=127.0.0.1:0", &certificates]);
    let url = format!("https://localhost:{}/bitrix/pub/", other.secure().port());
    let pair = Pair::new(5);
    let event = json!({"recipients": {"channels": [pair.private.to_string()]}, "module_id": "im",
        "command": "x"});
    let publish = |settings: &[&str]| {
        let server = TestServer::with_module(settings);
        ready(&server);
        set(&server, &admin(&server), &json!({"path_to_publish": url}));
        assert_eq!(result(&call(&server, "pull.event.add", &event)), true, "accepted");
        result(&call(&server, "pull.module.status", &json!({})))["server"].take()
    };
    let unknown = publish(&[]);
    assert!(unknown["waiting"].as_u64().unwrap() > 0, "{unknown}");
    assert!(unknown["last_error"]["text"].as_str().unwrap().contains("TLS"), "{unknown}");
    assert!(history(other.address(), &pair.signed()).is_empty());
    let known = publish(&[&authorities]);
    assert_eq!(known["waiting"], 0, "{known}");
    assert_eq!(history(other.address(), &pair.signed()).len(), 1);
}

#[test]
fn the_examples_of_the_document_work_as_they_are_written() {
    let curl = std::process::Command::new("curl").arg("--version").output();
    #[expect(clippy::disallowed_methods, reason = "the switch of the gate")]
    let is_full = std::env::var("SLOW").is_ok();
    if curl.is_err() {
        assert!(!is_full, "curl is not installed: run ./test");
        return;
    }
    let server = TestServer::with_module(&[]);
    ready(&server);
    let secret = command(&server, &["secret", "add", "shop"]);
    let page = include_str!("../../../../docs/module.md");
    let block = page.split("```sh\n").nth(1).and_then(|it| it.split("```").next()).unwrap();
    let address = server.address().to_string();
    let script = block.replace("127.0.0.1:8895", &address).replace("\\\n", " ");
    let mut count = 0;
    for line in script.lines().filter(|line| line.starts_with("curl ")) {
        let output = std::process::Command::new("sh")
            .args(["-c", line])
            .env("SECRET", &secret)
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert!(!answer["result"].is_null(), "{line}: {output:?}");
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn what_is_too_large_too_much_or_not_understood_is_refused_with_a_code() {
    let server =
        TestServer::with_module(&["limits.max_payload=64KiB", "limits.max_trusted_payload=64KiB"]);
    ready(&server);
    let big = json!({"recipients": [1], "module_id": "im", "command": "x",
        "params": {"text": "x".repeat(100_000)}});
    assert_eq!(call(&server, "pull.event.add", &big).status, 413);
    let server = TestServer::with_module(&[]);
    ready(&server);
    let many: Vec<_> =
        (0..1001).map(|_| json!({"recipients": [1], "module_id": "im", "command": "x"})).collect();
    let answer = call(&server, "pull.event.addBatch", &json!({"events": many}));
    assert_eq!(error(&answer), (400, "EVENT_PARAMETERS_FORMAT".into()));
    let fields: serde_json::Map<_, _> = (0..1001).map(|at| (format!("f{at}"), json!(1))).collect();
    let answer = call(&server, "server.time", &Value::Object(fields));
    assert_eq!(error(&answer), (400, "INVALID_REQUEST".into()));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let target = format!("/module/server.time?signature={}", crate::sign::sign(&deep));
    let answer = raw::post(server.address(), &target, &[], deep.as_bytes());
    assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    assert_eq!(result(&call(&server, "server.time", &json!({}))).as_str().unwrap().len(), 25);
}
