//! The operations of the module over HTTP, with real subscribers.

use serde_json::{Value, json};

use crate::module::{call, error, ready, result};
use crate::raw;
use crate::server::TestServer;
use crate::sign::sign;
use crate::websocket::Subscriber;

/// A subscriber on the channels of a user's configuration.
fn subscriber(server: &TestServer, user: i64) -> Subscriber {
    let config = result(&call(server, "pull.config.get", &json!({"USER_ID": user})));
    let id = |name: &str| config["channels"][name]["id"].as_str().expect("a channel").to_owned();
    Subscriber::open(server.address(), &format!("CHANNEL_ID={}/{}", id("private"), id("shared")))
}

#[test]
fn an_event_reaches_users_who_watch_and_everybody_over_real_connections() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let (mut one, mut two) = (subscriber(&server, 1), subscriber(&server, 2));
    let add = |event: Value| result(&call(&server, "pull.event.add", &event));
    let event = |recipients: Value, command: &str| json!({"RECIPIENTS": recipients, "MODULE_ID": "CRM", "command": command, "params": {"id": 7}});
    assert_eq!(add(event(json!({"users": [1]}), "first")), true);
    let text = one.next_text();
    assert_eq!((&text["module_id"], &text["command"]), (&json!("crm"), &json!("first")));
    assert_eq!(text["params"], json!({"id": 7}));
    assert_eq!(text["extra"]["revision_web"], 19);
    assert_eq!(
        result(&call(&server, "pull.watch.add", &json!({"USER_ID": 2, "TAGS": ["DEAL_7"]}))),
        true
    );
    assert_eq!(add(event(json!({"tags": ["DEAL_7"]}), "second")), true);
    assert_eq!(two.next_text()["command"], "second");
    assert_eq!(add(event(json!({"shared": true}), "third")), true);
    assert_eq!(one.next_text()["command"], "third");
    assert_eq!(two.next_text()["command"], "third");
    let id = result(&call(&server, "pull.channel.get", &json!({"USER_ID": 1})))["id"].take();
    let stats = result(&call(&server, "pull.channel.stats", &json!({"CHANNELS": [id]})));
    assert_eq!(stats[id.as_str().unwrap()], 1);
}

#[test]
fn an_event_of_a_back_end_that_hangs_up_at_once_is_published_all_the_same() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let mut subscriber = subscriber(&server, 1);
    for number in 0..50 {
        // Kept, so the answer waits for the disk; not kept; for whoever watches, so it waits for the
        // database.
        let recipients =
            if number % 3 == 2 { json!({"tags": ["T"]}) } else { json!({"users": [1]}) };
        let watch = json!({"USER_ID": 1, "TAGS": ["T"]});
        assert_eq!(result(&call(&server, "pull.watch.add", &watch)), true);
        let command = format!("n{number}");
        let expiry = if number % 3 == 1 { 0 } else { 60 };
        let event = json!({"recipients": recipients, "module_id": "im", "command": command, "expiry": expiry});
        let body = event.to_string();
        let target = format!("/module/pull.event.add?signature={}", sign(&body));
        let mut connection = raw::Connection::open(server.address());
        connection.send(raw::post_bytes(&target, &[], body.as_bytes()));
        drop(connection);
        assert_eq!(subscriber.next_text()["command"], command.as_str());
    }
}

