use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn form(fields: &[(&str, &str)]) -> Form {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Form::new(fields.collect())
}

/// A form of a local server with a good key.
fn local(fields: &[(&str, &str)]) -> Form {
    let mut all = vec![("push_server_mode", "personal"), ("push_message_per_hit", "100")];
    if !fields.iter().any(|(name, _)| *name == "signature_key") {
        all.push(("signature_key", KEY));
    }
    all.extend(fields);
    form(&all)
}

fn change(plan: &Plan, key: Key) -> Option<&Option<String>> {
    plan.changes.iter().find(|(changed, _)| *changed == key).map(|(_, value)| value)
}

fn changed_to(plan: &Plan, key: Key) -> Option<&str> {
    change(plan, key).and_then(|value| value.as_deref())
}

fn situation(generation: i64, has_websocket: bool) -> Situation {
    let generation = Generation::numbered(generation);
    Situation {
        choice: ServerChoice::Local,
        generation,
        has_websocket: websocket_in_force(generation, has_websocket),
        has_push: false,
    }
}

#[test]
fn s_048_fields_are_enabled_as_the_table_says() {
    // `+` and `-` for generations 1 to 5.
    for (key, expected) in [
        (Key::PathToPublish, "+++++"),
        (Key::PathToJsonRpc, "+++-+"),
        (Key::SignatureKey, "--+++"),
        (Key::PathToPublishWeb, "---++"),
        (Key::PathToPublishWebSecure, "---++"),
        (Key::PathToModernListener, "+++++"),
        (Key::PathToModernListenerSecure, "+++++"),
        (Key::Websocket, "-+---"),
        (Key::PathToWebsocket, "-++++"),
        (Key::PathToWebsocketSecure, "-++++"),
        (Key::NginxCommandPerHit, "-+++-"),
    ] {
        let rule = Rule::of(key).unwrap();
        let found: String = (1..=5)
            .map(|generation| match rule.state(&situation(generation, true)) {
                FieldState::Enabled => '+',
                FieldState::Disabled => '-',
                FieldState::Hidden => '?',
            })
            .collect();
        assert_eq!(found, expected, "{}", key.name());
    }
    let rule = Rule::of(Key::PathToWebsocket).unwrap();
    assert_eq!(rule.state(&situation(2, false)), FieldState::Disabled, "S-28 follows S-27");
    assert_eq!(rule.state(&situation(4, false)), FieldState::Enabled, "always on since 1.0");
}

#[test]
fn fields_of_a_local_server_are_hidden_with_other_choices() {
    for choice in [ServerChoice::Nothing, ServerChoice::Cloud] {
        let situation = Situation { choice, ..situation(4, true) };
        for rule in &RULES {
            let is_common = rule.section == Section::Common
                || (rule.section == Section::Sites && choice == ServerChoice::Cloud);
            let is_hidden = rule.state(&situation) == FieldState::Hidden;
            assert_eq!(is_hidden, !is_common, "{} {choice:?}", rule.key.name());
        }
    }
}

#[test]
fn s_006_an_unknown_choice_is_a_local_server_and_an_unregistered_cloud_stays_chosen() {
    assert_eq!(ServerChoice::of_value("x"), ServerChoice::Local);
    let options = Options::of(&[(Key::ServerMode, "shared")]);
    assert_eq!(ServerChoice::of(&options), ServerChoice::Cloud);
    let options = Options::of(&[(Key::Nginx, "Y")]);
    assert_eq!(ServerChoice::of(&options), ServerChoice::Local);
    assert_eq!(ServerChoice::of(&Options::of(&[])), ServerChoice::Nothing);
}

#[test]
fn s_054_the_built_in_generation_is_never_put_in_force_silently() {
    let options = Options::of(&[]);
    assert_eq!(options.text(Key::NginxVersion), "2");
    let plan = plan(&options, &local(&[])).unwrap();
    assert_eq!(changed_to(&plan, Key::NginxVersion), Some("4"));
    assert_eq!(changed_to(&plan, Key::Nginx), Some("Y"));
    assert_eq!(changed_to(&plan, Key::SignatureKey), Some(KEY), "the trap Y-01");
    let chosen = super::plan(&options, &local(&[("nginx_version", "2")])).unwrap();
    assert_eq!(changed_to(&chosen, Key::NginxVersion), Some("2"), "chosen is chosen");
    let stored = Options::of(&[(Key::NginxVersion, "3"), (Key::SignatureKey, KEY)]);
    let kept = super::plan(&stored, &local(&[])).unwrap();
    assert_eq!(change(&kept, Key::NginxVersion), None);
}

#[test]
fn s_013_only_five_generations_exist() {
    for bad in ["0", "6", "x", "-1"] {
        let problems = plan(&Options::of(&[]), &local(&[("nginx_version", bad)])).unwrap_err();
        assert_eq!(problems.get(&Key::NginxVersion), Some(&Problem::Choice), "{bad}");
    }
}

#[test]
fn s_052_addresses_must_be_addresses_and_empty_ones_go_back() {
    let options = Options::of(&[(Key::NginxVersion, "4"), (Key::PathToPublish, "http://a/b/")]);
    for (name, value) in [
        ("path_to_publish", "127.0.0.1:8895/bitrix/pub/"),
        ("path_to_publish", "http://127.0.0.1:8895/bitrix/pub"),
        ("path_to_publish", "http:///x/"),
        ("path_to_modern_listener", "ws://a/"),
        ("path_to_websocket", "http://a/"),
        ("path_to_websocket", "ws://a/?x/"),
    ] {
        let problems = plan(&options, &local(&[(name, value)])).unwrap_err();
        let key = Key::named(name).unwrap();
        let expected =
            if name == "path_to_websocket" { Problem::SocketAddress } else { Problem::Address };
        assert_eq!(problems.get(&key), Some(&expected), "{name}={value}");
    }
    let emptied = plan(&options, &local(&[("path_to_publish", " ")])).unwrap();
    assert_eq!(change(&emptied, Key::PathToPublish), Some(&None));
    let untouched = plan(&options, &local(&[("path_to_modern_listener", "")])).unwrap();
    assert_eq!(change(&untouched, Key::PathToModernListener), None, "it was the default");
}

#[test]
fn s_062_macros_may_stand_in_every_address() {
    let paths = [
        ("path_to_publish", "http://#DOMAIN##PORT#/bitrix/pub/"),
        ("path_to_json_rpc", "https://#DOMAIN#/x/"),
        ("path_to_modern_listener", "http://#DOMAIN##PORT#/bitrix/sub/"),
    ];
    let mut fields = vec![("nginx_version", "5")];
    fields.extend(paths);
    let plan = plan(&Options::of(&[]), &local(&fields)).unwrap();
    for (name, value) in paths {
        assert_eq!(changed_to(&plan, Key::named(name).unwrap()), Some(value));
    }
}

#[test]
fn s_053_an_empty_key_must_be_meant() {
    let options = Options::of(&[(Key::NginxVersion, "4"), (Key::SignatureKey, KEY)]);
    let problems = plan(&options, &local(&[("signature_key", "")])).unwrap_err();
    assert_eq!(problems.get(&Key::SignatureKey), Some(&Problem::EmptyKey));
    let meant = [("signature_key", ""), (EMPTY_KEY_CONFIRMED, "Y")];
    let meant = plan(&options, &local(&meant)).unwrap();
    assert_eq!(meant.warnings, [Warning::EmptyKey]);
    assert_eq!(changed_to(&meant, Key::SignatureKey), Some(""));
    let weak = plan(&options, &local(&[("signature_key", "short")])).unwrap();
    assert_eq!(weak.warnings, [Warning::WeakKey]);
    // Generations without keys do not ask for one, and do not take one.
    let old = plan(&options, &local(&[("nginx_version", "2"), ("signature_key", "")])).unwrap();
    assert_eq!(change(&old, Key::SignatureKey), None);
    assert_eq!(old.warnings, [Warning::Outdated]);
}

#[test]
fn s_055_the_number_of_notifications_is_a_number() {
    let options = Options::of(&[(Key::NginxVersion, "4")]);
    let with =
        |value: &str| plan(&options, &local(&[("push", "Y"), ("push_message_per_hit", value)]));
    for good in ["0", "50", "10000"] {
        assert_eq!(changed_to(&with(good).unwrap(), Key::PushMessagePerHit), Some(good));
    }
    for bad in ["", "-1", "10001", "abc", "1.5"] {
        let problems = with(bad).unwrap_err();
        assert_eq!(problems.get(&Key::PushMessagePerHit), Some(&Problem::Number(0, 10_000)));
    }
    let off = plan(&options, &local(&[("push_message_per_hit", "abc")])).unwrap();
    assert_eq!(change(&off, Key::PushMessagePerHit), None, "disabled while push is off");
}