#[test]
fn m_093_examples_of_the_specification_are_answered_as_it_says() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let answer = call(
        &server,
        "pull.event.add",
        &json!({"recipients": {"users": []}, "module_id": "crm", "command": "x"}),
    );
    assert_eq!(error(&answer), (400, "RECIPIENT_FORMAT".into()));
    let config =
        result(&call(&server, "pull.config.get", &json!({"USER_ID": 1, "HOST": "example.test"})));
    assert_eq!(config["server"]["long_polling"], "http://example.test/bitrix/sub/");
    assert!(config["serverTime"].as_str().unwrap().ends_with("+00:00"));
    let watch = json!({"USER_ID": 1, "TAGS": ["CRM_DEAL_7"]});
    assert_eq!(result(&call(&server, "pull.watch.add", &watch)), true);
    let extended = result(&call(
        &server,
        "pull.watch.extend",
        &json!({"user_id": "1", "tags": ["CRM_DEAL_7", "X"]}),
    ));
    assert_eq!(extended, json!({"CRM_DEAL_7": true, "X": false}));
    let now = vestnik_core::Clock::System.unix_s();
    result(&call(&server, "updateUsersLastSeen", &json!({"2": now - 77})));
    let seen = result(&call(&server, "getUsersLastSeen", &json!({"userList": [1, 2, 3]})));
    assert!((77..87).contains(&seen["2"].as_i64().unwrap()), "{seen}");
    assert_eq!(seen.as_object().unwrap().len(), 1, "who was never seen is left out");
}

#[test]
fn m_085_errors_have_codes_and_statuses() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let failing = |operation: &str, input: Value| error(&call(&server, operation, &input));
    let check = |operation: &str, input: Value, status: u16, code: &str| {
        assert_eq!(
            failing(operation, input.clone()),
            (status, code.to_owned()),
            "{operation} {input}"
        );
    };
    check("no.such", json!({}), 404, "ERROR_METHOD_NOT_FOUND");
    check("pull.config.get", json!({}), 403, "AUTHORIZE_ERROR");
    check("pull.channel.public.list", json!({}), 400, "INVALID_FORMAT");
    check("pull.channel.public.list", json!({"USERS": "x"}), 400, "INVALID_FORMAT");
    check(
        "pull.channel.public.get",
        json!({"USER_ID": 1, "APPLICATION": "Y"}),
        400,
        "WRONG_AUTH_TYPE",
    );
    check(
        "pull.event.add",
        json!({"recipients": [1], "command": "x"}),
        400,
        "EVENT_PARAMETERS_FORMAT",
    );
    check(
        "pull.event.add",
        json!({"recipients": [1], "module_id": "x"}),
        400,
        "EVENT_PARAMETERS_FORMAT",
    );
    check("pull.event.add", json!({"module_id": "x", "command": "x"}), 400, "RECIPIENT_FORMAT");
    let push = json!({"recipients": [1], "module_id": "x", "push": {"message": "a"}});
    check("pull.event.add", push, 400, "PUSH_DISABLED");
    check("pull.channel.get", json!({"USER_ID": "one"}), 400, "ERROR_ARGUMENT");
    check(
        "pull.watch.add",
        json!({"USER_ID": 1, "TAGS": ["x".repeat(300)]}),
        400,
        "ERROR_ARGUMENT",
    );
    check("pull.options.get", json!({"KEYS": ["none"]}), 400, "OPTION_ERROR");
    check("pull.channel.sign", json!({"ID": "short"}), 400, "ERROR_ARGUMENT");
    let bad =
        b"{\"recipients\":[1],\"module_id\":\"x\",\"command\":\"y\",\"params\":{\"k\":[\"\xff\"]}}";
    let signature = {
        use vestnik_core::sign::{Algorithm, Key};
        let secret = vestnik_core::Secret::new(crate::sign::KEY.to_owned());
        Key::new(secret, Algorithm::Sha1, None).sign(&[bad]).to_string()
    };
    let target = format!("/module/pull.event.add?signature={signature}");
    let answer = raw::post(server.address(), &target, &[], bad);
    assert_eq!(error(&answer), (400, "EVENT_BAD_ENCODING".into()));
    assert!(answer.text().contains("/params/k/0"), "{}", answer.text());
    assert_eq!(raw::get(server.address(), "/module/pull.config.get").status, 405);
    let body = "nonsense";
    let target = format!("/module/pull.event.add?signature={}", sign(body));
    let answer = raw::post(server.address(), &target, &[], body.as_bytes());
    assert_eq!(error(&answer), (400, "INVALID_REQUEST".into()));
}