#[test]
fn s_056_selecting_no_site_clears_the_list() {
    let stored = r#"a:1:{s:2:"s2";s:2:"s2";}"#;
    let options = Options::of(&[(Key::NginxVersion, "4"), (Key::ExcludeSites, stored)]);
    let cleared = plan(&options, &local(&[(EXCLUDED_SHOWN, "1")])).unwrap();
    assert_eq!(changed_to(&cleared, Key::ExcludeSites), Some("a:0:{}"));
    let absent = plan(&options, &local(&[])).unwrap();
    assert_eq!(change(&absent, Key::ExcludeSites), None, "the list was not on the page");
    let two = [
        (EXCLUDED_SHOWN, "1"),
        (EXCLUDED, "s1"),
        (EXCLUDED, ""),
        (EXCLUDED, "s1"),
        (EXCLUDED, "s3"),
    ];
    let two = plan(&options, &local(&two)).unwrap();
    assert_eq!(
        changed_to(&two, Key::ExcludeSites),
        Some(r#"a:2:{s:2:"s1";s:2:"s1";s:2:"s3";s:2:"s3";}"#)
    );
    let nothing =
        plan(&options, &form(&[("push_server_mode", "N"), (EXCLUDED_SHOWN, "1")])).unwrap();
    assert_eq!(change(&nothing, Key::ExcludeSites), None, "hidden without a server");
}

#[test]
fn websockets_are_on_since_push_server_1_and_never_with_the_first_module() {
    for (generation, sent, expected) in [
        ("1", true, "N"),
        ("2", true, "Y"),
        ("2", false, "N"),
        ("3", false, "Y"),
        ("5", false, "Y"),
    ] {
        let options = Options::of(&[(Key::Websocket, if expected == "Y" { "N" } else { "Y" })]);
        let mut fields = vec![("nginx_version", generation)];
        if sent {
            fields.push(("websocket", "Y"));
        }
        let plan = plan(&options, &local(&fields)).unwrap();
        assert_eq!(changed_to(&plan, Key::Websocket), Some(expected), "{generation} {sent}");
    }
}

#[test]
fn s_059_the_cloud_is_registered_at_before_anything_is_saved() {
    let options = Options::of(&[(Key::Nginx, "Y"), (Key::NginxVersion, "4")]);
    let fields = [
        ("push_server_mode", "shared"),
        (CLOUD_HOST, " rtc.test "),
        ("push", "Y"),
        ("push_message_per_hit", "10"),
    ];
    let plan = plan(&options, &form(&fields)).unwrap();
    assert_eq!(plan.registers_at.as_deref(), Some("rtc.test"));
    assert_eq!(change(&plan, Key::ServerMode), None, "until it has worked");
    assert_eq!(changed_to(&plan, Key::Push), Some("Y"));
    let registered =
        Options::of(&[(Key::ServerMode, "shared"), (Key::RegisteredOnSharedServer, "Y")]);
    let again = super::plan(&registered, &form(&fields)).unwrap();
    assert_eq!(again.registers_at, None);
}

#[test]
fn pinned_values_stay() {
    let options = Options::pinned(&[(Key::SignatureKey, KEY)]);
    let plan = plan(&options, &local(&[("signature_key", "another key of 32 characters, I say")]));
    assert_eq!(change(&plan.unwrap(), Key::SignatureKey), None);
    let set = [(Key::SignatureKey, Some("another"))];
    assert_eq!(
        check(&options, &set, false).unwrap_err().get(&Key::SignatureKey),
        Some(&Problem::Pinned)
    );
    let same = [(Key::SignatureKey, Some(KEY))];
    assert_eq!(check(&options, &same, false), Ok(()));
}

#[test]
fn single_options_follow_the_same_rules() {
    let options = Options::of(&[(Key::NginxVersion, "4")]);
    let check = |key: Key, value: &str| check(&options, &[(key, Some(value))], false);
    assert_eq!(check(Key::PathToPublish, ""), Ok(()), "back to the default");
    for (key, value, problem) in [
        (Key::PathToPublish, "x", Problem::Address),
        (Key::PathToWebsocket, "x", Problem::SocketAddress),
        (Key::PushMessagePerHit, "x", Problem::Number(0, 10_000)),
        (Key::SignatureKey, "", Problem::EmptyKey),
        (Key::Push, "maybe", Problem::Choice),
        (Key::SignatureAlgo, "crc", Problem::Choice),
    ] {
        assert_eq!(check(key, value).unwrap_err().get(&key), Some(&problem), "{}", key.name());
    }
    let long = "x".repeat(4097);
    assert_eq!(
        check(Key::SignatureKey, &long).unwrap_err().get(&Key::SignatureKey),
        Some(&Problem::Length)
    );
}

#[test]
fn keys_are_judged_by_length_and_variety() {
    assert_eq!(KeyStrength::of(""), KeyStrength::Missing);
    assert_eq!(KeyStrength::of(&KEY[..31]), KeyStrength::Weak);
    assert_eq!(KeyStrength::of(KEY), KeyStrength::Strong);
    assert_eq!(KeyStrength::of(&"x".repeat(64)), KeyStrength::Weak);
}

#[test]
fn what_leads_elsewhere_changes_the_way() {
    let options =
        Options::of(&[(Key::Nginx, "Y"), (Key::NginxVersion, "4"), (Key::SignatureKey, KEY)]);
    let of = |fields: &[(&str, &str)]| plan(&options, &local(fields)).unwrap().changes_way();
    assert!(!of(&[]) && !of(&[("push", "Y")]));
    assert!(of(&[("path_to_publish", "http://elsewhere/")]) && of(&[("nginx_version", "5")]));
}