#[test]
fn m_086_forms_are_taken_as_clients_of_bitrix_send_them() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let mut one = subscriber(&server, 1);
    let form = "recipients[users][0]=1&module_id=im&command=hello&params[text]=a%20%D1%8F&params[list][]=1";
    let target = format!("/module/pull.event.add.json?signature={}", sign(form));
    let headers = &["Content-Type: application/x-www-form-urlencoded; charset=UTF-8"];
    let answer = raw::post(server.address(), &target, headers, form.as_bytes());
    assert_eq!(result(&answer), true);
    assert_eq!(one.next_text()["params"], json!({"text": "a я", "list": ["1"]}));
}

#[test]
fn a_batch_runs_calls_by_name_refers_to_earlier_ones_and_halts_when_told() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let batch = |input: Value| result(&call(&server, "batch", &input));
    let answer = batch(json!({"cmd": {
        "channel": "pull.channel.get?USER_ID=1",
        "signed": "pull.channel.sign?ID=$result[channel][id]&PUBLIC_ID=$result[channel][public_id]",
        "wrong": "pull.channel.sign?ID=1",
        "object": {"method": "pull.watch.add", "params": {"USER_ID": 1, "TAGS": ["a"]}},
    }}));
    assert_eq!(answer["result"]["signed"], answer["result"]["channel"]["signed_id"]);
    assert_eq!(answer["result"]["object"], true);
    assert_eq!(answer["result_error"]["wrong"]["error"], "ERROR_ARGUMENT");
    let halted = batch(json!({"halt": 1, "cmd": [["no.such"], ["server.time"]]}));
    assert_eq!(
        (halted["result"].clone(), halted["result_error"]["0"]["error"].clone()),
        (json!([]), json!("ERROR_METHOD_NOT_FOUND"))
    );
    let body =
        r#"[{"method":"server.time"},{"method":"pull.watch.users","params":{"TAGS":["a"]}}]"#;
    let target = format!("/module/batch?signature={}", sign(body));
    let answer = result(&raw::post(server.address(), &target, &[], body.as_bytes()));
    assert_eq!(answer["result"][1], json!(["1"]));
    let many: Vec<_> = (0..51).map(|_| "server.time").collect();
    let answer = call(&server, "batch", &json!({"cmd": many}));
    assert_eq!(error(&answer), (400, "ERROR_BATCH_LENGTH_EXCEEDED".into()));
}

#[test]
fn the_openapi_document_has_every_operation_and_its_examples_are_accepted() {
    let server = TestServer::with_module(&[]);
    ready(&server);
    let document: Value =
        serde_json::from_slice(&raw::get(server.address(), "/module/openapi.json").body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    // The example of `pull.secret.delete` removes the first one.
    crate::module::command(&server, &["secret", "add", "spare"]);
    let admin = crate::module::command(&server, &["secret", "add", "console", "--admin"]);
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 25, "{}", paths.len());
    // Notifications go to a gateway that nobody is at.
    let options = json!({"push": "Y", "push_service_url": "http://127.0.0.1:1/send/"});
    assert_eq!(
        result(&crate::module::call_with(&server, &admin, "pull.options.set", &options)),
        true
    );
    // Without its options the tenant has no queue server: that comes last.
    let is_last = |path: &str| path.ends_with(".restoreDefaults");
    let (last, first): (Vec<_>, Vec<_>) = paths.iter().partition(|(path, _)| is_last(path));
    for (path, item) in first.into_iter().chain(last) {
        let operation = path.strip_prefix("/module/").unwrap();
        let media = &item["post"]["requestBody"]["content"]["application/json"];
        if media["example"].is_null() {
            // It needs a device, or the cloud.
            let answer = crate::module::call_with(&server, &admin, operation, &json!({}));
            assert!(answer.status >= 400, "{operation}: {}", answer.text());
            continue;
        }
        let answer = crate::module::call_with(&server, &admin, operation, &media["example"]);
        assert_eq!(answer.status, 200, "{operation}: {}", answer.text());
        let schema = &item["post"]["responses"]["200"]["content"]["application/json"]["schema"];
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let fault = schema_fault(schema, &body, &document);
        assert_eq!(fault, None, "{operation}: {body}");
        let input = schema_fault(&media["schema"], &media["example"], &document);
        assert_eq!(input, None, "{operation}");
    }
}

/// What in a value is not as its schema says; the words of JSON Schema that the document uses.
fn schema_fault(schema: &Value, value: &Value, document: &Value) -> Option<String> {
    const KNOWN: [&str; 12] = [
        "type",
        "required",
        "properties",
        "additionalProperties",
        "items",
        "oneOf",
        "const",
        "enum",
        "maxItems",
        "$ref",
        "description",
        "example",
    ];
    let rules = schema.as_object().expect("a schema is an object");
    if let Some(unknown) = rules.keys().find(|rule| !KNOWN.contains(&rule.as_str())) {
        return Some(format!("the test does not know `{unknown}`"));
    }
    if let Some(target) = schema["$ref"].as_str() {
        let pointer = target.strip_prefix('#').expect("local");
        return schema_fault(document.pointer(pointer).expect("it is there"), value, document);
    }
    let is_of = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no type {other}"),
    };
    let is_typed = match &schema["type"] {
        Value::Null => true,
        Value::String(name) => is_of(name),
        Value::Array(names) => names.iter().any(|name| is_of(name.as_str().expect("a name"))),
        other => panic!("no type {other}"),
    };
    if !is_typed {
        return Some(format!("{value} is not of type {}", schema["type"]));
    }
    if rules.contains_key("const") && schema["const"] != *value {
        return Some(format!("{value} is not {}", schema["const"]));
    }
    if let Some(all) = schema["enum"].as_array()
        && !all.contains(value)
    {
        return Some(format!("{value} is none of {all:?}"));
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = |it: &&Value| schema_fault(it, value, document).is_none();
        let fitting = choices.iter().filter(fits).count();
        if fitting != 1 {
            return Some(format!("{value} fits {fitting} of {choices:?}"));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().expect("a name")).is_none() {
            return Some(format!("{value} lacks {name}"));
        }
    }
    if let Some(max) = schema["maxItems"].as_u64()
        && value.as_array().is_some_and(|items| items.len() as u64 > max)
    {
        return Some(format!("{value} has more than {max} items"));
    }
    let items = value.as_array().into_iter().flatten().filter(|_| schema["items"].is_object());
    let of_items = items.map(|item| (&schema["items"], item));
    let members = value.as_object().into_iter().flatten();
    let of_members = members.filter_map(|(name, member)| {
        let own = schema["properties"].get(name);
        let rest = schema.get("additionalProperties").filter(|rest| rest.is_object());
        Some((own.or(rest)?, member))
    });
    of_items.chain(of_members).find_map(|(schema, part)| schema_fault(schema, part, document))
}

#[test]
fn options_set_by_an_operation_keep_the_rules_of_the_page_and_are_written_down() {
    let server = TestServer::with_module(&["security.key_file="]);
    ready(&server);
    let admin = crate::module::command(&server, &["secret", "add", "console", "--admin"]);
    let set = |input: Value| crate::module::call_with(&server, &admin, "pull.options.set", &input);
    assert_eq!(result(&set(json!({"signature_key": "0123456789abcdef0123456789abcdef"}))), true);
    let (status, code) = error(&set(json!({"signature_key": ""})));
    assert_eq!((status, code.as_str()), (400, "OPTION_ERROR"));
    let (status, code) = error(&set(json!({"path_to_publish": "x"})));
    assert_eq!((status, code.as_str()), (400, "OPTION_ERROR"));
    let input = json!({"KEYS": ["signature_key"]});
    let kept = result(&crate::module::call_with(&server, &admin, "pull.options.get", &input));
    assert_eq!(kept["signature_key"], json!({"value": null, "is_set": true, "source": "database"}));
}
